//! Strategies that withstand liars: they look at all updates, so many weights of each at a time.
//!
//! Median and trimmed mean after Yin et al., "Byzantine-Robust Distributed Learning", 2018; Krum and Multi-Krum after
//! Blanchard et al., "Machine Learning with Adversaries", 2017. The first two count each device once, whatever it has learned
//! from, since a liar would say that it was much.

use std::error::Error;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Contribution;
use crate::weights::{Layout, Weights};

/// Of each update in memory at a time: a hundred updates are 3 MB.
const CHUNK: usize = 8192;

/// Why an update cannot be read.
pub type ReadError = Box<dyn Error + Send + Sync>;

/// Updates that were checked and lie somewhere, each as weights.
pub trait UpdateReader {
    fn count(&self) -> usize;

    /// That an update was learned from; at least 1.
    fn examples(&self, update: usize) -> u64;

    /// Fills `values` with an update's weights from the given one on.
    fn read(&self, update: usize, from: usize, values: &mut [f32]) -> Result<(), ReadError>;
}

/// Updates in memory.
#[derive(Clone, Copy, Debug)]
pub struct InMemory<'a> {
    /// What differences were learned from.
    pub global: &'a Weights,
    /// With the examples that each was learned from.
    pub updates: &'a [(Contribution<'a>, u64)],
}

impl UpdateReader for InMemory<'_> {
    fn count(&self) -> usize {
        self.updates.len()
    }

    fn examples(&self, update: usize) -> u64 {
        self.updates[update].1
    }

    fn read(&self, update: usize, from: usize, values: &mut [f32]) -> Result<(), ReadError> {
        let range = from..from + values.len();
        let content = &self.updates[update].0;
        match content {
            Contribution::Full(weights) | Contribution::Delta(weights) => {
                values.copy_from_slice(&weights.values()[range.clone()]);
            }
            Contribution::Sent(sent) => {
                let numbers = sent.numbers().skip(from);
                values.iter_mut().zip(numbers).for_each(|(value, number)| *value = number);
            }
        }
        if content.is_delta() {
            for (value, global) in values.iter_mut().zip(&self.global.values()[range]) {
                *value += global;
            }
        }
        Ok(())
    }
}

/// A strategy that withstands liars.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Robust {
    /// The median of each weight.
    Median,
    /// The mean of each weight without this share of the updates at either end.
    TrimmedMean { share: f64 },
    /// The update that is closest to most others, where at most so many lie.
    Krum { liars: usize },
    /// The mean of the `keep` updates that are closest to most others.
    MultiKrum { liars: usize, keep: usize },
}

#[derive(Debug, Error)]
pub enum RobustError {
    #[error("there are {found} updates, and {needed} are needed")]
    TooFew { found: usize, needed: usize },
    #[error("a share of {share} cannot be cut off at either end: it has to be at least 0 and below 0.5")]
    Share { share: f64 },
    #[error("of {updates} updates with {liars} liars, {keep} cannot be kept")]
    Keep { updates: usize, liars: usize, keep: usize },
    #[error("cannot read update {update}")]
    Read {
        update: usize,
        #[source]
        source: ReadError,
    },
}

impl Robust {
    /// So many updates it needs.
    pub(crate) fn updates_min(self) -> usize {
        match self {
            Self::Median | Self::TrimmedMean { .. } => 1,
            // Fewer than that, and liars can be closest to each other.
            Self::Krum { liars } | Self::MultiKrum { liars, .. } => liars.saturating_mul(2).saturating_add(3),
        }
    }

    pub fn aggregate(self, layout: &Arc<Layout>, updates: &dyn UpdateReader) -> Result<Weights, RobustError> {
        let (count, needed) = (updates.count(), self.updates_min());
        if count < needed {
            return Err(RobustError::TooFew { found: count, needed });
        }
        let values = match self {
            Self::Median => by_weight(layout, updates, median)?,
            Self::TrimmedMean { share } => {
                if !(0.0..0.5).contains(&share) {
                    return Err(RobustError::Share { share });
                }
                let cut = (share * count as f64) as usize;
                by_weight(layout, updates, |column| trimmed_mean(column, cut))?
            }
            Self::Krum { liars } => mean_of(layout, updates, &closest(layout, updates, liars)?[..1])?,
            Self::MultiKrum { liars, keep } => {
                if keep == 0 || keep > count - liars {
                    return Err(RobustError::Keep { updates: count, liars, keep });
                }
                mean_of(layout, updates, &closest(layout, updates, liars)?[..keep])?
            }
        };
        Ok(Weights::new(Arc::clone(layout), values).expect("there is a value for each number"))
    }
}

