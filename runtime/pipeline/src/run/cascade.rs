//! The models behind the first one: they read the objects that it found, or the same frames.
//!
//! They run on the output thread, over all frames of a batch at once, while the first model reads the next batch. What they
//! say of an object that is tracked is remembered with its track, and asked for again only as often as the configuration
//! says. Boxes that they find join the frame's list; their classes count on behind those of the models before.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use revoada_core::{Attribute, Clock, Detection, Frame, Prediction, Rect, Size, StreamId, TrackId};
use revoada_engine::{Backend, Surface};
use serde::{Deserialize, Serialize};

use super::model::{Loader, Model, ModelError, ModelSession};
use crate::classes::{Classes, UnknownLabel};
use crate::config::{ObjectsConfig, Reads, SecondaryConfig};

/// Frames of a stream after which what was said of a track that did not come again is forgotten.
const UNSEEN_FRAMES_MAX: u64 = 300;
/// Tracks of all streams that one model's answers are remembered of; beyond it those that were not seen for longest are
/// asked about again.
const REMEMBERED_MAX: usize = 8192;

/// The decoder whose answers nothing here has a place for.
const SEGMENTATION: &str = "segmentation";

/// All models of a pipeline but the first.
pub(crate) struct Cascade {
    frames: Vec<FrameReader>,
    objects: Vec<ObjectReader>,
    /// Of the first model and of all that find boxes.
    labels: Arc<[String]>,
    stats: Vec<Arc<SecondaryStats>>,
}

/// One frame of a batch.
pub(crate) struct Shown<'a> {
    pub(crate) frame: &'a Arc<Frame>,
    pub(crate) surface: &'a Surface,
    pub(crate) prediction: &'a mut Prediction,
}

/// How often a model was asked.
#[derive(Debug)]
pub(crate) struct SecondaryStats {
    pub(crate) name: Arc<str>,
    asked: AtomicU64,
    remembered: AtomicU64,
    skipped: AtomicU64,
}

/// How often a further model was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondarySummary {
    pub name: String,
    /// Pictures that the model has read: objects, or frames.
    pub asked: u64,
    /// Objects of which it was known what it says.
    pub remembered: u64,
    /// Objects beyond the most of a frame.
    pub skipped: u64,
}

struct FrameReader {
    session: ModelSession,
    class_base: u32,
    every: u64,
    /// Frames of each stream that came since it was asked.
    since: HashMap<StreamId, u64>,
    stats: Arc<SecondaryStats>,
}

struct ObjectReader {
    name: Arc<str>,
    session: ModelSession,
    config: ObjectsConfig,
    /// Of all models before it.
    on: Classes,
    says: Says,
    stats: Arc<SecondaryStats>,
}

/// What becomes of a model's answers about an object.
enum Says {
    /// An attribute, whose values these are.
    Attribute { values: Vec<Arc<str>>, remembered: Remembered },
    /// Boxes in it, whose classes begin here.
    Boxes { class_base: u32 },
}

#[derive(Default)]
struct Remembered {
    of: HashMap<(StreamId, TrackId), Memory>,
}

struct Memory {
    /// `None` where the model was not sure of anything.
    attribute: Option<Attribute>,
    /// Numbers of the stream's frames.
    asked: u64,
    seen: u64,
}

impl Cascade {
    /// Loads the models, of which there may be none; `first` is the pipeline's first.
    pub(crate) fn load(loader: &Loader, configs: &[SecondaryConfig], first: &Model) -> Result<Self, ModelError> {
        let mut labels = first.labels().to_vec();
        let mut unnamed = (labels.is_empty() && !configs.is_empty()).then(|| first.name().to_owned());
        let (mut frames, mut objects, mut stats) = (Vec::new(), Vec::new(), Vec::new());
        for config in configs {
            let model = loader.load(&config.model, config.batch_max)?;
            let name: Arc<str> = config.name.as_deref().unwrap_or(model.name()).into();
            let refuse = |reason: String| ModelError::Secondary { model: name.to_string(), reason };
            if model.decoder().name() == SEGMENTATION {
                return Err(refuse("it segments, which only the first model may".to_owned()));
            }
            let class_base = labels.len() as u32;
            let says_attribute = matches!(config.reads, Reads::Objects(_)) && !model.decoder().finds_boxes();
            if !says_attribute {
                let own = model.labels();
                if own.is_empty() {
                    unnamed = Some(name.to_string());
                }
                if let Some(unnamed) = &unnamed {
                    let reason = format!(
                        "`{unnamed}` has no labels, so that their classes cannot be told apart; give it labels in its \
                         manifest"
                    );
                    return Err(refuse(reason));
                }
                labels.extend(own.iter().cloned());
            }
            let session = model.session(config.batch_max)?;
            let counts = Arc::new(SecondaryStats::new(Arc::clone(&name)));
            stats.push(Arc::clone(&counts));
            match &config.reads {
                Reads::Frames { every } => frames.push(FrameReader {
                    session,
                    class_base,
                    every: u64::from(*every),
                    since: HashMap::new(),
                    stats: counts,
                }),
                Reads::Objects(config) => {
                    // Only what models before it find.
                    let known = &labels[..class_base as usize];
                    let on = classes(&config.on, known).map_err(refuse)?;
                    let says = match says_attribute {
                        true => Says::Attribute { values: values(&model), remembered: Remembered::default() },
                        false => Says::Boxes { class_base },
                    };
                    objects.push(ObjectReader { name, session, config: config.clone(), on, says, stats: counts });
                }
            }
        }
        Ok(Self { frames, objects, labels: labels.into(), stats })
    }

