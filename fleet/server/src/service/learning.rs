//! Runs of learning, for people.

use std::collections::{BTreeMap, BTreeSet};

use revoada_federated::{Participant, Phase, Standing};

use revoada_core::{Digest, Timestamp};
use revoada_proto::{Channel, DeviceId, Dispatch, Invitation, Kind, Topic};

use super::{Change, Fleet, Principal, Result, RunForm, ServiceError, now, wall};
use crate::filter::Filter;
use crate::learning::{HeldWeights, LearningCounts, MemberRecord, Outcome, RoundRecord, RunId, RunIntent, RunPhase};
use crate::store::{Role, RunRecord};

impl Fleet {
    /// Adds a run, which begins as soon as it can.
    pub fn add_run(&self, by: &Principal, form: &RunForm) -> Result<RunId> {
        by.require(Role::Operator)?;
        let model = match &form.devices {
            Some(devices) => Some(self.version_digest(Kind::Model, &devices.model, &devices.version)?),
            None => None,
        };
        let plan = form.read(model).map_err(|error| ServiceError::Invalid(error.to_string()))?;
        let title = match form.title.trim() {
            "" => plan.recipe.strategy.name(),
            title => title,
        };
        let id = self.store.add_run(title, &plan, &by.actor, now())?;
        self.runs_changed(id);
        Ok(id)
    }

    pub fn intend_run(&self, by: &Principal, id: RunId, intent: RunIntent) -> Result<()> {
        by.require(Role::Operator)?;
        let record = self.store.run(id)?.ok_or_else(|| missing(id))?;
        if record.state.phase.is_over() {
            return Err(ServiceError::Conflict(format!("run {id} is {}, and stays so", record.state.phase.name())));
        }
        if record.intent == RunIntent::Stop && intent != RunIntent::Stop {
            return Err(ServiceError::Conflict(format!("run {id} was stopped, and stays so")));
        }
        self.store.set_run_intent(id, intent, &by.actor, now())?;
        self.runs_changed(id);
        Ok(())
    }

    /// Forgets a run that is over, and all that came of it.
    pub fn remove_run(&self, by: &Principal, id: RunId) -> Result<()> {
        by.require(Role::Operator)?;
        let record = self.store.run(id)?.ok_or_else(|| missing(id))?;
        if !record.state.phase.is_over() {
            return Err(ServiceError::Conflict(format!("run {id} is under way: stop it first")));
        }
        self.store.remove_run(id, &by.actor, now())?;
        self.runs_changed(id);
        Ok(())
    }

    fn runs_changed(&self, id: RunId) {
        self.announce(Change::Run { run: id.0 });
        self.board.wake();
    }

    /// The newest last.
    pub fn runs(&self, by: &Principal) -> Result<BTreeMap<RunId, RunRecord>> {
        by.require(Role::Viewer)?;
        Ok(self.store.runs()?)
    }

    pub fn run(&self, by: &Principal, id: RunId) -> Result<RunRecord> {
        by.require(Role::Viewer)?;
        self.store.run(id)?.ok_or_else(|| missing(id))
    }

    /// What a run that is under way learns from.
    pub(crate) fn weights_of(&self, id: RunId) -> Result<Option<HeldWeights>> {
        Ok(self.store.run(id)?.filter(|record| !record.state.phase.is_over()).and_then(|record| record.state.weights))
    }

    /// Which weights a round has made, or a run at last.
    pub fn learned_weights(&self, by: &Principal, id: RunId, round: Option<u64>) -> Result<Digest> {
        let Some(number) = round else {
            let weights = self.run(by, id)?.state.weights;
            let missing = || ServiceError::Missing { what: "weights", name: format!("of run {id}") };
            return weights.map(|held| held.digest).ok_or_else(missing);
        };
        let rounds = self.rounds(by, id)?;
        let made = rounds.iter().find(|round| round.head.number == number).and_then(|round| match round.head.phase {
            Phase::Finished { weights } => Some(weights),
            _ => None,
        });
        made.ok_or_else(|| ServiceError::Missing { what: "weights", name: format!("of round {number} of run {id}") })
    }

    /// From the first on.
    pub fn rounds(&self, by: &Principal, id: RunId) -> Result<Vec<RoundRecord>> {
        self.run(by, id)?;
        Ok(self.store.rounds(id)?)
    }

