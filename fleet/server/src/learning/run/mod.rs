//! One run: round after round, until it has had them all.

mod evaluation;
mod read;
mod round;

use std::collections::BTreeSet;
use std::sync::Arc;

use revoada_core::{Digest, Timestamp};
use revoada_federated::npy::Element;
use revoada_federated::{
    Event, Gathering, Layout, Memory, Participant, Strategy, Weights, draw, from_safetensors, to_safetensors,
};
use tokio::sync::oneshot;
use tracing::{info, warn};

use self::evaluation::Evaluating;
use self::read::{read, read_first};
use self::round::Collecting;
use super::hall::Hall;
use super::head::{first_weights, read_manifest};
use super::plan::{ElementName, HeldWeights, MemberRecord, Participants, RunIntent, RunPhase, RunPlan, RunState};
use super::report::LearningCounts;
use super::task::{App, Door, Reply, RunId, Sheet, Tensor, Work};
use crate::service::chain;
use crate::store::{RunChanges, RunRecord};

/// Who is refused so often in one run is not invited any more.
const SET_ASIDE_MAX: usize = 10_000;

/// A run that is not over.
pub(in crate::learning) struct Run {
    id: RunId,
    plan: RunPlan,
    intent: RunIntent,
    state: RunState,
    memory: Memory,
    /// What is learned from next.
    sheet: Option<Arc<Sheet>>,
    app: Option<Arc<App>>,
    stage: Stage,
    /// Not yet stored.
    changes: RunChanges,
    is_changed: bool,
    counts: LearningCounts,
    /// To be told once the changes are stored.
    verdicts: Vec<(oneshot::Sender<Verdict>, Verdict)>,
}

type Verdict = Result<(), String>;

