//! Hundreds of virtual devices and days of their time, without a socket: devices take the newest order and refuse older ones,
//! install, fail, run slowly, restart, go away, and their reports are lost, late and doubled. The seed is printed;
//! `REVOADA_SEED=7 cargo test --package revoada-fleet --test simulation` replays it.

mod fleet;

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use fleet::{count, device, gate, limits, minutes, model, percent, rollout, wave};
use revoada_core::{Digest, Timestamp};
use revoada_fleet::planner::{
    Blueprint, Gate, Limits, Measure, Observations, Phase, Policy, Retry, Rollout, RolloutId, Size, Standing, Step,
    Wave, plan,
};
use revoada_fleet::{Device, Inventory};
use revoada_proto::{Blame, Deployable, DeviceId, Figures, Generation, Kind, Order, Progress, Report};

const TICK: Duration = Duration::from_mins(2);

/// How a version behaves.
#[derive(Clone, Copy)]
enum Nature {
    Good,
    Crashes,
    Slow,
    Hot,
    /// On half of the devices.
    CrashesOnWeak,
}

/// A device as simple as it can be and still be wrong.
struct Virtual {
    id: DeviceId,
    rng: Rng,
    generation: Generation,
    running: BTreeMap<Kind, Digest>,
    /// What is being installed, and until when.
    installing: Option<(Order, Timestamp)>,
    progress: Progress,
    since: Timestamp,
    restarts: u32,
    sequence: u64,
    away_until: Timestamp,
    /// Without a slow model.
    fps: f64,
    /// Whether [`Nature::CrashesOnWeak`] means it.
    is_weak: bool,
    /// Every change of what runs by an order, for the test.
    applied: Vec<Generation>,
}

impl Virtual {
    fn is_away(&self, now: Timestamp) -> bool {
        now < self.away_until
    }

    /// An order comes: the newest, an old one, or one again.
    fn hear(&mut self, order: &Order, now: Timestamp) {
        if order.generation <= self.generation {
            return;
        }
        self.generation = order.generation;
        self.progress = Progress::Working { what: String::new() };
        let takes = Duration::from_secs(60 * self.rng.u64(1..20));
        self.installing = Some((order.clone(), now + takes));
    }

    fn live(&mut self, natures: &BTreeMap<Digest, Nature>, now: Timestamp) {
        if self.is_away(now) {
            return;
        }
        match self.rng.u32(0..20_000) {
            0..10 => self.away_until = now + minutes(self.rng.u64(5..600)),
            // Power is lost: what was being installed begins again.
            10..40 => {
                self.restarts += 1;
                if let Some((_, until)) = &mut self.installing {
                    *until = now + minutes(self.rng.u64(1..20));
                }
            }
            _ => {}
        }
        let Some((order, _)) = self.installing.take_if(|(_, until)| *until <= now) else { return };
        if self.rng.f64() < 0.03 {
            let why = "cannot fetch: connection reset".to_owned();
            self.progress = Progress::Failed { why, blame: Blame::Device };
            return;
        }
        let natures_of_it = order.deployables.iter().filter_map(|deployable| natures.get(&deployable.digest));
        let crashes = natures_of_it.into_iter().any(|nature| match nature {
            Nature::Crashes => true,
            Nature::CrashesOnWeak => self.is_weak,
            Nature::Good | Nature::Slow | Nature::Hot => false,
        });
        if crashes {
            self.progress = Progress::Failed { why: "it crashed at frame 17".to_owned(), blame: Blame::Deployable };
            return;
        }
        self.running.extend(order.deployables.iter().map(|deployable| (deployable.kind, deployable.digest)));
        self.applied.push(order.generation);
        self.progress = Progress::Done;
        (self.since, self.restarts) = (now, 0);
    }

