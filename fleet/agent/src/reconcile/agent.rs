//! The state machine.

use std::collections::BTreeMap;
use std::mem;
use std::time::SystemTime;

use revoada_core::{Digest, Timestamp};
use revoada_proto::{Generation, Kind, Order};

use super::deployment::{Current, Deployment, Next, time_max, wanted};
use super::policy::{Policy, Retry};
use super::supervision::Supervision;
use super::words::{Action, Counts, Event, Fault, Health, Phase, Refusal, Report, ReportId, RunId, Step, StepId};
use crate::state::{Active, Contents, Failure, Found, Placed, State, Trial};

/// Brings a device to its desired state, one event at a time.
///
/// The newest accepted order is the whole say: what an older one has begun is given up. Nothing is begun before the order is
/// durable, nothing is flipped to before all kinds that it names have passed every [`Step`], and all of them are
/// flipped to together. What was flipped to is on trial until it was healthy for as long as the
/// [policy](Policy) says, and until then the other slot keeps what was before. What is committed is never rolled back:
/// it is started again, however often it ends, whether or not there is a server.
///
/// Going back is done even where the disk does not take it: it is then tried again until it does.
#[derive(Debug)]
pub struct Agent {
    policy: Policy,
    seed: u64,
    /// What the agent acts upon; ahead of the disk by no more than a step back and a counted start.
    state: State,
    active: Active,
    contents: Contents,
    /// What the disk says.
    saved: (State, Active),
    writing: Option<Writing>,
    save_retry: Retry,
    /// The newest order, until it is durable.
    order: Option<Order>,
    deployment: Deployment,
    supervision: Supervision,
    reporting: Reporting,
    refused: Option<(Generation, Refusal)>,
    counts: Counts,
    /// Ids and draws given so far.
    drawn: u64,
}

/// What is being made durable.
#[derive(Debug)]
struct Writing {
    state: State,
    active: Active,
    meaning: Meaning,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Accept,
    Flip,
    Commit,
    /// What the agent acts upon already.
    Keep,
}

#[derive(Debug, Default)]
struct Reporting {
    delivered: Option<Report>,
    sent: Option<(ReportId, Report, Timestamp)>,
    retry: Retry,
}

impl Agent {
    /// An agent that knows what its disk says, after an orderly end as after a power cut, and has yet to handle its first
    /// event. The seed, which should differ from device to device, spreads what is tried again.
    pub fn start(policy: Policy, seed: u64, found: Found) -> Self {
        let Found { state, active, contents } = found;
        Self {
            policy,
            seed,
            saved: (state.clone(), active.clone()),
            state,
            active,
            contents,
            writing: None,
            save_retry: Retry::default(),
            order: None,
            deployment: Deployment::default(),
            supervision: Supervision::default(),
            reporting: Reporting::default(),
            refused: None,
            counts: Counts::default(),
            drawn: 0,
        }
    }

