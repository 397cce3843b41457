//! How updates become weights.

mod mean;
mod optimiser;
mod robust;

use thiserror::Error;

use crate::weights::Weights;

pub use mean::Mean;
pub use optimiser::{Optimiser, OptimiserError, ServerOptimiser};
pub use robust::{InMemory, ReadError, Robust, RobustError, UpdateReader};

/// What a device has learned.
#[derive(Clone, Debug, PartialEq)]
pub enum Contribution {
    /// Its weights.
    Full(Weights),
    /// What is to be added to the weights that it began with.
    Delta(Weights),
}

impl Contribution {
    /// As it was sent.
    pub fn weights(&self) -> &Weights {
        match self {
            Self::Full(weights) | Self::Delta(weights) => weights,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AggregateError {
    #[error("the update's tensors have other names or shapes than the model's")]
    Layout,
    #[error("the update was learned from no example")]
    NoExamples,
    #[error("there is no update")]
    NoUpdate,
}