    fn report(&mut self, natures: &BTreeMap<Digest, Nature>, now: Timestamp) -> Report {
        self.sequence += 1;
        let has =
            |wanted: fn(&Nature) -> bool| self.running.values().filter_map(|digest| natures.get(digest)).any(wanted);
        let slow = if has(|nature| matches!(nature, Nature::Slow)) { 0.5 } else { 1.0 };
        let celsius = if has(|nature| matches!(nature, Nature::Hot)) { 95.0 } else { 60.0 };
        let fps = self.fps * slow * (0.97 + 0.06 * self.rng.f64());
        Report {
            sequence: self.sequence,
            generation: self.generation,
            progress: self.progress.clone(),
            running: self.running.clone(),
            figures: Figures {
                over: now.since(self.since),
                restarts: self.restarts,
                fps: Some(fps),
                latency_ms: Some(1000.0 / fps),
                agreement: Some(0.99),
                accuracy: Some(0.95),
                temperature_c: Some(celsius + 5.0 * self.rng.f64()),
                power_w: Some(12.5),
            },
        }
    }
}

struct Simulation {
    rng: Rng,
    devices: Vec<Virtual>,
    natures: BTreeMap<Digest, Nature>,
    policy: Policy,
    inventory: Inventory,
    observations: Observations,
    blueprint: Blueprint,
    now: Timestamp,
    /// Orders and reports on their way, by when they arrive.
    orders: Vec<(Timestamp, usize, Order)>,
    reports: Vec<(Timestamp, usize, Report)>,
    ordered: u64,
}

fn seed(default: u64) -> u64 {
    let seed = std::env::var("REVOADA_SEED").ok().map(|seed| seed.parse().expect("REVOADA_SEED is a number"));
    let seed = seed.unwrap_or(default);
    println!("REVOADA_SEED={seed}");
    seed
}

fn gates() -> Vec<Gate> {
    vec![
        gate(Measure::Outcome, 10, 5),
        gate(Measure::Fps { of_before_min: 0.8 }, 10, 5),
        gate(Measure::Latency { of_before_max: 1.3 }, 10, 5),
        gate(Measure::Temperature { celsius_max: 85.0 }, 10, 5),
        gate(Measure::Restarts { per_hour_max: 20.0 }, 10, 5),
        gate(Measure::Agreement { min: 0.9 }, 10, 5),
        gate(Measure::Accuracy { min: 0.9 }, 10, 5),
    ]
}

/// Ten canaries, a fifth, all.
fn staged(deployable: Deployable) -> Rollout {
    let wave = |size| Wave { done: percent(90), timeout: minutes(360), soak: minutes(60), ..wave(size) };
    let share = |share| wave(Size::Share(percent(share)));
    Rollout {
        waves: vec![wave(Size::Devices(10)), share(20), share(100)],
        gates: gates(),
        retry: Retry { attempts_max: count(8), delay: minutes(2), delay_max: minutes(60) },
        ..rollout(deployable)
    }
}

impl Simulation {
    fn new(devices: usize, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let limits =
            Limits { in_flight_max: count(60), orders_per_minute_max: count(40), away_after: minutes(15), ..limits() };
        let ids: Vec<DeviceId> = (0..devices).map(|index| device(&format!("cam-{index:03}"))).collect();
        let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
        let virtuals = ids.iter().map(|id| {
            let mut rng = rng.fork();
            // One of twenty is away for a week or two.
            let away_until = if rng.f64() < 0.05 { now + minutes(60 * 24 * rng.u64(7..15)) } else { now };
            Virtual {
                id: id.clone(),
                generation: Generation(0),
                running: BTreeMap::from([(Kind::Model, model(1).digest)]),
                installing: None,
                progress: Progress::Done,
                since: now,
                restarts: 0,
                sequence: 0,
                away_until,
                fps: rng.choice([10.0, 25.0, 30.0]).expect("there are three"),
                is_weak: rng.f64() < 0.5,
                applied: Vec::new(),
                rng,
            }
        });
        Self {
            devices: virtuals.collect(),
            natures: BTreeMap::new(),
            policy: Policy::new(limits, seed),
            inventory: Inventory { devices: ids.into_iter().map(|id| (id, Device::default())).collect() },
            observations: Observations::default(),
            blueprint: Blueprint::default(),
            now,
            orders: Vec::new(),
            reports: Vec::new(),
            ordered: 0,
            rng,
        }
    }

