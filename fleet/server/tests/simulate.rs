//! Virtual devices against a whole service, through its sockets. `REVOADA_SEED=7` chooses other faults.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use revoada_fleet::simulate::{Faults, Options, Progress, Summary, run};

const SEED: u64 = 20_260_504;

fn seed() -> u64 {
    let seed = std::env::var("REVOADA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    println!("REVOADA_SEED={seed}");
    seed
}

fn simulate(options: &Options) -> Summary {
    let summary = run(options, &Progress::default()).unwrap();
    println!("{summary}");
    assert_eq!(summary.failures, Vec::<String>::new());
    assert_eq!(summary.failures_count, 0);
    assert!(summary.rollouts.iter().all(|rollout| rollout.phase == "finished"));
    assert_eq!(summary.rollouts.len(), options.rollouts);
    assert_eq!(summary.commands_asked, options.commands as u64);
    summary
}

#[test]
fn a_fleet_in_a_bad_network_loses_nothing_and_does_nothing_twice() {
    let options = Options { devices: 200, seed: seed(), faults: Faults::Mild, commands: 200, ..Options::default() };
    let summary = simulate(&options);
    // It was bad.
    for (what, count) in [
        ("lost", summary.messages_lost),
        ("doubled", summary.messages_doubled),
        ("reboots", summary.reboots),
        ("reconnects", summary.reconnects),
        ("fetched", summary.blobs_fetched),
    ] {
        assert!(count > 0, "{what}: {summary}");
    }
    assert!(summary.events_stored >= summary.orders_applied + summary.commands_done - summary.liars as u64);
}

#[test]
fn liars_and_the_worst_of_networks_harm_nobody_else() {
    let options =
        Options { devices: 60, seed: seed(), faults: Faults::Wild, rollouts: 3, commands: 100, ..Options::default() };
    let summary = simulate(&options);
    assert!(summary.liars > 0 && summary.orders_failed > 0, "{summary}");
}

#[test]
fn every_update_of_a_fleet_that_learns_in_the_worst_of_networks_is_counted_once() {
    let options = Options {
        devices: 200,
        seed: seed(),
        faults: Faults::Wild,
        rollouts: 0,
        commands: 0,
        rounds: 3,
        ..Options::default()
    };
    // That the weights are what has to come of the updates is judged with all else.
    let summary = simulate(&options);
    assert_eq!(summary.rounds.len(), 3, "{summary}");
    for round in &summary.rounds {
        assert_eq!((round.status.as_str(), round.refused), ("finished", 0), "{summary}");
        assert!(round.updates == round.invited && round.updates >= 150, "{summary}");
    }
    assert!(summary.updates_brought > 450 && summary.messages_lost > 0 && summary.reboots > 0, "{summary}");
}

#[test]
fn two_thousand_devices_in_a_bad_network_lose_nothing() {
    if std::env::var_os("REVOADA_FULL").is_none() {
        eprintln!("skipped: two thousand devices take minutes; `cargo xtask test --full` has them");
        return;
    }
    let options = Options {
        devices: 2_000,
        seed: seed(),
        faults: Faults::Mild,
        rollouts: 2,
        commands: 2_000,
        heartbeat: std::time::Duration::from_secs(20),
        patience: std::time::Duration::from_mins(5),
        ..Options::default()
    };
    simulate(&options);
}
