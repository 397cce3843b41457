//! The best H.264 encoder that works on this machine.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use revoada_core::Size;

use gst::prelude::*;

use super::MediaError;
use super::elements::{self, make, set_if_present};
use super::failure::Watch;

/// What the encoded video is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Small and seekable; a frame may wait for those after it.
    File,
    /// No frame waits, and a viewer who comes late waits a second at most.
    Live,
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

/// Elements to be linked one after the other; the first takes raw video in host memory.
pub(super) struct Encoder {
    pub(super) name: &'static str,
    pub(super) elements: Vec<gst::Element>,
}

/// From best to last. Hardware is first because it leaves the cores to inference.
const CANDIDATES: [Candidate; 9] = [
    Candidate { name: "nvv4l2h264enc", hardware: true, formats: "{ NV12, I420 }" },
    Candidate { name: "vah264enc", hardware: true, formats: "{ NV12 }" },
    Candidate { name: "vah264lpenc", hardware: true, formats: "{ NV12 }" },
    Candidate { name: "vaapih264enc", hardware: true, formats: "{ NV12 }" },
    Candidate { name: "nvh264enc", hardware: true, formats: "{ NV12, I420 }" },
    Candidate { name: "v4l2h264enc", hardware: true, formats: "{ NV12, I420 }" },
    Candidate { name: "x264enc", hardware: false, formats: "{ NV12, I420 }" },
    Candidate { name: "openh264enc", hardware: false, formats: "{ I420 }" },
    Candidate { name: "avenc_h264_omx", hardware: true, formats: "{ I420 }" },
];

struct Candidate {
    name: &'static str,
    hardware: bool,
    formats: &'static str,
}

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
        let all: Vec<_> = [source, filter, convert].into_iter().chain(encoder.elements).chain([sink]).collect();
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
        let encoder = make(self.name)?;
        self.set_up(&encoder, target);
        let filter = make("capsfilter")?;
        let mut elements = vec![filter.clone(), encoder];
        let mut raw = format!("video/x-raw, format = (string) {}", self.formats);
        if self.name == "nvv4l2h264enc" {
            let (upload, on_device) = (make("nvvidconv")?, make("capsfilter")?);
            on_device.set_property("caps", fixed_caps("video/x-raw(memory:NVMM), format = (string) NV12"));
            elements.splice(1..1, [upload, on_device]);
        } else {
            raw.push_str(", interlace-mode = (string) progressive");
        }
        filter.set_property("caps", fixed_caps(&raw));
        Ok(Encoder { name: self.name, elements })
    }

    fn set_up(&self, encoder: &gst::Element, target: &Target) {
        let live = target.purpose == Purpose::Live;
        let set = |property: &str, value: &str| set_if_present(encoder, property, value);
        let kbps = target.bitrate_kbps.unwrap_or_else(|| suitable_kbps(target));
        let key_frames = target.rate.frames_in(if live { 1.0 } else { 2.0 }).to_string();
        match self.name {
            "x264enc" => {
                // Measured on 1080p: `veryfast` takes half as long again and saves a tenth of the file.
                set("speed-preset", "superfast");
                set("key-int-max", &key_frames);
                set("threads", &software_threads().to_string());
                if live {
                    set("tune", "zerolatency");
                }
                match target.bitrate_kbps {
                    None if !live => {
                        set("pass", "qual");
                        set("quantizer", "23");
                    }
                    _ => set("bitrate", &kbps.to_string()),
                }
            }
            "openh264enc" => {
                set("complexity", "low");
                set("rate-control", "bitrate");
                set("bitrate", &(u64::from(kbps) * 1000).to_string());
                set("gop-size", &key_frames);
                set("multi-thread", &software_threads().to_string());
            }
            "nvv4l2h264enc" => {
                set("bitrate", &(u64::from(kbps) * 1000).to_string());
                set("iframeinterval", &key_frames);
                set("idrinterval", &key_frames);
                set("insert-sps-pps", "true");
                set("maxperf-enable", "true");
            }
            "v4l2h264enc" => {
                let controls = gst::Structure::builder("controls")
                    .field("video_bitrate", i32::try_from(u64::from(kbps) * 1000).unwrap_or(i32::MAX))
                    .field("video_gop_size", target.rate.frames_in(if live { 1.0 } else { 2.0 }))
                    .build();
                encoder.set_property("extra-controls", controls);
            }
            _ => {
                set("bitrate", &kbps.to_string());
                set("key-int-max", &key_frames);
                set("keyframe-period", &key_frames);
                set("gop-size", &key_frames);
            }
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

fn fixed_caps(text: &str) -> gst::Caps {
    gst::Caps::from_str(text).expect("the caps are written correctly")
}
