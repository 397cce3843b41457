//! Policy, blueprint and alerts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use revoada_fleet::planner::{Blueprint, Intent, Limits, Measure, PolicyError, Rollout};
use revoada_fleet::store::{AlertRule, Page, Store, StoreError};
use revoada_proto::{Blame, DeviceId};
use serde_json::json;

use crate::fleet::{World, count, device, gate, limits, model, percent, rollout};
use crate::samples::{anna, at, enrol};

pub(super) fn the_policy_is_read_as_it_was_wanted(store: &dyn Store) {
    assert!(store.policy().unwrap().is_none());
    let error = store.add_rollout("early", &rollout(model(1)), &anna(), at(0)).unwrap_err();
    assert_eq!(error.to_string(), "there is no setting `limits of rollouts`");
    store.set_limits(&limits(), u64::MAX, &anna(), at(0)).unwrap();
    let measures = [
        Measure::Outcome,
        Measure::Restarts { per_hour_max: 0.1 + 0.2 },
        Measure::Fps { of_before_min: 1.0 / 3.0 },
        Measure::Latency { of_before_max: f64::MIN_POSITIVE },
        Measure::Agreement { min: f64::MAX },
        Measure::Accuracy { min: 0.8 },
        Measure::Temperature { celsius_max: 85.0 },
    ];
    let wanted = Rollout {
        filter: "tag = \"ä \\\" b\" and not seen > 26h or fact.load in (1e300, 0.1)".parse().unwrap(),
        gates: measures.map(|measure| gate(measure, 100, u32::MAX)).to_vec(),
        ..rollout(model(2))
    };
    let first = store.add_rollout("first", &wanted, &anna(), at(1)).unwrap();
    let second = store.add_rollout("second", &rollout(model(3)), &anna(), at(2)).unwrap();
    store.set_intent(second, Intent::Abort { rolls_back: true }, &anna(), at(3)).unwrap();
    let tighter = Limits { in_flight_max: count(3), ..limits() };
    store.set_limits(&tighter, 1, &anna(), at(4)).unwrap();
    let known = store.policy().unwrap().unwrap();
    assert_eq!((known.policy.seed, known.policy.limits.in_flight_max), (u64::MAX, count(3)), "the first seed stays");
    let rollouts = known.policy.rollouts();
    assert_eq!(format!("{:?}", rollouts[&first]), format!("{wanted:?}"));
    assert_eq!(rollouts[&second].intent, Intent::Abort { rolls_back: true });
    let note = &known.notes[&first];
    assert_eq!((note.title.as_str(), &note.created_by, note.created_at), ("first", &anna(), at(1)));
    assert_eq!(percent(100), rollouts[&first].gates[0].breaches_max);
}

pub(super) fn a_wrong_rollout_is_refused_and_no_number_is_given_twice(store: &dyn Store) {
    store.set_limits(&limits(), 7, &anna(), at(0)).unwrap();
    let wrong = Rollout { waves: Vec::new(), ..rollout(model(1)) };
    let error = store.add_rollout("wrong", &wrong, &anna(), at(0)).unwrap_err();
    assert!(matches!(error, StoreError::Policy(PolicyError::Waves { .. })), "{error}");
    assert!(store.policy().unwrap().unwrap().policy.rollouts().is_empty());
    let first = store.add_rollout("first", &rollout(model(1)), &anna(), at(0)).unwrap();
    store.remove_rollout(first, &anna(), at(1)).unwrap();
    assert!(store.remove_rollout(first, &anna(), at(1)).is_err());
    assert!(store.set_intent(first, Intent::Pause, &anna(), at(1)).is_err());
    let second = store.add_rollout("second", &rollout(model(1)), &anna(), at(0)).unwrap();
    assert!(second > first);
}

#[derive(Clone, Debug)]
enum Happening {
    Add(u8),
    AllDone(u8),
    Fail(usize, bool),
    Away(usize),
    Remove(usize),
    Pass(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        2 => (2u8..5).prop_map(Happening::Add),
        4 => (1u8..60).prop_map(Happening::AllDone),
        3 => (0usize..9, any::<bool>()).prop_map(|(device, is_final)| Happening::Fail(device, is_final)),
        1 => (0usize..9).prop_map(Happening::Away),
        1 => (0usize..9).prop_map(Happening::Remove),
        4 => (0u64..90).prop_map(Happening::Pass),
    ];
    prop::collection::vec(happening, 1..30)
}

const NAMES: [&str; 9] = ["cam-01", "cam-02", "cam-03", "cam-04", "cam-05", "cam-06", "cam-07", "cam-08", "cam-09"];

