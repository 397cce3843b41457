//! What holds of every plan, whatever devices say and operators want; `PROPTEST_CASES=100000` looks longer.

mod fleet;

use std::collections::BTreeMap;
use std::time::Duration;

use fleet::{count, device, figures, gate, minutes, model, plan_checked, rollout, wave};
use proptest::prelude::*;
use revoada_core::{Digest, Timestamp};
use revoada_fleet::planner::{
    Aim, Blueprint, Intent, Limits, Measure, Observations, Phase, Planned, Policy, Rollout, RolloutId, Size, Standing,
    Step, Wave,
};
use revoada_fleet::{Device, Inventory};
use revoada_proto::{Blame, Deployable, DeviceId, Generation, Kind, Progress, Report};

const DEVICES: usize = 8;

#[derive(Clone, Debug)]
enum Event {
    Pass {
        seconds: u64,
    },
    /// A device says something of its newest order, or of one `behind` it.
    Say {
        device: usize,
        behind: u64,
        progress: Progress,
        runs: Option<u8>,
        fps: u8,
    },
    /// It carries out its order.
    Obey {
        device: usize,
    },
    Leave {
        device: usize,
    },
    Return {
        device: usize,
    },
    Remove {
        device: usize,
    },
    Enrol {
        device: usize,
    },
    Add {
        version: u8,
        is_pipeline: bool,
        devices: u8,
        is_gated: bool,
    },
    Intend {
        rollout: u64,
        intent: Intent,
    },
    Take {
        rollout: u64,
    },
    Back {
        seconds: u64,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let device = || 0..DEVICES;
    let progress = prop_oneof![
        Just(Progress::Working { what: String::new() }),
        Just(Progress::Done),
        any::<bool>().prop_map(|is_final| Progress::Failed {
            why: "it fell".to_owned(),
            blame: if is_final { Blame::Deployable } else { Blame::Device },
        }),
    ];
    let intent = prop_oneof![
        3 => Just(Intent::Run),
        1 => Just(Intent::Pause),
        1 => any::<bool>().prop_map(|rolls_back| Intent::Abort { rolls_back }),
    ];
    let event = prop_oneof![
        6 => (0u64..2000).prop_map(|seconds| Event::Pass { seconds }),
        6 => (device(), 0u64..2, progress, prop::option::of(1u8..5), 5u8..30)
            .prop_map(|(device, behind, progress, runs, fps)| Event::Say { device, behind, progress, runs, fps }),
        8 => device().prop_map(|device| Event::Obey { device }),
        2 => device().prop_map(|device| Event::Leave { device }),
        3 => device().prop_map(|device| Event::Return { device }),
        1 => device().prop_map(|device| Event::Remove { device }),
        1 => device().prop_map(|device| Event::Enrol { device }),
        2 => (1u8..5, prop::bool::weighted(0.3), 0u8..8, any::<bool>())
            .prop_map(|(version, is_pipeline, devices, is_gated)| Event::Add { version, is_pipeline, devices, is_gated }),
        2 => (1u64..6, intent).prop_map(|(rollout, intent)| Event::Intend { rollout, intent }),
        1 => (1u64..6).prop_map(|rollout| Event::Take { rollout }),
        1 => (0u64..100).prop_map(|seconds| Event::Back { seconds }),
    ];
    prop::collection::vec(event, 1..60)
}

struct World {
    policy: Policy,
    inventory: Inventory,
    observations: Observations,
    blueprint: Blueprint,
    now: Timestamp,
    away: [bool; DEVICES],
    sequence: u64,
    rollouts: u64,
    /// When orders were given.
    given: Vec<Timestamp>,
}

fn name(index: usize) -> DeviceId {
    device(&format!("cam-{index}"))
}

impl World {
    fn new(in_flight_max: u32, orders_per_minute_max: u32) -> Self {
        let limits = Limits {
            in_flight_max: count(in_flight_max),
            orders_per_minute_max: count(orders_per_minute_max),
            ..fleet::limits()
        };
        Self {
            policy: Policy::new(limits, 7),
            inventory: Inventory { devices: (0..DEVICES).map(|index| (name(index), Device::default())).collect() },
            observations: Observations::default(),
            blueprint: Blueprint::default(),
            now: Timestamp::from_nanos(1_000_000_000_000),
            away: [false; DEVICES],
            sequence: 0,
            rollouts: 0,
            given: Vec::new(),
        }
    }

