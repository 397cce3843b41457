//! The one pass from a picture to a network's input, on the CPU.
//!
//! What a [`Stager`] computes is defined by [`stage_reference`], a page of plain `f64` arithmetic:
//!
//! - A network pixel reads the source at its own centre, bilinearly between the four nearest source
//!   pixels: OpenCV's `INTER_LINEAR`. Outside the picture the border pixels repeat, so a region may
//!   cross the border, and a region inside the picture blends with its true neighbours.
//! - Subsampled chroma stands for each pixel of its 2×2 block, as in OpenCV's `cvtColor`.
//! - Y, U and V are interpolated first and converted to RGB at the network's resolution, which is a
//!   fraction of the conversions. The two orders differ only where OpenCV rounds to whole levels
//!   between its calls, or clamps a colour that RGB cannot show; `tests/opencv.rs` holds the
//!   difference to its tolerance.
//! - RGB is clamped to 0..=255 and not rounded; then comes `(x − mean) · scale`. A `u8` target rounds
//!   half to even and saturates.
//! - A network that reads grey gets the full-range luma of a YUV picture, and
//!   0.299 R + 0.587 G + 0.114 B of an RGB picture.
//!
//! Only source pixels that some network pixel reads are touched: each of the rows needed is first
//! resampled to the network's width (`rows`), then two neighbouring rows are blended, converted,
//! normalised and stored in one go (`convert`). The inner loops are portable code over small fixed
//! blocks, compiled once more for AVX2 and chosen at run time by `pulp`.

mod axis;
mod convert;
mod output;
mod reference;
mod rows;
mod shuffle;

use half::f16;
use revoada_core::{ChannelOrder, ImageTransform, ImageView, PixelFormat, Placement, Size};

use axis::{Axis, Source, Span};
use convert::{Blend, MixRow};
use output::{Sample, Scratch};
use rows::{RowCache, Words};

pub(crate) use convert::Mix;
pub(crate) use output::Window;
pub use reference::stage_reference;

/// The inner loops work on blocks of this many pixels; row buffers are whole blocks long, so that
/// no loop over them needs a tail. Two registers of AVX2, four of NEON.
const LANES: usize = 16;

/// One row of an input tensor, `channels * height * width` elements in the transform's layout.
#[derive(Debug)]
pub enum StageTarget<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    U8(&'a mut [u8]),
}

impl StageTarget<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(data) => data.len(),
            Self::F16(data) => data.len(),
            Self::U8(data) => data.len(),
        }
    }
}

/// Stages pictures; owns the tables and row buffers for it, which grow to the largest picture seen
/// and are then reused. One per thread.
#[derive(Debug)]
pub struct Stager {
    arch: pulp::Arch,
    axes: Axes,
    words: Words,
    /// Resampled rows of the first plane: luma, grey, or three components of packed RGB.
    first: RowCache,
    /// Resampled rows of U and V.
    chroma: RowCache,
    scratch: Scratch,
}

/// Where columns and rows of the network's input lie in the source's planes.
#[derive(Debug, Default)]
struct Axes {
    columns: Axis,
    rows: Axis,
    chroma_columns: Axis,
    chroma_rows: Axis,
}

impl Default for Stager {
    fn default() -> Self {
        Self::new()
    }
}

impl Stager {
    pub fn new() -> Self {
        Self {
            arch: pulp::Arch::new(),
            axes: Axes::default(),
            words: Words::default(),
            first: RowCache::default(),
            chroma: RowCache::default(),
            scratch: Scratch::default(),
        }
    }

    /// Stages `placement.source` of `image` into `target`, padding included: every element is
    /// written. `placement` is the one that [`Placement::new`] made of the same transform; what of
    /// it lies outside the network's input is cut off.
    ///
    /// # Panics
    /// Where `target` has not exactly `channels * height * width` elements of the transform.
    pub fn stage(
        &mut self,
        image: &ImageView<'_>,
        placement: &Placement,
        transform: &ImageTransform,
        target: StageTarget<'_>,
    ) {
        let Size { width, height } = transform.size;
        let expected = transform.channels.channels() * width * height;
        assert_eq!(target.len(), expected, "a target for {} has another number of elements", transform.size);
        match target {
            StageTarget::F32(data) => self.stage_samples(image, placement, transform, data),
            StageTarget::F16(data) => self.stage_samples(image, placement, transform, data),
            StageTarget::U8(data) => self.stage_samples(image, placement, transform, data),
        }
    }

