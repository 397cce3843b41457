//! The state machine alone: what it answers to each event, and what it never does whatever comes.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use revoada_agent::{
    Action, Active, Agent, Counts, Event, Failure, Fault, Found, Health, Phase, Placed, Policy, Refusal, Report,
    ReportId, RunId, Slot, State, Step, StepId,
};
use revoada_core::{Digest, Timestamp};
use revoada_proto::{Deployable, Generation, Kind, Order};

use crate::device::policy;

const WALL: SystemTime = SystemTime::UNIX_EPOCH;
const HEALTHY: Health = Health { frames: 100, frames_per_second: 10.0, nonfinite: 0 };

/// An agent whose disk does what it is told, and what it wanted last.
struct Machine {
    agent: Agent,
    now: Timestamp,
    /// What the disk holds.
    disk: Found,
    disk_works: bool,
    step: Option<(StepId, Step, Kind, Placed)>,
    run: Option<(RunId, Active)>,
    runs: u32,
    report: Option<(ReportId, Report)>,
    /// How many actions of a step were seen.
    begun: Vec<Step>,
    cancelled: Vec<StepId>,
}

impl Machine {
    fn new(policy: Policy) -> Self {
        let mut machine = Self {
            agent: Agent::start(policy.clone(), 7, Found::default()),
            now: Timestamp::ZERO,
            disk: Found::default(),
            disk_works: true,
            step: None,
            run: None,
            runs: 0,
            report: None,
            begun: Vec::new(),
            cancelled: Vec::new(),
        };
        machine.handle(Event::Tick);
        machine
    }

    /// One that runs and has committed model 1 of generation 1.
    fn on_model_1() -> Self {
        Self::on_model_1_with(policy())
    }

    fn on_model_1_with(policy: Policy) -> Self {
        let mut machine = Self::new(policy);
        machine.order(1, 1);
        machine.pass_steps();
        machine.prove();
        assert_eq!((machine.agent.phase(), machine.model()), (Phase::Settled, Some(1)));
        machine
    }

    fn handle(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            for action in self.agent.handle(event, self.now) {
                assert_eq!(next, None, "something is to be done after what must be answered first: {action:?}");
                next = self.perform(action);
            }
        }
        assert!(self.agent.wake_at(self.now).is_none_or(|at| at > self.now), "it would be woken for nothing");
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Begin { id, step, kind, placed } => {
                assert_eq!(self.step, None, "two steps at a time");
                assert_ne!(self.disk.active.get(&kind).map(|it| it.slot), Some(placed.slot), "it is active");
                assert_eq!(self.disk.state.trial, None, "the other slot may be gone back to");
                self.step = Some((id, step, kind, placed));
                self.begun.push(step);
                None
            }
            Action::Cancel { id } => {
                self.cancelled.push(id);
                self.step.take_if(|(step, ..)| *step == id).expect("only a step that was begun is given up");
                None
            }
            Action::Save { .. } | Action::Activate { .. } if !self.disk_works => Some(Event::SaveFailed),
            Action::Save { state } => Some(self.save(state)),
            Action::Activate { state, slots, emptied } => {
                assert!(!slots.is_empty() || !emptied.is_empty());
                self.disk.active.retain(|kind, _| !emptied.contains(kind));
                self.disk.active.extend(slots);
                Some(self.save(state))
            }
            Action::Run { run, active } => {
                assert!(!active.is_empty());
                self.runs += 1;
                self.run = Some((run, active));
                None
            }
            Action::Stop => {
                self.run = None;
                None
            }
            Action::Report { id, report } => {
                self.report = Some((id, report));
                None
            }
        }
    }

    fn save(&mut self, state: State) -> Event {
        assert!(state.known >= self.disk.state.known, "the generation went back");
        assert!(state.trial.as_ref().is_none_or(|trial| !trial.previous.is_empty() && trial.starts >= 1));
        self.disk.state = state;
        Event::Saved
    }

    fn order(&mut self, generation: u64, model: u8) {
        self.handle(Event::Order { order: order(generation, model), expires_at: None, wall: WALL });
    }

    fn wait(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.handle(Event::Tick);
    }

    /// Waits until a step is begun.
    fn next_step(&mut self) -> (StepId, Step) {
        while self.step.is_none() {
            self.now = self.agent.wake_at(self.now).expect("something is waited for");
            self.handle(Event::Tick);
        }
        let (id, step, ..) = self.step.unwrap();
        (id, step)
    }

    fn done(&mut self) -> Step {
        let (id, step) = self.next_step();
        self.step = None;
        self.handle(Event::StepDone { id });
        step
    }

    fn fail(&mut self, fault: Fault) {
        let (id, _) = self.next_step();
        self.step = None;
        self.handle(Event::StepFailed { id, fault });
    }

    fn pass_steps(&mut self) {
        while self.done() != Step::Preflight {}
    }

    fn say(&mut self, health: Health) {
        let (run, _) = self.run.clone().expect("a pipeline runs");
        self.handle(Event::Healthy { run, health });
    }

    fn crash(&mut self, frames: u64) {
        let (run, _) = self.run.take().expect("a pipeline runs");
        self.handle(Event::Crashed { run, frames });
    }

    /// Is healthy until that is enough, as long as something runs.
    fn prove(&mut self) {
        for _ in 0..=6 {
            if self.run.is_some() {
                self.say(HEALTHY);
            }
            self.wait(Duration::from_secs(10));
        }
    }

    /// The number of the model that is active on disk.
    fn model(&self) -> Option<u8> {
        self.disk.active.get(&Kind::Model).map(|placed| placed.digest.as_bytes()[0])
    }

    fn counts(&self) -> Counts {
        self.agent.counts()
    }
}

