//! What a backbone sees in pictures, computed once for each.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use revoada_bundle::manifest::{InputManifest, Manifest};
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::{hash, hash_file};
use revoada_core::{Digest, Frame, Rect};
use revoada_engine::{Backend, Engine, EngineError, LoadOptions, ModelSource, PictureInput, Session, picture_input};
use thiserror::Error;

use crate::cache::Cache;
use crate::examples::Examples;
use crate::pictures::Picture;
use crate::train::{Pause, WAIT_MAX};

/// Pictures of one inference, where the model does not say.
pub const ROWS: usize = 8;
/// What was computed is written after so many pictures, so that a power cut takes no more.
const SAVE_EVERY: usize = 1000;

/// A model without its head, loaded.
pub struct Backbone {
    backend: Arc<dyn Backend>,
    engine: Arc<dyn Engine>,
    input: PictureInput,
    features: usize,
}

/// Pictures of which features are wanted, of one backbone.
pub struct Wanted<'a> {
    pub folder: &'a Path,
    pub pictures: &'a [Picture],
    /// [Names](Backbone::key) the backbone.
    pub key: Digest,
    /// Its numbers of one picture.
    pub features: usize,
}

#[derive(Debug, Error)]
pub enum FeaturesError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the backbone gives a tensor of shape {shape:?}, and not {features} numbers for each of {rows} pictures")]
    Answer { shape: Vec<usize>, rows: usize, features: usize },
    #[error("cannot keep features in `{}`", path.display())]
    Save {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("was stopped after {done} of {count} pictures")]
    Stopped { done: usize, count: usize },
}

/// Examples of a folder of pictures.
#[derive(Debug, Default)]
pub struct Extracted {
    pub examples: Examples,
    /// Pictures that went through the backbone this time.
    pub computed: usize,
    /// Pictures that cannot be read or of which the backbone makes no numbers, and why.
    pub failed: Vec<(PathBuf, String)>,
}

impl Wanted<'_> {
    /// Brings the features together: those that the folder keeps from before, and the rest computed and kept there. The backbone
    /// is loaded where there is a rest. `read` makes a frame of a file, or says why it cannot; `pause` is asked before each
    /// inference.
    pub fn examples<E: From<FeaturesError>>(
        &self,
        load: impl FnOnce() -> Result<Backbone, E>,
        read: &dyn Fn(&Path) -> Result<Frame, String>,
        pause: &mut dyn FnMut() -> Pause,
    ) -> Result<Extracted, E> {
        let mut extracted = Extracted { examples: Examples::new(self.features), ..Extracted::default() };
        let digests: Vec<Option<Digest>> = self
            .pictures
            .iter()
            .map(|picture| match hash_file(&picture.path) {
                Ok((digest, _)) => Some(digest),
                Err(error) => {
                    extracted.failed.push((picture.path.clone(), error.to_string()));
                    None
                }
            })
            .collect();
        let wanted: Vec<Digest> = digests.iter().flatten().copied().collect();
        let mut cache = Cache::open(self.folder, self.key, self.features, &wanted);
        let known = self.pictures.iter().zip(&digests).filter_map(|(picture, digest)| Some((picture, (*digest)?)));
        let mut seen = HashSet::new();
        let missing: Vec<(&Picture, Digest)> =
            known.clone().filter(|(_, digest)| cache.get(digest).is_none() && seen.insert(*digest)).collect();
        if !missing.is_empty() {
            extracted.computed = load()?.compute(&missing, &mut cache, read, pause, &mut extracted.failed)?;
        }
        for (picture, digest) in known {
            let Some(features) = cache.get(&digest) else { continue };
            // Of whole and finite numbers only are any kept.
            if let Err(error) = extracted.examples.push(features, picture.class, digest) {
                extracted.failed.push((picture.path.clone(), error.to_string()));
            }
        }
        Ok(extracted)
    }
}

impl Backbone {
    /// Loads what [`split_head`](OnnxModel::split_head) gives; pictures are staged as the manifest says.
    pub fn load(
        backbone: &OnnxModel,
        features: usize,
        manifest: &InputManifest,
        backend: Arc<dyn Backend>,
        options: &LoadOptions,
    ) -> Result<Self, EngineError> {
        let engine = backend.load(ModelSource::Bytes(&backbone.encode()), options)?;
        Self::of_engine(features, manifest, backend, engine)
    }

