//! A device with everything but sockets, processes and clocks: the agent, its slots, and a pipeline that is pretended.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use revoada_agent::{
    Action, Active, Agent, Event, Fault, Filling, Found, Health, Phase, Policy, Report, RunId, SlotError, Slots, State,
    Step, VerifiedSlot,
};
use revoada_core::{Digest, Timestamp};
use revoada_proto::{Generation, Kind, Order};
use tempfile::TempDir;

use crate::artefacts::{Artefacts, Behaviour};
use crate::lossy_disk::{Left, LossyDisk};

/// How often the pretended pipeline says how it is, and how fast it is.
const HEALTH_EVERY: Duration = Duration::from_secs(5);
const FRAMES_PER_SECOND: u64 = 10;
const ROUNDS_MAX: usize = 20_000;

pub(crate) fn policy() -> Policy {
    Policy {
        healthy_for: Duration::from_secs(60),
        health_silence_max: Duration::from_secs(15),
        trial_time_max: Duration::from_secs(300),
        retry_max: Duration::from_secs(60),
        ..Policy::default()
    }
}

/// A folder that is gone with its owner; in memory where the system has such a place, since nothing in it is to last.
pub(crate) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    folder.unwrap()
}

/// The power is cut: nothing that was in memory is left.
#[derive(Debug)]
pub(crate) struct PowerLost;

pub(crate) struct Device {
    pub(crate) disk: LossyDisk,
    pub(crate) agent: Agent,
    pub(crate) slots: Slots<LossyDisk>,
    pub(crate) now: Timestamp,
    /// What runs, since when, and how often the pipeline was started since the device was.
    pub(crate) running: Option<(RunId, Active, Timestamp)>,
    pub(crate) runs: u32,
    /// What the server was told last, and whether it hears anything.
    pub(crate) reported: Option<Report>,
    pub(crate) server_hears: bool,
    /// Every state and what was active with it, as the disk took them.
    pub(crate) saved: Vec<(State, Active)>,
    /// Causes of the steps that failed.
    pub(crate) errors: Vec<String>,
    events: VecDeque<Event>,
    folder: PathBuf,
    seed: u64,
}

impl Device {
    /// A new one in a folder below `parent`.
    pub(crate) fn new(parent: &Path, artefacts: &Artefacts, seed: u64) -> Self {
        let folder = parent.join("agent");
        std::fs::create_dir(&folder).unwrap();
        let disk = LossyDisk::new(&folder);
        let slots = Slots::open(disk.clone(), &folder, artefacts.trusted()).unwrap();
        Self {
            disk,
            agent: Agent::start(policy(), seed, slots.found().unwrap()),
            slots,
            now: Timestamp::ZERO,
            running: None,
            runs: 0,
            reported: None,
            server_hears: true,
            saved: Vec::new(),
            errors: Vec::new(),
            events: [Event::Tick].into(),
            folder,
            seed,
        }
    }

    /// Starts again from what is left on the disk, and holds that against what was on it. Power may be lost again.
    pub(crate) fn reboot(&mut self, left: Left, artefacts: &Artefacts) -> Result<(), PowerLost> {
        self.disk.reboot(left);
        self.restart(artefacts)
    }

    /// Starts again without a power cut.
    pub(crate) fn restart(&mut self, artefacts: &Artefacts) -> Result<(), PowerLost> {
        (self.now, self.running, self.runs) = (Timestamp::ZERO, None, 0);
        self.events = [Event::Tick].into();
        self.slots = Slots::open(self.disk.clone(), &self.folder, artefacts.trusted()).unwrap();
        if !self.disk.has_power() {
            return Err(PowerLost);
        }
        let found = self.slots.found().unwrap();
        self.check_found(&found);
        self.agent = Agent::start(policy(), self.seed, found);
        Ok(())
    }

