//! How a run learns: its strategy, its privacy and its quorum, and which of them make sense together.
//!
//! | | privacy | an update counts | needs |
//! |---|---|---|---|
//! | mean (FedAvg, FedProx, FedAvgM, FedAdam, FedAdagrad, FedYogi) | no | by its examples | one update |
//! | mean | yes | once | one update |
//! | median | no | once | one update |
//! | trimmed mean | no | once | a quorum of which a share is at least one |
//! | Krum, Multi-Krum | no | by its examples, where several are kept | 2 × liars + 3 updates |
//!
//! Noise is made for a mean, which one clipped update moves by a known length at most. Nothing of that kind is known of a
//! median or of Krum, so that noise on them would promise what it does not hold.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::privacy::{Clipper, Clipping, ClippingError, PrivacyError};
use crate::strategy::{Optimiser, OptimiserError, Robust, ServerOptimiser};

/// What is made of updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Their mean, and a step of the server.
    Mean(Optimiser),
    /// What liars do not move.
    Robust(Robust),
}

/// Central differential privacy: the service sees updates, and what it makes of them gives little away.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privacy {
    pub clipping: Clipping,
    /// Standard deviation of the noise, as a multiple of the clipping norm.
    pub noise: f64,
    /// At which ε is reported: below one in as many as there are participants.
    pub delta: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    pub strategy: Strategy,
    pub privacy: Option<Privacy>,
    /// Of updates in a round.
    pub quorum: NonZeroUsize,
}

