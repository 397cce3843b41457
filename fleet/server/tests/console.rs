//! The console as a browser without scripts uses it: whole services, real HTTP.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::io::Read;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use revoada_bundle::bundle::Lineage;
use revoada_bundle::sign::{Purpose, SecretKey};
use revoada_core::{Digest, Timestamp};
use revoada_fleet::broker::Incoming;
use revoada_fleet::learning::{Participants, RunId};
use revoada_fleet::serve::Service;
use revoada_fleet::service::{Principal, RolloutForm};
use revoada_fleet::settings::Settings;
use revoada_fleet::store::sqlite::Sqlite;
use revoada_fleet::store::{
    Actor, Artefact, ArtefactVersion, Devices, Events, Gauge, Heard, History, Occurrence, Registry, Role, Sample,
};
use revoada_fleet::tls::Peer;
use revoada_proto::message::encode_report;
use revoada_proto::{
    Ask, Channel, Details, DeviceId, Event, Fact, Figures, Generation, Kind, Level, Progress, Report, SlotContent,
    StreamHealth,
};
use ureq::Agent;
use ureq::http::{Request, Response};

const PASSWORD: &str = "a password for tests";
const EVIL: &str = "<script>alert(1)</script>";

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_nanos(u64::try_from(since.as_nanos()).unwrap())
}

fn digest() -> Digest {
    Digest::new([7; 32])
}

/// A service with a device, an artefact and users of every role, and who asks it.
struct World {
    service: Service,
    agent: Agent,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fill(&Sqlite::open(&folder.path().join("fleet.db")).unwrap());
        let mut settings = Settings::in_folder(folder.path());
        settings.mqtt = ([127, 0, 0, 1], 0).into();
        settings.devices = ([127, 0, 0, 1], 0).into();
        settings.operators.address = ([127, 0, 0, 1], 0).into();
        let service = Service::start(&settings).await.unwrap();
        let by = Principal::service();
        for (name, role) in [("vera", Role::Viewer), ("otto", Role::Operator), ("ada", Role::Admin)] {
            service.fleet.add_user(&by, name, role, PASSWORD).unwrap();
        }
        let config = Agent::config_builder().http_status_as_error(false).max_redirects(0).build();
        Self { service, agent: config.into(), _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.service.addresses.operators)
    }

    /// The cookie of somebody who signed in.
    fn sign_in(&self, name: &str) -> String {
        let answer = self.post("/signin", None, &[("name", name), ("password", PASSWORD)]);
        assert_eq!(answer.status(), 303, "{}", answer.body());
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        cookie.split(';').next().unwrap().to_owned()
    }

    fn get(&self, path: &str, cookie: Option<&str>) -> Response<String> {
        let request = Request::get(self.url(path)).header("cookie", cookie.unwrap_or("a=b")).body(()).unwrap();
        text(self.agent.run(request).unwrap())
    }

    /// As a form of one of the service's own pages is sent.
    fn post(&self, path: &str, cookie: Option<&str>, fields: &[(&str, &str)]) -> Response<String> {
        self.post_from("same-origin", path, cookie, fields)
    }

    fn post_from(&self, site: &str, path: &str, cookie: Option<&str>, fields: &[(&str, &str)]) -> Response<String> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post(self.url(path))
            .header("cookie", cookie.unwrap_or("a=b"))
            .header("sec-fetch-site", site)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .unwrap();
        text(self.agent.run(request).unwrap())
    }
}

fn text(answer: Response<ureq::Body>) -> Response<String> {
    let (parts, mut body) = answer.into_parts();
    let mut text = String::new();
    body.as_reader().read_to_string(&mut text).unwrap();
    Response::from_parts(parts, text)
}

