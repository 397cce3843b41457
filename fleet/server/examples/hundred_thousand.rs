//! How long it takes to plan a rollout for 100,000 devices, from the first plan to the last: `cargo run --release --package
//! revoada-fleet --example hundred_thousand`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use revoada_core::{Digest, Timestamp};
use revoada_fleet::planner::{
    Blueprint, Gate, Intent, Limits, Measure, Observations, Percent, Phase, Policy, Retry, Rollout, RolloutId, Size,
    Wave, plan,
};
use revoada_fleet::{Device, Inventory};
use revoada_proto::{Deployable, DeviceId, Figures, Generation, Kind, Progress, Report};

const DEVICES: usize = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let number = |number| NonZeroU32::new(number).expect("these are above zero");
    let percent = |percent| Percent::new(percent).expect("these are below 100");
    let limits = Limits {
        in_flight_max: number(5_000),
        orders_per_minute_max: number(5_000),
        away_after: Duration::from_mins(10),
        answer_timeout: Duration::from_mins(30),
    };
    let wave = |size| Wave { size, done: percent(95), timeout: Duration::from_hours(6), soak: Duration::from_mins(10) };
    let gate =
        |measure| Gate { measure, breaches_max: percent(5), samples_min: number(50), over_min: Duration::from_mins(1) };
    let deployable = Deployable { kind: Kind::Model, digest: Digest::new([2; 32]) };
    let rollout = Rollout {
        deployable,
        filter: "tag = camera and version >= 1.0.0 and fact.streams < 8".parse()?,
        waves: vec![wave(Size::Devices(100)), wave(Size::Share(percent(10))), wave(Size::Share(Percent::ALL))],
        gates: vec![
            gate(Measure::Outcome),
            gate(Measure::Fps { of_before_min: 0.9 }),
            gate(Measure::Latency { of_before_max: 1.2 }),
            gate(Measure::Temperature { celsius_max: 85.0 }),
        ],
        retry: Retry { attempts_max: number(3), delay: Duration::from_mins(1), delay_max: Duration::from_mins(10) },
        intent: Intent::Run,
    };
    let mut policy = Policy::new(limits, 7);
    policy.add(RolloutId(1), rollout)?;

    let (mut inventory, mut observations) = (Inventory::default(), Observations::default());
    for index in 0..DEVICES {
        let id: DeviceId = format!("camera-{index:06}").parse()?;
        let device = Device {
            tags: ["camera".to_owned(), format!("site-{}", index / 100)].into(),
            version: Some("1.2.0".parse()?),
            facts: [("streams".to_owned(), revoada_proto::Fact::Number((index % 8) as f64))].into(),
            ..Device::default()
        };
        observations.observe(id.clone(), report(1, Generation(0), 1));
        inventory.devices.insert(id, device);
    }

    let (mut blueprint, mut now) = (Blueprint::default(), Timestamp::from_nanos(1_700_000_000_000_000_000));
    let mut times = Vec::new();
    for sequence in 2.. {
        for device in inventory.devices.values_mut() {
            device.seen = Some(now);
        }
        let begun = Instant::now();
        let planned = plan(&policy, &inventory, &observations, &blueprint, now);
        times.push(begun.elapsed());
        if let Some(next) = planned.blueprint {
            blueprint = next;
        }
        for (id, target) in blueprint.targets.iter() {
            observations.observe(id.clone(), report(sequence, target.order.generation, 2));
        }
        now = now + Duration::from_mins(1);
        if matches!(blueprint.rollouts[&RolloutId(1)].phase, Phase::Finished { .. }) {
            break;
        }
    }
    let begun = Instant::now();
    let planned = plan(&policy, &inventory, &observations, &blueprint, now);
    let idle = begun.elapsed();

    times.sort_unstable_by_key(|time| std::cmp::Reverse(*time));
    println!("{DEVICES} devices, {} of them ordered", blueprint.targets.len());
    println!("{} plans from the first to the last: {:.2?} together", times.len(), times.iter().sum::<Duration>());
    println!("the longest took {:.0?}, the median {:.0?}", times[0], times[times.len() / 2]);
    println!(
        "one more, in which {}, took {idle:.0?}",
        if planned.blueprint.is_none() { "nothing changes" } else { "much changes" }
    );
    Ok(())
}

fn report(sequence: u64, generation: Generation, version: u8) -> Report {
    Report {
        sequence,
        generation,
        progress: Progress::Done,
        running: [(Kind::Model, Digest::new([version; 32]))].into(),
        figures: Figures {
            over: Duration::from_mins(10),
            fps: Some(25.0),
            latency_ms: Some(40.0),
            temperature_c: Some(60.0),
            ..Figures::default()
        },
    }
}
