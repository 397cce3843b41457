//! What a head learns, and when it stops.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use revoada_core::{Clock, Digest, Timestamp};
use revoada_federated::Weights;
use revoada_learn::{
    ClassWeights, Ended, Examples, HeadShape, Optimiser, Pause, Settings, TrainError, Trained, evaluate, train,
};

/// A second passes whenever it is asked.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.fetch_add(1_000_000_000, Ordering::Relaxed))
    }
}

const LINEAR: HeadShape = HeadShape { features: 2, hidden: None, classes: 3 };

fn picture(number: usize) -> Digest {
    revoada_bundle::hash(&number.to_le_bytes())
}

/// Clouds of points around three corners, so many of each.
fn clouds(counts: [usize; 3], width: f32) -> Examples {
    let mut random = fastrand::Rng::with_seed(5);
    let mut examples = Examples::new(2);
    for (class, (count, corner)) in (0_u32..).zip(counts.into_iter().zip([[0.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])) {
        for _ in 0..count {
            let point = corner.map(|side: f32| side + (random.f32() - 0.5) * width);
            examples.push(&point, class, picture(examples.len())).unwrap();
        }
    }
    examples
}

fn quick() -> Settings {
    Settings { rate: 0.05, memory_bytes_max: 64 << 20, time_max: Duration::from_secs(1 << 20), ..Settings::default() }
}

fn trained(start: &Weights, examples: &Examples, settings: &Settings) -> Trained {
    train(start, examples, settings, &Ticking::default(), &mut || Pause::Continue).unwrap()
}

fn distance(left: &Weights, right: &Weights) -> f64 {
    let pairs = left.values().iter().zip(right.values());
    pairs.map(|(left, right)| f64::from(left - right).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn what_can_be_separated_is_learned_by_every_optimiser_and_head() {
    let examples = clouds([60, 60, 60], 0.8);
    for hidden in [None, Some(8)] {
        for (optimiser, rate) in
            [(Optimiser::Sgd, 0.5), (Optimiser::Adam, 0.05), (Optimiser::AdamW { decay: 0.01 }, 0.05)]
        {
            let start = HeadShape { hidden, ..LINEAR }.seeded(1).unwrap();
            let trained = trained(&start, &examples, &Settings { optimiser, rate, ..quick() });
            let judged = evaluate(&trained.weights, &examples).unwrap().unwrap();
            assert_eq!(judged.accuracy, 1.0, "{optimiser:?} {hidden:?}");
            assert_eq!((trained.epochs, trained.ended), (20, Ended::Epochs));
            let (before, after) = (trained.before.unwrap(), trained.after.unwrap());
            assert!(after.loss < before.loss && after.accuracy == 1.0);
            assert_eq!(trained.examples + after.examples, 180);
        }
    }
}

#[test]
fn a_step_follows_the_gradient_that_differences_give() {
    // One step of a small rate with all examples in one batch moves the weights against the gradient of the mean loss.
    let examples = clouds([4, 3, 2], 1.0);
    let start = HeadShape { hidden: Some(3), ..LINEAR }.seeded(2).unwrap();
    let rate = 1e-3;
    let settings = Settings { optimiser: Optimiser::Sgd, rate, epochs: 1, batch: 64, held_out: 0.0, ..quick() };
    let moved = trained(&start, &examples, &settings).weights;
    let loss = |weights: &Weights| evaluate(weights, &examples).unwrap().unwrap().loss;
    for index in 0..start.values().len() {
        let shifted = |by: f32| {
            let mut values = start.values().to_vec();
            values[index] += by;
            loss(&Weights::new(start.layout().clone(), values).unwrap())
        };
        let gradient = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
        let step = f64::from(start.values()[index] - moved.values()[index]) / rate;
        assert!((gradient - step).abs() < 2e-2, "weight {index}: {gradient} by differences, {step} by the step");
    }
}

#[test]
fn the_same_seed_gives_the_same_weights() {
    let examples = clouds([40, 40, 40], 3.0);
    let start = LINEAR.seeded(1).unwrap();
    let with = |seed| trained(&start, &examples, &Settings { seed, epochs: 3, ..quick() }).weights;
    assert_eq!(with(7), with(7));
    assert_ne!(with(7), with(8));
}

#[test]
fn a_strong_proximal_term_holds_the_weights_where_they_began() {
    let examples = clouds([40, 40, 40], 0.8);
    let start = LINEAR.seeded(1).unwrap();
    let far = |proximal| {
        let settings = Settings { optimiser: Optimiser::Sgd, rate: 1e-3, proximal, epochs: 50, ..quick() };
        distance(&start, &trained(&start, &examples, &settings).weights)
    };
    let (free, held, fixed) = (far(0.0), far(1.0), far(1000.0));
    assert!(free > 0.05 && held < free && fixed < 0.002, "{free} {held} {fixed}");
}

#[test]
fn balanced_weights_let_a_rare_class_be_seen() {
    let examples = clouds([400, 400, 8], 3.2);
    let start = Weights::zeros(LINEAR.layout().unwrap());
    let right = |class_weights| {
        let settings = Settings { class_weights, held_out: 0.0, epochs: 5, rate: 0.01, ..quick() };
        let weights = trained(&start, &examples, &settings).weights;
        evaluate(&weights, &examples).unwrap().unwrap().classes[2].right
    };
    let (plain, balanced) = (right(ClassWeights::None), right(ClassWeights::Balanced));
    assert!(balanced > plain, "{plain} of 8 without, {balanced} with");
}

#[test]
fn patience_ends_what_gets_no_better_and_keeps_the_best() {
    // Classes at random: held-out examples soon get worse.
    let mut random = fastrand::Rng::with_seed(1);
    let shape = HeadShape { features: 20, hidden: Some(32), classes: 2 };
    let mut examples = Examples::new(20);
    for number in 0..60 {
        let features: Vec<f32> = (0..20).map(|_| random.f32() - 0.5).collect();
        examples.push(&features, random.u32(0..2), picture(number)).unwrap();
    }
    let settings = Settings { epochs: 1000, patience: Some(5), held_out: 0.4, ..quick() };
    let start = shape.seeded(1).unwrap();
    let trained = trained(&start, &examples, &settings);
    assert_eq!(trained.ended, Ended::Patience);
    assert!(trained.epochs < 500, "{}", trained.epochs);
    assert!(trained.after.unwrap().loss <= trained.before.unwrap().loss);
}

#[test]
fn it_waits_stops_and_ends_in_time() {
    let examples = clouds([40, 40, 40], 0.8);
    let start = LINEAR.seeded(1).unwrap();
    let mut asked = 0;
    let mut pause = || {
        asked += 1;
        match asked {
            1..=3 => Pause::Wait(Duration::ZERO),
            4..=10 => Pause::Continue,
            _ => Pause::Stop,
        }
    };
    let stopped = train(&start, &examples, &quick(), &Ticking::default(), &mut pause).unwrap();
    assert_eq!((asked, stopped.ended), (11, Ended::Stopped));
    assert!(stopped.weights != start && stopped.epochs < 20);
    let at_once = train(&start, &examples, &quick(), &Ticking::default(), &mut || Pause::Stop).unwrap();
    assert_eq!((at_once.weights, at_once.train_loss), (start.clone(), None));
    let settings = Settings { time_max: Duration::from_secs(9), ..quick() };
    let ended = trained(&start, &examples, &settings);
    assert_eq!(ended.ended, Ended::Time);
    assert!(ended.weights != start);
}

#[test]
fn what_takes_too_much_memory_is_refused_with_how_much_it_needs() {
    let shape = HeadShape { features: 1280, hidden: Some(512), classes: 1000 };
    let settings = Settings { memory_bytes_max: 256 << 20, ..Settings::default() };
    settings.check_memory(&shape, 5000).unwrap();
    let error = settings.check_memory(&shape, 50_000).unwrap_err().to_string();
    assert_eq!(error, "50000 examples of 1280 features need 547 MiB, and at most 256 may be taken");
    settings.check_memory(&shape, usize::MAX).unwrap_err();
    let tight = Settings { memory_bytes_max: 1, ..quick() };
    let start = LINEAR.seeded(1).unwrap();
    let error = train(&start, &clouds([9, 9, 9], 1.0), &tight, &Ticking::default(), &mut || Pause::Continue);
    assert!(matches!(error, Err(TrainError::Memory { .. })));
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let start = LINEAR.seeded(1).unwrap();
    let refused = |examples: &Examples, settings: &Settings| {
        let clock = Ticking::default();
        train(&start, examples, settings, &clock, &mut || Pause::Continue).unwrap_err().to_string()
    };
    let examples = clouds([9, 9, 9], 1.0);
    assert_eq!(refused(&Examples::new(2), &quick()), "there is no example to learn from");
    assert_eq!(refused(&Examples::new(3), &quick()), "the examples have 3 features, and the head takes 2");
    let mut other = Examples::new(2);
    other.push(&[0.0, 0.0], 3, picture(0)).unwrap();
    assert_eq!(refused(&other, &quick()), "an example is of class 3, and the head has 3");
    assert_eq!(refused(&examples, &Settings { epochs: 0, ..quick() }), "`epochs` cannot be 0");
    assert_eq!(refused(&examples, &Settings { rate: f64::NAN, ..quick() }), "`rate` cannot be NaN");
    let mut far = Examples::new(2);
    for number in 0..40 {
        far.push(&[1e30, -1e30], number % 3, picture(number as usize)).unwrap();
    }
    let wild = Settings { optimiser: Optimiser::Sgd, rate: 100.0, ..quick() };
    let error = refused(&far, &wild);
    assert!(error.starts_with("the loss is no number any more in epoch "), "{error}");
}
