//! What the fleet service must not forget, behind one trait.
//!
//! [`Store`] is one idea a part: [`Devices`], [`Identity`], [`Registry`], [`Rollouts`], [`Commands`], [`Events`],
//! [`History`], [`Alerts`], [`Learning`], [`People`], [`Audit`] and [`Upkeep`]. It speaks the service's own types; SQL stops below it.
//! Methods block, and are called from threads that may. What one of them returned for is durable, and each is one
//! transaction: all of it or nothing.
//!
//! Times are by the service's clock, since the Unix epoch. What a person changes takes who it was, and goes into the audit
//! log in the transaction of the change.

mod alerts;
mod audit;
mod commands;
mod devices;
mod events;
mod history;
mod identity;
mod learning;
mod people;
mod registry;
mod rollouts;
pub mod sqlite;
mod upkeep;

use std::error::Error;
use std::path::PathBuf;

use thiserror::Error;

pub use alerts::{ALERTS_MAX, Alert, AlertRule, Alerts, RULES_MAX};
pub use audit::{Actor, Audit, AuditCheck, AuditEntry};
pub use commands::{Answer, COMMANDS_MAX, CommandRecord, CommandState, Commands, OPEN_COMMANDS_MAX};
pub use devices::{DeviceRecord, Devices, Heard, TAGS_MAX};
pub use events::{EVENTS_MAX, EventQuery, EventRecord, Events, Occurrence};
pub use history::{Bucket, Gauge, History, Sample, Step, VALUE_MAX};
pub use identity::{Certificate, EnrolmentToken, Identity, RegisteredKey, Taken, TokenScope};
pub use learning::{Learning, NODES_MAX, RunChanges, RunRecord, WEIGHTS_KEPT};
pub use people::{ApiToken, BrowserSession, People, Role, User};
pub use registry::{Artefact, ArtefactFile, ArtefactVersion, BlobRecord, PLANS_MAX, PlanRecord, Registry};
pub use rollouts::{RolloutNote, Rollouts, StoredPolicy};
pub use upkeep::Upkeep;

use crate::planner::PolicyError;

/// Of one page of anything; who asks for more gets so many.
pub const PAGE_MAX: usize = 1000;

/// Of a name that a person gives to something.
pub const NAME_BYTES_MAX: usize = 128;

/// Of any other text that a person writes.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// Everything that the fleet service keeps.
pub trait Store:
    Devices
    + Identity
    + Registry
    + Rollouts
    + Commands
    + Events
    + History
    + Alerts
    + Learning
    + People
    + Audit
    + Upkeep
    + Send
    + Sync
{
}

impl<S> Store for S where
    S: Devices
        + Identity
        + Registry
        + Rollouts
        + Commands
        + Events
        + History
        + Alerts
        + Learning
        + People
        + Audit
        + Upkeep
        + Send
        + Sync
{
}

/// Which part of a list that is newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// What is older than this number; `None` begins with the newest.
    pub before: Option<u64>,
    /// At most [`PAGE_MAX`] are given.
    pub limit: usize,
}

impl Page {
    /// The newest `limit`.
    pub const fn first(limit: usize) -> Self {
        Self { before: None, limit }
    }
}

/// Why nothing was stored or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("cannot open the database `{path}`")]
    Open {
        path: PathBuf,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the database `{path}` is of version {found}; this program knows up to {known}, so run a later one on it")]
    Later { path: PathBuf, found: u32, known: u32 },
    #[error("the database is damaged: {what}")]
    Damaged { what: String },
    #[error("cannot {operation}")]
    Failed {
        operation: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("there is no {what} `{name}`")]
    Missing { what: &'static str, name: String },
    #[error("there is a {what} `{name}` already")]
    Exists { what: &'static str, name: String },
    #[error("{what} `{name}` is in use: {by}")]
    InUse { what: &'static str, name: String, by: String },
    #[error("{what} may be at most {max}")]
    TooMany { what: &'static str, max: usize },
    #[error("`{name}` is the last administrator who can sign in")]
    LastAdministrator { name: String },
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

pub type Result<T> = std::result::Result<T, StoreError>;
