//! Things to store.

use std::collections::BTreeMap;
use std::time::Duration;

use revoada_bundle::bundle::Lineage;
use revoada_bundle::sign::{Purpose, SecretKey, Signature};
use revoada_core::{Architecture, DeviceClass, Digest, TensorRtFlavour, TensorRtVersion, Timestamp};
use revoada_fleet::store::{
    Actor, Artefact, ArtefactFile, ArtefactVersion, Certificate, EnrolmentToken, Heard, PlanRecord, Role, Store,
    TokenScope, User,
};
use revoada_proto::{Details, DeviceId, Event, Fact, Figures, Generation, Kind, Level, Progress, Report, StreamHealth};

use crate::fleet::device;

/// In 2026.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(1_780_000_000_000_000_000) + Duration::from_secs(seconds)
}

pub(crate) fn anna() -> Actor {
    Actor::User("anna".to_owned())
}

pub(crate) fn digest(number: u8) -> Digest {
    Digest::new([number; 32])
}

pub(crate) fn enrol(store: &dyn Store, name: &str) -> DeviceId {
    assert!(store.add_device(&device(name), &Actor::Service, at(0)).unwrap());
    device(name)
}

pub(crate) fn class() -> DeviceClass {
    DeviceClass {
        module: Some("Orin Nano".to_owned()),
        architecture: Architecture::new(8, 7),
        multiprocessors: Some(8),
        tensorrt: TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 3, patch: 0 },
        cuda: Some([12, 6]),
    }
}

pub(crate) fn heard(name: &str, sequence: u64, seconds: u64) -> Heard {
    let report = Report {
        sequence,
        generation: Generation(3),
        progress: Progress::Working { what: "fetches".to_owned() },
        running: [(Kind::Model, digest(1))].into(),
        // Neither is told exactly by few decimal digits.
        figures: Figures { fps: Some(0.1 + 0.2), latency_ms: Some(1.0 / 3.0), ..Figures::default() },
    };
    let details = Details {
        streams: vec![StreamHealth { stream: "door".to_owned(), frames: 7, fps: 24.9, ..StreamHealth::default() }],
        version: Some(semver::Version::new(1, 2, 3)),
        class: Some(class()),
        facts: [("site".to_owned(), Fact::Text("north".to_owned()))].into(),
        refused: None,
        slots: Vec::new(),
    };
    Heard { device: device(name), report, details, at: at(seconds) }
}

pub(crate) fn event(sequence: u64, level: Level, name: &str) -> Event {
    Event {
        sequence,
        at_ms: u64::MAX,
        level,
        name: name.to_owned(),
        text: "it fell".to_owned(),
        result: None,
        lost: u64::MAX,
    }
}

pub(crate) fn certificate(serial: &str, device: &DeviceId) -> Certificate {
    Certificate {
        serial: serial.to_owned(),
        device: device.clone(),
        issued_at: at(0),
        not_after: at(1000),
        revoked_at: None,
    }
}

pub(crate) fn token(number: u8, scope: TokenScope, uses: u32) -> EnrolmentToken {
    EnrolmentToken {
        hash: digest(number),
        name: format!("token-{number}"),
        scope,
        uses_left: uses,
        created_at: at(0),
        expires_at: at(1000),
    }
}

pub(crate) fn user(name: &str, role: Role) -> User {
    User {
        name: name.to_owned(),
        role,
        password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".to_owned(),
        is_disabled: false,
        created_at: at(0),
    }
}

pub(crate) fn artefact(name: &str) -> Artefact {
    Artefact {
        kind: Kind::Model,
        name: name.to_owned(),
        labels: ["people".to_owned(), "doors".to_owned()].into(),
        description: "Finds people.".to_owned(),
        licence: Some("Apache-2.0".to_owned()),
        created_at: at(0),
    }
}

/// A version of the model `people`, called by `number` everywhere, and what its owner signed.
pub(crate) fn version(number: u8) -> (ArtefactVersion, Signature) {
    let key = SecretKey::generate().unwrap();
    let version = ArtefactVersion {
        digest: digest(number),
        kind: Kind::Model,
        name: "people".to_owned(),
        version: format!("1.0.{number}"),
        parents: vec![digest(number - 1)],
        lineage: Lineage { source: Some(digest(99)), parent: Some(digest(number - 1)), steps: vec!["fp16".to_owned()] },
        reports: BTreeMap::from([("accuracy".to_owned(), serde_json::json!({ "map": 0.1 + 0.2 }))]),
        bytes: 30,
        files: BTreeMap::from([("model.onnx".to_owned(), ArtefactFile { digest: digest(number + 100), bytes: 20 })]),
        signer: key.public(),
        created_at: at(1),
        created_by: anna(),
    };
    (version, key.sign(Purpose::Bundle, digest(number)))
}

/// With its blobs and its artefact.
pub(crate) fn add_version(store: &dyn Store, number: u8) -> ArtefactVersion {
    let (version, signature) = version(number);
    store.put_artefact(&artefact("people"), &anna(), at(0)).unwrap();
    store.add_blob(&digest(number), 10, at(0)).unwrap();
    store.add_blob(&digest(number + 100), 20, at(0)).unwrap();
    assert!(store.add_version(&version, &signature, at(1)).unwrap());
    version
}

pub(crate) fn plan(number: u8, bundle: u8) -> PlanRecord {
    PlanRecord {
        bundle: digest(bundle),
        class: class(),
        digest: digest(number),
        bytes: 40,
        builder: device("cam-1"),
        signer: SecretKey::generate().unwrap().public(),
        latency_ms: Some(1.0 / 3.0),
        created_at: at(2),
    }
}
