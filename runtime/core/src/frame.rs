//! One picture of a stream, wherever its pixels lie.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Rect, Size, Timestamp};

/// The name of a stream, unique in one pipeline; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(Arc<str>);

impl StreamId {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How pixels are stored. All formats have 8 bits a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelFormat {
    /// Luma plane, then one plane of interleaved U, V at half width and height (rounded up).
    Nv12,
    /// Luma plane, then U and V planes at half width and height (rounded up).
    I420,
    /// Packed, three bytes a pixel.
    Rgb,
    /// Packed, three bytes a pixel.
    Bgr,
    /// One byte a pixel, full range.
    Gray,
}

impl PixelFormat {
    /// Bytes in a row and number of rows of each plane of a picture.
    pub fn planes(self, size: Size) -> PlaneSizes {
        let Size { width, height } = size;
        let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
        match self {
            Self::Nv12 => PlaneSizes { count: 2, sizes: [(width, height), (half_width * 2, half_height), (0, 0)] },
            Self::I420 => {
                PlaneSizes { count: 3, sizes: [(width, height), (half_width, half_height), (half_width, half_height)] }
            }
            Self::Rgb | Self::Bgr => PlaneSizes { count: 1, sizes: [(width * 3, height), (0, 0), (0, 0)] },
            Self::Gray => PlaneSizes { count: 1, sizes: [(width, height), (0, 0), (0, 0)] },
        }
    }

    pub fn is_yuv(self) -> bool {
        matches!(self, Self::Nv12 | Self::I420)
    }
}

/// What [`PixelFormat::planes`] returns: (bytes a row, rows) per plane.
#[derive(Clone, Copy, Debug)]
pub struct PlaneSizes {
    count: usize,
    sizes: [(usize, usize); 3],
}

impl PlaneSizes {
    pub fn as_slice(&self) -> &[(usize, usize)] {
        &self.sizes[..self.count]
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorMatrix {
    #[default]
    Bt601,
    Bt709,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorRange {
    /// Luma 16..=235, chroma 16..=240.
    #[default]
    Limited,
    /// 0..=255.
    Full,
}

/// How YUV relates to RGB; of no meaning for the other formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ColorSpec {
    pub matrix: ColorMatrix,
    pub range: ColorRange,
}

/// Where a plane starts in the frame's memory and how far its rows are apart, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaneLayout {
    pub offset: usize,
    pub stride: usize,
}

/// How a picture lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLayout {
    pub format: PixelFormat,
    pub color: ColorSpec,
    pub size: Size,
    /// As many as the format has are meaningful.
    pub planes: [PlaneLayout; 3],
}

impl ImageLayout {
    /// Planes one after the other without gaps.
    pub fn packed(format: PixelFormat, color: ColorSpec, size: Size) -> Self {
        let mut planes = [PlaneLayout::default(); 3];
        let mut offset = 0;
        for (plane, &(stride, rows)) in planes.iter_mut().zip(format.planes(size).as_slice()) {
            *plane = PlaneLayout { offset, stride };
            offset += stride * rows;
        }
        Self { format, color, size, planes }
    }

    /// Bytes that the memory must have, `None` where that overflows.
    pub fn bytes(&self) -> Option<usize> {
        let mut end = 0usize;
        for (plane, &(row, rows)) in self.planes.iter().zip(self.format.planes(self.size).as_slice()) {
            let Some(last) = rows.checked_sub(1) else { continue };
            end = end.max(last.checked_mul(plane.stride)?.checked_add(plane.offset)?.checked_add(row)?);
        }
        Some(end)
    }
}

/// What kind of memory holds a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryKind {
    Host,
    /// CUDA managed memory, for devices without I/O coherency.
    Managed,
    /// Page-locked host memory mapped into the device.
    Pinned,
    /// A descriptor of NVIDIA's multimedia API; reserved.
    NvBufSurface,
}

/// The bytes of a frame, kept alive by whoever decoded them.
pub type FrameMemory = Box<dyn AsRef<[u8]> + Send + Sync>;

#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("a picture of {size} is empty")]
    Empty { size: Size },
    #[error("rows of plane {plane} are {stride} bytes apart but {row} bytes long")]
    Stride { plane: usize, stride: usize, row: usize },
    #[error("a {format:?} picture of {size} needs {needed} bytes, got {got}")]
    TooShort { format: PixelFormat, size: Size, needed: usize, got: usize },
    #[error("a picture of {size} is too large to address")]
    Overflow { size: Size },
}

