//! What the fleet service and its devices say to each other.
//!
//! An [`Order`] says what a device is to run. Orders of one device are numbered by [`Generation`], so that an old one that
//! comes late, or again, is harmless.
//!
//! It is *not* a transport: nothing here opens a socket or reads a clock.
//!
//! ```
//! use revoada_proto::{Deployable, DeviceId, Generation, Kind, Order};
//! use revoada_core::Digest;
//!
//! let device: DeviceId = "gate-7".parse()?;
//! let model = Deployable { kind: Kind::Model, digest: Digest::new([7; 32]) };
//! let order = Order { generation: Generation(3), deployables: [model].into() };
//! assert!(order.generation > Generation(2));
//! assert_eq!(order.of(Kind::Model), Some(Digest::new([7; 32])));
//! # assert_eq!(device.as_str(), "gate-7");
//! # Ok::<(), revoada_proto::DeviceIdError>(())
//! ```
#![forbid(unsafe_code)]

mod device_id;
mod order;

pub use device_id::{DeviceId, DeviceIdError};
pub use order::{Deployable, Generation, Kind, Order};