/// A device whose every text is a script, with history and events, and one version of a model.
fn fill(store: &Sqlite) {
    let (by, now) = (Actor::Service, now());
    let device = "cam-1".parse().unwrap();
    store.add_device(&device, &by, now).unwrap();
    let report = Report {
        sequence: 1,
        generation: Generation(0),
        progress: Progress::Working { what: format!("fetches {EVIL}") },
        running: [(Kind::Model, digest())].into(),
        figures: Figures { fps: Some(24.5), latency_ms: Some(31.25), ..Figures::default() },
    };
    let details = Details {
        streams: vec![StreamHealth {
            stream: "door".to_owned(),
            trouble: Some(EVIL.to_owned()),
            ..StreamHealth::default()
        }],
        facts: [("site".to_owned(), Fact::Text(EVIL.to_owned()))].into(),
        refused: Some((Generation(0), EVIL.to_owned())),
        slots: vec![SlotContent {
            kind: Kind::Model,
            slot: "b".to_owned(),
            digest: Digest::new([8; 32]),
            is_active: false,
        }],
        ..Details::default()
    };
    store.record(&[Heard { device: device.clone(), report, details, at: now }]).unwrap();
    let event = Event {
        sequence: 1,
        at_ms: 0,
        level: Level::Error,
        name: "stream-lost".to_owned(),
        text: format!("{EVIL}\" onmouseover=\"alert(2)"),
        result: None,
        lost: 0,
    };
    store.record_events(&[Occurrence { device: device.clone(), event, at: now }]).unwrap();
    let sample = Sample { device, gauge: Gauge::Fps, at: now, value: 24.5 };
    store.record_samples(&[sample]).unwrap();

    let key = SecretKey::generate().unwrap();
    let artefact = Artefact {
        kind: Kind::Model,
        name: "people".to_owned(),
        labels: [EVIL.to_owned()].into(),
        description: EVIL.to_owned(),
        licence: Some("MIT".to_owned()),
        created_at: now,
    };
    store.put_artefact(&artefact, &by, now).unwrap();
    store.add_blob(&digest(), 10, now).unwrap();
    let version = ArtefactVersion {
        digest: digest(),
        kind: Kind::Model,
        name: "people".to_owned(),
        version: "2.0.0".to_owned(),
        parents: Vec::new(),
        lineage: Lineage { source: None, parent: None, steps: vec![EVIL.to_owned()] },
        reports: BTreeMap::from([("accuracy".to_owned(), serde_json::json!({ "map": 0.5, "note": EVIL }))]),
        bytes: 10,
        files: BTreeMap::new(),
        signer: key.public(),
        created_at: now,
        created_by: by,
    };
    store.add_version(&version, &key.sign(Purpose::Bundle, digest()), now).unwrap();
}

fn begin_rollout(world: &World) -> u64 {
    let form = serde_json::json!({ "kind": "model", "name": "people", "version": "2.0.0", "title": EVIL });
    let form: RolloutForm = serde_json::from_value(form).unwrap();
    world.service.fleet.add_rollout(&Principal::service(), &form).unwrap().0
}

/// All pages, for an administrator.
fn pages(rollout: u64) -> Vec<String> {
    let mut pages: Vec<String> = [
        "/",
        "/devices",
        "/devices?filter=tag+%3D",
        "/devices/cam-1",
        "/devices/cam-1?span=3d",
        "/models",
        "/rollouts",
        "/rollouts/new",
        "/learning",
        "/learning/new",
        "/alerts",
        "/audit",
        "/people",
        "/enrolment",
        "/account",
    ]
    .map(str::to_owned)
    .into();
    pages.push(format!("/models/{}", digest()));
    pages.push(format!("/rollouts/{rollout}"));
    pages
}

