//! Devices and their server over a bad network, with bad models, bad power and full disks.
//!
//! Every run prints its seed; `REVOADA_SEED=7 cargo test -p revoada-agent simulation -- --nocapture` replays one.

use std::collections::BTreeMap;
use std::env;
use std::io::ErrorKind;

use fastrand::Rng;
use revoada_agent::{Event, Phase};
use revoada_core::Digest;
use revoada_proto::{Deployable, Generation, Kind, Order};

use crate::artefacts::{Artefacts, Behaviour};
use crate::device::{Device, PowerLost, behaviours, folder};
use crate::lossy_disk::{Left, Trouble};

const SEEDS: u64 = 300;
const TURNS: usize = 80;

struct World<'a> {
    rng: Rng,
    artefacts: &'a Artefacts,
    device: Device,
    /// Every order that was ever given, by generation.
    orders: Vec<Order>,
    /// Those under way, in no order.
    network: Vec<Order>,
    checked: usize,
    tally: &'a mut Tally,
}

/// What has happened over all runs, so that a simulation in which nothing happens is noticed.
#[derive(Debug, Default)]
struct Tally {
    reboots: u64,
    flips: u64,
    rollbacks: u64,
    commits: u64,
    stale: u64,
    saves_failed: u64,
    crashes: u64,
}

