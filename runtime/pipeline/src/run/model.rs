//! A model made ready to read pictures: engine, staging, decoder and labels in one hand. The
//! pipeline's threads, `detect` and `classify` all go through it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revoada_bundle::bundle::VerifiedBundle;
use revoada_bundle::golden::{Golden, GoldenInputs};
use revoada_bundle::manifest::{Manifest, ManifestError, read_labels};
use revoada_bundle::sign::{KeyError, TrustedKeys};
use revoada_core::{Clock, Frame, Placement, Prediction, Rect, Tensor};
use revoada_engine::{
    Backend, BackendOptions, Engine, EngineError, LoadOptions, Opened, PictureInput, PlanSearch, Readback, Session,
    Wanted, WhenOutOfMemory, backends, open, picture_input,
};
use thiserror::Error;
use tracing::info;

use super::filter::{Filter, UnknownClass};
use crate::config::{ManifestConfig, ModelConfig};
use crate::decode::{Built, DecodeError, Decoder, DecoderContext, Decoders};

/// What models are loaded with.
pub struct Loader {
    /// Best first.
    pub backends: Vec<Arc<dyn Backend>>,
    pub decoders: Decoders,
    /// For the plans of bundles.
    pub plans: PlanSearch,
}

/// A loaded model. Immutable; every thread opens its own [`ModelSession`].
pub struct Model {
    backend: Arc<dyn Backend>,
    engine: Arc<dyn Engine>,
    input: PictureInput,
    decoder: Arc<dyn Decoder>,
    manifest: Manifest,
    name: String,
    labels: Arc<[String]>,
    bundle: Option<VerifiedBundle>,
    no_plan: Option<String>,
    filter: Filter,
}

/// Pictures, and what the model answered to them when its bundle was built.
pub(crate) struct GoldenPictures {
    pub(crate) golden: Golden,
    pub(crate) pictures: Vec<Arc<Frame>>,
}

/// Why a model cannot be used, or stopped working.
#[derive(Debug, Error)]
pub enum ModelError {
    #[error(transparent)]
    Trust(#[from] KeyError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("`[[model.class]]` does not fit model `{model}`")]
    Class {
        model: String,
        #[source]
        source: UnknownClass,
    },
    /// A bug. The thread's message is on standard error.
    #[error("the model was unloaded for another one, and whatever loaded that panicked")]
    Unloaded,
    #[error("cannot read the answers of model `{model}`")]
    Decode {
        model: String,
        #[source]
        source: DecodeError,
    },
}

/// What the model says about one picture, and where its time went. Staging and inference are those
/// of the whole batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub prediction: Prediction,
    pub staging: Duration,
    pub inference: Duration,
    pub decoding: Duration,
}

impl Loader {
    /// Every backend and every standard decoder; plans are looked for beside bundles only.
    pub fn new(options: &BackendOptions) -> Self {
        Self { backends: backends(options), decoders: Decoders::standard(), plans: PlanSearch::default() }
    }

    /// Selects a backend, loads the model with its manifest and labels, and finds the decoder that reads its outputs.
    /// Of a bundle's plans it takes one that runs batches of up to `rows`. What was chosen or guessed is logged.
    pub fn load(&self, config: &ModelConfig, rows: usize) -> Result<Arc<Model>, ModelError> {
        self.load_or(config, rows, WhenOutOfMemory::RunOnCpu)
    }

    /// The same, and what becomes of a bundle whose plan the GPU has no memory for.
    pub(crate) fn load_or(
        &self,
        config: &ModelConfig,
        rows: usize,
        when_out_of_memory: WhenOutOfMemory,
    ) -> Result<Arc<Model>, ModelError> {
        let trusted = match config.trust.as_slice() {
            [] => None,
            named => Some(TrustedKeys::read_all(named)?),
        };
        let options = LoadOptions { threads: config.threads, trusted, ..LoadOptions::default() };
        let wanted = Wanted { path: &config.path, backend: &config.backend, rows, when_out_of_memory, options };
        let Opened { backend, engine, bundle, no_plan } = open(&wanted, &self.backends, &self.plans)?;
        let path = bundle.as_ref().map_or(config.path.clone(), VerifiedBundle::model_path);
        let manifest = manifest(config, &path)?;
        let stem = config.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let bundled = bundle.as_ref().map(|bundle| bundle.index().name.clone());
        let name = manifest.name.clone().or(bundled).or(stem).unwrap_or_default();
        let model = Model::assemble(name, backend, engine, manifest, &self.decoders)?;
        let filter = Filter::new(&config.classes, &model.labels)
            .map_err(|source| ModelError::Class { model: model.name.clone(), source })?;
        Ok(Arc::new(Model { bundle, no_plan, filter, ..model }))
    }
}