fn order(generation: u64, model: u8) -> Order {
    let model = Deployable { kind: Kind::Model, digest: Digest::new([model; 32]) };
    Order { generation: Generation(generation), deployables: [model].into() }
}

#[test]
fn an_order_passes_every_step_and_a_trial() {
    let mut machine = Machine::on_model_1();
    machine.begun.clear();
    machine.order(2, 2);
    machine.pass_steps();
    assert_eq!(machine.begun, [Step::CheckRoom, Step::Fetch, Step::Verify, Step::Preflight]);
    assert_eq!((machine.agent.phase(), machine.model()), (Phase::Trial, Some(2)));
    assert_eq!(machine.run.as_ref().unwrap().1[&Kind::Model].slot, Slot::B);
    machine.prove();
    assert_eq!((machine.agent.phase(), machine.counts().commits), (Phase::Settled, 2));
}

#[test]
fn a_generation_that_is_not_higher_is_refused() {
    let mut machine = Machine::on_model_1();
    for generation in [1, 0] {
        machine.order(generation, 2);
        assert_eq!((machine.agent.phase(), machine.step), (Phase::Settled, None), "generation {generation}");
    }
    assert_eq!(machine.counts().orders_stale, 2);
    let (id, _) = machine.report.take().unwrap();
    machine.handle(Event::Reported { id });
    let report = machine.report.unwrap().1;
    assert_eq!(report.refused, Some((Generation(0), Refusal::Stale)), "the same one again is not worth a report");
}

#[test]
fn wall_time_decides_about_expiry_and_nothing_else() {
    let year = Duration::from_secs(365 * 24 * 3600);
    let today = WALL + year * 50;
    let tomorrow = today + Duration::from_secs(24 * 3600);
    for (clock, wall, expires_at, is_accepted) in [
        ("right", today, Some(tomorrow), true),
        ("right, and the order late", tomorrow, Some(tomorrow), false),
        ("years slow", WALL, Some(tomorrow), true),
        ("years fast", today + year * 50, Some(tomorrow), false),
        ("years fast, and the order without a time", today + year * 50, None, true),
    ] {
        let mut machine = Machine::on_model_1();
        machine.handle(Event::Order { order: order(2, 2), expires_at, wall });
        assert_eq!(machine.disk.state.known == Generation(2), is_accepted, "the clock is {clock}");
        assert_eq!(machine.counts().orders_expired == 0, is_accepted, "the clock is {clock}");
    }
}

