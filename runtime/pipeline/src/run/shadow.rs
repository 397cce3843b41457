//! A second model on the frames of the first one, that answers to nobody: how its answers differ is counted.
//!
//! It runs on a thread of its own and is offered every frame; one that comes while it is busy passes it by, and is
//! counted. Whatever happens to it, the pipeline goes on as before.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use revoada_core::{BoxAgreement, Clock, Detection, Frame, Prediction, causes, sentence_of};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::model::{Loader, Model, ModelError, ModelSession};
use crate::config::ModelConfig;
use crate::lock::lock;

/// Frames that wait for the shadow: one while it is busy with another, so that it need not wait for the next.
const WAITING_MAX: usize = 1;
/// Boxes of two models that overlap at least so much are of one object, as where a converted model is compared.
const IOU_MIN: f32 = 0.5;

/// What a shadow has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShadowSummary {
    pub model: String,
    /// The model whose answers it is held against.
    pub against: String,
    /// Frames that it has answered.
    pub frames: u64,
    /// Frames that came while it was busy.
    pub frames_skipped: u64,
    /// Frames about which the two said the same: every box has its partner, or the best class is one.
    pub frames_agreed: u64,
    /// Of detectors.
    pub boxes: Option<BoxAgreement>,
    /// How long it took for a frame, staging included.
    pub answer_ms_mean: f64,
    /// Why it ended by itself.
    pub error: Option<String>,
}

/// The shadow of a run, where it has one.
#[derive(Default)]
pub(crate) struct Shadow {
    running: Mutex<Option<Running>>,
}

struct Running {
    questions: SyncSender<Question>,
    seen: Arc<Mutex<ShadowSummary>>,
    /// Of the first model.
    score_min: f32,
    thread: JoinHandle<()>,
}

struct Question {
    frame: Arc<Frame>,
    answer: Prediction,
}

impl Shadow {
    /// Loads a model and has it follow `first` from the next frame on, in place of the shadow before. An error is a
    /// sentence, and leaves that one where it is.
    pub(crate) fn start(
        &self,
        path: &Path,
        config: &ModelConfig,
        loader: &Loader,
        first: &Model,
        clock: &Arc<dyn Clock>,
    ) -> Result<ShadowSummary, String> {
        let sentence = |error: ModelError| sentence_of(causes(&error));
        let config = ModelConfig { path: path.to_owned(), ..config.clone() };
        let model = loader.load(&config, 1).map_err(sentence)?;
        if model.labels() != first.labels() || model.decoder().finds_boxes() != first.decoder().finds_boxes() {
            let (model, first) = (model.name(), first.name());
            return Err(format!("model `{model}` cannot be compared with `{first}`: their classes are not the same"));
        }
        let session = model.session(1).map_err(sentence)?;
        let summary = ShadowSummary {
            model: model.name().to_owned(),
            against: first.name().to_owned(),
            boxes: model.decoder().finds_boxes().then(BoxAgreement::default),
            ..ShadowSummary::default()
        };
        let seen = Arc::new(Mutex::new(summary.clone()));
        let (questions, asked) = sync_channel(WAITING_MAX);
        let (kept, clock) = (Arc::clone(&seen), Arc::clone(clock));
        let work = move || follow(session, &asked, &kept, &*clock);
        let thread = thread::Builder::new().name("shadow".to_owned()).spawn(work);
        let thread = thread.map_err(|error| format!("cannot start a thread for the shadow: {error}"))?;
        info!(model = summary.model, against = summary.against, "a shadow follows");
        let before = lock(&self.running).replace(Running { questions, seen, score_min: first.score_min(), thread });
        before.map(Running::end);
        Ok(summary)
    }

    /// Ends the shadow and says what it saw; `None` where there is none.
    pub(crate) fn end(&self) -> Option<ShadowSummary> {
        let running = lock(&self.running).take()?;
        let summary = running.end();
        info!(?summary, "the shadow ended");
        Some(summary)
    }

    pub(crate) fn summary(&self) -> Option<ShadowSummary> {
        lock(&self.running).as_ref().map(|running| lock(&running.seen).clone())
    }

    /// Shows it a frame and what the first model said of it. Never waits.
    pub(crate) fn offer(&self, frame: &Arc<Frame>, answer: &Prediction) {
        let running = lock(&self.running);
        let Some(running) = &*running else { return };
        let question = Question { frame: Arc::clone(frame), answer: shown(answer, running.score_min) };
        if let Err(TrySendError::Full(_)) = running.questions.try_send(question) {
            lock(&running.seen).frames_skipped += 1;
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        self.end();
    }
}

impl Running {
    fn end(self) -> ShadowSummary {
        let Self { questions, seen, thread, .. } = self;
        drop(questions);
        // A panic has written its message to standard error.
        drop(thread.join());
        lock(&seen).clone()
    }
}

/// Answers until nobody asks any more, or the model fails.
fn follow(mut session: ModelSession, asked: &Receiver<Question>, seen: &Mutex<ShadowSummary>, clock: &dyn Clock) {
    let score_min = session.model().score_min();
    let mut took = Duration::ZERO;
    for Question { frame, answer } in asked {
        let begun = clock.now();
        let answers = session.run(&[frame], clock);
        took += clock.now().since(begun);
        let mut seen = lock(seen);
        match answers {
            Ok(own) => {
                let own = shown(&own[0].prediction, score_min);
                seen.compare(&answer, &own);
                seen.answer_ms_mean = took.as_secs_f64() * 1e3 / seen.frames as f64;
            }
            Err(error) => {
                let error = sentence_of(causes(&error));
                warn!(model = seen.model, error, "the shadow failed");
                seen.error = Some(error);
                return;
            }
        }
    }
}

impl ShadowSummary {
    fn compare(&mut self, first: &Prediction, own: &Prediction) {
        let best = |prediction: &Prediction| prediction.classifications.first().map(|best| best.class);
        let agreed = match &mut self.boxes {
            Some(boxes) => {
                let before = boxes.missed + boxes.added;
                boxes.add(&first.detections, &own.detections, IOU_MIN);
                boxes.missed + boxes.added == before
            }
            None => best(first) == best(own),
        };
        self.frames += 1;
        self.frames_agreed += u64::from(agreed);
    }
}

/// Without detections that only a tracker has a use for.
fn shown(prediction: &Prediction, score_min: f32) -> Prediction {
    let is_shown = |found: &&Detection| found.score >= score_min;
    Prediction {
        detections: prediction.detections.iter().filter(is_shown).cloned().collect(),
        classifications: prediction.classifications.clone(),
        segmentation: None,
    }
}
