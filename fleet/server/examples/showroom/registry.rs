//! What there is to deploy.

use std::collections::BTreeMap;
use std::time::Duration;

use revoada_bundle::bundle::Lineage;
use revoada_bundle::sign::{Purpose, SecretKey};
use revoada_core::{Digest, Timestamp};
use revoada_fleet::store::{Actor, Artefact, ArtefactFile, ArtefactVersion, PlanRecord, Store};
use revoada_proto::Kind;
use serde_json::json;

use crate::{Outcome, cast};

const DAY: Duration = Duration::from_hours(24);

/// Kind, name, labels, description, licence and versions, each with its age in days.
type Entry = (Kind, &'static str, &'static [&'static str], &'static str, &'static str, &'static [(&'static str, u64)]);

const ARTEFACTS: [Entry; 5] = [
    (
        Kind::Model,
        "people",
        &["detector", "int8"],
        "Finds people in doorways and halls, in daylight and at night.",
        "Apache-2.0",
        &[("2.3.0", 61), ("2.4.0", 19), ("2.4.1", 1)],
    ),
    (
        Kind::Model,
        "vehicles",
        &["detector"],
        "Cars, vans and lorries at docks and parking lots.",
        "Apache-2.0",
        &[("1.1.0", 40)],
    ),
    (Kind::Model, "gloves", &["classifier"], "Whether hands wear gloves.", "Apache-2.0", &[("1.0.0", 30)]),
    (Kind::Pipeline, "dock-counting", &[], "Counts what comes and goes at a dock.", "MIT", &[("7", 12), ("8", 2)]),
    (Kind::Package, "revoada", &["arm64"], "The runtime itself.", "Apache-2.0", &[("1.3.2", 45), ("1.4.0", 6)]),
];

/// What a version is deployed by.
pub(crate) fn digest(name: &str, version: &str) -> Digest {
    revoada_bundle::hash(format!("{name} {version}").as_bytes())
}

pub(crate) fn write(store: &dyn Store, now: Timestamp) -> Outcome {
    let anna = Actor::User("anna".to_owned());
    let key = SecretKey::generate()?;
    let ago = |days: u64| Timestamp::ZERO + (now.since(Timestamp::ZERO) - DAY * u32::try_from(days).unwrap_or(0));
    for (kind, name, labels, description, licence, versions) in ARTEFACTS {
        let artefact = Artefact {
            kind,
            name: name.to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            description: description.to_owned(),
            licence: Some(licence.to_owned()),
            created_at: ago(versions[0].1),
        };
        store.put_artefact(&artefact, &anna, ago(versions[0].1))?;
        let mut parent = None;
        for (version, days) in versions {
            let version = describe(kind, name, version, parent, key.public(), ago(*days));
            parent = Some(version.digest);
            for digest in version.files.values().map(|file| file.digest).chain([version.digest]) {
                store.add_blob(&digest, 1000, ago(*days))?;
            }
            let purpose = match kind {
                Kind::Model => Purpose::Bundle,
                Kind::Pipeline => Purpose::Pipeline,
                Kind::Package => Purpose::Package,
            };
            store.add_version(&version, &key.sign(purpose, version.digest), ago(*days))?;
        }
    }
    plans(store, key.public(), ago(1))
}

fn describe(
    kind: Kind,
    name: &str,
    version: &str,
    parent: Option<Digest>,
    signer: revoada_bundle::sign::PublicKey,
    at: Timestamp,
) -> ArtefactVersion {
    let is_model = kind == Kind::Model;
    let file = |path: &str, bytes| {
        let digest = revoada_bundle::hash(format!("{name} {version} {path}").as_bytes());
        (path.to_owned(), ArtefactFile { digest, bytes })
    };
    let files = [
        file("model.onnx", 11_402_133),
        file("model.toml", 1_204),
        file("calibration.json", 18_340),
        file("reports/accuracy.json", 2_101),
    ];
    let reports = [
        (
            "accuracy".to_owned(),
            json!({ "map_50": 0.847, "map_50_95": 0.561, "agreement_with_fp32": 0.992, "pictures": 500 }),
        ),
        ("speed".to_owned(), json!({ "median_ms": 4.82, "p99_ms": 5.31, "device": "NVIDIA Jetson Orin NX" })),
    ];
    ArtefactVersion {
        digest: digest(name, version),
        kind,
        name: name.to_owned(),
        version: version.to_owned(),
        parents: parent.into_iter().collect(),
        lineage: Lineage {
            source: is_model.then(|| revoada_bundle::hash(b"source")),
            parent,
            steps: if is_model {
                ["checked 187 nodes", "folded 31 constants", "converted to INT8 by Q/DQ, 2 layers kept in FP16"]
                    .map(str::to_owned)
                    .into()
            } else {
                Vec::new()
            },
        },
        reports: if is_model { BTreeMap::from(reports) } else { BTreeMap::new() },
        bytes: match kind {
            Kind::Model => 11_423_778,
            Kind::Pipeline => 2_310,
            Kind::Package => 31_022_104,
        },
        files: if is_model { BTreeMap::from(files) } else { BTreeMap::new() },
        signer,
        created_at: at,
        created_by: Actor::Token("ci".to_owned()),
    }
}

fn plans(store: &dyn Store, signer: revoada_bundle::sign::PublicKey, at: Timestamp) -> Outcome {
    for (class, builder, latency_ms) in [(cast::nano(), "hall-03", 7.91), (cast::nx(), "gate-01", 4.82)] {
        for version in ["2.4.0", "2.4.1"] {
            let digest = revoada_bundle::hash(format!("plan {builder} {version}").as_bytes());
            store.add_blob(&digest, 14_220_000, at)?;
            let plan = PlanRecord {
                bundle: self::digest("people", version),
                class: class.clone(),
                digest,
                bytes: 14_220_000,
                builder: builder.parse()?,
                signer,
                latency_ms: Some(latency_ms),
                created_at: at,
            };
            store.add_plan(&plan, at)?;
        }
    }
    Ok(())
}