#[test]
fn what_the_server_does_not_have_is_not_asked_for_for_ever() {
    let mut machine = Machine::on_model_1();
    machine.begun.clear();
    machine.order(2, 2);
    while machine.agent.phase() != Phase::Failed(Failure::NotFound) {
        machine.fail(Fault::NotFound);
    }
    assert_eq!(machine.begun.len(), 6);
    machine.wait(Duration::from_secs(1_000_000));
    assert_eq!((machine.step, machine.model()), (None, Some(1)));
    machine.order(3, 3);
    machine.pass_steps();
    assert_eq!(machine.model(), Some(3), "the next order is not held up");
}

#[test]
fn steps_that_will_never_do_end_an_order() {
    for (fault, begun, failure) in [
        (Fault::Refused, 1, Failure::Refused),
        (Fault::Damaged, 3, Failure::Damaged),
        (Fault::NotFound, 6, Failure::NotFound),
    ] {
        let mut machine = Machine::on_model_1();
        machine.begun.clear();
        machine.order(2, 2);
        while !matches!(machine.agent.phase(), Phase::Failed(_)) {
            machine.fail(fault);
        }
        assert_eq!((machine.agent.phase(), machine.begun.len()), (Phase::Failed(failure), begun), "{fault:?}");
        assert_eq!((machine.model(), machine.runs), (Some(1), 1), "the pipeline runs on");
    }
}

#[test]
fn weeks_without_a_network_are_waited_out() {
    let mut machine = Machine::on_model_1();
    machine.order(2, 2);
    let weeks = Duration::from_secs(6 * 7 * 24 * 3600);
    let begun = machine.now;
    while machine.now.since(begun) < weeks {
        machine.fail(Fault::Passing);
    }
    assert_eq!(machine.agent.phase(), Phase::Waiting(Fault::Passing, Kind::Model));
    machine.handle(Event::Connected);
    assert!(machine.step.is_some(), "back at once");
    machine.pass_steps();
    machine.prove();
    assert_eq!((machine.agent.phase(), machine.model()), (Phase::Settled, Some(2)));
}

#[test]
fn a_stuck_step_is_given_up_and_does_not_hold_up_a_newer_order() {
    let mut machine = Machine::on_model_1();
    machine.order(2, 2);
    while machine.done() != Step::Verify {}
    for _ in 0..2 {
        let (stuck, step) = machine.next_step();
        assert_eq!(step, Step::Preflight);
        machine.wait(policy().preflight_time_max);
        assert!(machine.cancelled.contains(&stuck));
        machine.handle(Event::StepDone { id: stuck });
        assert_eq!(machine.model(), Some(1), "what was given up comes too late");
    }
    assert_eq!(machine.agent.phase(), Phase::Failed(Failure::TimedOut));

    machine.order(3, 3);
    let (stuck, _) = machine.next_step();
    machine.order(4, 4);
    assert!(machine.cancelled.contains(&stuck));
    machine.pass_steps();
    assert_eq!(machine.model(), Some(4));
}

#[test]
fn a_slow_fetch_that_goes_on_is_not_stuck() {
    let mut machine = Machine::on_model_1();
    machine.order(2, 2);
    machine.done();
    let (id, _) = machine.next_step();
    for _ in 0..1000 {
        machine.wait(policy().fetch_silence_max - Duration::from_secs(1));
        machine.handle(Event::StepProgress { id });
    }
    assert_eq!(machine.cancelled, []);
    machine.wait(policy().fetch_silence_max);
    assert_eq!(machine.cancelled, [id]);
}

#[test]
fn an_order_for_the_same_does_not_begin_anew() {
    let mut machine = Machine::on_model_1();
    machine.order(2, 2);
    machine.done();
    let (fetch, _) = machine.next_step();
    machine.order(3, 2);
    assert_eq!((machine.cancelled.as_slice(), machine.step.unwrap().0), ([].as_slice(), fetch));
    machine.pass_steps();
    machine.order(4, 2);
    assert_eq!((machine.agent.phase(), machine.disk.state.known), (Phase::Trial, Generation(4)));
    machine.prove();
    assert_eq!((machine.agent.phase(), machine.runs), (Phase::Settled, 2), "the trial went on");
}

