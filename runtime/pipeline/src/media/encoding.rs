//! From frames to H.264: the part of a pipeline that files and recordings share.

use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use revoada_core::{Frame, ImageLayout, Timestamp};

use gst::prelude::*;

use super::elements::make;
use super::encoder::{self, FrameRate, Target};
use super::failure::{Failure, Watch};
use super::raw;

/// Frames that wait for the encoder; [`Encoding::push`] blocks while there are so many.
const WAITING_FRAMES_MAX: u64 = 3;

/// An encoder or a disk that makes no progress for so long never will.
pub(super) const STUCK: Duration = Duration::from_secs(60);

/// A running pipeline from `appsrc` through the encoder to elements that take its H.264. Frames are not copied on the way
/// to the encoder unless it does not take their format. Frames of another size than the target are scaled to it. Times
/// are those of the frames, from the first one on, and always rise.
pub(super) struct Encoding {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    watch: Watch,
    rate: FrameRate,
    caps: Option<(ImageLayout, gst::Caps)>,
    first: Timestamp,
    last: Option<Timestamp>,
}

impl Encoding {
    /// `rest` is linked behind the encoder's parser, and gets no colours in its caps.
    pub(super) fn start(target: &Target, first: &Frame, rest: &[gst::Element]) -> Result<Self, Failure> {
        let pipeline = gst::Pipeline::new();
        let watch = Watch::on(&pipeline);
        let bytes = first.layout().bytes().unwrap_or(usize::MAX) as u64;
        let source = hungry_source(&watch, bytes.saturating_mul(WAITING_FRAMES_MAX));
        let (convert, scale, size) = (make("videoconvert")?, make("videoscale")?, make("capsfilter")?);
        // With square pixels, so that another shape gets borders and not another shape of pixels.
        let fixed = gst::Caps::builder("video/x-raw")
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .field("colorimetry", raw::video_color(first.layout()))
            .field("width", i32::try_from(target.size.width).unwrap_or(i32::MAX))
            .field("height", i32::try_from(target.size.height).unwrap_or(i32::MAX))
            .build();
        size.set_property("caps", fixed);
        let encoder = encoder::choose(target)?;
        let encode = encoder.element().map_err(Failure::other)?;
        let parse = make("h264parse")?;
        keep_colors_in_stream(&parse);
        tracing::debug!(encoder = encoder.name, size = %target.size, fps = target.rate.per_second(), "encoding video");
        // In this order, because `videoscale` would take the wanted colours for a mere label.
        let mut all = vec![source.clone().upcast(), scale, convert, size, encode, parse];
        all.extend_from_slice(rest);
        let linked = pipeline.add_many(&all).and_then(|()| gst::Element::link_many(&all));
        linked.map_err(|error| Failure::other(error.to_string()))?;
        let (rate, first) = (target.rate, first.pts);
        let encoding = Self { pipeline, source, watch, rate, caps: None, first, last: None };
        if encoding.pipeline.set_state(gst::State::Playing).is_err() {
            let failure = encoding.watch.failure();
            return Err(failure.unwrap_or_else(|| Failure::other("the encoder does not start".to_owned())));
        }
        Ok(encoding)
    }

    /// Takes a frame; blocks while the encoder is behind.
    pub(super) fn push(&mut self, frame: &Arc<Frame>) -> Result<(), Failure> {
        if !self.watch.wait_hungry(STUCK)? {
            return Err(Failure::other(format!("the encoder has taken no frame for {} seconds", STUCK.as_secs())));
        }
        let layout = *frame.layout();
        let caps = match &self.caps {
            Some((known, caps)) if same_caps(known, &layout) => caps.clone(),
            _ => {
                let caps = raw::caps(&layout, self.rate).map_err(Failure::other)?;
                self.caps = Some((layout, caps.clone()));
                caps
            }
        };
        let mut buffer = raw::buffer(frame).map_err(Failure::other)?;
        // Encoders refuse time that stands still; a stream that was reconnected may have begun anew.
        let pts = self.last.map_or(frame.pts, |last| frame.pts.max(last + Duration::from_millis(1)));
        self.last = Some(pts);
        let times = buffer.get_mut().expect("nobody else has the buffer yet");
        times.set_pts(clock_time(pts.since(self.first)));
        times.set_duration(clock_time(Duration::from_secs_f64(1.0 / self.rate.per_second())));
        let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
        drop(buffer);
        match self.source.push_sample(&sample) {
            Ok(_) => Ok(()),
            Err(flow) => {
                let failure = self.watch.failure();
                Err(failure.unwrap_or_else(|| Failure::other(format!("the encoder refuses frames: {flow}"))))
            }
        }
    }