    fn report(&mut self, index: usize, generation: Generation, progress: Progress, runs: &[Deployable], fps: u8) {
        let name = name(index);
        self.sequence += 1;
        let mut running = self.observations.of(&name).map(|report| report.running.clone()).unwrap_or_default();
        running.extend(runs.iter().map(|deployable| (deployable.kind, deployable.digest)));
        let figures = figures(fps.into());
        let report = Report { sequence: self.sequence, generation, progress, running, figures };
        self.observations.observe(name, report);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Pass { seconds } => self.now = self.now + Duration::from_secs(seconds),
            Event::Back { seconds } => {
                self.now = Timestamp::from_nanos(self.now.as_nanos() - seconds.min(900) * 1_000_000_000);
            }
            Event::Say { device, behind, progress, runs, fps } => {
                let generation = self.blueprint.order(&name(device)).map_or(0, |order| order.generation.0);
                let runs: Vec<_> = runs.map(model).into_iter().collect();
                self.report(device, Generation(generation.saturating_sub(behind)), progress, &runs, fps);
            }
            Event::Obey { device } => {
                if let Some(order) = self.blueprint.order(&name(device)).cloned() {
                    let runs: Vec<Deployable> = order.deployables.into_iter().collect();
                    self.report(device, order.generation, Progress::Done, &runs, 25);
                }
            }
            Event::Leave { device } => self.away[device] = true,
            Event::Return { device } => self.away[device] = false,
            Event::Remove { device } => drop(self.inventory.devices.remove(&name(device))),
            Event::Enrol { device } => drop(self.inventory.devices.entry(name(device)).or_default()),
            Event::Add { version, is_pipeline, devices, is_gated } => {
                self.rollouts += 1;
                let kind = if is_pipeline { Kind::Pipeline } else { Kind::Model };
                let deployable = Deployable { kind, digest: Digest::new([version; 32]) };
                let ids: Vec<String> = (0..=devices).map(|index| format!("cam-{index}")).collect();
                let filter = format!("id in ({})", ids.join(", ")).parse().expect("this is a filter");
                let waves = [Size::Devices(2), Size::Share(fleet::percent(100))].map(|size| Wave {
                    soak: minutes(5),
                    timeout: minutes(30),
                    ..wave(size)
                });
                let gates = [gate(Measure::Outcome, 20, 1), gate(Measure::Fps { of_before_min: 0.8 }, 50, 1)];
                let gates = if is_gated { gates.to_vec() } else { Vec::new() };
                let rollout = Rollout { filter, waves: waves.to_vec(), gates, ..rollout(deployable) };
                self.policy.add(RolloutId(self.rollouts), rollout).expect("it is the newest");
            }
            Event::Intend { rollout, intent } => drop(self.policy.intend(RolloutId(rollout), intent)),
            Event::Take { rollout } => drop(self.policy.remove(RolloutId(rollout))),
        }
        for index in 0..DEVICES {
            if let Some(device) = self.inventory.devices.get_mut(&name(index)).filter(|_| !self.away[index]) {
                device.seen = Some(self.now);
            }
        }
    }

    fn plan(&mut self) {
        let planned = plan_checked(&self.policy, &self.inventory, &self.observations, &self.blueprint, self.now);
        if let Some(next) = &planned.blueprint {
            assert_eq!((next.number, next.parent), (self.blueprint.number + 1, Some(self.blueprint.number)));
            generations_only_rise(&self.blueprint, next);
            self.devices_in_flight_are_bounded(next, &planned);
            orders_are_allowed(&self.policy, next, &planned);
            finished_devices_have_it_or_a_reason(&self.policy, &self.observations, next);
            let orders = planned.decisions.iter().filter(|decision| matches!(decision.step, Step::Order { .. }));
            self.given.extend(orders.map(|_| self.now));
            self.blueprint = next.clone();
        }
        assert!(planned.decisions.iter().all(|decision| !decision.why.is_empty()));
        assert!(self.blueprint.recent.len() <= 121);
    }

    /// Devices that come back with an order may be too many; then no other one is ordered anything.
    fn devices_in_flight_are_bounded(&self, next: &Blueprint, planned: &Planned) {
        let (before, after) = (flying(&self.blueprint), flying(next));
        let in_flight = after.values().filter(|is_ordered| **is_ordered).count();
        let has_an_order = |device: &DeviceId| {
            let reported = self.observations.of(device).map_or(Generation(0), |report| report.generation);
            before.contains_key(device) || self.blueprint.order(device).is_some_and(|order| order.generation > reported)
        };
        let is_fresh = planned.decisions.iter().any(|decision| match &decision.step {
            Step::Order { device, .. } => after.get(device) == Some(&true) && !has_an_order(device),
            _ => false,
        });
        let max = self.policy.limits.in_flight_max.get() as usize;
        assert!(!is_fresh || in_flight <= max, "{in_flight} devices are in flight after\n{planned}");
    }
}

fn generations_only_rise(current: &Blueprint, next: &Blueprint) {
    for (device, target) in next.targets.iter() {
        let Some(before) = current.targets.get(device) else { continue };
        let has_risen = target.order.generation > before.order.generation;
        assert!(has_risen || target == before, "{device}: {before:?} and then {target:?}");
        let kinds: BTreeMap<Kind, Digest> =
            target.order.deployables.iter().map(|deployable| (deployable.kind, deployable.digest)).collect();
        assert_eq!(kinds.len(), target.order.deployables.len(), "{device} is ordered two of a kind: {target:?}");
    }
}

