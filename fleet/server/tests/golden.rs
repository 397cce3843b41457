//! Plans as a person reviews them, held against golden files; `UPDATE_GOLDEN=1 cargo test --package revoada-fleet --test
//! golden` writes them anew.

mod fleet;

use std::path::Path;

use fleet::{World, count, device, figures, gate, minutes, model, percent, rollout};
use revoada_core::Digest;
use revoada_fleet::Device;
use revoada_fleet::planner::{Intent, Measure, Rollout, RolloutId, Size, Wave};
use revoada_proto::{Blame, Deployable, Figures, Kind, Progress};

fn is_as_reviewed(world: &World, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &world.story).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is part of the repository");
    assert_eq!(world.story, golden, "the plan differs from {}", path.display());
}

#[test]
fn a_good_version_goes_from_the_canaries_to_every_device() {
    let mut world = World::new(8);
    world.say("eight devices run model 1; model 2 is for two, half of them, all");
    world.add(rollout(model(2)));
    for _ in 0..3 {
        world.plan();
        world.pass(5);
        world.all_done(26.0);
        world.plan();
        world.pass(20);
    }
    world.plan();
    world.say("a device that comes later gets it, too");
    world.inventory.devices.insert(device("door-9"), Device::default());
    world.pass(1);
    world.plan();
    world.pass(5);
    world.all_done(26.0);
    world.plan();
    is_as_reviewed(&world, "good");
}

#[test]
fn a_slow_version_is_halted_at_the_canaries_and_taken_back() {
    let mut world = World::new(8);
    world.say("model 2 has half of the frames a second");
    let gates = vec![
        gate(Measure::Outcome, 20, 2),
        gate(Measure::Fps { of_before_min: 0.9 }, 10, 2),
        gate(Measure::Latency { of_before_max: 1.5 }, 10, 2),
    ];
    world.add(Rollout { gates, ..rollout(model(2)) });
    world.plan();
    world.pass(5);
    world.all_done(12.0);
    world.plan();
    world.pass(5);
    world.all_done(25.0);
    world.plan();
    is_as_reviewed(&world, "slow");
}

#[test]
fn an_inaccurate_version_is_halted_at_the_canaries_and_taken_back() {
    let mut world = World::new(8);
    world.say("of the labelled pictures model 2 names half rightly");
    world.add(Rollout { gates: vec![gate(Measure::Accuracy { min: 0.8 }, 0, 2)], ..rollout(model(2)) });
    world.plan();
    world.pass(5);
    for name in world.ordered() {
        let order = world.blueprint.order(&device(&name)).expect("it was ordered something").clone();
        let figures = Figures { accuracy: Some(0.5), ..figures(25.0) };
        world.report(&name, order.generation, Progress::Done, order.deployables, figures);
    }
    world.plan();
    world.pass(5);
    world.all_done(25.0);
    world.plan();
    is_as_reviewed(&world, "inaccurate");
}

#[test]
fn failures_are_tried_again_and_then_halt() {
    let mut world = World::new(8);
    world.say("one of two canaries has no network, and then no luck");
    world.add(rollout(model(2)));
    world.plan();
    let names = world.ordered();
    world.pass(1);
    world.done(&names[0], 25.0);
    world.failed(&names[1], "cannot fetch: no route to host", Blame::Device, 1);
    world.plan();
    world.pass(3);
    world.plan();
    world.pass(1);
    world.failed(&names[1], "it crashed at frame 17", Blame::Deployable, 1);
    world.plan();
    world.pass(5);
    world.all_done(25.0);
    world.plan();
    is_as_reviewed(&world, "failures");
}

#[test]
fn devices_that_are_away_hold_up_no_wave_and_miss_nothing() {
    let mut world = World::new(6);
    world.say("cam-01 and cam-02 are away, cam-03 leaves with its order");
    world.away = vec!["cam-01", "cam-02"];
    world.pass(60);
    world.add(Rollout {
        waves: vec![fleet::wave(Size::Share(percent(50))), fleet::wave(Size::Share(percent(100)))],
        ..rollout(model(2))
    });
    world.plan();
    let leaves = world.ordered()[0].clone();
    world.away.push(Box::leak(leaves.into_boxed_str()));
    world.all_done(25.0);
    world.pass(11);
    world.plan();
    world.pass(109);
    world.plan();
    world.pass(20);
    world.plan();
    world.all_done(25.0);
    world.pass(120);
    world.plan();
    world.pass(20);
    world.plan();
    world.say("three weeks later they are back");
    world.away.clear();
    world.pass(60 * 24 * 21);
    world.plan();
    world.pass(5);
    world.all_done(25.0);
    world.plan();
    is_as_reviewed(&world, "away");
}

#[test]
fn a_newer_rollout_supersedes_an_older_one() {
    let mut world = World::new(6);
    world.say("model 2 is on the canaries when model 3 is wanted");
    world.add(rollout(model(2)));
    world.plan();
    world.pass(5);
    world.all_done(25.0);
    world.plan();
    world.add(Rollout { waves: vec![fleet::wave(Size::Share(percent(100)))], ..rollout(model(3)) });
    world.plan();
    world.pass(5);
    world.all_done(25.0);
    world.plan();
    world.pass(20);
    world.plan();
    world.say("model 3 is not wanted after all: each goes back to what it ran before");
    world.policy.intend(RolloutId(2), Intent::Abort { rolls_back: true }).unwrap();
    world.plan();
    world.pass(5);
    world.all_done(25.0);
    world.plan();
    is_as_reviewed(&world, "superseded");
}

#[test]
fn a_paused_rollout_waits_and_its_clock_with_it() {
    let mut world = World::new(4);
    let id = world.add(rollout(model(2)));
    world.plan();
    world.pass(5);
    world.all_done(25.0);
    world.plan();
    world.pass(15);
    world.say("paused with 5 minutes left of its soak");
    world.policy.intend(id, Intent::Pause).unwrap();
    world.plan();
    world.pass(600);
    world.plan();
    world.policy.intend(id, Intent::Run).unwrap();
    world.plan();
    world.pass(5);
    world.plan();
    world.say("aborted without taking anything back");
    world.policy.intend(id, Intent::Abort { rolls_back: false }).unwrap();
    world.plan();
    is_as_reviewed(&world, "paused");
}

#[test]
fn limits_hold_and_kinds_do_not_mix() {
    let mut world = World::new(5);
    world.say("two devices in flight at once, three orders a minute, a model and a pipeline");
    world.policy.limits.in_flight_max = count(2);
    world.policy.limits.orders_per_minute_max = count(3);
    let pipeline = Deployable { kind: Kind::Pipeline, digest: Digest::new([9; 32]) };
    for deployable in [model(2), pipeline] {
        let wave = Wave { soak: minutes(0), ..fleet::wave(Size::Share(percent(100))) };
        world.add(Rollout { waves: vec![wave], gates: Vec::new(), ..rollout(deployable) });
    }
    for _ in 0..12 {
        world.plan();
        world.all_done(25.0);
        world.now = world.now + std::time::Duration::from_secs(20);
    }
    is_as_reviewed(&world, "limits");
}
