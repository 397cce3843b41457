//! H.264 in MP4 or Matroska.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer_app as gst_app;
use revoada_bundle::partial::Partial;
use revoada_core::{Frame, ImageLayout, Timestamp};

use gst::prelude::*;

use super::elements::{self, make};
use super::encoder::{self, FrameRate, Purpose, Target};
use super::failure::{Cause, Failure, Watch};
use super::raw;
use crate::SinkError;

/// Frames that wait for the encoder; [`VideoWriter::push`] blocks while there are so many.
const WAITING_FRAMES_MAX: u64 = 3;

/// An encoder or a disk that makes no progress for so long never will.
const STUCK: Duration = Duration::from_secs(60);

/// Encodes frames into a file that appears under its name when it is whole.
///
/// It is written beside, as `.name.partial`, and renamed by [`finish`](Self::finish); dropping the
/// writer without that removes it. Frames are not copied on the way to the encoder unless it does not
/// take their format. Frames of another size than the first are scaled to it; a last odd column or row
/// is left out, since H.264 halves the chroma. Times are those of the frames, from the first one on, so
/// a varying frame rate is kept. An MP4 file has its index at the front, so that a browser can
/// play it while it loads.
pub struct VideoWriter {
    path: PathBuf,
    // Dropped before the files that it writes are removed.
    state: State,
    files: Files,
    container: Container,
    bitrate_kbps: Option<u32>,
}

enum State {
    /// The interval between two frames tells the frame rate, so the first one waits for the second.
    Waiting(Option<Arc<Frame>>),
    Encoding(Encoding),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Mp4,
    Matroska,
}

/// The files that exist while a video is being written.
struct Files {
    video: Partial,
    /// Where the MP4 muxer keeps pictures until it knows the index that goes before them; never
    /// committed.
    media: Partial,
}

impl VideoWriter {
    /// Creates the unfinished file. `bitrate_kbps` of `None` asks for constant good quality.
    pub fn create(path: &Path, bitrate_kbps: Option<u32>) -> Result<Self, SinkError> {
        let encode = |reason: String| SinkError::Encode { path: path.to_owned(), reason };
        let write = |source| SinkError::Write { path: path.to_owned(), source };
        super::init().map_err(|error| encode(error.to_string()))?;
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let container = match extension.as_deref() {
            Some("mp4" | "m4v") => Container::Mp4,
            Some("mkv") => Container::Matroska,
            _ => return Err(encode("its name ends neither in `.mp4` nor in `.mkv`".to_owned())),
        };
        for element in [container.muxer(), "h264parse", "videoscale"] {
            elements::require(element).map_err(|error| encode(error.to_string()))?;
        }
        let mut media = path.as_os_str().to_owned();
        media.push(".media");
        let files = Files {
            video: Partial::create(path).map_err(write)?,
            media: Partial::create(Path::new(&media)).map_err(write)?,
        };
        Ok(Self { path: path.to_owned(), files, container, bitrate_kbps, state: State::Waiting(None) })
    }

    /// Takes a frame; blocks while the encoder is behind.
    pub fn push(&mut self, frame: &Arc<Frame>) -> Result<(), SinkError> {
        match &mut self.state {
            State::Encoding(encoding) => encoding.push(frame).map_err(|failure| describe(&self.path, failure)),
            State::Waiting(waiting @ None) => {
                *waiting = Some(Arc::clone(frame));
                Ok(())
            }
            State::Waiting(Some(first)) => {
                let first = Arc::clone(first);
                self.start(&first, FrameRate::of(frame.pts.since(first.pts)))?;
                self.push(frame)
            }
        }
    }

    fn start(&mut self, first: &Arc<Frame>, rate: FrameRate) -> Result<(), SinkError> {
        let target =
            Target { purpose: Purpose::File, size: raw::even(first.size()), rate, bitrate_kbps: self.bitrate_kbps };
        let encoding = Encoding::start(&self.files, self.container, &target, first)
            .and_then(|mut encoding| encoding.push(first).map(|()| encoding))
            .map_err(|failure| describe(&self.path, failure))?;
        self.state = State::Encoding(encoding);
        Ok(())
    }

