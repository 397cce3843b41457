//! Artefacts, plans and blobs.

use revoada_core::{Architecture, DeviceClass};
use revoada_fleet::planner::{Blueprint, RolloutId, Target};
use revoada_fleet::store::{Answer, Artefact, PLANS_MAX, Store, StoreError};
use revoada_proto::{Ask, Deployable, Generation, Kind, Order};

use crate::fleet::{device, limits, rollout};
use crate::samples::{add_version, anna, artefact, at, class, digest, enrol, plan, version};

pub(super) fn a_version_is_kept_as_it_was_added(store: &dyn Store) {
    let (first, second) = (add_version(store, 1), add_version(store, 2));
    let (_, signature) = version(3);
    assert_eq!(store.version(&digest(1)).unwrap(), Some(first.clone()));
    assert_eq!(store.versions(Kind::Model, "people").unwrap(), [second, first.clone()]);
    assert_eq!(store.versions(Kind::Pipeline, "people").unwrap(), []);
    assert_eq!(store.signature(&digest(1)).unwrap().unwrap().key, first.signer);
    assert!(!store.add_version(&first, &signature, at(9)).unwrap(), "it is there already");
    assert_eq!(store.signature(&digest(1)).unwrap().unwrap().key, first.signer, "and stays as it is");
    assert_eq!((store.version(&digest(9)).unwrap(), store.signature(&digest(9)).unwrap()), (None, None));
    let changed = Artefact { description: "Finds more.".to_owned(), created_at: at(50), ..artefact("people") };
    store.put_artefact(&changed, &anna(), at(50)).unwrap();
    let known = Artefact { created_at: at(0), ..changed };
    assert_eq!(store.artefact(Kind::Model, "people").unwrap(), Some(known.clone()));
    assert_eq!(store.artefacts().unwrap(), [known]);
}

pub(super) fn versions_that_do_not_fit_are_refused(store: &dyn Store) {
    let (one, signature) = version(1);
    let add = |version| store.add_version(&version, &signature, at(1)).unwrap_err().to_string();
    assert_eq!(add(one.clone()), "there is no model `people`");
    store.put_artefact(&artefact("people"), &anna(), at(0)).unwrap();
    assert_eq!(add(one.clone()), format!("there is no blob `{}`", digest(1)));
    store.add_blob(&digest(1), 10, at(0)).unwrap();
    assert_eq!(add(one.clone()), format!("there is no blob `{}`", digest(101)), "its files are asked for too");
    add_version(store, 1);
    store.add_blob(&digest(2), 10, at(0)).unwrap();
    store.add_blob(&digest(102), 20, at(0)).unwrap();
    let (mut other, _) = version(2);
    other.version = one.version;
    assert_eq!(add(other), "there is a version `people 1.0.1` already");
    let error = store.remove_artefact(Kind::Model, "people", &anna(), at(2)).unwrap_err();
    assert_eq!(error.to_string(), "model `people` is in use: it has 1 versions");
    assert!(store.remove_version(&digest(1), &anna(), at(3)).unwrap());
    assert!(!store.remove_version(&digest(1), &anna(), at(3)).unwrap());
    assert!(store.remove_artefact(Kind::Model, "people", &anna(), at(3)).unwrap());
    assert!(!store.remove_artefact(Kind::Model, "people", &anna(), at(3)).unwrap());
}

pub(super) fn what_a_rollout_or_an_order_names_is_not_removed(store: &dyn Store) {
    add_version(store, 1);
    let deployable = Deployable { kind: Kind::Model, digest: digest(1) };
    store.set_limits(&limits(), 7, &anna(), at(0)).unwrap();
    let id = store.add_rollout("first", &rollout(deployable), &anna(), at(0)).unwrap();
    let remove = || store.remove_version(&digest(1), &anna(), at(1)).unwrap_err().to_string();
    assert_eq!(remove(), "version `people 1.0.1` is in use: rollout 1 brings it");
    store.remove_rollout(id, &anna(), at(1)).unwrap();
    let order = Order { generation: Generation(1), deployables: [deployable].into() };
    let targets = [(device("cam-1"), Target { order, since: at(1) })];
    let next =
        Blueprint { number: 1, parent: Some(0), targets: std::sync::Arc::new(targets.into()), ..Blueprint::default() };
    assert!(store.swap_blueprint(&Blueprint::default(), &next).unwrap());
    assert_eq!(remove(), "version `people 1.0.1` is in use: device cam-1 is to run it");
    let nothing = Blueprint { number: 2, parent: Some(1), ..Blueprint::default() };
    assert!(store.swap_blueprint(&next, &nothing).unwrap());
    assert!(store.remove_version(&digest(1), &anna(), at(2)).unwrap());
    assert_eq!(id, RolloutId(1));
}