#[test]
fn an_order_for_something_else_ends_a_trial() {
    let mut machine = Machine::on_model_1();
    machine.order(2, 2);
    machine.pass_steps();
    machine.order(3, 3);
    assert_eq!(machine.model(), Some(1), "the slot of what was before is needed no longer once it is active again");
    machine.pass_steps();
    machine.prove();
    assert_eq!((machine.agent.phase(), machine.model()), (Phase::Settled, Some(3)));
}

#[test]
fn what_an_order_does_not_name_stays_as_it_is_even_on_trial() {
    let mut machine = Machine::on_model_1();
    machine.order(2, 2);
    machine.pass_steps();
    let pipeline = Deployable { kind: Kind::Pipeline, digest: Digest::new([9; 32]) };
    let order = Order { generation: Generation(3), deployables: [pipeline].into() };
    machine.begun.clear();
    machine.handle(Event::Order { order, expires_at: None, wall: WALL });
    while machine.agent.phase() != Phase::Trial {
        machine.done();
    }
    assert_eq!(machine.begun[..3], [Step::Verify, Step::Preflight, Step::CheckRoom], "the model is there already");
    machine.prove();
    assert_eq!((machine.model(), machine.disk.active[&Kind::Pipeline].digest), (Some(2), pipeline.digest));
}

#[test]
fn what_fails_its_trial_is_rolled_back() {
    type Happens = fn(&mut Machine);
    let table: [(&str, Failure, Happens); 5] = [
        ("crash at load", Failure::CrashedAtLoad, |machine| machine.crash(0)),
        ("crash at a frame, again and again", Failure::CrashLoop, |machine| {
            for _ in 0..3 {
                machine.say(HEALTHY);
                machine.crash(50);
                machine.wait(policy().retry_max);
            }
        }),
        ("no numbers", Failure::NonFinite, |machine| machine.say(Health { nonfinite: 1, ..HEALTHY })),
        ("too slow", Failure::Unhealthy, |machine| {
            for _ in 0..30 {
                machine.say(Health { frames_per_second: 4.9, ..HEALTHY });
                machine.wait(Duration::from_secs(10));
            }
        }),
        ("silent", Failure::Unhealthy, |machine| {
            machine.say(HEALTHY);
            machine.wait(policy().trial_time_max);
        }),
    ];
    for (name, failure, happens) in table {
        let mut machine = Machine::on_model_1_with(Policy { fps_min: Some(5.0), ..policy() });
        machine.order(2, 2);
        machine.pass_steps();
        assert_eq!(machine.model(), Some(2), "{name}");
        happens(&mut machine);
        assert_eq!((machine.agent.phase(), machine.model()), (Phase::Failed(failure), Some(1)), "{name}");
        assert_eq!(machine.run.as_ref().unwrap().1, machine.disk.active, "{name}");
        assert!(failure.is_rollback());
        assert_eq!((machine.counts().rollbacks, machine.disk.state.known), (1, Generation(2)), "{name}");
    }
}

#[test]
fn silence_does_not_count_as_health() {
    let mut machine = Machine::on_model_1();
    machine.order(2, 2);
    machine.pass_steps();
    machine.say(HEALTHY);
    machine.wait(policy().healthy_for);
    machine.say(HEALTHY);
    assert_eq!(machine.agent.phase(), Phase::Trial);
}

#[test]
fn what_is_committed_is_started_again_and_never_rolled_back() {
    let mut machine = Machine::on_model_1();
    machine.order(2, 2);
    machine.pass_steps();
    machine.prove();
    for crash in 0..50 {
        machine.crash(0);
        assert_eq!(machine.run, None, "not at once");
        machine.wait(policy().retry_max);
        assert!(machine.run.is_some(), "crash {crash}");
    }
    assert_eq!((machine.model(), machine.counts().rollbacks), (Some(2), 0));
}

#[test]
fn a_report_that_fails_changes_nothing_but_when_it_is_sent_again() {
    let mut machine = Machine::on_model_1();
    machine.order(2, 2);
    machine.pass_steps();
    machine.prove();
    for _ in 0..100 {
        while machine.report.is_none() {
            machine.now = machine.agent.wake_at(machine.now).unwrap();
            machine.handle(Event::Tick);
        }
        let (id, _) = machine.report.take().unwrap();
        machine.handle(Event::ReportFailed { id });
    }
    assert_eq!((machine.agent.phase(), machine.model(), machine.runs), (Phase::Settled, Some(2), 2));
    machine.handle(Event::Connected);
    let (id, report) = machine.report.take().unwrap();
    assert_eq!((report.known, report.phase), (Generation(2), Phase::Settled));
    machine.handle(Event::Reported { id });
    assert_eq!(machine.agent.wake_at(machine.now), None, "the server knows, and there is nothing to do");
}

