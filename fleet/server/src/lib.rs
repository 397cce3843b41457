//! The fleet service's library: which devices there are ([`inventory`]), which of them are meant ([`filter`]), what they
//! are to run next ([`planner`]), what must not be forgotten ([`store`]), the bytes that are deployed ([`blobs`]), and how
//! they come in ([`registry`]).
//!
//! The inventory, filters and the planner are arithmetic: nothing there opens a socket or a file, draws a random number or
//! reads a clock. Whoever calls [`planner::plan`] stores what it returns and sends the orders.
//! The fleet service's library: which devices there are ([`inventory`]), which of them are meant ([`filter`]), and what they
//! are to run next ([`planner`]); who a device is ([`identity`], [`tls`]), and how it is spoken to ([`broker`],
//! [`device_port`]).
//!
//! Deciding is apart from doing: [`inventory`], [`filter`] and [`planner`] open no socket or file, draw no random number and read
//! no clock. Whoever calls [`planner::plan`] stores what it returns and sends the orders.
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
pub mod broker;
mod bucket;
pub mod device_port;
pub mod filter;
pub mod identity;
pub mod inventory;
pub mod planner;
pub mod registry;
pub mod serve;
pub mod service;
pub mod settings;
pub mod store;
pub mod tls;

pub use filter::{Filter, FilterError};
pub use inventory::{Device, Inventory};