impl Model {
    /// A model that is loaded already.
    pub fn new(
        name: String,
        backend: Arc<dyn Backend>,
        engine: Arc<dyn Engine>,
        manifest: Manifest,
        decoders: &Decoders,
    ) -> Result<Arc<Self>, ModelError> {
        Self::assemble(name, backend, engine, manifest, decoders).map(Arc::new)
    }

    fn assemble(
        name: String,
        backend: Arc<dyn Backend>,
        engine: Arc<dyn Engine>,
        manifest: Manifest,
        decoders: &Decoders,
    ) -> Result<Self, ModelError> {
        let input = picture_input(engine.inputs(), &manifest.input)?;
        let context = DecoderContext {
            outputs: engine.outputs(),
            manifest: &manifest.output,
            labels: manifest.labels.len(),
            input: input.transform.size,
        };
        let built = decoders.build(&context);
        let Built { decoder, guessed } = built.map_err(|source| ModelError::Decode { model: name.clone(), source })?;
        if let Some(guessed) = guessed {
            info!("{guessed}");
        }
        let labels = manifest.labels.clone().into();
        Ok(Self {
            name,
            labels,
            backend,
            engine,
            input,
            decoder,
            manifest,
            bundle: None,
            no_plan: None,
            filter: Filter::default(),
        })
    }

    /// What people call it: the manifest's name, else the file's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of the classes, by index; may be empty.
    pub fn labels(&self) -> &Arc<[String]> {
        &self.labels
    }

    /// The manifest with what the configuration changed in it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bundle that it comes from.
    pub fn bundle(&self) -> Option<&VerifiedBundle> {
        self.bundle.as_ref()
    }

    /// Why the bundle's ONNX model runs, where this machine would run a plan of it.
    pub fn no_plan(&self) -> Option<&str> {
        self.no_plan.as_deref()
    }

    /// What the bundle says that the model answers to a few pictures. `None` where it does not, or where the
    /// configuration has pictures staged otherwise than the bundle does.
    pub(crate) fn golden(&self) -> Result<Option<GoldenPictures>, ModelError> {
        let Some(bundle) = &self.bundle else { return Ok(None) };
        let Some(golden) = bundle.golden().map_err(EngineError::from)? else { return Ok(None) };
        let staged_alike =
            picture_input(self.engine.inputs(), &bundle.manifest()?.input).ok().as_ref() == Some(&self.input);
        Ok(match &golden.inputs {
            GoldenInputs::Pictures(pictures) if staged_alike => {
                let pictures = pictures.clone();
                Some(GoldenPictures { golden, pictures })
            }
            GoldenInputs::Pictures(_) | GoldenInputs::Tensors(_) => {
                info!("the golden inputs of `{}` are passed over: pictures enter it otherwise here", self.name);
                None
            }
        })
    }

    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Where and how pictures enter the network.
    pub fn input(&self) -> &PictureInput {
        &self.input
    }

    pub fn decoder(&self) -> &Arc<dyn Decoder> {
        &self.decoder
    }

    /// The largest batch that a session asked for `rows` takes: the model's own where that is fixed
    /// and smaller.
    pub fn rows_max(&self, rows: usize) -> usize {
        self.input.rows_fixed.map_or(rows, |fixed| fixed.min(rows)).max(1)
    }

    /// What the decoder reads of each output.
    fn reads(&self) -> Vec<Readback> {
        (0..self.engine.outputs().len()).map(|output| self.decoder.reads(output)).collect()
    }

