//! Plans and bundles are foreign bytes: whatever is in them is read or refused. A short run of random bytes and of damaged
//! envelopes here; a long one with
//! `BOLERO_RANDOM_ITERATIONS=1000000 cargo test -p revoada-bundle --test fuzz_envelopes`, or `cargo bolero`.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::fs;

use revoada_bundle::bundle::{Bundle, BundleWriter, Index, Lineage, MANIFEST, MODEL, Precision, Trust, VERSION};
use revoada_bundle::hash;
use revoada_bundle::plan::{Plan, PlanFacts, PlanHeader, PlanKey};
use revoada_bundle::sign::SecretKey;
use revoada_core::{Architecture, Compatibility, DeviceClass, TensorRtFlavour, TensorRtVersion};

/// Edits as a fuzzer gives them: where, over how many bytes, and what is written there.
fn damaged(whole: &[u8], edits: &[(u16, u8, u8)]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for (at, length, value) in edits {
        let start = usize::from(*at) % bytes.len();
        let end = (start + usize::from(*length % 8)).min(bytes.len());
        bytes[start..end].fill(*value);
    }
    bytes
}

fn plan() -> Vec<u8> {
    let version = TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 3, patch: 0 };
    let (architecture, module) = (Architecture::new(8, 7), None);
    let key = PlanKey {
        bundle: hash(b"bundle"),
        device: DeviceClass { module, architecture, multiprocessors: None, tensorrt: version, cuda: None },
        compatibility: Compatibility::default(),
        precision: Precision::Fp16,
        profile: Default::default(),
        dla_core: None,
        builder: "test".to_owned(),
    };
    Plan::seal(key, PlanFacts::default(), b"engine", &SecretKey::generate().unwrap()).bytes().to_vec()
}

/// Reads a plan in both ways; they agree on what its header is.
fn look_at(bytes: Vec<u8>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &bytes).unwrap();
    let header = PlanHeader::read(file.path());
    match Plan::parse(bytes) {
        Ok(plan) => assert_eq!(plan.key(), header.unwrap().key()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[test]
fn a_damaged_plan_is_read_or_refused() {
    let whole = plan();
    bolero::check!()
        .with_type::<Vec<(u16, u8, u8)>>()
        .with_iterations(5_000)
        .with_max_len(64)
        .for_each(|edits| look_at(damaged(&whole, edits)));
}

#[test]
fn random_bytes_are_no_plan() {
    bolero::check!().with_iterations(5_000).for_each(|noise: &[u8]| {
        look_at(noise.to_vec());
        look_at([b"REVOADA PLAN\n", noise].concat());
    });
}

#[test]
fn a_damaged_index_of_a_bundle_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.bundle");
    let mut writer = BundleWriter::create(&path).unwrap();
    writer.add(MODEL, b"model").unwrap();
    writer.add(MANIFEST, b"version = 1\n").unwrap();
    let index = Index {
        version: VERSION,
        name: "it".to_owned(),
        precision: Precision::Fp16,
        producer: "test".to_owned(),
        licence: None,
        lineage: Lineage::default(),
        files: Default::default(),
    };
    writer.seal(index, Some(&SecretKey::generate().unwrap())).unwrap().publish().unwrap();
    let index = path.join("bundle.json");
    let whole = fs::read(&index).unwrap();
    bolero::check!().with_type::<Vec<(u16, u8, u8)>>().with_iterations(2_000).with_max_len(64).for_each(|edits| {
        let changed = damaged(&whole, edits);
        fs::write(&index, &changed).unwrap();
        let verified = Bundle::open(&path).and_then(|bundle| bundle.verify(Trust::Anybody));
        assert_eq!(verified.is_ok(), changed == whole, "the signature is over every byte of the index");
    });
}
