//! H.264 as access units: encoded once, kept in memory, written to files later without encoding anything again.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gstreamer as gst;
use gstreamer_app as gst_app;
use revoada_core::{Frame, Timestamp};

use gst::prelude::*;

use super::elements::{self, make};
use super::encoder::{FrameRate, Purpose, Target};
use super::encoding::{self, Encoding, clock_time};
use super::failure::{Failure, Watch};
use super::file::{Container, VideoFile};
use super::raw;
use crate::SinkError;
use crate::lock::lock;

/// Most between two units from which a player can begin.
pub const KEY_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// One encoded picture. Cloning it copies no bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// The frame's.
    pub pts: Timestamp,
    /// As long as it is shown where none follows.
    pub duration: Duration,
    /// A player can begin here.
    pub is_key: bool,
    pub bytes: Arc<[u8]>,
}

/// What a file says of the units in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitFormat(gst::Caps);

/// Encodes the frames of one stream into access units, one for each. At least once a second one is a key; none refers to
/// a later one. Frames of another size than the first are scaled to it.
pub struct UnitEncoder {
    bitrate_kbps: Option<u32>,
    /// Of which errors speak.
    destination: PathBuf,
    state: State,
    encoded: Arc<Mutex<Encoded>>,
    /// When the latest key frame was asked for.
    key_asked: Option<Timestamp>,
}

enum State {
    /// The interval between two frames tells the frame rate, so the first one waits for the second.
    Waiting(Option<Arc<Frame>>),
    Encoding(Encoding),
}

/// What has left the encoder since it was taken. An encoder gives a unit for each frame, and holds back no more than a
/// few, so that this is bounded by them.
#[derive(Default)]
struct Encoded {
    units: Vec<AccessUnit>,
    format: Option<UnitFormat>,
}

impl UnitEncoder {
    /// `bitrate_kbps` of `None` asks for constant good quality. `destination` is what errors speak of.
    pub fn new(bitrate_kbps: Option<u32>, destination: &Path) -> Result<Self, SinkError> {
        let found = super::init();
        let found = found.and_then(|()| ["h264parse", "videoscale"].into_iter().try_for_each(elements::require));
        found.map_err(|error| SinkError::Encode { path: destination.to_owned(), reason: error.to_string() })?;
        Ok(Self {
            bitrate_kbps,
            destination: destination.to_owned(),
            state: State::Waiting(None),
            encoded: Arc::default(),
            key_asked: None,
        })
    }

    /// Takes a frame, and gives the units that were encoded meanwhile; blocks while the encoder is behind.
    pub fn push(&mut self, frame: &Arc<Frame>) -> Result<Vec<AccessUnit>, SinkError> {
        match &mut self.state {
            State::Encoding(_) => {}
            State::Waiting(waiting @ None) => {
                *waiting = Some(Arc::clone(frame));
                return Ok(Vec::new());
            }
            State::Waiting(Some(first)) => {
                let first = Arc::clone(first);
                self.start(&first, FrameRate::of(frame.pts.since(first.pts)))?;
            }
        }
        self.encode(frame).map_err(|failure| self.failed(failure))?;
        Ok(self.encoded())
    }

    /// The units that were encoded meanwhile.
    pub fn encoded(&self) -> Vec<AccessUnit> {
        std::mem::take(&mut lock(&self.encoded).units)
    }

    /// Encodes all that was pushed; nothing can be pushed behind it.
    pub fn finish(&mut self) -> Result<Vec<AccessUnit>, SinkError> {
        match &mut self.state {
            State::Waiting(None) => return Ok(Vec::new()),
            State::Waiting(Some(first)) => {
                let first = Arc::clone(first);
                self.start(&first, FrameRate::DEFAULT)?;
            }
            State::Encoding(_) => {}
        }
        if let State::Encoding(encoding) = &self.state {
            encoding.finish(|| 0).map_err(|failure| self.failed(failure))?;
        }
        Ok(self.encoded())
    }

