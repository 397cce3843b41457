//! Plans in their envelopes, and the cache that keeps them.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use revoada_bundle::bundle::{Precision, Trust};
use revoada_bundle::hash;
use revoada_bundle::plan::{Plan, PlanAccuracy, PlanFacts, PlanKey, PlanSpeed, ShapeProfile, ShapeRange};
use revoada_bundle::plan_cache::{PlanCache, plans_of};
use revoada_bundle::sign::SecretKey;
use revoada_core::{
    Architecture, Compatibility, DType, DeviceClass, Dim, TensorRtFlavour, TensorRtVersion, TensorSpec,
};

fn device() -> DeviceClass {
    DeviceClass {
        module: None,
        architecture: Architecture::new(8, 7),
        multiprocessors: Some(8),
        tensorrt: TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 3, patch: 0 },
        cuda: Some([12, 6]),
    }
}

fn key(name: &str) -> PlanKey {
    PlanKey {
        bundle: hash(name.as_bytes()),
        device: device(),
        compatibility: Compatibility::default(),
        precision: Precision::Fp16,
        profile: ShapeProfile::from([("images".to_owned(), ShapeRange::fixed(&[1, 3, 8, 8]))]),
        dla_core: None,
        builder: "revoada test".to_owned(),
    }
}

#[test]
fn a_plan_is_read_back_as_it_was_sealed() {
    let signer = SecretKey::generate().unwrap();
    let spec = TensorSpec {
        name: "x".to_owned(),
        dtype: DType::F16,
        dims: vec![Dim::Dynamic("batch".to_owned()), Dim::Fixed(3)],
    };
    let speed = PlanSpeed { rows: 4, throughput_per_s: 123.5, latency_ms_median: 32.1, latency_ms_p99: 40.0 };
    let accuracy = PlanAccuracy { samples: 7, cosine_min: 0.9991, top1: Some(1.0), boxes: None };
    let facts = PlanFacts { inputs: vec![spec], outputs: Vec::new(), accuracy: Some(accuracy), speed: Some(speed) };
    let sealed = Plan::seal(key("a"), facts.clone(), b"engine", &signer);
    let plan = Plan::parse(sealed.bytes().to_vec()).unwrap();
    assert_eq!(plan.facts(), &facts);
    assert_eq!((plan.key(), plan.payload(), plan.signer()), (&key("a"), &b"engine"[..], signer.public()));
    plan.check(Trust::OneOf(&[signer.public()]), &device()).unwrap();
}

#[test]
fn a_plan_is_run_only_where_it_fits_and_from_whom_is_trusted() {
    let plan = Plan::seal(key("a"), PlanFacts::default(), b"engine", &SecretKey::generate().unwrap());
    let mut nano = device();
    (nano.tensorrt.major, nano.tensorrt.minor, nano.tensorrt.patch) = (8, 2, 1);
    let error = plan.check(Trust::Anybody, &nano).unwrap_err().to_string();
    assert_eq!(error, "the plan was built for TensorRT 10.3.0, this device has TensorRT 8.2.1");
    let error = plan.check(Trust::OneOf(&[]), &device()).unwrap_err().to_string();
    assert_eq!(error, format!("the plan is signed by `{}`, which is not among the trusted keys", plan.signer()));
}

#[test]
fn damage_is_told_in_one_sentence_wherever_it_is() {
    let plan = Plan::seal(key("a"), PlanFacts::default(), [7; 1000], &SecretKey::generate().unwrap());
    let bytes = plan.bytes();
    let told = |bytes: &[u8]| Plan::parse(bytes.to_vec()).unwrap_err().to_string();
    for length in 1..bytes.len() {
        let error = told(&bytes[..length]);
        assert!(error.starts_with("the plan is truncated"), "{length}: {error}");
    }
    assert!(told(&bytes[..bytes.len() - 10]).ends_with(": 10 bytes are missing"));
    for position in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[position] ^= 0x10;
        told(&damaged);
    }
    let longer = [bytes, b"x"].concat();
    assert_eq!(told(&longer), "the plan was changed after it was built");
    assert!(told(b"").contains("is no plan of revoada") && told(&[0xff; 4096]).contains("is no plan of revoada"));
    let header = bytes.iter().position(|byte| *byte == b'{').unwrap();
    let mut later = bytes.to_vec();
    let version = header + br#"{"version":"#.len();
    later[version] = b'9';
    assert_eq!(told(&later), "the plan was written in version 9 of the format; this program reads up to 1");
}

#[test]
fn random_bytes_never_panic() {
    bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
        drop(Plan::parse(bytes.to_vec()));
        drop(Plan::parse([b"REVOADA PLAN\n", bytes].concat()));
    });
}

fn plans_in(folder: &Path) -> usize {
    fs::read_dir(folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "plan"))
        .count()
}