#[test]
fn in_the_end_a_device_runs_the_newest_good_order() {
    let mut artefacts = Artefacts::new();
    for behaviour in Behaviour::ALL {
        for name in ["one", "two"] {
            artefacts.make(Kind::Model, &format!("{behaviour:?} {name}"), behaviour);
        }
    }
    let mut pipelines = Vec::new();
    for behaviour in [Behaviour::Runs, Behaviour::Runs, Behaviour::Runs, Behaviour::CrashesAtLoad] {
        pipelines.push(artefacts.make(Kind::Pipeline, &format!("pipeline {}", pipelines.len()), behaviour));
    }
    let replayed = env::var("REVOADA_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = replayed.map_or(0..SEEDS, |seed| seed..seed + 1);
    let mut tally = Tally::default();
    for seed in seeds {
        println!("seed {seed}");
        let parent = folder();
        let device = Device::new(parent.path(), &artefacts, seed);
        let (orders, network) = (Vec::new(), Vec::new());
        let rng = Rng::with_seed(seed);
        World { rng, artefacts: &artefacts, device, orders, network, checked: 0, tally: &mut tally }.run();
    }
    println!("{tally:?}");
    if replayed.is_none() {
        let Tally { reboots, flips, rollbacks, commits, stale, saves_failed, crashes } = tally;
        let all = [reboots, flips, rollbacks, commits, stale, saves_failed, crashes];
        assert!(all.into_iter().all(|count| count > SEEDS / 4), "too little happens: {tally:?}");
    }
}

impl World<'_> {
    fn run(mut self) {
        for _ in 0..TURNS {
            self.turn();
        }
        self.calm_down();
    }

    fn turn(&mut self) {
        match self.rng.u8(0..100) {
            0..15 => self.give_order(),
            15..35 => self.deliver(),
            35..40 => drop(self.take_message()),
            40..43 => self.reboot(),
            43..50 => self.device.disk.trouble_after(self.rng.u64(0..40), Trouble::PowerLoss),
            50..55 => {
                let kind = if self.rng.bool() { ErrorKind::StorageFull } else { ErrorKind::Other };
                self.device.disk.trouble_after(self.rng.u64(0..40), Trouble::Fails(kind));
            }
            55..58 => self.device.disk.set_free_bytes(0),
            58..62 => self.device.disk.set_free_bytes(u64::MAX),
            62..65 => self.device.server_hears = !self.device.server_hears,
            65..68 => self.device.push(Event::Connected),
            _ => {
                for _ in 0..self.rng.u8(1..40) {
                    self.step();
                }
            }
        }
        self.step();
    }

    /// Handles what has happened and lets some time pass.
    fn step(&mut self) {
        let handled = self.device.handle_all(self.artefacts);
        self.check_saved();
        match handled {
            Err(PowerLost) => self.reboot(),
            Ok(()) => {
                self.device.pass_time(self.artefacts);
            }
        }
    }

    fn reboot(&mut self) {
        self.count();
        self.tally.reboots += 1;
        while self.device.reboot(self.rng.choice(Left::ALL).unwrap(), self.artefacts).is_err() {}
        if self.rng.u8(0..4) == 0 {
            self.device.disk.trouble_after(self.rng.u64(0..20), Trouble::PowerLoss);
        }
    }

    fn count(&mut self) {
        let counts = self.device.agent.counts();
        self.tally.rollbacks += counts.rollbacks;
        self.tally.commits += counts.commits;
        self.tally.stale += counts.orders_stale;
        self.tally.saves_failed += counts.saves_failed;
        self.tally.crashes += counts.crashes;
    }

    fn give_order(&mut self) {
        let mut deployables = Vec::new();
        for kind in [Kind::Model, Kind::Pipeline] {
            // Now and then an order names one kind alone.
            if self.rng.u8(0..5) > 0 {
                deployables.push(self.any_of(kind));
            }
        }
        self.give(deployables);
    }

    fn any_of(&mut self, kind: Kind) -> Deployable {
        let of_kind: Vec<_> = self.artefacts.all().filter(|(deployable, _)| deployable.kind == kind).collect();
        let good: Vec<_> = of_kind.iter().filter(|(_, behaviour)| behaviour.is_good()).collect();
        if self.rng.bool() { self.rng.choice(good).unwrap().0 } else { self.rng.choice(&of_kind).unwrap().0 }
    }

    fn give(&mut self, deployables: Vec<Deployable>) {
        let generation = Generation(self.orders.len() as u64 + 1);
        let order = Order { generation, deployables: deployables.into_iter().collect() };
        self.orders.push(order.clone());
        self.network.push(order);
    }

    fn take_message(&mut self) -> Option<Order> {
        let index = self.rng.usize(0..self.network.len().max(1));
        (index < self.network.len()).then(|| self.network.swap_remove(index))
    }

    /// Any message, and sometimes not for the last time.
    fn deliver(&mut self) {
        if let Some(order) = self.take_message() {
            self.device.order(&order);
            if self.rng.u8(0..3) == 0 {
                self.network.push(order);
            }
        }
    }

    /// Holds every state that the disk took against the orders that were given.
    fn check_saved(&mut self) {
        let mut known = self.checked.checked_sub(1).map_or(Generation(0), |last| self.device.saved[last].0.known);
        for (state, active) in &self.device.saved[self.checked..] {
            assert!(state.known >= known, "generation {} after {known}", state.known);
            known = state.known;
            if state.trial.as_ref().is_some_and(|trial| trial.starts == 1) {
                self.tally.flips += 1;
            }
            if state.trial.is_some() {
                let order = &self.orders[known.0 as usize - 1];
                for Deployable { kind, digest } in &order.deployables {
                    assert_eq!(active[kind].digest, *digest, "what is on trial is not what generation {known} wants");
                }
            } else {
                let bad = behaviours(active, self.artefacts).find(|behaviour| !behaviour.is_good());
                assert_eq!(bad, None, "it was committed, or gone back to");
            }
        }
        self.checked = self.device.saved.len();
    }

    /// Nothing goes wrong any more, but for what the server orders.
    fn calm_down(&mut self) {
        self.device.disk.no_trouble();
        self.device.disk.set_free_bytes(u64::MAX);
        self.device.server_hears = true;
        if self.orders.is_empty() {
            self.give_order();
        }
        self.device.push(Event::Connected);
        let newest = self.orders.last().unwrap().clone();
        self.device.order(&newest);
        self.run_to_end(newest.generation);

        let good = |order: &&Order| {
            order.deployables.len() == 2
                && order.deployables.iter().all(|deployable| self.artefacts.behaviours[&deployable.digest].is_good())
        };
        // A server that was told of a failure orders the newest good one again, under a new number.
        let Some(good) = self.orders.iter().rev().find(good).cloned() else { return };
        if good.generation != newest.generation || matches!(self.device.agent.phase(), Phase::Failed(_)) {
            self.give(good.deployables.iter().copied().collect());
        }
        let newest = self.orders.last().unwrap().clone();
        self.device.order(&newest);
        self.run_to_end(newest.generation);
        let wanted: BTreeMap<Kind, Digest> = newest.deployables.iter().map(|it| (it.kind, it.digest)).collect();
        assert_eq!(self.device.digests(), wanted, "{:?}", self.device.agent);
        assert_eq!(self.device.agent.phase(), Phase::Settled);

        // What is still under way changes nothing.
        while let Some(order) = self.take_message() {
            self.device.order(&order);
        }
        self.run_to_end(newest.generation);
        assert_eq!((self.device.digests(), self.device.known()), (wanted, newest.generation));
        self.count();
    }

    fn run_to_end(&mut self, generation: Generation) {
        self.device.run_to_end(generation, self.artefacts).unwrap();
        self.check_saved();
    }
}