    /// What is to be done now, in this order. Where the last action is [`Action::Save`] or [`Action::Activate`], its
    /// answer must be the next event. `now` comes from a clock that never goes back and that nobody sets.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let is_answer = matches!(event, Event::Saved | Event::SaveFailed | Event::SlotDamaged { .. });
        assert!(is_answer || self.writing.is_none(), "what was saved is answered before anything else happens");
        let mut actions = Vec::new();
        match event {
            Event::Tick => {}
            Event::Connected => self.connected(),
            Event::Order { order, expires_at, wall } => self.hear_order(order, expires_at, wall),
            Event::StepProgress { id } => self.step_progress(id, now),
            Event::StepDone { id } => self.step_done(id),
            Event::StepFailed { id, fault } => self.step_failed(id, fault, now),
            Event::Saved => self.saved(&mut actions),
            Event::SaveFailed => self.save_failed(now),
            Event::SlotDamaged { kind, placed } => self.slot_damaged(kind, placed, now, &mut actions),
            Event::Healthy { run, health } => self.healthy(run, health, now),
            Event::Crashed { run, frames } => self.crashed(run, frames, now),
            Event::Reported { id } => self.reported(id),
            Event::ReportFailed { id } => self.report_failed(id, now),
        }
        self.advance(now, &mut actions);
        actions
    }

    /// When, after `now`, to [tick](Event::Tick) at the latest; `None` where only other events change anything.
    pub fn wake_at(&self, now: Timestamp) -> Option<Timestamp> {
        let trial = self.supervision.trial_began.filter(|_| self.state.trial.is_some() && !self.supervision.proven);
        [
            self.deployment.current.map(|current| current.deadline),
            self.deployment.retry.at(),
            self.save_retry.at(),
            self.supervision.restart.at().filter(|_| self.supervision.run.is_none()),
            trial.map(|began| began + self.policy.trial_time_max),
            self.reporting.sent.as_ref().map(|(_, _, deadline)| *deadline),
            self.reporting.retry.at(),
        ]
        .into_iter()
        .flatten()
        .filter(|at| *at > now)
        .min()
    }

    /// The generation that older orders are held against: the highest that was accepted.
    pub fn known(&self) -> Generation {
        self.state.known
    }

    /// What is to run now.
    pub fn active(&self) -> &Active {
        &self.active
    }

    /// The slots that hold something whole.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// What the agent does not forget.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What has happened since [`start`](Self::start).
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How far the last order has come.
    pub fn phase(&self) -> Phase {
        if self.save_retry.is_failing() {
            return Phase::Unsaved;
        }
        if self.state.trial.is_some() {
            return Phase::Trial;
        }
        if let Some(current) = self.deployment.current {
            return Phase::Working(current.step, current.kind);
        }
        match (self.next(), self.deployment.fault, self.state.failure) {
            (Next::Step(_, kind, _), Some(fault), _) => Phase::Waiting(fault, kind),
            (Next::Step(step, kind, _), None, _) => Phase::Working(step, kind),
            (Next::Ready, ..) => Phase::Trial,
            (Next::Nothing, _, Some(failure)) => Phase::Failed(failure),
            (Next::Nothing, _, None) => Phase::Settled,
        }
    }

    fn next(&self) -> Next {
        self.deployment.next(&self.state, &self.active, &self.contents)
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    // What events change.

    fn connected(&mut self) {
        self.deployment.retry.hurry();
        self.reporting.retry.hurry();
        self.reporting.delivered = None;
    }

    fn hear_order(&mut self, order: Order, expires_at: Option<SystemTime>, wall: SystemTime) {
        let known = self.order.as_ref().map_or(self.state.known, |waiting| waiting.generation.max(self.state.known));
        if order.generation <= known {
            self.counts.orders_stale += 1;
            // The same one again is how a message is delivered at least once.
            if order.generation < known {
                self.refused = Some((order.generation, Refusal::Stale));
            }
        } else if expires_at.is_some_and(|expires_at| expires_at <= wall) {
            self.counts.orders_expired += 1;
            self.refused = Some((order.generation, Refusal::Expired));
        } else if self.order.replace(order).is_some() {
            self.counts.orders_superseded += 1;
        }
    }

    fn step_progress(&mut self, id: StepId, now: Timestamp) {
        if let Some(current) = self.deployment.current.as_mut().filter(|current| current.id == id)
            && matches!(current.step, Step::CheckRoom | Step::Fetch)
        {
            current.deadline = now + time_max(current.step, &self.policy);
            self.deployment.retry.succeeded();
        }
    }

    fn step_done(&mut self, id: StepId) {
        let Some(current) = self.take_step(id) else { return };
        if current.step == Step::Fetch {
            self.contents.insert((current.kind, current.placed.slot), current.placed.digest);
        }
        self.deployment.passed(current);
    }

    fn step_failed(&mut self, id: StepId, fault: Fault, now: Timestamp) {
        let Some(current) = self.take_step(id) else { return };
        if fault == Fault::Damaged {
            self.contents.remove(&(current.kind, current.placed.slot));
        }
        let judged = self.deployment.failed(current.kind, fault, &self.policy);
        self.try_again_or_refuse(judged, now);
    }

    /// The step that is under way, where it is this one; it is no longer.
    fn take_step(&mut self, id: StepId) -> Option<Current> {
        self.deployment.current.take_if(|current| current.id == id)
    }

    fn try_again_or_refuse(&mut self, judged: Result<(), Failure>, now: Timestamp) {
        match judged {
            Ok(()) => {
                let draw = self.draw();
                self.counts.retries += 1;
                self.deployment.retry.failed(&self.policy, self.seed, draw, now);
            }
            Err(failure) => {
                self.deployment = Deployment::default();
                self.state.desired = digests(&self.active);
                self.state.failure = Some(failure);
            }
        }
    }

    fn saved(&mut self, actions: &mut Vec<Action>) {
        let Some(Writing { state, active, meaning }) = self.writing.take() else { return };
        self.save_retry.succeeded();
        let wants_the_same = state.desired == self.state.desired && active == self.active;
        self.state = state;
        if self.active != active {
            self.active = active;
            self.supervision.flipped(meaning == Meaning::Flip);
        }
        self.saved = (self.state.clone(), self.active.clone());
        match meaning {
            Meaning::Accept => {
                self.counts.orders_accepted += 1;
                self.order = None;
                if wants_the_same { self.deployment.renewed() } else { self.give_up_deployment(actions) }
            }
            Meaning::Flip => self.deployment = Deployment::default(),
            Meaning::Commit => {
                self.counts.commits += 1;
                self.supervision.proven = false;
                self.supervision.trial_began = None;
            }
            Meaning::Keep => {}
        }
    }

    fn give_up_deployment(&mut self, actions: &mut Vec<Action>) {
        let given_up = mem::take(&mut self.deployment);
        actions.extend(given_up.current.map(|current| Action::Cancel { id: current.id }));
    }

    fn save_failed(&mut self, now: Timestamp) {
        self.writing = None;
        self.counts.saves_failed += 1;
        let draw = self.draw();
        self.save_retry.failed(&self.policy, self.seed, draw, now);
    }

    /// Goes on with what is whole: back where a trial allows it, else the other slot, else nothing; what is lost is fetched
    /// again.
    fn slot_damaged(&mut self, kind: Kind, placed: Placed, now: Timestamp, actions: &mut Vec<Action>) {
        self.writing = None;
        self.counts.slots_damaged += 1;
        if self.contents.get(&(kind, placed.slot)) == Some(&placed.digest) {
            self.contents.remove(&(kind, placed.slot));
        }
        let is_active = self.active.get(&kind) == Some(&placed);
        if is_active && self.state.trial.is_some() {
            self.supervision.ended();
            return self.roll_back(Failure::SlotDamaged);
        }
        if is_active {
            self.supervision.ended();
            let slot = placed.slot.other();
            match self.contents.get(&(kind, slot)) {
                Some(digest) => self.active.insert(kind, Placed { slot, digest: *digest }),
                None => self.active.remove(&kind),
            };
            self.supervision.flipped(false);
            return self.give_up_deployment(actions);
        }
        if let Some(previous) = self.state.trial.as_mut().and_then(|trial| trial.previous.get_mut(&kind)) {
            *previous = None;
            return;
        }
        let judged = self.deployment.failed(kind, Fault::Damaged, &self.policy);
        self.try_again_or_refuse(judged, now);
    }

    fn healthy(&mut self, run: RunId, health: Health, now: Timestamp) {
        if !self.supervision.is(run) {
            return;
        }
        let is_proven = self.supervision.heard(health, &self.policy, now);
        if self.state.trial.is_none() {
            if is_proven {
                self.supervision.restart.succeeded();
            }
        } else if health.nonfinite > self.policy.nonfinite_max {
            self.roll_back(Failure::NonFinite);
        } else {
            self.supervision.proven = is_proven;
        }
    }

    fn crashed(&mut self, run: RunId, frames: u64, now: Timestamp) {
        if !self.supervision.is(run) {
            return;
        }
        self.counts.crashes += 1;
        self.supervision.ended();
        if self.state.trial.is_some() && frames == 0 {
            return self.roll_back(Failure::CrashedAtLoad);
        }
        let draw = self.draw();
        self.supervision.restart.failed(&self.policy, self.seed, draw, now);
    }

    fn roll_back(&mut self, failure: Failure) {
        let Some(trial) = self.state.trial.take() else { return };
        self.counts.rollbacks += 1;
        go_back(&mut self.active, &trial);
        // A slot that was found damaged meanwhile is not gone back to, so nothing of that kind is desired either.
        self.state.desired = digests(&self.active);
        self.state.failure = Some(failure);
        self.deployment = Deployment::default();
        self.supervision.flipped(false);
    }

    fn reported(&mut self, id: ReportId) {
        if let Some((_, report, _)) = self.reporting.sent.take_if(|(sent, ..)| *sent == id) {
            self.reporting.delivered = Some(report);
            self.reporting.retry.succeeded();
        }
    }

    fn report_failed(&mut self, id: ReportId, now: Timestamp) {
        if self.reporting.sent.take_if(|(sent, ..)| *sent == id).is_some() {
            self.counts.reports_failed += 1;
            let draw = self.draw();
            self.reporting.retry.failed(&self.policy, self.seed, draw, now);
        }
    }

    // What follows from how things are now.

    fn advance(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.run_out_of_time(now, actions);
        self.count_start(now);
        if let Some(write) = self.write(now) {
            actions.push(write);
            return;
        }
        self.run(now, actions);
        self.begin_step(now, actions);
        self.report(now, actions);
    }

    fn run_out_of_time(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if let Some(current) = self.deployment.current.take_if(|current| current.deadline <= now) {
            self.counts.timeouts += 1;
            actions.push(Action::Cancel { id: current.id });
            let judged = self.deployment.timed_out(current.step, &self.policy);
            self.try_again_or_refuse(judged, now);
        }
        let trial_ends = self.supervision.trial_began.map(|began| began + self.policy.trial_time_max);
        // One that only a full disk keeps from being committed has proven itself.
        if trial_ends.is_some_and(|ends| ends <= now) && !self.supervision.proven {
            self.roll_back(Failure::Unhealthy);
        }
        if let Some((id, ..)) = self.reporting.sent.as_ref().filter(|(_, _, deadline)| *deadline <= now) {
            self.report_failed(*id, now);
        }
    }

    /// A trial's start is noted before it is made, so that one that takes the device down counts too.
    fn count_start(&mut self, now: Timestamp) {
        if self.supervision.counted || !self.supervision.wants_start(&self.active, now) {
            return;
        }
        let Some(trial) = &mut self.state.trial else { return };
        if trial.starts < self.policy.starts_max {
            trial.starts += 1;
            self.supervision.counted = true;
        } else {
            self.roll_back(Failure::CrashLoop);
        }
    }

    fn write(&mut self, now: Timestamp) -> Option<Action> {
        if !self.save_retry.is_due(now) {
            return None;
        }
        let writing = self.writing.insert(self.next_write()?);
        let (state, before) = (writing.state.clone(), &self.saved.1);
        let slots: Active =
            writing.active.iter().filter(|(kind, to)| before.get(kind) != Some(to)).map(copied).collect();
        let emptied: Vec<Kind> = before.keys().filter(|kind| !writing.active.contains_key(kind)).copied().collect();
        Some(match slots.is_empty() && emptied.is_empty() {
            true => Action::Save { state },
            false => Action::Activate { state, slots, emptied },
        })
    }

    fn next_write(&self) -> Option<Writing> {
        let write = |state, active, meaning| Some(Writing { state, active, meaning });
        if let Some(order) = &self.order {
            let (state, active) = self.accept(order);
            return write(state, active, Meaning::Accept);
        }
        if !self.is_saved() {
            return write(self.state.clone(), self.active.clone(), Meaning::Keep);
        }
        if self.state.trial.is_some() {
            let state = State { trial: None, ..self.state.clone() };
            return if self.supervision.proven { write(state, self.active.clone(), Meaning::Commit) } else { None };
        }
        if self.next() != Next::Ready {
            return None;
        }
        let mut active = self.active.clone();
        let wanted = wanted(&self.state, &self.active, &self.contents);
        let previous = wanted.into_iter().map(|(kind, placed)| (kind, active.insert(kind, placed))).collect();
        let trial = Some(Trial { previous, starts: 1 });
        write(State { trial, ..self.state.clone() }, active, Meaning::Flip)
    }

    /// What follows from an order. One that wants what is on trial lets the trial go on; any other one ends it, since
    /// the slot that it needs is the one to go back to.
    fn accept(&self, order: &Order) -> (State, Active) {
        let mut active = self.active.clone();
        let mut desired = digests(&active);
        for kind in [Kind::Model, Kind::Pipeline, Kind::Package] {
            desired.extend(order.of(kind).map(|digest| (kind, digest)));
        }
        let trial = self.state.trial.clone().filter(|_| desired == digests(&active));
        if let (None, Some(ended)) = (&trial, &self.state.trial) {
            go_back(&mut active, ended);
        }
        (State { known: order.generation, desired, trial, failure: None }, active)
    }

    fn is_saved(&self) -> bool {
        (&self.state, &self.active) == (&self.saved.0, &self.saved.1)
    }

    fn run(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.active.is_empty() && self.supervision.run.is_some() {
            self.supervision.ended();
            actions.push(Action::Stop);
        } else if self.supervision.wants_start(&self.active, now) {
            let run = RunId(self.draw());
            actions.push(Action::Run { run, active: self.active.clone() });
            self.supervision.started(run, self.active.clone(), self.state.trial.is_some(), now);
        }
    }

    fn begin_step(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let deployment = &self.deployment;
        if !self.is_saved()
            || self.state.trial.is_some()
            || deployment.current.is_some()
            || !deployment.retry.is_due(now)
        {
            return;
        }
        let Next::Step(step, kind, placed) = self.next() else { return };
        let id = StepId(self.draw());
        if step == Step::CheckRoom {
            // From here on the slot is being emptied.
            self.contents.remove(&(kind, placed.slot));
        }
        let deadline = now + time_max(step, &self.policy);
        self.deployment.current = Some(Current { id, step, kind, placed, deadline });
        actions.push(Action::Begin { id, step, kind, placed });
    }

    /// Reports what the server does not know, one report at a time. Nothing else depends on whether it arrives.
    fn report(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.reporting.sent.is_some() || !self.reporting.retry.is_due(now) {
            return;
        }
        let (known, active) = (self.saved.0.known, digests(&self.saved.1));
        let report = Report { known, active, phase: self.phase(), refused: self.refused };
        if self.reporting.delivered.as_ref() == Some(&report) {
            return;
        }
        let id = ReportId(self.draw());
        self.reporting.sent = Some((id, report.clone(), now + self.policy.report_time_max));
        actions.push(Action::Report { id, report });
    }
}

/// What is called by its digest alone.
fn digests(active: &Active) -> BTreeMap<Kind, Digest> {
    active.iter().map(|(kind, placed)| (*kind, placed.digest)).collect()
}

fn copied((kind, placed): (&Kind, &Placed)) -> (Kind, Placed) {
    (*kind, *placed)
}

fn go_back(active: &mut Active, trial: &Trial) {
    for (kind, previous) in &trial.previous {
        match previous {
            Some(placed) => active.insert(*kind, *placed),
            None => active.remove(kind),
        };
    }
}
