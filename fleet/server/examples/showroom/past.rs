//! What has happened before the service starts, written into its store.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use revoada_core::Timestamp;
use revoada_fleet::blobs::{BlobLimits, Blobs};
use revoada_fleet::planner::{Retry, Rollout};
use revoada_fleet::service::{Condition, RolloutForm};
use revoada_fleet::settings::Settings;
use revoada_fleet::store::sqlite::Sqlite;
use revoada_fleet::store::{
    Actor, AlertRule, Answer, Certificate, EnrolmentToken, Gauge, Heard, Occurrence, Sample, Store, TokenScope,
};
use revoada_proto::{Ask, Event, Kind, Level};
use serde_json::json;

use crate::cast::{self, Nature, Role};
use crate::{Outcome, devices, learning, registry};

const PICTURE: &[u8] = include_bytes!("../../../../tests/data/readme/faces.jpg");
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn before(now: Timestamp, duration: Duration) -> Timestamp {
    Timestamp::ZERO + (now.since(Timestamp::ZERO) - duration)
}

pub(crate) async fn write(settings: &Settings) -> Outcome {
    let now = now();
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(&settings.folder.join("fleet.db"))?);
    let anna = Actor::User("anna".to_owned());
    store.set_limits(&settings.limits, 7, &Actor::Service, before(now, 90 * DAY))?;
    let roles = cast::all();
    for role in &roles {
        store.add_device(&role.device, &anna, before(now, 90 * DAY))?;
        store.set_tags(&role.device, &role.tags, &anna, before(now, 90 * DAY))?;
        certify(store.as_ref(), role, now)?;
    }
    store.set_builder(&"gate-01".parse()?, true, &anna, before(now, 80 * DAY))?;
    registry::write(store.as_ref(), now)?;
    for role in roles.iter().filter(|role| role.nature != Nature::New) {
        let at = match role.nature {
            Nature::Away(hours) => before(now, Duration::from_hours(hours)),
            _ => before(now, Duration::from_secs(30)),
        };
        let (report, details) = devices::first_report(role);
        store.record(&[Heard { device: role.device.clone(), report, details, at }])?;
        store.record_samples(&samples(role, at))?;
    }
    events(store.as_ref(), now)?;
    rules(store.as_ref(), &anna, now)?;
    rollouts(store.as_ref(), &anna, now)?;
    learning::write(store.as_ref(), &anna, now)?;
    picture(&store, settings, &anna, now).await
}

fn certify(store: &dyn Store, role: &Role, now: Timestamp) -> Outcome {
    let serial = &revoada_bundle::hash(role.device.as_str().as_bytes()).hex()[..32];
    let certificate = Certificate {
        serial: serial.to_owned(),
        device: role.device.clone(),
        issued_at: before(now, 30 * DAY),
        not_after: now + 60 * DAY,
        revoked_at: None,
    };
    Ok(store.add_certificate(&certificate, &Actor::Service, before(now, 30 * DAY))?)
}

/// Days, quarters of an hour and minutes, each as far back as it is kept and shown.
fn samples(role: &Role, now: Timestamp) -> Vec<Sample> {
    let mut random = fastrand::Rng::with_seed(role.device.as_str().bytes().map(u64::from).sum());
    let is_shown = role.device.as_str() == "gate-01" || role.nature == Nature::Hot;
    let (days, quarters) = if is_shown { (90, 72 * 4) } else { (0, 0) };
    let days = (3..days).rev().map(|day| day * DAY);
    let quarters = (9..quarters).rev().map(|quarter| quarter * 15 * MINUTE);
    let minutes = (0..120).rev().map(|minute| minute * MINUTE);
    let mut samples = Vec::new();
    for age in days.chain(quarters).chain(minutes) {
        let at = before(now, age);
        let phase = (at.as_secs_f64() / 86_400.0).fract() * TAU;
        for _ in 0..2 {
            let mut add = |gauge, value| samples.push(Sample { device: role.device.clone(), gauge, at, value });
            add(Gauge::Fps, role.fps - random.f64() * 0.8);
            add(Gauge::Latency, role.latency_ms * (1.0 + 0.08 * phase.sin() + 0.12 * random.f64().powi(3)));
            add(Gauge::Temperature, role.temperature_c + 4.0 * phase.sin() + 1.5 * random.f64());
        }
    }
    samples
}

const EVENTS: [(&str, u64, Level, &str, &str); 10] = [
    ("gate-01", 340, Level::Info, "plan-built", "built a plan of people 2.4.1 for sm_87 in 3 min 12 s"),
    ("lot-06", 182, Level::Warn, "power", "the input voltage fell below 11.8 V"),
    ("hall-05", 95, Level::Info, "slot-flipped", "runs people 2.4.0 from slot b"),
    ("dock-05", 61, Level::Error, "stream-lost", "stream `street`: no frame for 10 s, connecting again"),
    ("gate-12", 48, Level::Info, "disk-cleaned", "removed 2 bundles that no slot holds, 22.8 MiB"),
    ("lot-03", 40, Level::Warn, "throttled", "the GPU runs at 612 MHz instead of 918 MHz: 84.1 °C"),
    ("gate-07", 33, Level::Warn, "stream-lost", "stream `door`: the camera closed the connection"),
    ("gate-07", 32, Level::Info, "stream-back", "stream `door` runs again after 9 s"),
    ("hall-02", 21, Level::Info, "certificate-renewed", "the new one holds until next season"),
    ("gate-01", 6, Level::Info, "bundle-verified", "people 2.4.1: signature and 4 files"),
];

