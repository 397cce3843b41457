//! The best H.264 encoder that works on this machine.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use revoada_core::Size;

use gst::prelude::*;

use super::MediaError;
use super::elements::{self, make};
use super::failure::Watch;

/// What the encoded video is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Small and seekable; a frame may wait for those after it.
    File,
    /// No frame waits, and a viewer who comes late waits a second at most.
    Live,
    /// The same, of a file's quality: parts of it become files.
    Recording,
}

/// Frames in a second, as a fraction; what the encoder's rate control reckons with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameRate {
    pub(super) numerator: i32,
    pub(super) denominator: i32,
}

impl FrameRate {
    pub(super) const DEFAULT: Self = Self { numerator: 25, denominator: 1 };

    /// The rate of frames that are `interval` apart, to a thousandth, within what encoders take.
    pub(super) fn of(interval: Duration) -> Self {
        let rate = (1.0 / interval.as_secs_f64().max(1e-9)).clamp(1.0, 240.0);
        let numerator = (rate * 1000.0).round() as i32;
        if numerator % 1000 == 0 {
            return Self { numerator: numerator / 1000, denominator: 1 };
        }
        Self { numerator, denominator: 1000 }
    }

    pub(super) fn per_second(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }

    fn frames_in(self, seconds: f64) -> i32 {
        (self.per_second() * seconds).round().max(1.0) as i32
    }
}

/// What an encoder is to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) purpose: Purpose,
    pub(super) size: Size,
    pub(super) rate: FrameRate,
    /// `None`: constant quality where the encoder knows that, else a rate that suits the size.
    pub(super) bitrate_kbps: Option<u32>,
}

/// A part of a pipeline that takes raw video in host memory and gives H.264.
pub(super) struct Encoder {
    pub(super) name: &'static str,
    /// As `gst-launch` would take it: one text serves pipelines that we build and those that the RTSP
    /// server builds whenever a viewer comes.
    pub(super) text: String,
}

impl Encoder {
    pub(super) fn element(&self) -> Result<gst::Element, String> {
        let bin = gst::parse::bin_from_description(&self.text, true).map_err(|error| error.message().to_owned())?;
        Ok(bin.upcast())
    }
}

/// From best to last. Hardware is first because it leaves the cores to inference.
const CANDIDATES: [Candidate; 8] = [
    Candidate { name: "nvv4l2h264enc", hardware: true, formats: "{ NV12, I420 }" },
    Candidate { name: "vah264enc", hardware: true, formats: "{ NV12 }" },
    Candidate { name: "vah264lpenc", hardware: true, formats: "{ NV12 }" },
    Candidate { name: "vaapih264enc", hardware: true, formats: "{ NV12 }" },
    Candidate { name: "nvh264enc", hardware: true, formats: "{ NV12, I420 }" },
    Candidate { name: "v4l2h264enc", hardware: true, formats: "{ NV12, I420 }" },
    Candidate { name: "x264enc", hardware: false, formats: "{ NV12, I420 }" },
    Candidate { name: "openh264enc", hardware: false, formats: "{ I420 }" },
];

struct Candidate {
    name: &'static str,
    hardware: bool,
    formats: &'static str,
}

/// All encoders that are looked for, and whether each is hardware.
pub(super) fn names() -> impl Iterator<Item = (&'static str, bool)> {
    CANDIDATES.iter().map(|candidate| (candidate.name, candidate.hardware))
}

/// Takes the first encoder that is there and works.
pub(super) fn choose(target: &Target) -> Result<Encoder, MediaError> {
    for candidate in CANDIDATES.iter().filter(|candidate| elements::exists(candidate.name)) {
        if candidate.hardware && !works(candidate, target) {
            continue;
        }
        return candidate.build(target);
    }
    Err(MediaError::Missing { element: "x264enc".to_owned(), package: elements::package("x264enc") })
}

/// Whether a hardware encoder really encodes: drivers are often installed where the device is not. Asked
/// once per process and encoder.
fn works(candidate: &Candidate, target: &Target) -> bool {
    static TRIED: Mutex<BTreeMap<&'static str, bool>> = Mutex::new(BTreeMap::new());
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    *tried.entry(candidate.name).or_insert_with(|| match try_out(candidate, target) {
        Ok(()) => true,
        Err(reason) => {
            tracing::warn!(encoder = candidate.name, reason, "a hardware encoder does not work; taking the next one");
            false
        }
    })
}