pub(super) fn plans_are_found_by_bundle_and_class_and_bounded(store: &dyn Store) {
    add_version(store, 1);
    let error = store.add_plan(&plan(50, 1), at(2)).unwrap_err();
    assert!(matches!(error, StoreError::Missing { what: "blob", .. }), "{error}");
    store.add_blob(&digest(50), 40, at(0)).unwrap();
    let error = store.add_plan(&plan(50, 9), at(2)).unwrap_err();
    assert!(matches!(error, StoreError::Missing { what: "bundle", .. }), "{error}");
    let first = plan(50, 1);
    assert!(store.add_plan(&first, at(2)).unwrap());
    assert!(!store.add_plan(&first, at(2)).unwrap());
    assert_eq!(store.plans(&digest(1), &class()).unwrap(), std::slice::from_ref(&first));
    let other = DeviceClass { architecture: Architecture::new(7, 2), ..class() };
    assert_eq!(store.plans(&digest(1), &other).unwrap(), []);
    assert_eq!(store.plans_of(&digest(1)).unwrap(), [first]);
    for number in 51..51 + PLANS_MAX as u8 {
        store.add_blob(&digest(number), 40, at(0)).unwrap();
        store.add_plan(&plan(number, 1), at(3)).unwrap();
    }
    let kept = store.plans(&digest(1), &class()).unwrap();
    assert_eq!((kept.len(), kept[0].digest), (PLANS_MAX, digest(50 + PLANS_MAX as u8)), "the oldest went");
    assert!(store.remove_plan(&kept[0].digest, &anna(), at(4)).unwrap());
    store.remove_version(&digest(1), &anna(), at(5)).unwrap();
    assert_eq!(store.plans_of(&digest(1)).unwrap(), []);
}

pub(super) fn blobs_are_unused_until_something_refers_to_them(store: &dyn Store) {
    add_version(store, 1);
    let cam = enrol(store, "cam-1");
    for number in [50, 60, 70] {
        store.add_blob(&digest(number), 40, at(10)).unwrap();
    }
    store.add_plan(&plan(50, 1), at(11)).unwrap();
    let number = store.add_command(&cam, &Ask::FetchLogs { lines: 9 }, at(99), &anna(), at(11)).unwrap();
    let answer = Answer { digest: digest(60), media_type: "text/plain".to_owned() };
    store.answer_command(&cam, number, &answer).unwrap();
    assert_eq!(store.blob_bytes().unwrap(), 10 + 20 + 3 * 40);
    assert_eq!(store.unused_blobs(at(10)).unwrap(), [], "it is not older than that");
    let unused = |at| store.unused_blobs(at).unwrap().into_iter().map(|blob| blob.digest).collect::<Vec<_>>();
    assert_eq!(unused(at(11)), [digest(70)]);
    store.add_blob(&digest(70), 40, at(20)).unwrap();
    assert_eq!(unused(at(20)), [], "it was wanted again");
    for used in [1, 101, 50, 60] {
        assert!(!store.remove_unused_blob(&digest(used), at(99)).unwrap(), "{used} is used");
    }
    assert!(store.remove_unused_blob(&digest(70), at(21)).unwrap());
    assert_eq!(store.blob(&digest(70)).unwrap(), None);
    store.remove_version(&digest(1), &anna(), at(30)).unwrap();
    store.remove_device(&cam, &anna(), at(30)).unwrap();
    assert_eq!(unused(at(31)).len(), 4);
}