/// Runs what blocks beside the service.
async fn beside<T: Send + 'static>(world: World, ask: impl FnOnce(&World) -> T + Send + 'static) -> T {
    let (world, answer) = tokio::task::spawn_blocking(move || {
        let answer = ask(&world);
        (world, answer)
    })
    .await
    .unwrap();
    world.service.stop().await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_for_who_is_signed_in() {
    beside(World::new().await, |world| {
        let rollout = begin_rollout(world);
        let ada = world.sign_in("ada");
        for page in pages(rollout) {
            let stranger = world.get(&page, None);
            assert_eq!(stranger.status(), 303, "{page}");
            let target = stranger.headers()["location"].to_str().unwrap();
            assert!(target.starts_with("/signin"), "{page}: {target}");
            assert_eq!(target.contains("?to="), page != "/", "{page}: {target}");
            let seen = world.get(&page, Some(&ada));
            assert_eq!(seen.status(), 200, "{page}: {}", seen.body());
            assert_eq!(seen.headers()["cache-control"], "no-store", "{page}");
            let policy = seen.headers()["content-security-policy"].to_str().unwrap();
            assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{page}: {policy}");
            assert!(!seen.body().contains(" style=") && !seen.body().contains("<style"), "{page}");
        }
        assert_eq!(world.get("/devices/nobody", Some(&ada)).status(), 404);
        assert_eq!(world.get("/rollouts/99", Some(&ada)).status(), 404);
        for asset in ["/assets/console.css", "/assets/console.js", "/assets/icon.svg", "/signin"] {
            assert_eq!(world.get(asset, None).status(), 200, "{asset}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_devices_say_is_text_on_every_page() {
    beside(World::new().await, |world| {
        let rollout = begin_rollout(world);
        let ada = world.sign_in("ada");
        let mut said = 0;
        for page in pages(rollout) {
            let seen = world.get(&page, Some(&ada));
            assert!(!seen.body().contains("<script>"), "{page}: {}", seen.body());
            assert!(!seen.body().contains("\" onmouseover"), "{page}: {}", seen.body());
            said += seen.body().matches("&lt;script&gt;alert(1)").count();
        }
        assert!(said > 10, "the pages say only {said} times what devices said");
        // A stream that does not run is counted as the list shows it.
        let counts = world.service.fleet.device_counts(&Principal::service()).unwrap();
        assert_eq!(counts, BTreeMap::from([("degraded", 1)]));
        let device = world.get("/devices/cam-1", Some(&ada)).into_body();
        for shown in ["24.5", "31.2", "stream-lost", "people 2.0.0", "<svg", "door"] {
            assert!(device.contains(shown), "{shown}: {device}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_is_offered_no_change_and_refused_each() {
    beside(World::new().await, |world| {
        let rollout = begin_rollout(world);
        let (vera, otto) = (world.sign_in("vera"), world.sign_in("otto"));
        for page in
            ["/", "/devices", "/devices/cam-1", "/models", "/rollouts", &format!("/rollouts/{rollout}"), "/alerts"]
        {
            let seen = world.get(page, Some(&vera));
            assert_eq!(seen.status(), 200, "{page}");
            // Signing out is all that there is to send.
            assert_eq!(seen.body().matches("method=\"post\"").count(), 1, "{page}: {}", seen.body());
        }
        for page in ["/rollouts/new", "/audit", "/people", "/enrolment"] {
            assert_eq!(world.get(page, Some(&vera)).status(), 403, "{page}");
        }
        let version = digest().to_string();
        let intent = format!("/rollouts/{rollout}/intent");
        for (path, fields) in [
            ("/devices/cam-1/command", &[("ask", "restart-pipeline")][..]),
            ("/devices/cam-1/tags", &[("tags", "a")]),
            ("/rollouts", &[("digest", version.as_str())]),
            (intent.as_str(), &[("intent", "pause")]),
            ("/alerts/rules", &[("name", "a"), ("when", "failed")]),
            ("/alerts/rules/remove", &[("name", "a")]),
            ("/devices/cam-1/builder", &[("is_builder", "yes")]),
            ("/devices/cam-1/revoke", &[]),
            ("/devices/cam-1/remove", &[]),
            ("/people/users", &[("name", "eve"), ("role", "admin"), ("password", PASSWORD)]),
            ("/people/users/change", &[("name", "vera"), ("change", "role"), ("role", "admin")]),
            ("/people/tokens", &[("name", "eve"), ("role", "admin")]),
            ("/people/tokens/remove", &[("name", "admin")]),
            ("/enrolment", &[("name", "eve")]),
            ("/enrolment/remove", &[("name", "eve")]),
            ("/audit", &[]),
        ] {
            assert_eq!(world.post(path, Some(&vera), fields).status(), 403, "{path}");
        }
        assert!(world.get("/devices/cam-1", Some(&otto)).body().contains("Restart the pipeline"));
        for path in ["/devices/cam-1/revoke", "/devices/cam-1/remove", "/people/users", "/enrolment", "/audit"] {
            let fields = [("name", "eve"), ("role", "admin"), ("password", PASSWORD)];
            assert_eq!(world.post(path, Some(&otto), &fields).status(), 403, "{path}");
        }
        let commands = world.service.fleet.store().open_commands(&"cam-1".parse().unwrap()).unwrap();
        assert!(commands.is_empty(), "{commands:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_pages_send_is_refused() {
    beside(World::new().await, |world| {
        let ada = world.sign_in("ada");
        for site in ["cross-site", "same-site"] {
            let answer = world.post_from(site, "/devices/cam-1/remove", Some(&ada), &[]);
            assert_eq!(answer.status(), 403, "{site}");
            let answer = world.post_from(site, "/signin", None, &[("name", "ada"), ("password", PASSWORD)]);
            assert_eq!(answer.status(), 403, "{site}");
            assert!(!answer.headers().contains_key("set-cookie"));
            assert_eq!(world.post_from(site, "/signout", Some(&ada), &[]).status(), 403, "{site}");
        }
        assert_eq!(world.get("/devices/cam-1", Some(&ada)).status(), 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_in_comes_to_where_they_were_going_and_nowhere_else() {
    beside(World::new().await, |world| {
        let wrong = world.post("/signin", None, &[("name", "ada"), ("password", "wrong"), ("to", "/devices")]);
        assert_eq!(wrong.status(), 401);
        assert!(wrong.body().contains("the name or the password is wrong"), "{}", wrong.body());
        assert!(!wrong.headers().contains_key("set-cookie"));
        for (to, target) in
            [("/devices?filter=a", "/devices?filter=a"), ("//evil.example", "/"), ("https://evil.example", "/")]
        {
            let answer = world.post("/signin", None, &[("name", "ada"), ("password", PASSWORD), ("to", to)]);
            assert_eq!(answer.headers()["location"], target, "{to}");
        }
        let ada = world.sign_in("ada");
        assert_eq!(world.post("/signout", Some(&ada), &[]).status(), 303);
        assert_eq!(world.get("/devices", Some(&ada)).status(), 303);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_commands_tags_and_rolls_out() {
    beside(World::new().await, |world| {
        let otto = world.sign_in("otto");
        let device = "cam-1".parse().unwrap();
        for fields in [
            &[("ask", "restart-pipeline")][..],
            &[("ask", "snapshot"), ("stream", "door")],
            &[("ask", "fetch-logs"), ("lines", "200")],
            &[("ask", "swap-model"), ("digest", &Digest::new([8; 32]).to_string())],
            &[("ask", "label"), ("stream", "door"), ("track", "12"), ("label", "Egyptian cat")],
            &[("ask", "forget"), ("label", "parcel")],
            &[("ask", "forget-all")],
        ] {
            let answer = world.post("/devices/cam-1/command", Some(&otto), fields);
            assert_eq!(answer.headers()["location"], "/devices/cam-1?done=command", "{fields:?}");
        }
        let asked = world.service.fleet.store().open_commands(&device).unwrap();
        let label = "Egyptian cat".parse().unwrap();
        assert_eq!(asked[4].ask, Ask::Label { stream: "door".to_owned(), track: 12, label });
        assert_eq!(asked[5].ask, Ask::Forget { label: Some("parcel".parse().unwrap()) });
        assert_eq!((asked.len(), &asked[6].ask), (7, &Ask::Forget { label: None }));
        for (fields, why) in [
            (&[("ask", "dance")][..], "there is no such command"),
            // What is left empty is not everything.
            (&[("ask", "forget"), ("label", "")], "the command lacks its label"),
            (&[("ask", "label"), ("stream", "door"), ("label", "a")], "the command lacks its track"),
            (&[("ask", "label"), ("stream", "door"), ("track", "0"), ("label", "a")], "tracks are numbered from 1"),
            (
                &[("ask", "label"), ("stream", "door"), ("track", "1"), ("label", "../a")],
                "expected a label of 1 to 128",
            ),
        ] {
            let refused = world.post("/devices/cam-1/command", Some(&otto), fields);
            assert_eq!(refused.status(), 422, "{fields:?}");
            assert!(refused.body().contains(why), "{}", refused.body());
        }
        let page = world.get("/devices/cam-1", Some(&otto)).into_body();
        assert!(page.contains("Keep track 12 of door as Egyptian cat"), "{page}");
        assert_eq!(world.post("/devices/cam-1/tags", Some(&otto), &[("tags", "door, west wing,")]).status(), 303);
        let tags = world.service.fleet.store().device(&device).unwrap().unwrap().tags;
        assert_eq!(tags, ["door".to_owned(), "west wing".to_owned()].into());

        let version = digest().to_string();
        let count = world.get("/rollouts/preview?filter=tag+%3D+door", Some(&otto)).into_body();
        assert!(count.contains("1 device<"), "{count}");
        let fields = |gate: &'static str| {
            vec![
                ("digest".to_owned(), version.clone()),
                ("filter".to_owned(), "tag = door".to_owned()),
                ("size".to_owned(), "1".to_owned()),
                ("size".to_owned(), "100%".to_owned()),
                ("size".to_owned(), String::new()),
                ("soak".to_owned(), "1m".to_owned()),
                ("soak".to_owned(), "2m".to_owned()),
                ("gate".to_owned(), "fps".to_owned()),
                ("fps.threshold".to_owned(), gate.to_owned()),
                ("fps.breaches".to_owned(), "5".to_owned()),
                ("fps.samples".to_owned(), "1".to_owned()),
            ]
        };
        let post = |fields: Vec<(String, String)>| {
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            world.post("/rollouts", Some(&otto), &fields)
        };
        let wrong = post(fields("fast"));
        assert_eq!(wrong.status(), 422);
        // What was typed is still there.
        assert!(wrong.body().contains("`fast` is no threshold of gate `fps`"), "{}", wrong.body());
        assert!(wrong.body().contains("value=\"tag = door\"") && wrong.body().contains("value=\"2m\""));
        let begun = post(fields("0.9"));
        assert_eq!(begun.headers()["location"], "/rollouts/1?done=rollout", "{}", begun.body());
        let view = world.service.fleet.rollout(&Principal::service(), revoada_fleet::planner::RolloutId(1)).unwrap();
        assert_eq!(view.rollout.waves[1].soak, Duration::from_mins(2));
        assert_eq!((view.rollout.waves.len(), view.rollout.gates.len()), (2, 1));
        assert_eq!(view.rollout.filter.to_string(), "tag = door");
        for (intent, is_paused) in [("pause", true), ("resume", false)] {
            assert_eq!(world.post("/rollouts/1/intent", Some(&otto), &[("intent", intent)]).status(), 303);
            let view = world.service.fleet.rollout(&Principal::service(), view.id).unwrap();
            assert_eq!(view.is_paused, is_paused, "{intent}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_has_devices_learn_and_releases_what_they_have_learned() {
    beside(World::new().await, |world| {
        let otto = world.sign_in("otto");
        let model = digest().to_string();
        let page = world.get("/learning/new", Some(&otto)).into_body();
        assert!(page.contains(&format!("<option value=\"{model}\"")), "{page}");
        let fields = [
            ("title", "At the door"),
            ("participants_min", "3"),
            ("model", &model),
            ("filter", "tag = door"),
            ("labels", "parcel\r\n Egyptian cat \r\n\r\n"),
            ("hidden", "32"),
            ("rate", "0.05"),
            ("balanced", "yes"),
            ("config", "epochs=2"),
        ];
        let with = |more: &[(&'static str, &'static str)]| {
            let fields: Vec<_> =
                fields.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name)).collect();
            fields.into_iter().copied().chain(more.iter().copied()).collect::<Vec<_>>()
        };
        for (more, why) in [
            (&[("model", "")][..], "`hidden` is for devices: choose the model"),
            (&[("epochs", "3")], "`epochs` is said twice"),
            (&[("rate", "fast")], "`rate` is `fast`, and has to be a number"),
            (&[("filter", "tag =")], "the filter cannot be read"),
            (&[("held_out", "1")], "`config.held_out` has to be at least 0 and below 1"),
        ] {
            let refused = world.post("/learning", Some(&otto), &with(more));
            assert_eq!(refused.status(), 422, "{more:?}");
            assert!(refused.body().contains(why), "{why}: {}", refused.body());
            // What was typed is still there.
            assert!(refused.body().contains("value=\"At the door\"") && refused.body().contains("Egyptian cat"));
        }
        let added = world.post("/learning", Some(&otto), &with(&[]));
        assert_eq!(added.headers()["location"], "/learning/1?done=run", "{}", added.body());
        let record = world.service.fleet.run(&Principal::service(), RunId(1)).unwrap();
        let Participants::Devices { filter, devices_min, head } = record.plan.participants else {
            panic!("{:?}", record.plan.participants)
        };
        assert_eq!((filter.to_string().as_str(), devices_min, head.model), ("tag = door", 3, digest()));
        assert_eq!(head.labels, ["parcel", "Egyptian cat"]);
        let settings = head.settings;
        assert_eq!((settings.hidden, settings.epochs, settings.rate), (Some(32), Some(2), Some(0.05)));
        assert!(settings.balanced && settings.batch.is_none() && settings.held_out.is_none());

        // There is nothing to release yet, nor a key to sign it with; and a viewer is not asked for either.
        assert!(!world.get("/learning/1", Some(&otto)).into_body().contains("Release as version"));
        let release = |who: &str| world.post("/learning/1/release", Some(who), &[("version", "2")]);
        let refused = release(&otto);
        assert_eq!(refused.status(), 409, "{}", refused.body());
        assert_eq!(release(&world.sign_in("vera")).status(), 403);
        assert_eq!(world.get("/learning/new", Some(&world.sign_in("vera"))).status(), 403);
    })
    .await;
}

/// What a gate is judged by is shown while it is open, and while it holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_shows_what_its_gates_are_judged_by() {
    beside(World::new().await, |world| {
        let (device, fleet): (DeviceId, _) = ("cam-1".parse().unwrap(), &world.service.fleet);
        let serial = "0123456789abcdef0123456789abcdef".parse().unwrap();
        fleet.ingest(vec![Incoming::Connected { peer: Peer { device: device.clone(), serial }, connection: 1 }]);
        let mut sequence = 1;
        let mut say = |generation, runs: u8, agreement| {
            sequence += 1;
            let figures = Figures { over: Duration::from_mins(5), agreement, ..Figures::default() };
            let running = [(Kind::Model, Digest::new([runs; 32]))].into();
            let report = Report { sequence, generation, progress: Progress::Done, running, figures };
            let payload = encode_report(&report, &Details::default()).into();
            fleet.ingest(vec![Incoming::Message { device: device.clone(), channel: Channel::State, payload }]);
        };
        say(Generation(0), 8, None);
        let form = serde_json::json!({
            "kind": "model", "name": "people", "version": "2.0.0",
            "gates": [
                { "measure": "outcome" },
                { "measure": "agreement", "threshold": 0.9 },
                { "measure": "accuracy", "threshold": 0.8 },
            ],
        });
        let form: RolloutForm = serde_json::from_value(form).unwrap();
        let id = fleet.add_rollout(&Principal::service(), &form).unwrap();
        let vera = world.sign_in("vera");
        let seen = |shown: &[&str]| {
            for _ in 0..600 {
                let page = world.get(&format!("/rollouts/{id}"), Some(&vera)).into_body();
                let gates = page.split_once("id=\"gates\"").unwrap().1.split_once("</section>").unwrap().0.to_owned();
                if shown.iter().all(|text| gates.contains(text)) {
                    return gates;
                }
                fleet.plan().unwrap();
            }
            panic!("the page never shows {shown:?}: {}", world.get(&format!("/rollouts/{id}"), Some(&vera)).body());
        };
        let open = seen(&["0 of 1 device done", "agreement not measured yet, at least 0.9 wanted"]);
        assert_eq!(open.matches("badge working").count(), 3, "{open}");
        say(Generation(1), 7, Some(0.97));
        let held =
            seen(&["1 of 1 device done", "agreement 0.970, at least 0.9 wanted", "on <a href=\"/devices/cam-1\""]);
        assert!(held.contains("accuracy not measured yet, at least 0.8 wanted"), "{held}");
        assert_eq!((held.matches("badge good").count(), held.matches("badge working").count()), (2, 1), "{held}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_manages_people_tokens_rules_and_devices() {
    beside(World::new().await, |world| {
        let ada = world.sign_in("ada");
        let user = [("name", "eve"), ("role", "viewer"), ("password", PASSWORD)];
        assert_eq!(world.post("/people/users", Some(&ada), &user).status(), 303);
        let change = [("name", "eve"), ("change", "role"), ("role", "operator")];
        assert_eq!(world.post("/people/users/change", Some(&ada), &change).status(), 303);
        let eve = world.service.fleet.store().user("eve").unwrap().unwrap();
        assert_eq!(eve.role, Role::Operator);

        let told = world.post("/people/tokens", Some(&ada), &[("name", "ci"), ("role", "viewer")]).into_body();
        let start = told.find("rvf_").expect("the token is told");
        let token: String = told[start..].chars().take_while(|c| *c != '"').collect();
        assert_eq!(world.service.fleet.token(&token).unwrap().role, Role::Viewer);
        assert!(!world.get("/people", Some(&ada)).body().contains(&token));

        let form = [("name", "docks"), ("prefix", "dock-"), ("uses", "3"), ("valid_for", "2h")];
        assert_eq!(world.post("/enrolment", Some(&ada), &form).status(), 200);
        assert_eq!(world.service.fleet.store().enrolment_tokens().unwrap()[0].uses_left, 3);

        let rule = [("name", "hot"), ("when", "hot"), ("limit", "80"), ("is_enabled", "yes")];
        assert_eq!(world.post("/alerts/rules", Some(&ada), &rule).status(), 303);
        assert_eq!(world.post("/alerts/rules", Some(&ada), &[("name", "hot"), ("when", "hot")]).status(), 422);
        assert!(world.get("/alerts", Some(&ada)).body().contains("hotter than 80 °C"));
        assert_eq!(world.post("/alerts/rules/remove", Some(&ada), &[("name", "hot")]).status(), 303);

        assert!(world.post("/audit", Some(&ada), &[]).body().contains("The chain is whole"));
        assert_eq!(world.post("/devices/cam-1/remove", Some(&ada), &[]).status(), 303);
        assert_eq!(world.get("/devices/cam-1", Some(&ada)).status(), 404);

        let account = [("password", "another good one"), ("again", "another good one")];
        assert_eq!(world.post("/account", Some(&ada), &account).headers()["location"], "/signin?done=password");
        assert_eq!(world.get("/", Some(&ada)).headers()["location"], "/signin");
    })
    .await;
}
