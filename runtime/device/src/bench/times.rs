//! How times spread, by the figures that `trtexec` gives.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Times of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    /// Nanoseconds, three digits, up to an hour.
    histogram: Histogram<u64>,
    total: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("the bounds are constant and valid");
        Self { histogram, total: Duration::ZERO }
    }
}

impl Times {
    pub(crate) fn record(&mut self, time: Duration) {
        self.histogram.saturating_record(time.as_nanos() as u64);
        self.total += time;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all histograms have the same bounds");
        self.total += other.total;
    }

    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    pub(crate) fn total(&self) -> Duration {
        self.total
    }

    pub(crate) fn spread(&self, percentiles: &[f64]) -> Spread {
        let at = |share: f64| self.histogram.value_at_quantile(share) as f64 / 1e6;
        Spread {
            min: self.histogram.min() as f64 / 1e6,
            max: self.histogram.max() as f64 / 1e6,
            mean: self.total.as_secs_f64() * 1e3 / self.count().max(1) as f64,
            median: at(0.5),
            percentiles: percentiles.iter().map(|percent| (name_of(*percent), at(percent / 100.0))).collect(),
        }
    }
}

/// Milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) mean: f64,
    pub(crate) median: f64,
    /// By [`name_of`].
    #[serde(flatten)]
    pub(crate) percentiles: BTreeMap<String, f64>,
}

/// `p99`, `p99.9`.
pub(crate) fn name_of(percent: f64) -> String {
    format!("p{percent}")
}

/// One of `--percentiles`.
pub(crate) fn parse_percentile(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok().filter(|percent| *percent > 0.0 && *percent < 100.0);
    percent.ok_or_else(|| "not between 0 and 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_what_was_asked_for() {
        let (mut first, mut second) = (Times::default(), Times::default());
        (1..=50).for_each(|ms| first.record(Duration::from_millis(ms)));
        (51..=100).for_each(|ms| second.record(Duration::from_millis(ms)));
        first.add(&second);
        let spread = first.spread(&[90.0, 99.5]);
        // Three digits of each are kept.
        let near = |got: f64, expected: f64| assert!((got - expected).abs() < expected / 500.0, "{got} for {expected}");
        near(spread.min, 1.0);
        near(spread.max, 100.0);
        near(spread.median, 50.0);
        near(spread.percentiles["p90"], 90.0);
        near(spread.percentiles["p99.5"], 100.0);
        assert_eq!((spread.mean, first.count(), first.total()), (50.5, 100, Duration::from_millis(5050)));
        let json = serde_json::to_value(&spread).unwrap();
        assert!(json["p99.5"].is_number(), "{json}");
        assert_eq!(serde_json::from_value::<Spread>(json).unwrap(), spread);
    }

    #[test]
    fn a_percentile_lies_inside() {
        for text in ["0", "100", "-1", "median", ""] {
            assert!(parse_percentile(text).is_err(), "{text}");
        }
        assert_eq!(parse_percentile("99.9").map(name_of), Ok("p99.9".to_owned()));
    }
}
