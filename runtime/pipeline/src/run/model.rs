//! A model made ready to read pictures: engine, staging, decoder and labels in one hand. The
//! pipeline's threads, `detect` and `classify` all go through it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revoada_bundle::bundle::{Bundle, BundleError, Trust, VerifiedBundle};
use revoada_bundle::manifest::{Manifest, ManifestError, read_labels};
use revoada_core::{Clock, Frame, Placement, Prediction, Rect};
use revoada_engine::{
    Backend, Engine, EngineError, LoadOptions, ModelSource, PictureInput, Session, picture_input, select,
};
use thiserror::Error;
use tracing::info;

use crate::config::ModelConfig;
use crate::decode::{Built, DecodeError, Decoder, DecoderContext, Decoders};

/// A loaded model. Immutable; every thread opens its own [`ModelSession`].
pub struct Model {
    backend: Arc<dyn Backend>,
    engine: Arc<dyn Engine>,
    input: PictureInput,
    decoder: Arc<dyn Decoder>,
    manifest: Manifest,
    name: String,
    labels: Arc<[String]>,
}

/// Why a model cannot be used, or stopped working.
#[derive(Debug, Error)]
pub enum ModelError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Engine(#[from] EngineError),
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

impl Model {
    /// Selects a backend, loads the model with its manifest and labels, and finds the decoder that
    /// reads its outputs. What was chosen or guessed is logged.
    pub fn load(
        config: &ModelConfig,
        backends: &[Arc<dyn Backend>],
        decoders: &Decoders,
    ) -> Result<Arc<Self>, ModelError> {
        let bundle = open_bundle(&config.path)?;
        let path = bundle.as_ref().map_or(config.path.clone(), VerifiedBundle::model_path);
        let manifest = manifest(config, &path)?;
        let source = ModelSource::of(&path);
        let selected = select(&config.backend, backends, source.format())?;
        info!(backend = selected.backend.name(), "{}", selected.reason);
        let options = LoadOptions { threads: config.threads, ..LoadOptions::default() };
        let engine = selected.backend.load(source, &options)?;
        let stem = config.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let bundled = bundle.map(|bundle| bundle.index().name.clone());
        let name = manifest.name.clone().or(bundled).or(stem).unwrap_or_default();
        Self::new(name, selected.backend, engine, manifest, decoders)
    }

    /// A model that is loaded already.
    pub fn new(
        name: String,
        backend: Arc<dyn Backend>,
        engine: Arc<dyn Engine>,
        manifest: Manifest,
        decoders: &Decoders,
    ) -> Result<Arc<Self>, ModelError> {
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
        Ok(Arc::new(Self { name, labels: manifest.labels.clone().into(), backend, engine, input, decoder, manifest }))
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

    /// Opens a session for up to [`rows_max(rows)`](Self::rows_max) pictures at once.
    pub fn session(self: &Arc<Self>, rows: usize) -> Result<ModelSession, ModelError> {
        let rows_max = self.rows_max(rows);
        let session = self.engine.session(&self.input.shapes(rows_max))?;
        Ok(ModelSession { model: Arc::clone(self), session, placements: Vec::with_capacity(rows_max), rows_max })
    }
}

/// The model's path may be that of a bundle, which is looked through before anything of it is used.
fn open_bundle(path: &Path) -> Result<Option<VerifiedBundle>, BundleError> {
    if !Bundle::is_at(path) {
        return Ok(None);
    }
    let bundle = Bundle::open(path)?.verify(Trust::Anybody)?;
    info!(digest = %bundle.digest(), name = %bundle.index().name, "bundle");
    Ok(Some(bundle))
}

/// The manifest that is named, or the one beside the model, with the configuration's values in place of its own.
fn manifest(config: &ModelConfig, model: &Path) -> Result<Manifest, ManifestError> {
    let mut manifest = match &config.manifest {
        Some(path) => Manifest::load(path)?,
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
            let prediction = self.model.decoder.decode(&outputs.tensors, row, placement);
            let prediction =
                prediction.map_err(|source| ModelError::Decode { model: self.model.name.clone(), source })?;
            let now = clock.now();
            let decoding = now.since(started);
            started = now;
            Ok(Answer { prediction, staging: timings.staging, inference: timings.inference, decoding })
        });
        answers.collect()
    }

    /// Submits and waits: for pictures that come one batch at a time.
    pub fn run(&mut self, frames: &[Arc<Frame>], clock: &dyn Clock) -> Result<Vec<Answer>, ModelError> {
        self.submit(frames)?;
        self.answers(clock)
    }
}
