//! Strategies against what Flower computes (`data/flower.json`: inputs and results of its own), and against simple
//! arithmetic where anything may come.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::sync::Arc;

use proptest::prelude::*;
use revoada_federated::{
    AggregateError, Contribution, InMemory, Layout, Mean, Optimiser, Robust, RobustError, ServerOptimiser, Weights,
};
use serde_json::Value;

const RELATIVE: f64 = 1e-5;
/// Flower sums in single precision: where numbers of about 1 cancel, so much of what is left is rounding.
const ABSOLUTE: f64 = 2e-7;

struct Flower {
    layout: Arc<Layout>,
    file: Value,
}

impl Flower {
    fn read() -> Self {
        let file: Value = serde_json::from_str(include_str!("data/flower.json")).unwrap();
        let shapes: Vec<Vec<usize>> = serde_json::from_value(file["shapes"].clone()).unwrap();
        let tensors = shapes.into_iter().enumerate().map(|(index, shape)| (index.to_string(), shape));
        Self { layout: Arc::new(Layout::new(tensors).unwrap()), file }
    }

    fn weights(&self, arrays: &Value) -> Weights {
        let arrays: Vec<Vec<f64>> = serde_json::from_value(arrays.clone()).unwrap();
        let values = arrays.concat().into_iter().map(|value| value as f32).collect();
        Weights::new(Arc::clone(&self.layout), values).unwrap()
    }

    fn updates(&self, clients: &Value) -> Vec<(Contribution<'static>, u64)> {
        let update = |client: &Value| {
            (Contribution::Full(self.weights(&client["arrays"])), client["num_examples"].as_u64().unwrap())
        };
        clients.as_array().unwrap().iter().map(update).collect()
    }

    fn zeros(&self) -> Weights {
        Weights::zeros(Arc::clone(&self.layout))
    }

