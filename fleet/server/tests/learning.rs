//! Runs of learning, by participants that speak no protocol.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revoada_federated::npy::{self, Element};
use revoada_federated::{Participant, Weights, from_safetensors};
use revoada_fleet::learning::{
    Board, Door, MemberRecord, Presence, Reply, Reported, RoundRecord, RunId, RunIntent, RunPhase, Sheet, Task, Tensor,
    Value, Work,
};
use revoada_fleet::serve::Service;
use revoada_fleet::service::{Principal, RunForm};
use revoada_fleet::settings::Settings;
use revoada_fleet::store::RunRecord;
use serde_json::{Value as Json, json};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// A service with nothing but runs.
struct World {
    service: Service,
}

impl World {
    async fn start(folder: &Path) -> Self {
        let local = ([127, 0, 0, 1], 0).into();
        let mut settings = Settings { mqtt: local, devices: local, ..Settings::in_folder(folder) };
        settings.operators.address = local;
        Self { service: Service::start(&settings).await.unwrap() }
    }

    fn board(&self) -> &Arc<Board> {
        &self.service.board
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&revoada_fleet::service::Fleet, &Principal) -> revoada_fleet::service::Result<T>
        + Send
        + 'static,
    ) -> T {
        let fleet = Arc::clone(&self.service.fleet);
        tokio::task::spawn_blocking(move || question(&fleet, &Principal::service())).await.unwrap().unwrap()
    }

    async fn add(&self, form: Json) -> RunId {
        let form: RunForm = serde_json::from_value(form).unwrap();
        self.ask(move |fleet, by| fleet.add_run(by, &form)).await
    }

    async fn run(&self, id: RunId) -> RunRecord {
        self.ask(move |fleet, by| fleet.run(by, id)).await
    }

    async fn rounds(&self, id: RunId) -> Vec<RoundRecord> {
        self.ask(move |fleet, by| fleet.rounds(by, id)).await
    }

    async fn members(&self, id: RunId, round: u64) -> BTreeMap<Participant, MemberRecord> {
        self.ask(move |fleet, by| fleet.round_members(by, id, round)).await
    }

    /// Waits until something is so of a run.
    async fn until(&self, id: RunId, what: &str, is_so: impl Fn(&RunRecord) -> bool) -> RunRecord {
        let mut changes = self.service.fleet.watch();
        let wait = async {
            loop {
                let record = self.run(id).await;
                if is_so(&record) {
                    return record;
                }
                // What was missed shows in the record.
                drop(timeout(Duration::from_millis(200), changes.recv()).await);
            }
        };
        match timeout(PATIENCE, wait).await {
            Ok(record) => record,
            Err(_) => panic!("run {id} is not {what}: {:?}", self.run(id).await.state),
        }
    }

    async fn until_over(&self, id: RunId) -> RunRecord {
        self.until(id, "over", |record| record.state.phase.is_over()).await
    }

    /// The newest weights of a run.
    async fn weights(&self, folder: &Path, id: RunId) -> Weights {
        let held = self.run(id).await.state.weights.unwrap();
        let hex = held.digest.hex();
        let bytes = std::fs::read(folder.join("blobs/objects/sha256").join(&hex[..2]).join(&hex)).unwrap();
        from_safetensors(&bytes, Some(&Arc::new(held.layout))).unwrap()
    }
}

/// How a participant behaves.
#[derive(Clone, Copy, Debug)]
struct Manner {
    adds: f32,
    examples: u64,
}

fn tensors(values: &[f32]) -> Vec<Tensor> {
    let (weight, bias) = values.split_at(4);
    let tensor = |element, shape: &[usize], values: &[f32]| Tensor {
        name: None,
        array: npy::write(element, shape, values).into(),
    };
    vec![tensor(Element::F32, &[2, 2], weight), tensor(Element::F64, &[1], bias)]
}

fn learned(sheet: &Sheet, manner: Manner) -> Reply {
    let values: Vec<f32> = sheet.weights().values().iter().map(|value| value + manner.adds).collect();
    let metrics = [("train_loss".to_owned(), Value::Double(f64::from(manner.adds)))].into();
    Reply::Fit { tensors: tensors(&values), reported: Reported { examples: manner.examples, metrics } }
}