    /// Who takes part, or took.
    pub fn round_members(&self, by: &Principal, id: RunId, round: u64) -> Result<BTreeMap<Participant, MemberRecord>> {
        self.run(by, id)?;
        Ok(self.store.members(id, round)?)
    }

    /// Devices that a filter means and that are there.
    pub(crate) fn learners(&self, filter: &Filter) -> BTreeSet<Participant> {
        let (now, live) = (now(), self.live());
        let there = live.connected.keys().filter(|device| {
            live.inventory.devices.get(*device).is_some_and(|known| filter.matches(device, known, now))
        });
        there.map(learner).collect()
    }

    /// Asks a device to learn, where it is there.
    pub(crate) fn invite(&self, device: &DeviceId, invitation: Invitation, until: Timestamp) -> bool {
        if !self.live().connected.contains_key(device) {
            return false;
        }
        let (issued_at, expires_at) = (wall(now()), Some(wall(until)));
        let invitation = Dispatch { device: device.clone(), content: invitation, issued_at, expires_at };
        let signed = self.orders.sign_invitation(&invitation).encode();
        self.post.post(&Topic::new(device.clone(), Channel::Learn), signed);
        true
    }

    /// How many wait to learn, by how they came in.
    pub fn participant_counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::from([("join", 0), ("node", 0)]);
        for (_, door) in self.board.present() {
            *counts.entry(door.name()).or_default() += 1;
        }
        counts
    }

    /// Counts what has happened in rounds.
    pub(crate) fn count_learning(&self, more: LearningCounts) {
        self.count(|counts| counts.learning += more);
    }

    /// How many runs there are of each phase.
    pub fn run_counts(&self, by: &Principal) -> Result<BTreeMap<&'static str, u64>> {
        let mut counts = BTreeMap::new();
        for record in self.runs(by)?.values() {
            *counts.entry(record.state.phase.name()).or_default() += 1;
        }
        Ok(counts)
    }
}

/// A device, as it takes part.
pub(super) fn learner(device: &DeviceId) -> Participant {
    Participant(device.to_string())
}

fn missing(id: RunId) -> ServiceError {
    ServiceError::Missing { what: "run", name: id.to_string() }
}

impl RunRecord {
    /// How far it is, for people.
    pub fn status(&self) -> String {
        let (round, rounds) = (self.state.round, self.plan.rounds);
        match &self.state.phase {
            RunPhase::Waiting { why } => format!("after round {round} of {rounds}: {why}"),
            RunPhase::Learning => format!("round {round} of {rounds}"),
            RunPhase::Evaluating => format!("round {round} of {rounds} is evaluated"),
            RunPhase::Releasing => format!("after {round} rounds: whether it is better is found out"),
            RunPhase::Finished => match &self.state.outcome {
                None => format!("finished after {round} rounds"),
                Some(outcome) => format!("finished after {round} rounds: {}", outcome.said()),
            },
            RunPhase::Stopped => format!("stopped after {round} rounds"),
            RunPhase::Failed { why } => format!("failed in round {round}: {why}"),
        }
    }
}

impl Outcome {
    /// For people.
    fn said(&self) -> String {
        let share = |share: f64| format!("{:.1} %", share * 100.0);
        let better = match (self.accuracy_before, self.accuracy) {
            (Some(before), Some(after)) => format!("right about {}, before it was {}", share(after), share(before)),
            _ => "not compared".to_owned(),
        };
        let released = match (self.digest, self.rollout) {
            (Some(_), Some(rollout)) => Some(format!("rollout {rollout} has begun")),
            (Some(digest), None) => Some(format!("registered as {}", digest.short())),
            (None, _) => None,
        };
        let said = [Some(better), released, self.why.clone()];
        said.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

impl RoundRecord {
    /// A word, and why, where people ask.
    pub fn status(&self) -> (&'static str, Option<&str>) {
        match &self.head.phase {
            Phase::Collecting => ("collecting", None),
            Phase::Aggregating => ("aggregating", None),
            Phase::Finished { .. } => ("finished", None),
            Phase::CalledOff { why } => ("called-off", Some(why)),
        }
    }
}

impl MemberRecord {
    /// A word, and why, where people ask.
    pub fn status(&self) -> (&'static str, Option<&str>) {
        let refused = self.member.refused.as_deref();
        match &self.member.standing {
            Standing::Invited => ("invited", refused),
            Standing::Sent { .. } => ("sent", refused),
            Standing::Left { why } => ("left", Some(why)),
            Standing::SetAside => ("set-aside", refused),
        }
    }
}
