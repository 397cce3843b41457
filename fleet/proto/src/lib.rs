//! What the fleet service and its devices say to each other.
//!
//! An [`Order`] says what a device is to run. Orders of one device are numbered by [`Generation`], so that an old one that
//! comes late, or again, is harmless; so are [`Command`]s. An [`Invitation`] asks to learn. Devices answer with [`Report`]s and
//! [`Event`]s. All of them are [messages](message) on the [topics](topic) of MQTT; [`wire`] has the services of gRPC.
//! [`flower`] is what clients of Flower speak, whose protocol is not ours.
//!
//! [`control`] is how a device's own programs speak to its running pipeline.
//!
//! It is *not* a transport: but for the client of the control socket, nothing here opens a socket or reads a clock.
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

mod command;
pub mod control;
mod device_id;
mod invitation;
mod label;
pub mod message;
mod order;
mod report;
mod token;
pub mod topic;

/// What Flower's clients speak, as it is generated: the messages and services of `flower/`.
#[allow(unreachable_pub, missing_docs, clippy::all)]
pub mod flower {
    tonic::include_proto!("flwr.proto");
}

/// The messages and services of `device.proto`, as they are generated.
#[allow(unreachable_pub, missing_docs, clippy::all)]
pub mod wire {
    tonic::include_proto!("revoada.v1");

    /// For gRPC's reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}

pub use command::{Ask, Command};
pub use device_id::{DeviceId, DeviceIdError};
pub use invitation::{Invitation, LearnSettings};
pub use label::{Label, LabelError};
pub use message::{Dispatch, MessageError, Receipt, Signed};
pub use order::{Deployable, Generation, Kind, Order};
pub use report::{
    Blame, CommandResult, Details, Event, Fact, Figures, Level, Progress, Report, SlotContent, StreamHealth,
};
pub use token::{EnrolmentToken, EnrolmentTokenError};
pub use topic::{Channel, Topic};
