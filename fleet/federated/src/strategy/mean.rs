//! Federated averaging (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017).

use std::sync::Arc;

use super::{AggregateError, Contribution};
use crate::weights::{Layout, Weights};

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
        let weights = update.weights();
        if weights.layout() != &self.layout {
            return Err(AggregateError::Layout);
        }
        if examples == 0 {
            return Err(AggregateError::NoExamples);
        }
        let share = examples as f64;
        for (sum, value) in self.sums.iter_mut().zip(weights.values()) {
            *sum += share * f64::from(*value);
        }
        self.examples += share;
        if matches!(update, Contribution::Delta(_)) {
            self.examples_of_deltas += share;
        }
        self.updates += 1;
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