    fn stage_samples<T: Sample>(
        &mut self,
        image: &ImageView<'_>,
        placement: &Placement,
        transform: &ImageTransform,
        target: &mut [T],
    ) {
        let window = Window::new(placement, transform.size);
        output::pad(self.arch, target, &window, transform);
        if window.is_empty() {
            return;
        }
        self.axes.prepare(image, placement, &window);
        let mix = Mix::new(image.format(), image.color(), transform);
        match (image.format(), transform.channels) {
            (PixelFormat::Gray, ChannelOrder::Gray) => {
                self.stage_rows::<1, 1, T>(image, &mix, transform, &window, target)
            }
            (PixelFormat::Gray, _) => self.stage_rows::<1, 3, T>(image, &mix, transform, &window, target),
            (PixelFormat::Nv12 | PixelFormat::I420, ChannelOrder::Gray) => {
                self.stage_rows::<1, 1, T>(image, &mix, transform, &window, target);
            }
            (_, ChannelOrder::Gray) => self.stage_rows::<3, 1, T>(image, &mix, transform, &window, target),
            _ => self.stage_rows::<3, 3, T>(image, &mix, transform, &window, target),
        }
    }

    /// The rows of the window, from `K` components to `C` channels.
    fn stage_rows<const K: usize, const C: usize, T: Sample>(
        &mut self,
        image: &ImageView<'_>,
        mix: &Mix,
        transform: &ImageTransform,
        window: &Window,
        target: &mut [T],
    ) {
        let Self { arch, axes, words, first, chroma, scratch } = self;
        let block = window.size.width.next_multiple_of(LANES);
        let with_chroma = K == 3 && image.format().is_yuv();
        let first_components = if with_chroma { 1 } else { K };
        words.resize(block);
        first.reset(first_components * block);
        chroma.reset(if with_chroma { 2 * block } else { 0 });
        scratch.resize(C * window.size.width);

        for y in 0..window.size.height {
            let (top, bottom, weight) = axes.rows.neighbours(y);
            let (upper, lower) = first.fetch(top, bottom, |row, out| {
                rows::resample_first(*arch, image, row, &axes.columns, words, out);
            });
            let mut inputs = [Blend { upper, lower, weight }; K];
            if with_chroma {
                let (top, bottom, weight) = axes.chroma_rows.neighbours(y);
                let (upper, lower) = chroma.fetch(top, bottom, |row, out| {
                    rows::resample_chroma(*arch, image, row, &axes.chroma_columns, words, out);
                });
                for (index, input) in inputs[1..].iter_mut().enumerate() {
                    let part = index * block..(index + 1) * block;
                    *input = Blend { upper: &upper[part.clone()], lower: &lower[part], weight };
                }
            } else {
                for (index, input) in inputs.iter_mut().enumerate() {
                    let part = index * block..(index + 1) * block;
                    *input = Blend { upper: &upper[part.clone()], lower: &lower[part], weight };
                }
            }
            output::write_row(*arch, target, window, transform, y, scratch, |channels: [&mut [f32]; C]| {
                arch.dispatch(MixRow { inputs, mix, outputs: channels });
            });
        }
    }
}

impl Axes {
    fn prepare(&mut self, image: &ImageView<'_>, placement: &Placement, window: &Window) {
        let (source, target) = (placement.source, placement.target);
        let Size { width, height } = image.size();
        let (step, chroma_step) = match image.format() {
            PixelFormat::Nv12 => (1, 2),
            PixelFormat::I420 | PixelFormat::Gray => (1, 1),
            PixelFormat::Rgb | PixelFormat::Bgr => (3, 3),
        };
        let (across, down) = (
            Span::new((source.x, source.width), (target.x, target.width)),
            Span::new((source.y, source.height), (target.y, target.height)),
        );
        self.columns.prepare(across, window.columns(), Source { pixels: width, step });
        self.rows.prepare(down, window.rows(), Source { pixels: height, step: 0 });
        if image.format().is_yuv() {
            self.chroma_columns.prepare_chroma(&self.columns, chroma_step);
            self.chroma_rows.prepare_chroma(&self.rows, 0);
        }
    }
}