enum Stage {
    /// No round is under way, and none begins before.
    Between(Timestamp),
    /// Somebody was asked which weights to begin with.
    Asking {
        participant: Participant,
        until: Timestamp,
    },
    Collecting(Box<Collecting>),
    Evaluating(Box<Evaluating>),
    /// All rounds are over, and what was learned is made a version.
    Releasing,
}

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub(in crate::learning) enum RunError {
    #[error("cannot keep what was learned")]
    Blobs(#[from] crate::blobs::BlobError),
    #[error("cannot read the weights to begin with")]
    Weights(#[from] revoada_federated::SafetensorsError),
    #[error("cannot read what the strategy remembers")]
    Memory(#[from] revoada_federated::MemoryError),
    #[error(transparent)]
    Recipe(#[from] revoada_federated::RecipeError),
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    #[error("devices cannot learn this model: {0}")]
    Model(String),
    #[error("cannot keep updates")]
    Spool(#[source] std::io::Error),
}

impl Run {
    /// Goes on with a run, from where it was when the service ended.
    pub(in crate::learning) fn open(hall: &mut Hall<'_>, id: RunId, record: RunRecord) -> Result<Self, RunError> {
        let RunRecord { plan, intent, state, .. } = record;
        let memory = match state.memory {
            Some(digest) => Memory::from_bytes(&hall.read(digest)?)?,
            None => Memory::new(&plan.recipe)?,
        };
        let app = match &plan.participants {
            Participants::Flower { app: Some(note), .. } => Some(Arc::new(App {
                id: note.id.clone(),
                version: note.version.clone(),
                digest: note.digest,
                content: hall.read(note.digest)?,
            })),
            _ => None,
        };
        let stage = Stage::Between(Timestamp::ZERO);
        let mut run = Self {
            id,
            plan,
            intent,
            state,
            memory,
            sheet: None,
            app,
            stage,
            changes: RunChanges::default(),
            is_changed: false,
            counts: LearningCounts::default(),
            verdicts: Vec::new(),
        };
        if let Some(held) = run.state.weights.clone() {
            let layout = Arc::new(held.layout);
            let weights = from_safetensors(&hall.read(held.digest)?, Some(&layout))?;
            run.sheet = Some(run.sheet_of(weights, held.elements.iter().map(|name| name.0).collect()));
        } else if let Some(digest) = run.plan.weights {
            let weights = from_safetensors(&hall.read(digest)?, None)?;
            run.hold_f32(hall, weights)?;
        }
        if let Participants::Devices { head, .. } = run.plan.participants.clone()
            && run.labels().is_empty()
        {
            let model = hall.read_of(head.model, revoada_bundle::bundle::MODEL)?;
            let manifest = hall.read_of(head.model, revoada_bundle::bundle::MANIFEST)?;
            let manifest = read_manifest(&manifest).map_err(RunError::Model)?;
            let (weights, labels) = first_weights(&model, &manifest, &head).map_err(RunError::Model)?;
            match &run.sheet {
                None => drop(run.hold_f32(hall, weights)?),
                Some(given) if given.weights().layout() == weights.layout() => {}
                Some(_) => return Err(RunError::Model("the weights to begin with are none of its head".to_owned())),
            }
            run.state.weights.as_mut().expect("they are held now").labels = labels;
        }
        run.resume(hall)?;
        Ok(run)
    }

    fn gathering(&self, sheet: &Sheet) -> Option<Gathering> {
        let is_mean = matches!(self.plan.recipe.strategy, Strategy::Mean(_));
        is_mean.then(|| Gathering::new(Arc::clone(sheet.weights().layout())))
    }

    fn sheet_of(&self, weights: Weights, elements: Vec<Element>) -> Arc<Sheet> {
        Arc::new(Sheet::new(weights, elements, self.app.clone()))
    }

    fn hold_f32(&mut self, hall: &mut Hall<'_>, weights: Weights) -> Result<Digest, RunError> {
        let elements = vec![Element::F32; weights.layout().tensors().len()];
        self.hold(hall, weights, elements)
    }

    /// What the head tells apart that devices learn.
    fn labels(&self) -> &[String] {
        self.state.weights.as_ref().map_or(&[], |held| &held.labels)
    }

    /// Keeps weights, from which the next round learns.
    fn hold(&mut self, hall: &mut Hall<'_>, weights: Weights, elements: Vec<Element>) -> Result<Digest, RunError> {
        let round = self.state.round;
        let run = self.id.to_string();
        let file = to_safetensors(&weights, &[("revoada.run", &run)]);
        let (bytes, labels) = (file.len() as u64, self.labels().to_vec());
        let digest = hall.keep(file.into())?;
        self.changes.files.push((round, digest));
        let layout = Layout::clone(weights.layout());
        let names = elements.iter().map(|element| ElementName(*element)).collect();
        self.state.weights = Some(HeldWeights { digest, bytes, layout, elements: names, labels });
        self.sheet = Some(self.sheet_of(weights, elements));
        self.is_changed = true;
        Ok(digest)
    }

    pub(in crate::learning) fn is_over(&self) -> bool {
        self.state.phase.is_over()
    }

    /// Whether it asks clients of Flower.
    pub(in crate::learning) fn asks_flower(&self) -> bool {
        matches!(self.plan.participants, Participants::Flower { .. })
    }

    pub(in crate::learning) fn want(&mut self, intent: RunIntent) {
        self.intent = intent;
    }

    /// What is to be stored, and then told. `None` where nothing has changed.
    pub(in crate::learning) fn take_changes(&mut self) -> Option<RunChanges> {
        if let Stage::Collecting(collecting) = &mut self.stage
            && !collecting.changed.is_empty()
        {
            let round = collecting.round.number();
            for participant in std::mem::take(&mut collecting.changed) {
                let Some(member) = collecting.round.members().get(&participant) else { continue };
                let result = collecting.details.get(&participant).cloned().unwrap_or_default();
                let record = MemberRecord { member: member.clone(), result };
                self.changes.members.push((round, participant, record));
            }
            self.changes.rounds.push(collecting.record());
        }
        if std::mem::take(&mut self.is_changed) {
            self.changes.state = Some(self.state.clone());
        }
        let RunChanges { state, rounds, members, files } = &self.changes;
        let is_empty = state.is_none() && rounds.is_empty() && members.is_empty() && files.is_empty();
        (!is_empty).then(|| std::mem::take(&mut self.changes))
    }

    /// Holds on to what could not be stored, until it can. Not yet.
    pub(in crate::learning) fn keep_changes(&mut self, changes: RunChanges) -> bool {
        self.is_changed |= changes.state.is_some();
        self.changes = RunChanges { state: None, ..changes };
        false
    }

    /// What has happened since it was last asked.
    pub(in crate::learning) fn take_counts(&mut self) -> LearningCounts {
        std::mem::take(&mut self.counts)
    }

    /// Tells participants what became of what they said. It is stored, or the service could not.
    pub(in crate::learning) fn tell_verdicts(&mut self, is_stored: bool) {
        for (sender, verdict) in self.verdicts.drain(..) {
            let verdict = if is_stored { verdict } else { Err("the service cannot keep it now".to_owned()) };
            // Who went meanwhile is told nothing.
            drop(sender.send(verdict));
        }
    }

    fn set_phase(&mut self, phase: RunPhase) {
        if self.state.phase != phase {
            self.state.phase = phase;
            self.is_changed = true;
        }
    }

    fn wait(&mut self, why: impl Into<String>) {
        self.set_phase(RunPhase::Waiting { why: why.into() });
    }

    /// Ends it for good.
    fn end(&mut self, phase: RunPhase) {
        info!(run = %self.id, phase = phase.name(), "a run is over");
        self.set_phase(phase);
        self.stage = Stage::Between(Timestamp::ZERO);
    }

    /// What is wrong with the service ends a run, which people see; it is logged too.
    pub(in crate::learning) fn fail(&mut self, error: &RunError) {
        let why = chain(error);
        warn!(run = %self.id, error = why, "a run has failed");
        self.end(RunPhase::Failed { why });
    }

    /// Goes on as far as it can now.
    pub(in crate::learning) fn advance(&mut self, hall: &mut Hall<'_>) {
        if self.is_over() {
            return;
        }
        let now = hall.now;
        match &self.stage {
            Stage::Between(until) => {
                let until = *until;
                if let Err(error) = self.begin(hall, until) {
                    self.fail(&error);
                }
            }
            Stage::Asking { participant, until } => {
                if self.intent == RunIntent::Stop || now > *until || !hall.is_present(participant) {
                    self.stage = Stage::Between(now);
                }
            }
            Stage::Collecting(_) if self.intent == RunIntent::Stop => {
                self.handle(hall, Event::CallOff { why: "the run was stopped".to_owned() });
            }
            Stage::Collecting(_) => self.handle(hall, Event::Tick),
            Stage::Evaluating(_) if self.intent == RunIntent::Stop || self.is_evaluated(now) => self.conclude(hall),
            Stage::Evaluating(_) | Stage::Releasing => {}
        }
    }

    /// Begins the next round, or says what it waits for.
    fn begin(&mut self, hall: &mut Hall<'_>, until: Timestamp) -> Result<(), RunError> {
        match self.intent {
            RunIntent::Stop => {
                self.end(RunPhase::Stopped);
                return Ok(());
            }
            RunIntent::Pause => {
                self.wait("it is paused");
                return Ok(());
            }
            RunIntent::Go => {}
        }
        if self.state.round >= self.plan.rounds {
            self.finish(hall);
            return Ok(());
        }
        if self.plan.starts_at.is_some_and(|starts_at| hall.now < starts_at) {
            self.wait("its time has not come");
            return Ok(());
        }
        if hall.now < until {
            self.wait("the next round has not begun");
            return Ok(());
        }
        let mut candidates = hall.candidates(&self.plan.participants);
        candidates.retain(|participant| !self.state.set_aside.contains(participant));
        let needed = self.plan.participants.least().max(self.plan.recipe.quorum.get());
        if candidates.len() < needed {
            self.wait(format!("{} participants are there, and it needs {needed}", candidates.len()));
            return Ok(());
        }
        let Some(sheet) = self.sheet.clone() else {
            self.ask(hall, &candidates);
            return Ok(());
        };
        let number = self.state.round + 1;
        let drawn = draw(&candidates, self.plan.sample, hall.seed ^ (self.id.0 << 32) ^ number);
        self.begin_round(hall, number, &sheet, drawn)
    }

    /// Asks somebody which weights to begin with.
    fn ask(&mut self, hall: &mut Hall<'_>, candidates: &BTreeSet<Participant>) {
        let Some(participant) = candidates.iter().find(|participant| Door::of(participant) == Door::Join) else {
            self.wait("nobody who is there can say the weights to begin with: add a run with a file of them");
            return;
        };
        let task = hall.task(self.id, 0, Work::Parameters { config: self.plan.config.clone() });
        if hall.board.post(participant, task) {
            let until = hall.now + self.plan.round_time_max;
            self.stage = Stage::Asking { participant: participant.clone(), until };
            self.wait(format!("{participant} was asked for the weights to begin with"));
        }
    }

    /// Takes in what a participant says, and tells it later what became of it.
    pub(in crate::learning) fn said(
        &mut self,
        hall: &mut Hall<'_>,
        participant: &Participant,
        round: u64,
        reply: Reply,
        sender: oneshot::Sender<Verdict>,
    ) {
        let verdict = self.take(hall, participant, round, reply);
        self.verdicts.push((sender, verdict));
    }

    fn take(&mut self, hall: &mut Hall<'_>, participant: &Participant, round: u64, reply: Reply) -> Verdict {
        let over = || Err("the round is over".to_owned());
        if self.is_evaluating(round) {
            return if self.take_evaluation(hall, participant, reply) { Ok(()) } else { over() };
        }
        match (&mut self.stage, reply) {
            (Stage::Asking { participant: asked, .. }, Reply::Parameters(tensors)) if asked == participant => {
                self.take_parameters(hall, &tensors)
            }
            (Stage::Asking { participant: asked, .. }, Reply::Failed(why)) if asked == participant => {
                let refusal = format!("{participant} cannot say the weights to begin with: {why}");
                self.wait(&*refusal);
                self.stage = Stage::Between(hall.now + ASK_AGAIN);
                Err(refusal)
            }
            (Stage::Collecting(collecting), reply) if collecting.round.number() == round => match reply {
                Reply::Fit { tensors, reported } => {
                    let base = collecting.round.base();
                    let sheet = self.sheet.clone().expect("a round has weights");
                    let bytes = tensors.iter().map(|tensor| tensor.array.len() as u64).sum();
                    let content = read(&tensors, sheet.weights().layout());
                    self.take_update(hall, participant, (base, content, bytes), &reported)
                }
                Reply::Learned { base, content, reported } => {
                    let bytes = (content.layout().count() * size_of::<f32>()) as u64;
                    self.take_update(hall, participant, (base, Ok(content), bytes), &reported)
                }
                Reply::Failed(why) => {
                    self.handle(hall, Event::Left { participant: participant.clone(), why });
                    Ok(())
                }
                Reply::Parameters(_) | Reply::Evaluate { .. } => Err("it was asked for an update".to_owned()),
            },
            _ => over(),
        }
    }

    fn take_parameters(&mut self, hall: &mut Hall<'_>, tensors: &[Tensor]) -> Verdict {
        self.stage = Stage::Between(hall.now);
        let (weights, elements) = read_first(tensors).inspect_err(|_| {
            self.stage = Stage::Between(hall.now + ASK_AGAIN);
        })?;
        self.hold(hall, weights, elements).map(drop).map_err(|error| {
            self.fail(&error);
            "the service cannot keep it".to_owned()
        })
    }
}

/// Before somebody is asked again who could not say.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);
const CONNECTION: &str = "its connection ended";

impl Participants {
    /// A round does not begin with fewer.
    fn least(&self) -> usize {
        match self {
            Self::Flower { clients_min, .. } => *clients_min,
            Self::Devices { devices_min, .. } => *devices_min,
        }
    }
}
