//! Federated averaging (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017).

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use super::{AggregateError, Contribution};
use crate::weights::{Layout, Weights};

/// Sums that stay in a processor's nearest cache while updates are added to them.
const BLOCK: usize = 2048;
/// For fewer numbers another thread is not worth its start.
const PART_MIN: usize = 1 << 17;

/// The mean of updates by the examples that each was learned from. It holds sums, whatever the number of updates.
#[derive(Clone, Debug)]
pub struct Mean {
    layout: Arc<Layout>,
    sums: Vec<f64>,
    examples: f64,
    /// Of updates that are differences.
    examples_of_deltas: f64,
    updates: usize,
}

impl Mean {
    pub fn new(layout: Arc<Layout>) -> Self {
        let sums = vec![0.0; layout.count()];
        Self { layout, sums, examples: 0.0, examples_of_deltas: 0.0, updates: 0 }
    }

    /// Takes an update in; nothing of it is kept.
    pub fn fold(&mut self, update: &Contribution, examples: u64) -> Result<(), AggregateError> {
        self.fold_all(&[(update, examples)])
    }

    /// Takes several updates in, or none of them. The sums are gone through once for all of them, and by all processors: the
    /// result is the same as one after another.
    pub fn fold_all(&mut self, updates: &[(&Contribution, u64)]) -> Result<(), AggregateError> {
        for (update, examples) in updates {
            if update.weights().layout() != &self.layout {
                return Err(AggregateError::Layout);
            }
            if *examples == 0 {
                return Err(AggregateError::NoExamples);
            }
        }
        let length = self.sums.len();
        let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(length.div_ceil(PART_MIN));
        let part = length.div_ceil(threads);
        thread::scope(|scope| {
            let mut parts = self.sums.chunks_mut(part).enumerate();
            let first = parts.next();
            for (index, sums) in parts {
                scope.spawn(move || add(sums, index * part, updates));
            }
            if let Some((_, sums)) = first {
                add(sums, 0, updates);
            }
        });
        for (update, examples) in updates {
            let share = *examples as f64;
            self.examples += share;
            if matches!(update, Contribution::Delta(_)) {
                self.examples_of_deltas += share;
            }
            self.updates += 1;
        }
        Ok(())
    }

    /// How many updates were folded.
    pub fn updates(&self) -> usize {
        self.updates
    }

    /// The mean; `global` is what differences were learned from.
    pub fn finish(self, global: &Weights) -> Result<Weights, AggregateError> {
        if self.updates == 0 {
            return Err(AggregateError::NoUpdate);
        }
        if global.layout() != &self.layout {
            return Err(AggregateError::Layout);
        }
        let (all, of_deltas) = (self.examples, self.examples_of_deltas);
        let values = self.sums.iter().zip(global.values());
        let values = values.map(|(sum, global)| ((sum + of_deltas * f64::from(*global)) / all) as f32).collect();
        Ok(Weights::new(self.layout, values).expect("there is a sum for each number"))
    }
}

/// Adds updates to the sums of the weights from `from` on.
fn add(sums: &mut [f64], from: usize, updates: &[(&Contribution, u64)]) {
    for (index, block) in sums.chunks_mut(BLOCK).enumerate() {
        let from = from + index * BLOCK;
        for (update, examples) in updates {
            let (share, values) = (*examples as f64, &update.weights().values()[from..from + block.len()]);
            for (sum, value) in block.iter_mut().zip(values) {
                *sum += share * f64::from(*value);
            }
        }
    }
}