/// One picture of a stream. Immutable; share it as `Arc<Frame>`.
pub struct Frame {
    pub stream: StreamId,
    /// Counts the stream's frames from 0, dropped ones included.
    pub sequence: u64,
    /// Presentation time, from the start of the stream.
    pub pts: Timestamp,
    /// When the frame left its decoder, on the pipeline's clock.
    pub captured: Timestamp,
    layout: ImageLayout,
    kind: MemoryKind,
    memory: FrameMemory,
}

impl Frame {
    /// Takes decoded pixels; refuses a layout that the memory cannot hold.
    pub fn new(
        stream: StreamId,
        sequence: u64,
        pts: Timestamp,
        captured: Timestamp,
        layout: ImageLayout,
        kind: MemoryKind,
        memory: FrameMemory,
    ) -> Result<Self, FrameError> {
        check(&layout, (*memory).as_ref().len())?;
        Ok(Self { stream, sequence, pts, captured, layout, kind, memory })
    }

    /// A picture that belongs to no stream: a file, a test.
    pub fn still(layout: ImageLayout, memory: Vec<u8>) -> Result<Self, FrameError> {
        let stream = StreamId::new("still");
        Self::new(stream, 0, Timestamp::ZERO, Timestamp::ZERO, layout, MemoryKind::Host, Box::new(memory))
    }

    pub fn layout(&self) -> &ImageLayout {
        &self.layout
    }

    pub fn size(&self) -> Size {
        self.layout.size
    }

    pub fn memory_kind(&self) -> MemoryKind {
        self.kind
    }

    /// The pixels as the CPU sees them.
    pub fn view(&self) -> ImageView<'_> {
        ImageView::new(self.layout, (*self.memory).as_ref()).expect("`new` checked the memory against the layout")
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("stream", &self.stream)
            .field("sequence", &self.sequence)
            .field("pts", &self.pts)
            .field("layout", &self.layout)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// One plane: `rows` rows of `row` bytes, `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub struct PlaneView<'a> {
    bytes: &'a [u8],
    pub stride: usize,
    pub row: usize,
    pub rows: usize,
}

impl<'a> PlaneView<'a> {
    /// The pixels of row `y`; panics where there is no such row.
    pub fn row(&self, y: usize) -> &'a [u8] {
        &self.bytes[y * self.stride..][..self.row]
    }
}

/// A picture's pixels, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct ImageView<'a> {
    layout: ImageLayout,
    bytes: &'a [u8],
}

impl<'a> ImageView<'a> {
    pub fn new(layout: ImageLayout, bytes: &'a [u8]) -> Result<Self, FrameError> {
        check(&layout, bytes.len())?;
        Ok(Self { layout, bytes })
    }

    pub fn layout(&self) -> &ImageLayout {
        &self.layout
    }

    pub fn format(&self) -> PixelFormat {
        self.layout.format
    }

    pub fn color(&self) -> ColorSpec {
        self.layout.color
    }

    pub fn size(&self) -> Size {
        self.layout.size
    }

    /// Plane `index`; panics where the format has no such plane.
    pub fn plane(&self, index: usize) -> PlaneView<'a> {
        let (row, rows) = self.layout.format.planes(self.layout.size).as_slice()[index];
        let PlaneLayout { offset, stride } = self.layout.planes[index];
        PlaneView { bytes: &self.bytes[offset..], stride, row, rows }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The pixels that `area` touches, as a picture of its own without a copy; `None` where that is none. It begins at an even
    /// column and row where pixels share their chroma. Any number may stand in `area`.
    pub fn part(&self, area: Rect) -> Option<Self> {
        let size = self.size();
        let inside = area.clamped_to(size);
        let is_finite = [area.x, area.y, area.right(), area.bottom()].iter().all(|edge| edge.is_finite());
        if !is_finite || inside.width <= 0.0 || inside.height <= 0.0 {
            return None;
        }
        let begin = |at: f32| if self.format().is_yuv() { at as usize & !1 } else { at as usize };
        let (left, top) = (begin(inside.x), begin(inside.y));
        let right = (inside.right().ceil() as usize).min(size.width);
        let bottom = (inside.bottom().ceil() as usize).min(size.height);
        let mut layout = ImageLayout { size: Size::new(right - left, bottom - top), ..self.layout };
        for (index, plane) in layout.planes.iter_mut().enumerate() {
            let (column, row) = match (self.format(), index) {
                (PixelFormat::Rgb | PixelFormat::Bgr, _) => (left * 3, top),
                (PixelFormat::Nv12, 1) => (left, top / 2),
                (PixelFormat::I420, 1 | 2) => (left / 2, top / 2),
                _ => (left, top),
            };
            plane.offset += row * plane.stride + column;
        }
        Some(Self { layout, bytes: self.bytes })
    }
}

