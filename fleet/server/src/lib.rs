//! The fleet service.
//!
//! Deciding is apart from doing. [`inventory`], [`filter`] and [`planner`] open no socket or file, draw no random number and
//! read no clock; [`store`] and [`blobs`] keep what must not be forgotten, and [`registry`] takes in what can be deployed.
//! [`identity`] and [`tls`] say who a device is, [`broker`] and [`device_port`] speak with it. [`service`] is all of that put
//! together and asked by operators, through [`api`] and the pages of [`console`]; [`serve`] runs it in one process as
//! [`settings`] say.
//!
//! ```
//! use revoada_core::Timestamp;
//! use revoada_fleet::{Device, Filter};
//!
//! let filter: Filter = "tag = entrance and version >= 1.2.0 and not seen > 7d".parse()?;
//! let device = Device {
//!     tags: ["entrance".to_owned()].into(),
//!     version: Some(semver::Version::new(1, 10, 0)),
//!     seen: Some(Timestamp::ZERO),
//!     ..Device::default()
//! };
//! assert!(filter.matches(&"gate-7".parse()?, &device, Timestamp::ZERO));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod acceptor;
pub mod api;
pub mod blobs;
mod blocking;
pub mod broker;
mod bucket;
pub mod console;
pub mod device_port;
pub mod filter;
pub mod flower;
pub mod identity;
pub mod inventory;
pub mod learning;
pub mod planner;
pub mod registry;
pub mod serve;
pub mod service;
pub mod settings;
pub mod simulate;
pub mod store;
pub mod tls;

pub use filter::{Filter, FilterError};
pub use inventory::{Device, Inventory};
