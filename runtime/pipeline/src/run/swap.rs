//! Another model in place of the one that runs, without losing a frame.
//!
//! The new model is loaded beside the old one, has to read the same pictures and give answers of the same kind, and
//! first answers the golden inputs of its bundle as it did when that was built; a model without them answers a grey
//! picture with finite numbers. Then it takes over between two batches. Where the GPU has no memory for both, the old one
//! is unloaded first: nothing is inferred meanwhile, which is said and counted.

use std::path::Path;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use revoada_bundle::golden::GoldenFault;
use revoada_core::{ChannelOrder, Clock, ColorSpec, Frame, FrameError, ImageLayout, PixelFormat, Size};
use revoada_engine::{EngineError, WhenOutOfMemory};
use serde::Serialize;
use thiserror::Error;
use tracing::{info, warn};

use super::model::{GoldenPictures, Loader, Model, ModelError, ModelSession};
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
    #[error("model `{model}` answers the golden inputs of its bundle otherwise than when it was built")]
    Golden {
        model: String,
        #[source]
        fault: GoldenFault,
    },
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
    pub(crate) frames: usize,
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
        let (model, gap) = match self.prepare(&wanted, &kind, to) {
            Err(error) if is_out_of_memory(&error) => {
                let (model, gap) = self.swap_alone(&config, &wanted, &kind, to, &error)?;
                (model, Some(gap))
            }
            prepared => (self.take_over(prepared?, Duration::ZERO), None),
        };
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
        let model = self.loader.load_or(config, self.frames, WhenOutOfMemory::Fail)?;
        if let (To::Plan, Some(reason)) = (to, model.no_plan()) {
            return Err(SwapError::NoPlan { reason: reason.to_owned() });
        }
        if let Some(difference) = Kind::of(&model).difference(kind) {
            return Err(SwapError::Differs { new: model.name().to_owned(), old: kind.name.clone(), difference });
        }
        let mut sessions = sessions::all(&model, self.frames)?;
        let golden = model.golden()?;
        for session in &mut sessions {
            match &golden {
                Some(golden) => self.try_golden(session, golden)?,
                None => self.try_grey(session, kind.size)?,
            }
        }
        Ok(sessions)
    }

    fn try_golden(
        &self,
        session: &mut ModelSession,
        GoldenPictures { golden, pictures }: &GoldenPictures,
    ) -> Result<(), SwapError> {
        let model = Arc::clone(session.model());
        let mut answers = Vec::new();
        for picture in pictures {
            answers.push(session.tensors(picture)?);
            // What is decoded may be less than the whole outputs.
            session.run(std::slice::from_ref(picture), &*self.clock)?;
        }
        let judged = golden.judge(model.engine().outputs(), &answers);
        judged.map_err(|fault| SwapError::Golden { model: model.name().to_owned(), fault })
    }

    fn try_grey(&self, session: &mut ModelSession, size: Size) -> Result<(), SwapError> {
        session.run(&[Arc::new(grey(size)?)], &*self.clock)?;
        match session.model().decoder().non_finite() {
            0 => Ok(()),
            _ => Err(SwapError::NonFinite { model: session.model().name().to_owned() }),
        }
    }

    /// From the next batch on it is the model of these sessions.
    fn take_over(&self, sessions: Vec<ModelSession>, gap: Duration) -> Arc<Model> {
        let model = Arc::clone(sessions[0].model());
        self.stats.swapped(Arc::clone(model.decoder()), gap);
        self.sessions.exchange(sessions);
        model
    }

    /// Unloads the running model, and lets the other take over, or where that fails the old one again. Says how long there
    /// was none.
    fn swap_alone(
        &self,
        running: &ModelConfig,
        wanted: &ModelConfig,
        kind: &Kind,
        to: To<'_>,
        reason: &SwapError,
    ) -> Result<(Arc<Model>, Duration), SwapError> {
        warn!("unloading `{}` first, so that nothing is inferred meanwhile: {reason}", kind.name);
        let begun = self.clock.now();
        let _unloaded = self.sessions.unload();
        let prepared = self.prepare(wanted, kind, to);
        let gap = self.clock.now().since(begun);
        match prepared {
            Ok(sessions) => Ok((self.take_over(sessions, gap), gap)),
            Err(error) => {
                let old = self.loader.load(running, self.frames);
                match old.and_then(|model| Ok((sessions::all(&model, self.frames)?, model))) {
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

fn is_out_of_memory(error: &SwapError) -> bool {
    matches!(error, SwapError::Model(ModelError::Engine(EngineError::OutOfMemory { .. })))
}