    /// The same where an engine of it was loaded, for [`ROWS`] pictures at once: of a plan, for one.
    pub fn of_engine(
        features: usize,
        manifest: &InputManifest,
        backend: Arc<dyn Backend>,
        engine: Arc<dyn Engine>,
    ) -> Result<Self, EngineError> {
        let input = picture_input(engine.inputs(), manifest)?;
        Ok(Self { backend, engine, input, features })
    }

    /// Names what its features are, by everything that decides it; a backend that rounds otherwise is not among that.
    pub fn key(backbone: &OnnxModel, manifest: &InputManifest) -> Digest {
        let staging = Manifest { input: manifest.clone(), ..Manifest::default() }.to_toml();
        hash(&[hash(&backbone.encode()).as_bytes().as_slice(), staging.as_bytes()].concat())
    }

    /// Puts the features of pictures into the cache, and says how many went through the backbone.
    fn compute(
        &self,
        missing: &[(&Picture, Digest)],
        cache: &mut Cache,
        read: &dyn Fn(&Path) -> Result<Frame, String>,
        pause: &mut dyn FnMut() -> Pause,
        failed: &mut Vec<(PathBuf, String)>,
    ) -> Result<usize, FeaturesError> {
        let save = |cache: &mut Cache| {
            cache.save().map_err(|source| FeaturesError::Save { path: cache.path().to_owned(), source })
        };
        let rows = self.input.rows_fixed.unwrap_or(ROWS);
        let mut session = self.engine.session(&self.input.shapes(rows))?;
        let (mut computed, mut saved) = (0, 0);
        for (done, some) in missing.chunks(rows).enumerate() {
            if !may_go_on(pause) {
                save(cache)?;
                return Err(FeaturesError::Stopped { done: done * rows, count: missing.len() });
            }
            let mut frames = Vec::new();
            for (picture, digest) in some {
                match read(&picture.path) {
                    Ok(frame) => frames.push((*picture, *digest, Arc::new(frame))),
                    Err(reason) => failed.push((picture.path.clone(), reason)),
                }
            }
            if frames.is_empty() {
                continue;
            }
            let answers = self.run(&mut *session, frames.iter().map(|(.., frame)| frame))?;
            for ((picture, digest, _), features) in frames.iter().zip(answers.chunks_exact(self.features)) {
                if features.iter().all(|value| value.is_finite()) {
                    cache.put(*digest, features);
                } else {
                    failed.push((picture.path.clone(), "the backbone makes no numbers of it".to_owned()));
                }
            }
            computed += frames.len();
            if computed - saved >= SAVE_EVERY {
                save(cache)?;
                saved = computed;
            }
        }
        save(cache)?;
        Ok(computed)
    }

    /// The features of some frames, one after another.
    fn run<'a>(
        &self,
        session: &mut dyn Session,
        frames: impl ExactSizeIterator<Item = &'a Arc<Frame>>,
    ) -> Result<Vec<f32>, FeaturesError> {
        let count = frames.len();
        for (row, frame) in frames.enumerate() {
            let surface = self.backend.import(frame)?;
            session.stage(self.input.index, row, &surface, Rect::of(surface.size()), &self.input.transform)?;
        }
        session.submit(count)?;
        let outputs = session.wait()?;
        let answer = outputs.tensors.first().expect("a backbone has one output");
        match answer.shape() {
            // A fixed batch answers rows that were not filled, too.
            &[rows, features] if features == self.features && rows >= count => {
                let numbers = answer.data().to_f64().into_iter().take(count * features);
                Ok(numbers.map(|number| number as f32).collect())
            }
            shape => Err(FeaturesError::Answer { shape: shape.to_vec(), rows: count, features: self.features }),
        }
    }
}

fn may_go_on(pause: &mut dyn FnMut() -> Pause) -> bool {
    loop {
        match pause() {
            Pause::Continue => return true,
            Pause::Wait(time) => thread::sleep(time.min(WAIT_MAX)),
            Pause::Stop => return false,
        }
    }
}
