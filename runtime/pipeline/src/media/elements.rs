//! Which GStreamer elements there are, and which Debian or Ubuntu package has each.

use gst::prelude::*;
use gstreamer as gst;

use super::MediaError;

/// Without these there is no pipeline.
pub(super) const CORE: [&str; 5] = ["filesrc", "decodebin", "videoconvert", "appsink", "appsrc"];

/// The package that has `element`.
pub(super) fn package(element: &str) -> &'static str {
    match element {
        "appsink" | "appsrc" | "decodebin" | "uridecodebin" | "videoconvert" | "videoscale" | "videotestsrc" => {
            "gstreamer1.0-plugins-base"
        }
        "filesrc" | "filesink" | "capsfilter" | "fakesink" | "queue" => "libgstreamer1.0-0",
        "rtspsrc" | "souphttpsrc" | "v4l2src" | "v4l2h264enc" | "v4l2h264dec" | "videoflip" | "qtdemux" | "mp4mux"
        | "matroskademux" | "matroskamux" | "avidemux" | "multipartdemux" | "jpegdec" | "vp8dec" | "vp9dec"
        | "rtph264depay" | "rtph265depay" | "rtph264pay" => "gstreamer1.0-plugins-good",
        "h264parse" | "h265parse" | "tsdemux" | "hlsdemux" | "openh264enc" | "openh264dec" | "nvh264enc"
        | "nvh264dec" | "nvh265dec" | "vah264dec" | "vah265dec" | "vah264enc" | "vah264lpenc" | "av1dec" => {
            "gstreamer1.0-plugins-bad"
        }
        "x264enc" => "gstreamer1.0-plugins-ugly",
        "vaapih264enc" | "vaapih264dec" | "vaapih265dec" => "gstreamer1.0-vaapi",
        "nvv4l2decoder" | "nvv4l2h264enc" | "nvvidconv" | "nvarguscamerasrc" | "nvjpegdec" => "nvidia-l4t-gstreamer",
        name if name.starts_with("avdec_") => "gstreamer1.0-libav",
        _ => "gstreamer1.0-plugins-bad",
    }
}

/// Whether the machine has `element`; says nothing about whether its hardware works.
pub(super) fn exists(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

pub(super) fn require(element: &str) -> Result<(), MediaError> {
    if exists(element) {
        return Ok(());
    }
    Err(MediaError::Missing { element: element.to_owned(), package: package(element) })
}

pub(super) fn make(element: &str) -> Result<gst::Element, MediaError> {
    gst::ElementFactory::make(element)
        .build()
        .map_err(|_| MediaError::Missing { element: element.to_owned(), package: package(element) })
}

/// Sets a property that only some versions or vendors of an element have.
pub(super) fn set_if_present(element: &gst::Element, property: &str, value: &str) {
    if element.find_property(property).is_some() {
        element.set_property_from_str(property, value);
    }
}

/// What people call a codec, and the package that decodes it in software.
pub(super) fn codec(caps: &gst::CapsRef) -> (String, &'static str) {
    let Some(structure) = caps.structure(0) else { return ("unknown".to_owned(), "gstreamer1.0-libav") };
    let name = match structure.name().as_str() {
        "video/x-h264" => "H.264",
        "video/x-h265" => "H.265",
        "video/x-h266" => "H.266",
        "video/x-av1" => return ("AV1".to_owned(), "gstreamer1.0-plugins-bad"),
        "video/x-vp8" => return ("VP8".to_owned(), "gstreamer1.0-plugins-good"),
        "video/x-vp9" => return ("VP9".to_owned(), "gstreamer1.0-plugins-good"),
        "video/x-theora" => return ("Theora".to_owned(), "gstreamer1.0-plugins-base"),
        "image/jpeg" => return ("Motion JPEG".to_owned(), "gstreamer1.0-plugins-good"),
        "video/mpeg" => match structure.get::<i32>("mpegversion") {
            Ok(4) => "MPEG-4",
            Ok(2) => "MPEG-2",
            _ => "MPEG-1",
        },
        "video/x-wmv" => "Windows Media Video",
        "video/x-prores" => "ProRes",
        "video/x-dnxhd" => "DNxHD",
        other => return (other.to_owned(), "gstreamer1.0-libav"),
    };
    (name.to_owned(), "gstreamer1.0-libav")
}

/// The values that `videotestsrc` takes for `pattern`.
pub(super) fn video_test_patterns(source: &gst::Element) -> Vec<String> {
    let class =
        source.find_property("pattern").and_then(|property| gst::glib::EnumClass::with_type(property.value_type()));
    class.map_or_else(Vec::new, |class| class.values().iter().map(|value| value.nick().to_owned()).collect())
}
