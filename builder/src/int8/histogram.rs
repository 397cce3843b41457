//! Distributions of magnitudes, and the range that follows from one.

use super::Method;

/// Fine enough that a bin is a sixteenth of a level when nothing is clipped.
const BINS: usize = 2048;
/// Levels of a magnitude in eight bits with a sign.
const LEVELS: usize = 128;

/// How often magnitudes between 0 and a largest one, 0 itself left out, were seen.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    largest: f32,
    bins: Vec<u64>,
}

impl Histogram {
    pub(super) fn new(largest: f32) -> Self {
        Self { largest, bins: vec![0; BINS] }
    }

    /// Counts finite numbers; what is larger than the largest counts as it.
    pub(super) fn add(&mut self, numbers: &[f32]) {
        let bins_per_unit = f64::from(BINS as u32) / f64::from(self.largest);
        for number in numbers.iter().filter(|number| number.is_finite() && **number != 0.0) {
            let bin = (f64::from(number.abs()) * bins_per_unit) as usize;
            self.bins[bin.min(BINS - 1)] += 1;
        }
    }

    /// The range of the method; the largest number where nothing was counted.
    pub(super) fn range(&self, method: Method) -> f32 {
        let bins = match method {
            Method::MinMax => BINS,
            Method::Percentile(percent) => self.percentile(percent),
            Method::Entropy => self.least_divergence(),
        };
        self.largest * bins as f32 / BINS as f32
    }

    fn percentile(&self, percent: f64) -> usize {
        let total: u64 = self.bins.iter().sum();
        let wanted = total as f64 * (percent / 100.0).clamp(0.0, 1.0);
        let mut seen = 0u64;
        for (index, count) in self.bins.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted && seen > 0 {
                return index + 1;
            }
        }
        BINS
    }

    /// The number of bins to keep.
    fn least_divergence(&self) -> usize {
        let total: u64 = self.bins.iter().sum();
        if total == 0 {
            return BINS;
        }
        let mut best = (f64::INFINITY, BINS);
        let mut inside: u64 = self.bins[..LEVELS - 1].iter().sum();
        for kept in LEVELS..=BINS {
            inside += self.bins[kept - 1];
            let divergence = divergence(&self.bins[..kept], total - inside);
            if divergence < best.0 {
                best = (divergence, kept);
            }
        }
        best.1
    }
}

/// How much the distribution of `bins`, with `outliers` clipped into the last one, differs from what is left
/// of it when each of [`LEVELS`] runs of bins is made even (Kullback–Leibler).
fn divergence(bins: &[u64], outliers: u64) -> f64 {
    let total = (bins.iter().sum::<u64>() + outliers) as f64;
    let inside = bins.iter().sum::<u64>() as f64;
    if inside == 0.0 {
        return f64::INFINITY;
    }
    let mut sum = 0.0;
    for level in 0..LEVELS {
        let run = level * bins.len() / LEVELS..(level + 1) * bins.len() / LEVELS;
        let last = run.end == bins.len();
        let run = &bins[run];
        let filled = run.iter().filter(|count| **count > 0).count();
        let even = run.iter().sum::<u64>() as f64 / filled.max(1) as f64 / inside;
        for (index, count) in run.iter().enumerate() {
            let clipped = if last && index + 1 == run.len() { outliers } else { 0 };
            let p = (count + clipped) as f64 / total;
            if p > 0.0 {
                // A bin that held nothing of its own has no level to stand for what was clipped into it.
                let q = if *count > 0 { even } else { 0.0 };
                sum += p * (p / q).ln();
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: &[f32]) -> Histogram {
        let largest = numbers.iter().fold(0f32, |largest, number| largest.max(number.abs()));
        let mut histogram = Histogram::new(largest);
        histogram.add(numbers);
        histogram
    }

    /// Sums of twelve uniform numbers, nearly normal, with deviation 1.
    fn bell(count: usize) -> Vec<f32> {
        let mut state = 7u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
    }

    #[test]
    fn the_largest_number_is_the_range_of_min_max() {
        assert_eq!(of(&[0.5, -2.0, 1.0]).range(Method::MinMax), 2.0);
    }

    #[test]
    fn a_percentile_leaves_that_share_inside() {
        let numbers: Vec<f32> = (1..=1000).map(|number| number as f32).collect();
        let range = of(&numbers).range(Method::Percentile(90.0));
        assert!((range - 900.0).abs() < 1.0, "{range}");
        assert_eq!(of(&numbers).range(Method::Percentile(100.0)), 1000.0);
        // Zeros are no part of the share.
        let sparse: Vec<f32> = numbers.iter().copied().chain(std::iter::repeat_n(0.0, 100_000)).collect();
        assert!((of(&sparse).range(Method::Percentile(90.0)) - 900.0).abs() < 1.0);
    }

    #[test]
    fn entropy_clips_a_lone_outlier_and_little_else() {
        let mut numbers = bell(100_000);
        let tidy = of(&numbers).range(Method::Entropy);
        assert!((2.5..5.0).contains(&tidy), "{tidy}");
        numbers.push(50.0);
        let clipped = of(&numbers).range(Method::Entropy);
        assert!((2.5..10.0).contains(&clipped), "{clipped}");
    }

    #[test]
    fn entropy_keeps_all_of_an_even_distribution() {
        let numbers: Vec<f32> = (1..=100_000).map(|number| number as f32).collect();
        assert!(of(&numbers).range(Method::Entropy) > 95_000.0);
    }

    #[test]
    fn nothing_but_infinities_leaves_the_range_as_it_was() {
        let mut histogram = Histogram::new(3.0);
        histogram.add(&[f32::NAN, f32::INFINITY, 0.0]);
        for method in [Method::MinMax, Method::Percentile(99.9), Method::Entropy] {
            assert_eq!(histogram.range(method), 3.0);
        }
    }
}
