//! After a round, how good the new weights are: by participants, and by the service's own pictures. After the last, what
//! becomes of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use revoada_core::Timestamp;
use revoada_federated::{Head, Participant};
use tracing::{info, warn};

use super::{Run, Stage};
use crate::learning::examiner::{Examined, Request};
use crate::learning::hall::Hall;
use crate::learning::plan::{Outcome, Participants, RoundRecord, RoundResult, RunIntent, RunPhase};
use crate::learning::report::{Tally, numbers};
use crate::learning::task::{Config, Reply, Value, Work};

/// After a round.
pub(super) struct Evaluating {
    head: Head,
    result: RoundResult,
    awaited: BTreeSet<Participant>,
    /// Whether the service's own pictures are still being looked at.
    awaits_examiner: bool,
    tally: Tally,
    until: Timestamp,
}

impl Run {
    /// Asks whoever can tell how good the new weights are.
    pub(super) fn evaluate(&mut self, hall: &mut Hall<'_>, head: Head, result: RoundResult) {
        self.wait("the next round has not begun");
        if self.intent == RunIntent::Stop {
            return;
        }
        let awaited = self.ask_participants(hall, head.number);
        let awaits_examiner = self.ask_examiner(hall, head.number);
        if awaited.is_empty() && !awaits_examiner {
            return;
        }
        let (tally, until) = (Tally::default(), hall.now + self.plan.round_time_max);
        self.stage = Stage::Evaluating(Box::new(Evaluating { head, result, awaited, awaits_examiner, tally, until }));
        self.set_phase(RunPhase::Evaluating);
    }

    /// Devices are not asked: they say with the next update how good the weights were that they were given.
    fn ask_participants(&self, hall: &mut Hall<'_>, round: u64) -> BTreeSet<Participant> {
        let Some(sheet) = self.sheet.clone().filter(|_| self.plan.evaluates && self.asks_flower()) else {
            return BTreeSet::new();
        };
        let mut config = Config::new();
        config.insert("server_round".to_owned(), Value::Integer(i64::try_from(round).unwrap_or(i64::MAX)));
        let mut awaited = hall.candidates(&self.plan.participants);
        awaited.retain(|participant| !self.state.set_aside.contains(participant));
        awaited.retain(|participant| {
            let work = Work::Evaluate { weights: Arc::clone(&sheet), config: config.clone() };
            let task = hall.task(self.id, round, work);
            hall.board.post(participant, task)
        });
        awaited
    }

    fn ask_examiner(&self, hall: &Hall<'_>, round: u64) -> bool {
        let (Some(set), Participants::Devices { head, .. }) = (&self.plan.pictures, &self.plan.participants) else {
            return false;
        };
        let Some(held) = &self.state.weights else { return false };
        let (run, set, model) = (self.id, set.clone(), head.model);
        hall.examiner.ask(Request::Judge { run, round, set, model, weights: held.clone() })
    }

    pub(super) fn is_evaluated(&self, now: Timestamp) -> bool {
        match &self.stage {
            Stage::Evaluating(it) => !it.awaits_examiner && (it.awaited.is_empty() || now > it.until),
            _ => false,
        }
    }

    pub(super) fn take_evaluation(&mut self, hall: &mut Hall<'_>, participant: &Participant, reply: Reply) -> bool {
        let Stage::Evaluating(evaluating) = &mut self.stage else { return false };
        if !evaluating.awaited.remove(participant) {
            return false;
        }
        if let Reply::Evaluate { loss, reported } = reply {
            let mut figures = numbers(&reported.metrics);
            figures.extend(loss.filter(|loss| loss.is_finite()).map(|loss| ("loss".to_owned(), loss)));
            evaluating.tally.add(reported.examples, &figures);
        }
        if self.is_evaluated(hall.now) {
            self.conclude(hall);
        }
        true
    }

    pub(super) fn is_evaluating(&self, round: u64) -> bool {
        matches!(&self.stage, Stage::Evaluating(evaluating) if evaluating.head.number == round)
    }

    pub(super) fn no_evaluation_of(&mut self, participant: &Participant) {
        if let Stage::Evaluating(evaluating) = &mut self.stage {
            evaluating.awaited.remove(participant);
        }
    }

    /// Takes in what the examiner has found.
    pub(in crate::learning) fn examined(&mut self, hall: &mut Hall<'_>, examined: Examined) {
        match (&mut self.stage, examined) {
            (Stage::Evaluating(evaluating), Examined::Judged { round, marks }) if evaluating.head.number == round => {
                evaluating.awaits_examiner = false;
                match marks {
                    Ok(marks) => evaluating.result.judged = marks.figures(),
                    Err(why) => {
                        warn!(run = %self.id, round, why, "weights were not judged");
                        evaluating.result.not_judged = Some(why);
                    }
                }
                if self.is_evaluated(hall.now) {
                    self.conclude(hall);
                }
            }
            (Stage::Releasing, Examined::Released(outcome)) => {
                info!(run = %self.id, ?outcome, "a run was decided about");
                self.state.outcome = Some(outcome);
                self.end(RunPhase::Finished);
            }
            // It was stopped meanwhile.
            _ => {}
        }
    }

    /// Notes how good the weights are.
    pub(super) fn conclude(&mut self, hall: &mut Hall<'_>) {
        let between = Stage::Between(hall.now + self.plan.pause);
        let Stage::Evaluating(evaluating) = std::mem::replace(&mut self.stage, between) else { return };
        let Evaluating { head, mut result, tally, .. } = *evaluating;
        result.evaluation = tally.mean();
        result.evaluated_by = tally.count();
        self.changes.rounds.push(RoundRecord { head, result });
        self.wait("the next round has not begun");
    }

    /// After the last round: has what was learned released, where that is wanted and was not done.
    pub(super) fn finish(&mut self, hall: &Hall<'_>) {
        if self.plan.release.is_none() || self.state.outcome.is_some() {
            return self.end(RunPhase::Finished);
        }
        if hall.examiner.ask(Request::Release { run: self.id }) {
            self.stage = Stage::Releasing;
            self.set_phase(RunPhase::Releasing);
        } else {
            self.state.outcome = Some(Outcome::not("the service stops"));
            self.end(RunPhase::Finished);
        }
    }
}