    fn version(&mut self, version: u8, nature: Nature) -> Deployable {
        self.natures.insert(model(version).digest, nature);
        model(version)
    }

    fn run(&mut self, hours: u64) {
        for _ in 0..hours * 30 {
            self.tick();
        }
    }

    fn run_until(&mut self, hours_max: u64, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..hours_max {
            if is_so(self) {
                return;
            }
            self.run(1);
        }
        let planned = plan(&self.policy, &self.inventory, &self.observations, &self.blueprint, self.now);
        panic!("not so after {hours_max} hours: {planned}");
    }

    fn tick(&mut self) {
        self.now = self.now + TICK;
        let now = self.now;
        for index in 0..self.devices.len() {
            self.devices[index].live(&self.natures, now);
            if self.devices[index].is_away(now) {
                continue;
            }
            // On every connect, and now and then: what is retained for it.
            if self.rng.f64() < 0.3
                && let Some(order) = self.blueprint.order(&self.devices[index].id).cloned()
            {
                self.send(index, order);
            }
            let report = self.devices[index].report(&self.natures, now);
            for _ in 0..self.rng.choice([0, 1, 1, 1, 1, 2]).expect("there are some") {
                let late = Duration::from_secs(self.rng.u64(0..600));
                self.reports.push((now + late, index, report.clone()));
            }
        }
        self.deliver();
        self.plan();
    }

