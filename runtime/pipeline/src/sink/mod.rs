//! Where results go: files, pictures, a browser, another machine.
//!
//! A file appears under its name when its sink finishes, and then replaces what stood there at
//! once; until then it is `.name.partial` beside it, and a sink that is dropped unfinished removes
//! that. The folder of a file must exist: a mistyped path fails at the start.

mod courier;
mod csv;
mod delivery;
mod events;
mod folder;
mod images;
mod jsonl;
mod kept;
mod kitti;
mod messages;
mod mqtt;
mod output;
pub mod payload;
mod picture;
mod preview;
pub mod record;
mod recording;
#[cfg(feature = "rtsp-server")]
mod rtsp;
mod snapshots;
mod video;
mod webhook;

use std::sync::Arc;

use revoada_core::{Clock, StreamId};

use crate::config::SinkConfig;
use crate::http::Hub;
use crate::{FrameResult, Sink, SinkError, SinkReport};

pub use delivery::{Deliveries, DeliverySummary};
pub(crate) use output::file_name;
pub use picture::{jpeg, png, rgb};
pub use recording::{RecordingSummary, Recordings};

/// What sinks need to know of the pipeline they end.
#[derive(Clone)]
pub struct SinkContext {
    /// All streams whose results may come.
    pub streams: Vec<StreamId>,
    /// The model's name, for headers.
    pub model: String,
    /// The model's classes.
    pub labels: Arc<[String]>,
    /// Where a preview shows its pictures; `None` where the pipeline serves no HTTP.
    pub hub: Option<Arc<Hub>>,
    /// Where sinks that deliver events count them.
    pub deliveries: Deliveries,
    /// What is written does not tell how long anything took.
    pub deterministic: bool,
    /// Where sinks that record count that, and hear of requests.
    pub recordings: Recordings,
    /// The time of day, for what is kept for so many days.
    pub wall_clock: Arc<dyn Clock>,
}

/// Opens one destination. What can be known to fail — a missing folder, a port in use — fails here,
/// before any frame is decoded.
pub fn open(config: &SinkConfig, context: &SinkContext) -> Result<Box<dyn Sink>, SinkError> {
    Ok(match config {
        SinkConfig::JsonLines { path } => Box::new(jsonl::JsonLinesSink::open(path, context)?),
        SinkConfig::Events { path, snapshots } => {
            Box::new(events::EventsSink::open(path, snapshots.as_ref(), context)?)
        }
        SinkConfig::Mqtt(config) => Box::new(events::DeliverySink::mqtt(config, context)?),
        SinkConfig::Webhook(config) => Box::new(events::DeliverySink::webhook(config, context)?),
        SinkConfig::Csv { path } => Box::new(csv::CsvSink::open(path, context)?),
        SinkConfig::Images { folder, format, every } => {
            Box::new(images::ImagesSink::open(folder, *format, *every, context)?)
        }
        SinkConfig::Preview { quality, fps_max } => Box::new(preview::PreviewSink::open(*quality, *fps_max, context)?),
        SinkConfig::Kitti { folder, tracks } => Box::new(kitti::KittiSink::open(folder, *tracks, context)?),
        SinkConfig::Messages { path, payload, every } => {
            Box::new(messages::MessagesSink::open(path, *payload, *every, context)?)
        }
        SinkConfig::None => Box::new(Discard),
        SinkConfig::Video { path, bitrate_kbps } => Box::new(video::VideoSink::open(path, *bitrate_kbps, context)?),
        SinkConfig::Recording(config) => Box::new(recording::RecordingSink::open(config, context)?),
        #[cfg(feature = "rtsp-server")]
        SinkConfig::Rtsp { address, bitrate_kbps } => Box::new(rtsp::RtspSink::open(*address, *bitrate_kbps)?),
        #[cfg(not(feature = "rtsp-server"))]
        SinkConfig::Rtsp { .. } => {
            return Err(SinkError::Rtsp { reason: "this program was built without feature `rtsp-server`".to_owned() });
        }
    })
}

/// For measuring everything before it.
struct Discard;

impl Sink for Discard {
    fn write(&mut self, _: &FrameResult) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        Ok(SinkReport::default())
    }
}

#[cfg(test)]
mod tests;
