//! What a gate sees of its devices, and what the rollout then does.

mod fleet;

use fleet::{World, device, figures, gate, model, rollout};
use revoada_fleet::planner::{Gate, GateVerdict, GateView, Measure, Phase, Rollout, RolloutId, view_gates};
use revoada_proto::{Figures, Progress};

const ACCURATE: Measure = Measure::Accuracy { min: 0.8 };

/// A rollout with one gate, of which two canaries have said this.
struct Canaries {
    world: World,
    id: RolloutId,
    names: Vec<String>,
}

impl Canaries {
    fn new(gate: Gate, said: [Figures; 2]) -> Self {
        let mut world = World::new(8);
        let id = world.add(Rollout { gates: vec![gate], ..rollout(model(2)) });
        world.plan();
        let names = world.ordered();
        assert_eq!(names.len(), said.len());
        world.pass(5);
        let mut canaries = Self { world, id, names };
        for (index, figures) in said.into_iter().enumerate() {
            canaries.say(index, figures);
        }
        canaries.world.plan();
        canaries
    }

    fn say(&mut self, canary: usize, figures: Figures) {
        let name = self.names[canary].as_str();
        let order = self.world.blueprint.order(&device(name)).expect("it was ordered something").clone();
        self.world.report(name, order.generation, Progress::Done, order.deployables, figures);
    }

    fn seen(&self) -> Option<GateView> {
        let World { policy, inventory, observations, blueprint, now, .. } = &self.world;
        view_gates(policy, inventory, observations, blueprint, self.id, *now).pop()
    }

    /// After its soak.
    fn phase(&mut self) -> Phase {
        self.world.pass(20);
        self.world.plan();
        self.world.blueprint.rollouts[&self.id].phase.clone()
    }
}

fn with_accuracy(accuracy: Option<f64>) -> Figures {
    Figures { accuracy, ..figures(25.0) }
}

#[test]
fn a_wave_passes_where_every_device_names_enough_pictures_rightly() {
    let said = [Some(0.95), Some(0.8)].map(with_accuracy);
    let mut canaries = Canaries::new(gate(ACCURATE, 0, 2), said);
    let seen = canaries.seen().unwrap();
    assert_eq!((seen.verdict, seen.samples, seen.breaches), (GateVerdict::Holds, 2, 0));
    assert_eq!(seen.worst, Some((device(&canaries.names[1]), "0.800".to_owned())));
    assert!(matches!(canaries.phase(), Phase::Running { wave: 1, .. }));
}

#[test]
fn a_model_that_names_too_few_pictures_rightly_is_halted_and_the_device_is_named() {
    let said = [Some(0.79), Some(0.95)].map(with_accuracy);
    let mut canaries = Canaries::new(gate(ACCURATE, 0, 2), said);
    assert_eq!(canaries.seen(), None, "the gates of what was halted are not watched");
    let Phase::Halted { why, .. } = canaries.phase() else { panic!("it goes on") };
    let expected = format!(
        "wave 1 of 3: gate `accuracy`: 1 of 2 devices name less than 0.8 of their labelled pictures rightly, \
         at most 0 % may: {} 0.790",
        canaries.names[0]
    );
    assert_eq!(why, expected);
}

#[test]
fn a_device_that_does_not_know_its_accuracy_passes_no_wave_and_halts_none() {
    let said = [Some(0.95), None].map(with_accuracy);
    let mut canaries = Canaries::new(gate(ACCURATE, 0, 2), said);
    let seen = canaries.seen().unwrap();
    assert_eq!((seen.verdict, seen.samples, seen.samples_min), (GateVerdict::Open, 1, 2));
    assert!(matches!(canaries.phase(), Phase::Running { wave: 0, .. }));
    canaries.say(1, with_accuracy(Some(0.9)));
    assert!(matches!(canaries.phase(), Phase::Running { wave: 1, .. }), "once it knows, the wave passes");
}

#[test]
fn a_gate_shows_the_figure_that_is_the_furthest_from_holding() {
    let of = |latency_ms, fps, celsius, restarts| Figures {
        latency_ms: Some(latency_ms),
        agreement: Some(fps / 100.0),
        temperature_c: Some(celsius),
        restarts,
        ..figures(fps)
    };
    for (measure, worst) in [
        (Measure::Outcome, (0, "done")),
        (Measure::Restarts { per_hour_max: 100.0 }, (1, "6.0")),
        (Measure::Fps { of_before_min: 0.5 }, (0, "20.0 of 25.0")),
        (Measure::Latency { of_before_max: 9.0 }, (1, "60.0 ms, before 40.0 ms")),
        (Measure::Agreement { min: 0.1 }, (0, "0.200")),
        (Measure::Temperature { celsius_max: 90.0 }, (1, "70.0 °C")),
    ] {
        let canaries = Canaries::new(gate(measure, 0, 2), [of(50.0, 20.0, 60.0, 0), of(60.0, 25.0, 70.0, 1)]);
        let seen = canaries.seen().unwrap();
        assert_eq!(seen.verdict, GateVerdict::Holds, "{measure:?}");
        assert_eq!(seen.worst, Some((device(&canaries.names[worst.0]), worst.1.to_owned())), "{measure:?}");
    }
}
