//! What a device says of itself.

use std::collections::BTreeMap;
use std::time::Duration;

use revoada_core::{DeviceClass, Digest};
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::{Generation, Kind};

/// How a device is, as far as it decides what the device is to run next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Rises with every report and event of the device, over restarts too.
    pub sequence: u64,
    /// Of the newest order that the device has taken up.
    pub generation: Generation,
    /// How far it is with that.
    pub progress: Progress,
    pub running: BTreeMap<Kind, Digest>,
    /// Measured of what runs.
    pub figures: Figures,
}

/// How far a device is with its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// With what, for people.
    Working { what: String },
    /// Everything that the order names runs, and was found healthy.
    Done,
    /// The device went back by itself to what ran before.
    Failed { why: String, blame: Blame },
}

/// Whether another try may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// No room, no network, no power: it may.
    Device,
    /// It crashed, or failed its self-test: it would again.
    Deployable,
}

/// What a device measured since it last changed what it runs. What is not finite counts as not measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub over: Duration,
    pub restarts: u32,
    /// Of all streams together.
    pub fps: Option<f64>,
    /// From capture to result, the 99th percentile.
    pub latency_ms: Option<f64>,
    /// With the model before, on the same pictures: 0 to 1.
    pub agreement: Option<f64>,
    /// Of a classifier: on which share, 0 to 1, of the device's labelled pictures its best class is the label.
    pub accuracy: Option<f64>,
    /// The highest.
    pub temperature_c: Option<f64>,
    /// What the whole board takes, in watts.
    pub power_w: Option<f64>,
}

/// What a device says beside that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    pub streams: Vec<StreamHealth>,
    /// Of the program that runs.
    pub version: Option<Version>,
    /// `None` where the device has no GPU that TensorRT runs on.
    pub class: Option<DeviceClass>,
    /// What has changed since the last receipt; everything, after a start.
    pub facts: BTreeMap<String, Fact>,
    /// The last order that was not accepted, and why.
    pub refused: Option<(Generation, String)>,
    pub slots: Vec<SlotContent>,
}

/// A reported value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Fact {
    Number(f64),
    Text(String),
}

/// How a stream of a pipeline is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamHealth {
    pub stream: String,
    /// Since the pipeline was started.
    pub frames: u64,
    /// Lately.
    pub fps: f64,
    pub dropped: u64,
    pub reconnects: u64,
    /// Why it does not run, where it does not.
    pub trouble: Option<String>,
}

/// What lies in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotContent {
    pub kind: Kind,
    /// `a` or `b`.
    pub slot: String,
    pub digest: Digest,
    pub is_active: bool,
}

/// Something that happened on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises with every report and event of the device, over restarts too.
    pub sequence: u64,
    /// Milliseconds of Unix time by the device's clock, which may be wrong.
    pub at_ms: u64,
    pub level: Level,
    /// A word of a small closed set, such as `rolled-back`.
    pub name: String,
    /// For people.
    pub text: String,
    /// Where the event answers a command.
    pub result: Option<CommandResult>,
    /// How many events before this one were dropped at the device's bound.
    pub lost: u64,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A change of lifecycle.
    Info,
    /// Something is degraded.
    Warn,
    /// Somebody is needed.
    Error,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    pub number: u64,
    /// For people, either way.
    pub outcome: Result<String, String>,
}