    /// Lost, late or doubled.
    fn send(&mut self, index: usize, order: Order) {
        for _ in 0..self.rng.choice([0, 1, 1, 2]).expect("there are some") {
            let late = Duration::from_secs(self.rng.u64(0..3600));
            self.orders.push((self.now + late, index, order.clone()));
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let arrived = self.reports.extract_if(.., |(when, ..)| *when <= now);
        for (_, index, report) in arrived {
            let id = &self.devices[index].id;
            self.observations.observe(id.clone(), report);
            self.inventory.devices.get_mut(id).expect("it is enrolled").seen = Some(now);
        }
        for (_, index, order) in self.orders.extract_if(.., |(when, ..)| *when <= now) {
            if !self.devices[index].is_away(now) {
                self.devices[index].hear(&order, now);
            }
        }
    }

    fn plan(&mut self) {
        let planned = plan(&self.policy, &self.inventory, &self.observations, &self.blueprint, self.now);
        for decision in &planned.decisions {
            if !matches!(decision.step, Step::Order { .. } | Step::Reach | Step::Fail { .. }) {
                println!("{} {decision}", self.now);
            }
        }
        let Some(next) = planned.blueprint else { return };
        for index in 0..self.devices.len() {
            let id = &self.devices[index].id;
            let (was, is) = (self.blueprint.order(id), next.order(id));
            if let Some(order) = is.filter(|_| was != is).cloned() {
                self.ordered += 1;
                self.send(index, order);
            }
        }
        self.blueprint = next;
    }

    fn phase(&self, id: u64) -> Option<&Phase> {
        self.blueprint.rollouts.get(&RolloutId(id)).map(|state| &state.phase)
    }

    /// How many devices run a version.
    fn running(&self, version: u8) -> usize {
        self.devices.iter().filter(|device| device.running.get(&Kind::Model) == Some(&model(version).digest)).count()
    }

    fn nothing_is_applied_twice_or_out_of_order(&self) {
        for device in &self.devices {
            let generations = &device.applied;
            assert!(generations.windows(2).all(|pair| pair[0] < pair[1]), "{}: {generations:?}", device.id);
        }
    }

    /// Each device that is said to have what a finished rollout names has it, and each other one a reason. How many others
    /// there are.
    fn without(&self, id: u64, version: u8) -> usize {
        let state = &self.blueprint.rollouts[&RolloutId(id)];
        assert_eq!(state.members.len(), self.devices.len());
        let mut others = 0;
        for device in &self.devices {
            let member = &state.members[&device.id];
            let runs = device.running.get(&Kind::Model) == Some(&model(version).digest);
            match member.standing {
                Standing::Reached { .. } => assert!(runs, "{} is said to run model {version}", device.id),
                Standing::Waiting => {
                    others += 1;
                    let seen = self.inventory.devices[&device.id].seen;
                    let is_away = seen.is_none_or(|seen| self.now.since(seen) > self.policy.limits.away_after);
                    assert!(is_away, "{} waits for nothing", device.id);
                }
                _ => others += 1,
            }
        }
        others
    }
}

#[test]
fn a_good_version_ends_on_every_device() {
    for default in [1, 2, 3] {
        let mut fleet = Simulation::new(300, seed(default));
        fleet.run(2);
        let deployable = fleet.version(2, Nature::Good);
        fleet.policy.add(RolloutId(1), staged(deployable)).unwrap();
        fleet.run_until(96, |fleet| matches!(fleet.phase(1), Some(Phase::Finished { .. })));
        let without = fleet.without(1, 2);
        assert!(without <= 60, "{without} devices are without it as it finishes");
        // Those that are away for two weeks come back.
        fleet.run_until(24 * 20, |fleet| fleet.running(2) == 300);
        fleet.run(3);
        assert_eq!(fleet.without(1, 2), 0);
        let ordered = fleet.ordered;
        fleet.run(24);
        assert_eq!(fleet.ordered, ordered, "a fleet that has it is left alone");
        fleet.nothing_is_applied_twice_or_out_of_order();
    }
}

#[test]
fn a_bad_version_is_halted_at_the_canaries_and_goes_back_by_itself() {
    for (default, nature) in
        [(4, Nature::Crashes), (5, Nature::Slow), (6, Nature::Hot), (7, Nature::CrashesOnWeak), (8, Nature::Slow)]
    {
        let mut fleet = Simulation::new(300, seed(default));
        fleet.run(2);
        let deployable = fleet.version(2, nature);
        fleet.policy.add(RolloutId(1), staged(deployable)).unwrap();
        fleet.run_until(48, |fleet| matches!(fleet.phase(1), Some(Phase::Halted { .. })));
        let state = &fleet.blueprint.rollouts[&RolloutId(1)];
        let asked = state.members.iter().filter(|(_, member)| member.asked.is_some());
        let asked: Vec<DeviceId> = asked.map(|(id, _)| id.clone()).collect();
        assert!(asked.len() <= 10, "{} devices were ordered a bad version", asked.len());
        fleet.run_until(24 * 20, |fleet| fleet.running(1) == 300);
        fleet.run(24);
        assert_eq!(fleet.running(1), 300);
        for id in &asked {
            let order = fleet.blueprint.order(id).expect("it was ordered");
            assert_eq!(order.of(Kind::Model), Some(model(1).digest), "{id} is wanted back");
        }
        fleet.nothing_is_applied_twice_or_out_of_order();
    }
}

#[test]
fn a_version_that_supersedes_a_bad_one_ends_on_every_device() {
    let mut fleet = Simulation::new(200, seed(9));
    fleet.run(2);
    let (slow, good) = (fleet.version(2, Nature::Slow), fleet.version(3, Nature::Good));
    fleet.policy.add(RolloutId(1), staged(slow)).unwrap();
    fleet.run(1);
    fleet.policy.add(RolloutId(2), staged(good)).unwrap();
    fleet.run_until(24 * 20, |fleet| fleet.running(3) == 200);
    fleet.run(24);
    assert_eq!(fleet.running(3), 200);
    assert!(!matches!(fleet.phase(1), Some(Phase::Running { .. })), "{:?}", fleet.phase(1));
    assert_eq!(fleet.without(2, 3), 0);
    fleet.nothing_is_applied_twice_or_out_of_order();
}

#[test]
fn the_same_seed_gives_the_same_days() {
    let run = |seed| {
        let mut fleet = Simulation::new(60, seed);
        let deployable = fleet.version(2, Nature::CrashesOnWeak);
        fleet.policy.add(RolloutId(1), staged(deployable)).unwrap();
        fleet.run(24);
        fleet.blueprint
    };
    let seed = seed(10);
    assert!(run(seed) == run(seed));
}