fn answer(task: &Task, manner: Manner) -> Option<Reply> {
    Some(match &task.work {
        Work::Parameters { .. } => Reply::Parameters(tensors(&[0.0; 5])),
        Work::Fit { weights, .. } => learned(weights, manner),
        Work::Evaluate { weights, .. } => Reply::Evaluate {
            loss: Some(f64::from(weights.weights().values()[0])),
            reported: Reported { examples: manner.examples, ..Reported::default() },
        },
        Work::Leave => return None,
    })
}

/// Does as it is asked, until it is told to leave. What it was told of its answers.
fn learn(mut presence: Presence, manner: Manner) -> JoinHandle<Vec<Result<(), String>>> {
    tokio::spawn(async move {
        let (mut last, mut verdicts) = (0, Vec::new());
        while let Some(task) = presence.next(last).await {
            last = task.number;
            let Some(reply) = answer(&task, manner) else { break };
            verdicts.push(presence.answer(task, reply).await);
        }
        verdicts
    })
}

fn named(text: &str) -> Participant {
    Participant(text.to_owned())
}

fn join(board: &Arc<Board>, name: &str, manner: Manner) -> JoinHandle<Vec<Result<(), String>>> {
    learn(board.arrive(named(name), Door::Join).unwrap(), manner)
}

const ONE: Manner = Manner { adds: 1.0, examples: 10 };
const TWO: Manner = Manner { adds: 2.0, examples: 20 };
const POISON: Manner = Manner { adds: f32::NAN, examples: 10 };

