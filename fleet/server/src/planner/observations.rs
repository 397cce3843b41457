//! What devices say.

use std::collections::BTreeMap;
use std::time::Duration;

use revoada_core::Digest;
use revoada_proto::{DeviceId, Generation, Kind};

/// The newest report of each device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    pub(super) reports: BTreeMap<DeviceId, Report>,
}

/// How a device is.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Rises with every report of the device, over restarts too.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    Working,
    /// Everything that the order names runs, and was found healthy.
    Done,
    /// The device went back by itself to what ran before.
    Failed {
        why: String,
        blame: Blame,
    },
}

/// Whether another try may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// No room, no network, no power: it may.
    Device,
    /// It crashed, or failed its self-test: it would again.
    Deployable,
}

/// What a device measured since it last changed what it runs. What is not finite counts as not measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    pub over: Duration,
    pub restarts: u32,
    /// Of all streams together.
    pub fps: Option<f64>,
    /// From capture to result, the 99th percentile.
    pub latency_ms: Option<f64>,
    /// With the model before, on the same pictures: 0 to 1.
    pub agreement: Option<f64>,
    /// The highest.
    pub temperature_c: Option<f64>,
}

impl Observations {
    /// Takes a report, unless it came late or again. Whether it was taken.
    pub fn observe(&mut self, device: DeviceId, report: Report) -> bool {
        if self.reports.get(&device).is_some_and(|known| known.sequence >= report.sequence) {
            return false;
        }
        self.reports.insert(device, report);
        true
    }

    /// Drops the reports of devices that are not to be kept.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&DeviceId) -> bool) {
        self.reports.retain(|device, _| is_kept(device));
    }

    pub fn of(&self, device: &DeviceId) -> Option<&Report> {
        self.reports.get(device)
    }
}
