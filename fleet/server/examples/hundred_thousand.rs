//! How long it takes to plan a rollout for 100,000 devices and to store what was planned, all of them at once, and in waves
//! from the first plan to the last: `cargo run --release --package revoada-fleet --example hundred_thousand`.

#![forbid(unsafe_code)]

use std::error::Error;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use revoada_core::{Digest, Timestamp};
use revoada_fleet::planner::{
    Blueprint, Gate, Intent, Limits, Measure, Observations, Percent, Phase, Policy, Retry, Rollout, RolloutId, Size,
    Wave, plan,
};
use revoada_fleet::store::Rollouts;
use revoada_fleet::store::sqlite::Sqlite;
use revoada_fleet::{Device, Inventory};
use revoada_proto::{Deployable, DeviceId, Figures, Generation, Kind, Progress, Report};

const DEVICES: usize = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let percent = |percent| Percent::new(percent).expect("this is below 100");
    let wave = |size| Wave { size, done: percent(95), timeout: Duration::from_hours(6), soak: Duration::from_mins(10) };
    let all = || wave(Size::Share(Percent::ALL));
    let at_once = play(vec![all()], DEVICES as u32)?;
    let Spent { planned, stored } = at_once[0];
    println!("{DEVICES} devices at once: {planned:.2?} to plan, {stored:.2?} to store");

    let mut spent = play(vec![wave(Size::Devices(100)), wave(Size::Share(percent(10))), all()], 5_000)?;
    let (plans, last) = (spent.len(), spent[spent.len() - 1]);
    let sum = |time: fn(&Spent) -> Duration| spent.iter().map(time).sum::<Duration>();
    let (planned, stored) = (sum(|spent| spent.planned), sum(|spent| spent.stored));
    println!(
        "in three waves, 5,000 in flight: {plans} plans, {planned:.1?} to plan and {stored:.1?} to store them all"
    );
    spent.sort_by_key(|spent| spent.planned);
    println!("a plan took {:.0?} in the median and {:.0?} at most", spent[plans / 2].planned, spent[plans - 1].planned);
    println!("one more, in which nothing changes, took {:.0?}", last.planned);
    Ok(())
}

/// What one planning took.
#[derive(Clone, Copy)]
struct Spent {
    planned: Duration,
    stored: Duration,
}

/// Plans a rollout minute by minute, each device having done what it was ordered by the next one. The last plan is that of
/// the minute in which nothing is left to do.
fn play(waves: Vec<Wave>, in_flight_max: u32) -> Result<Vec<Spent>, Box<dyn Error>> {
    let number = |number| NonZeroU32::new(number).expect("these are above zero");
    let limits = Limits {
        in_flight_max: number(in_flight_max),
        orders_per_minute_max: number(in_flight_max),
        away_after: Duration::from_mins(10),
        answer_timeout: Duration::from_mins(30),
    };
    let breaches_max = Percent::new(5).expect("this is below 100");
    let gate = |measure| Gate { measure, breaches_max, samples_min: number(50), over_min: Duration::from_mins(1) };
    let rollout = Rollout {
        deployable: Deployable { kind: Kind::Model, digest: Digest::new([2; 32]) },
        filter: "tag = camera and version >= 1.0.0 and fact.streams < 8".parse()?,
        waves,
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
    let folder = tempfile::tempdir()?;
    let store = Sqlite::open(&folder.path().join("fleet.db"))?;

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
    let (mut spent, mut sequence) = (Vec::new(), 1);
    loop {
        for device in inventory.devices.values_mut() {
            device.seen = Some(now);
        }
        let begun = Instant::now();
        let next = plan(&policy, &inventory, &observations, &blueprint, now).blueprint;
        let planned = begun.elapsed();
        let is_over = next.is_none() && matches!(blueprint.rollouts[&RolloutId(1)].phase, Phase::Finished { .. });
        let begun = Instant::now();
        if let Some(next) = next {
            assert!(store.swap_blueprint(&blueprint, &next)?, "nobody else plans");
            blueprint = next;
        }
        spent.push(Spent { planned, stored: begun.elapsed() });
        if is_over {
            assert_eq!(blueprint.targets.len(), DEVICES, "every device was ordered");
            return Ok(spent);
        }
        sequence += 1;
        for (id, target) in blueprint.targets.iter() {
            observations.observe(id.clone(), report(sequence, target.order.generation, 2));
        }
        now = now + Duration::from_mins(1);
    }
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
