//! Another model in place of the one that runs, without losing a frame.
//!
//! The new model is loaded beside the old one, has to read the same pictures and give answers of the same kind, and
//! answers a grey picture first. Then it takes over between two batches. Where the GPU has no memory for both, the old
//! one is unloaded first: nothing is inferred meanwhile, which is said and counted.

use std::path::Path;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use revoada_core::{ChannelOrder, Clock, ColorSpec, Frame, FrameError, ImageLayout, PixelFormat, Size};
use revoada_engine::EngineError;
use serde::Serialize;
use thiserror::Error;
use tracing::{info, warn};

use super::model::{Loader, Model, ModelError, ModelSession};
use super::sessions::{self, Sessions};
use super::stats::RunStats;
use crate::config::ModelConfig;

/// Neither black nor white.
const GREY: u8 = 127;

/// Why the old model still runs.
#[derive(Debug, Error)]
pub(crate) enum SwapError {
    #[error("another swap is under way")]
    Busy,
    #[error("the pipeline is ending")]
    Ending,
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("the plan that was built does not run: {reason}")]
    NoPlan { reason: String },
    #[error("model `{new}` cannot take the place of `{old}`: {difference}")]
    Differs { new: String, old: String, difference: String },
    #[error("model `{model}` answers a grey picture with NaN or infinity")]
    NonFinite { model: String },
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// What takes over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'a> {
    /// The model at a path, otherwise configured as the one that runs.
    Model(&'a Path),
    /// A plan of the bundle that runs without one.
    Plan,
}

/// A swap that is done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Swapped {
    pub(crate) model: String,
    pub(crate) backend: &'static str,
    /// How long nothing could be inferred, where the old model had to be unloaded first.
    pub(crate) gap_s: Option<f64>,
}

pub(crate) struct Swapper {
    pub(crate) loader: Arc<Loader>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) stats: Arc<RunStats>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The largest batch that is asked for.
    pub(crate) rows: usize,
    /// Of the model that runs; locked during a swap.
    pub(crate) config: Mutex<ModelConfig>,
}

/// What must not change under a running pipeline: its painter and its sinks were made for it.
struct Kind {
    name: String,
    size: Size,
    channels: ChannelOrder,
    decoder: String,
    labels: Arc<[String]>,
}

impl Swapper {
    pub(crate) fn swap(&self, to: To<'_>) -> Result<Swapped, SwapError> {
        let mut config = match self.config.try_lock() {
            Ok(config) => config,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(SwapError::Busy),
        };
        let kind = Kind::of(&*self.sessions.model().ok_or(SwapError::Ending)?);
        let wanted = match to {
            To::Model(path) => ModelConfig { path: path.to_owned(), ..config.clone() },
            To::Plan => config.clone(),
        };
        let (sessions, gap) = match self.prepare(&wanted, &kind, to) {
            Err(error) if is_out_of_memory(&error) => {
                let (sessions, gap) = self.prepare_alone(&config, &wanted, &kind, to, &error)?;
                (sessions, Some(gap))
            }
            prepared => (prepared?, None),
        };
        let model = Arc::clone(sessions[0].model());
        self.stats.swapped(Arc::clone(model.decoder()), gap.unwrap_or_default());
        self.sessions.exchange(sessions);
        *config = wanted;
        let swapped = Swapped {
            model: model.name().to_owned(),
            backend: model.backend().name(),
            gap_s: gap.map(|gap| gap.as_secs_f64()),
        };
        info!(model = swapped.model, backend = swapped.backend, gap_s = swapped.gap_s, "swapped the model");
        Ok(swapped)
    }

    /// Loads the model and tries each of its sessions.
    fn prepare(&self, config: &ModelConfig, kind: &Kind, to: To<'_>) -> Result<Vec<ModelSession>, SwapError> {
        let model = self.loader.load(config, self.rows)?;
        if let (To::Plan, Some(reason)) = (to, model.no_plan()) {
            return Err(SwapError::NoPlan { reason: reason.to_owned() });
        }
        if let Some(difference) = Kind::of(&model).difference(kind) {
            return Err(SwapError::Differs { new: model.name().to_owned(), old: kind.name.clone(), difference });
        }
        let mut sessions = sessions::all(&model, self.rows)?;
        let picture = Arc::new(grey(kind.size)?);
        for session in &mut sessions {
            session.run(std::slice::from_ref(&picture), &*self.clock)?;
        }
        match model.decoder().non_finite() {
            0 => Ok(sessions),
            _ => Err(SwapError::NonFinite { model: model.name().to_owned() }),
        }
    }

    /// Unloads the running model and prepares the other, or where that fails the old one again. Says how long there
    /// was none.
    fn prepare_alone(
        &self,
        running: &ModelConfig,
        wanted: &ModelConfig,
        kind: &Kind,
        to: To<'_>,
        reason: &SwapError,
    ) -> Result<(Vec<ModelSession>, Duration), SwapError> {
        warn!("unloading `{}` first, so that nothing is inferred meanwhile: {reason}", kind.name);
        let begun = self.clock.now();
        self.sessions.unload();
        let prepared = self.prepare(wanted, kind, to);
        let gap = self.clock.now().since(begun);
        match prepared {
            Ok(sessions) => Ok((sessions, gap)),
            Err(error) => {
                let old = self.loader.load(running, self.rows);
                match old.and_then(|model| Ok((sessions::all(&model, self.rows)?, model))) {
                    Ok((sessions, model)) => {
                        self.stats.restored(Arc::clone(model.decoder()), self.clock.now().since(begun));
                        self.sessions.exchange(sessions);
                    }
                    Err(lost) => self.sessions.lose(lost),
                }
                Err(error)
            }
        }
    }
}

impl Kind {
    fn of(model: &Model) -> Self {
        let transform = &model.input().transform;
        Self {
            name: model.name().to_owned(),
            size: transform.size,
            channels: transform.channels,
            decoder: model.decoder().name().to_owned(),
            labels: Arc::clone(model.labels()),
        }
    }

    /// In which way `self` is another kind of model than `running`.
    fn difference(&self, running: &Self) -> Option<String> {
        let is_grey = |kind: &Self| kind.channels == ChannelOrder::Gray;
        if self.size != running.size {
            return Some(format!("it reads pictures of {}, not of {}", self.size, running.size));
        }
        if is_grey(self) != is_grey(running) {
            return Some("one reads grey pictures and the other colours".to_owned());
        }
        if self.decoder != running.decoder {
            return Some(format!("it answers as `{}`, not as `{}`", self.decoder, running.decoder));
        }
        if self.labels != running.labels {
            let (count, expected) = (self.labels.len(), running.labels.len());
            let unlike = self.labels.iter().zip(running.labels.iter()).find(|(label, expected)| label != expected);
            return Some(match unlike {
                Some((label, expected)) => format!("it calls `{label}` what is `{expected}` so far"),
                None => format!("it has {count} labels, not {expected}"),
            });
        }
        None
    }
}

fn grey(size: Size) -> Result<Frame, FrameError> {
    let layout = ImageLayout::packed(PixelFormat::Rgb, ColorSpec::default(), size);
    Frame::still(layout, vec![GREY; layout.bytes().expect("a network's picture fits memory")])
}

/// An error with its causes, as one sentence; what only forwards its cause is not said twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

fn is_out_of_memory(error: &SwapError) -> bool {
    matches!(error, SwapError::Model(ModelError::Engine(EngineError::OutOfMemory { .. })))
}
