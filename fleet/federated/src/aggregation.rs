//! A round's updates made into the next weights, as a [recipe](Recipe) says.

use std::collections::HashMap;
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::privacy::{Accountant, Clipper, PrivacyError, add_noise, deviation};
use crate::recipe::{Privacy, Recipe, RecipeError, Strategy};
use crate::strategy::{AggregateError, Contribution, Mean, RobustError, ServerOptimiser, UpdateReader};
use crate::weights::{Layout, Weights};

/// What a run remembers from round to round, beside its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// `None` where the strategy has none.
    pub optimiser: Option<ServerOptimiser>,
    /// `None` without privacy.
    pub clipper: Option<Clipper>,
    pub accountant: Accountant,
}

#[derive(Debug, Error)]
pub enum AggregationError {
    #[error(transparent)]
    Mean(#[from] AggregateError),
    #[error(transparent)]
    Robust(#[from] RobustError),
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
    #[error("the new weights are no finite numbers")]
    NotFinite,
}

/// Why a file is no [`Memory`].
#[derive(Debug, Error)]
pub enum MemoryError {
    #[error("it is no safetensors file")]
    Format(#[source] SafeTensorError),
    #[error("it does not say what a strategy remembers")]
    Missing,
    #[error("it says something else than what a strategy remembers")]
    Rest(#[source] serde_json::Error),
}

/// In the metadata.
const MEMORY: &str = "memory";
const MOMENTS: [&str; 2] = ["first", "second"];

/// What has come of a round's updates so far, where a mean is made of them: as large as the weights, however many there are.
#[derive(Clone, Debug)]
pub struct Gathering {
    mean: Mean,
    /// Updates that were no longer than the clipping norm.
    left_as_they_are: usize,
}

impl Memory {
    /// Before the first round.
    pub fn new(recipe: &Recipe) -> Result<Self, RecipeError> {
        recipe.check()?;
        let optimiser = match recipe.strategy {
            Strategy::Mean(optimiser) => Some(ServerOptimiser::new(optimiser)?),
            Strategy::Robust(_) => None,
        };
        let clipper = recipe.privacy.map(|privacy| Clipper::new(privacy.clipping)).transpose()?;
        Ok(Self { optimiser, clipper, accountant: Accountant::default() })
    }

    /// As a file, in the safetensors format: moments as tensors, all else as JSON in its metadata.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut rest = self.clone();
        let moments = rest.optimiser.as_mut().map(ServerOptimiser::take_moments).unwrap_or_default();
        let bytes = moments.map(|moment| moment.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        let tensors = MOMENTS.iter().zip(&bytes).map(|(name, bytes)| {
            let shape = vec![bytes.len() / size_of::<f64>()];
            (*name, TensorView::new(Dtype::F64, shape, bytes).expect("a number has eight bytes"))
        });
        let rest = serde_json::to_string(&rest).expect("it is plain data");
        safetensors::serialize(tensors, Some(HashMap::from([(MEMORY.to_owned(), rest)]))).expect("names differ")
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, MemoryError> {
        let file = SafeTensors::deserialize(bytes).map_err(MemoryError::Format)?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(MemoryError::Format)?;
        let rest = header.metadata().as_ref().and_then(|metadata| metadata.get(MEMORY)).ok_or(MemoryError::Missing)?;
        let mut memory: Self = serde_json::from_str(rest).map_err(MemoryError::Rest)?;
        if let Some(optimiser) = &mut memory.optimiser {
            let moment = |name| {
                let bytes = file.tensor(name).map_err(MemoryError::Format)?.data();
                let numbers = bytes.chunks_exact(size_of::<f64>());
                let values = numbers.map(|bytes| f64::from_le_bytes(bytes.try_into().expect("a chunk has eight")));
                Ok(values.collect())
            };
            let [first, second] = MOMENTS;
            optimiser.put_moments([moment(first)?, moment(second)?]);
        }
        Ok(memory)
    }

    /// What all rounds so far have given away; `None` without privacy.
    pub fn epsilon(&self, recipe: &Recipe) -> Option<f64> {
        recipe.privacy.and_then(|privacy| self.accountant.epsilon(privacy.delta).ok())
    }
}

impl Gathering {
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { mean: Mean::new(layout), left_as_they_are: 0 }
    }

    /// Takes in an update that passed its [check](crate::Update::check), which found its `norm`.
    pub fn fold(
        &mut self,
        recipe: &Recipe,
        memory: &Memory,
        global: &Weights,
        update: &Contribution<'_>,
        (examples, norm): (u64, f64),
    ) -> Result<(), AggregateError> {
        let Some(clipper) = &memory.clipper else {
            return self.mean.fold(update, if recipe.weighs_examples() { examples } else { 1 });
        };
        if update.layout() != global.layout() {
            return Err(AggregateError::Layout);
        }
        let mut difference = update.difference(global);
        self.left_as_they_are += usize::from(clipper.clip(&mut difference, norm));
        let difference = Weights::new(Arc::clone(global.layout()), difference).expect("it is as long as it was");
        self.mean.fold(&Contribution::Delta(difference), 1)
    }

    pub fn updates(&self) -> usize {
        self.mean.updates()
    }

    /// The next weights. What is remembered changes with them. `random` gives 64 bits of a cryptographic generator at a time.
    pub fn finish(
        self,
        recipe: &Recipe,
        memory: &mut Memory,
        global: &Weights,
        mut random: impl FnMut() -> u64,
    ) -> Result<Weights, AggregationError> {
        let updates = self.mean.updates();
        let mut mean = self.mean.finish(global)?;
        if let (Some(Privacy { noise, .. }), Some(clipper)) = (recipe.privacy, &mut memory.clipper) {
            let spread = split(noise, clipper.is_adaptive(), updates);
            let mut values = mean.into_values();
            add_noise(&mut values, deviation(spread.of_updates, clipper.norm(), updates), &mut random);
            mean = Weights::new(Arc::clone(global.layout()), values).expect("it is as long as it was");
            if let Some(of_count) = spread.of_count {
                let mut count = [self.left_as_they_are as f32];
                add_noise(&mut count, of_count, &mut random);
                clipper.follow((f64::from(count[0]) / updates as f64).clamp(0.0, 1.0));
            }
            memory.accountant.note(noise, 1.0)?;
        }
        let optimiser = memory.optimiser.as_mut().expect("who makes a mean has an optimiser");
        finite(optimiser.step(global, &mean)?)
    }
}

/// The next weights of a strategy that looks at all updates at once.
pub fn aggregate_robust(
    recipe: &Recipe,
    layout: &Arc<Layout>,
    updates: &dyn UpdateReader,
) -> Result<Weights, AggregationError> {
    let Strategy::Robust(robust) = recipe.strategy else { unreachable!("a mean is made by gathering") };
    finite(robust.aggregate(layout, updates)?)
}

fn finite(weights: Weights) -> Result<Weights, AggregationError> {
    match weights.values().iter().all(|value| value.is_finite()) {
        true => Ok(weights),
        false => Err(AggregationError::NotFinite),
    }
}

/// Where noise goes.
struct Spread {
    /// As a multiple of the clipping norm.
    of_updates: f64,
    /// On the count of updates that were left as they are; `None` where nobody needs it.
    of_count: Option<f64>,
}

/// The noise that two questions share so that both together give away as much as one with this noise would (Andrew et al.,
/// theorem 1). As there, a twentieth of the updates goes on their count; of few updates more, since the sum has no solution then.
fn split(noise: f64, is_adaptive: bool, updates: usize) -> Spread {
    if !is_adaptive {
        return Spread { of_updates: noise, of_count: None };
    }
    let of_count = (updates as f64 / 20.0).max(noise);
    let of_updates = (noise.powi(-2) - (2.0 * of_count).powi(-2)).powf(-0.5);
    Spread { of_updates, of_count: Some(of_count) }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::privacy::Clipping;
    use crate::strategy::Optimiser;

    fn weights(values: &[f32]) -> Weights {
        let layout = Layout::new([("w".to_owned(), vec![values.len()])]).unwrap();
        Weights::new(Arc::new(layout), values.to_vec()).unwrap()
    }

    fn recipe(privacy: Option<Privacy>) -> Recipe {
        Recipe { strategy: Strategy::Mean(Optimiser::Average), privacy, quorum: NonZeroUsize::MIN }
    }

    fn gather(recipe: &Recipe, memory: &mut Memory, global: &Weights, updates: &[(&[f32], u64)]) -> Weights {
        let mut gathering = Gathering::new(Arc::clone(global.layout()));
        for (difference, examples) in updates {
            let update = Contribution::Delta(weights(difference));
            let norm = update.distance(global);
            gathering.fold(recipe, memory, global, &update, (*examples, norm)).unwrap();
        }
        let mut random = fastrand::Rng::with_seed(3);
        gathering.finish(recipe, memory, global, || random.u64(..)).unwrap()
    }

    #[test]
    fn without_privacy_examples_weigh() {
        let (recipe, global) = (recipe(None), weights(&[1.0, 1.0]));
        let mut memory = Memory::new(&recipe).unwrap();
        let next = gather(&recipe, &mut memory, &global, &[(&[4.0, 0.0], 30), (&[0.0, 4.0], 10)]);
        assert_eq!(next.values(), [4.0, 2.0]);
        assert_eq!(memory.epsilon(&recipe), None);
    }

    #[test]
    fn with_privacy_each_counts_once_and_no_further_than_the_norm() {
        let clipping = Clipping::Fixed { norm: 5.0 };
        let recipe = recipe(Some(Privacy { clipping, noise: 1e-6, delta: 1e-5 }));
        let global = weights(&[0.0; 2]);
        let mut memory = Memory::new(&recipe).unwrap();
        let next = gather(&recipe, &mut memory, &global, &[(&[30.0, 40.0], 1000), (&[0.0, 2.0], 1)]);
        // 30, 40 becomes 3, 4.
        for (value, expected) in next.values().iter().zip([1.5_f32, 3.0]) {
            assert!((value - expected).abs() < 1e-3, "{value} is not {expected}");
        }
        assert!(memory.epsilon(&recipe).unwrap() > 0.0);
    }

    #[test]
    fn an_adaptive_norm_follows_and_both_questions_cost_as_one() {
        let clipping = Clipping::Adaptive { norm: 100.0, quantile: 0.5, rate: 0.2 };
        let recipe = recipe(Some(Privacy { clipping, noise: 0.5, delta: 1e-5 }));
        let global = weights(&[0.0; 2]);
        let mut memory = Memory::new(&recipe).unwrap();
        let updates: Vec<(&[f32], u64)> = vec![(&[0.6, 0.8], 1); 200];
        for _ in 0..20 {
            gather(&recipe, &mut memory, &global, &updates);
        }
        let norm = memory.clipper.unwrap().norm();
        assert!(norm < 25.0, "{norm}");
        for (noise, updates) in [(0.5, 200), (2.0, 10)] {
            let Spread { of_updates, of_count } = split(noise, true, updates);
            // Two Gaussian questions of sensitivity 1 and 1/2.
            let both = (of_updates.powi(-2) + (2.0 * of_count.unwrap()).powi(-2)).powf(-0.5);
            assert!((both - noise).abs() < 1e-9, "{both} is not {noise}");
        }
    }

    #[test]
    fn what_is_remembered_is_read_as_it_was_written() {
        let adam = Optimiser::Adam { rate: 0.1, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
        let clipping = Clipping::Fixed { norm: 1.0 };
        let recipe =
            Recipe { strategy: Strategy::Mean(adam), ..recipe(Some(Privacy { clipping, noise: 1.0, delta: 1e-5 })) };
        let mut memory = Memory::new(&recipe).unwrap();
        assert_eq!(Memory::from_bytes(&memory.to_bytes()).unwrap(), memory);
        gather(&recipe, &mut memory, &weights(&[0.5, 0.1]), &[(&[0.3, 0.4], 2)]);
        assert_eq!(Memory::from_bytes(&memory.to_bytes()).unwrap(), memory);
        assert!(matches!(Memory::from_bytes(b"no"), Err(MemoryError::Format(_))));
    }

    #[test]
    fn weights_that_are_no_numbers_do_not_come_out() {
        let (recipe, global) = (recipe(None), weights(&[f32::MAX]));
        let mut memory = Memory::new(&recipe).unwrap();
        let mut gathering = Gathering::new(Arc::clone(global.layout()));
        gathering.fold(&recipe, &memory, &global, &Contribution::Delta(weights(&[f32::MAX])), (1, 1.0)).unwrap();
        let refusal = gathering.finish(&recipe, &mut memory, &global, || 0);
        assert!(matches!(refusal, Err(AggregationError::NotFinite)));
    }
}
