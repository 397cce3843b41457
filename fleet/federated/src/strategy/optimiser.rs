//! What a server makes of the mean: it takes its difference from the weights as a gradient (Reddi et al., "Adaptive Federated
//! Optimization", 2021; momentum after Hsu et al., "Measuring the Effects of Non-Identical Data Distribution", 2019).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::AggregateError;
use crate::weights::Weights;

/// A step of the server. Rates are those of the server; devices have their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Optimiser {
    /// FedAvg, and FedProx, whose proximal term is the devices' business: the mean itself.
    #[default]
    Average,
    /// FedAvgM.
    Momentum { rate: f64, momentum: f64 },
    /// FedAdam.
    Adam { rate: f64, beta1: f64, beta2: f64, tau: f64 },
    /// FedAdagrad.
    Adagrad { rate: f64, tau: f64 },
    /// FedYogi.
    Yogi { rate: f64, beta1: f64, beta2: f64, tau: f64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum OptimiserError {
    #[error("the server's rate is {rate}, and has to be above zero")]
    Rate { rate: f64 },
    #[error("`{name}` is {value}, and has to be at least 0 and below 1")]
    Decay { name: &'static str, value: f64 },
    #[error("`tau` is {tau}, and has to be above zero: nothing else keeps a step from being divided by zero")]
    Tau { tau: f64 },
}

impl Optimiser {
    fn check(self) -> Result<(), OptimiserError> {
        let (rate, decays, tau): (_, &[(&str, f64)], _) = match self {
            Self::Average => (1.0, &[], 1.0),
            Self::Momentum { rate, momentum } => (rate, &[("momentum", momentum)], 1.0),
            Self::Adagrad { rate, tau } => (rate, &[], tau),
            Self::Adam { rate, beta1, beta2, tau } | Self::Yogi { rate, beta1, beta2, tau } => {
                (rate, &[("beta1", beta1), ("beta2", beta2)], tau)
            }
        };
        let is_above_zero = |number: f64| number > 0.0 && number.is_finite();
        if !is_above_zero(rate) {
            return Err(OptimiserError::Rate { rate });
        }
        if let Some((name, value)) = decays.iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
            return Err(OptimiserError::Decay { name, value: *value });
        }
        if is_above_zero(tau) { Ok(()) } else { Err(OptimiserError::Tau { tau }) }
    }

    /// Whether it remembers the first and the second moment of the gradient.
    fn moments(self) -> (bool, bool) {
        match self {
            Self::Average => (false, false),
            Self::Momentum { .. } => (true, false),
            Self::Adagrad { .. } => (false, true),
            Self::Adam { .. } | Self::Yogi { .. } => (true, true),
        }
    }
}

/// An optimiser and what it remembers from round to round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerOptimiser {
    optimiser: Optimiser,
    /// Steps so far.
    steps: u32,
    /// Empty before the first step, and where it remembers none.
    first: Vec<f64>,
    second: Vec<f64>,
}

impl ServerOptimiser {
    pub fn new(optimiser: Optimiser) -> Result<Self, OptimiserError> {
        optimiser.check()?;
        Ok(Self { optimiser, steps: 0, first: Vec::new(), second: Vec::new() })
    }

    /// Takes out what there is a number of for each weight: the first and the second moment. Empty where there is none.
    pub fn take_moments(&mut self) -> [Vec<f64>; 2] {
        [std::mem::take(&mut self.first), std::mem::take(&mut self.second)]
    }

    /// Puts back what was [taken out](Self::take_moments).
    pub fn put_moments(&mut self, [first, second]: [Vec<f64>; 2]) {
        (self.first, self.second) = (first, second);
    }