#[test]
fn going_back_does_not_wait_for_a_disk_that_takes_nothing() {
    let mut machine = Machine::on_model_1();
    machine.order(2, 2);
    machine.pass_steps();
    machine.disk_works = false;
    machine.crash(0);
    assert_eq!(machine.run.as_ref().unwrap().1[&Kind::Model].digest, Digest::new([1; 32]), "the old one runs");
    assert_eq!((machine.agent.phase(), machine.model()), (Phase::Unsaved, Some(2)));
    machine.disk_works = true;
    machine.wait(policy().retry_max);
    assert_eq!((machine.agent.phase(), machine.model()), (Phase::Failed(Failure::CrashedAtLoad), Some(1)));
}

#[test]
fn nothing_is_begun_for_an_order_that_is_not_durable() {
    let mut machine = Machine::on_model_1();
    machine.disk_works = false;
    machine.order(2, 2);
    machine.order(3, 3);
    machine.order(4, 4);
    assert_eq!((machine.step, machine.agent.known()), (None, Generation(1)));
    assert_eq!(machine.counts().orders_superseded, 2);
    machine.disk_works = true;
    machine.wait(policy().retry_max);
    assert_eq!((machine.step.unwrap().3.digest, machine.agent.known()), (Digest::new([4; 32]), Generation(4)));
}

#[test]
fn a_damaged_slot_is_not_filled_while_the_disk_holds_it_to_be_active() {
    let mut machine = Machine::on_model_1();
    machine.disk_works = false;
    let (_, active) = machine.run.take().unwrap();
    machine.handle(Event::SlotDamaged { kind: Kind::Model, placed: active[&Kind::Model] });
    machine.wait(Duration::from_secs(1000));
    assert_eq!((machine.step, machine.model()), (None, Some(1)));
    machine.disk_works = true;
    machine.wait(policy().retry_max);
    assert_eq!(machine.step.unwrap().1, Step::CheckRoom);
}

/// Anything that can happen.
#[derive(Clone, Debug)]
enum Happens {
    Waits(u64),
    Connects,
    Orders { generation: u64, model: Option<u8>, pipeline: Option<u8> },
    StepIsDone,
    StepFails(Fault),
    DiskWorks(bool),
    Says { frames: u64, nonfinite: u64 },
    StaysHealthy,
    Crashes(u64),
    ReportArrives(bool),
    SlotIsDamaged,
    Restarts,
}

fn happens() -> impl Strategy<Value = Happens> {
    use Happens::*;
    let faults =
        prop::sample::select(vec![Fault::NotFound, Fault::Passing, Fault::NoRoom, Fault::Damaged, Fault::Refused]);
    prop_oneof![
        6 => (0u64..120).prop_map(Waits),
        1 => Just(Connects),
        3 => (0u64..12, prop::option::of(1u8..5), prop::option::of(1u8..4))
            .prop_map(|(generation, model, pipeline)| Orders { generation, model, pipeline }),
        12 => Just(StepIsDone),
        2 => Just(StaysHealthy),
        2 => faults.prop_map(StepFails),
        2 => prop::bool::weighted(0.7).prop_map(DiskWorks),
        6 => (0u64..100, prop::sample::select(vec![0, 0, 0, 0, 0, 1])).prop_map(|(frames, nonfinite)| Says { frames, nonfinite }),
        2 => (0u64..3).prop_map(Crashes),
        3 => any::<bool>().prop_map(ReportArrives),
        1 => Just(SlotIsDamaged),
        1 => Just(Restarts),
    ]
}

