//! What passes between the parts of a pipeline.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use revoada_core::{Frame, Prediction, StreamId, Timestamp};
use thiserror::Error;

use crate::analyse::Analysis;

/// What a source has for its reader.
#[derive(Debug)]
pub enum Pull {
    Frame(Frame),
    /// Nothing within the timeout; ask again.
    Idle,
    /// There will be no more.
    End,
}

/// One stream's frames. Lives on its own thread.
pub trait Source: Send {
    /// The next frame, waiting at most `timeout`. After `End` or an error there is nothing more.
    fn pull(&mut self, timeout: Duration) -> Result<Pull, SourceError>;

    /// How many whole pictures were copied so far on their way from the decoder's memory.
    fn copies(&self) -> u64 {
        0
    }
}

/// Why a stream ended early. `Lost` may come back: the caller reconnects with back-off.
#[derive(Debug, Error)]
pub enum SourceError {
    /// Will not get better: no such file, not a video, no decoder for it.
    #[error("cannot open `{uri}`: {reason}")]
    Open { uri: String, reason: String },
    /// Began well and then broke: a truncated or corrupt file.
    #[error("`{uri}` broke off after {frames} frames: {reason}")]
    Broken { uri: String, frames: u64, reason: String },
    /// A camera or server that is absent or went away, and may return.
    #[error("lost `{uri}`: {reason}")]
    Lost { uri: String, reason: String },
}

/// One frame with everything that is known about it.
#[derive(Clone, Debug)]
pub struct FrameResult {
    pub frame: Arc<Frame>,
    /// The time of day when a live stream's frame was captured, since Unix time began; `None` for what is played.
    pub wall: Option<Timestamp>,
    /// The frame as drawn or anonymised; `None` where nothing draws.
    pub drawn: Option<Arc<Frame>>,
    pub prediction: Prediction,
    /// What the detections did; `None` where no rule holds for the stream.
    pub analysis: Option<Arc<Analysis>>,
    /// Names of the classes; an index past its end has no name.
    pub labels: Arc<[String]>,
    pub timings: FrameTimings,
}

impl FrameResult {
    /// What sinks that show pictures show.
    pub fn picture(&self) -> &Arc<Frame> {
        self.drawn.as_ref().unwrap_or(&self.frame)
    }
}

/// Where a frame's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameTimings {
    /// In the stream's queue and the mux.
    pub queued: Duration,
    pub staging: Duration,
    /// Of the frame's whole batch.
    pub inference: Duration,
    pub decoding: Duration,
    /// Of the further models, for the frame's whole batch.
    pub secondary: Duration,
    pub tracking: Duration,
    pub drawing: Duration,
    /// From leaving the decoder to entering the sinks.
    pub total: Duration,
}

/// Where results go. One sink sees the results of all streams, each stream's in order.
pub trait Sink: Send {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError>;

    /// Called about twice a second or more often, whether or not frames come. `now` is of the clock by which frames are
    /// captured.
    fn idle(&mut self, _now: Timestamp) -> Result<(), SinkError> {
        Ok(())
    }

    /// The last frame of `stream` was written while others go on: what is its own can be completed. The
    /// stream may come again.
    fn end_stream(&mut self, _stream: &StreamId) -> Result<(), SinkError> {
        Ok(())
    }

    /// Completes every output; on success the files are whole and in place. A sink that is dropped
    /// without `finish` leaves nothing half written under its final name.
    fn finish(&mut self) -> Result<SinkReport, SinkError>;
}

/// What a sink leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkReport {
    /// Finished files, for the summary.
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Error)]
pub enum SinkError {
    #[error("cannot write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot encode video to `{path}`: {reason}")]
    Encode { path: PathBuf, reason: String },
    #[error("cannot serve on `{address}`")]
    Serve {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot deliver to `{destination}`: {reason}")]
    Deliver { destination: String, reason: String },
    #[error("cannot serve RTSP: {reason}")]
    Rtsp { reason: String },
}