    /// Of all units so far; `None` before the first.
    pub fn format(&self) -> Option<UnitFormat> {
        lock(&self.encoded).format.clone()
    }

    fn start(&mut self, first: &Arc<Frame>, rate: FrameRate) -> Result<(), SinkError> {
        let (purpose, bitrate_kbps) = (Purpose::Recording, self.bitrate_kbps);
        let target = Target { purpose, size: raw::even(first.size()), rate, bitrate_kbps };
        let started = exit(first.pts, &self.encoded).and_then(|rest| Encoding::start(&target, first, &rest));
        self.state = State::Encoding(started.map_err(|failure| self.failed(failure))?);
        self.encode(first).map_err(|failure| self.failed(failure))
    }

    fn encode(&mut self, frame: &Arc<Frame>) -> Result<(), Failure> {
        let State::Encoding(encoding) = &mut self.state else { return Ok(()) };
        // An encoder counts frames, which need not come at their rate.
        match self.key_asked {
            Some(asked) if frame.pts.since(asked) < KEY_INTERVAL_MAX => {}
            Some(_) => {
                encoding.force_key_frame();
                self.key_asked = Some(frame.pts);
            }
            // The first is one.
            None => self.key_asked = Some(frame.pts),
        }
        encoding.push(frame)
    }

    fn failed(&self, failure: Failure) -> SinkError {
        SinkError::Encode { path: self.destination.clone(), reason: failure.reason }
    }
}

/// Elements that put the units of a stream, which begins at `first`, into `encoded`.
fn exit(first: Timestamp, encoded: &Arc<Mutex<Encoded>>) -> Result<[gst::Element; 2], Failure> {
    let filter = make("capsfilter")?;
    // As files have them, so that muxers take them as they are.
    let caps = gst::Caps::builder("video/x-h264").field("stream-format", "avc").field("alignment", "au").build();
    filter.set_property("caps", caps);
    let sink = gst_app::AppSink::builder().sync(false).async_(false).build();
    let encoded = Arc::clone(encoded);
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let (unit, format) = unit(&sample, first).ok_or(gst::FlowError::Error)?;
        let mut encoded = lock(&encoded);
        encoded.units.push(unit);
        if encoded.format.as_ref() != Some(&format) {
            encoded.format = Some(format);
        }
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
    Ok([filter, sink.upcast()])
}

/// The bytes are copied: an encoder's own buffers are few, and it waits for them.
fn unit(sample: &gst::Sample, first: Timestamp) -> Option<(AccessUnit, UnitFormat)> {
    let (buffer, caps) = (sample.buffer()?, sample.caps_owned()?);
    // Some encoders move times, and say so in the segment.
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    let since_first = segment.to_running_time(buffer.pts()?)?;
    let unit = AccessUnit {
        pts: first + Duration::from_nanos(since_first.nseconds()),
        duration: buffer.duration().map_or(Duration::ZERO, |duration| Duration::from_nanos(duration.nseconds())),
        is_key: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
        bytes: buffer.map_readable().ok()?.as_slice().into(),
    };
    Some((unit, UnitFormat(caps)))
}

/// Writes access units to a file that appears under its name when it is whole. Nothing here waits for the disk but
/// [`finish`](Self::finish).
pub struct UnitWriter {
    // Dropped before the file that it writes is removed.
    writing: Writing,
    file: VideoFile,
    first: Timestamp,
    backlog: Arc<Backlog>,
}

/// The bytes of units that wait for the disk, of all writers that share it.
#[derive(Debug)]
pub struct Backlog {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl Backlog {
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicU64::new(0), bytes_max })
    }
}

struct Writing {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    watch: Watch,
}

impl UnitWriter {
    /// Creates the unfinished file, of MP4 or Matroska by its extension. `first` is the time with which the film begins.
    pub fn create(
        path: &Path,
        format: &UnitFormat,
        first: Timestamp,
        backlog: &Arc<Backlog>,
    ) -> Result<Self, SinkError> {
        let file = VideoFile::create(path)?;
        let writing = Writing::start(&file, format).map_err(|failure| file.describe(failure))?;
        Ok(Self { writing, file, first, backlog: Arc::clone(backlog) })
    }