/// Encodes two frames of a test picture into nothing.
fn try_out(candidate: &Candidate, target: &Target) -> Result<(), String> {
    const WAIT: Duration = Duration::from_secs(5);
    let build = || -> Result<gst::Pipeline, gst::glib::BoolError> {
        let pipeline = gst::Pipeline::new();
        let source = gst::ElementFactory::make("videotestsrc").property("num-buffers", 2i32).build()?;
        let filter = gst::ElementFactory::make("capsfilter").build()?;
        let FrameRate { numerator, denominator } = target.rate;
        let size = format!("width = {}, height = {}", target.size.width, target.size.height);
        let caps = format!("video/x-raw, format = I420, {size}, framerate = {numerator}/{denominator}");
        filter.set_property("caps", gst::Caps::from_str(&caps)?);
        let convert = gst::ElementFactory::make("videoconvert").build()?;
        let sink = gst::ElementFactory::make("fakesink").build()?;
        let encoder = candidate.build(target).map_err(|error| gst::glib::bool_error!("{error}"))?;
        let encoder = encoder.element().map_err(|error| gst::glib::bool_error!("{error}"))?;
        let all = [source, filter, convert, encoder, sink];
        pipeline.add_many(&all)?;
        gst::Element::link_many(&all)?;
        Ok(pipeline)
    };
    let pipeline = build().map_err(|error| error.to_string())?;
    let watch = Watch::on(&pipeline);
    let started = pipeline.set_state(gst::State::Playing);
    let outcome = match started {
        Ok(_) => match watch.wait_end(WAIT) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("it has encoded nothing in {} seconds", WAIT.as_secs())),
            Err(failure) => Err(failure.reason),
        },
        Err(_) => Err(watch.failure().map_or_else(|| "it does not start".to_owned(), |failure| failure.reason)),
    };
    let _ = pipeline.set_state(gst::State::Null);
    outcome
}

impl Candidate {
    fn build(&self, target: &Target) -> Result<Encoder, MediaError> {
        let element = make(self.name)?;
        let mut text = format!("capsfilter caps=\"video/x-raw, format=(string){}\" ! ", self.formats);
        if self.name == "nvv4l2h264enc" {
            text.push_str("nvvidconv ! capsfilter caps=\"video/x-raw(memory:NVMM), format=(string)NV12\" ! ");
        }
        text.push_str(self.name);
        // Versions and vendors differ in what can be set.
        for (property, value) in self.settings(target) {
            if element.find_property(property).is_some() {
                text.push_str(&format!(" {property}=\"{value}\""));
            }
        }
        Ok(Encoder { name: self.name, text })
    }

    fn settings(&self, target: &Target) -> Vec<(&'static str, String)> {
        let prompt = target.purpose != Purpose::File;
        let kbps = target.bitrate_kbps.unwrap_or_else(|| suitable_kbps(target));
        let bits = u64::from(kbps) * 1000;
        let key_frames = target.rate.frames_in(if prompt { 1.0 } else { 2.0 });
        match self.name {
            "x264enc" => {
                let mut settings = vec![
                    ("speed-preset", "superfast".to_owned()),
                    ("key-int-max", key_frames.to_string()),
                    ("threads", software_threads().to_string()),
                    // Threads that share a frame hold fewer pictures than threads that have one each: on
                    // 1080p with two threads 23 MB less, for a file of the same size in the same time.
                    ("sliced-threads", "true".to_owned()),
                    // MP4 reckons a film's length from the times of decoding, which B-frames put behind
                    // those of showing: where the frame rate varies, the last frames would be cut off.
                    ("bframes", "0".to_owned()),
                ];
                if prompt {
                    settings.push(("tune", "zerolatency".to_owned()));
                }
                match target.bitrate_kbps {
                    None if target.purpose != Purpose::Live => {
                        settings.extend([("pass", "qual".to_owned()), ("quantizer", "23".to_owned())]);
                    }
                    _ => settings.push(("bitrate", kbps.to_string())),
                }
                settings
            }
            "openh264enc" => vec![
                ("complexity", "low".to_owned()),
                ("rate-control", "bitrate".to_owned()),
                ("bitrate", bits.to_string()),
                ("gop-size", key_frames.to_string()),
                ("multi-thread", software_threads().to_string()),
            ],
            "nvv4l2h264enc" => vec![
                ("bitrate", bits.to_string()),
                ("iframeinterval", key_frames.to_string()),
                ("idrinterval", key_frames.to_string()),
                ("insert-sps-pps", "true".to_owned()),
                ("maxperf-enable", "true".to_owned()),
            ],
            "v4l2h264enc" => {
                vec![("extra-controls", format!("controls,video_bitrate={bits},video_gop_size={key_frames}"))]
            }
            _ => vec![
                // `vaapih264enc` ignores the bit rate otherwise; elsewhere it is the default or absent.
                ("rate-control", "cbr".to_owned()),
                ("bitrate", kbps.to_string()),
                ("key-int-max", key_frames.to_string()),
                ("keyframe-period", key_frames.to_string()),
                ("gop-size", key_frames.to_string()),
            ],
        }
    }
}

/// A twelfth of a bit for each pixel, and never so little that a small picture becomes mush.
fn suitable_kbps(target: &Target) -> u32 {
    let pixels = target.size.width as f64 * target.size.height as f64;
    ((pixels * target.rate.per_second() / 12.0 / 1000.0) as u32).clamp(500, 100_000)
}

/// More threads would hold more frames without finishing sooner beside inference.
fn software_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(4)
}
