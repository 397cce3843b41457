//! Runs of learning, their rounds and files, and SuperNodes.

use std::num::NonZeroUsize;
use std::time::Duration;

use revoada_core::Digest;
use revoada_federated::npy::Element;
use revoada_federated::{Head, Layout, Member, Participant, Phase, Standing, Terms};
use revoada_fleet::learning::{
    ElementName, HeadPlan, HeldWeights, MemberRecord, MemberResult, Outcome, Participants, ReleasePlan, RoundRecord,
    RoundResult, RunId, RunIntent, RunPhase, RunPlan, RunState,
};
use revoada_fleet::service::RunForm;
use revoada_fleet::store::{RunChanges, Store, StoreError, WEIGHTS_KEPT};
use revoada_proto::LearnSettings;
use serde_json::{Value, json};

use crate::samples::{anna, at, digest};

fn plan(form: Value) -> RunPlan {
    serde_json::from_value::<RunForm>(form).unwrap().read(None).unwrap()
}

fn round(number: u64) -> RoundRecord {
    let terms = Terms { quorum: NonZeroUsize::MIN, enough: None, time_max: Duration::from_secs(60), refusals_max: 3 };
    let head = Head { number, base: digest(7), terms, began: at(number), phase: Phase::Collecting };
    let fit = vec![("loss".to_owned(), 0.1 + 0.2)];
    RoundRecord { head, result: RoundResult { invited: 2, fit, ..RoundResult::default() } }
}

fn member(standing: Standing) -> MemberRecord {
    let member = Member { standing, refusals: 1, refused: Some("it is no number".to_owned()) };
    MemberRecord { member, result: MemberResult { bytes: 9, norm: Some(1.0 / 3.0), ..MemberResult::default() } }
}

/// A plan with whatever a plan can have: what is told apart by devices, judged, released and rolled out.
pub(crate) fn everything_planned() -> RunPlan {
    let form = json!({ "strategy": { "name": "FedAdam", "eta": 0.3 }, "sample": "12.5%", "norm_max": 9.5, "enough": 3,
        "privacy": { "clipping_norm": 1.5, "noise_multiplier": 1.1, "delta": 1e-6 }, "config": { "rate": 0.1, "n": 3 } });
    let settings = LearnSettings { hidden: Some(64), rate: Some(0.01), balanced: true, ..LearnSettings::default() };
    let head = HeadPlan { model: digest(1), labels: vec!["cat".to_owned(), "cão".to_owned()], settings };
    let rollout = json!({ "kind": "model", "name": "faces", "version": "3", "filter": "tag = roof",
        "waves": [{ "size": "10%" }, { "size": "5" }], "gates": [{ "measure": "accuracy", "threshold": 0.9 }] });
    let rollout = Some(serde_json::from_value(rollout).unwrap());
    RunPlan {
        participants: Participants::Devices { filter: "tag = roof".parse().unwrap(), devices_min: 2, head },
        starts_at: Some(at(9)),
        pictures: Some("labelled".to_owned()),
        release: Some(ReleasePlan { version: "3".to_owned(), gain_min: 0.01, rollout }),
        ..plan(form)
    }
}

pub(crate) fn everything_of_a_state() -> RunState {
    let layout = Layout::new([("w".to_owned(), vec![2, 3])]).unwrap();
    let elements = vec![ElementName(Element::F64)];
    let outcome = Outcome {
        accuracy_before: Some(0.1 + 0.2),
        accuracy: Some(0.9),
        digest: Some(digest(1)),
        rollout: Some(4),
        why: Some("it is no better".to_owned()),
    };
    RunState {
        phase: RunPhase::Waiting { why: "nobody is there".to_owned() },
        round: 3,
        weights: Some(HeldWeights { digest: digest(9), bytes: 99, layout, elements, labels: vec!["cat".to_owned()] }),
        memory: Some(digest(8)),
        failures: 1,
        epsilon: Some(1.0 / 3.0),
        set_aside: [Participant("cam-7".to_owned())].into(),
        outcome: Some(outcome),
    }
}

pub(crate) fn everything_of_a_round() -> RoundRecord {
    let numbers = vec![("loss".to_owned(), 0.1 + 0.2)];
    let RoundRecord { head, .. } = round(3);
    let result = RoundResult {
        ended: Some(at(70)),
        invited: 3,
        updates: 2,
        refused: 1,
        examples: 30,
        bytes_received: 200,
        bytes_sent: 300,
        fit: numbers.clone(),
        evaluation: numbers.clone(),
        evaluated_by: 2,
        judged: numbers,
        not_judged: Some("there are no pictures".to_owned()),
        epsilon: Some(1.0 / 3.0),
        clipping_norm: Some(1.5),
    };
    let phase = Phase::CalledOff { why: "too few".to_owned() };
    RoundRecord { head: Head { phase, ..head }, result }
}

/// In which round.
pub(crate) fn everything_of_a_member() -> (u64, Participant, MemberRecord) {
    let numbers = vec![("loss".to_owned(), 0.1 + 0.2)];
    let MemberRecord { member, .. } = member(Standing::Sent { update: digest(3), examples: 10 });
    let (norm, seconds) = (Some(1.0 / 3.0), Some(2.5));
    let result = MemberResult { bytes: 9, norm, seconds, fit: numbers.clone(), evaluation: numbers };
    (3, Participant("join/ä".to_owned()), MemberRecord { member, result })
}