    /// Whether files of this extension can be written here.
    pub fn require(extension: &str) -> Result<(), super::MediaError> {
        super::init()?;
        Container::of(extension).map_or(Ok(()), |container| elements::require(container.muxer()))
    }

    /// Hands a unit to the thread that writes. An error where that has failed, or where too much waits for it.
    pub fn push(&mut self, unit: &AccessUnit) -> Result<(), SinkError> {
        self.try_push(unit).map_err(|failure| self.file.describe(failure))
    }

    fn try_push(&mut self, unit: &AccessUnit) -> Result<(), Failure> {
        let Writing { source, watch, .. } = &self.writing;
        if let Some(failure) = watch.failure() {
            return Err(failure);
        }
        let waiting = Waiting::new(&unit.bytes, &self.backlog);
        let waiting = waiting.ok_or_else(|| Failure::other("the disk is slower than the video".to_owned()))?;
        let mut buffer = gst::Buffer::from_slice(waiting);
        let times = buffer.get_mut().expect("nobody else has the buffer yet");
        // No unit refers to a later one, so they are decoded in the order in which they are shown.
        times.set_pts(clock_time(unit.pts.since(self.first)));
        times.set_dts(clock_time(unit.pts.since(self.first)));
        times.set_duration(clock_time(unit.duration));
        if !unit.is_key {
            times.set_flags(gst::BufferFlags::DELTA_UNIT);
        }
        let pushed = source.push_buffer(buffer);
        let failed = |flow| watch.failure().unwrap_or_else(|| Failure::other(format!("units are refused: {flow}")));
        pushed.map(drop).map_err(failed)
    }

    /// Waits until all is on the disk, and gives the file its name.
    pub fn finish(self) -> Result<PathBuf, SinkError> {
        let Self { writing, file, .. } = self;
        let Writing { pipeline, source, watch } = &writing;
        encoding::finish(pipeline, source, watch, || file.written()).map_err(|failure| file.describe(failure))?;
        drop(writing);
        file.commit()
    }
}

impl Writing {
    fn start(file: &VideoFile, format: &UnitFormat) -> Result<Self, Failure> {
        let pipeline = gst::Pipeline::new();
        let watch = Watch::on(&pipeline);
        let source = gst_app::AppSrc::builder().format(gst::Format::Time).caps(&format.0).max_bytes(0).build();
        // So that the muxer knows which of its pads is meant.
        let filter = make("capsfilter")?;
        filter.set_property("caps", &format.0);
        let [muxer, sink] = file.elements()?;
        let all = [source.clone().upcast(), filter, muxer, sink];
        let linked = pipeline.add_many(&all).and_then(|()| gst::Element::link_many(&all));
        linked.map_err(|error| Failure::other(error.to_string()))?;
        let writing = Self { pipeline, source, watch };
        if writing.pipeline.set_state(gst::State::Playing).is_err() {
            let failure = writing.watch.failure();
            return Err(failure.unwrap_or_else(|| Failure::other("the file cannot be begun".to_owned())));
        }
        Ok(writing)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        encoding::stop(&self.pipeline);
    }
}

/// A unit's bytes for as long as GStreamer holds them.
struct Waiting {
    bytes: Arc<[u8]>,
    backlog: Arc<Backlog>,
}

impl Waiting {
    /// `None` where too much waits already.
    fn new(bytes: &Arc<[u8]>, backlog: &Arc<Backlog>) -> Option<Self> {
        let waiting = Self { bytes: Arc::clone(bytes), backlog: Arc::clone(backlog) };
        let before = backlog.bytes.fetch_add(waiting.len(), Ordering::AcqRel);
        (before.saturating_add(waiting.len()) <= backlog.bytes_max).then_some(waiting)
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backlog.bytes.fetch_sub(self.len(), Ordering::AcqRel);
    }
}

impl AsRef<[u8]> for Waiting {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
