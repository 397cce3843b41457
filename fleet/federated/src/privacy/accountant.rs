//! Rényi differential privacy of the sampled Gaussian mechanism (Mironov, Talwar, Zhang, "Rényi Differential Privacy of the
//! Sampled Gaussian Mechanism", 2019), and from it ε (Canonne, Kamath, Steinke, "The Discrete Gaussian for Differential
//! Privacy", 2020, proposition 12).

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Whole orders are computed without approximation, and the best of them lies below unless ε is tiny.
const ORDERS: std::ops::RangeInclusive<u32> = 2..=256;

/// What rounds have given away. Two sets of participants are neighbours where one has a participant more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accountant {
    rounds: u32,
    /// Divergence by order.
    spent: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum PrivacyError {
    #[error("the noise is {noise} times the clipping norm, and has to be above zero")]
    Noise { noise: f64 },
    #[error("participants take part with probability {share}, and it has to be above 0 and at most 1")]
    Share { share: f64 },
    #[error("δ is {delta}, and has to be above 0 and below 1")]
    Delta { delta: f64 },
}

impl Default for Accountant {
    fn default() -> Self {
        Self { rounds: 0, spent: vec![0.0; ORDERS.count()] }
    }
}

impl Accountant {
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// Notes a round: the standard deviation of its noise as a multiple of the clipping norm, and with which probability each
    /// participant took part, independent of all others. Where a fixed number is drawn, or everybody takes part, that is 1.
    pub fn note(&mut self, noise: f64, share: f64) -> Result<(), PrivacyError> {
        if !(noise > 0.0 && noise.is_finite()) {
            return Err(PrivacyError::Noise { noise });
        }
        if !(share > 0.0 && share <= 1.0) {
            return Err(PrivacyError::Share { share });
        }
        for (spent, order) in self.spent.iter_mut().zip(ORDERS) {
            *spent += divergence(noise, share, order);
        }
        self.rounds += 1;
        Ok(())
    }

    /// ε at this δ of all rounds together: an upper bound.
    pub fn epsilon(&self, delta: f64) -> Result<f64, PrivacyError> {
        if !(delta > 0.0 && delta < 1.0) {
            return Err(PrivacyError::Delta { delta });
        }
        if self.rounds == 0 {
            return Ok(0.0);
        }
        let of_order = |(spent, order): (&f64, u32)| {
            let order = f64::from(order);
            spent + (1.0 - 1.0 / order).ln() - (delta * order).ln() / (order - 1.0)
        };
        Ok(self.spent.iter().zip(ORDERS).map(of_order).fold(f64::INFINITY, f64::min).max(0.0))
    }
}

/// Of one round: `ln Σ C(α,k) (1−q)^(α−k) q^k exp((k²−k)/2σ²) / (α−1)`, with the sum taken in logarithms.
fn divergence(noise: f64, share: f64, order: u32) -> f64 {
    let alpha = f64::from(order);
    if share >= 1.0 {
        return alpha / (2.0 * noise * noise);
    }
    let (mut terms, mut ln_binomial) = (Vec::with_capacity(order as usize + 1), 0.0);
    for k in 0..=order {
        let k = f64::from(k);
        let exponent = (k * k - k) / (2.0 * noise * noise);
        terms.push(ln_binomial + (alpha - k) * (-share).ln_1p() + k * share.ln() + exponent);
        ln_binomial += (alpha - k).ln() - (k + 1.0).ln();
    }
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms.iter().map(|term| (term - largest).exp()).sum();
    ((largest + sum.ln()) / (alpha - 1.0)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64, relative: f64) {
        assert!((found - expected).abs() <= relative * expected, "{found}, not {expected}");
    }

    /// As Google's dp_accounting has it for these rounds.
    #[test]
    fn divergences_are_those_that_were_published() {
        let mut accountant = Accountant::default();
        (0..50).for_each(|_| accountant.note(2.5, 0.01).unwrap());
        for (order, expected) in [(5, 2.18075656e-3), (50, 2.38460375e-2), (100, 1.67416308e2)] {
            close(accountant.spent[order - 2], expected, 1e-4);
        }
    }

    /// As dp_accounting's tests have them: a pure mechanism that was computed by hand, and noise that gives (1, 1e-6).
    #[test]
    fn epsilons_are_those_that_were_published() {
        let orders_to_32 = ORDERS.map(|order| if order <= 32 { 1.1 } else { f64::INFINITY });
        let pure = Accountant { rounds: 1, spent: orders_to_32.collect() };
        close(pure.epsilon(1e-5).unwrap(), 1.32783806176, 1e-9);
        let mut gaussian = Accountant::default();
        gaussian.note(4.530877117, 1.0).unwrap();
        close(gaussian.epsilon(1e-6).unwrap(), 1.0, 1e-3);
    }

    #[test]
    fn more_rounds_give_more_away_and_more_noise_less() {
        let epsilon = |rounds: u32, noise: f64, share: f64| {
            let mut accountant = Accountant::default();
            (0..rounds).for_each(|_| accountant.note(noise, share).unwrap());
            accountant.epsilon(1e-5).unwrap()
        };
        assert_eq!(epsilon(0, 1.0, 1.0), 0.0);
        assert!(epsilon(10, 1.0, 0.1) < epsilon(20, 1.0, 0.1));
        assert!(epsilon(10, 2.0, 0.1) < epsilon(10, 1.0, 0.1));
        assert!(epsilon(10, 1.0, 0.1) < epsilon(10, 1.0, 1.0));
        // Nearly everybody is nearly everybody.
        close(epsilon(10, 1.0, 1.0 - 1e-12), epsilon(10, 1.0, 1.0), 1e-6);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut accountant = Accountant::default();
        for noise in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(accountant.note(noise, 1.0), Err(PrivacyError::Noise { .. })));
        }
        for share in [0.0, 1.1, f64::NAN] {
            assert!(matches!(accountant.note(1.0, share), Err(PrivacyError::Share { .. })));
        }
        for delta in [0.0, 1.0, f64::NAN] {
            assert!(matches!(accountant.epsilon(delta), Err(PrivacyError::Delta { .. })));
        }
        assert_eq!(accountant, Accountant::default(), "what is refused is not noted");
    }
}
