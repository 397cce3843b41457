//! What a run tells about itself, while it runs and at its end. The same JSON answers `stats` on
//! the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::cascade::SecondarySummary;
use super::shadow::ShadowSummary;
use crate::sink::record::CountsRecord;
use crate::sink::{DeliverySummary, RecordingSummary};

/// All streams of a run, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// From the first frame that was decoded to the last that was written.
    pub elapsed_s: f64,
    pub frames_in: u64,
    pub frames_out: u64,
    pub frames_dropped: u64,
    pub detections: u64,
    /// Objects that were followed.
    #[serde(default)]
    pub tracks: u64,
    /// Scores and boxes that were NaN or infinite, and are no results: a network that broke.
    pub non_finite: u64,
    /// How often another model took over.
    #[serde(default)]
    pub swaps: u64,
    /// How long nothing was inferred because two models did not fit into memory.
    #[serde(default)]
    pub swap_gap_s: f64,
    /// Of all streams together.
    pub fps: f64,
    /// Frames of one inference, on average.
    pub batch_frames_mean: f64,
    /// The largest batch that a plan of the model is to run.
    #[serde(default)]
    pub rows_max: usize,
    pub latency: Latencies,
    /// Of each `[[secondary]]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secondaries: Vec<SecondarySummary>,
    /// Of each sink that delivers events to another machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<DeliverySummary>,
    /// Of each sink that records the seconds around events.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recordings: Vec<RecordingSummary>,
    /// Of the second model that follows, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowSummary>,
    pub streams: Vec<StreamSummary>,
    /// Outputs that are complete and in place; empty while the run goes on.
    pub files: Vec<PathBuf>,
}

impl RunSummary {
    /// Streams that ended with an error, for the exit status.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        let failed = self.streams.iter().filter(|stream| stream.state == StreamState::Failed);
        failed.filter_map(|stream| Some((stream.id.as_str(), stream.error.as_deref()?)))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamSummary {
    pub id: String,
    pub state: StreamState,
    /// Why it ended early, or what it is waiting to come back.
    pub error: Option<String>,
    /// Left the decoder.
    pub frames_in: u64,
    /// Reached the sinks.
    pub frames_out: u64,
    pub frames_dropped: FramesDropped,
    pub queue_frames: u64,
    pub reconnects: u64,
    pub detections: u64,
    /// Objects that were followed, as far as their tracks were sure: the last track's number.
    #[serde(default)]
    pub tracks: u64,
    /// Of `[analytics]`, where a rule holds for the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<CountsRecord>,
    /// Copies of whole pictures that the pipeline made itself, per frame written.
    pub copies_per_frame: f64,
    /// Frames written per second since the stream's first frame.
    pub fps: f64,
    pub latency: Latencies,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    /// Opening, for the first time.
    #[default]
    Connecting,
    Running,
    /// Lost, and waiting for its next attempt.
    Reconnecting,
    /// Came to its end, or was asked to.
    Ended,
    Failed,
}

impl StreamState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Reconnecting => "reconnecting",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }
}

/// Frames that left the decoder and never reached the sinks, by where they were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FramesDropped {
    /// Asked for: `interval` skips them before staging.
    pub interval: u64,
    /// The oldest of a live stream's full queue.
    pub queue: u64,
    /// Still on the way when the run, or the stream, was ended.
    pub shutdown: u64,
}

impl FramesDropped {
    pub fn total(&self) -> u64 {
        self.interval + self.queue + self.shutdown
    }
}

/// Where frames' time goes. Staging and inference are those of a frame's whole batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    pub queue: Latency,
    pub staging: Latency,
    pub inference: Latency,
    pub decoding: Latency,
    /// Of the further models.
    #[serde(default)]
    pub secondary: Latency,
    #[serde(default)]
    pub tracking: Latency,
    pub drawing: Latency,
    pub writing: Latency,
    /// From leaving the decoder to entering the sinks.
    pub total: Latency,
}

impl Latencies {
    /// In the order of a frame's way, with the names that metrics use.
    pub fn stages(&self) -> [(&'static str, &Latency); 9] {
        [
            ("queue", &self.queue),
            ("staging", &self.staging),
            ("inference", &self.inference),
            ("decoding", &self.decoding),
            ("secondary", &self.secondary),
            ("tracking", &self.tracking),
            ("drawing", &self.drawing),
            ("writing", &self.writing),
            ("total", &self.total),
        ]
    }
}

/// Quantiles in milliseconds, to about one percent; zero where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}