pub(super) fn a_run_is_read_as_it_was_wanted_and_as_it_went(store: &dyn Store) {
    let wanted = plan(json!({ "strategy": { "name": "FedAdam", "eta": 0.3 }, "config": { "rate": 0.1, "n": 3 },
        "privacy": { "clipping_norm": 1.5, "noise_multiplier": 1.1, "delta": 1e-6 }, "sample": "12.5%" }));
    let id = store.add_run("first", &wanted, &anna(), at(1)).unwrap();
    let record = store.run(id).unwrap().unwrap();
    assert_eq!((&record.plan, record.intent, &record.state), (&wanted, RunIntent::Go, &RunState::new()));
    assert_eq!((record.title.as_str(), record.created_by, record.created_at), ("first", anna(), at(1)));
    let layout = Layout::new([("w".to_owned(), vec![2, 3])]).unwrap();
    let elements = vec![ElementName(Element::F64)];
    let held = HeldWeights { digest: digest(9), bytes: 99, layout, elements, labels: vec!["cat".to_owned()] };
    let state = RunState { phase: RunPhase::Learning, round: 1, weights: Some(held), ..RunState::new() };
    let name = Participant("join/ä".to_owned());
    let invited = RunChanges {
        state: Some(state.clone()),
        rounds: vec![round(1)],
        members: vec![(1, name.clone(), member(Standing::Invited))],
        files: Vec::new(),
    };
    store.change_run(id, &invited).unwrap();
    let sent = member(Standing::Sent { update: digest(3), examples: 10 });
    store.change_run(id, &RunChanges { members: vec![(1, name.clone(), sent.clone())], ..Default::default() }).unwrap();
    assert_eq!(store.run(id).unwrap().unwrap().state, state);
    assert_eq!(store.rounds(id).unwrap(), [round(1)]);
    assert_eq!(store.members(id, 1).unwrap(), [(name, sent)].into());
    assert!(store.members(id, 2).unwrap().is_empty());
}

pub(super) fn a_run_is_told_and_forgotten_and_no_number_is_given_twice(store: &dyn Store) {
    let id = store.add_run("first", &plan(json!({})), &anna(), at(1)).unwrap();
    store.set_run_intent(id, RunIntent::Pause, &anna(), at(2)).unwrap();
    assert_eq!(store.runs().unwrap()[&id].intent, RunIntent::Pause);
    store.change_run(id, &RunChanges { rounds: vec![round(1)], ..Default::default() }).unwrap();
    store.remove_run(id, &anna(), at(3)).unwrap();
    assert_eq!(store.run(id).unwrap(), None);
    assert!(store.rounds(id).unwrap().is_empty());
    for error in [store.remove_run(id, &anna(), at(4)), store.set_run_intent(id, RunIntent::Go, &anna(), at(4))] {
        assert!(matches!(error, Err(StoreError::Missing { what: "run", .. })), "{error:?}");
    }
    // Of one that is removed while its round ends, nothing is kept.
    store.change_run(id, &RunChanges { rounds: vec![round(2)], ..Default::default() }).unwrap();
    assert!(store.rounds(id).unwrap().is_empty());
    assert_eq!(store.add_run("second", &plan(json!({})), &anna(), at(5)).unwrap(), RunId(id.0 + 1));
}

pub(super) fn files_of_a_run_are_kept_first_and_newest(store: &dyn Store) {
    let lacking = store.add_run("early", &plan(json!({ "weights": digest(1) })), &anna(), at(0));
    assert!(matches!(lacking, Err(StoreError::Missing { what: "blob", .. })), "{lacking:?}");
    let rounds = u8::try_from(WEIGHTS_KEPT).unwrap() + 3;
    for number in 0..=rounds {
        store.add_blob(&digest(number), 4, at(0)).unwrap();
    }
    let id = store.add_run("first", &plan(json!({ "weights": digest(0) })), &anna(), at(0)).unwrap();
    for number in 1..=rounds {
        let files = vec![(u64::from(number), digest(number))];
        store.change_run(id, &RunChanges { files, ..Default::default() }).unwrap();
    }
    let unused = || -> Vec<Digest> { store.unused_blobs(at(9)).unwrap().iter().map(|blob| blob.digest).collect() };
    assert_eq!(unused(), [digest(1), digest(2), digest(3)]);
    store.remove_run(id, &anna(), at(1)).unwrap();
    assert_eq!(unused().len(), usize::from(rounds) + 1);
}

pub(super) fn a_supernode_keeps_its_number(store: &dyn Store) {
    assert_eq!(store.node(b"a key", 17, at(0)).unwrap(), 17);
    assert_eq!(store.node(b"another", 18, at(1)).unwrap(), 18);
    assert_eq!(store.node(b"a key", 19, at(2)).unwrap(), 17);
    assert_eq!(store.node_key(17).unwrap().as_deref(), Some(&b"a key"[..]));
    assert_eq!(store.node_key(19).unwrap(), None);
    store.forget_node(17).unwrap();
    store.forget_node(17).unwrap();
    assert_eq!(store.node(b"a key", 20, at(3)).unwrap(), 20);
}
