//! A round of a run: who is invited, what comes, and what is made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;

use revoada_core::Digest;
use revoada_federated::{
    Action, Bounds, Contribution, Event, Expected, Gathering, Member, Memory, Participant, Round, Standing, Terms,
    TermsError, Update, aggregate_robust,
};
use tracing::{info, warn};

use super::read::digest_of;
use super::{CONNECTION, Run, RunError, SET_ASIDE_MAX, Stage, Verdict};
use crate::learning::hall::Hall;
use crate::learning::plan::{MemberRecord, MemberResult, Participants, RoundRecord, RoundResult, RunIntent, RunPhase};
use crate::learning::report::{Tally, numbers};
use crate::learning::spool::Spool;
use crate::learning::task::{Door, Reported, Sheet, Value, Work};
use crate::service::chain;

/// A round that is under way.
pub(super) struct Collecting {
    pub(super) round: Round,
    /// `None` for a strategy that looks at all updates at once.
    pub(super) gathering: Option<Gathering>,
    pub(super) spool: Spool,
    pub(super) result: RoundResult,
    pub(super) details: BTreeMap<Participant, MemberResult>,
    pub(super) tally: Tally,
    pub(super) changed: BTreeSet<Participant>,
    /// Devices that were told of the weights: one that is told again has them, or goes on where it broke off.
    told: BTreeSet<Participant>,
}

impl Collecting {
    pub(super) fn record(&self) -> RoundRecord {
        RoundRecord { head: self.round.head().clone(), result: self.result.clone() }
    }
}

impl Run {
    /// Takes up the round that was under way, or the question how good its weights are.
    pub(super) fn resume(&mut self, hall: &mut Hall<'_>) -> Result<(), RunError> {
        let Some(RoundRecord { head, result }) = hall.store.rounds(self.id)?.pop() else { return Ok(()) };
        if result.ended.is_some() {
            // Whoever was asked how good its weights are may be gone; the service's own pictures are not.
            if self.state.phase == RunPhase::Evaluating {
                self.evaluate(hall, head, result);
            }
            return Ok(());
        }
        let Some(sheet) = self.sheet.clone() else { return Ok(()) };
        let records = hall.store.members(self.id, head.number)?;
        let details = records.iter().map(|(who, record)| (who.clone(), record.result.clone())).collect();
        let members = records.into_iter().map(|(who, record)| (who, record.member)).collect();
        let spool = Spool::open(hall.folder, self.id, head.number).map_err(RunError::Spool)?;
        let round = Round::restore(head, members);
        let gathering = self.gathering(&sheet);
        let tally = Tally::default();
        let mut collecting = Collecting {
            round,
            gathering,
            spool,
            result,
            details,
            tally,
            changed: BTreeSet::new(),
            told: BTreeSet::new(),
        };
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

    pub(super) fn begin_round(
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
        let told = BTreeSet::new();
        let collecting = Collecting { round, gathering, spool, result, details, tally, changed, told };
        self.stage = Stage::Collecting(Box::new(collecting));
        self.state.round = number;
        self.set_phase(RunPhase::Learning);
        self.is_changed = true;
        self.act(hall, actions);
        Ok(())
    }

    /// Takes in what happens in the round that is under way.
    pub(super) fn handle(&mut self, hall: &mut Hall<'_>, event: Event) {
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

    pub(super) fn invite(&mut self, hall: &mut Hall<'_>, participant: &Participant) {
        let (Stage::Collecting(collecting), Some(sheet)) = (&mut self.stage, &self.sheet) else { return };
        if let Participants::Devices { head, .. } = &self.plan.participants {
            let held = self.state.weights.as_ref().expect("a round has weights");
            let until = collecting.round.deadline();
            // One that is not there now is invited once it is.
            if hall.invite(participant, (self.id, collecting.round.number()), head, held, until)
                && collecting.told.insert(participant.clone())
            {
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
    pub(in crate::learning) fn came(&mut self, hall: &mut Hall<'_>, participant: &Participant) {
        if let Stage::Collecting(collecting) = &self.stage
            && collecting.round.members().get(participant).is_some_and(|it| it.standing == Standing::Invited)
        {
            self.invite(hall, participant);
        }
    }

    pub(in crate::learning) fn gone(&mut self, hall: &mut Hall<'_>, participant: &Participant) {
        if Door::of(participant).is_lasting() {
            return;
        }
        match &mut self.stage {
            Stage::Asking { participant: asked, .. } if asked == participant => self.stage = Stage::Between(hall.now),
            Stage::Collecting(collecting) if collecting.round.members().contains_key(participant) => {
                let left = Event::Left { participant: participant.clone(), why: CONNECTION.to_owned() };
                self.handle(hall, left);
            }
            Stage::Evaluating(_) => self.no_evaluation_of(participant),
            _ => {}
        }
    }

    pub(super) fn take_update(
        &mut self,
        hall: &mut Hall<'_>,
        participant: &Participant,
        (base, content, bytes): (Digest, Result<Contribution<'_>, String>, u64),
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
}

/// What came of an aggregation.
enum Made {
    Weights(Digest),
    /// An update is not there any more.
    Lost(Participant),
}

/// Of the system's generator: nobody is to take noise off again.
fn random() -> u64 {
    getrandom::u64().expect("the system has random numbers")
}