    /// Completes the file and gives it its name.
    pub fn finish(mut self) -> Result<PathBuf, SinkError> {
        if let State::Waiting(waiting) = &mut self.state {
            let first = waiting.take().ok_or_else(|| SinkError::Encode {
                path: self.path.clone(),
                reason: "there were no frames".to_owned(),
            })?;
            self.start(&first, FrameRate::DEFAULT)?;
        }
        if let State::Encoding(encoding) = &mut self.state {
            encoding.finish(self.files.video.path()).map_err(|failure| describe(&self.path, failure))?;
        }
        let Self { path, state, files, .. } = self;
        drop(state);
        files.video.commit().map_err(|source| SinkError::Write { path, source })
    }
}

fn describe(path: &Path, failure: Failure) -> SinkError {
    let path = path.to_owned();
    match failure.cause {
        Cause::NoSpace => SinkError::Write { path, source: io::ErrorKind::StorageFull.into() },
        _ => SinkError::Encode { path, reason: failure.reason },
    }
}

impl Container {
    fn muxer(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4mux",
            Self::Matroska => "matroskamux",
        }
    }
}

/// A running pipeline from `appsrc` to the unfinished file.
struct Encoding {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    watch: Watch,
    rate: FrameRate,
    caps: Option<(ImageLayout, gst::Caps)>,
    first: Timestamp,
    last: Option<Timestamp>,
}

impl Encoding {
    fn start(files: &Files, container: Container, target: &Target, first: &Frame) -> Result<Self, Failure> {
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
        let encode = encoder.element().map_err(other)?;
        let (parse, muxer, sink) = (make("h264parse")?, make(container.muxer())?, make("filesink")?);
        if container == Container::Mp4 {
            muxer.set_property("faststart", true);
            muxer.set_property("faststart-file", files.media.path());
        }
        sink.set_property("location", files.video.path());
        keep_colors_in_stream(&parse);
        // Nobody waits for the first frame to be shown.
        sink.set_property("async", false);
        tracing::debug!(encoder = encoder.name, size = %target.size, fps = target.rate.per_second(), "encoding video");
        // In this order, because `videoscale` would take the wanted colours for a mere label.
        let all = [source.clone().upcast(), scale, convert, size, encode, parse, muxer, sink];
        let linked = pipeline.add_many(&all).and_then(|()| gst::Element::link_many(&all));
        linked.map_err(|error| other(error.to_string()))?;
        let (rate, first) = (target.rate, first.pts);
        let encoding = Self { pipeline, source, watch, rate, caps: None, first, last: None };
        if encoding.pipeline.set_state(gst::State::Playing).is_err() {
            return Err(encoding.watch.failure().unwrap_or_else(|| other("the encoder does not start".to_owned())));
        }
        Ok(encoding)
    }

    fn push(&mut self, frame: &Arc<Frame>) -> Result<(), Failure> {
        if !self.watch.wait_hungry(STUCK)? {
            return Err(other(format!("the encoder has taken no frame for {} seconds", STUCK.as_secs())));
        }
        let layout = *frame.layout();
        let caps = match &self.caps {
            Some((known, caps)) if same_caps(known, &layout) => caps.clone(),
            _ => {
                let caps = raw::caps(&layout, self.rate).map_err(other)?;
                self.caps = Some((layout, caps.clone()));
                caps
            }
        };
        let mut buffer = raw::buffer(frame).map_err(other)?;
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
                Err(self.watch.failure().unwrap_or_else(|| other(format!("the encoder refuses frames: {flow}"))))
            }
        }
    }

    fn finish(&mut self, video: &Path) -> Result<(), Failure> {
        let ended = self.source.end_of_stream();
        ended.map_err(|flow| {
            self.watch.failure().unwrap_or_else(|| other(format!("the encoder does not end: {flow}")))
        })?;
        // Moving a long film behind its index takes as long as it takes; standing still is an error.
        let written = || std::fs::metadata(video).map_or(0, |metadata| metadata.len());
        let mut before = written();
        while !self.watch.wait_end(STUCK)? {
            let now = written();
            if now == before {
                return Err(other(format!("the encoder has written nothing for {} seconds", STUCK.as_secs())));
            }
            before = now;
        }
        self.stop();
        self.watch.failure().map_or(Ok(()), Err)
    }

    fn stop(&self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

impl Drop for Encoding {
    fn drop(&mut self) {
        self.stop();
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

fn clock_time(duration: Duration) -> Option<gst::ClockTime> {
    gst::ClockTime::try_from(duration).ok()
}

fn other(reason: String) -> Failure {
    Failure { cause: Cause::Other, reason, hardware: None }
}
