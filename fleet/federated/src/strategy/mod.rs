//! How updates become weights.

mod mean;
mod optimiser;
mod robust;

use std::sync::Arc;
use thiserror::Error;

use pulp::Arch;

use crate::weights::{Layout, SentWeights, Weights};

pub use mean::Mean;
pub use optimiser::{Optimiser, OptimiserError, ServerOptimiser};
pub use robust::{InMemory, ReadError, Robust, RobustError, UpdateReader};

/// What a device has learned.
#[derive(Clone, Debug, PartialEq)]
pub enum Contribution<'a> {
    /// Its weights.
    Full(Weights),
    /// The same, of which nothing was copied yet.
    Sent(SentWeights<'a>),
    /// What is to be added to the weights that it began with.
    Delta(Weights),
}

/// Numbers whose differences are summed up side by side.
const LANES: usize = 16;
/// Bytes of this many numbers are made at a time.
const PIECE: usize = 1 << 14;

impl Contribution<'_> {
    pub fn layout(&self) -> &Arc<Layout> {
        match self {
            Self::Full(weights) | Self::Delta(weights) => weights.layout(),
            Self::Sent(sent) => sent.layout(),
        }
    }

    pub fn is_delta(&self) -> bool {
        matches!(self, Self::Delta(_))
    }

    /// The norm of its difference from the weights that it began with, which are of the same layout. It is no finite number
    /// where a number of it is none.
    pub fn distance(&self, global: &Weights) -> f64 {
        assert_eq!(self.layout(), global.layout(), "distances are between weights of one layout");
        // Squares of single precision do not overflow in double: only what is no number makes a sum that is none.
        let squares = match self {
            Self::Delta(delta) => return delta.norm(),
            Self::Full(weights) => Arch::new().dispatch(|| squares(weights.values(), global.values(), |value| *value)),
            Self::Sent(sent) => {
                let tensors = sent.tensors().iter().zip(global.tensors());
                tensors
                    .map(|(bytes, (_, _, global))| {
                        let numbers = bytes.as_chunks().0;
                        Arch::new().dispatch(|| squares(numbers, global, |bytes| f32::from_le_bytes(*bytes)))
                    })
                    .sum()
            }
        };
        squares.sqrt()
    }

    /// What is to be added to the weights that it began with, which are of the same layout.
    pub fn difference(&self, global: &Weights) -> Vec<f32> {
        let global = global.values().iter();
        match self {
            Self::Delta(delta) => delta.values().to_vec(),
            Self::Full(weights) => weights.values().iter().zip(global).map(|(value, global)| value - global).collect(),
            Self::Sent(sent) => sent.numbers().zip(global).map(|(value, global)| value - global).collect(),
        }
    }

    /// Gives away its numbers as little-endian bytes, piece after piece, whether they were sent so or not.
    pub fn each_piece<E>(&self, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        match self {
            Self::Sent(sent) => sent.tensors().iter().try_for_each(|bytes| each(bytes)),
            Self::Full(weights) | Self::Delta(weights) => {
                let mut bytes = Vec::with_capacity(PIECE.min(weights.values().len()) * size_of::<f32>());
                weights.values().chunks(PIECE).try_for_each(|values| {
                    bytes.clear();
                    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                    each(&bytes)
                })
            }
        }
    }
}

/// The sum of the squares of all differences.
#[inline(always)]
fn squares<T>(values: &[T], global: &[f32], number: impl Fn(&T) -> f32) -> f64 {
    let square = |value: &T, global: &f32| (f64::from(number(value)) - f64::from(*global)).powi(2);
    let ((blocks, rest), (global_blocks, global_rest)) = (values.as_chunks::<LANES>(), global.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (block, global) in blocks.iter().zip(global_blocks) {
        for ((sum, value), global) in sums.iter_mut().zip(block).zip(global) {
            *sum += square(value, global);
        }
    }
    let rest: f64 = rest.iter().zip(global_rest).map(|(value, global)| square(value, global)).sum();
    sums.iter().sum::<f64>() + rest
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
