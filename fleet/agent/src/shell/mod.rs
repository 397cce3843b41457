//! The agent as a program: what hears events for the [reconciler](crate::reconcile) and does what it says.
//!
//! One thread runs tokio and decides; two others wait for disks and children: one does the [steps](step) of a deployment, one
//! owns the [pipeline]. Whatever the fleet service does, or whether there is one, changes nothing for the pipeline that runs.
//!
//! ```text
//! agent/
//!   identity.json       who the device is, and its key; mode 600
//!   state.json, model/, pipeline/, package/     the slots
//!   programs/<digest>   packages, executable
//!   plans/              what is being fetched or built for a model's trial; gone afterwards
//!   events/             what the service has not stored yet
//!   numbers.json, update.json, running.json     what outlives a restart
//!   pipeline.log        what the pipeline and the agent say
//!   pipeline.sock, agent.sock
//! ```

mod child;
mod commands;
mod config;
mod core;
mod facts;
mod fetch;
mod identity;
mod labelled;
mod learner;
mod link;
mod log;
mod notify;
mod numbers;
mod pipeline;
mod plan;
mod program;
mod report;
mod service;
mod spool;
mod status;
mod step;
mod target;
mod tls;
mod update;
mod vitals;

use std::path::{Path, PathBuf};

pub use config::{Address, AddressError, AgentConfig, ConfigError, LearningConfig, Limits};
pub use core::{Ending, Options, ShellError, run};
pub use facts::{DeviceFacts, FACTS_VERB};
pub use identity::{Identity, IdentityError};
pub use notify::Notify;
pub use numbers::NumbersError;
pub use service::{ServiceError, enrol};
pub use spool::SpoolError;
pub use status::{Counts, Status, StatusError, ask};
pub use tls::TlsError;
pub use update::UpdateError;
pub use vitals::Vitals;

/// Where an agent keeps who it is.
pub fn identity_path(folder: &Path) -> PathBuf {
    folder.join("identity.json")
}

/// Where an agent answers [`ask`].
fn socket(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}
