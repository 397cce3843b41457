//! Who changed what, in a chain that shows where it was tampered with.

use std::fmt;

use revoada_core::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Page, Result};

/// Who changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    User(String),
    /// An API token, by its name.
    Token(String),
    /// The service itself.
    Service,
}

/// `user anna`, `token ci`, `service`.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user {name}"),
            Self::Token(name) => write!(f, "token {name}"),
            Self::Service => f.write_str("service"),
        }
    }
}

/// One change. Its digest is over all of it and the digest before.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// From 1, without gaps.
    pub number: u64,
    pub at: Timestamp,
    pub by: Actor,
    /// A word of a small closed set, such as `remove-device`.
    pub action: String,
    /// What it was done to.
    pub subject: String,
    pub details: Value,
    /// Of the entry before; zeros before the first.
    pub previous: Digest,
    pub digest: Digest,
}

/// What [`Audit::verify_audit`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditCheck {
    /// Nothing was changed, added between or taken from between. Whether the last entries were taken away shows only where
    /// the head was noted elsewhere.
    Whole { entries: u64, head: Digest },
    /// The first entry that is not as it was written.
    Broken { number: u64, why: String },
}

/// The audit log.
pub trait Audit {
    /// Adds an entry for what changes nothing here: that somebody signed in, or took a backup.
    fn note(&self, by: &Actor, action: &str, subject: &str, details: &Value, now: Timestamp) -> Result<()>;

    /// The newest first. Pages go by number.
    fn audit(&self, page: Page) -> Result<Vec<AuditEntry>>;

    /// Computes the whole chain anew.
    fn verify_audit(&self) -> Result<AuditCheck>;
}
