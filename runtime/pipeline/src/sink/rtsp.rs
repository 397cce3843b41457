//! Every stream at `rtsp://address/<stream>`.

use std::net::SocketAddr;

use revoada_core::StreamId;

use crate::media::RtspServer;
use crate::{FrameResult, Sink, SinkError, SinkReport};

/// Shows frames to who watches; nobody is waited for.
pub(super) struct RtspSink {
    server: RtspServer,
}

impl RtspSink {
    pub(super) fn open(address: SocketAddr, bitrate_kbps: Option<u32>) -> Result<Self, SinkError> {
        let server = RtspServer::start(address, bitrate_kbps)?;
        tracing::info!(address = %server.address(), "serving RTSP");
        Ok(Self { server })
    }
}

impl Sink for RtspSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        self.server.push(result.picture())
    }

    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        self.server.end_stream(stream);
        Ok(())
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        Ok(SinkReport::default())
    }
}