    fn mean(&self, updates: &[(Contribution<'static>, u64)], global: &Weights) -> Weights {
        let mut mean = Mean::new(Arc::clone(&self.layout));
        updates.iter().for_each(|(update, examples)| mean.fold(update, *examples).unwrap());
        mean.finish(global).unwrap()
    }

    fn expect(&self, case: &str, round: usize, found: &Weights) {
        let expected = self.weights(&self.file["expected"][case][round]);
        for (index, (found, expected)) in found.values().iter().zip(expected.values()).enumerate() {
            let (found, expected) = (f64::from(*found), f64::from(*expected));
            let apart = (found - expected).abs();
            assert!(
                apart <= ABSOLUTE + RELATIVE * expected.abs(),
                "{case}, round {round}, {index}: {found}, not {expected}"
            );
        }
    }
}

#[test]
fn rounds_end_where_flowers_do() {
    let flower = Flower::read();
    let adam = |tau| Optimiser::Adam { rate: 0.1, beta1: 0.9, beta2: 0.99, tau };
    let yogi = Optimiser::Yogi { rate: 0.01, beta1: 0.9, beta2: 0.99, tau: 1e-3 };
    let momentum = Optimiser::Momentum { rate: 0.5, momentum: 0.9 };
    for (case, optimiser) in [
        ("serverapp.strategy.FedAvg", Optimiser::Average),
        ("server.strategy.FedAdam", adam(1e-9)),
        ("serverapp.strategy.FedAdam", adam(1e-3)),
        ("server.strategy.FedYogi", yogi),
        ("serverapp.strategy.FedYogi", yogi),
        ("server.strategy.FedAdagrad", Optimiser::Adagrad { rate: 0.1, tau: 1e-9 }),
        ("serverapp.strategy.FedAdagrad", Optimiser::Adagrad { rate: 0.1, tau: 1e-3 }),
        ("server.strategy.FedAvgM_lr0.5_m0.9", momentum),
        ("serverapp.strategy.FedAvgM_lr0.5_m0.9", momentum),
    ] {
        let (mut server, mut global) = (ServerOptimiser::new(optimiser).unwrap(), flower.weights(&flower.file["init"]));
        for (round, clients) in flower.file["rounds"].as_array().unwrap().iter().enumerate() {
            let mean = flower.mean(&flower.updates(clients), &global);
            global = server.step(&global, &mean).unwrap();
            flower.expect(case, round, &global);
            // A server that was restarted goes on where it was.
            let kept = serde_json::to_string(&server).unwrap();
            server = serde_json::from_str(&kept).unwrap();
        }
    }
}

#[test]
fn one_round_gives_what_flower_gives() {
    let flower = Flower::read();
    let (updates, global) = (flower.updates(&flower.file["clients"]), flower.zeros());
    flower.expect("aggregate", 0, &flower.mean(&updates, &global));
    let updates = InMemory { global: &global, updates: &updates };
    for (case, strategy) in [
        ("aggregate_median", Robust::Median),
        ("serverapp.strategy.FedMedian", Robust::Median),
        ("aggregate_trimmed_avg_0.2", Robust::TrimmedMean { share: 0.2 }),
        ("serverapp.strategy.FedTrimmedAvg_0.2", Robust::TrimmedMean { share: 0.2 }),
        ("aggregate_krum_f1_keep0", Robust::Krum { liars: 1 }),
        ("serverapp.strategy.Krum_f1", Robust::Krum { liars: 1 }),
        ("aggregate_krum_f1_keep3", Robust::MultiKrum { liars: 1, keep: 3 }),
        ("serverapp.strategy.MultiKrum_f1_s3", Robust::MultiKrum { liars: 1, keep: 3 }),
    ] {
        flower.expect(case, 0, &strategy.aggregate(&flower.layout, &updates).unwrap());
    }
}

#[test]
fn what_cannot_be_aggregated_is_refused() {
    let flower = Flower::read();
    let global = flower.zeros();
    let none = Mean::new(Arc::clone(&flower.layout));
    assert_eq!(none.clone().finish(&global), Err(AggregateError::NoUpdate));
    let mut mean = none;
    assert_eq!(mean.fold(&Contribution::Full(global.clone()), 0), Err(AggregateError::NoExamples));
    let other = Weights::zeros(Arc::new(Layout::new([("other".to_owned(), vec![17])]).unwrap()));
    assert_eq!(mean.fold(&Contribution::Full(other.clone()), 1), Err(AggregateError::Layout));
    assert_eq!(mean.updates(), 0, "what is refused does not count");

    let updates = vec![(Contribution::Full(global.clone()), 1); 4];
    let refusal = |strategy: Robust, count: usize| {
        let updates = InMemory { global: &global, updates: &updates[..count] };
        strategy.aggregate(&flower.layout, &updates).unwrap_err()
    };
    assert!(matches!(refusal(Robust::Median, 0), RobustError::TooFew { found: 0, needed: 1 }));
    assert!(matches!(refusal(Robust::Krum { liars: 1 }, 4), RobustError::TooFew { found: 4, needed: 5 }));
    let keep = Robust::MultiKrum { liars: 0, keep: 5 };
    assert!(matches!(refusal(keep, 4), RobustError::Keep { updates: 4, liars: 0, keep: 5 }));
    assert!(matches!(refusal(Robust::TrimmedMean { share: 0.5 }, 4), RobustError::Share { .. }));
}

/// Larger than what is looked at at a time, and no multiple of it.
const LENGTH: usize = 20_000;

#[test]
fn liars_move_a_mean_and_no_median() {
    let layout = Arc::new(Layout::new([("w".to_owned(), vec![LENGTH])]).unwrap());
    let of = |value: f32| Contribution::Full(Weights::new(Arc::clone(&layout), vec![value; LENGTH]).unwrap());
    let global = Weights::zeros(Arc::clone(&layout));
    let honest = (0..8).map(|index| (of(1.0 + index as f32 / 100.0), 10));
    let updates: Vec<_> = honest.chain([(of(-10.0), 1_000_000), (of(-11.0), 1_000_000)]).collect();
    let mut mean = Mean::new(Arc::clone(&layout));
    updates.iter().for_each(|(update, examples)| mean.fold(update, *examples).unwrap());
    assert!(mean.finish(&global).unwrap().values().iter().all(|value| *value < -10.0));
    let updates = InMemory { global: &global, updates: &updates };
    for strategy in [
        Robust::Median,
        Robust::TrimmedMean { share: 0.2 },
        Robust::Krum { liars: 2 },
        Robust::MultiKrum { liars: 2, keep: 5 },
    ] {
        let found = strategy.aggregate(&layout, &updates).unwrap();
        assert!(found.values().iter().all(|value| (1.0..1.1).contains(value)), "{strategy:?}");
    }
}

#[test]
fn many_at_once_are_the_same_as_one_after_another() {
    // For several threads, and with a rest.
    let length = 300_001;
    let layout = Arc::new(Layout::new([("w".to_owned(), vec![length])]).unwrap());
    let update = |seed: usize| {
        let values = (0..length).map(|index| ((index * 31 + seed * 17) % 1009) as f32 / 1009.0 - 0.5).collect();
        Contribution::Full(Weights::new(Arc::clone(&layout), values).unwrap())
    };
    let updates: Vec<(Contribution<'static>, u64)> = (0..5).map(|seed| (update(seed), seed as u64 + 1)).collect();
    let global = Weights::zeros(Arc::clone(&layout));
    let (mut single, mut all) = (Mean::new(Arc::clone(&layout)), Mean::new(Arc::clone(&layout)));
    updates.iter().for_each(|(update, examples)| single.fold(update, *examples).unwrap());
    let borrowed: Vec<_> = updates.iter().map(|(update, examples)| (update, *examples)).collect();
    all.fold_all(&borrowed).unwrap();
    let expected = updates.iter().map(|(update, part)| f64::from(update.difference(&global)[1234]) * *part as f64);
    let found = all.finish(&global).unwrap();
    assert!((f64::from(found.values()[1234]) - expected.sum::<f64>() / 15.0).abs() < 1e-6);
    assert_eq!(single.finish(&global).unwrap(), found);

    let mut none = Mean::new(layout);
    assert_eq!(none.fold_all(&[(&updates[0].0, 1), (&updates[1].0, 0)]), Err(AggregateError::NoExamples));
    assert_eq!(none.finish(&global), Err(AggregateError::NoUpdate), "none of them counts");
}

fn some_updates() -> impl Strategy<Value = (Vec<Vec<f32>>, Vec<u64>, Vec<bool>)> {
    (1_usize..9, 1_usize..5).prop_flat_map(|(updates, length)| {
        let row = prop::collection::vec(-1e3_f32..1e3, length);
        (
            prop::collection::vec(row, updates),
            prop::collection::vec(1_u64..1000, updates),
            prop::collection::vec(any::<bool>(), updates),
        )
    })
}

proptest! {
    /// A difference is its weights sent otherwise, and the order in which updates come does not matter.
    #[test]
    fn a_mean_is_of_weights_however_they_are_sent((rows, examples, are_deltas) in some_updates(), start: u8) {
        let layout = Arc::new(Layout::new([("w".to_owned(), vec![rows[0].len()])]).unwrap());
        let of = |values: Vec<f32>| Weights::new(Arc::clone(&layout), values).unwrap();
        let global = of(vec![f32::from(start); rows[0].len()]);
        let mut mean = Mean::new(Arc::clone(&layout));
        let mut updates: Vec<_> = rows.iter().zip(&examples).zip(&are_deltas).collect();
        updates.rotate_left(usize::from(start) % rows.len());
        for ((row, examples), is_delta) in updates {
            let update = match is_delta {
                true => Contribution::Delta(of(row.iter().map(|value| value - f32::from(start)).collect())),
                false => Contribution::Full(of(row.clone())),
            };
            mean.fold(&update, *examples).unwrap();
        }
        let found = mean.finish(&global).unwrap();
        let all: u64 = examples.iter().sum();
        for (index, found) in found.values().iter().enumerate() {
            let sum: f64 = rows.iter().zip(&examples).map(|(row, part)| f64::from(row[index]) * *part as f64).sum();
            prop_assert!((f64::from(*found) - sum / all as f64).abs() < 1e-3, "{found}");
        }
    }

    /// As whole columns, sorted, say.
    #[test]
    fn medians_and_trimmed_means_are_those_of_sorted_numbers((rows, examples, _) in some_updates(), share in 0.0..0.5) {
        let layout = Arc::new(Layout::new([("w".to_owned(), vec![rows[0].len()])]).unwrap());
        let of = |values: &Vec<f32>| Contribution::Full(Weights::new(Arc::clone(&layout), values.clone()).unwrap());
        let updates: Vec<_> = rows.iter().map(of).zip(examples).collect();
        let global = Weights::zeros(Arc::clone(&layout));
        let updates = InMemory { global: &global, updates: &updates };
        let medians = Robust::Median.aggregate(&layout, &updates).unwrap();
        let trimmed = Robust::TrimmedMean { share }.aggregate(&layout, &updates).unwrap();
        let (count, cut) = (rows.len(), (share * rows.len() as f64) as usize);
        for index in 0..rows[0].len() {
            let mut column: Vec<f64> = rows.iter().map(|row| f64::from(row[index])).collect();
            column.sort_by(f64::total_cmp);
            let median = (column[(count - 1) / 2] + column[count / 2]) / 2.0;
            prop_assert!((f64::from(medians.values()[index]) - median).abs() < 1e-3);
            let kept = &column[cut..count - cut];
            let mean = kept.iter().sum::<f64>() / kept.len() as f64;
            prop_assert!((f64::from(trimmed.values()[index]) - mean).abs() < 1e-3);
        }
    }
}