fn events(store: &dyn Store, now: Timestamp) -> Outcome {
    for (number, (device, minutes, level, name, text)) in EVENTS.into_iter().enumerate() {
        let event = Event {
            sequence: number as u64 + 1,
            at_ms: 0,
            level,
            name: name.to_owned(),
            text: text.to_owned(),
            result: None,
            lost: 0,
        };
        let at = before(now, MINUTE * u32::try_from(minutes)?);
        store.record_events(&[Occurrence { device: device.parse()?, event, at }])?;
    }
    Ok(())
}

fn rules(store: &dyn Store, by: &Actor, now: Timestamp) -> Outcome {
    let rules = [
        ("away", "all", Condition::Away { minutes: 30 }),
        ("hot", "tag = outdoor", Condition::Hot { celsius: 80.0 }),
        ("late-at-doors", "tag = entrance", Condition::Late { milliseconds: 60.0 }),
        ("went-back", "all", Condition::Failed),
    ];
    for (name, filter, condition) in rules {
        let rule = AlertRule {
            name: name.to_owned(),
            filter: filter.parse()?,
            condition: serde_json::to_value(condition)?,
            webhook: None,
            is_enabled: true,
        };
        store.put_rule(&rule, by, before(now, 60 * DAY))?;
    }
    for (device, minutes) in [("gate-03", 2_900), ("lot-03", 1_500), ("dock-08", 800)] {
        let (device, at) = (device.parse()?, before(now, MINUTE * minutes));
        store.raise_alert("away", &device, "was not heard of for 31 minutes", at)?;
        store.resolve_alert("away", &device, at + 22 * MINUTE)?;
    }
    for (rule, device, minutes, text) in [
        ("away", "hall-11", 3_090, "was not heard of for 30 minutes"),
        ("away", "lot-06", 150, "was not heard of for 30 minutes"),
        ("hot", "lot-03", 41, "has 84.1 °C"),
    ] {
        store.raise_alert(rule, &device.parse()?, text, before(now, MINUTE * minutes))?;
    }
    for (name, scope, uses) in [
        ("porto-docks", TokenScope::Prefix("dock-".to_owned()), 4),
        ("lot-08", TokenScope::Device("lot-08".parse()?), 1),
    ] {
        let token = EnrolmentToken {
            hash: revoada_bundle::hash(name.as_bytes()),
            name: name.to_owned(),
            scope,
            uses_left: uses,
            created_at: before(now, 2 * DAY),
            expires_at: now + 5 * DAY,
        };
        store.add_enrolment_token(&token, by, before(now, 2 * DAY))?;
    }
    Ok(())
}

/// One that ends well and one that does not.
fn rollouts(store: &dyn Store, by: &Actor, now: Timestamp) -> Outcome {
    let form = |name: &str, version: &str, kind, filter: &str, gates| -> Outcome<Rollout> {
        let form: RolloutForm = serde_json::from_value(json!({
            "kind": kind, "name": name, "version": version, "filter": filter, "gates": gates,
            "waves": [{ "size": "2", "soak": "0s", "timeout": "2s" }, { "size": "100%", "soak": "0s", "timeout": "2s" }],
        }))?;
        let once = Retry { attempts_max: std::num::NonZeroU32::MIN, delay: MINUTE, delay_max: MINUTE };
        Ok(Rollout { retry: once, ..form.read(registry::digest(name, version))? })
    };
    let outcome = json!([{ "measure": "outcome", "breaches_percent_max": 10, "samples_min": 2, "over_min": "0s" }]);
    let first = form("people", "2.4.0", Kind::Model, "all", outcome.clone())?;
    store.add_rollout("People 2.4.0 everywhere", &first, by, before(now, 6 * DAY))?;
    let second = form("dock-counting", "8", Kind::Pipeline, "tag = dock", outcome)?;
    store.add_rollout("Counting at docks, version 8", &second, by, before(now, 2 * DAY))?;
    Ok(())
}

/// Commands that are done, of which one has brought a picture.
async fn picture(store: &Arc<dyn Store>, settings: &Settings, by: &Actor, now: Timestamp) -> Outcome {
    let folder = settings.folder.join("blobs");
    std::fs::create_dir_all(&folder)?;
    let limits = BlobLimits { quota_bytes: 1 << 30, blob_bytes_max: 1 << 30, uploads_max: 8, kept: DAY };
    let blobs = Blobs::open(&folder, Arc::clone(store), limits, now)?;
    let digest = blobs.put(Bytes::from_static(PICTURE), before(now, 12 * MINUTE)).await?;
    let device = "gate-01".parse()?;
    let asks =
        [(Ask::RestartPipeline, 900, "restarted in 1.4 s"), (Ask::Snapshot { stream: "door".to_owned() }, 12, "")];
    for (ask, minutes, said) in asks {
        let at = before(now, MINUTE * minutes);
        let number = store.add_command(&device, &ask, now + DAY, by, at)?;
        store.command_sent(&device, number)?;
        if matches!(ask, Ask::Snapshot { .. }) {
            let answer = Answer { digest, media_type: "image/jpeg".to_owned() };
            store.answer_command(&device, number, &answer)?;
        }
        store.end_command(&device, number, Ok(said))?;
    }
    Ok(())
}
