//! Trains a head on examples, by steps along the gradient of what it gets wrong.
//!
//! With a *proximal* term the head is held near the weights that it began with, as FedProx has it (Li et al., 2020): what devices
//! of unlike data learn then fits together better.

use std::thread;
use std::time::Duration;

use candle_core::{Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, SGD};
use revoada_core::{Clock, Timestamp};
use revoada_federated::Weights;
use serde::Serialize;
use thiserror::Error;

use crate::evaluate::{Evaluation, judge};
use crate::examples::Examples;
use crate::head::{HeadError, HeadShape};
use crate::network::{Batch, Network, NetworkError};

/// Candle, its threads, and what is allocated here and there.
const MEMORY_BASE_BYTES: u64 = 16 << 20;
/// Of weights: theirs, their gradients, two moments, where they began, the best, and what a step makes on its way.
const WEIGHT_COPIES: u64 = 9;
/// Of a batch's numbers: each layer's, those of its gradient, and of the softmax.
const BATCH_COPIES: u64 = 6;
/// Of features: in the cache, and as examples.
const FEATURE_COPIES: u64 = 2;
/// Longer than this nobody waits without asking whether it still has to be.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimiser {
    Sgd,
    Adam,
    /// Adam, with weights that decay (Loshchilov & Hutter, 2019).
    AdamW {
        decay: f64,
    },
}

/// What examples of each class count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassWeights {
    /// As much as any.
    None,
    /// All classes as much as each other, however many examples they have.
    Balanced,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Times that each example is learned from.
    pub epochs: usize,
    /// Examples of one step.
    pub batch: usize,
    /// The length of a step.
    pub rate: f64,
    pub optimiser: Optimiser,
    /// How strongly the weights are held where they began: `proximal / 2 · ‖w − w₀‖²` is added to the loss.
    pub proximal: f64,
    pub class_weights: ClassWeights,
    /// Ends after so many epochs in which the loss of the held-out examples was no better, and keeps the best weights. Without
    /// such examples it has no effect.
    pub patience: Option<usize>,
    /// The share of the examples that are held out.
    pub held_out: f64,
    /// Of the order in which examples are learned from.
    pub seed: u64,
    pub time_max: Duration,
    pub memory_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch: 32,
            rate: 1e-3,
            optimiser: Optimiser::Adam,
            proximal: 0.0,
            class_weights: ClassWeights::None,
            patience: None,
            held_out: 0.2,
            seed: 0,
            time_max: Duration::from_secs(3600),
            memory_bytes_max: 512 << 20,
        }
    }
}

/// What whoever shares the machine says between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    Continue,
    /// Ask again after this time.
    Wait(Duration),
    Stop,
}

/// Why a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// All epochs are over.
    Epochs,
    /// It got no better.
    Patience,
    Time,
    Stopped,
}

/// What a training gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    pub weights: Weights,
    /// That were learned from.
    pub examples: usize,
    /// The mean cross-entropy in the last epoch, classes counted as the settings say; `None` where no step was made.
    pub train_loss: Option<f64>,
    /// By the held-out examples, where there are any, before and after.
    pub before: Option<Evaluation>,
    pub after: Option<Evaluation>,
    /// That were completed.
    pub epochs: usize,
    pub ended: Ended,
}

#[derive(Debug, Error)]
pub enum TrainError {
    #[error("`{name}` cannot be {value}")]
    Setting { name: &'static str, value: String },
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error("there is no example to learn from")]
    NoExamples,
    #[error("the examples have {found} features, and the head takes {expected}")]
    Features { expected: usize, found: usize },
    #[error("an example is of class {class}, and the head has {classes}")]
    Class { class: u32, classes: usize },
    #[error("{examples} examples of {features} features need {needed} MiB, and at most {max} may be taken")]
    Memory { examples: usize, features: usize, needed: u64, max: u64 },
    #[error("the loss is no number any more in epoch {epoch}; a smaller rate may help")]
    Diverged { epoch: usize },
    #[error("candle cannot compute")]
    Compute(#[source] Box<candle_core::Error>),
}

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Compute(Box::new(error))
    }
}

impl From<NetworkError> for TrainError {
    fn from(error: NetworkError) -> Self {
        match error {
            NetworkError::Head(error) => Self::Head(error),
            NetworkError::Compute(error) => error.into(),
        }
    }
}

impl Settings {
    pub fn check(&self) -> Result<(), TrainError> {
        let decay = if let Optimiser::AdamW { decay } = self.optimiser { decay } else { 0.0 };
        let rules = [
            ("epochs", (1..=100_000).contains(&self.epochs), self.epochs.to_string()),
            ("batch", (1..=1 << 16).contains(&self.batch), self.batch.to_string()),
            ("rate", self.rate > 0.0 && self.rate <= 100.0, self.rate.to_string()),
            ("decay", (0.0..=1.0).contains(&decay), decay.to_string()),
            ("proximal", (0.0..=1e6).contains(&self.proximal), self.proximal.to_string()),
            ("patience", self.patience != Some(0), "0".to_owned()),
            ("held-out", (0.0..1.0).contains(&self.held_out), self.held_out.to_string()),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((name, _, value)) => Err(TrainError::Setting { name, value }),
            None => Ok(()),
        }
    }

