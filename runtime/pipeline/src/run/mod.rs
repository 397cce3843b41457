//! The running pipeline: its threads, what joins them, and what it tells about itself.
//!
//! ```text
//! source ─ decode thread ─ queue ┐                                   ┌ analyse ─ draw ─ sinks
//! source ─ decode thread ─ queue ┼ mux → infer thread → output thread┤
//! source ─ decode thread ─ queue ┘      (two sessions go round)      └ statistics
//! ```
//!
//! One thread per stream, one that stages and infers, one that reads answers and writes results,
//! and the caller's, which watches over them. Ownership moves forward through bounded queues. A
//! stream that ends, dies, stalls or floods reaches nobody but its own queue.
//!
//! Shutdown is one path: streams are halted, what is queued is finished within a deadline, sinks
//! are completed, and what was lost is counted.

mod analysis;
mod cascade;
mod clock;
mod commands;
mod filter;
mod infer;
mod labelling;
mod model;
mod output;
mod perf;
mod queue;
mod rebuild;
mod reconnect;
mod reload;
mod sessions;
mod shadow;
mod stats;
mod stop;
mod stream;
mod summary;
mod supervisor;
mod swap;
mod tiles;
mod timeline;
mod trackers;

use std::io;
use std::sync::Arc;

use revoada_core::{Clock, StreamId};
use revoada_engine::BackendOptions;
use thiserror::Error;

use crate::analyse::RuleError;
use crate::config::{PipelineConfig, SinkConfig};
use crate::control::ServerError;
use crate::draw::DrawError;
use crate::sink::SinkContext;
use crate::{Sink, SinkError, SourceError, media, sink};

pub use cascade::SecondarySummary;
pub use clock::{SystemClock, WallClock};
pub use filter::UnknownClass;
pub use model::{Answer, Loader, Model, ModelError, ModelSession};
pub use rebuild::{Build, Rebuild};
pub use reconnect::{Next, Reconnect};
pub use shadow::ShadowSummary;
#[cfg(test)]
pub(crate) use stats::Dropped;
pub(crate) use stats::{RunStats, Step, StepTimes, StreamStats};
pub use stop::{StopFlag, StopLevel};
pub use stream::OpenSource;
pub use summary::{FramesDropped, Latencies, Latency, RunSummary, StreamState, StreamSummary};

/// Opens a destination; [`sink::open`] outside tests.
pub type OpenSink = dyn Fn(&SinkConfig, &SinkContext) -> Result<Box<dyn Sink>, SinkError> + Send + Sync;

/// Reads the configuration again, for `reload` on the control socket; an error is a sentence.
pub type Reread = dyn Fn() -> Result<PipelineConfig, String> + Send + Sync;

/// Told how far a run has come.
pub type Progress = dyn FnMut(&RunSummary) + Send;

/// What a pipeline is put together from; tests bring their own.
pub struct Parts {
    pub loader: Arc<Loader>,
    /// Builds the plan that a bundle lacks while its ONNX model runs; `None` leaves it at that.
    pub rebuild: Option<Rebuild>,
    pub clock: Arc<dyn Clock>,
    /// Whose origin is that of Unix time; for the events of live streams.
    pub wall_clock: Arc<dyn Clock>,
    pub open_source: Arc<OpenSource>,
    pub open_sink: Box<OpenSink>,
    /// `None`: there is no file to read again, and `reload` is refused.
    pub reread: Option<Box<Reread>>,
    /// Where `**PERF:` lines go. They are no results: standard error, although DeepStream prints
    /// them to standard output.
    pub perf: Box<dyn io::Write + Send>,
    /// Called about twice a second with the statistics so far, for a progress bar.
    pub progress: Option<Box<Progress>>,
}

impl Parts {
    /// The real ones.
    pub fn new(options: &BackendOptions) -> Self {
        Self {
            loader: Arc::new(Loader::new(options)),
            rebuild: None,
            clock: Arc::new(SystemClock::start()),
            wall_clock: Arc::new(WallClock),
            open_source: Arc::new(|stream, clock| media::open(stream, Arc::clone(clock))),
            open_sink: Box::new(sink::open),
            reread: None,
            perf: Box::new(io::stderr()),
            progress: None,
        }
    }
}

/// Why a pipeline could not start, or ended early.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Draw(#[from] DrawError),
    #[error(transparent)]
    Rules(#[from] RuleError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error(transparent)]
    Control(#[from] ServerError),
    #[error("cannot start thread `{name}`")]
    Thread {
        name: String,
        #[source]
        source: io::Error,
    },
    /// No frame of any stream was written; this is the first stream that failed.
    #[error("stream `{id}` failed")]
    Stream {
        id: StreamId,
        #[source]
        source: StreamError,
    },
    /// A bug. The thread's message is on standard error.
    #[error("thread `{name}` panicked")]
    Panicked { name: String },
    #[error("abandoned before its outputs were complete")]
    Abandoned,
}

/// Why one stream ended early.
#[derive(Debug, Error)]
pub enum StreamError {
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A bug. The thread's message is on standard error.
    #[error("its thread panicked")]
    Panicked,
}

/// Runs a pipeline until its streams have ended or it is asked to stop, and completes its outputs.
///
/// A stream that fails does not end the others: the summary names it
/// ([`RunSummary::failures`]). Where nothing at all was written because of that, it is an error and
/// no output is left behind. After a failing sink or model, what was written until then is completed
/// in the other sinks.
pub fn run(config: PipelineConfig, parts: Parts, stop: &StopFlag) -> Result<RunSummary, RunError> {
    supervisor::Supervisor::start(config, parts, stop)?.run()
}
