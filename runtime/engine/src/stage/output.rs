//! Where channels go: into a tensor of any element type and layout, padding included.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::{Simd, WithSimd};
use revoada_core::{Fit, ImageTransform, Layout, Placement, Size};

/// The part of the network's input that shows the picture, in whole pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    x: usize,
    y: usize,
    pub(super) size: Size,
}

impl Window {
    pub(crate) fn new(placement: &Placement, network: Size) -> Self {
        let target = placement.target;
        // The cast saturates, so that not even a placement without a number in it can reach outside.
        let edge = |position: f32, limit: usize| (position.ceil() as usize).min(limit);
        let (x, y) = (edge(target.x, network.width), edge(target.y, network.height));
        let (right, bottom) = (edge(target.right(), network.width), edge(target.bottom(), network.height));
        Self { x, y, size: Size::new(right.saturating_sub(x), bottom.saturating_sub(y)) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.size.width == 0 || self.size.height == 0
    }

    pub(crate) fn columns(&self) -> Range<usize> {
        self.x..self.x + self.size.width
    }

    pub(crate) fn rows(&self) -> Range<usize> {
        self.y..self.y + self.size.height
    }
}

/// An element type that pictures are staged into.
pub(super) trait Sample: Copy + Default {
    fn convert(arch: pulp::Arch, from: &[f32], to: &mut [Self]);

    /// The same memory, where the element is `f32` itself and needs no conversion.
    fn as_f32(row: &mut [Self]) -> Option<&mut [f32]>;
}

impl Sample for f32 {
    fn convert(_: pulp::Arch, from: &[f32], to: &mut [Self]) {
        to.copy_from_slice(from);
    }

    fn as_f32(row: &mut [Self]) -> Option<&mut [f32]> {
        Some(row)
    }
}

impl Sample for f16 {
    fn convert(_: pulp::Arch, from: &[f32], to: &mut [Self]) {
        to.convert_from_f32_slice(from);
    }

    fn as_f32(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}

impl Sample for u8 {
    fn convert(arch: pulp::Arch, from: &[f32], to: &mut [Self]) {
        arch.dispatch(Round { from, to });
    }

    fn as_f32(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}

/// 2²³: a number added to it has no bits left for a fraction, and so its whole part, rounded half to
/// even, in its lowest bits. A cast saturates, which compilers do one number at a time.
const ROUNDER: f32 = 8_388_608.0;

struct Round<'a> {
    from: &'a [f32],
    to: &'a mut [u8],
}

impl WithSimd for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to = (from.clamp(0.0, 255.0) + ROUNDER).to_bits() as u8;
        }
    }
}

/// Writes `(fill − mean) · scale` around the window.
pub(super) fn pad<T: Sample>(arch: pulp::Arch, target: &mut [T], window: &Window, transform: &ImageTransform) {
    let Size { width, height } = transform.size;
    if window.size == transform.size || width == 0 || height == 0 {
        return;
    }
    let fill = match transform.fit {
        Fit::Letterbox { fill, .. } => fill,
        Fit::Stretch | Fit::CenterCrop => 0.0,
    };
    let channels: [f32; 3] = std::array::from_fn(|channel| (fill - transform.mean[channel]) * transform.scale[channel]);
    let mut values = [T::default(); 3];
    T::convert(arch, &channels, &mut values);
    let segments = |y: usize| {
        if window.rows().contains(&y) {
            [0..window.columns().start, window.columns().end..width]
        } else {
            [0..width, width..width]
        }
    };
    match transform.layout {
        Layout::Nchw => {
            for (plane, value) in target.chunks_exact_mut(width * height).zip(values) {
                for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                    for segment in segments(y) {
                        row[segment].fill(value);
                    }
                }
            }
        }
        Layout::Nhwc => {
            let count = transform.channels.channels();
            for (y, row) in target.chunks_exact_mut(width * count).enumerate() {
                for segment in segments(y) {
                    for pixel in row[segment.start * count..segment.end * count].chunks_exact_mut(count) {
                        pixel.copy_from_slice(&values[..count]);
                    }
                }
            }
        }
    }
}

/// Rows on their way to a target that is not planar `f32`.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    planar: Vec<f32>,
    interleaved: Vec<f32>,
}

impl Scratch {
    pub(super) fn resize(&mut self, len: usize) {
        self.planar.resize(len, 0.0);
        self.interleaved.resize(len, 0.0);
    }
}

/// Writes row `y` of the window, whose `C` channels `produce` computes, straight into the target
/// where that is planar `f32`.
pub(super) fn write_row<const C: usize, T: Sample>(
    arch: pulp::Arch,
    target: &mut [T],
    window: &Window,
    transform: &ImageTransform,
    y: usize,
    scratch: &mut Scratch,
    produce: impl FnOnce([&mut [f32]; C]),
) {
    let Size { width, height } = transform.size;
    let Scratch { planar, interleaved } = scratch;
    let start = (window.y + y) * width + window.x;
    match transform.layout {
        Layout::Nchw => {
            let row = start..start + window.size.width;
            if let Some(target) = T::as_f32(target) {
                let mut planes = target.chunks_exact_mut(width * height);
                return produce(split(|| &mut planes.next().expect("the target has `C` planes")[row.clone()]));
            }
            let mut channels = planar.chunks_exact_mut(window.size.width);
            produce(split(|| channels.next().expect("the scratch row has `C` parts")));
            let channels = planar.chunks_exact(window.size.width);
            for (plane, channel) in target.chunks_exact_mut(width * height).zip(channels) {
                T::convert(arch, channel, &mut plane[row.clone()]);
            }
        }
        Layout::Nhwc => {
            let mut channels = planar.chunks_exact_mut(window.size.width);
            produce(split(|| channels.next().expect("the scratch row has `C` parts")));
            let target = &mut target[start * C..][..window.size.width * C];
            if let Some(target) = T::as_f32(target) {
                return arch.dispatch(Interleave::<C> { planar, target });
            }
            arch.dispatch(Interleave::<C> { planar, target: interleaved });
            T::convert(arch, interleaved, target);
        }
    }
}

fn split<'a, const C: usize>(mut next: impl FnMut() -> &'a mut [f32]) -> [&'a mut [f32]; C] {
    std::array::from_fn(|_| next())
}

/// One planar row to whole pixels.
struct Interleave<'a, const C: usize> {
    planar: &'a [f32],
    target: &'a mut [f32],
}

impl<const C: usize> WithSimd for Interleave<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { planar, target } = self;
        if C == 1 {
            return target.copy_from_slice(planar);
        }
        let (first, rest) = planar.split_at(planar.len() / 3);
        let (second, third) = rest.split_at(rest.len() / 2);
        let pixels = target.as_chunks_mut::<3>().0;
        for (((pixel, first), second), third) in pixels.iter_mut().zip(first).zip(second).zip(third) {
            *pixel = [*first, *second, *third];
        }
    }
}