    /// Bytes that features of so many pictures and a training on them take at most.
    pub fn memory_bytes(&self, shape: &HeadShape, examples: usize) -> u64 {
        let wide = |side: usize| side as u64;
        let hidden = wide(shape.hidden.unwrap_or(0));
        let weights = match shape.hidden {
            None => wide(shape.features).saturating_mul(wide(shape.classes)),
            Some(_) => hidden.saturating_mul(wide(shape.features).saturating_add(wide(shape.classes))),
        };
        let batch = wide(self.batch)
            .saturating_mul(wide(shape.features).saturating_add(hidden).saturating_add(wide(shape.classes)));
        let features = wide(examples).saturating_mul(wide(shape.features));
        [(features, FEATURE_COPIES), (weights, WEIGHT_COPIES), (batch, BATCH_COPIES)]
            .into_iter()
            .map(|(numbers, copies)| numbers.saturating_mul(copies).saturating_mul(size_of::<f32>() as u64))
            .fold(MEMORY_BASE_BYTES, u64::saturating_add)
    }

    /// Refuses what would take more memory than it may, before any of it is taken.
    pub fn check_memory(&self, shape: &HeadShape, examples: usize) -> Result<(), TrainError> {
        let needed = self.memory_bytes(shape, examples);
        match needed > self.memory_bytes_max {
            true => Err(TrainError::Memory {
                examples,
                features: shape.features,
                needed: needed.div_ceil(1 << 20),
                max: self.memory_bytes_max >> 20,
            }),
            false => Ok(()),
        }
    }
}

/// Trains the head that `start` is, and calls `pause` before each step. The same examples, settings and weights give the same
/// weights again, unless time or `pause` end it.
pub fn train(
    start: &Weights,
    examples: &Examples,
    settings: &Settings,
    clock: &dyn Clock,
    pause: &mut dyn FnMut() -> Pause,
) -> Result<Trained, TrainError> {
    settings.check()?;
    let shape = HeadShape::of(start.layout())?;
    check_examples(&shape, examples)?;
    settings.check_memory(&shape, examples.len())?;
    let (mut learned, held_out) = examples.split(settings.held_out);
    if learned.is_empty() {
        return Err(TrainError::NoExamples);
    }
    let network = Network::new(shape, start)?;
    let before = judge(&shape, &network, examples, &held_out)?;
    let mut stepper = Stepper::new(&network, settings, class_weights(&shape, examples, &learned, settings))?;
    let mut turns = Turns { clock, until: clock.now() + settings.time_max, pause };
    let mut random = fastrand::Rng::with_seed(settings.seed);
    let mut best = Best { weights: None, after: before.clone(), since: 0 };
    let (mut epochs, mut train_loss) = (0, None);
    let ended = 'training: loop {
        if epochs == settings.epochs {
            break Ended::Epochs;
        }
        random.shuffle(&mut learned);
        let (mut loss, mut count) = (0.0, 0);
        for some in learned.chunks(settings.batch) {
            if let Some(ended) = turns.wait() {
                break 'training ended;
            }
            let batch_loss =
                stepper.step(&Batch::of(examples, some)?, some.iter().map(|index| examples.class(*index)))?;
            if !batch_loss.is_finite() {
                return Err(TrainError::Diverged { epoch: epochs + 1 });
            }
            (loss, count) = (loss + batch_loss * some.len() as f64, count + some.len());
            train_loss = Some(loss / count as f64);
        }
        epochs += 1;
        if let (Some(patience), false) = (settings.patience, held_out.is_empty()) {
            best.look(&network, judge(&shape, &network, examples, &held_out)?)?;
            if best.since >= patience {
                break Ended::Patience;
            }
        }
    };
    let (weights, after) = match settings.patience.filter(|_| !held_out.is_empty()) {
        Some(_) => (best.weights.map_or_else(|| Network::new(shape, start)?.weights(), Ok)?, best.after),
        None => (network.weights()?, judge(&shape, &network, examples, &held_out)?),
    };
    if !weights.values().iter().all(|value| value.is_finite()) {
        return Err(TrainError::Diverged { epoch: epochs.max(1) });
    }
    Ok(Trained { weights, examples: learned.len(), train_loss, before, after, epochs, ended })
}

