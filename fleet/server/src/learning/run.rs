//! One run: round after round, until it has had them all.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use revoada_core::{Digest, Timestamp};
use revoada_federated::npy::{self, Element};
use revoada_federated::{
    Action, Bounds, Contribution, Event, Expected, Gathering, Head, Layout, Member, Memory, Participant, Round,
    Standing, Strategy, Terms, TermsError, Update, Weights, aggregate_robust, draw, from_safetensors, to_safetensors,
};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::hall::Hall;
use super::head::{first_weights, read_manifest};
use super::plan::{
    ElementName, HeldWeights, MemberRecord, MemberResult, Participants, RoundRecord, RoundResult, RunIntent, RunPhase,
    RunPlan, RunState,
};
use super::report::{LearningCounts, Tally, numbers};
use super::spool::Spool;
use super::task::{App, Config, Door, Reply, Reported, RunId, Sheet, Tensor, Value, Work};
use crate::service::chain;
use crate::store::{RunChanges, RunRecord};

/// Who is refused so often in one run is not invited any more.
const SET_ASIDE_MAX: usize = 10_000;

/// A run that is not over.
pub(super) struct Run {
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
}

/// A round that is under way.
struct Collecting {
    round: Round,
    /// `None` for a strategy that looks at all updates at once.
    gathering: Option<Gathering>,
    spool: Spool,
    result: RoundResult,
    details: BTreeMap<Participant, MemberResult>,
    tally: Tally,
    changed: BTreeSet<Participant>,
}

/// After a round.
struct Evaluating {
    head: Head,
    result: RoundResult,
    awaited: BTreeSet<Participant>,
    tally: Tally,
    until: Timestamp,
}

