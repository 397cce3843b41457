//! No update moves the weights by more than a norm.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Clipping {
    Fixed {
        norm: f64,
    },
    /// One that follows a quantile of the updates' norms (Andrew et al., "Differentially Private Learning with Adaptive
    /// Clipping", 2021).
    Adaptive {
        /// To begin with.
        norm: f64,
        /// Share of the updates that it is to leave as they are.
        quantile: f64,
        /// How fast it follows.
        rate: f64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum ClippingError {
    #[error("the clipping norm is {norm}, and has to be above zero")]
    Norm { norm: f64 },
    #[error("the clipping norm is to follow quantile {quantile}, and it has to be at least 0 and at most 1")]
    Quantile { quantile: f64 },
    #[error("the clipping norm follows at rate {rate}, and it has to be above zero")]
    Rate { rate: f64 },
}

/// Clips, and remembers the norm from round to round.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Clipper {
    clipping: Clipping,
    norm: f64,
}

impl Clipper {
    pub fn new(clipping: Clipping) -> Result<Self, ClippingError> {
        let (Clipping::Fixed { norm } | Clipping::Adaptive { norm, .. }) = clipping;
        let is_above_zero = |number: f64| number > 0.0 && number.is_finite();
        if !is_above_zero(norm) {
            return Err(ClippingError::Norm { norm });
        }
        if let Clipping::Adaptive { quantile, rate, .. } = clipping {
            if !(0.0..=1.0).contains(&quantile) {
                return Err(ClippingError::Quantile { quantile });
            }
            if !is_above_zero(rate) {
                return Err(ClippingError::Rate { rate });
            }
        }
        Ok(Self { clipping, norm })
    }

    /// Whether the norm follows what it is told after a round.
    pub fn is_adaptive(&self) -> bool {
        matches!(self.clipping, Clipping::Adaptive { .. })
    }

    /// Now.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// Makes a difference of this norm no longer than is allowed. Whether it was left as it is.
    pub fn clip(&self, difference: &mut [f32], norm: f64) -> bool {
        if norm <= self.norm {
            return true;
        }
        let factor = self.norm / norm;
        difference.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
        false
    }

    /// After a round: the share of its updates that were left as they are, to which the caller has added noise.
    pub fn follow(&mut self, left_as_they_are: f64) {
        if let Clipping::Adaptive { quantile, rate, .. } = self.clipping {
            let next = self.norm * (-rate * (left_as_they_are - quantile)).exp();
            // Noise may make it tiny or huge; nothing can bring it back from zero.
            if next > f64::MIN_POSITIVE && next.is_finite() {
                self.norm = next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(values: &[f32]) -> f64 {
        values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn only_what_is_too_long_is_made_shorter() {
        let clipper = Clipper::new(Clipping::Fixed { norm: 1.0 }).unwrap();
        let (mut short, mut long) = ([0.6_f32, 0.0], [3.0_f32, -4.0]);
        assert!(clipper.clip(&mut short, 0.6) && !clipper.clip(&mut long, 5.0));
        assert_eq!(short, [0.6, 0.0]);
        assert!((length(&long) - 1.0).abs() < 1e-6 && (long[0] - 0.6).abs() < 1e-6, "{long:?}");
    }

    #[test]
    fn an_adaptive_norm_finds_its_quantile() {
        let clipping = Clipping::Adaptive { norm: 0.1, quantile: 0.5, rate: 0.2 };
        let mut clipper = Clipper::new(clipping).unwrap();
        // Norms of updates are spread evenly between 5 and 15.
        for _ in 0..200 {
            let within = ((clipper.norm() - 5.0) / 10.0).clamp(0.0, 1.0);
            clipper.follow(within);
        }
        assert!((clipper.norm() - 10.0).abs() < 0.1, "{}", clipper.norm());
        let before = clipper;
        clipper.follow(f64::NAN);
        assert_eq!(clipper, before);
        let mut fixed = Clipper::new(Clipping::Fixed { norm: 2.0 }).unwrap();
        fixed.follow(0.0);
        assert_eq!(fixed.norm(), 2.0);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let adaptive = |norm, quantile, rate| Clipper::new(Clipping::Adaptive { norm, quantile, rate }).map(drop);
        assert_eq!(adaptive(1.0, 0.5, 0.2), Ok(()));
        assert_eq!(adaptive(0.0, 0.5, 0.2), Err(ClippingError::Norm { norm: 0.0 }));
        assert_eq!(adaptive(1.0, 1.5, 0.2), Err(ClippingError::Quantile { quantile: 1.5 }));
        assert_eq!(adaptive(1.0, 0.5, 0.0), Err(ClippingError::Rate { rate: 0.0 }));
    }
}
