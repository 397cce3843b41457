//! What an update must be before it counts.

use std::sync::Arc;

use revoada_core::Digest;
use thiserror::Error;

use crate::strategy::Contribution;
use crate::weights::Weights;

/// What a device says that it has learned.
#[derive(Clone, Debug, PartialEq)]
pub struct Update<'a> {
    /// The round for which it was asked.
    pub round: u64,
    /// The weights that it began with.
    pub base: Digest,
    pub content: Contribution<'a>,
    /// Examples that it has learned from.
    pub examples: u64,
}

/// How much one device may say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// More of them would let a device outweigh all others.
    pub examples_max: u64,
    /// Of the difference from the weights that it began with, its Euclidean norm; `None` for any.
    pub norm_max: Option<f64>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub round: u64,
    pub base: Digest,
    /// The weights of that digest.
    pub global: &'a Weights,
    pub bounds: Bounds,
}

/// Why an update does not count. The device is told.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Refusal {
    #[error("the update is of round {found}, and round {expected} is under way")]
    Round { expected: u64, found: u64 },
    #[error("the update was learned from other weights than were sent out")]
    Base,
    #[error("the update's tensors have other names or shapes than the model's")]
    Layout,
    #[error("the update was learned from no example")]
    NoExamples,
    #[error("the update was learned from {found} examples, and may be from {max}")]
    Examples { found: u64, max: u64 },
    #[error("tensor `{tensor}` of the update has a value that is no number")]
    NotFinite { tensor: String },
    #[error("the update differs from the weights by {norm:.3}, and may by {max:.3}")]
    Norm { norm: f64, max: f64 },
}

impl Update<'_> {
    /// The norm of its difference from the weights that it began with, where it counts.
    pub fn check(&self, expected: &Expected<'_>) -> Result<f64, Refusal> {
        if self.round != expected.round {
            return Err(Refusal::Round { expected: expected.round, found: self.round });
        }
        if self.base != expected.base {
            return Err(Refusal::Base);
        }
        let Bounds { examples_max, norm_max } = expected.bounds;
        if self.content.layout() != expected.global.layout() {
            return Err(Refusal::Layout);
        }
        match self.examples {
            0 => return Err(Refusal::NoExamples),
            found if found > examples_max => return Err(Refusal::Examples { found, max: examples_max }),
            _ => {}
        }
        let norm = self.content.distance(expected.global);
        if !norm.is_finite() {
            let weights = Weights::new(Arc::clone(expected.global.layout()), self.content.difference(expected.global));
            let weights = weights.expect("it has the layout");
            let is_broken = |values: &[f32]| values.iter().any(|value| !value.is_finite());
            let tensor = weights.tensors().find(|(_, _, values)| is_broken(values)).map_or("", |(name, ..)| name);
            return Err(Refusal::NotFinite { tensor: tensor.to_owned() });
        }
        match norm_max {
            Some(max) if norm > max => Err(Refusal::Norm { norm, max }),
            _ => Ok(norm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Layout;

    fn weights(name: &str, values: [f32; 2]) -> Weights {
        let layout = Layout::new([("w".to_owned(), vec![1]), (name.to_owned(), vec![1])]).unwrap();
        Weights::new(Arc::new(layout), values.to_vec()).unwrap()
    }

    fn update(content: Contribution<'_>) -> Update<'_> {
        Update { round: 3, base: Digest::new([3; 32]), content, examples: 10 }
    }

    #[test]
    fn what_is_asked_for_counts_and_everything_else_says_why_not() {
        let global = weights("b", [1.0, 1.0]);
        let bounds = Bounds { examples_max: 100, norm_max: Some(5.0) };
        let expected = Expected { round: 3, base: Digest::new([3; 32]), global: &global, bounds };
        let full = |values| update(Contribution::Full(weights("b", values)));
        let delta = |values| update(Contribution::Delta(weights("b", values)));
        assert_eq!(full([4.0, 5.0]).check(&expected), Ok(5.0));
        assert_eq!(delta([3.0, 4.0]).check(&expected), Ok(5.0));
        let not_finite = || Err(Refusal::NotFinite { tensor: "b".to_owned() });
        for (update, refused) in [
            (Update { round: 2, ..full([1.0; 2]) }, Err(Refusal::Round { expected: 3, found: 2 })),
            (Update { base: Digest::new([4; 32]), ..full([1.0; 2]) }, Err(Refusal::Base)),
            (update(Contribution::Full(weights("c", [1.0; 2]))), Err(Refusal::Layout)),
            (Update { examples: 0, ..full([1.0; 2]) }, Err(Refusal::NoExamples)),
            (Update { examples: 101, ..full([1.0; 2]) }, Err(Refusal::Examples { found: 101, max: 100 })),
            (full([1.0, f32::NAN]), not_finite()),
            (delta([1.0, f32::NEG_INFINITY]), not_finite()),
            (delta([6.0, 8.0]), Err(Refusal::Norm { norm: 10.0, max: 5.0 })),
        ] {
            assert_eq!(update.check(&expected), refused, "{update:?}");
        }
        let huge = full([f32::MAX, f32::MIN]).check(&expected);
        assert!(matches!(huge, Err(Refusal::Norm { .. })), "{huge:?}");
    }
}