fn flying(blueprint: &Blueprint) -> BTreeMap<&DeviceId, bool> {
    let members = blueprint.rollouts.values().flat_map(|state| &state.members);
    let mut flying = BTreeMap::new();
    for (device, member) in members {
        let (is_ordered, is_away) =
            (matches!(member.standing, Standing::Ordered { .. }), member.standing == Standing::Away);
        if is_ordered || is_away {
            *flying.entry(device).or_default() |= is_ordered;
        }
    }
    flying
}

fn orders_are_allowed(policy: &Policy, next: &Blueprint, planned: &Planned) {
    for decision in &planned.decisions {
        let Step::Order { device, aim, .. } = &decision.step else { continue };
        let (state, rollout) = (&next.rollouts[&decision.rollout], &policy.rollouts()[&decision.rollout]);
        match aim {
            Aim::Back => {
                assert!(state.phase.rolls_back(), "{decision} by {:?}", state.phase);
                assert_ne!(
                    next.order(device).expect("it was ordered").of(state.deployable.kind),
                    Some(state.deployable.digest)
                );
            }
            Aim::Forward => {
                assert!(state.phase.is_live(), "{decision} by {:?}", state.phase);
                assert_eq!(rollout.intent, Intent::Run, "{decision}");
            }
        }
    }
}

fn finished_devices_have_it_or_a_reason(policy: &Policy, observations: &Observations, next: &Blueprint) {
    let attempts_max = |id| policy.rollouts()[id].retry.attempts_max.get();
    for (id, state) in &next.rollouts {
        for (device, member) in &state.members {
            assert!(member.attempts <= attempts_max(id), "{device}: {member:?}");
            if member.aim == Aim::Forward
                && member.standing.is_reached()
                && matches!(state.phase, Phase::Finished { .. })
            {
                let report = observations.of(device).expect("nothing is done unsaid");
                let asked = member.asked.map_or(Generation(0), |asked| asked.generation);
                let runs = report.running.get(&state.deployable.kind) == Some(&state.deployable.digest);
                assert!(report.generation >= asked || runs, "{device}: {member:?} by {report:?}");
            }
            assert!(!member.standing.to_string().is_empty());
        }
    }
}

proptest! {
    #[test]
    fn every_plan_keeps_the_rules(events in events(), in_flight_max in 1u32..6, orders_per_minute_max in 1u32..8) {
        let mut world = World::new(in_flight_max, orders_per_minute_max);
        let mut is_steady = true;
        for event in events {
            is_steady &= !matches!(event, Event::Back { .. });
            world.happen(event);
            world.plan();
        }
        // Over a clock that goes back nothing can be said of minutes.
        for (index, first) in world.given.iter().enumerate().filter(|_| is_steady) {
            let within = world.given[index..].iter().filter(|given| given.since(*first) < minutes(1)).count();
            prop_assert!(within <= orders_per_minute_max as usize, "{} orders in a minute", within);
        }
    }

    /// However it went, a fleet that obeys from now on comes to rest, and each device of a finished rollout has it.
    #[test]
    fn a_fleet_that_obeys_comes_to_rest(events in events()) {
        let mut world = World::new(3, 100);
        for event in events {
            world.happen(event);
            world.plan();
        }
        for device in 0..DEVICES {
            world.happen(Event::Return { device });
        }
        for _ in 0..80 {
            for device in 0..DEVICES {
                world.happen(Event::Obey { device });
            }
            world.happen(Event::Pass { seconds: 600 });
            world.plan();
        }
        for (id, state) in &world.blueprint.rollouts {
            for (device, member) in &state.members {
                let is_at_rest = match &member.standing {
                    Standing::Ordered { .. } | Standing::Away | Standing::Retry { .. } => false,
                    // A wave that never was complete, a pause, or an abort before it began.
                    Standing::Waiting => !matches!(state.phase, Phase::Finished { .. })
                        || world.policy.rollouts()[id].intent != Intent::Run,
                    _ => true,
                };
                let is_paused = world.policy.rollouts()[id].intent == Intent::Pause;
                prop_assert!(is_at_rest || is_paused, "rollout {} on {}: {:?} in {:?}", id, device, member, state.phase);
                let has_it = world.blueprint.order(device).and_then(|order| order.of(state.deployable.kind))
                    == Some(state.deployable.digest);
                let is_done = member.asked.is_some() && member.aim == Aim::Forward && member.standing.is_reached();
                prop_assert!(!is_done || has_it, "rollout {} on {}: {:?}", id, device, member);
                if state.phase.rolls_back() && member.asked.is_some() && member.standing.counts() {
                    prop_assert_eq!(member.aim, Aim::Back, "rollout {} on {}: {:?}", id, device, member);
                }
            }
        }
    }
}
