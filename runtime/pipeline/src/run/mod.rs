//! The running pipeline: its threads, what joins them, and what it tells about itself.

mod clock;
mod reconnect;
mod summary;

pub use clock::SystemClock;
pub use reconnect::{Next, Reconnect};
pub use summary::{FramesDropped, Latencies, Latency, RunSummary, StreamState, StreamSummary};
