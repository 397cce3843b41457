//! The weights of a model as one row of numbers, and which tensor lies where in it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The tensors of a model, in the order in which they are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(String, Vec<usize>)>", into = "Vec<(String, Vec<usize>)>")]
pub struct Layout {
    tensors: Vec<(String, Vec<usize>)>,
    count: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    #[error("tensor `{name}` is named twice")]
    Twice { name: String },
    #[error("the tensors are too large for any memory")]
    TooLarge,
    #[error("there are no numbers to learn")]
    Empty,
}

impl Layout {
    /// Names and shapes; a shape without dimensions is one number.
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> Result<Self, LayoutError> {
        let tensors: Vec<_> = tensors.into_iter().collect();
        let mut names = BTreeSet::new();
        if let Some((name, _)) = tensors.iter().find(|(name, _)| !names.insert(name)) {
            return Err(LayoutError::Twice { name: name.clone() });
        }
        let mut count = 0_usize;
        for (_, shape) in &tensors {
            let size = shape.iter().try_fold(1_usize, |size, length| size.checked_mul(*length));
            let sum = size.and_then(|size| count.checked_add(size));
            count = sum.filter(|sum| *sum <= isize::MAX as usize / size_of::<f32>()).ok_or(LayoutError::TooLarge)?;
        }
        if count == 0 { Err(LayoutError::Empty) } else { Ok(Self { tensors, count }) }
    }

    /// Numbers of all tensors together.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Names and shapes.
    pub fn tensors(&self) -> &[(String, Vec<usize>)] {
        &self.tensors
    }
}

impl TryFrom<Vec<(String, Vec<usize>)>> for Layout {
    type Error = LayoutError;

    fn try_from(tensors: Vec<(String, Vec<usize>)>) -> Result<Self, LayoutError> {
        Self::new(tensors)
    }
}

impl From<Layout> for Vec<(String, Vec<usize>)> {
    fn from(layout: Layout) -> Self {
        layout.tensors
    }
}

/// One number for each of a layout: weights, or what is to be added to some.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    layout: Arc<Layout>,
    values: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("there are {found} numbers for a layout of {expected}")]
pub struct WeightsError {
    pub expected: usize,
    pub found: usize,
}

impl Weights {
    pub fn new(layout: Arc<Layout>, values: Vec<f32>) -> Result<Self, WeightsError> {
        match (layout.count(), values.len()) {
            (expected, found) if expected == found => Ok(Self { layout, values }),
            (expected, found) => Err(WeightsError { expected, found }),
        }
    }

    pub fn zeros(layout: Arc<Layout>) -> Self {
        let values = vec![0.0; layout.count()];
        Self { layout, values }
    }

    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Tensor after tensor, each in row-major order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// Name, shape and numbers of each tensor.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        let mut rest = self.values.as_slice();
        self.layout.tensors.iter().map(move |(name, shape)| {
            let (values, after) = rest.split_at(shape.iter().product());
            rest = after;
            (name.as_str(), shape.as_slice(), values)
        })
    }

    /// The square root of the sum of all squares.
    pub fn norm(&self) -> f64 {
        self.values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
    }
}

/// Weights that are still as they were sent: of each tensor of a layout its numbers as bytes, little-endian and in row-major
/// order.
#[derive(Clone, Debug, PartialEq)]
pub struct SentWeights<'a> {
    layout: Arc<Layout>,
    tensors: Vec<&'a [u8]>,
}

impl<'a> SentWeights<'a> {
    pub fn new(layout: Arc<Layout>, tensors: Vec<&'a [u8]>) -> Result<Self, WeightsError> {
        let sizes = layout.tensors.iter().map(|(_, shape)| shape.iter().product::<usize>() * size_of::<f32>());
        match tensors.iter().map(|bytes| bytes.len()).eq(sizes) {
            true => Ok(Self { layout, tensors }),
            false => {
                let found = tensors.iter().map(|bytes| bytes.len()).sum::<usize>() / size_of::<f32>();
                Err(WeightsError { expected: layout.count(), found })
            }
        }
    }

    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The bytes of each tensor.
    pub fn tensors(&self) -> &[&'a [u8]] {
        &self.tensors
    }

    /// Its numbers, tensor after tensor.
    pub fn numbers(&self) -> impl Iterator<Item = f32> {
        self.tensors.iter().flat_map(|bytes| bytes.as_chunks().0).map(|bytes| f32::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
        (name.to_owned(), shape.to_vec())
    }

    #[test]
    fn tensors_lie_one_after_another() {
        let layout = Arc::new(Layout::new([named("a", &[2, 2]), named("b", &[]), named("none", &[0, 7])]).unwrap());
        let weights = Weights::new(Arc::clone(&layout), vec![1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        let tensors: Vec<_> = weights.tensors().collect();
        let expected: [(&str, &[usize], &[f32]); 3] =
            [("a", &[2, 2], &[1.0, 2.0, 3.0, 4.0]), ("b", &[], &[5.0]), ("none", &[0, 7], &[])];
        assert_eq!(tensors, expected);
        assert_eq!(weights.norm(), 55_f64.sqrt());
        assert_eq!(Weights::new(layout, vec![0.0; 4]), Err(WeightsError { expected: 5, found: 4 }));
    }

    #[test]
    fn what_was_sent_has_a_number_for_each_of_its_layout() {
        let layout = Arc::new(Layout::new([named("a", &[2]), named("b", &[]), named("none", &[0])]).unwrap());
        let numbers = |numbers: &[f32]| numbers.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let (first, second) = (numbers(&[1.0, 2.0]), numbers(&[3.0]));
        let sent = SentWeights::new(Arc::clone(&layout), vec![&first, &second, &[]]).unwrap();
        assert!(sent.numbers().eq([1.0, 2.0, 3.0]));
        for (tensors, found) in [(vec![&first[..], &second], 3), (vec![&second, &first, &[]], 3), (vec![&first], 2)] {
            assert_eq!(SentWeights::new(Arc::clone(&layout), tensors), Err(WeightsError { expected: 3, found }));
        }
    }

    #[test]
    fn what_is_no_layout_is_refused() {
        let twice = Layout::new([named("a", &[1]), named("a", &[2])]);
        assert_eq!(twice, Err(LayoutError::Twice { name: "a".to_owned() }));
        for shapes in [vec![vec![usize::MAX, 2]], vec![vec![usize::MAX / 8], vec![usize::MAX / 8]]] {
            let tensors = shapes.into_iter().enumerate().map(|(index, shape)| (index.to_string(), shape));
            assert_eq!(Layout::new(tensors), Err(LayoutError::TooLarge));
        }
        assert_eq!(Layout::new([named("a", &[0])]), Err(LayoutError::Empty));
    }
}