    /// The names of all classes.
    pub(crate) fn labels(&self) -> &Arc<[String]> {
        &self.labels
    }

    pub(crate) fn stats(&self) -> &[Arc<SecondaryStats>] {
        &self.stats
    }

    /// Asks the models that read whole frames, before anything is tracked. `backend` is whose the surfaces are.
    pub(crate) fn read_frames(
        &mut self,
        batch: &mut [Shown<'_>],
        backend: &Arc<dyn Backend>,
        clock: &dyn Clock,
    ) -> Result<(), ModelError> {
        self.frames.iter_mut().try_for_each(|reader| reader.read(batch, backend, clock))
    }

    /// Asks the models that read objects, each about what those before it have found.
    pub(crate) fn read_objects(
        &mut self,
        batch: &mut [Shown<'_>],
        backend: &Arc<dyn Backend>,
        clock: &dyn Clock,
    ) -> Result<(), ModelError> {
        self.objects.iter_mut().try_for_each(|reader| reader.read(batch, backend, clock))
    }

    /// A stream that comes again has other tracks.
    pub(crate) fn end_stream(&mut self, stream: &StreamId) {
        for reader in &mut self.frames {
            reader.since.remove(stream);
        }
        for reader in &mut self.objects {
            if let Says::Attribute { remembered, .. } = &mut reader.says {
                remembered.of.retain(|(of, _), _| of != stream);
            }
        }
    }
}

impl FrameReader {
    fn read(
        &mut self,
        batch: &mut [Shown<'_>],
        backend: &Arc<dyn Backend>,
        clock: &dyn Clock,
    ) -> Result<(), ModelError> {
        let Self { session, class_base, every, since, .. } = self;
        let mut due = Vec::new();
        for (index, shown) in batch.iter().enumerate() {
            let since = since.entry(shown.frame.stream.clone()).or_insert(0);
            if *since == 0 {
                due.push(index);
            }
            *since = (*since + 1) % *every;
        }
        for indices in due.chunks(session.frames_max()) {
            self.stats.asked.fetch_add(indices.len() as u64, Relaxed);
            let surfaces = indices.iter().map(|index| surface(session.model(), &batch[*index], backend));
            let surfaces = surfaces.collect::<Result<Vec<_>, _>>()?;
            let answers = session.read_surfaces(surfaces, clock)?;
            for (index, mut answer) in indices.iter().zip(answers) {
                let prediction = &mut batch[*index].prediction;
                answer.detections.iter_mut().for_each(|found| found.class += *class_base);
                answer.classifications.iter_mut().for_each(|guess| guess.class += *class_base);
                prediction.detections.append(&mut answer.detections);
                prediction.detections.sort_by(|a, b| b.score.total_cmp(&a.score));
                prediction.classifications.append(&mut answer.classifications);
            }
        }
        Ok(())
    }
}

/// An object to be asked about.
struct Question {
    shown: usize,
    detection: usize,
    area: Rect,
}

impl ObjectReader {
    fn read(
        &mut self,
        batch: &mut [Shown<'_>],
        backend: &Arc<dyn Backend>,
        clock: &dyn Clock,
    ) -> Result<(), ModelError> {
        let mut questions = Vec::new();
        for (index, shown) in batch.iter_mut().enumerate() {
            self.select(index, shown, &mut questions);
        }
        if questions.is_empty() {
            return Ok(());
        }
        self.stats.asked.fetch_add(questions.len() as u64, Relaxed);
        let parts = questions
            .iter()
            .map(|question| Ok((surface(self.session.model(), &batch[question.shown], backend)?, question.area)));
        let parts = parts.collect::<Result<Vec<_>, ModelError>>()?;
        let answers = self.session.read_parts(parts, clock)?;
        for (question, answer) in questions.iter().zip(answers) {
            self.tell(question, answer, &mut batch[question.shown]);
        }
        if let Says::Attribute { remembered, .. } = &mut self.says {
            batch.iter().for_each(|shown| remembered.forget(shown.frame));
        }
        Ok(())
    }

    /// Which objects of a frame are asked about; of those that are not, what is known is told.
    fn select(&mut self, index: usize, shown: &mut Shown<'_>, questions: &mut Vec<Question>) {
        let Shown { frame, prediction, .. } = shown;
        let first = questions.len();
        for (number, found) in prediction.detections.iter_mut().enumerate() {
            let seen = found.bbox.clamped_to(frame.size());
            if !self.on.has(found.class) || !self.fits(seen) {
                continue;
            }
            if let Says::Attribute { remembered, .. } = &mut self.says
                && let Some(memory) = remembered.recall(frame, found, self.config.every)
            {
                found.attributes.extend(memory.cloned());
                self.stats.remembered.fetch_add(1, Relaxed);
                continue;
            }
            let area = grown(found.bbox, self.config.margin).clamped_to(frame.size());
            questions.push(Question { shown: index, detection: number, area });
        }
        let size = |question: &Question| question.area.area();
        questions[first..].sort_by(|a, b| size(b).total_cmp(&size(a)));
        let beyond = (questions.len() - first).saturating_sub(self.config.objects_max);
        questions.truncate(questions.len() - beyond);
        self.stats.skipped.fetch_add(beyond as u64, Relaxed);
    }

    fn fits(&self, bbox: Rect) -> bool {
        let at_least = |size: Size| bbox.width >= size.width as f32 && bbox.height >= size.height as f32;
        let at_most = |size: Size| bbox.width <= size.width as f32 && bbox.height <= size.height as f32;
        at_least(self.config.size_min) && self.config.size_max.is_none_or(at_most)
    }

    fn tell(&mut self, question: &Question, answer: Prediction, shown: &mut Shown<'_>) {
        let Shown { frame, prediction, .. } = shown;
        let found = &mut prediction.detections[question.detection];
        match &mut self.says {
            Says::Attribute { values, remembered } => {
                let attribute = answer.classifications.first().map(|best| Attribute {
                    name: Arc::clone(&self.name),
                    value: match values.get(best.class as usize) {
                        Some(value) => Arc::clone(value),
                        None => best.class.to_string().into(),
                    },
                    score: best.score,
                });
                if let Some(track) = found.track {
                    remembered.remember(frame, track, attribute.clone());
                }
                found.attributes.extend(attribute);
            }
            Says::Boxes { class_base } => {
                for mut inner in answer.detections {
                    inner.class += *class_base;
                    inner.parent = Some(question.detection);
                    prediction.detections.push(inner);
                }
            }
        }
    }
}

impl Remembered {
    /// What is known of an object's track, where it need not be asked for again.
    fn recall(&mut self, frame: &Frame, found: &Detection, every: Option<u32>) -> Option<Option<&Attribute>> {
        let memory = self.of.get_mut(&(frame.stream.clone(), found.track?))?;
        memory.seen = frame.sequence;
        let fresh = every.is_none_or(|every| frame.sequence.saturating_sub(memory.asked) < u64::from(every));
        fresh.then_some(memory.attribute.as_ref())
    }

    fn remember(&mut self, frame: &Frame, track: TrackId, attribute: Option<Attribute>) {
        let memory = Memory { attribute, asked: frame.sequence, seen: frame.sequence };
        self.of.insert((frame.stream.clone(), track), memory);
    }

    /// Tracks of the frame's stream that did not come again, and those beyond the bound.
    fn forget(&mut self, frame: &Frame) {
        self.of.retain(|(stream, _), memory| {
            *stream != frame.stream || frame.sequence.saturating_sub(memory.seen) <= UNSEEN_FRAMES_MAX
        });
        while self.of.len() > REMEMBERED_MAX {
            // Rare: streams with thousands of objects at a time. By its name, so that it is the same one in every run.
            let oldest = self.of.iter().min_by_key(|(key, memory)| (memory.seen, *key)).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.of.remove(&oldest));
        }
    }
}

impl SecondaryStats {
    fn new(name: Arc<str>) -> Self {
        Self { name, asked: AtomicU64::new(0), remembered: AtomicU64::new(0), skipped: AtomicU64::new(0) }
    }

    pub(crate) fn summary(&self) -> SecondarySummary {
        SecondarySummary {
            name: self.name.to_string(),
            asked: self.asked.load(Relaxed),
            remembered: self.remembered.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
        }
    }
}

/// The frame for a model: as the first one has it, where both run on one backend.
fn surface(model: &Model, shown: &Shown<'_>, backend: &Arc<dyn Backend>) -> Result<Surface, ModelError> {
    match Arc::ptr_eq(model.backend(), backend) {
        true => Ok(shown.surface.clone()),
        false => Ok(model.backend().import(shown.frame)?),
    }
}

/// The error is a sentence's end.
fn classes(on: &[String], labels: &[String]) -> Result<Classes, String> {
    Classes::named(on, labels).map_err(|UnknownLabel { class, nearest }| match nearest {
        Some(nearest) => format!("no model before it finds `{class}`; the nearest class is `{nearest}`"),
        None => format!("no model before it finds `{class}`: they have no labels"),
    })
}

fn values(model: &Model) -> Vec<Arc<str>> {
    model.labels().iter().map(|label| label.as_str().into()).collect()
}

fn grown(bbox: Rect, margin: f32) -> Rect {
    let (x, y) = (bbox.width * margin, bbox.height * margin);
    Rect::new(bbox.x - x, bbox.y - y, bbox.width + 2.0 * x, bbox.height + 2.0 * y)
}
