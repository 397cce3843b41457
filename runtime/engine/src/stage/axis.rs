//! Which source pixels a network pixel lies between, along one axis.

use std::ops::Range;

use super::LANES;
use super::shuffle::Shuffles;

/// A stretch of the source and the stretch of the network's input that it fills, each as start and
/// length in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    source: (f32, f32),
    target: (f32, f32),
}

impl Span {
    pub(super) fn new(source: (f32, f32), target: (f32, f32)) -> Self {
        Self { source, target }
    }

    /// Where the centre of network pixel `index` lies, where source pixel 0 is at 0.
    fn position(&self, index: usize) -> f64 {
        let step = f64::from(self.source.1) / f64::from(self.target.1);
        (index as f64 + 0.5 - f64::from(self.target.0)) * step + f64::from(self.source.0) - 0.5
    }
}

/// What an axis runs along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// How many pixels there are.
    pub(super) pixels: usize,
    /// How many bytes one is from the next; 0 for rows, which are not picked apart.
    pub(super) step: usize,
}

/// For each network pixel: `first[i]` and, where `weight[i]` is not 0, its successor, which
/// contributes that share.
#[derive(Debug, Default)]
pub(super) struct Axis {
    first: Vec<u32>,
    /// Filled up to a whole number of blocks.
    weight: Vec<f32>,
    blended: bool,
    shuffles: Shuffles,
    /// What the tables were made for, to make them only once for a fixed camera.
    made_for: Option<(Span, Range<usize>, Source)>,
}

/// Positions this close to a pixel's centre are on it; rounding errors are far smaller, and what it
/// changes is a hundred times less than the tolerance of a tenth of a thousandth of a level.
const ON_CENTRE: f64 = 1e-6;

impl Axis {
    /// Tables for the network pixels `targets`.
    pub(super) fn prepare(&mut self, span: Span, targets: Range<usize>, source: Source) {
        let wanted = Some((span, targets.clone(), source));
        if self.made_for == wanted {
            return;
        }
        self.made_for = wanted;
        let Source { pixels, step } = source;
        self.fill(
            pixels,
            step,
            targets.map(|target| {
                let position = span.position(target).max(0.0).min((pixels - 1) as f64);
                let first = position.floor();
                let weight = position - first;
                if weight < ON_CENTRE {
                    (first as usize, 0.0)
                } else if weight > 1.0 - ON_CENTRE {
                    (first as usize + 1, 0.0)
                } else {
                    (first as usize, weight as f32)
                }
            }),
        );
    }

    /// Tables for a chroma plane of half the size, each sample of which stands for two luma pixels:
    /// where both luma pixels share a sample there is nothing to blend.
    pub(super) fn prepare_chroma(&mut self, luma: &Self, step: usize) {
        let Some((span, targets, Source { pixels, .. })) = luma.made_for.clone() else { return };
        let wanted = Some((span, targets, Source { pixels, step }));
        if self.made_for == wanted {
            return;
        }
        self.made_for = wanted;
        self.fill(
            pixels.div_ceil(2),
            step,
            luma.taps().map(|(first, weight)| {
                let (first, second) = (first / 2, first.div_ceil(2));
                (first, if first == second { 0.0 } else { weight })
            }),
        );
    }

    fn fill(&mut self, pixels: usize, step: usize, taps: impl Iterator<Item = (usize, f32)>) {
        self.first.clear();
        self.weight.clear();
        for (first, weight) in taps {
            self.first.push(first as u32);
            self.weight.push(weight);
        }
        self.blended = self.weight.iter().any(|weight| *weight != 0.0);
        if self.blended {
            // Where pixels are read in pairs, the last one is the second of its pair.
            for (first, weight) in self.first.iter_mut().zip(&mut self.weight) {
                if *first as usize == pixels - 1 {
                    (*first, *weight) = (*first - 1, 1.0);
                }
            }
        }
        let bytes = if self.blended { 2 * step } else { step };
        self.shuffles.prepare(&self.first, step, bytes, pixels * step);
        self.weight.resize(self.weight.len().next_multiple_of(LANES), 0.0);
    }

    fn taps(&self) -> impl Iterator<Item = (usize, f32)> {
        self.first.iter().zip(&self.weight).map(|(first, weight)| (*first as usize, *weight))
    }

    /// The first source pixel of each network pixel.
    pub(super) fn first(&self) -> &[u32] {
        &self.first
    }

    /// The share of the second pixel; 0 for every pixel where the axis is not [`Self::blended`].
    pub(super) fn weight(&self) -> &[f32] {
        &self.weight
    }

    /// Whether any network pixel lies between two source pixels. If so, every one has a successor.
    pub(super) fn blended(&self) -> bool {
        self.blended
    }

    /// How to pick the pixels, or pairs of them where the axis is [`Self::blended`], in bulk.
    pub(super) fn shuffles(&self) -> &Shuffles {
        &self.shuffles
    }

    /// Both source pixels of network pixel `index` and the share of the second; equal where only
    /// one is needed.
    pub(super) fn neighbours(&self, index: usize) -> (usize, usize, f32) {
        let (first, weight) = (self.first[index] as usize, self.weight[index]);
        if weight == 0.0 { (first, first, weight) } else { (first, first + 1, weight) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taps(source: (f32, f32), target: (f32, f32), pixels: usize) -> (Axis, Axis) {
        let (mut luma, mut chroma) = (Axis::default(), Axis::default());
        luma.prepare(Span::new(source, target), 0..target.1 as usize, Source { pixels, step: 1 });
        chroma.prepare_chroma(&luma, 2);
        (luma, chroma)
    }

    #[test]
    fn a_third_of_the_size_reads_every_third_pixel_alone() {
        let (luma, chroma) = taps((0.0, 1920.0), (0.0, 640.0), 1920);
        assert!(!luma.blended() && !chroma.blended());
        assert_eq!(luma.first()[..3], [1, 4, 7]);
        assert_eq!(chroma.first()[..3], [0, 2, 3]);
    }

    #[test]
    fn half_the_size_blends_two_luma_pixels_that_share_their_chroma() {
        let (luma, chroma) = taps((0.0, 8.0), (0.0, 4.0), 8);
        assert_eq!(luma.neighbours(1), (2, 3, 0.5));
        assert_eq!(chroma.neighbours(1), (1, 1, 0.0));
    }

    #[test]
    fn past_the_border_the_border_pixel_repeats() {
        let (luma, _) = taps((-4.0, 16.0), (0.0, 32.0), 8);
        assert_eq!(luma.neighbours(0), (0, 0, 0.0));
        assert_eq!(luma.neighbours(31), (6, 7, 1.0));
    }

    #[test]
    fn a_single_pixel_has_no_successor() {
        let (luma, chroma) = taps((-1.0, 3.0), (0.0, 7.0), 1);
        assert!(!luma.blended() && !chroma.blended());
        assert_eq!(luma.neighbours(6), (0, 0, 0.0));
    }
}
