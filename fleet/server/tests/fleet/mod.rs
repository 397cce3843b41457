//! A small fleet for tests: its devices say what the test has them say.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use revoada_core::{Digest, Timestamp};
use revoada_fleet::planner::{
    Blueprint, Gate, Intent, Limits, Measure, Observations, Percent, Planned, Policy, Retry, Rollout, RolloutId, Size,
    Wave, plan,
};
use revoada_fleet::{Device, Inventory};
use revoada_proto::{Blame, Deployable, DeviceId, Figures, Generation, Kind, Progress, Report};

pub(crate) fn minutes(minutes: u64) -> Duration {
    Duration::from_mins(minutes)
}

pub(crate) fn count(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).expect("tests count from 1")
}

pub(crate) fn percent(percent: u8) -> Percent {
    Percent::new(percent).expect("tests stay below 100")
}

pub(crate) fn model(version: u8) -> Deployable {
    Deployable { kind: Kind::Model, digest: Digest::new([version; 32]) }
}

pub(crate) fn device(name: &str) -> DeviceId {
    name.parse().expect("a test's device has a right name")
}

pub(crate) fn limits() -> Limits {
    Limits {
        in_flight_max: count(100),
        orders_per_minute_max: count(1000),
        away_after: minutes(10),
        answer_timeout: minutes(30),
    }
}

pub(crate) fn gate(measure: Measure, breaches_max: u8, samples_min: u32) -> Gate {
    Gate { measure, breaches_max: percent(breaches_max), samples_min: count(samples_min), over_min: minutes(5) }
}

pub(crate) fn wave(size: Size) -> Wave {
    Wave { size, done: percent(100), timeout: minutes(120), soak: minutes(20) }
}

/// Two devices, half of them, all.
pub(crate) fn waves() -> Vec<Wave> {
    let share = |share| wave(Size::Share(percent(share)));
    vec![wave(Size::Devices(2)), share(50), share(100)]
}

pub(crate) fn rollout(deployable: Deployable) -> Rollout {
    Rollout {
        deployable,
        filter: "all".parse().expect("this is a filter"),
        waves: waves(),
        gates: vec![gate(Measure::Outcome, 20, 2)],
        retry: Retry { attempts_max: count(3), delay: minutes(2), delay_max: minutes(10) },
        intent: Intent::Run,
    }
}

pub(crate) fn figures(fps: f64) -> Figures {
    Figures { over: minutes(10), fps: Some(fps), latency_ms: Some(1000.0 / fps), ..Figures::default() }
}

/// Plans, and sees that this is repeatable and leaves nothing to plan.
pub(crate) fn plan_checked(
    policy: &Policy,
    inventory: &Inventory,
    observations: &Observations,
    current: &Blueprint,
    now: Timestamp,
) -> Planned {
    let planned = plan(policy, inventory, observations, current, now);
    assert!(planned == plan(policy, inventory, observations, current, now), "planning twice differs:\n{planned}");
    if let Some(next) = &planned.blueprint {
        let again = plan(policy, inventory, observations, next, now);
        assert!(again.blueprint.is_none() && again.decisions.is_empty(), "after\n{planned}\nthere is still\n{again}");
        assert_eq!((again.status, again.deferred), (planned.status.clone(), planned.deferred));
    }
    planned
}

pub(crate) struct World {
    pub(crate) policy: Policy,
    pub(crate) inventory: Inventory,
    pub(crate) observations: Observations,
    pub(crate) blueprint: Blueprint,
    pub(crate) now: Timestamp,
    /// Devices that are not heard of.
    pub(crate) away: Vec<&'static str>,
    /// What was planned, for people.
    pub(crate) story: String,
    sequence: u64,
    rollouts: u64,
}

