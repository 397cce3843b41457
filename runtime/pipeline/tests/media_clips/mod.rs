//! Clips made by GStreamer on the spot, and streams to read them with.
#![allow(dead_code)] // Each test program uses a part of this.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;
use revoada_core::{Clock, Frame, StreamId, Timestamp};
use revoada_pipeline::config::{ReconnectConfig, SourceConfig, StreamConfig};
use revoada_pipeline::{Pull, Source, SourceError, media};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Time since the test began.
pub(crate) struct Wall(Instant);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.0.elapsed()
    }
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(Wall(Instant::now()))
}

pub(crate) fn stream(source: SourceConfig) -> StreamConfig {
    StreamConfig {
        id: StreamId::new("test"),
        source,
        queue_frames_max: 4,
        interval: 1,
        frames_max: None,
        repeat: Some(1),
        reconnect: ReconnectConfig::default(),
        lens: None,
    }
}

pub(crate) fn open_file(path: &Path) -> Result<Box<dyn Source>, SourceError> {
    media::open(&stream(SourceConfig::File(path.to_owned())), clock())
}

/// The next frame; `None` at the end. Fails the test where nothing comes for a minute.
pub(crate) fn next(source: &mut dyn Source) -> Result<Option<Frame>, SourceError> {
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        match source.pull(Duration::from_millis(200))? {
            Pull::Frame(frame) => return Ok(Some(frame)),
            Pull::End => return Ok(None),
            Pull::Idle => {}
        }
    }
    panic!("there was no frame for {DEADLINE:?}");
}

/// All frames up to the end or to the error that stopped them.
pub(crate) fn drain(source: &mut dyn Source) -> (Vec<Frame>, Option<SourceError>) {
    let mut frames = Vec::new();
    loop {
        match next(source) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// Says aloud that a test cannot run here; `true` where it cannot.
pub(crate) fn skipped(test: &str, elements: &[&str]) -> bool {
    media::init().expect("GStreamer's core is there");
    for element in elements {
        if gst::ElementFactory::find(element).is_none() {
            println!("skipped: {test}: there is no `{element}`");
            return true;
        }
    }
    false
}

/// The luma of frame `index` of a clip made by [`steps`].
pub(crate) fn step(index: u64) -> u8 {
    // Neighbours differ by 37, so that an exchanged, lost or doubled frame shows.
    (20 + index * 37 % 200) as u8
}

/// Encodes `frames` plain I420 frames, each of its own brightness, through `rest` of a pipeline into `path`.
pub(crate) fn steps(path: &Path, frames: u64, (width, height): (u32, u32), fps: i32, rest: &str) {
    media::init().expect("GStreamer's core is there");
    let text = format!("appsrc name=in format=time ! {rest} ! filesink name=out");
    let pipeline = gst::parse::launch(&text).expect("the pipeline is written correctly");
    let pipeline = pipeline.downcast::<gst::Pipeline>().expect("it is a pipeline");
    let source = pipeline.by_name("in").expect("it was named").downcast::<gst_app::AppSrc>().expect("it is an appsrc");
    pipeline.by_name("out").expect("it was named").set_property("location", path);
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", "I420")
        .field("width", width as i32)
        .field("height", height as i32)
        .field("framerate", gst::Fraction::new(fps, 1))
        .build();
    source.set_caps(Some(&caps));
    source.set_max_bytes(0);
    pipeline.set_state(gst::State::Playing).expect("the pipeline starts");
    for index in 0..frames {
        let info = gstreamer_video::VideoInfo::from_caps(&caps).expect("they are video");
        let luma = info.stride()[0] as usize * height as usize;
        let mut bytes = vec![128u8; info.size()];
        bytes[..luma].fill(step(index));
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let times = buffer.get_mut().expect("it is new");
        times.set_pts(gst::ClockTime::SECOND * index / fps as u64);
        times.set_duration(gst::ClockTime::SECOND / fps as u64);
        source.push_buffer(buffer).expect("the pipeline runs");
    }
    source.end_of_stream().expect("the pipeline runs");
    finish(&pipeline);
}

/// Runs a pipeline written as text to its end.
pub(crate) fn launch(text: &str) {
    media::init().expect("GStreamer's core is there");
    let pipeline = gst::parse::launch(text).expect("the pipeline is written correctly");
    let pipeline = pipeline.downcast::<gst::Pipeline>().expect("it is a pipeline");
    pipeline.set_state(gst::State::Playing).expect("the pipeline starts");
    finish(&pipeline);
}

fn finish(pipeline: &gst::Pipeline) {
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds).expect("the pipeline ends");
    if let gst::MessageView::Error(error) = message.view() {
        panic!("the pipeline failed: {error:?}");
    }
    pipeline.set_state(gst::State::Null).expect("the pipeline stops");
}

/// The mean of a frame's first plane.
pub(crate) fn luma(frame: &Frame) -> f64 {
    let plane = frame.view().plane(0);
    let sum: u64 = (0..plane.rows).flat_map(|y| plane.row(y)).map(|&value| u64::from(value)).sum();
    sum as f64 / (plane.row * plane.rows) as f64
}

/// Fails where a frame is not the one that [`steps`] made at this place.
pub(crate) fn assert_step(frame: &Frame, index: u64) {
    let (expected, got) = (f64::from(step(index)), luma(frame));
    assert!((expected - got).abs() < 3.0, "frame {index} has luma {got}, not {expected}");
}

/// Of this process: `fd` or `task`.
pub(crate) fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).expect("Linux lists them").count()
}

pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    kib.and_then(|kib| kib.parse().ok()).expect("a process has memory")
}
