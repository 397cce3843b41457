//! From a decoder's buffers to frames, without touching a pixel.

use std::sync::Arc;
use std::time::Duration;

use gstreamer as gst;
use gstreamer_video as gst_video;
use revoada_core::{
    Clock, ColorMatrix, ColorRange, ColorSpec, Frame, FrameMemory, ImageLayout, MemoryKind, PixelFormat, PlaneLayout,
    Size, StreamId, Timestamp,
};

/// What `appsink` accepts. YV12 is I420 with its chroma planes exchanged. Staging reads RGB too, but if
/// it stood here, video in 4:4:4 would become RGB, which is larger and has to be turned back for encoding.
pub(super) const FORMATS: &str = "{ NV12, I420, YV12, GRAY8 }";

/// How long a frame lasts where the stream gives neither times nor a rate.
const FRAME_DEFAULT: Duration = Duration::from_millis(40);

/// Where a stream's time starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// At the beginning of the file.
    Media,
    /// At the first frame: a live stream's clock means nothing to anybody else.
    FirstFrame,
}

/// The shape of the pictures that follow, from their caps.
struct Shape {
    caps: gst::Caps,
    format: PixelFormat,
    swapped: bool,
    color: ColorSpec,
    info: gst_video::VideoInfo,
    frame: Duration,
}

/// Numbers the frames of one stream and gives each its layout and times.
pub(super) struct FrameMaker {
    stream: StreamId,
    clock: Arc<dyn Clock>,
    origin: Origin,
    sequence: u64,
    /// Added to the media's time: what was played before.
    offset: Duration,
    first: Option<Duration>,
    last: Option<Timestamp>,
    shape: Option<Shape>,
    copies: u64,
}

impl FrameMaker {
    pub(super) fn new(stream: StreamId, clock: Arc<dyn Clock>, origin: Origin) -> Self {
        let (sequence, offset) = (0, Duration::ZERO);
        Self { stream, clock, origin, sequence, offset, first: None, last: None, shape: None, copies: 0 }
    }

    /// Frames made so far.
    pub(super) fn count(&self) -> u64 {
        self.sequence
    }

    /// Whole pictures that were copied because their buffer lay in several pieces, or their grey levels had
    /// a limited range.
    pub(super) fn copies(&self) -> u64 {
        self.copies
    }

    /// What comes next is the same media from its beginning; time goes on.
    pub(super) fn replay(&mut self) {
        let frame = self.shape.as_ref().map_or(FRAME_DEFAULT, |shape| shape.frame);
        self.offset = self.last.map_or(Duration::ZERO, |last| last.since(Timestamp::ZERO) + frame);
        self.first = None;
    }

    pub(super) fn make(&mut self, sample: &gst::SampleRef) -> Result<Frame, String> {
        let captured = self.clock.now();
        let caps = sample.caps().ok_or("a picture came without its format")?;
        if self.shape.as_ref().is_none_or(|shape| *shape.caps != *caps) {
            self.shape = Some(Shape::of(caps)?);
        }
        let shape = self.shape.as_ref().expect("it was set above");
        let buffer = sample.buffer_owned().ok_or("a sample came without a picture")?;
        let layout = shape.layout(&buffer)?;
        let (frame, running, expanded) = (shape.frame, running_time(sample, &buffer), shape.is_limited_gray());
        if buffer.n_memory() > 1 {
            self.copies += 1;
        }
        let pts = self.pts(running, frame);
        let memory =
            buffer.into_mapped_buffer_readable().map_err(|_| "a picture's memory cannot be read by the CPU")?;
        let memory: FrameMemory = if expanded {
            self.copies += 1;
            Box::new(full_range(&memory))
        } else {
            Box::new(memory)
        };
        let (stream, sequence) = (self.stream.clone(), self.sequence);
        let frame = Frame::new(stream, sequence, pts, captured, layout, MemoryKind::Host, memory)
            .map_err(|error| error.to_string())?;
        self.sequence += 1;
        self.last = Some(pts);
        Ok(frame)
    }

    /// Time never stands still or goes back, whatever the stream says.
    fn pts(&mut self, running: Option<Duration>, frame: Duration) -> Timestamp {
        let guess = self.last.map(|last| last + frame);
        let Some(running) = running else { return guess.unwrap_or(Timestamp::ZERO + self.offset) };
        let first = match self.origin {
            Origin::Media => Duration::ZERO,
            Origin::FirstFrame => *self.first.get_or_insert(running),
        };
        let pts = Timestamp::ZERO + self.offset + running.saturating_sub(first);
        self.last.map_or(pts, |last| pts.max(last + Duration::from_micros(1)))
    }
}

fn running_time(sample: &gst::SampleRef, buffer: &gst::BufferRef) -> Option<Duration> {
    let pts = buffer.pts()?;
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    segment.to_running_time(pts).map(|time| Duration::from_nanos(time.nseconds()))
}