impl World {
    /// `cam-01` and so on, each running model 1 at 25 frames a second.
    pub(crate) fn new(devices: usize) -> Self {
        let names = (1..=devices).map(|number| device(&format!("cam-{number:02}")));
        let mut world = Self {
            policy: Policy::new(limits(), 7),
            inventory: Inventory { devices: names.map(|name| (name, Device::default())).collect() },
            observations: Observations::default(),
            blueprint: Blueprint::default(),
            now: Timestamp::ZERO,
            away: Vec::new(),
            story: String::new(),
            sequence: 0,
            rollouts: 0,
        };
        let names: Vec<DeviceId> = world.inventory.devices.keys().cloned().collect();
        for name in names {
            world.report(name.as_str(), Generation(0), Progress::Done, [model(1)], figures(25.0));
        }
        world.pass(0);
        world
    }

    pub(crate) fn add(&mut self, rollout: Rollout) -> RolloutId {
        self.rollouts += 1;
        self.policy.add(RolloutId(self.rollouts), rollout).expect("a test's rollout is right");
        RolloutId(self.rollouts)
    }

    /// Lets time pass; devices that are not away are heard of then.
    pub(crate) fn pass(&mut self, passed: u64) {
        self.now = self.now + minutes(passed);
        for (name, device) in &mut self.inventory.devices {
            if !self.away.contains(&name.as_str()) {
                device.seen = Some(self.now);
            }
        }
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.story.push_str(&format!("# {text}\n"));
    }

    pub(crate) fn plan(&mut self) -> Planned {
        let planned = plan_checked(&self.policy, &self.inventory, &self.observations, &self.blueprint, self.now);
        let seconds = self.now.as_nanos() / 1_000_000_000;
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        self.story.push_str(&format!("{hours}:{minutes:02}:{:02} {planned}", seconds % 60));
        if let Some(next) = &planned.blueprint {
            self.blueprint = next.clone();
        }
        planned
    }

    pub(crate) fn report(
        &mut self,
        name: &str,
        generation: Generation,
        progress: Progress,
        runs: impl IntoIterator<Item = Deployable>,
        figures: Figures,
    ) {
        self.sequence += 1;
        let known = self.observations.of(&device(name)).map(|report| report.running.clone());
        let mut running: BTreeMap<Kind, Digest> = known.unwrap_or_default();
        running.extend(runs.into_iter().map(|deployable| (deployable.kind, deployable.digest)));
        let report = Report { sequence: self.sequence, generation, progress, running, figures };
        self.observations.observe(device(name), report);
    }

    /// Those that are carrying out an order report that they have.
    pub(crate) fn all_done(&mut self, fps: f64) {
        let names: Vec<DeviceId> = self.blueprint.targets.keys().cloned().collect();
        for name in names {
            let order = self.blueprint.order(&name).expect("it has a target").clone();
            let is_new = self.observations.of(&name).is_none_or(|report| report.generation < order.generation);
            if is_new && !self.away.contains(&name.as_str()) {
                self.done(name.as_str(), fps);
            }
        }
    }

    /// A device reports that it has carried out its newest order.
    pub(crate) fn done(&mut self, name: &str, fps: f64) {
        let order = self.blueprint.order(&device(name)).expect("it was ordered something").clone();
        self.report(name, order.generation, Progress::Done, order.deployables, figures(fps));
    }

    /// A device reports that it could not, and still runs model `running`.
    pub(crate) fn failed(&mut self, name: &str, why: &str, blame: Blame, running: u8) {
        let generation = self.blueprint.order(&device(name)).expect("it was ordered something").generation;
        let progress = Progress::Failed { why: why.to_owned(), blame };
        self.report(name, generation, progress, [model(running)], figures(25.0));
    }

    /// Which devices have what order in flight.
    pub(crate) fn ordered(&self) -> Vec<String> {
        let generation = |name: &DeviceId| self.observations.of(name).map_or(Generation(0), |report| report.generation);
        let targets = self.blueprint.targets.iter();
        targets
            .filter(|(name, target)| target.order.generation > generation(name))
            .map(|(name, _)| name.to_string())
            .collect()
    }
}
