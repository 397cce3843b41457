//! A model made ready to read pictures: engine, staging, decoder and labels in one hand. The
//! pipeline's threads, `detect` and `classify` all go through it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revoada_bundle::bundle::VerifiedBundle;
use revoada_bundle::golden::{Golden, GoldenInputs};
use revoada_bundle::manifest::{Manifest, ManifestError, OutputManifest, read_labels};
use revoada_bundle::sign::{KeyError, TrustedKeys};
use revoada_core::{Clock, Frame, Placement, Prediction, Rect, Size, Tensor};
use revoada_engine::{
    Backend, BackendOptions, Engine, EngineError, LoadOptions, Opened, PictureInput, PlanSearch, Readback, Session,
    Surface, Wanted, WhenOutOfMemory, backends, open, picture_input,
};
use thiserror::Error;
use tracing::info;

use super::filter::{Filter, UnknownClass};
use super::tiles;
use crate::config::{ManifestConfig, ModelConfig, TilesConfig};
use crate::decode::{Built, DecodeError, Decoder, DecoderContext, Decoders, SCORE_MIN};

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
    concurrent_max: usize,
    tiles: Option<TilesConfig>,
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
    #[error("model `{model}` answers as `{decoder}`, which cannot be put together from tiles; only boxes can")]
    Tiles { model: String, decoder: String },
    #[error("model `{model}` cannot be a further one: {reason}")]
    Secondary { model: String, reason: String },
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
    /// Of a bundle's plans it takes one that runs batches of up to `frames`. What was chosen or guessed is logged.
    pub fn load(&self, config: &ModelConfig, frames: usize) -> Result<Arc<Model>, ModelError> {
        self.load_or(config, frames, WhenOutOfMemory::RunOnCpu)
    }

    /// The same, and what becomes of a bundle whose plan the GPU has no memory for.
    pub(crate) fn load_or(
        &self,
        config: &ModelConfig,
        frames: usize,
        when_out_of_memory: WhenOutOfMemory,
    ) -> Result<Arc<Model>, ModelError> {
        let trusted = match config.trust.as_slice() {
            [] => None,
            named => Some(TrustedKeys::read_all(named)?),
        };
        let concurrent_max = config.concurrent_max.unwrap_or(1);
        let options = LoadOptions { threads: config.threads, concurrent_max, trusted };
        let rows = frames * config.tiles.as_ref().map_or(1, TilesConfig::count);
        let wanted = Wanted { path: &config.path, backend: &config.backend, rows, when_out_of_memory, options };
        let Opened { backend, engine, bundle, no_plan } = open(&wanted, &self.backends, &self.plans)?;
        let path = bundle.as_ref().map_or(config.path.clone(), VerifiedBundle::model_path);
        let manifest = manifest(config, &path)?;
        let stem = config.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let bundled = bundle.as_ref().map(|bundle| bundle.index().name.clone());
        let name = manifest.name.clone().or(bundled).or(stem).unwrap_or_default();
        let model = Model::assemble(name, backend, engine, manifest, config.score_low, &self.decoders)?;
        if config.tiles.is_some() && !model.decoder.finds_boxes() {
            let decoder = model.decoder.name().to_owned();
            return Err(ModelError::Tiles { model: model.name, decoder });
        }
        let filter = Filter::new(&config.classes, &model.labels)
            .map_err(|source| ModelError::Class { model: model.name.clone(), source })?;
        Ok(Arc::new(Model { concurrent_max, tiles: config.tiles, bundle, no_plan, filter, ..model }))
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
        Self::assemble(name, backend, engine, manifest, None, decoders).map(Arc::new)
    }

    fn assemble(
        name: String,
        backend: Arc<dyn Backend>,
        engine: Arc<dyn Engine>,
        manifest: Manifest,
        score_low: Option<f32>,
        decoders: &Decoders,
    ) -> Result<Self, ModelError> {
        let input = picture_input(engine.inputs(), &manifest.input)?;
        let labels: Arc<[String]> = manifest.labels.clone().into();
        let build = |manifest: &OutputManifest| {
            let labels = labels.len();
            let context = DecoderContext { outputs: engine.outputs(), manifest, labels, input: input.transform.size };
            decoders.build(&context).map_err(|source| ModelError::Decode { model: name.clone(), source })
        };
        let Built { mut decoder, guessed } = build(&manifest.output)?;
        if let Some(guessed) = guessed {
            info!("{guessed}");
        }
        let score_min = manifest.output.score_min.unwrap_or(SCORE_MIN);
        if let Some(score_low) = score_low.filter(|score_low| *score_low < score_min && decoder.finds_boxes()) {
            decoder = build(&OutputManifest { score_min: Some(score_low), ..manifest.output.clone() })?.decoder;
        }
        Ok(Self {
            name,
            labels,
            backend,
            engine,
            input,
            decoder,
            manifest,
            concurrent_max: 1,
            tiles: None,
            bundle: None,
            no_plan: None,
            filter: Filter::default(),
        })
    }

    /// What people call it: the manifest's name, else the file's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Inferences that may run at once.
    pub(crate) fn concurrent_max(&self) -> usize {
        self.concurrent_max
    }

    /// Names of the classes, by index; may be empty.
    pub fn labels(&self) -> &Arc<[String]> {
        &self.labels
    }

    /// The manifest with what the configuration changed in it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Least score of a detection that is a result; weaker ones are found where a tracker has a use for them.
    pub fn score_min(&self) -> f32 {
        self.manifest.output.score_min.unwrap_or(SCORE_MIN)
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

    /// Most pictures at once of a session that is asked for `frames`: fewer where the model's batch is fixed and smaller.
    /// One always goes, its tiles in several inferences where need be.
    pub fn frames_max(&self, frames: usize) -> usize {
        self.input.rows_fixed.map_or(frames, |fixed| frames.min(fixed / self.pictures_of_frame())).max(1)
    }

    /// Rows of an inference that one frame takes.
    fn pictures_of_frame(&self) -> usize {
        self.tiles.as_ref().map_or(1, TilesConfig::count)
    }

    fn areas(&self, size: Size) -> Vec<Rect> {
        self.tiles.as_ref().map_or_else(|| vec![Rect::of(size)], |tiles| tiles::areas(tiles, size))
    }

    /// What the decoder reads of each output.
    fn reads(&self) -> Vec<Readback> {
        (0..self.engine.outputs().len()).map(|output| self.decoder.reads(output)).collect()
    }

    /// Opens a session for up to [`frames_max(frames)`](Self::frames_max) pictures at once.
    pub fn session(self: &Arc<Self>, frames: usize) -> Result<ModelSession, ModelError> {
        let wanted = frames.max(1) * self.pictures_of_frame();
        let rows_max = self.input.rows_fixed.map_or(wanted, |fixed| fixed.min(wanted)).max(1);
        let mut session = self.engine.session(&self.input.shapes(rows_max))?;
        session.read_back(&self.reads())?;
        let frames_max = self.frames_max(frames);
        Ok(ModelSession {
            model: Arc::clone(self),
            session,
            rows_max,
            frames_max,
            surfaces: Vec::new(),
            areas: Vec::new(),
            waiting: VecDeque::new(),
            running: Vec::new(),
            decoded: Decoded::default(),
        })
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
    /// Of the engine's session.
    rows_max: usize,
    frames_max: usize,
    /// The pictures of the latest batch.
    surfaces: Vec<Surface>,
    /// Which parts of each are read; one, where they are read whole.
    areas: Vec<Vec<Rect>>,
    /// Parts that did not go into the inference that runs.
    waiting: VecDeque<(Surface, Rect)>,
    /// Where each part of that lies in its row.
    running: Vec<Placement>,
    decoded: Decoded,
}

/// What was read of a batch so far, one part after the other.
#[derive(Default)]
struct Decoded {
    parts: Vec<(Prediction, Duration)>,
    staging: Duration,
    inference: Duration,
}

impl ModelSession {
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Most pictures of one batch.
    pub fn frames_max(&self) -> usize {
        self.frames_max
    }

    /// Stages whole pictures and starts inference. Panics where there are more than [`frames_max`](Self::frames_max), or
    /// none.
    pub fn submit<'f>(
        &mut self,
        frames: impl IntoIterator<Item = &'f Arc<Frame>>,
        clock: &dyn Clock,
    ) -> Result<(), ModelError> {
        let surfaces = frames.into_iter().map(|frame| Ok(self.model.backend.import(frame)?));
        let surfaces = surfaces.collect::<Result<_, ModelError>>()?;
        self.submit_surfaces(surfaces, clock)
    }

    fn submit_surfaces(&mut self, surfaces: Vec<Surface>, clock: &dyn Clock) -> Result<(), ModelError> {
        assert!(surfaces.len() <= self.frames_max, "a batch holds at most `frames_max` pictures");
        self.surfaces = surfaces;
        self.areas = self.surfaces.iter().map(|surface| self.model.areas(surface.size())).collect();
        let pictures = self.surfaces.iter().zip(&self.areas);
        let parts = pictures.flat_map(|(surface, areas)| areas.iter().map(|area| (surface.clone(), *area)));
        let parts: Vec<_> = parts.collect();
        self.begin(parts, clock)
    }

    /// Waits for the latest batch and decodes its answers, in the order of its pictures.
    pub fn answers(&mut self, clock: &dyn Clock) -> Result<Vec<Answer>, ModelError> {
        let Decoded { parts, staging, inference } = self.finish(clock)?;
        let mut parts = parts.into_iter();
        let pictures = self.surfaces.iter().zip(&self.areas);
        let answers = pictures.map(|(surface, areas)| {
            let started = clock.now();
            let (mut predictions, times): (Vec<_>, Vec<_>) = parts.by_ref().take(areas.len()).unzip();
            let mut prediction = match self.model.tiles {
                Some(_) => tiles::merge(areas, surface.size(), predictions),
                None => predictions.pop().expect("a picture has at least one part"),
            };
            self.model.filter.apply(&mut prediction);
            let decoding = times.into_iter().sum::<Duration>() + clock.now().since(started);
            Answer { prediction, staging, inference, decoding }
        });
        Ok(answers.collect())
    }

    /// The pictures of the latest batch, for whoever reads them next; they are let go here.
    pub(crate) fn take_surfaces(&mut self) -> Vec<Surface> {
        std::mem::take(&mut self.surfaces)
    }

    /// All outputs for one picture, whole, whatever of them is decoded otherwise.
    pub(crate) fn tensors(&mut self, frame: &Arc<Frame>) -> Result<Vec<Tensor>, ModelError> {
        self.session.read_back(&[])?;
        let surface = self.model.backend.import(frame)?;
        let area = Rect::of(surface.size());
        self.stage([(surface, area)])?;
        let tensors = self.session.wait()?.to_owned();
        self.running.clear();
        self.session.read_back(&self.model.reads())?;
        Ok(tensors)
    }

    /// Submits and waits: for pictures that come one batch at a time.
    pub fn run(&mut self, frames: &[Arc<Frame>], clock: &dyn Clock) -> Result<Vec<Answer>, ModelError> {
        self.submit(frames, clock)?;
        let answers = self.answers(clock);
        self.surfaces.clear();
        answers
    }

    /// What the model says of whole pictures, at most [`frames_max`](Self::frames_max).
    pub(crate) fn read_surfaces(
        &mut self,
        surfaces: Vec<Surface>,
        clock: &dyn Clock,
    ) -> Result<impl Iterator<Item = Prediction> + use<>, ModelError> {
        self.submit_surfaces(surfaces, clock)?;
        let answers = self.answers(clock)?;
        self.surfaces.clear();
        Ok(answers.into_iter().map(|answer| answer.prediction))
    }

    /// What the model says of parts of pictures, however many.
    pub(crate) fn read_parts(
        &mut self,
        parts: impl IntoIterator<Item = (Surface, Rect)>,
        clock: &dyn Clock,
    ) -> Result<Vec<Prediction>, ModelError> {
        self.surfaces.clear();
        self.begin(parts, clock)?;
        let decoded = self.finish(clock)?;
        Ok(decoded.parts.into_iter().map(|(prediction, _)| prediction).collect())
    }

    /// Runs all parts but the last batch of them, which is left running.
    fn begin(&mut self, parts: impl IntoIterator<Item = (Surface, Rect)>, clock: &dyn Clock) -> Result<(), ModelError> {
        self.decoded = Decoded::default();
        self.running.clear();
        self.waiting.clear();
        self.waiting.extend(parts);
        assert!(!self.waiting.is_empty(), "a batch holds at least one picture");
        self.start_next()?;
        while !self.waiting.is_empty() {
            self.decode_running(clock)?;
            self.start_next()?;
        }
        Ok(())
    }

    fn finish(&mut self, clock: &dyn Clock) -> Result<Decoded, ModelError> {
        self.decode_running(clock)?;
        Ok(std::mem::take(&mut self.decoded))
    }

    fn start_next(&mut self) -> Result<(), ModelError> {
        let rows = self.waiting.len().min(self.rows_max);
        let parts: Vec<_> = self.waiting.drain(..rows).collect();
        self.stage(parts)
    }

    fn stage(&mut self, parts: impl IntoIterator<Item = (Surface, Rect)>) -> Result<(), ModelError> {
        let PictureInput { index, transform, .. } = &self.model.input;
        for (row, (surface, area)) in parts.into_iter().enumerate() {
            self.running.push(self.session.stage(*index, row, &surface, area, transform)?);
        }
        Ok(self.session.submit(self.running.len())?)
    }

    fn decode_running(&mut self, clock: &dyn Clock) -> Result<(), ModelError> {
        let outputs = self.session.wait()?;
        self.decoded.staging += outputs.timings.staging;
        self.decoded.inference += outputs.timings.inference;
        let mut started = clock.now();
        for (row, placement) in self.running.drain(..).enumerate() {
            let decoder = &self.model.decoder;
            // Decoders that want candidates read no other output.
            let prediction = match outputs.candidates.values().next() {
                Some(candidates) => decoder.decode_candidates(&candidates[row], &placement),
                None => decoder.decode(&outputs.tensors, row, &placement),
            };
            let prediction =
                prediction.map_err(|source| ModelError::Decode { model: self.model.name.clone(), source })?;
            let now = clock.now();
            self.decoded.parts.push((prediction, now.since(started)));
            started = now;
        }
        Ok(())
    }
}
