//! What participants report, made into one figure for all of them.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use super::task::Metrics;

/// What has happened in rounds since the service began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LearningCounts {
    pub rounds_finished: u64,
    pub rounds_called_off: u64,
    pub updates_accepted: u64,
    pub updates_refused: u64,
    /// Of updates, refused ones too.
    pub bytes_received: u64,
    /// Of weights that participants were asked to learn from.
    pub bytes_sent: u64,
}

impl AddAssign for LearningCounts {
    fn add_assign(&mut self, more: Self) {
        self.rounds_finished += more.rounds_finished;
        self.rounds_called_off += more.rounds_called_off;
        self.updates_accepted += more.updates_accepted;
        self.updates_refused += more.updates_refused;
        self.bytes_received += more.bytes_received;
        self.bytes_sent += more.bytes_sent;
    }
}

/// Of one report; what is more is left out.
const FIGURES_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 64;

/// The finite numbers of a report.
pub(super) fn numbers(metrics: &Metrics) -> Vec<(String, f64)> {
    let figures = metrics.iter().filter(|(name, _)| name.len() <= NAME_BYTES_MAX);
    let figures = figures.filter_map(|(name, value)| Some((name.clone(), value.number()?)));
    figures.filter(|(_, value)| value.is_finite()).take(FIGURES_MAX).collect()
}

/// Means of figures by name, weighted by the examples that each is of.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    count: usize,
    sums: BTreeMap<String, (f64, f64)>,
}

impl Tally {
    pub(super) fn add(&mut self, examples: u64, figures: &[(String, f64)]) {
        self.count += 1;
        for (name, value) in figures {
            if self.sums.len() >= FIGURES_MAX && !self.sums.contains_key(name) {
                continue;
            }
            let (sum, weight) = self.sums.entry(name.clone()).or_default();
            *sum += examples as f64 * value;
            *weight += examples as f64;
        }
    }

    /// Reports so far.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Of nothing, there is no mean.
    pub(super) fn mean(&self) -> Vec<(String, f64)> {
        let means = self.sums.iter().filter(|(_, (_, weight))| *weight > 0.0);
        means.map(|(name, (sum, weight))| (name.clone(), sum / weight)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::task::Value;

    #[test]
    fn figures_are_weighted_by_examples_and_the_rest_is_left_out() {
        let metrics: Metrics = [
            ("loss".to_owned(), Value::Double(0.5)),
            ("steps".to_owned(), Value::Integer(3)),
            ("name".to_owned(), Value::Text("a".to_owned())),
            ("broken".to_owned(), Value::Double(f64::NAN)),
        ]
        .into();
        let figures = numbers(&metrics);
        assert_eq!(figures, [("loss".to_owned(), 0.5), ("steps".to_owned(), 3.0)]);
        let mut tally = Tally::default();
        tally.add(30, &figures);
        tally.add(10, &[("loss".to_owned(), 0.9)]);
        tally.add(0, &[("other".to_owned(), 1.0)]);
        assert_eq!((tally.count(), tally.mean()), (3, vec![("loss".to_owned(), 0.6), ("steps".to_owned(), 3.0)]));
    }
}