/// Grey levels 16..=235 as 0..=255.
fn full_range(levels: &[u8]) -> Vec<u8> {
    let level = |limited: u8| (f32::from(limited.clamp(16, 235) - 16) * 255.0 / 219.0).round() as u8;
    let table: [u8; 256] = std::array::from_fn(|limited| level(limited as u8));
    levels.iter().map(|&limited| table[usize::from(limited)]).collect()
}

impl Shape {
    /// A frame's grey levels have the full range; monochrome video seldom comes with another.
    fn is_limited_gray(&self) -> bool {
        self.format == PixelFormat::Gray && self.info.colorimetry().range() == gst_video::VideoColorRange::Range16_235
    }

    fn of(caps: &gst::CapsRef) -> Result<Self, String> {
        let caps = caps.to_owned();
        let info = gst_video::VideoInfo::from_caps(&caps).map_err(|_| format!("cannot read pictures of `{caps}`"))?;
        let (format, swapped) = match info.format() {
            gst_video::VideoFormat::Nv12 => (PixelFormat::Nv12, false),
            gst_video::VideoFormat::I420 => (PixelFormat::I420, false),
            gst_video::VideoFormat::Yv12 => (PixelFormat::I420, true),
            gst_video::VideoFormat::Gray8 => (PixelFormat::Gray, false),
            other => return Err(format!("cannot read pictures in the format `{}`", other.to_str())),
        };
        let color = color(&caps, &info);
        let (numerator, denominator) = (info.fps().numer(), info.fps().denom());
        let frame = match (u32::try_from(numerator), u32::try_from(denominator)) {
            (Ok(numerator @ 1..), Ok(denominator)) => Duration::from_secs(1) * denominator / numerator,
            _ => FRAME_DEFAULT,
        };
        Ok(Self { caps, format, swapped, color, info, frame })
    }

    fn layout(&self, buffer: &gst::BufferRef) -> Result<ImageLayout, String> {
        let size = Size::new(self.info.width() as usize, self.info.height() as usize);
        let mut planes = [PlaneLayout::default(); 3];
        let mut set = |offsets: &[usize], strides: &[i32]| {
            for (plane, (&offset, &stride)) in planes.iter_mut().zip(offsets.iter().zip(strides)) {
                let stride = usize::try_from(stride).map_err(|_| "a picture stands on its head".to_owned())?;
                *plane = PlaneLayout { offset, stride };
            }
            Ok::<_, String>(())
        };
        match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) => set(meta.offset(), meta.stride())?,
            None => set(self.info.offset(), self.info.stride())?,
        }
        if self.swapped {
            planes.swap(1, 2);
        }
        Ok(ImageLayout { format: self.format, color: self.color, size, planes })
    }
}

/// The stream's own word where it gives one. Where it does not, pictures of 720 lines and more are
/// BT.709 and smaller ones BT.601, both of limited range, as players take them.
fn color(caps: &gst::CapsRef, info: &gst_video::VideoInfo) -> ColorSpec {
    let by_height = if info.height() >= 720 { ColorMatrix::Bt709 } else { ColorMatrix::Bt601 };
    if !caps.structure(0).is_some_and(|structure| structure.has_field("colorimetry")) {
        return ColorSpec { matrix: by_height, range: ColorRange::Limited };
    }
    let colorimetry = info.colorimetry();
    let matrix = match colorimetry.matrix() {
        gst_video::VideoColorMatrix::Bt601 | gst_video::VideoColorMatrix::Fcc => ColorMatrix::Bt601,
        gst_video::VideoColorMatrix::Bt709 | gst_video::VideoColorMatrix::Smpte240m => ColorMatrix::Bt709,
        gst_video::VideoColorMatrix::Bt2020 => ColorMatrix::Bt709,
        _ => by_height,
    };
    let range = match colorimetry.range() {
        gst_video::VideoColorRange::Range0_255 => ColorRange::Full,
        _ => ColorRange::Limited,
    };
    ColorSpec { matrix, range }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stopped;

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::ZERO
        }
    }

    #[test]
    fn grey_of_limited_range_is_expanded_and_of_full_range_left_alone() {
        super::super::init().unwrap();
        let mut maker = FrameMaker::new(StreamId::new("thermal"), Arc::new(Stopped), Origin::Media);
        for (colorimetry, expected, copies) in
            [("2:0:0:0", [0, 0, 128, 255], 1), ("1:0:0:0", [7, 16, 126, 235], 1), ("", [7, 16, 126, 235], 1)]
        {
            let caps = gst::Caps::builder("video/x-raw")
                .field("format", "GRAY8")
                .field("width", 4)
                .field("height", 1)
                .field("framerate", gst::Fraction::new(25, 1))
                .field_if("colorimetry", colorimetry, !colorimetry.is_empty());
            let buffer = gst::Buffer::from_slice([7u8, 16, 126, 235]);
            let sample = gst::Sample::builder().buffer(&buffer).caps(&caps.build()).build();
            let frame = maker.make(&sample).unwrap();
            assert_eq!(frame.view().plane(0).row(0), expected, "{colorimetry:?}");
            assert_eq!(maker.copies(), copies);
        }
    }
}