#[test]
fn a_cache_keeps_what_was_used_last_within_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let signer = SecretKey::generate().unwrap();
    let seal = |name: &str| Plan::seal(key(name), PlanFacts::default(), [1; 10_000], &signer);
    let room_for_two = seal("a").bytes().len() as u64 * 2 + 100;
    let cache = PlanCache::open(&folder.path().join("new/cache"), room_for_two).unwrap();
    assert!(cache.get(&key("a")).unwrap().is_none());
    let aged = |name: &str, seconds: u64| {
        let path = cache.folder().join(key(name).digest().hex()).with_extension("plan");
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
        fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    };
    cache.insert(&seal("a")).unwrap();
    aged("a", 20);
    cache.insert(&seal("b")).unwrap();
    aged("b", 10);
    assert_eq!(cache.get(&key("a")).unwrap().unwrap().payload(), [1; 10_000], "and its use is noted");
    cache.insert(&seal("c")).unwrap();
    assert!(cache.get(&key("b")).unwrap().is_none(), "the one unused for longest made room");
    assert!(cache.get(&key("a")).unwrap().is_some() && cache.get(&key("c")).unwrap().is_some());
    cache.insert(&seal("c")).unwrap();
    assert_eq!(plans_in(cache.folder()), 2, "a plan that replaces itself needs no more room");
    cache.insert(&Plan::seal(key("huge"), PlanFacts::default(), [0; 100_000], &signer)).unwrap();
    assert!(cache.get(&key("huge")).unwrap().is_none());
    assert_eq!(plans_in(cache.folder()), 2, "what does not fit at all drives nothing out");
}

#[test]
fn the_plans_of_a_bundle_are_found_by_their_headers_alone() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PlanCache::open(folder.path(), 1 << 20).unwrap();
    let signer = SecretKey::generate().unwrap();
    let batch = |name: &str, rows: usize| PlanKey {
        profile: ShapeProfile::from([("x".to_owned(), ShapeRange::fixed(&[rows, 3]))]),
        ..key(name)
    };
    for key in [batch("a", 1), batch("a", 4), batch("b", 1)] {
        cache.insert(&Plan::seal(key, PlanFacts::default(), b"engine", &signer)).unwrap();
    }
    assert!(cache.get(&batch("a", 1)).unwrap().is_some());
    let found = plans_of(cache.folder(), key("a").bundle).unwrap();
    let keys: Vec<&PlanKey> = found.iter().map(|(_, header)| header.key()).collect();
    assert_eq!(keys, [&batch("a", 1), &batch("a", 4)], "the latest used comes first");
    assert!(plans_of(&folder.path().join("nothing yet"), key("a").bundle).unwrap().is_empty());
    assert!(found.iter().all(|(_, header)| header.signer() == signer.public()));

    // That the payload was changed is found by who reads it; that it is cut, at once.
    let whole = fs::read(&found[0].0).unwrap();
    fs::write(&found[0].0, [&whole[..whole.len() - 1], b"!"].concat()).unwrap();
    assert_eq!(plans_of(cache.folder(), key("a").bundle).unwrap().len(), 2);
    fs::write(&found[0].0, &whole[..whole.len() - 1]).unwrap();
    fs::write(folder.path().join("no.plan"), "not a plan").unwrap();
    assert_eq!(plans_of(cache.folder(), key("a").bundle).unwrap().len(), 1);
}

#[test]
fn a_damaged_plan_is_forgotten_and_a_killed_writer_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PlanCache::open(folder.path(), 1 << 20).unwrap();
    let plan = Plan::seal(key("a"), PlanFacts::default(), b"engine", &SecretKey::generate().unwrap());
    cache.insert(&plan).unwrap();
    let path = folder.path().join(key("a").digest().hex()).with_extension("plan");
    fs::write(&path, &plan.bytes()[..100]).unwrap();
    assert!(cache.get(&key("a")).unwrap().is_none() && !path.exists());
    // Another plan under this one's name.
    fs::write(&path, Plan::seal(key("b"), PlanFacts::default(), b"other", &SecretKey::generate().unwrap()).bytes())
        .unwrap();
    assert!(cache.get(&key("a")).unwrap().is_none() && !path.exists());

    fs::write(folder.path().join(".x1y2.partial"), "half a plan").unwrap();
    PlanCache::open(folder.path(), 1 << 20).unwrap();
    assert!(!folder.path().join(".x1y2.partial").exists());
}

#[test]
fn who_waits_for_a_build_finds_it_done() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PlanCache::open(folder.path(), 1 << 20).unwrap();
    let signer = SecretKey::generate().unwrap();
    let built = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let _lock = cache.lock_build(&key("a")).unwrap();
                if cache.get(&key("a")).unwrap().is_none() {
                    built.fetch_add(1, Ordering::SeqCst);
                    cache.insert(&Plan::seal(key("a"), PlanFacts::default(), b"engine", &signer)).unwrap();
                }
            });
        }
    });
    assert_eq!(built.into_inner(), 1);
}
