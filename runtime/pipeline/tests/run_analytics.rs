//! Lines and regions in a running pipeline: counts and events in records, metrics and statistics, and their reload.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use fakes::{DEADLINE, FILE, LIVE, Script, Step};
use revoada_core::{Clock, Timestamp};
use revoada_pipeline::config::PipelineConfig;
use revoada_pipeline::control::{Client, Command};
use revoada_pipeline::run::{Parts, RunError, RunSummary, StopFlag, run};
use revoada_pipeline::sink::{self, record::Record};
use serde_json::{Value, json};

const RULES: &str = r#"
[tracker]
algorithm = "bytetrack"
[analytics]
margin = 0
forget_s = 0.2
[[analytics.line]]
name = "door"
points = [[0, 8], [16, 8]]
[[analytics.region]]
name = "hall"
points = [[0, 3.5], [16, 3.5], [16, 12.5], [0, 12.5]]
dwell_s = 0.2
[[analytics.region]]
name = "floor"
streams = ["other"]
points = [[0, 0], [16, 0], [0, 16]]
"#;

/// Always the same time of day.
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(1_764_417_600_000_000_000)
    }
}

fn script(folder: &Path, streams: &[(&str, &str, &[&[Step]])], rules: &str) -> Script {
    let (results, events) = (folder.join("results.jsonl"), folder.join("events.jsonl"));
    let labels = folder.join("labels.txt");
    std::fs::write(&labels, "person\n").unwrap();
    let tables = format!(
        "{rules}[[sink]]\ntype = \"jsonl\"\npath = {results:?}\n[[sink]]\ntype = \"events\"\npath = {events:?}\n"
    );
    let script = Script::described(streams, &tables);
    script.set("model.decoder", "walker").set("model.labels", labels.display().to_string())
}

/// The script's parts, with sinks that write.
fn parts(script: &Script) -> Parts {
    let (parts, _) = script.parts();
    Parts { open_sink: Box::new(sink::open), wall_clock: Arc::new(Noon), ..parts }
}

/// What the script describes, with the tracks that its detections have already in the place of those of a tracker.
fn config(script: &Script) -> PipelineConfig {
    let mut config = script.config();
    (config.tracker, config.model.score_low) = (None, None);
    config
}

fn finished(script: &Script) -> Result<RunSummary, RunError> {
    run(config(script), parts(script), &StopFlag::new())
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const TWO_STREAMS: [(&str, &str, &[&[Step]]); 2] =
    [("front", FILE, &[&[Step::Frames(64)]]), ("other", FILE, &[&[Step::Frames(3)]])];

#[test]
fn events_and_counts_are_written_and_the_same_again() {
    let folder = tempfile::tempdir().unwrap();
    let script = script(folder.path(), &TWO_STREAMS, RULES);
    let summary = finished(&script).unwrap();
    let events = lines(&folder.path().join("events.jsonl"));
    assert_eq!(events[0]["kind"], "header");
    let mut front: Vec<&Value> = events.iter().filter(|event| event["stream"] == "front").collect();
    front.sort_by_key(|event| event["frame"].as_u64());
    // Object 1 comes into the hall in frame 4, through the door in frame 8, has been there for 200 ms in frame 9, and
    // leaves in frame 13; a frame lasts 40 ms.
    let event = |id: &str, frame: u64, kind: &str, rule: &str, rest: Value| {
        let mut event = json!({
            "kind": "event", "version": 1, "id": id, "stream": "front", "frame": frame, "pts_ms": frame as f64 * 40.0,
            "event": kind, "rule": rule, "track": 1, "class": 0, "label": "person",
            "box": [6.0, frame as f64 - 4.0, 4.0, 4.0],
        });
        event.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        event
    };
    let expected = [
        event("front-4-0", 4, "region-entered", "hall", json!({})),
        event("front-8-0", 8, "line-crossed", "door", json!({ "way": "in", "in": 1, "out": 0 })),
        event("front-9-0", 9, "region-dwelt", "hall", json!({ "lasted_ms": 200.0 })),
        event("front-13-0", 13, "region-left", "hall", json!({ "lasted_ms": 360.0 })),
    ];
    assert_eq!(front[..4].iter().map(|event| (*event).clone()).collect::<Vec<_>>(), expected);
    assert_eq!(front.len(), 4 * 4);
    let other: Vec<&Value> = events.iter().filter(|event| event["stream"] == "other").collect();
    assert_eq!(other.iter().map(|event| &event["rule"]).collect::<Vec<_>>(), ["floor"]);

    let hall = json!({ "name": "hall", "objects": 0, "entered": 4, "left": 4, "dwelt": 4, "crowded": false });
    let door =
        json!({ "name": "door", "in": 4, "out": 0, "classes": [{ "class": 0, "label": "person", "in": 4, "out": 0 }] });
    let counts = json!({ "lines": [door], "regions": [hall] });
    let results = lines(&folder.path().join("results.jsonl"));
    let frame = |frame: u64| results.iter().find(|line| line["stream"] == "front" && line["frame"] == frame).unwrap();
    assert_eq!(frame(63)["counts"], counts);
    let mut told = expected[1].clone();
    told.as_object_mut().unwrap().remove("kind");
    assert_eq!(frame(8)["events"], json!([told]));
    assert_eq!(frame(7).get("events"), None);
    for line in lines(&folder.path().join("events.jsonl")).iter().chain(&results) {
        assert!(line.get("time").is_none(), "files have no time of day: {line}");
        let record: Record = serde_json::from_value(line.clone()).unwrap();
        assert_eq!(serde_json::to_value(record).unwrap(), *line);
    }
    let front = summary.streams.iter().find(|stream| stream.id == "front").unwrap();
    assert_eq!(serde_json::to_value(&front.counts).unwrap(), counts);

    let before: Vec<Value> = events.iter().filter(|event| event["stream"] == "front").cloned().collect();
    finished(&script).unwrap();
    let again = lines(&folder.path().join("events.jsonl"));
    assert_eq!(again.into_iter().filter(|event| event["stream"] == "front").collect::<Vec<_>>(), before);
}

#[test]
fn what_the_tracker_follows_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let script = script(folder.path(), &TWO_STREAMS, RULES);
    let summary = run(script.config(), parts(&script), &StopFlag::new()).unwrap();
    let front = summary.streams.iter().find(|stream| stream.id == "front").unwrap();
    let counts = front.counts.as_ref().unwrap();
    assert_eq!((front.tracks, counts.lines[0].crossings.inwards, counts.regions[0].entered), (4, 4, 4));
}