    fn check_found(&self, found: &Found) {
        if let Some((state, _)) = self.saved.last() {
            assert!(found.state.known >= state.known, "the generation went back to {}", found.state.known);
        }
        for (kind, placed) in &found.active {
            self.slots.verify(*kind, *placed).unwrap_or_else(|error| panic!("what is active was lost: {error}"));
        }
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn order(&mut self, order: &Order) {
        let order = order.clone();
        self.push(Event::Order { order, expires_at: None, wall: SystemTime::UNIX_EPOCH });
    }

    /// What is active by digest, durably.
    pub(crate) fn digests(&self) -> BTreeMap<Kind, Digest> {
        self.slots.active().iter().map(|(kind, placed)| (*kind, placed.digest)).collect()
    }

    pub(crate) fn known(&self) -> Generation {
        self.agent.known()
    }

    /// Handles what has happened, without time passing.
    pub(crate) fn handle_all(&mut self, artefacts: &Artefacts) -> Result<(), PowerLost> {
        while let Some(event) = self.events.pop_front() {
            let actions = self.agent.handle(event, self.now);
            let writes = |action: &Action| matches!(action, Action::Save { .. } | Action::Activate { .. });
            let writing = actions.iter().position(writes);
            assert!(writing.is_none_or(|index| index + 1 == actions.len()), "{actions:?}");
            for action in actions {
                let answer = self.perform(action, artefacts);
                if !self.disk.has_power() {
                    return Err(PowerLost);
                }
                match answer {
                    Some(answer @ (Event::Saved | Event::SaveFailed | Event::SlotDamaged { .. })) => {
                        self.events.push_front(answer);
                    }
                    Some(answer) => self.events.push_back(answer),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Lets time pass until something happens; `false` where nothing ever will.
    pub(crate) fn pass_time(&mut self, artefacts: &Artefacts) -> bool {
        let health = self.running.is_some().then(|| self.now + HEALTH_EVERY);
        let Some(next) = health.into_iter().chain(self.agent.wake_at(self.now)).min() else { return false };
        self.now = next;
        let event = if Some(next) == health { self.pipeline_says(artefacts) } else { Event::Tick };
        self.push(event);
        true
    }

    fn pipeline_says(&mut self, artefacts: &Artefacts) -> Event {
        let (run, active, since) = self.running.clone().unwrap();
        let frames = self.now.since(since).as_secs() * FRAMES_PER_SECOND;
        let mut health = Health { frames, frames_per_second: FRAMES_PER_SECOND as f64, nonfinite: 0 };
        let mut crashed = None;
        for behaviour in behaviours(&active, artefacts) {
            match behaviour {
                Behaviour::Runs => {}
                Behaviour::FailsPreflight | Behaviour::IsMissing | Behaviour::IsAStrangers => {
                    panic!("what is never to be activated runs")
                }
                Behaviour::CrashesAtLoad => crashed = Some(0),
                Behaviour::CrashesAtFrame(frame) if frames >= frame => crashed = crashed.or(Some(frame)),
                Behaviour::CrashesMuchLater if frames >= 5000 => crashed = crashed.or(Some(frames)),
                Behaviour::CrashesAtFrame(_) | Behaviour::CrashesMuchLater => {}
                Behaviour::GivesNoNumbers => health.nonfinite = frames,
                Behaviour::Hangs => (health.frames, health.frames_per_second) = (0, 0.0),
            }
        }
        match crashed {
            None => Event::Healthy { run, health },
            Some(frames) => {
                self.running = None;
                Event::Crashed { run, frames }
            }
        }
    }

    /// Runs until an order of at least this generation has come to its end, one way or the other, and the server knows
    /// where it hears.
    pub(crate) fn run_to_end(&mut self, generation: Generation, artefacts: &Artefacts) -> Result<(), PowerLost> {
        for _ in 0..ROUNDS_MAX {
            self.handle_all(artefacts)?;
            let is_over = matches!(self.agent.phase(), Phase::Settled | Phase::Failed(_));
            let is_told = !self.server_hears
                || self.reported.as_ref().is_some_and(|report| {
                    report.known == self.known()
                        && report.phase == self.agent.phase()
                        && report.active == self.digests()
                });
            if is_over && is_told && self.known() >= generation {
                return Ok(());
            }
            assert!(self.pass_time(artefacts), "nothing happens any more: {:?}", self.agent);
        }
        panic!("generation {generation} never came to its end: {:?} {:?}", self.agent, self.errors);
    }

    fn perform(&mut self, action: Action, artefacts: &Artefacts) -> Option<Event> {
        match action {
            Action::Begin { id, step, kind, placed } => {
                let done = match step {
                    Step::CheckRoom => self.fill(kind, placed).and_then(|filling| check_room(&filling, artefacts)),
                    Step::Fetch => self.fill(kind, placed).and_then(|filling| fetch(filling, artefacts)),
                    Step::Verify => self.slots.verify(kind, placed).map(drop).map_err(Trouble::from),
                    Step::Preflight => match artefacts.behaviours[&placed.digest] {
                        Behaviour::FailsPreflight => Err(Trouble(Fault::Refused, "its pre-flight fails".to_owned())),
                        _ => Ok(()),
                    },
                };
                Some(match done {
                    Ok(()) => Event::StepDone { id },
                    Err(Trouble(fault, reason)) => {
                        self.errors.push(reason);
                        Event::StepFailed { id, fault }
                    }
                })
            }
            Action::Cancel { .. } => None,
            Action::Save { state } => {
                let saved = self.slots.save(&state);
                Some(self.answer(saved))
            }
            Action::Activate { state, slots, emptied } => Some(match self.verify_all(&slots) {
                Err(damaged) => damaged,
                Ok(verified) => {
                    let saved = self.slots.activate(&state, &verified, &emptied);
                    self.answer(saved)
                }
            }),
            Action::Run { run, active } => match self.verify_all(&active) {
                Err(damaged) => Some(damaged),
                Ok(_) => {
                    self.runs += 1;
                    self.running = Some((run, active, self.now));
                    None
                }
            },
            Action::Stop => {
                self.running = None;
                None
            }
            Action::Report { id, .. } if !self.server_hears => Some(Event::ReportFailed { id }),
            Action::Report { id, report } => {
                self.reported = Some(report);
                Some(Event::Reported { id })
            }
        }
    }

    fn fill(&mut self, kind: Kind, placed: revoada_agent::Placed) -> Result<Filling<LossyDisk>, Trouble> {
        self.slots.fill(kind, placed).map_err(Trouble::from)
    }

    fn verify_all(&self, slots: &Active) -> Result<Vec<VerifiedSlot>, Event> {
        let verify = |(kind, placed): (&Kind, &revoada_agent::Placed)| {
            self.slots.verify(*kind, *placed).map_err(|_| Event::SlotDamaged { kind: *kind, placed: *placed })
        };
        slots.iter().map(verify).collect()
    }

    fn answer(&mut self, saved: Result<(), SlotError>) -> Event {
        match saved {
            Ok(()) => {
                let found = self.slots.found().unwrap();
                self.saved.push((found.state, found.active));
                Event::Saved
            }
            Err(error) => {
                self.errors.push(error.to_string());
                Event::SaveFailed
            }
        }
    }
}

pub(crate) fn behaviours<'a>(active: &'a Active, artefacts: &'a Artefacts) -> impl Iterator<Item = Behaviour> + 'a {
    active.values().map(|placed| artefacts.behaviours[&placed.digest])
}

/// What a step failed of.
struct Trouble(Fault, String);

impl From<SlotError> for Trouble {
    fn from(error: SlotError) -> Self {
        Self(error.fault(), error.to_string())
    }
}

/// Fetches what says how much there is, and looks for room for it.
fn check_room(filling: &Filling<LossyDisk>, artefacts: &Artefacts) -> Result<(), Trouble> {
    while let Some(part) = filling.next()?.filter(|part| part.bytes.is_none()) {
        fetch_part(filling, &part, artefacts)?;
    }
    Ok(filling.check_room(1000, 0)?)
}

fn fetch(filling: Filling<LossyDisk>, artefacts: &Artefacts) -> Result<(), Trouble> {
    while let Some(part) = filling.next()? {
        fetch_part(&filling, &part, artefacts)?;
    }
    Ok(filling.finish()?)
}

fn fetch_part(filling: &Filling<LossyDisk>, part: &revoada_agent::Part, artefacts: &Artefacts) -> Result<(), Trouble> {
    let bytes = artefacts.get(part.source);
    let bytes = bytes.ok_or_else(|| Trouble(Fault::NotFound, format!("the server has no {:?}", part.source)))?;
    let rest = bytes.get(part.offset as usize..).unwrap_or_default();
    for chunk in rest.chunks(rest.len().div_ceil(2).max(1)) {
        filling.append(part, chunk)?;
    }
    Ok(filling.complete(part)?)
}
