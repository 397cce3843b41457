//! What operators may want, and how retries spread.

mod fleet;

use std::collections::BTreeSet;

use fleet::{World, count, device, figures, gate, minutes, model, percent, rollout, wave};
use revoada_fleet::planner::{
    GATES_MAX, Intent, Measure, Observations, Percent, Policy, Retry, Rollout, RolloutId, Size, Standing, WAVES_MAX,
};
use revoada_proto::{Blame, Generation, Progress, Report};

#[test]
fn a_rollout_that_cannot_be_wanted_is_refused_in_a_sentence() {
    let mut policy = Policy::new(fleet::limits(), 7);
    policy.add(RolloutId(3), rollout(model(2))).unwrap();
    let good = || rollout(model(2));
    let many = vec![wave(Size::Share(Percent::ALL)); WAVES_MAX + 1];
    for (id, rollout, expected) in [
        (3, good(), "cannot add rollout 3: rollout 3 is not older"),
        (2, good(), "cannot add rollout 2: rollout 3 is not older"),
        (4, Rollout { waves: Vec::new(), ..good() }, "cannot add rollout 4: expected 1 to 32 waves, got 0"),
        (4, Rollout { waves: many, ..good() }, "cannot add rollout 4: expected 1 to 32 waves, got 33"),
        (
            4,
            Rollout { waves: vec![wave(Size::Devices(2))], ..good() },
            "cannot add rollout 4: its last wave does not have every device",
        ),
        (
            4,
            Rollout { gates: vec![gate(Measure::Outcome, 1, 1); GATES_MAX + 1], ..good() },
            "cannot add rollout 4: expected at most 16 gates, got 17",
        ),
        (
            4,
            Rollout { gates: vec![gate(Measure::Fps { of_before_min: f64::NAN }, 1, 1)], ..good() },
            "cannot add rollout 4: the threshold of gate `fps` is negative or not finite",
        ),
    ] {
        assert_eq!(policy.add(RolloutId(id), rollout).unwrap_err().to_string(), expected);
    }
    assert_eq!(policy.intend(RolloutId(9), Intent::Pause).unwrap_err().to_string(), "there is no rollout 9");
    assert_eq!(policy.remove(RolloutId(9)).unwrap_err().to_string(), "there is no rollout 9");
    assert_eq!(policy.rollouts().len(), 1);
}

#[test]
fn a_share_is_rounded_up_and_a_bound_is_not_exceeded_by_itself() {
    assert_eq!((percent(10).of(11), percent(10).of(0), Percent::ALL.of(7)), (2, 0, 7));
    assert!(!percent(20).is_exceeded_by(1, 5) && percent(20).is_exceeded_by(2, 5));
    assert!(!Percent::ZERO.is_exceeded_by(0, 0) && Percent::new(101).is_none());
}

#[test]
fn a_report_that_comes_late_or_again_is_not_taken() {
    let report = |sequence| Report {
        sequence,
        generation: Generation(1),
        progress: Progress::Done,
        running: [(model(2).kind, model(2).digest)].into(),
        figures: figures(25.0),
    };
    let mut observations = Observations::default();
    let taken: Vec<bool> =
        [2, 2, 1, 3].into_iter().map(|sequence| observations.observe(device("cam-01"), report(sequence))).collect();
    assert_eq!(taken, [true, false, false, true]);
    assert_eq!(observations.of(&device("cam-01")), Some(&report(3)));
}

#[test]
fn retries_are_bounded_and_do_not_come_together() {
    let mut world = World::new(20);
    world.add(Rollout {
        waves: vec![wave(Size::Share(Percent::ALL))],
        gates: Vec::new(),
        retry: Retry { attempts_max: count(3), delay: minutes(4), delay_max: minutes(6) },
        ..rollout(model(2))
    });
    world.plan();
    for whole in [minutes(4), minutes(6)] {
        for name in world.ordered() {
            world.failed(&name, "no\nroute", Blame::Device, 1);
        }
        world.plan();
        let standings = world.blueprint.rollouts[&RolloutId(1)].members.values().map(|member| &member.standing);
        let delays = standings.map(|standing| match standing {
            Standing::Retry { at, why } if why == "no route" => at.since(world.now),
            other => panic!("{other:?}"),
        });
        let delays: BTreeSet<_> = delays.collect();
        assert!(delays.len() > 15, "{} different delays", delays.len());
        assert!(delays.iter().all(|delay| (whole / 2..=whole).contains(delay)), "{delays:?}");
        world.pass(6);
        world.plan();
    }
    for name in world.ordered() {
        world.failed(&name, "no route", Blame::Device, 1);
    }
    world.plan();
    world.pass(60);
    assert!(world.plan().blueprint.is_none());
    let standings = world.blueprint.rollouts[&RolloutId(1)].members.values().map(|member| member.standing.to_string());
    assert_eq!(standings.collect::<BTreeSet<_>>(), ["gave up: no route".to_owned()].into());
}
