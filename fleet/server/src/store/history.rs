//! What devices measured, ever coarser with its age.

use std::ops::Range;
use std::time::Duration;

use revoada_core::Timestamp;
use revoada_proto::DeviceId;

use super::Result;

/// Far more than anything that is measured, and so little that no sum of it overflows.
pub const VALUE_MAX: f64 = 1e15;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gauge {
    /// Frames a second of all streams together.
    Fps,
    /// Milliseconds from capture to result.
    Latency,
    /// With the model before, 0 to 1.
    Agreement,
    /// Of a classifier, on labelled pictures, 0 to 1.
    Accuracy,
    /// Degrees Celsius.
    Temperature,
    /// Watts of the whole board.
    Power,
    /// Of the pipeline, since it last changed.
    Restarts,
    /// Shares, 0 to 1.
    Processor,
    Gpu,
    Memory,
    Disk,
}

impl Gauge {
    pub const ALL: [Self; 11] = [
        Self::Fps,
        Self::Latency,
        Self::Agreement,
        Self::Accuracy,
        Self::Temperature,
        Self::Power,
        Self::Restarts,
        Self::Processor,
        Self::Gpu,
        Self::Memory,
        Self::Disk,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Fps => "fps",
            Self::Latency => "latency",
            Self::Agreement => "agreement",
            Self::Accuracy => "accuracy",
            Self::Temperature => "temperature",
            Self::Power => "power",
            Self::Restarts => "restarts",
            Self::Processor => "processor",
            Self::Gpu => "gpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}

/// How much time a bucket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    Minute,
    QuarterHour,
    Day,
}

impl Step {
    pub const ALL: [Self; 3] = [Self::Minute, Self::QuarterHour, Self::Day];

    pub const fn length(self) -> Duration {
        match self {
            Self::Minute => Duration::from_mins(1),
            Self::QuarterHour => Duration::from_mins(15),
            Self::Day => Duration::from_hours(24),
        }
    }

    /// How long buckets of it are kept.
    pub const fn kept(self) -> Duration {
        match self {
            Self::Minute => Duration::from_hours(2),
            Self::QuarterHour => Duration::from_hours(3 * 24),
            Self::Day => Duration::from_hours(400 * 24),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub device: DeviceId,
    pub gauge: Gauge,
    pub at: Timestamp,
    pub value: f64,
}

/// What was measured from `start` on, for the length of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub start: Timestamp,
    pub samples: u64,
    pub mean: f64,
    pub min: f64,
    pub max: f64,
}

/// The past of all devices.
pub trait History {
    /// Counts samples into the buckets of every step. Those that are further from zero than [`VALUE_MAX`] or not finite, and
    /// those of devices that are not enrolled, are left out.
    fn record_samples(&self, samples: &[Sample]) -> Result<()>;

    /// Buckets that begin in a range, the oldest first. Those in which nothing was measured are not there.
    fn history(&self, device: &DeviceId, gauge: Gauge, step: Step, range: Range<Timestamp>) -> Result<Vec<Bucket>>;

    /// Removes what is older than it is [kept](Step::kept).
    fn compact(&self, now: Timestamp) -> Result<()>;
}