    /// The next weights, from these and the mean of what was learned from them.
    pub fn step(&mut self, global: &Weights, mean: &Weights) -> Result<Weights, AggregateError> {
        let (has_first, has_second) = self.optimiser.moments();
        let count = global.layout().count();
        let is_other = |moment: &[f64]| !moment.is_empty() && moment.len() != count;
        if global.layout() != mean.layout() || is_other(&self.first) || is_other(&self.second) {
            return Err(AggregateError::Layout);
        }
        for (moment, _) in [(&mut self.first, has_first), (&mut self.second, has_second)].into_iter().filter(|it| it.1)
        {
            moment.resize(count, 0.0);
        }
        self.steps = self.steps.saturating_add(1);
        let pairs = || global.values().iter().zip(mean.values()).map(|(old, mean)| (f64::from(*old), f64::from(*mean)));
        let (first, second) = (self.first.iter_mut(), self.second.iter_mut());
        let values: Vec<f32> = match self.optimiser {
            Optimiser::Average => mean.values().to_vec(),
            Optimiser::Momentum { rate, momentum } => {
                let next = |((old, mean), first): (_, &mut f64)| {
                    *first = momentum * *first + (mean - old);
                    (old + rate * *first) as f32
                };
                pairs().zip(first).map(next).collect()
            }
            Optimiser::Adagrad { rate, tau } => {
                let next = |((old, mean), second): (_, &mut f64)| {
                    let change: f64 = mean - old;
                    *second += change * change;
                    (old + rate * change / (second.sqrt() + tau)) as f32
                };
                pairs().zip(second).map(next).collect()
            }
            Optimiser::Adam { rate, beta1, beta2, tau } => {
                // Flower counts rounds from 1, and corrects as if there had been one more.
                let steps = i32::try_from(self.steps).unwrap_or(i32::MAX).saturating_add(1);
                let rate = rate * (1.0 - beta2.powi(steps)).sqrt() / (1.0 - beta1.powi(steps));
                let next = |(((old, mean), first), second): ((_, &mut f64), &mut f64)| {
                    let change: f64 = mean - old;
                    *first = beta1 * *first + (1.0 - beta1) * change;
                    *second = beta2 * *second + (1.0 - beta2) * change * change;
                    (old + rate * *first / (second.sqrt() + tau)) as f32
                };
                pairs().zip(first).zip(second).map(next).collect()
            }
            Optimiser::Yogi { rate, beta1, beta2, tau } => {
                let next = |(((old, mean), first), second): ((_, &mut f64), &mut f64)| {
                    let change: f64 = mean - old;
                    let square = change * change;
                    *first = beta1 * *first + (1.0 - beta1) * change;
                    *second -= (1.0 - beta2) * square * sign(*second - square);
                    (old + rate * *first / (second.sqrt() + tau)) as f32
                };
                pairs().zip(first).zip(second).map(next).collect()
            }
        };
        Ok(Weights::new(global.layout().clone(), values).expect("there is a value for each number"))
    }
}

/// 0 of 0, which `signum` takes for positive.
fn sign(number: f64) -> f64 {
    if number == 0.0 { 0.0 } else { number.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_refused_by_name() {
        let adam =
            |rate, beta1, beta2, tau| ServerOptimiser::new(Optimiser::Adam { rate, beta1, beta2, tau }).map(drop);
        assert_eq!(adam(0.1, 0.9, 0.99, 1e-3), Ok(()));
        assert_eq!(adam(0.0, 0.9, 0.99, 1e-3), Err(OptimiserError::Rate { rate: 0.0 }));
        assert_eq!(adam(0.1, 1.0, 0.99, 1e-3), Err(OptimiserError::Decay { name: "beta1", value: 1.0 }));
        assert_eq!(adam(0.1, 0.9, -0.1, 1e-3), Err(OptimiserError::Decay { name: "beta2", value: -0.1 }));
        assert_eq!(adam(0.1, 0.9, 0.99, 0.0), Err(OptimiserError::Tau { tau: 0.0 }));
        let momentum = ServerOptimiser::new(Optimiser::Momentum { rate: f64::INFINITY, momentum: 0.9 });
        assert_eq!(momentum.map(drop), Err(OptimiserError::Rate { rate: f64::INFINITY }));
    }
}
