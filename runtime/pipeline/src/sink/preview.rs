//! Live pictures in a browser, by the pipeline's HTTP server.

use std::io;
use std::sync::Arc;

use super::SinkContext;
use crate::http::{Hub, StreamOptions};
use crate::{FrameResult, Sink, SinkError, SinkReport};

/// Hands each frame to the hub and never waits for who watches.
pub(super) struct PreviewSink {
    hub: Arc<Hub>,
}

impl PreviewSink {
    pub(super) fn open(quality: u8, fps_max: u32, context: &SinkContext) -> Result<Self, SinkError> {
        let hub = context.hub.clone().ok_or_else(|| SinkError::Serve {
            address: "no address".to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidInput, "a preview needs the pipeline's HTTP address"),
        })?;
        for stream in &context.streams {
            hub.open_stream(stream, StreamOptions { quality, fps_max });
        }
        Ok(Self { hub })
    }
}

impl Sink for PreviewSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        self.hub.publish(result.picture());
        Ok(())
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        Ok(SinkReport::default())
    }
}
