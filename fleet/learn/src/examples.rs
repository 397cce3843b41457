//! What a head learns from: the features of each picture and its class.

use revoada_core::Digest;
use thiserror::Error;

/// Rows of features, each with a class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Examples {
    features: usize,
    values: Vec<f32>,
    classes: Vec<u32>,
    pictures: Vec<Digest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ExampleError {
    #[error("an example has {found} features, and the others have {expected}")]
    Width { expected: usize, found: usize },
    #[error("an example has a feature that is no number")]
    NotFinite,
}

impl Examples {
    pub fn new(features: usize) -> Self {
        Self { features, ..Self::default() }
    }

    /// Adds the features of a picture, which is told from others by its digest.
    pub fn push(&mut self, features: &[f32], class: u32, picture: Digest) -> Result<(), ExampleError> {
        if features.len() != self.features {
            return Err(ExampleError::Width { expected: self.features, found: features.len() });
        }
        if !features.iter().all(|value| value.is_finite()) {
            return Err(ExampleError::NotFinite);
        }
        self.values.extend_from_slice(features);
        self.classes.push(class);
        self.pictures.push(picture);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.classes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Numbers of one example.
    pub fn features(&self) -> usize {
        self.features
    }

    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.features..(index + 1) * self.features]
    }

    pub fn class(&self, index: usize) -> u32 {
        self.classes[index]
    }

    pub fn classes(&self) -> &[u32] {
        &self.classes
    }

    /// The numbers of the examples to learn from, and of those that are held out to be judged by: about `share` of all. Which
    /// they are depends on the pictures alone, so that a picture is never learned from in one round and judged by in another.
    pub fn split(&self, share: f64) -> (Vec<usize>, Vec<usize>) {
        (0..self.len()).partition(|index| place(&self.pictures[*index]) >= share)
    }
}

/// A number in 0..1 for a picture; digests are spread evenly over it.
fn place(picture: &Digest) -> f64 {
    let first = picture.as_bytes()[..8].try_into().expect("a digest has 32 bytes");
    (u64::from_be_bytes(first) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_held_out_whatever_the_others_are() {
        let mut random = fastrand::Rng::with_seed(3);
        let pictures: Vec<Digest> = (0..1000).map(|_| Digest::new(std::array::from_fn(|_| random.u8(..)))).collect();
        let of = |pictures: &[Digest]| {
            let mut examples = Examples::new(1);
            pictures.iter().for_each(|picture| examples.push(&[0.0], 0, *picture).unwrap());
            let (_, held_out) = examples.split(0.2);
            held_out.into_iter().map(|index| pictures[index]).collect::<Vec<_>>()
        };
        let all = of(&pictures);
        assert!((150..250).contains(&all.len()), "{}", all.len());
        assert!(of(&pictures[500..]).iter().all(|picture| all.contains(picture)));
    }

    #[test]
    fn nothing_or_everything_can_be_learned_from() {
        let mut examples = Examples::new(1);
        for byte in [0, 255] {
            examples.push(&[0.0], 0, Digest::new([byte; 32])).unwrap();
        }
        assert_eq!(examples.split(0.0), (vec![0, 1], vec![]));
        assert_eq!(examples.split(1.0), (vec![], vec![0, 1]));
    }

    #[test]
    fn what_is_no_example_is_refused() {
        let mut examples = Examples::new(2);
        let picture = Digest::new([0; 32]);
        assert_eq!(examples.push(&[1.0], 0, picture), Err(ExampleError::Width { expected: 2, found: 1 }));
        assert_eq!(examples.push(&[1.0, f32::NAN], 0, picture), Err(ExampleError::NotFinite));
        assert!(examples.is_empty());
    }
}
