//! Runs of learning that are over, and one that waits for its night.

use std::num::NonZeroUsize;
use std::time::Duration;

use revoada_core::{Digest, Timestamp};
use revoada_federated::{Head, Layout, Member, Participant, Phase, Standing, Terms};
use revoada_fleet::learning::{HeldWeights, MemberRecord, MemberResult, RoundRecord, RoundResult, RunPhase, RunState};
use revoada_fleet::service::RunForm;
use revoada_fleet::store::{Actor, RunChanges, Store};
use serde_json::{Value, json};

use crate::{Outcome, registry};

const ROUNDS: u64 = 20;
const CLIENTS: u64 = 6;

pub(crate) fn write(store: &dyn Store, anna: &Actor, now: Timestamp) -> Outcome {
    let runs = [
        ("Gloves, plain", json!({ "name": "FedAvg" }), 0.82, 3),
        ("Gloves, with momentum", json!({ "name": "FedAvgM", "server_momentum": 0.9 }), 0.93, 2),
    ];
    for (title, strategy, best, days) in runs {
        let began = Timestamp::ZERO + (now.since(Timestamp::ZERO) - Duration::from_hours(24 * days));
        let form: RunForm = serde_json::from_value(json!({ "rounds": ROUNDS, "strategy": strategy }))?;
        let id = store.add_run(title, &form.read(None)?, anna, began)?;
        let state = RunState { phase: RunPhase::Finished, round: ROUNDS, ..RunState::new() };
        let rounds = (1..=ROUNDS).map(|number| round(number, best, began)).collect();
        let members = (0..CLIENTS).map(|index| member(index, best)).collect();
        store.change_run(id, &RunChanges { state: Some(state), rounds, members, files: Vec::new() })?;
    }
    let tomorrow = String::from(revoada_fleet::api::Time(now + Duration::from_hours(9)));
    let form: Value = json!({ "rounds": 10, "participants_min": 8, "starts_at": tomorrow, "strategy": { "name": "Krum" },
        "quorum": 5, "sample": "50%" });
    let form: RunForm = serde_json::from_value(form)?;
    store.add_run("Night shift, with liars kept out", &form.read(None)?, anna, now)?;
    by_devices(store, anna, Timestamp::ZERO + (now.since(Timestamp::ZERO) - Duration::from_hours(24)))
}

/// One of devices, whose weights can be released.
fn by_devices(store: &dyn Store, anna: &Actor, began: Timestamp) -> Outcome {
    let form =
        json!({ "rounds": ROUNDS, "devices": { "model": "gloves", "version": "1.0.0", "filter": "tag = hall" } });
    let form: RunForm = serde_json::from_value(form)?;
    let plan = form.read(Some(registry::digest("gloves", "1.0.0")))?;
    let id = store.add_run("Gloves, by the devices of the hall", &plan, anna, began)?;
    let weights = HeldWeights {
        digest: revoada_bundle::hash(b"a head"),
        bytes: 2 * 4 * 1281,
        layout: Layout::new([("weight".to_owned(), vec![2, 1280]), ("bias".to_owned(), vec![2])])?,
        elements: Vec::new(),
        labels: ["gloves", "bare hands"].map(str::to_owned).into(),
    };
    let state = RunState { phase: RunPhase::Finished, round: ROUNDS, weights: Some(weights), ..RunState::new() };
    let rounds = (1..=ROUNDS).map(|number| round(number, 0.95, began)).collect();
    store.change_run(id, &RunChanges { state: Some(state), rounds, members: Vec::new(), files: Vec::new() })?;
    Ok(())
}

/// A curve that rises fast and then slowly.
fn reached(round: u64, best: f64) -> f64 {
    best * (1.0 - (-(round as f64) / 5.0).exp())
}

fn round(number: u64, best: f64, began: Timestamp) -> RoundRecord {
    let terms = Terms {
        quorum: NonZeroUsize::MIN.saturating_add(1),
        enough: None,
        time_max: Duration::from_mins(10),
        refusals_max: 3,
    };
    let began = began + Duration::from_secs(40 * number);
    let phase = Phase::Finished { weights: Digest::new([number as u8; 32]) };
    let accuracy = reached(number, best);
    let result = RoundResult {
        ended: Some(began + Duration::from_secs(31)),
        invited: CLIENTS as usize,
        updates: CLIENTS as usize - usize::from(number == 7),
        refused: u64::from(number == 7),
        examples: 2400,
        bytes_received: 18 << 20,
        bytes_sent: 18 << 20,
        fit: vec![("train_loss".to_owned(), 2.2 - 1.9 * accuracy)],
        evaluation: vec![("accuracy".to_owned(), accuracy), ("loss".to_owned(), 2.3 - 2.0 * accuracy)],
        evaluated_by: CLIENTS as usize,
        ..RoundResult::default()
    };
    RoundRecord { head: Head { number, base: Digest::new([0; 32]), terms, began, phase }, result }
}

fn member(index: u64, best: f64) -> (u64, Participant, MemberRecord) {
    let name = revoada_bundle::hash(&index.to_le_bytes()).hex();
    let standing = Standing::Sent { update: Digest::new([index as u8; 32]), examples: 400 };
    let result = MemberResult {
        bytes: 3 << 20,
        norm: Some(0.4 + 0.1 * index as f64),
        seconds: Some(18.0 + 2.0 * index as f64),
        fit: vec![("train_loss".to_owned(), 2.2 - 1.9 * best + 0.02 * index as f64)],
        evaluation: Vec::new(),
    };
    let member = Member { standing, refusals: 0, refused: None };
    (ROUNDS, Participant(format!("join/{}", &name[..32])), MemberRecord { member, result })
}