/// Hands out chunks of all updates, one row each.
fn chunks(layout: &Layout, updates: &dyn UpdateReader, mut take: impl FnMut(&[f32], usize)) -> Result<(), RobustError> {
    let total = layout.count();
    let mut rows = vec![0.0; updates.count() * CHUNK.min(total)];
    for from in (0..total).step_by(CHUNK) {
        let length = CHUNK.min(total - from);
        for (update, row) in rows.chunks_exact_mut(length).take(updates.count()).enumerate() {
            updates.read(update, from, row).map_err(|source| RobustError::Read { update, source })?;
        }
        take(&rows[..updates.count() * length], length);
    }
    Ok(())
}

/// Each weight by itself, from what all updates say of it.
fn by_weight(
    layout: &Layout,
    updates: &dyn UpdateReader,
    combine: impl Fn(&mut [f32]) -> f32,
) -> Result<Vec<f32>, RobustError> {
    let (mut values, mut column) = (Vec::with_capacity(layout.count()), vec![0.0; updates.count()]);
    chunks(layout, updates, |rows, length| {
        for index in 0..length {
            for (value, row) in column.iter_mut().zip(rows.chunks_exact(length)) {
                *value = row[index];
            }
            values.push(combine(&mut column));
        }
    })?;
    Ok(values)
}

/// Of an even number, the mean of the two in the middle.
fn median(column: &mut [f32]) -> f32 {
    let middle = column.len() / 2;
    let is_even = column.len().is_multiple_of(2);
    let (below, at, _) = column.select_nth_unstable_by(middle, f32::total_cmp);
    let at = *at;
    match below.iter().copied().max_by(f32::total_cmp) {
        Some(before) if is_even => ((f64::from(before) + f64::from(at)) / 2.0) as f32,
        _ => at,
    }
}

fn trimmed_mean(column: &mut [f32], cut: usize) -> f32 {
    let length = column.len();
    if cut > 0 {
        column.select_nth_unstable_by(cut, f32::total_cmp);
        column[cut..].select_nth_unstable_by(length - 2 * cut - 1, f32::total_cmp);
    }
    let kept = &column[cut..length - cut];
    (kept.iter().map(|value| f64::from(*value)).sum::<f64>() / kept.len() as f64) as f32
}

/// All updates, beginning with the one that is closest to those around it.
fn closest(layout: &Layout, updates: &dyn UpdateReader, liars: usize) -> Result<Vec<usize>, RobustError> {
    let count = updates.count();
    let mut distances = vec![0.0; count * count];
    chunks(layout, updates, |rows, length| {
        let rows: Vec<&[f32]> = rows.chunks_exact(length).collect();
        for (first, a) in rows.iter().enumerate() {
            for (second, b) in rows.iter().enumerate().skip(first + 1) {
                let square: f64 = a.iter().zip(*b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
                distances[first * count + second] += square;
                distances[second * count + first] += square;
            }
        }
    })?;
    let score = |update: usize| {
        let mut others: Vec<f64> =
            (0..count).filter(|other| *other != update).map(|it| distances[update * count + it]).collect();
        others.sort_by(f64::total_cmp);
        others[..count - liars - 2].iter().sum::<f64>()
    };
    let mut order: Vec<(f64, usize)> = (0..count).map(|update| (score(update), update)).collect();
    // Of two that are as close, the first.
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(order.into_iter().map(|(_, update)| update).collect())
}

/// The mean of some, by the examples that each was learned from.
fn mean_of(layout: &Layout, updates: &dyn UpdateReader, chosen: &[usize]) -> Result<Vec<f32>, RobustError> {
    let total = layout.count();
    let examples: f64 = chosen.iter().map(|update| updates.examples(*update) as f64).sum();
    let (mut values, mut row) = (Vec::with_capacity(total), vec![0.0; CHUNK.min(total)]);
    for from in (0..total).step_by(CHUNK) {
        let length = CHUNK.min(total - from);
        let mut sums = vec![0.0; length];
        for &update in chosen {
            let row = &mut row[..length];
            updates.read(update, from, row).map_err(|source| RobustError::Read { update, source })?;
            let share = updates.examples(update) as f64 / examples;
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += share * f64::from(*value));
        }
        values.extend(sums.into_iter().map(|sum| sum as f32));
    }
    Ok(values)
}