/// Whether the head can look at the examples.
pub(crate) fn check_examples(shape: &HeadShape, examples: &Examples) -> Result<(), TrainError> {
    if examples.features() != shape.features {
        return Err(TrainError::Features { expected: shape.features, found: examples.features() });
    }
    match examples.classes().iter().find(|class| **class as usize >= shape.classes) {
        Some(class) => Err(TrainError::Class { class: *class, classes: shape.classes }),
        None => Ok(()),
    }
}

/// What an example of each class counts; 1 on average over the examples that are learned from.
fn class_weights(shape: &HeadShape, examples: &Examples, learned: &[usize], settings: &Settings) -> Vec<f32> {
    let mut counts = vec![0_usize; shape.classes];
    learned.iter().for_each(|index| counts[examples.class(*index) as usize] += 1);
    let present = counts.iter().filter(|count| **count > 0).count();
    let weight = |count: usize| match settings.class_weights {
        ClassWeights::Balanced if count > 0 => (learned.len() as f64 / (present * count) as f64) as f32,
        _ => 1.0,
    };
    counts.into_iter().map(weight).collect()
}

/// The best weights so far, by the held-out examples.
struct Best {
    /// `None`: those that the training began with.
    weights: Option<Weights>,
    after: Option<Evaluation>,
    /// Epochs that have passed since.
    since: usize,
}

impl Best {
    fn look(&mut self, network: &Network, now: Option<Evaluation>) -> Result<(), TrainError> {
        let loss = |evaluation: &Option<Evaluation>| evaluation.as_ref().map_or(f64::INFINITY, |found| found.loss);
        if loss(&now) < loss(&self.after) {
            *self = Self { weights: Some(network.weights()?), after: now, since: 0 };
        } else {
            self.since += 1;
        }
        Ok(())
    }
}

/// When the next step may be made.
struct Turns<'a> {
    clock: &'a dyn Clock,
    until: Timestamp,
    pause: &'a mut dyn FnMut() -> Pause,
}

impl Turns<'_> {
    /// Returns when it is time for a step, or why there is none any more.
    fn wait(&mut self) -> Option<Ended> {
        loop {
            let left = self.until - self.clock.now();
            if left.is_zero() {
                return Some(Ended::Time);
            }
            match (self.pause)() {
                Pause::Continue => return None,
                Pause::Wait(time) => thread::sleep(time.min(left).min(WAIT_MAX)),
                Pause::Stop => return Some(Ended::Stopped),
            }
        }
    }
}

/// Moves a network's weights.
struct Stepper<'a> {
    network: &'a Network,
    optimiser: AnyOptimiser,
    class_weights: Vec<f32>,
    /// The strength of the proximal term, and where the weights began.
    proximal: Option<(f64, Vec<Tensor>)>,
}

enum AnyOptimiser {
    Sgd(SGD),
    Adam(AdamW),
}

impl<'a> Stepper<'a> {
    fn new(network: &'a Network, settings: &Settings, class_weights: Vec<f32>) -> Result<Self, TrainError> {
        let variables = network.variables().to_vec();
        let adam = |decay| ParamsAdamW { lr: settings.rate, weight_decay: decay, ..ParamsAdamW::default() };
        let optimiser = match settings.optimiser {
            Optimiser::Sgd => AnyOptimiser::Sgd(SGD::new(variables, settings.rate)?),
            Optimiser::Adam => AnyOptimiser::Adam(AdamW::new(variables, adam(0.0))?),
            Optimiser::AdamW { decay } => AnyOptimiser::Adam(AdamW::new(variables, adam(decay))?),
        };
        let began = || network.variables().iter().map(|variable| variable.as_detached_tensor().copy());
        let proximal = match settings.proximal > 0.0 {
            true => Some((settings.proximal, began().collect::<candle_core::Result<_>>()?)),
            false => None,
        };
        Ok(Self { network, optimiser, class_weights, proximal })
    }

    /// Makes a step and returns the loss before it, without the proximal term.
    fn step(&mut self, batch: &Batch, classes: impl Iterator<Item = u32>) -> Result<f64, TrainError> {
        let weights: Vec<f32> = classes.map(|class| self.class_weights[class as usize]).collect();
        let count = weights.len();
        let weights = Tensor::from_vec(weights, count, &Device::Cpu)?;
        let loss = ((self.network.losses(batch)? * weights)?.sum_all()? / count as f64)?;
        let mut total = loss.clone();
        if let Some((strength, began)) = &self.proximal {
            for (variable, began) in self.network.variables().iter().zip(began) {
                let distance = (variable.as_tensor() - began)?.sqr()?.sum_all()?;
                total = (total + (distance * (strength / 2.0))?)?;
            }
        }
        let gradients = total.backward()?;
        match &mut self.optimiser {
            AnyOptimiser::Sgd(optimiser) => optimiser.step(&gradients)?,
            AnyOptimiser::Adam(optimiser) => optimiser.step(&gradients)?,
        }
        Ok(loss.to_scalar::<f32>()?.into())
    }
}