    /// The next frame is encoded as one from which a player can begin.
    pub(super) fn force_key_frame(&self) {
        self.source.send_event(gst_video::DownstreamForceKeyUnitEvent::builder().all_headers(true).build());
    }

    /// Encodes what was pushed to its end. `progress` tells how far `rest` is; that standing still is an error.
    pub(super) fn finish(&self, progress: impl Fn() -> u64) -> Result<(), Failure> {
        finish(&self.pipeline, &self.source, &self.watch, progress)
    }
}

impl Drop for Encoding {
    fn drop(&mut self) {
        stop(&self.pipeline);
    }
}

/// Ends a pipeline that is fed by `source`, and waits for all that was pushed to come to its end.
pub(super) fn finish(
    pipeline: &gst::Pipeline,
    source: &gst_app::AppSrc,
    watch: &Watch,
    progress: impl Fn() -> u64,
) -> Result<(), Failure> {
    let ended = source.end_of_stream();
    ended.map_err(|flow| {
        watch.failure().unwrap_or_else(|| Failure::other(format!("the encoder does not end: {flow}")))
    })?;
    // Moving a long film behind its index takes as long as it takes; standing still is an error.
    let mut before = progress();
    while !watch.wait_end(STUCK)? {
        let now = progress();
        if now == before {
            return Err(Failure::other(format!("nothing more was written for {} seconds", STUCK.as_secs())));
        }
        before = now;
    }
    stop(pipeline);
    watch.failure().map_or(Ok(()), Err)
}

pub(super) fn stop(pipeline: &gst::Pipeline) {
    let _ = pipeline.set_state(gst::State::Null);
    if let Some(bus) = pipeline.bus() {
        bus.unset_sync_handler();
    }
}

/// An `appsrc` that tells `watch` when it wants frames.
fn hungry_source(watch: &Watch, bytes_max: u64) -> gst_app::AppSrc {
    let source = gst_app::AppSrc::builder().format(gst::Format::Time).max_bytes(bytes_max).build();
    // With the default of 0 it would ask only when it has nothing left.
    source.set_property("min-percent", 50u32);
    let (fed, starved) = (watch.clone(), watch.clone());
    let callbacks = gst_app::AppSrcCallbacks::builder()
        .need_data(move |_, _| starved.set_hungry(true))
        .enough_data(move |_| fed.set_hungry(false))
        .build();
    source.set_callbacks(callbacks);
    source
}

/// Hides the colours from the muxer. `mp4mux` writes them into a box that knows no full range, and readers
/// believe the box before the stream, which says it rightly.
fn keep_colors_in_stream(parse: &gst::Element) {
    let Some(pad) = parse.static_pad("src") else { return };
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        if let Some(event) = info.event()
            && let gst::EventView::Caps(told) = event.view()
        {
            let mut caps = told.caps_owned();
            if let Some(structure) = caps.make_mut().structure_mut(0) {
                structure.remove_field("colorimetry");
            }
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
        }
        gst::PadProbeReturn::Ok
    });
}

fn same_caps(a: &ImageLayout, b: &ImageLayout) -> bool {
    (a.format, a.color, a.size) == (b.format, b.color, b.size)
}

pub(super) fn clock_time(duration: Duration) -> Option<gst::ClockTime> {
    gst::ClockTime::try_from(duration).ok()
}