#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum RecipeError {
    #[error("noise promises nothing with {strategy}: privacy goes with a mean")]
    Privacy { strategy: &'static str },
    #[error("{strategy} with {liars} liars needs a quorum of {needed}, and it is {quorum}")]
    Quorum { strategy: &'static str, liars: usize, needed: usize, quorum: usize },
    #[error("of {quorum} updates with {liars} liars, {keep} cannot be kept")]
    Keep { quorum: usize, liars: usize, keep: usize },
    #[error("a share of {share} cuts nobody off a quorum of {quorum}: it has to be below 0.5, and one update or more")]
    Share { share: f64, quorum: usize },
    #[error(transparent)]
    Optimiser(#[from] OptimiserError),
    #[error(transparent)]
    Clipping(#[from] ClippingError),
    #[error(transparent)]
    Noise(#[from] PrivacyError),
}

impl Strategy {
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean(Optimiser::Average) => "FedAvg",
            Self::Mean(Optimiser::Momentum { .. }) => "FedAvgM",
            Self::Mean(Optimiser::Adam { .. }) => "FedAdam",
            Self::Mean(Optimiser::Adagrad { .. }) => "FedAdagrad",
            Self::Mean(Optimiser::Yogi { .. }) => "FedYogi",
            Self::Robust(Robust::Median) => "FedMedian",
            Self::Robust(Robust::TrimmedMean { .. }) => "FedTrimmedAvg",
            Self::Robust(Robust::Krum { .. }) => "Krum",
            Self::Robust(Robust::MultiKrum { .. }) => "MultiKrum",
        }
    }
}

impl Recipe {
    /// Refuses what makes no sense, before anybody is invited.
    pub fn check(&self) -> Result<(), RecipeError> {
        let (quorum, strategy) = (self.quorum.get(), self.strategy.name());
        match self.strategy {
            Strategy::Mean(optimiser) => drop(ServerOptimiser::new(optimiser)?),
            Strategy::Robust(_) if self.privacy.is_some() => return Err(RecipeError::Privacy { strategy }),
            Strategy::Robust(Robust::Median) => {}
            Strategy::Robust(Robust::TrimmedMean { share }) => {
                let is_share = (0.0..0.5).contains(&share);
                if !is_share || share * (quorum as f64) < 1.0 {
                    return Err(RecipeError::Share { share, quorum });
                }
            }
            Strategy::Robust(robust @ (Robust::Krum { liars } | Robust::MultiKrum { liars, .. })) => {
                let needed = robust.updates_min();
                if quorum < needed {
                    return Err(RecipeError::Quorum { strategy, liars, needed, quorum });
                }
                if let Robust::MultiKrum { keep, .. } = robust
                    && (keep == 0 || keep > quorum - liars)
                {
                    return Err(RecipeError::Keep { quorum, liars, keep });
                }
            }
        }
        if let Some(Privacy { clipping, noise, delta }) = self.privacy {
            Clipper::new(clipping)?;
            let mut accountant = crate::privacy::Accountant::default();
            accountant.note(noise, 1.0)?;
            accountant.epsilon(delta)?;
        }
        Ok(())
    }

    /// Whether an update counts by the examples that it was learned from, and not once.
    pub fn weighs_examples(&self) -> bool {
        self.privacy.is_none()
            && matches!(self.strategy, Strategy::Mean(_) | Strategy::Robust(Robust::MultiKrum { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVACY: Privacy = Privacy { clipping: Clipping::Fixed { norm: 1.0 }, noise: 1.0, delta: 1e-5 };

    fn recipe(strategy: Strategy, privacy: Option<Privacy>, quorum: usize) -> Recipe {
        Recipe { strategy, privacy, quorum: NonZeroUsize::new(quorum).unwrap() }
    }

    fn strategies() -> Vec<Strategy> {
        let (rate, beta1, beta2, tau) = (0.1, 0.9, 0.99, 1e-3);
        vec![
            Strategy::Mean(Optimiser::Average),
            Strategy::Mean(Optimiser::Momentum { rate, momentum: 0.9 }),
            Strategy::Mean(Optimiser::Adam { rate, beta1, beta2, tau }),
            Strategy::Mean(Optimiser::Adagrad { rate, tau }),
            Strategy::Mean(Optimiser::Yogi { rate, beta1, beta2, tau }),
            Strategy::Robust(Robust::Median),
            Strategy::Robust(Robust::TrimmedMean { share: 0.2 }),
            Strategy::Robust(Robust::Krum { liars: 2 }),
            Strategy::Robust(Robust::MultiKrum { liars: 2, keep: 3 }),
        ]
    }

    #[test]
    fn the_table_holds() {
        for strategy in strategies() {
            let name = strategy.name();
            let is_mean = matches!(strategy, Strategy::Mean(_));
            assert_eq!(recipe(strategy, None, 10).check(), Ok(()), "{name}");
            let private = recipe(strategy, Some(PRIVACY), 10);
            let expected = if is_mean { Ok(()) } else { Err(RecipeError::Privacy { strategy: name }) };
            assert_eq!(private.check(), expected, "{name}");
            assert!(!private.weighs_examples(), "{name}");
            let weighs = is_mean || name == "MultiKrum";
            assert_eq!(recipe(strategy, None, 10).weighs_examples(), weighs, "{name}");
            // As people write it down.
            let text = serde_json::to_string(&private).unwrap();
            assert_eq!(serde_json::from_str::<Recipe>(&text).unwrap(), private, "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_before_anybody_is_invited() {
        let robust = |robust, quorum| recipe(Strategy::Robust(robust), None, quorum).check();
        let krum = RecipeError::Quorum { strategy: "Krum", liars: 2, needed: 7, quorum: 6 };
        assert_eq!(robust(Robust::Krum { liars: 2 }, 6), Err(krum));
        let keep = RecipeError::Keep { quorum: 7, liars: 2, keep: 6 };
        assert_eq!(robust(Robust::MultiKrum { liars: 2, keep: 6 }, 7), Err(keep));
        for (share, quorum) in [(0.5, 100), (0.2, 4), (-0.1, 100), (f64::NAN, 100)] {
            let refusal = robust(Robust::TrimmedMean { share }, quorum);
            assert!(matches!(refusal, Err(RecipeError::Share { .. })), "{share} of {quorum}");
        }
        let mean = Strategy::Mean(Optimiser::Average);
        let private = |privacy| recipe(mean, Some(privacy), 10).check();
        assert!(matches!(private(Privacy { noise: 0.0, ..PRIVACY }), Err(RecipeError::Noise(_))));
        assert!(matches!(private(Privacy { delta: 1.0, ..PRIVACY }), Err(RecipeError::Noise(_))));
        let clipping = Clipping::Fixed { norm: -1.0 };
        assert!(matches!(private(Privacy { clipping, ..PRIVACY }), Err(RecipeError::Clipping(_))));
        let momentum = Strategy::Mean(Optimiser::Momentum { rate: 0.0, momentum: 0.9 });
        assert!(matches!(recipe(momentum, None, 10).check(), Err(RecipeError::Optimiser(_))));
    }
}
