//! How the agent is, for whoever asks on the device.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use revoada_core::Digest;
use revoada_proto::{Generation, Kind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
const BYTES_MAX: u64 = 1 << 20;

/// What a running agent says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// `None` before enrolment.
    pub device: Option<String>,
    pub server: String,
    pub is_connected: bool,
    /// Of the newest order that was accepted.
    pub generation: Generation,
    /// How far it is with that, for people.
    pub progress: String,
    pub running: BTreeMap<Kind, Digest>,
    pub fps: Option<f64>,
    pub latency_ms: Option<f64>,
    pub temperature_c: Option<f64>,
    pub restarts: u32,
    /// Events that the service has not stored yet.
    pub events_waiting: usize,
    pub counts: Counts,
}

/// What has happened since the agent began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub orders_accepted: u64,
    /// Bad signature, another device's, stale, expired.
    pub orders_refused: u64,
    pub commands_done: u64,
    /// Bad signature, another device's, expired, too many at once.
    pub commands_refused: u64,
    /// Commands that came again; they were not done again.
    pub commands_repeated: u64,
    pub commits: u64,
    pub rollbacks: u64,
    pub crashes: u64,
    pub reports_failed: u64,
    pub receipts: u64,
}

#[derive(Debug, Error)]
pub enum StatusError {
    #[error("no agent runs on `{}`", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the agent on `{}` does not answer", path.display())]
    Answer {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Asks the agent whose folder this is.
pub fn ask(folder: &Path) -> Result<Status, StatusError> {
    let path = super::socket(folder);
    let cannot_answer = |source| StatusError::Answer { path: path.clone(), source };
    let stream = UnixStream::connect(&path).map_err(|source| StatusError::Connect { path: path.clone(), source })?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX)).map_err(cannot_answer)?;
    let mut text = Vec::new();
    stream.take(BYTES_MAX).read_to_end(&mut text).map_err(cannot_answer)?;
    serde_json::from_slice(&text).map_err(|error| cannot_answer(io::Error::other(error)))
}
