//! Brings source rows to the network's width, each at most once.
//!
//! Picking pixels at irregular distances is the part that no compiler vectorises. So it is done
//! alone and with as few instructions as possible: all bytes that a network pixel needs, both
//! neighbours with all interleaved components, move as one word, and where the processor can
//! (`shuffle`) four words at once. What follows is straight arithmetic on these words.

use pulp::{Simd, WithSimd};
use revoada_core::{ImageView, PixelFormat};

use super::axis::Axis;
use super::shuffle;

/// Picked bytes: for each network pixel the first source pixel's components, then the second's.
#[derive(Debug, Default)]
pub(super) struct Words {
    low: Vec<u32>,
    /// Bytes 4 and 5, which only pairs of three components have.
    high: Vec<u32>,
}

impl Words {
    pub(super) fn resize(&mut self, len: usize) {
        self.low.resize(len, 0);
        self.high.resize(len, 0);
    }
}

/// The two latest resampled rows of a plane; going down a picture, no row is resampled twice.
#[derive(Debug, Default)]
pub(super) struct RowCache {
    rows: [Vec<f32>; 2],
    held: [Option<usize>; 2],
}

impl RowCache {
    /// Forgets all rows and makes room for rows of `len` samples.
    pub(super) fn reset(&mut self, len: usize) {
        self.held = [None; 2];
        for row in &mut self.rows {
            row.resize(len, 0.0);
        }
    }

    /// Rows `upper` and `lower`, of which `make` resamples what is missing.
    pub(super) fn fetch(
        &mut self,
        upper: usize,
        lower: usize,
        mut make: impl FnMut(usize, &mut [f32]),
    ) -> (&[f32], &[f32]) {
        let mut slot_of = |row: usize, other: usize| {
            if let Some(slot) = self.held.iter().position(|held| *held == Some(row)) {
                return slot;
            }
            let slot = usize::from(self.held[0] == Some(other));
            make(row, &mut self.rows[slot]);
            self.held[slot] = Some(row);
            slot
        };
        let (upper, lower) = (slot_of(upper, lower), slot_of(lower, upper));
        (&self.rows[upper], &self.rows[lower])
    }
}

/// Resamples row `y` of the first plane: one component, or three one after the other.
pub(super) fn resample_first(
    arch: pulp::Arch,
    image: &ImageView<'_>,
    y: usize,
    columns: &Axis,
    words: &mut Words,
    out: &mut [f32],
) {
    let row = image.plane(0).row(y);
    match image.format() {
        PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray => resample::<1>(arch, row, columns, words, out),
        PixelFormat::Rgb | PixelFormat::Bgr => resample::<3>(arch, row, columns, words, out),
    }
}

/// Resamples row `y` of the chroma planes: U, then V.
pub(super) fn resample_chroma(
    arch: pulp::Arch,
    image: &ImageView<'_>,
    y: usize,
    columns: &Axis,
    words: &mut Words,
    out: &mut [f32],
) {
    if image.format() == PixelFormat::Nv12 {
        return resample::<2>(arch, image.plane(1).row(y), columns, words, out);
    }
    let (u, v) = out.split_at_mut(out.len() / 2);
    resample::<1>(arch, image.plane(1).row(y), columns, words, u);
    resample::<1>(arch, image.plane(2).row(y), columns, words, v);
}

/// Resamples a row of `C` interleaved components into `C` planar parts of `out`.
fn resample<const C: usize>(arch: pulp::Arch, row: &[u8], columns: &Axis, words: &mut Words, out: &mut [f32]) {
    let Words { low, high } = words;
    let shuffled = shuffle::gather(arch, row, columns.shuffles(), low);
    if columns.blended() {
        if !shuffled {
            gather_pairs::<C>(row, columns.first(), low, high);
        }
        arch.dispatch(BlendPairs::<C> { low, high, weight: columns.weight(), out });
    } else {
        if !shuffled {
            gather::<C>(row, columns.first(), low);
        }
        arch.dispatch(Widen::<C> { low, out });
    }
}

/// One pixel of `C` bytes a word.
fn gather<const C: usize>(row: &[u8], first: &[u32], low: &mut [u32]) {
    for (word, first) in low.iter_mut().zip(first) {
        let pixel = &row[*first as usize * C..][..C];
        *word = match C {
            1 => u32::from(pixel[0]),
            2 => u32::from(u16::from_le_bytes([pixel[0], pixel[1]])),
            _ => u32::from_le_bytes([pixel[0], pixel[1], pixel[2], 0]),
        };
    }
}

/// Two neighbouring pixels of `C` bytes a word, or a word and a half.
fn gather_pairs<const C: usize>(row: &[u8], first: &[u32], low: &mut [u32], high: &mut [u32]) {
    for ((low, high), first) in low.iter_mut().zip(high).zip(first) {
        let pair = &row[*first as usize * C..][..2 * C];
        match C {
            1 => *low = u32::from(u16::from_le_bytes([pair[0], pair[1]])),
            2 => *low = u32::from_le_bytes([pair[0], pair[1], pair[2], pair[3]]),
            _ => {
                *low = u32::from_le_bytes([pair[0], pair[1], pair[2], pair[3]]);
                *high = u32::from(u16::from_le_bytes([pair[4], pair[5]]));
            }
        }
    }
}

/// Words of one pixel to `C` planar components.
struct Widen<'a, const C: usize> {
    low: &'a [u32],
    out: &'a mut [f32],
}

impl<const C: usize> WithSimd for Widen<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let part = self.out.len() / C;
        for (component, out) in self.out.chunks_exact_mut(part).enumerate() {
            let shift = 8 * component as u32;
            for (low, out) in self.low.iter().zip(out) {
                *out = byte(*low, shift);
            }
        }
    }
}

/// Words of two pixels to `C` planar components, each pair blended.
struct BlendPairs<'a, const C: usize> {
    low: &'a [u32],
    high: &'a [u32],
    weight: &'a [f32],
    out: &'a mut [f32],
}

impl<const C: usize> WithSimd for BlendPairs<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let part = self.out.len() / C;
        for (component, out) in self.out.chunks_exact_mut(part).enumerate() {
            let first_shift = 8 * component as u32;
            let second_byte = C + component;
            let (second, second_shift) = if second_byte < 4 {
                (self.low, 8 * second_byte as u32)
            } else {
                (self.high, 8 * (second_byte - 4) as u32)
            };
            for (((first, second), weight), out) in self.low.iter().zip(second).zip(self.weight).zip(out) {
                let (first, second) = (byte(*first, first_shift), byte(*second, second_shift));
                *out = first + (second - first) * weight;
            }
        }
    }
}

/// The signed detour is one instruction, the unsigned conversion several.
#[inline(always)]
fn byte(word: u32, shift: u32) -> f32 {
    ((word >> shift) & 0xff) as i32 as f32
}