#[test]
fn events_of_a_live_stream_have_the_time_of_day() {
    let folder = tempfile::tempdir().unwrap();
    let rules = RULES.replace("other", "live");
    let script = script(folder.path(), &[("live", LIVE, &[&[Step::Frames(16)]])], &rules);
    finished(&script.set_every_stream("queue_frames_max", 16)).unwrap();
    let events = lines(&folder.path().join("events.jsonl"));
    assert_eq!(events.len(), 1 + 4 + 2);
    assert_eq!(events[1]["time"], "2025-11-29T12:00:00.000Z");
    assert_eq!(events[1]["id"], "live-0-0-1764417600000");
}

#[test]
fn a_class_that_the_model_does_not_have_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let rules = RULES.replace("name = \"door\"", "name = \"door\"\nclasses = [\"persn\"]");
    let error = finished(&script(folder.path(), &TWO_STREAMS, &rules)).unwrap_err().to_string();
    assert_eq!(error, "`door` looks at class `persn`: the model has no such label, the nearest is `person`");
}

/// Waits for what a running pipeline tells.
fn wait_for(told: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{told}");
        std::thread::yield_now();
    }
}

#[test]
fn rules_are_reloaded_and_those_that_stay_go_on_counting() {
    let folder = tempfile::tempdir().unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let socket = folder.path().join("control.sock");
    let script =
        script(folder.path(), &[("front", FILE, &[&[Step::FramesWithoutEnd]])], &RULES.replace("other", "front"))
            .set("control.socket", socket.display().to_string())
            .set("http.address", address.to_string());
    let config = config(&script);
    let file = Arc::new(Mutex::new(config.clone()));
    let reread = Arc::clone(&file);
    let parts = Parts { reread: Some(Box::new(move || Ok(reread.lock().unwrap().clone()))), ..parts(&script) };
    let stop = StopFlag::new();
    let (running, stopping) = (config.clone(), stop.clone());
    let thread = std::thread::spawn(move || run(running, parts, &stopping));
    let mut client = None;
    wait_for("nobody listens", || {
        client = Client::connect(&socket).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    let counts = |client: &mut Client| {
        let stats: RunSummary = serde_json::from_value(client.request(Command::Stats).unwrap()).unwrap();
        stats.streams.into_iter().next().and_then(|stream| stream.counts)
    };
    wait_for("nobody goes through the door", || {
        counts(&mut client).is_some_and(|counts| counts.lines[0].crossings.inwards >= 3)
    });
    let metrics = metrics(address);
    for name in [
        "revoada_line_crossings_total{stream=\"front\",line=\"door\",way=\"in\"} ",
        "revoada_line_crossings_total{stream=\"front\",line=\"door\",way=\"out\"} 0",
        "revoada_region_objects{stream=\"front\",region=\"floor\"} ",
        "revoada_region_entered_total{stream=\"front\",region=\"hall\"} ",
        "revoada_events_total{stream=\"front\",event=\"line-crossed\"} ",
    ] {
        assert!(metrics.contains(name), "{name} is missing in\n{metrics}");
    }

    // The hall goes, the floor changes, the door stays.
    let mut changed = config.clone();
    let analytics = changed.analytics.as_mut().unwrap();
    analytics.regions.remove(0);
    analytics.regions[0].inverse = true;
    *file.lock().unwrap() = changed.clone();
    let before = counts(&mut client).unwrap();
    assert_eq!(client.request(Command::Reload).unwrap()["analytics_changed"], true);
    wait_for("the regions did not change", || counts(&mut client).is_some_and(|counts| counts.regions.len() == 1));
    let after = counts(&mut client).unwrap();
    assert!(after.lines[0].crossings.inwards >= before.lines[0].crossings.inwards, "{before:?} {after:?}");

    let mut wrong = changed.clone();
    wrong.analytics.as_mut().unwrap().lines[0].scope.classes = vec!["persn".into()];
    *file.lock().unwrap() = wrong;
    let refused = client.request(Command::Reload).unwrap_err().to_string();
    assert!(refused.contains("`door` looks at class `persn`"), "{refused}");

    changed.analytics = None;
    *file.lock().unwrap() = changed;
    client.request(Command::Reload).unwrap();
    wait_for("analytics go on", || counts(&mut client).is_none());
    stop.request();
    thread.join().unwrap().unwrap();
}

fn metrics(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
