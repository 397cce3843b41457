//! What the machine can read and write, for `revoada doctor`.

use std::path::PathBuf;

use gstreamer as gst;
use serde::Serialize;

use gst::prelude::*;

use super::encoder::{self, FrameRate, Purpose, Target};
use super::{MediaError, elements};
use revoada_core::Size;

/// What GStreamer has here.
#[derive(Clone, Debug, Serialize)]
pub struct MediaReport {
    /// As `1.22.0`.
    pub gstreamer: String,
    /// The decoder that H.264 files and cameras get.
    pub decoder: Option<String>,
    /// The encoder that videos get; hardware was tried out.
    pub encoder: Option<String>,
    /// Whether this program was built to serve RTSP.
    pub rtsp_server: bool,
    /// Video devices, as `/dev/video0`.
    pub cameras: Vec<PathBuf>,
    pub elements: Vec<ElementReport>,
}

/// One element that is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ElementReport {
    pub name: String,
    pub role: MediaRole,
    /// What it is good for, in a few words.
    pub purpose: &'static str,
    pub hardware: bool,
    pub present: bool,
    /// The Debian or Ubuntu package that has it.
    pub package: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaRole {
    Core,
    Container,
    Decoder,
    Encoder,
    Network,
    Camera,
    Picture,
}

const KNOWN: [(&str, MediaRole, &str, bool); 28] = [
    ("qtdemux", MediaRole::Container, "read MP4 and MOV", false),
    ("matroskademux", MediaRole::Container, "read MKV and WebM", false),
    ("avidemux", MediaRole::Container, "read AVI", false),
    ("tsdemux", MediaRole::Container, "read MPEG-TS", false),
    ("mp4mux", MediaRole::Container, "write MP4", false),
    ("matroskamux", MediaRole::Container, "write MKV", false),
    ("h264parse", MediaRole::Container, "read and write H.264", false),
    ("nvv4l2decoder", MediaRole::Decoder, "H.264, H.265, VP9, AV1 on a Jetson", true),
    ("vah264dec", MediaRole::Decoder, "H.264 by VA-API", true),
    ("vah265dec", MediaRole::Decoder, "H.265 by VA-API", true),
    ("vaapih264dec", MediaRole::Decoder, "H.264 by VA-API", true),
    ("nvh264dec", MediaRole::Decoder, "H.264 on an NVIDIA card", true),
    ("avdec_h264", MediaRole::Decoder, "H.264", false),
    ("openh264dec", MediaRole::Decoder, "H.264, baseline", false),
    ("avdec_h265", MediaRole::Decoder, "H.265", false),
    ("vp8dec", MediaRole::Decoder, "VP8", false),
    ("vp9dec", MediaRole::Decoder, "VP9", false),
    ("av1dec", MediaRole::Decoder, "AV1", false),
    ("jpegdec", MediaRole::Decoder, "Motion JPEG", false),
    ("rtspsrc", MediaRole::Network, "RTSP cameras", false),
    ("rtph264depay", MediaRole::Network, "H.264 from RTSP", false),
    ("rtph264pay", MediaRole::Network, "H.264 over RTSP", false),
    ("souphttpsrc", MediaRole::Network, "HTTP and HTTPS", false),
    ("hlsdemux", MediaRole::Network, "HLS", false),
    ("multipartdemux", MediaRole::Network, "MJPEG over HTTP", false),
    ("v4l2src", MediaRole::Camera, "USB and other V4L2 cameras", false),
    ("nvarguscamerasrc", MediaRole::Camera, "CSI cameras on a Jetson", true),
    ("videoflip", MediaRole::Picture, "turn videos upright", false),
];

/// Looks for everything that sources and sinks may want. Unlike [`probe`] it comes to its end where next to nothing is
/// installed.
pub fn known_elements() -> Result<Vec<ElementReport>, MediaError> {
    super::start()?;
    let core = elements::CORE.iter().map(|name| report(name, MediaRole::Core, "every pipeline", false));
    let known = KNOWN.iter().map(|&(name, role, purpose, hardware)| report(name, role, purpose, hardware));
    let encoders = encoder::names().map(|(name, hardware)| report(name, MediaRole::Encoder, "write H.264", hardware));
    let mut elements: Vec<ElementReport> = core.chain(known).chain(encoders).collect();
    elements.sort_by_key(|element| element.role);
    Ok(elements)
}

/// What there is to read and write videos with. A hardware encoder is tried out, which can
/// take some seconds.
pub fn probe() -> Result<MediaReport, MediaError> {
    super::init()?;
    let (major, minor, micro, _) = gst::version();
    let target =
        Target { purpose: Purpose::File, size: Size::new(1280, 720), rate: FrameRate::DEFAULT, bitrate_kbps: None };
    Ok(MediaReport {
        gstreamer: format!("{major}.{minor}.{micro}"),
        decoder: decoder("video/x-h264"),
        encoder: encoder::choose(&target).ok().map(|encoder| encoder.name.to_owned()),
        rtsp_server: cfg!(feature = "rtsp-server"),
        cameras: cameras(),
        elements: known_elements()?,
    })
}

fn report(name: &str, role: MediaRole, purpose: &'static str, hardware: bool) -> ElementReport {
    let (present, package) = (elements::exists(name), elements::package(name));
    ElementReport { name: name.to_owned(), role, purpose, hardware, present, package }
}

/// The decoder of the highest rank, which is the one that `decodebin` takes.
fn decoder(media: &str) -> Option<String> {
    let caps = gst::Caps::new_empty_simple(media);
    let kind = gst::ElementFactoryType::DECODER;
    let decoders = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL);
    let able = decoders.into_iter().filter(|factory| factory.can_sink_any_caps(&caps));
    able.max_by_key(|factory| factory.rank()).map(|factory| factory.name().to_string())
}

fn cameras() -> Vec<PathBuf> {
    let Ok(devices) = std::fs::read_dir("/dev") else { return Vec::new() };
    let names = devices.filter_map(|entry| Some(entry.ok()?.path()));
    let mut cameras: Vec<PathBuf> = names
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("video")))
        .filter(|path| path.to_string_lossy().ends_with(|last: char| last.is_ascii_digit()))
        .collect();
    cameras.sort();
    cameras
}