fn check(layout: &ImageLayout, got: usize) -> Result<(), FrameError> {
    let size = layout.size;
    if size.width == 0 || size.height == 0 {
        return Err(FrameError::Empty { size });
    }
    // Beyond this no plane arithmetic could overflow on a 32-bit machine either.
    const SIDE_PIXELS_MAX: usize = 1 << 15;
    if size.width > SIDE_PIXELS_MAX || size.height > SIDE_PIXELS_MAX {
        return Err(FrameError::Overflow { size });
    }
    for (index, (plane, &(row, _))) in layout.planes.iter().zip(layout.format.planes(size).as_slice()).enumerate() {
        if plane.stride < row {
            return Err(FrameError::Stride { plane: index, stride: plane.stride, row });
        }
    }
    let needed = layout.bytes().ok_or(FrameError::Overflow { size })?;
    if needed > got {
        return Err(FrameError::TooShort { format: layout.format, size, needed, got });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_pictures_round_chroma_up() {
        let layout = ImageLayout::packed(PixelFormat::Nv12, ColorSpec::default(), Size::new(5, 3));
        assert_eq!(layout.bytes(), Some(15 + 6 * 2));
        let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), Size::new(5, 3));
        assert_eq!(layout.bytes(), Some(15 + 2 * 3 * 2));
    }

    #[test]
    fn a_part_of_a_picture_has_its_pixels() {
        let size = Size::new(9, 7);
        for format in [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Rgb, PixelFormat::Bgr, PixelFormat::Gray] {
            let layout = ImageLayout::packed(format, ColorSpec::default(), size);
            let bytes: Vec<u8> = (0..=255).cycle().take(layout.bytes().unwrap()).collect();
            let whole = ImageView::new(layout, &bytes).unwrap();
            // Reaches past the right and the lower border.
            let part = whole.part(Rect::new(3.5, 2.2, 50.0, 50.0)).unwrap();
            let left = if format.is_yuv() { 2 } else { 3 };
            assert_eq!(part.size(), Size::new(9 - left, 5), "{format:?}");
            for index in 0..format.planes(size).as_slice().len() {
                let (from, to) = (whole.plane(index), part.plane(index));
                let (column, row) = match (format, index) {
                    (PixelFormat::Rgb | PixelFormat::Bgr, _) => (left * 3, 2),
                    (PixelFormat::Nv12, 1) => (left, 1),
                    (PixelFormat::I420, 1 | 2) => (left / 2, 1),
                    _ => (left, 2),
                };
                for y in 0..to.rows {
                    assert_eq!(to.row(y), &from.row(y + row)[column..][..to.row], "{format:?} {index} {y}");
                }
            }
            assert!(ImageView::new(*part.layout(), &bytes).is_ok());
            for nowhere in [
                Rect::new(9.0, 0.0, 5.0, 5.0),
                Rect::new(-5.0, 0.0, 5.0, 5.0),
                Rect::new(0.0, 0.0, 0.0, 5.0),
                Rect::new(f32::NAN, 0.0, 5.0, 5.0),
                Rect::new(f32::NEG_INFINITY, 0.0, f32::INFINITY, 5.0),
            ] {
                assert!(whole.part(nowhere).is_none(), "{nowhere:?}");
            }
        }
    }

    #[test]
    fn memory_that_cannot_hold_the_picture_is_refused() {
        let layout = ImageLayout::packed(PixelFormat::Rgb, ColorSpec::default(), Size::new(4, 2));
        assert!(Frame::still(layout, vec![0; 24]).is_ok());
        assert!(matches!(Frame::still(layout, vec![0; 23]), Err(FrameError::TooShort { needed: 24, got: 23, .. })));
        let mut thin = layout;
        thin.planes[0].stride = 11;
        assert!(matches!(Frame::still(thin, vec![0; 24]), Err(FrameError::Stride { .. })));
        let empty = ImageLayout::packed(PixelFormat::Gray, ColorSpec::default(), Size::new(0, 2));
        assert!(matches!(Frame::still(empty, vec![]), Err(FrameError::Empty { .. })));
    }
}