impl Machine {
    fn let_happen(&mut self, happens: Happens) {
        match happens {
            Happens::Waits(seconds) => self.wait(Duration::from_secs(seconds)),
            Happens::Connects => self.handle(Event::Connected),
            Happens::Orders { generation, model, pipeline } => {
                let deployable = |kind, number: u8| Deployable { kind, digest: Digest::new([number; 32]) };
                let model = model.map(|number| deployable(Kind::Model, number));
                let pipeline = pipeline.map(|number| deployable(Kind::Pipeline, number + 100));
                let deployables = model.into_iter().chain(pipeline).collect();
                let order = Order { generation: Generation(generation), deployables };
                self.handle(Event::Order { order, expires_at: None, wall: WALL });
            }
            Happens::StepIsDone => {
                if let Some((id, step, kind, placed)) = self.step.take() {
                    if step == Step::Fetch {
                        self.disk.contents.insert((kind, placed.slot), placed.digest);
                    }
                    self.handle(Event::StepDone { id });
                }
            }
            Happens::StepFails(fault) => {
                if let Some((id, ..)) = self.step.take() {
                    self.handle(Event::StepFailed { id, fault });
                }
            }
            Happens::DiskWorks(works) => self.disk_works = works,
            Happens::Says { frames, nonfinite } if self.run.is_some() => {
                self.say(Health { frames, frames_per_second: 10.0, nonfinite });
            }
            Happens::StaysHealthy => self.prove(),
            Happens::Crashes(frames) if self.run.is_some() => self.crash(frames),
            Happens::Says { .. } | Happens::Crashes(_) => {}
            Happens::ReportArrives(arrives) => self.answer_report(arrives),
            Happens::SlotIsDamaged => {
                if let Some((_, active)) = self.run.take() {
                    let (kind, placed) = active.into_iter().next().unwrap();
                    self.disk.contents.remove(&(kind, placed.slot));
                    self.handle(Event::SlotDamaged { kind, placed });
                }
            }
            Happens::Restarts => {
                self.agent = Agent::start(policy(), 7, self.disk.clone());
                (self.step, self.run, self.report) = (None, None, None);
                self.handle(Event::Tick);
            }
        }
    }

    /// Whether it arrives or not, nothing else depends on it.
    fn answer_report(&mut self, arrives: bool) {
        let Some((id, _)) = self.report.take() else { return };
        let before = (self.disk.clone(), self.run.clone(), self.agent.state().clone());
        self.handle(if arrives { Event::Reported { id } } else { Event::ReportFailed { id } });
        assert_eq!((self.disk.clone(), self.run.clone(), self.agent.state().clone()), before);
    }

    /// Whatever has happened: once nothing goes wrong any more, the next order is followed.
    fn check_recovery(&mut self) {
        self.disk_works = true;
        self.order(100, 50);
        for _ in 0..1000 {
            if self.agent.phase() == Phase::Settled {
                break;
            }
            if self.step.is_some() {
                self.let_happen(Happens::StepIsDone);
            } else if self.run.is_some() {
                self.say(HEALTHY);
            }
            self.wait(Duration::from_secs(5));
        }
        assert_eq!((self.agent.phase(), self.model()), (Phase::Settled, Some(50)), "{:?}", self.agent);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_the_next_order_is_followed(story in prop::collection::vec(happens(), 0..120)) {
        let mut machine = Machine::new(policy());
        for happens in story {
            let (known, active, trial) =
                (machine.agent.known(), machine.agent.active().clone(), machine.agent.state().trial.clone());
            // A restart goes back to what the disk has.
            let is_excused = matches!(happens, Happens::SlotIsDamaged | Happens::Restarts);
            machine.let_happen(happens);

            prop_assert!(machine.agent.known() >= known);
            prop_assert_eq!(machine.agent.known(), machine.disk.state.known);
            // What is active changes by flips and by steps back from a trial, and by nothing else.
            let flipped = machine.agent.state().trial.is_some();
            if *machine.agent.active() != active && !is_excused && !flipped {
                prop_assert!(trial.is_some(), "what was committed is no longer active");
            }
            // What is to run runs, or its start has a time.
            let runs = machine.run.as_ref().map(|(_, active)| active) == Some(machine.agent.active());
            let is_empty = machine.agent.active().is_empty();
            prop_assert!(is_empty || runs || machine.agent.wake_at(machine.now).is_some());
        }
        machine.check_recovery();
    }
}