fn happen(world: &mut World, happening: &Happening) {
    match *happening {
        Happening::Add(version) => drop(world.add(rollout(model(version)))),
        Happening::AllDone(fps) => world.all_done(f64::from(fps) / 3.0),
        Happening::Fail(index, is_final) => {
            if world.blueprint.order(&device(NAMES[index])).is_some() {
                let blame = if is_final { Blame::Deployable } else { Blame::Device };
                world.failed(NAMES[index], "it \"fell\"", blame, 1);
            }
        }
        Happening::Away(index) => world.away.push(NAMES[index]),
        Happening::Remove(index) => drop(world.inventory.devices.remove(&device(NAMES[index]))),
        Happening::Pass(minutes) => world.pass(minutes),
    }
}

/// One store goes through all cases: each begins with what the one before has left.
pub(super) fn blueprints_are_read_as_they_were_planned(store: &dyn Store) {
    assert_eq!(store.blueprint().unwrap(), Blueprint::default());
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let run = runner.run(&happenings(), |happenings| {
        let mut stored = store.blueprint().unwrap();
        let mut world = World::new(NAMES.len());
        let shift = stored.number + 1;
        for happening in &happenings {
            happen(&mut world, happening);
            if world.plan().blueprint.is_none() {
                continue;
            }
            let number = world.blueprint.number + shift;
            let next = Blueprint { number, parent: Some(stored.number), ..world.blueprint.clone() };
            prop_assert!(store.swap_blueprint(&stored, &next).unwrap());
            prop_assert_eq!(&store.blueprint().unwrap(), &next);
            prop_assert!(!store.swap_blueprint(&stored, &next).unwrap(), "another is stored meanwhile");
            stored = next;
        }
        Ok(())
    });
    run.unwrap();
    assert!(store.blueprint().unwrap().number > 24, "something was planned");
}

pub(super) fn of_many_that_swap_at_once_one_wins(store: &dyn Store) {
    for round in 0..5 {
        let current = store.blueprint().unwrap();
        let mut world = World::new(9);
        world.add(rollout(model(2)));
        world.plan();
        let wins: Vec<(u32, bool)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|thread| {
                    let recent = BTreeMap::from([(round, thread)]);
                    let next = Blueprint {
                        number: current.number + 1,
                        parent: Some(current.number),
                        recent,
                        ..world.blueprint.clone()
                    };
                    let current = &current;
                    scope.spawn(move || (thread, store.swap_blueprint(current, &next).unwrap()))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<u32> = wins.iter().filter(|(_, has_won)| *has_won).map(|(thread, _)| *thread).collect();
        let [winner] = winners[..] else { panic!("{wins:?}") };
        let stored = store.blueprint().unwrap();
        assert_eq!((stored.recent[&round], stored.targets), (winner, Arc::clone(&world.blueprint.targets)));
    }
}

pub(super) fn rules_and_alerts_are_kept(store: &dyn Store) {
    let (one, two): (DeviceId, DeviceId) = (enrol(store, "cam-1"), enrol(store, "cam-2"));
    let rule = AlertRule {
        name: "hot".to_owned(),
        filter: "tag = entrance".parse().unwrap(),
        condition: json!({ "temperature": { "above": 0.1 + 0.2 } }),
        webhook: Some("https://example.org/hook".to_owned()),
        is_enabled: true,
    };
    store.put_rule(&rule, &anna(), at(0)).unwrap();
    assert_eq!(store.rules().unwrap(), std::slice::from_ref(&rule));
    let changed = AlertRule { is_enabled: false, webhook: None, ..rule };
    store.put_rule(&changed, &anna(), at(1)).unwrap();
    assert_eq!(store.rules().unwrap(), [changed]);
    assert!(store.raise_alert("cold", &one, "it is", at(2)).is_err());
    let first = store.raise_alert("hot", &one, "80 °C", at(2)).unwrap().unwrap();
    assert_eq!(store.raise_alert("hot", &one, "81 °C", at(3)).unwrap(), None, "it is raised already");
    store.raise_alert("hot", &two, "82 °C", at(4)).unwrap().unwrap();
    assert!(store.resolve_alert("hot", &one, at(5)).unwrap());
    assert!(!store.resolve_alert("hot", &one, at(6)).unwrap());
    let again = store.raise_alert("hot", &one, "83 °C", at(7)).unwrap().unwrap();
    assert!(again > first);
    let texts =
        |alerts: Vec<revoada_fleet::store::Alert>| alerts.into_iter().map(|alert| alert.text).collect::<Vec<_>>();
    assert_eq!(texts(store.raised_alerts().unwrap()), ["82 °C", "83 °C"]);
    let all = store.alerts(Page::first(9)).unwrap();
    assert_eq!((all[2].raised_at, all[2].resolved_at, &all[2].device), (at(2), Some(at(5)), &one));
    assert_eq!(texts(store.alerts(Page { before: Some(again), limit: 1 }).unwrap()), ["82 °C"]);
    assert!(store.remove_rule("hot", &anna(), at(8)).unwrap());
    assert_eq!(store.alerts(Page::first(9)).unwrap(), []);
}