/// Why a run cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
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
    pub(super) fn open(hall: &mut Hall<'_>, id: RunId, record: RunRecord) -> Result<Self, RunError> {
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

    /// Takes up the round that was under way.
    fn resume(&mut self, hall: &mut Hall<'_>) -> Result<(), RunError> {
        let last = hall.store.rounds(self.id)?.pop();
        let Some(RoundRecord { head, result }) = last.filter(|last| last.result.ended.is_none()) else {
            return Ok(());
        };
        let Some(sheet) = self.sheet.clone() else { return Ok(()) };
        let records = hall.store.members(self.id, head.number)?;
        let details = records.iter().map(|(who, record)| (who.clone(), record.result.clone())).collect();
        let members = records.into_iter().map(|(who, record)| (who, record.member)).collect();
        let spool = Spool::open(hall.folder, self.id, head.number).map_err(RunError::Spool)?;
        let round = Round::restore(head, members);
        let gathering = self.gathering(&sheet);
        let tally = Tally::default();
        let mut collecting = Collecting { round, gathering, spool, result, details, tally, changed: BTreeSet::new() };
        let sent: Vec<(Participant, Digest, u64)> =
            collecting.round.updates().map(|(who, update, examples)| (who.clone(), update, examples)).collect();
        let mut events = vec![];
        for (participant, update, examples) in sent {
            let is_there = match &mut collecting.gathering {
                None => collecting.spool.has(&participant, update, sheet.weights()),
                Some(gathering) => match collecting.spool.get(&participant, update, sheet.weights()) {
                    None => false,
                    Some(content) => {
                        let norm = collecting.details.get(&participant).and_then(|it| it.norm).unwrap_or_default();
                        let counted = (examples, norm);
                        gathering.fold(&self.plan.recipe, &self.memory, sheet.weights(), &content, counted).is_ok()
                    }
                },
            };
            if let Some(detail) = collecting.details.get(&participant).filter(|_| is_there) {
                collecting.tally.add(examples, &detail.fit);
            }
            if !is_there {
                events.push(Event::Lost { participant });
            }
        }
        let gone = collecting.round.members().keys().filter(|participant| !Door::of(participant).is_lasting());
        let gone = gone.map(|it| Event::Left { participant: it.clone(), why: CONNECTION.to_owned() });
        events.extend(gone.collect::<Vec<_>>());
        events.push(Event::Resume);
        info!(run = %self.id, round = collecting.round.number(), "a round goes on");
        self.stage = Stage::Collecting(Box::new(collecting));
        for event in events {
            self.handle(hall, event);
        }
        Ok(())
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

    pub(super) fn is_over(&self) -> bool {
        self.state.phase.is_over()
    }

    /// Whether it asks clients of Flower.
    pub(super) fn asks_flower(&self) -> bool {
        matches!(self.plan.participants, Participants::Flower { .. })
    }

    pub(super) fn want(&mut self, intent: RunIntent) {
        self.intent = intent;
    }

    /// What is to be stored, and then told. `None` where nothing has changed.
    pub(super) fn take_changes(&mut self) -> Option<RunChanges> {
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

    /// What has happened since it was last asked.
    pub(super) fn take_counts(&mut self) -> LearningCounts {
        std::mem::take(&mut self.counts)
    }

    /// Tells participants what became of what they said. It is stored, or the service could not.
    pub(super) fn tell_verdicts(&mut self, is_stored: bool) {
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
    pub(super) fn fail(&mut self, error: &RunError) {
        let why = chain(error);
        warn!(run = %self.id, error = why, "a run has failed");
        self.end(RunPhase::Failed { why });
    }

    /// Goes on as far as it can now.
    pub(super) fn advance(&mut self, hall: &mut Hall<'_>) {
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
            Stage::Evaluating(evaluating) => {
                if self.intent == RunIntent::Stop || now > evaluating.until || evaluating.awaited.is_empty() {
                    self.conclude(hall);
                }
            }
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
            self.end(RunPhase::Finished);
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

    fn begin_round(
        &mut self,
        hall: &mut Hall<'_>,
        number: u64,
        sheet: &Arc<Sheet>,
        drawn: BTreeSet<Participant>,
    ) -> Result<(), RunError> {
        let base = self.state.weights.as_ref().expect("a sheet is of weights that are held").digest;
        let terms = Terms {
            quorum: self.plan.recipe.quorum,
            enough: self.plan.enough.map(|enough| enough.min(NonZeroUsize::new(drawn.len()).unwrap_or(enough))),
            time_max: self.plan.round_time_max,
            refusals_max: self.plan.refusals_max,
        };
        let (round, actions) = match Round::begin(number, base, terms, drawn, hall.now) {
            Ok(begun) => begun,
            Err(error @ (TermsError::Quorum { .. } | TermsError::Enough { .. })) => {
                self.wait(error.to_string());
                return Ok(());
            }
        };
        let spool = Spool::open(hall.folder, self.id, number).map_err(RunError::Spool)?;
        let changed: BTreeSet<Participant> = round.members().keys().cloned().collect();
        let result = RoundResult { invited: changed.len(), ..RoundResult::default() };
        let (gathering, details, tally) = (self.gathering(sheet), BTreeMap::new(), Tally::default());
        let collecting = Collecting { round, gathering, spool, result, details, tally, changed };
        self.stage = Stage::Collecting(Box::new(collecting));
        self.state.round = number;
        self.set_phase(RunPhase::Learning);
        self.is_changed = true;
        self.act(hall, actions);
        Ok(())
    }

    /// Takes in what happens in the round that is under way.
    fn handle(&mut self, hall: &mut Hall<'_>, event: Event) {
        let Stage::Collecting(collecting) = &mut self.stage else { return };
        if let Event::Left { participant, .. } | Event::Lost { participant } = &event {
            collecting.changed.insert(participant.clone());
        }
        let actions = collecting.round.handle(event, hall.now);
        self.act(hall, actions);
    }

    fn act(&mut self, hall: &mut Hall<'_>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Invite { participant } => self.invite(hall, &participant),
                Action::Aggregate => {
                    let outcome = self.aggregate(hall);
                    let event = match outcome {
                        Ok(Made::Weights(digest)) => Event::Aggregated(Ok(digest)),
                        Ok(Made::Lost(participant)) => Event::Lost { participant },
                        Err(why) => Event::Aggregated(Err(why)),
                    };
                    self.handle(hall, event);
                }
                Action::Finish { .. } => self.finish_round(hall),
                Action::CallOff { why } => self.call_off(hall, &why),
                // Whoever brought an update is told by who took it.
                Action::Accept { .. } | Action::Refuse { .. } => {}
            }
        }
    }

    fn invite(&mut self, hall: &mut Hall<'_>, participant: &Participant) {
        let (Stage::Collecting(collecting), Some(sheet)) = (&mut self.stage, &self.sheet) else { return };
        if let Participants::Devices { head, .. } = &self.plan.participants {
            let held = self.state.weights.as_ref().expect("a round has weights");
            let until = collecting.round.deadline();
            // One that is not there now is invited once it is.
            if hall.invite(participant, (self.id, collecting.round.number()), head, held, until) {
                collecting.result.bytes_sent += held.bytes;
                self.counts.bytes_sent += held.bytes;
            }
            return;
        }
        let mut config = self.plan.config.clone();
        config.insert("server_round".to_owned(), Value::Integer(i64::try_from(self.state.round).unwrap_or(i64::MAX)));
        let work = Work::Fit { weights: Arc::clone(sheet), config };
        let task = hall.task(self.id, collecting.round.number(), work);
        if hall.board.post(participant, task) {
            let bytes = size_of_val(sheet.weights().values()) as u64;
            collecting.result.bytes_sent += bytes;
            self.counts.bytes_sent += bytes;
        } else if !Door::of(participant).is_lasting() {
            let left = Event::Left { participant: participant.clone(), why: CONNECTION.to_owned() };
            self.handle(hall, left);
        }
    }

    /// Somebody is there, perhaps again.
    pub(super) fn came(&mut self, hall: &mut Hall<'_>, participant: &Participant) {
        if let Stage::Collecting(collecting) = &self.stage
            && collecting.round.members().get(participant).is_some_and(|it| it.standing == Standing::Invited)
        {
            self.invite(hall, participant);
        }
    }

    pub(super) fn gone(&mut self, hall: &mut Hall<'_>, participant: &Participant) {
        if Door::of(participant).is_lasting() {
            return;
        }
        match &mut self.stage {
            Stage::Asking { participant: asked, .. } if asked == participant => self.stage = Stage::Between(hall.now),
            Stage::Collecting(collecting) if collecting.round.members().contains_key(participant) => {
                let left = Event::Left { participant: participant.clone(), why: CONNECTION.to_owned() };
                self.handle(hall, left);
            }
            Stage::Evaluating(evaluating) => drop(evaluating.awaited.remove(participant)),
            _ => {}
        }
    }

    /// Takes in what a participant says, and tells it later what became of it.
    pub(super) fn said(
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
                    let content = read(&tensors, sheet.weights().layout()).map(Contribution::Full);
                    self.take_update(hall, participant, (base, content, bytes), &reported)
                }
                Reply::Learned { base, content, reported } => {
                    let bytes = size_of_val(content.weights().values()) as u64;
                    self.take_update(hall, participant, (base, Ok(content), bytes), &reported)
                }
                Reply::Failed(why) => {
                    self.handle(hall, Event::Left { participant: participant.clone(), why });
                    Ok(())
                }
                Reply::Parameters(_) | Reply::Evaluate { .. } => Err("it was asked for an update".to_owned()),
            },
            (Stage::Evaluating(evaluating), reply) if evaluating.head.number == round => {
                if !evaluating.awaited.remove(participant) {
                    return over();
                }
                if let Reply::Evaluate { loss, reported } = reply {
                    let mut figures = numbers(&reported.metrics);
                    figures.extend(loss.filter(|loss| loss.is_finite()).map(|loss| ("loss".to_owned(), loss)));
                    evaluating.tally.add(reported.examples, &figures);
                }
                if evaluating.awaited.is_empty() {
                    self.conclude(hall);
                }
                Ok(())
            }
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

    fn take_update(
        &mut self,
        hall: &mut Hall<'_>,
        participant: &Participant,
        (base, content, bytes): (Digest, Result<Contribution, String>, u64),
        reported: &Reported,
    ) -> Verdict {
        let (Stage::Collecting(collecting), Some(sheet)) = (&mut self.stage, &self.sheet) else {
            return Err("the round is over".to_owned());
        };
        let number = collecting.round.number();
        collecting.result.bytes_received += bytes;
        self.counts.bytes_received += bytes;
        let expected = Expected {
            round: number,
            base: collecting.round.base(),
            global: sheet.weights(),
            bounds: Bounds { examples_max: self.plan.examples_max, norm_max: self.plan.norm_max },
        };
        let examples = reported.examples;
        let checked = content.and_then(|content| {
            let update = Update { round: number, base, content, examples };
            let norm = update.check(&expected).map_err(|refusal| refusal.to_string())?;
            Ok((update.content, norm))
        });
        let was = collecting.round.members().get(participant).map(|member| member.standing.clone());
        let is_kept = collecting.gathering.is_none() || Door::of(participant).is_lasting();
        let digest = match &checked {
            Ok((content, _)) if is_kept => digest_of(content),
            // One that is gone with its connection sends one update in a round, which has no other name.
            _ => revoada_bundle::hash(format!("{number} {participant}").as_bytes()),
        };
        if let Ok((content, _)) = &checked
            && is_kept
            && matches!(was, Some(Standing::Invited | Standing::Left { .. }))
            && let Err(error) = collecting.spool.put(participant, digest, content)
        {
            warn!(run = %self.id, %participant, %error, "cannot keep an update");
            return Err("the service cannot keep it now".to_owned());
        }
        let event = Event::Arrived {
            participant: participant.clone(),
            update: digest,
            examples,
            checked: checked.as_ref().map(|_| ()).map_err(Clone::clone),
        };
        collecting.changed.insert(participant.clone());
        let mut actions = collecting.round.handle(event, hall.now).into_iter();
        let verdict = match actions.next() {
            Some(Action::Refuse { why, .. }) => Err(why.to_string()),
            _ => Ok(()),
        };
        let standing = collecting.round.members().get(participant).map(|member| &member.standing);
        match (&verdict, checked) {
            (Ok(()), Ok((content, norm))) if !matches!(was, Some(Standing::Sent { .. })) => {
                let seconds = hall.now.since(collecting.round.head().began).as_secs_f64();
                let fit = numbers(&reported.metrics);
                collecting.tally.add(examples, &fit);
                collecting.result.updates += 1;
                self.counts.updates_accepted += 1;
                collecting.result.examples = collecting.result.examples.saturating_add(examples);
                let detail = MemberResult { bytes, norm: Some(norm), seconds: Some(seconds), fit, evaluation: vec![] };
                collecting.details.insert(participant.clone(), detail);
                if let Some(gathering) = &mut collecting.gathering {
                    let counted = (examples, norm);
                    let folded = gathering.fold(&self.plan.recipe, &self.memory, sheet.weights(), &content, counted);
                    folded.expect("a checked update fits");
                }
            }
            (Ok(()), _) => {}
            (Err(_), _) => {
                collecting.result.refused += 1;
                self.counts.updates_refused += 1;
                if standing == Some(&Standing::SetAside) {
                    if self.state.set_aside.len() < SET_ASIDE_MAX {
                        self.is_changed |= self.state.set_aside.insert(participant.clone());
                    }
                } else if standing == Some(&Standing::Invited) && was == Some(Standing::Invited) {
                    // It may have been an accident.
                    self.invite(hall, participant);
                }
            }
        }
        self.act(hall, actions.collect());
        verdict
    }

    /// Makes the next weights of what was sent.
    fn aggregate(&mut self, hall: &mut Hall<'_>) -> Result<Made, String> {
        let (Stage::Collecting(collecting), Some(sheet)) = (&mut self.stage, self.sheet.clone()) else {
            return Err("the round is over".to_owned());
        };
        let recipe = &self.plan.recipe;
        let made = match collecting.gathering.take() {
            Some(gathering) => gathering.finish(recipe, &mut self.memory, sheet.weights(), random),
            None => {
                let updates = collecting.round.updates();
                let updates = updates.map(|(who, update, examples)| (who.clone(), (update, examples))).collect();
                match collecting.spool.reader(sheet.weights(), &updates) {
                    Err(participant) => return Ok(Made::Lost(participant)),
                    Ok(files) => aggregate_robust(recipe, sheet.weights().layout(), &files),
                }
            }
        };
        let weights = made.map_err(|error| chain(&error))?;
        let elements = sheet.tensors().map(|(_, element, _)| element).collect();
        let digest = self.hold(hall, weights, elements).map_err(|error| chain(&error))?;
        if self.memory != Memory::new(&self.plan.recipe).map_err(|error| chain(&error))? {
            let memory = hall.keep(self.memory.to_bytes().into()).map_err(|error| chain(&error))?;
            self.changes.files.push((self.state.round, memory));
            self.state.memory = Some(memory);
        }
        Ok(Made::Weights(digest))
    }

    fn finish_round(&mut self, hall: &mut Hall<'_>) {
        let Stage::Collecting(collecting) = &mut self.stage else { return };
        collecting.result.ended = Some(hall.now);
        collecting.result.fit = collecting.tally.mean();
        collecting.result.epsilon = self.memory.epsilon(&self.plan.recipe);
        collecting.result.clipping_norm = self.memory.clipper.map(|clipper| clipper.norm());
        self.state.epsilon = collecting.result.epsilon;
        self.state.failures = 0;
        self.counts.rounds_finished += 1;
        let (head, result) = (collecting.round.head().clone(), collecting.result.clone());
        info!(run = %self.id, round = head.number, updates = result.updates, "a round has ended");
        self.leave_round(hall);
        self.evaluate(hall, head, result);
    }

    fn call_off(&mut self, hall: &mut Hall<'_>, why: &str) {
        let Stage::Collecting(collecting) = &mut self.stage else { return };
        collecting.result.ended = Some(hall.now);
        collecting.result.fit = collecting.tally.mean();
        info!(run = %self.id, round = collecting.round.number(), why, "a round was called off");
        self.leave_round(hall);
        self.state.failures += 1;
        self.counts.rounds_called_off += 1;
        self.is_changed = true;
        let failures = self.state.failures;
        if failures >= self.plan.failures_max && self.intent != RunIntent::Stop {
            self.end(RunPhase::Failed {
                why: format!("{failures} rounds in a row were called off, the last because {why}"),
            });
        } else {
            self.wait(format!("the last round was called off: {why}"));
        }
    }

    /// Takes all that is to be stored of a round that is over, and forgets the rest.
    fn leave_round(&mut self, hall: &mut Hall<'_>) {
        let between = Stage::Between(hall.now + self.plan.pause);
        let Stage::Collecting(mut collecting) = std::mem::replace(&mut self.stage, between) else { return };
        collecting.changed.extend(collecting.round.members().keys().cloned());
        let number = collecting.round.number();
        for participant in &collecting.changed {
            let Some(member) = collecting.round.members().get(participant) else { continue };
            let result = collecting.details.get(participant).cloned().unwrap_or_default();
            let record = MemberRecord { member: Member::clone(member), result };
            self.changes.members.push((number, participant.clone(), record));
        }
        self.changes.rounds.push(collecting.record());
        if let Err(error) = collecting.spool.remove() {
            warn!(run = %self.id, %error, "cannot remove the updates of a round that is over");
        }
    }

    /// Asks whoever is there how good the new weights are.
    fn evaluate(&mut self, hall: &mut Hall<'_>, head: Head, result: RoundResult) {
        // Devices say with the next update how good the weights were that they were given.
        let asks = self.plan.evaluates && self.asks_flower() && self.intent != RunIntent::Stop;
        let Some(sheet) = self.sheet.clone().filter(|_| asks) else {
            return self.wait("the next round has not begun");
        };
        let mut config = Config::new();
        config.insert("server_round".to_owned(), Value::Integer(i64::try_from(head.number).unwrap_or(i64::MAX)));
        let mut awaited = hall.candidates(&self.plan.participants);
        awaited.retain(|participant| !self.state.set_aside.contains(participant));
        awaited.retain(|participant| {
            let work = Work::Evaluate { weights: Arc::clone(&sheet), config: config.clone() };
            let task = hall.task(self.id, head.number, work);
            hall.board.post(participant, task)
        });
        let until = hall.now + self.plan.round_time_max;
        self.stage = Stage::Evaluating(Box::new(Evaluating { head, result, awaited, tally: Tally::default(), until }));
        self.set_phase(RunPhase::Evaluating);
    }

    /// Notes how good the weights are.
    fn conclude(&mut self, hall: &mut Hall<'_>) {
        let between = Stage::Between(hall.now + self.plan.pause);
        let Stage::Evaluating(evaluating) = std::mem::replace(&mut self.stage, between) else { return };
        let Evaluating { head, mut result, tally, .. } = *evaluating;
        result.evaluation = tally.mean();
        result.evaluated_by = tally.count();
        self.changes.rounds.push(RoundRecord { head, result });
        self.wait("the next round has not begun");
    }
}

/// What came of an aggregation.
enum Made {
    Weights(Digest),
    /// An update is not there any more.
    Lost(Participant),
}

/// Before somebody is asked again who could not say.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);
const CONNECTION: &str = "its connection ended";

impl Collecting {
    fn record(&self) -> RoundRecord {
        RoundRecord { head: self.round.head().clone(), result: self.result.clone() }
    }
}

impl Participants {
    /// A round does not begin with fewer.
    fn least(&self) -> usize {
        match self {
            Self::Flower { clients_min, .. } => *clients_min,
            Self::Devices { devices_min, .. } => *devices_min,
        }
    }
}

/// Weights of a known layout, by name where the tensors are named as it says, else by place.
fn read(tensors: &[Tensor], layout: &Arc<Layout>) -> Result<Weights, String> {
    let names: BTreeMap<&str, &Tensor> =
        tensors.iter().filter_map(|tensor| Some((tensor.name.as_deref()?, tensor))).collect();
    let is_named = !names.is_empty() && layout.tensors().iter().all(|(name, _)| names.contains_key(name.as_str()));
    if tensors.len() != layout.tensors().len() {
        return Err(format!("the update has {} tensors, and the model has {}", tensors.len(), layout.tensors().len()));
    }
    let mut values = Vec::with_capacity(layout.count());
    for ((name, shape), by_place) in layout.tensors().iter().zip(tensors) {
        let tensor = if is_named { names[name.as_str()] } else { by_place };
        let array = npy::Array::parse(&tensor.array).map_err(|error| format!("tensor `{name}`: {error}"))?;
        if array.shape != *shape {
            return Err(format!("tensor `{name}` has the shape {:?}, and in the model {shape:?}", array.shape));
        }
        array.extend(&mut values);
    }
    Ok(Weights::new(Arc::clone(layout), values).expect("each tensor has the numbers of its shape"))
}

/// Weights that somebody begins with.
fn read_first(tensors: &[Tensor]) -> Result<(Weights, Vec<Element>), String> {
    let (mut values, mut named, mut elements) = (Vec::new(), Vec::new(), Vec::new());
    for (place, tensor) in tensors.iter().enumerate() {
        let name = tensor.name.clone().unwrap_or_else(|| place.to_string());
        let array = npy::Array::parse(&tensor.array).map_err(|error| format!("tensor `{name}`: {error}"))?;
        array.extend(&mut values);
        elements.push(array.element);
        named.push((name, array.shape));
    }
    let layout = Layout::new(named).map_err(|error| error.to_string())?;
    if let Some(place) = values.iter().position(|value| !value.is_finite()) {
        return Err(format!("number {place} of the weights to begin with is not finite"));
    }
    Ok((Weights::new(Arc::new(layout), values).expect("there are as many as the shapes say"), elements))
}

fn digest_of(content: &Contribution) -> Digest {
    use sha2::{Digest as _, Sha256};
    let mut hasher = Sha256::new();
    hasher.update([u8::from(matches!(content, Contribution::Delta(_)))]);
    let mut bytes = Vec::with_capacity(1 << 14);
    for values in content.weights().values().chunks(1 << 12) {
        bytes.clear();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        hasher.update(&bytes);
    }
    Digest::new(hasher.finalize().into())
}

/// Of the system's generator: nobody is to take noise off again.
fn random() -> u64 {
    getrandom::u64().expect("the system has random numbers")
}
