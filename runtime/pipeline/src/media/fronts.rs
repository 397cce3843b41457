//! Where a [`Chain`]'s pictures come from: files, networks, cameras and test patterns.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use gstreamer as gst;

use gst::prelude::*;

use super::chain::{Chain, link_from_device};
use super::elements::video_test_patterns;
use super::failure::{Cause, Failure};
use crate::config::{CameraMode, RtspTransport, SourceConfig};

/// A server that says nothing for so long is lost.
pub(super) const NETWORK_TIMEOUT: Duration = Duration::from_secs(5);

/// What waits, undecoded, while decoding is slower than the camera: enough for a server that begins
/// with a whole group of pictures. Beyond it the oldest packets are dropped, and the picture is broken
/// until the next key frame.
const BACKLOG: Duration = Duration::from_secs(2);
const BACKLOG_BYTES_MAX: u32 = 32 << 20;

impl Chain {
    /// Starts the pipeline for `source`; there is none for a folder of pictures, which needs no GStreamer.
    pub(super) fn for_source(source: &SourceConfig) -> Result<Self, Failure> {
        match source {
            SourceConfig::File(path) => Self::file(path),
            SourceConfig::Rtsp { url, transport, latency } => Self::rtsp(url, *transport, *latency),
            SourceConfig::Http(url) => Self::http(url),
            SourceConfig::V4l2 { device, mode } => Self::v4l2(device, *mode),
            SourceConfig::Csi { sensor, mode } => Self::csi(*sensor, *mode),
            SourceConfig::Test { pattern, mode, live } => Self::test(pattern, *mode, *live),
            SourceConfig::Images(_) => Err(other("pictures are not video")),
        }
    }

    fn file(path: &Path) -> Result<Self, Failure> {
        let chain = Self::new()?;
        let (source, decoder) = (chain.add("filesrc")?, chain.add("decodebin")?);
        source.set_property("location", path);
        chain.take_video_of(&decoder);
        link(&source, &decoder)?;
        chain.start()
    }

    fn http(url: &str) -> Result<Self, Failure> {
        let chain = Self::new()?;
        let decoder = chain.add("uridecodebin")?;
        decoder.set_property("uri", url);
        chain.take_video_of(&decoder);
        chain.start()
    }

    fn rtsp(url: &str, transport: RtspTransport, latency: Duration) -> Result<Self, Failure> {
        let chain = Self::new()?;
        let (source, backlog, decoder) = (chain.add("rtspsrc")?, chain.add("queue")?, chain.add("decodebin")?);
        chain.take_video_of(&decoder);
        backlog.set_property_from_str("leaky", "downstream");
        backlog.set_property("max-size-buffers", 0u32);
        backlog.set_property("max-size-bytes", BACKLOG_BYTES_MAX);
        backlog.set_property("max-size-time", u64::try_from(BACKLOG.as_nanos()).unwrap_or(u64::MAX));
        link(&backlog, &decoder)?;
        let protocols = match transport {
            RtspTransport::Tcp => "tcp",
            RtspTransport::Udp => "udp",
            RtspTransport::Auto => "udp+tcp",
        };
        source.set_property("location", url);
        source.set_property_from_str("protocols", protocols);
        source.set_property("latency", u32::try_from(latency.as_millis()).unwrap_or(u32::MAX));
        // Over TCP no packet overtakes another: what seems late there comes from a server that begins with
        // the pictures since its last key frame.
        source.set_property("drop-on-latency", transport != RtspTransport::Tcp);
        let timeout = NETWORK_TIMEOUT.as_micros().to_string();
        source.set_property_from_str("timeout", &timeout);
        source.set_property_from_str("tcp-timeout", &timeout);
        // Sound is not even asked for.
        source.connect("select-stream", false, |values| {
            let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
            let media = caps.as_ref().and_then(|caps| caps.structure(0)?.get::<String>("media").ok());
            Some((media.as_deref() == Some("video")).to_value())
        });
        let input = backlog.static_pad("sink").ok_or_else(|| other("`queue` has no pad"))?;
        let watch = chain.watch.clone();
        source.connect_pad_added(move |_, pad| {
            // A second video stream of the same server is left alone.
            if pad.direction() == gst::PadDirection::Src
                && !input.is_linked()
                && let Err(error) = pad.link(&input)
            {
                watch.fail(other(&format!("cannot decode its packets: {error}")));
            }
        });
        chain.start()
    }

    fn v4l2(device: &Path, mode: CameraMode) -> Result<Self, Failure> {
        let chain = Self::new()?;
        let (source, filter, decoder) = (chain.add("v4l2src")?, chain.add("capsfilter")?, chain.add("decodebin")?);
        source.set_property("device", device);
        let modes = ["video/x-raw", "image/jpeg"].map(|media| with_mode(media, mode)).join("; ");
        filter.set_property("caps", caps(&modes)?);
        chain.take_video_of(&decoder);
        link(&source, &filter)?;
        link(&filter, &decoder)?;
        chain.start()
    }

    fn csi(sensor: u32, mode: CameraMode) -> Result<Self, Failure> {
        let chain = Self::new()?;
        let (source, filter) = (chain.add("nvarguscamerasrc")?, chain.add("capsfilter")?);
        source.set_property_from_str("sensor-id", &sensor.to_string());
        filter.set_property("caps", caps(&with_mode("video/x-raw(memory:NVMM)", mode))?);
        link(&source, &filter)?;
        let output = filter.static_pad("src").ok_or_else(|| other("`capsfilter` has no pad"))?;
        link_from_device(&chain.pipeline, &output, &chain.entry).map_err(|reason| other(&reason))?;
        chain.start()
    }

    fn test(pattern: &str, mode: CameraMode, live: bool) -> Result<Self, Failure> {
        let chain = Self::new()?;
        let (source, filter) = (chain.add("videotestsrc")?, chain.add("capsfilter")?);
        let patterns = video_test_patterns(&source);
        if !patterns.iter().any(|known| known == pattern) {
            let reason = format!("there is no test pattern `{pattern}`, only {}", patterns.join(", "));
            return Err(Failure { cause: Cause::NotFound, reason, hardware: None });
        }
        source.set_property_from_str("pattern", pattern);
        source.set_property("is-live", live);
        filter.set_property("caps", caps(&with_mode("video/x-raw, format = (string) { NV12, I420 }", mode))?);
        link(&source, &filter)?;
        let output = filter.static_pad("src").ok_or_else(|| other("`capsfilter` has no pad"))?;
        output.link(&chain.entry).map_err(|error| other(&error.to_string()))?;
        chain.start()
    }
}

/// Caps of `media` with what `mode` asks for.
fn with_mode(media: &str, mode: CameraMode) -> String {
    let mut caps = media.to_owned();
    for (name, value) in [("width", mode.width), ("height", mode.height)] {
        if value > 0 {
            caps.push_str(&format!(", {name} = (int) {value}"));
        }
    }
    if mode.fps > 0 {
        caps.push_str(&format!(", framerate = (fraction) {}/1", mode.fps));
    }
    caps
}

fn caps(text: &str) -> Result<gst::Caps, Failure> {
    gst::Caps::from_str(text).map_err(|_| other(&format!("`{text}` is no mode")))
}

fn link(from: &gst::Element, to: &gst::Element) -> Result<(), Failure> {
    from.link(to).map_err(|error| other(&error.to_string()))
}

fn other(reason: &str) -> Failure {
    Failure { cause: Cause::Other, reason: reason.to_owned(), hardware: None }
}