#[tokio::test(flavor = "multi_thread")]
async fn a_run_reaches_the_weights_that_its_strategy_says() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let clients = [join(world.board(), "join/a", ONE), join(world.board(), "join/b", TWO)];
    let id = world.add(json!({ "rounds": 3 })).await;
    let record = world.until_over(id).await;
    assert_eq!((record.state.phase, record.state.round), (RunPhase::Finished, 3));
    let weights = world.weights(folder.path(), id).await;
    weights.values().iter().for_each(|value| assert!((value - 5.0).abs() < 1e-5, "{value}"));
    let rounds = world.rounds(id).await;
    assert_eq!(rounds.len(), 3);
    let last = &rounds[2].result;
    assert_eq!((last.invited, last.updates, last.refused, last.examples), (2, 2, 0, 30));
    assert!((last.fit[0].1 - 5.0 / 3.0).abs() < 1e-6, "{:?}", last.fit);
    assert!((last.evaluation[0].1 - 5.0).abs() < 1e-5, "{:?}", last.evaluation);
    // They are dismissed, and everything they sent counted.
    for client in clients {
        let verdicts = timeout(PATIENCE, client).await.unwrap().unwrap();
        assert!(verdicts.iter().all(Result::is_ok), "{verdicts:?}");
    }
    world.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_participant_is_refused_and_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let _good = [join(world.board(), "join/a", ONE), join(world.board(), "join/b", TWO)];
    let bad = join(world.board(), "join/c", POISON);
    let id = world.add(json!({ "rounds": 2, "participants_min": 2, "refusals_max": 2 })).await;
    let record = world.until_over(id).await;
    assert_eq!(record.state.phase, RunPhase::Finished);
    assert_eq!(record.state.set_aside, [named("join/c")].into());
    let members = world.members(id, 1).await;
    let (status, why) = members[&named("join/c")].status();
    assert_eq!(status, "set-aside");
    assert!(why.unwrap().contains("a value that is no number"), "{why:?}");
    let rounds = world.rounds(id).await;
    assert_eq!(rounds.iter().map(|round| round.result.refused).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(rounds[1].result.invited, 2, "it is not invited again");
    let weights = world.weights(folder.path(), id).await;
    weights.values().iter().for_each(|value| assert!((value - 10.0 / 3.0).abs() < 1e-5, "{value}"));
    let verdicts = timeout(PATIENCE, bad).await.unwrap().unwrap();
    assert!(verdicts.iter().any(Result::is_err));
    world.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_goes_on_after_a_restart() {
    for strategy in ["FedAvg", "FedMedian"] {
        let folder = tempfile::tempdir().unwrap();
        let world = World::start(folder.path()).await;
        // Weights to begin with, since nobody who comes again can say them.
        let first = join(world.board(), "join/first", ONE);
        let begun = world.add(json!({ "rounds": 1, "participants_min": 1, "quorum": 1, "evaluate": false })).await;
        world.until_over(begun).await;
        first.await.unwrap();
        let digest = world.run(begun).await.state.weights.unwrap().digest;
        let quick = learn(world.board().arrive(named("node/1"), Door::Node).unwrap(), ONE);
        let mut slow = world.board().arrive(named("node/2"), Door::Node).unwrap();
        let app = json!({ "digest": digest, "id": "a/b", "version": "1" });
        let form = json!({ "rounds": 1, "weights": digest, "strategy": { "name": strategy }, "app": app });
        let id = world.add(form).await;
        let task = timeout(PATIENCE, slow.next(0)).await.unwrap().unwrap();
        let wait = async {
            while world.members(id, 1).await.get(&named("node/1")).is_none_or(|it| it.status().0 != "sent") {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap();
        drop((slow, task));
        quick.abort();
        world.service.stop().await;

        let world = World::start(folder.path()).await;
        // One was heard and is not asked again; the other one is.
        let mut quick = world.board().arrive(named("node/1"), Door::Node).unwrap();
        let slow = learn(world.board().arrive(named("node/2"), Door::Node).unwrap(), TWO);
        let asked = timeout(PATIENCE, quick.next(0)).await.unwrap().unwrap();
        assert!(matches!(asked.work, Work::Evaluate { .. }), "{strategy}: {:?}", asked.work);
        let reply = answer(&asked, ONE).unwrap();
        quick.answer(asked, reply).await.unwrap();
        let record = world.until_over(id).await;
        assert_eq!(record.state.phase, RunPhase::Finished, "{strategy}");
        let expected = if strategy == "FedAvg" { 1.0 + 5.0 / 3.0 } else { 1.0 + 1.5 };
        let weights = world.weights(folder.path(), id).await;
        let is_close = weights.values().iter().all(|value| (value - expected).abs() < 1e-5);
        assert!(is_close, "{strategy}: {:?}", weights.values());
        slow.abort();
        drop(quick);
        world.service.stop().await;
        assert!(!folder.path().join("learning").join(id.to_string()).exists(), "updates are gone with the run");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_that_cannot_end_are_called_off_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let _good = join(world.board(), "join/a", ONE);
    let mut mute = world.board().arrive(named("join/b"), Door::Join).unwrap();
    let id = world.add(json!({ "rounds": 5, "failures_max": 2, "round_timeout": "1s" })).await;
    let task = timeout(PATIENCE, mute.next(0)).await.unwrap().unwrap();
    assert!(matches!(task.work, Work::Fit { .. } | Work::Parameters { .. }));
    let record = world.until_over(id).await;
    let RunPhase::Failed { why } = record.state.phase else { panic!("{:?}", record.state) };
    assert!(why.contains("1 updates came in time; the quorum is 2"), "{why}");
    assert!(world.rounds(id).await.iter().all(|round| round.status().0 == "called-off"));
    world.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_paused_stopped_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let _clients = [join(world.board(), "join/a", ONE), join(world.board(), "join/b", TWO)];
    let id = world.add(json!({ "rounds": 10_000 })).await;
    world.until(id, "in round 2", |record| record.state.round >= 2).await;
    world.ask(move |fleet, by| fleet.intend_run(by, id, RunIntent::Pause)).await;
    let paused = |record: &RunRecord| matches!(&record.state.phase, RunPhase::Waiting { why } if why == "it is paused");
    let round = world.until(id, "paused", paused).await.state.round;
    world.ask(move |fleet, by| fleet.intend_run(by, id, RunIntent::Go)).await;
    world.until(id, "going on", |record| record.state.round > round).await;
    world.ask(move |fleet, by| fleet.intend_run(by, id, RunIntent::Stop)).await;
    assert_eq!(world.until_over(id).await.state.phase, RunPhase::Stopped);
    world.ask(move |fleet, by| fleet.remove_run(by, id)).await;
    assert!(world.ask(|fleet, by| fleet.runs(by)).await.is_empty());
    world.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privacy_is_accounted_for_round_by_round() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path()).await;
    let _clients = [join(world.board(), "join/a", ONE), join(world.board(), "join/b", TWO)];
    let privacy = json!({ "clipping_norm": 0.5, "noise_multiplier": 1.0, "delta": 1e-5 });
    let id = world.add(json!({ "rounds": 3, "privacy": privacy })).await;
    let record = world.until_over(id).await;
    assert_eq!(record.state.phase, RunPhase::Finished);
    let spent: Vec<f64> = world.rounds(id).await.iter().map(|round| round.result.epsilon.unwrap()).collect();
    assert!(spent.is_sorted_by(|a, b| a < b), "{spent:?}");
    assert_eq!(record.state.epsilon, spent.last().copied());
    world.service.stop().await;
}