    /// Opens a session for up to [`rows_max(rows)`](Self::rows_max) pictures at once.
    pub fn session(self: &Arc<Self>, rows: usize) -> Result<ModelSession, ModelError> {
        let rows_max = self.rows_max(rows);
        let mut session = self.engine.session(&self.input.shapes(rows_max))?;
        session.read_back(&self.reads())?;
        Ok(ModelSession { model: Arc::clone(self), session, placements: Vec::with_capacity(rows_max), rows_max })
    }
}

/// The manifest that is named, or the one beside the model, with the configuration's values in place of its own.
fn manifest(config: &ModelConfig, model: &Path) -> Result<Manifest, ManifestError> {
    let mut manifest = match &config.manifest {
        Some(ManifestConfig::File(path)) => Manifest::load(path)?,
        Some(ManifestConfig::Inline(manifest)) => manifest.as_ref().clone(),
        None => Manifest::beside(model)?.unwrap_or_default(),
    };
    if let Some(path) = &config.labels {
        manifest.labels = read_labels(path)?;
    }
    if config.size.is_some() {
        manifest.input.size = config.size;
    }
    if config.decoder.is_some() {
        manifest.output.decoder.clone_from(&config.decoder);
    }
    manifest.output.score_min = config.score_min.or(manifest.output.score_min);
    Ok(manifest)
}

/// One thread's way into a [`Model`].
pub struct ModelSession {
    model: Arc<Model>,
    session: Box<dyn Session>,
    /// Where each picture of the running batch lies in its row.
    placements: Vec<Placement>,
    rows_max: usize,
}

impl ModelSession {
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Most pictures of one batch.
    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    /// Stages whole pictures, one a row, and starts inference. Panics where there are more than
    /// [`rows_max`](Self::rows_max), or none.
    pub fn submit<'f>(&mut self, frames: impl IntoIterator<Item = &'f Arc<Frame>>) -> Result<(), ModelError> {
        let PictureInput { index, transform, .. } = &self.model.input;
        self.placements.clear();
        for (row, frame) in frames.into_iter().enumerate() {
            assert!(row < self.rows_max, "a batch holds at most `rows_max` pictures");
            let surface = self.model.backend.import(frame)?;
            let placement = self.session.stage(*index, row, &surface, Rect::of(frame.size()), transform)?;
            self.placements.push(placement);
        }
        assert!(!self.placements.is_empty(), "a batch holds at least one picture");
        Ok(self.session.submit(self.placements.len())?)
    }

    /// Waits for the latest batch and decodes its answers, in the order of its pictures.
    pub fn answers(&mut self, clock: &dyn Clock) -> Result<Vec<Answer>, ModelError> {
        let outputs = self.session.wait()?;
        let timings = outputs.timings;
        let mut started = clock.now();
        let answers = self.placements.iter().enumerate().map(|(row, placement)| {
            let decoder = &self.model.decoder;
            // Decoders that want candidates read no other output.
            let prediction = match outputs.candidates.values().next() {
                Some(candidates) => decoder.decode_candidates(&candidates[row], placement),
                None => decoder.decode(&outputs.tensors, row, placement),
            };
            let mut prediction =
                prediction.map_err(|source| ModelError::Decode { model: self.model.name.clone(), source })?;
            self.model.filter.apply(&mut prediction);
            let now = clock.now();
            let decoding = now.since(started);
            started = now;
            Ok(Answer { prediction, staging: timings.staging, inference: timings.inference, decoding })
        });
        answers.collect()
    }

    /// All outputs for one picture, whole, whatever of them is decoded otherwise.
    pub(crate) fn tensors(&mut self, frame: &Arc<Frame>) -> Result<Vec<Tensor>, ModelError> {
        self.session.read_back(&[])?;
        self.submit([frame])?;
        let tensors = self.session.wait()?.to_owned();
        self.session.read_back(&self.model.reads())?;
        Ok(tensors)
    }

    /// Submits and waits: for pictures that come one batch at a time.
    pub fn run(&mut self, frames: &[Arc<Frame>], clock: &dyn Clock) -> Result<Vec<Answer>, ModelError> {
        self.submit(frames)?;
        self.answers(clock)
    }
}
