//! How alike two answers are.

/// The cosine of the angle between two vectors, summed up element by element.
///
/// ```
/// let mut cosine = revoada_core::Cosine::default();
/// cosine.add(3.0, 3.0);
/// cosine.add(4.0, 0.0);
/// assert_eq!(cosine.value(), 0.6);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cosine {
    dot: f64,
    left: f64,
    right: f64,
}

impl Cosine {
    /// The next element of both.
    pub fn add(&mut self, left: f64, right: f64) {
        self.dot += left * right;
        self.left += left * left;
        self.right += right * right;
    }

    /// From −1 to 1. Two zeros point the same way, and zero points nowhere near anything else.
    pub fn value(&self) -> f64 {
        match (self.left > 0.0, self.right > 0.0) {
            (true, true) => (self.dot / (self.left.sqrt() * self.right.sqrt())).clamp(-1.0, 1.0),
            (false, false) => 1.0,
            _ => 0.0,
        }
    }

    /// The length of the left vector.
    pub fn left_length(&self) -> f64 {
        self.left.sqrt()
    }
}
