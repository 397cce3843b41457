//! Whether numbers survive in half precision.

use half::f16;

/// The largest finite f16.
pub const HALF_MAX: f32 = 65504.0;

/// Beyond this a number rounds to infinity rather than to [`HALF_MAX`].
const ROUNDS_TO_INFINITY: f32 = 65520.0;

/// A tensor that keeps this share of its length has lost nothing that shows: a quarter of the digits of
/// f16's smallest normal number, and far more than the 2⁻¹¹ that rounding costs any tensor.
const RELATIVE_ERROR_MAX: f64 = 1.0 / 128.0;

/// How a tensor fares when it is rounded to f16.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fit {
    /// The finite number of largest magnitude that becomes infinite, where there is one.
    pub overflow: Option<f32>,
    /// How many numbers become zero that were not.
    pub zeros: usize,
    /// The length of what is lost over the length of the tensor (Euclidean), of what does not overflow.
    pub relative_error: f64,
    /// The largest magnitude among the finite numbers.
    pub largest: f32,
}

impl Fit {
    pub fn of(numbers: &[f32]) -> Self {
        let mut fit = Self::default();
        let (mut lost, mut whole) = (0f64, 0f64);
        for number in numbers.iter().copied().filter(|number| number.is_finite()) {
            fit.largest = fit.largest.max(number.abs());
            if number.abs() >= ROUNDS_TO_INFINITY {
                if fit.overflow.is_none_or(|worst| number.abs() > worst.abs()) {
                    fit.overflow = Some(number);
                }
                continue;
            }
            let rounded = f16::from_f32(number).to_f32();
            fit.zeros += usize::from(rounded == 0.0 && number != 0.0);
            lost += f64::from(number - rounded).powi(2);
            whole += f64::from(number).powi(2);
        }
        fit.relative_error = if whole > 0.0 { (lost / whole).sqrt() } else { 0.0 };
        fit
    }

    /// Whether the tensor as a whole keeps its meaning.
    pub fn is_good(&self) -> bool {
        self.overflow.is_none() && self.relative_error <= RELATIVE_ERROR_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rounds_to_infinity_is_an_overflow_and_what_rounds_down_is_none() {
        assert_eq!(Fit::of(&[65504.0, 65519.0]).overflow, None);
        assert_eq!(Fit::of(&[1.0, -65520.0, 65520.0]).overflow, Some(-65520.0));
        assert_eq!(Fit::of(&[f32::INFINITY, f32::NAN]).overflow, None);
    }

    #[test]
    fn a_vanishing_scalar_is_bad_and_a_few_vanishing_weights_are_not() {
        assert!(!Fit::of(&[1e-9]).is_good());
        assert!(!Fit::of(&[2e-7, 3e-7]).is_good(), "few digits are left");
        let fit = Fit::of(&[0.5, -0.25, 1e-9, 0.0]);
        assert_eq!(fit.zeros, 1);
        assert!(fit.is_good());
    }
}
