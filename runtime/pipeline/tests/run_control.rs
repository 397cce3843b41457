//! A running pipeline asked over its control socket and its HTTP address.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use fakes::{CAMERA, FILE, LIVE, Script, Step};
use revoada_pipeline::config::PipelineConfig;
use revoada_pipeline::control::{Client, ClientError, Command};
use revoada_pipeline::run::{RunSummary, StopFlag, run};
use serde_json::json;

struct Running {
    _folder: tempfile::TempDir,
    client: Client,
    collected: [fakes::Collected; 2],
    stop: StopFlag,
    thread: std::thread::JoinHandle<Result<RunSummary, revoada_pipeline::run::RunError>>,
    /// What `reload` reads.
    file: Arc<Mutex<Result<PipelineConfig, String>>>,
    config: PipelineConfig,
}

fn start(script: &Script) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let config = script.clone().set("control.socket", socket.display().to_string()).config();
    let (mut parts, collected) = script.parts();
    let file = Arc::new(Mutex::new(Ok(config.clone())));
    let reread = Arc::clone(&file);
    parts.reread = Some(Box::new(move || reread.lock().unwrap().clone()));
    let (stop, running) = (StopFlag::new(), config.clone());
    let stopping = stop.clone();
    let thread = std::thread::spawn(move || run(running, parts, &stopping));
    let deadline = std::time::Instant::now() + fakes::DEADLINE;
    let client = loop {
        match Client::connect(&socket) {
            Ok(client) => break client,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error:?}"),
        }
        std::thread::yield_now();
    };
    Running { _folder: folder, client, collected, stop, thread, file, config }
}

fn endless(streams: &[&str]) -> Script {
    let steps: &[&[Step]] = &[&[Step::FramesWithoutEnd]];
    Script::new(&streams.iter().map(|id| (*id, FILE, steps)).collect::<Vec<_>>())
}

#[test]
fn statistics_are_the_summary_so_far() {
    let mut run = start(&endless(&["a", "b"]));
    run.collected[0].wait_for("b", 10);
    let stats: RunSummary = serde_json::from_value(run.client.request(Command::Stats).unwrap()).unwrap();
    assert_eq!(stats.streams.len(), 2);
    assert!(stats.frames_out >= 10 && stats.latency.total.max_ms > 0.0, "{stats:?}");
    run.stop.request();
    run.thread.join().unwrap().unwrap();
}

#[test]
fn drain_ends_the_run_with_its_outputs_complete() {
    let mut run = start(&endless(&["a"]));
    run.collected[0].wait_for("a", 3);
    run.client.request(Command::Drain).unwrap();
    assert!(run.thread.join().unwrap().is_ok());
    assert!(run.collected.iter().all(|sink| sink.is_finished()));
}

#[test]
fn a_snapshot_is_the_next_picture_of_its_stream() {
    let mut run = start(&endless(&["a", "b"]));
    run.collected[0].wait_for("a", 1);
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.jpg", "a.png"] {
        let path = folder.path().join(name);
        let answer = run.client.request(Command::snapshot("a", &path, Path::new("/"))).unwrap();
        let picture = image::open(&path).unwrap();
        assert_eq!((picture.width(), picture.height()), (16, 16));
        assert_eq!((&answer["width"], &answer["height"]), (&16.into(), &16.into()));
        assert_eq!(answer["bytes"], std::fs::metadata(&path).unwrap().len());
    }
    for (stream, path, expected) in [
        ("c", "/tmp/x.jpg", "there is no stream `c`; choose one of `a`, `b`"),
        ("a", "/tmp/x.gif", "expected `.jpg`, `.jpeg` or `.png`"),
        ("a", "/no/such/folder/x.jpg", "cannot write `/no/such/folder/x.jpg`"),
    ] {
        let error = run.client.request(Command::snapshot(stream, Path::new(path), Path::new("/"))).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left beside the pictures");
    run.stop.request();
    run.thread.join().unwrap().unwrap();
}

#[test]
fn reload_starts_ends_and_changes_streams_and_refuses_the_rest() {
    let steps: &[&[Step]] = &[&[Step::FramesWithoutEnd]];
    let script = Script::new(&[("a", FILE, steps), ("b", LIVE, steps), ("c", CAMERA, steps)]);
    let mut run = start(&script);
    run.collected[0].wait_for("a", 3);

    // `a` goes, `b` changes, `c` stays.
    let mut config = run.config.clone();
    config.streams.remove(0);
    config.streams[0].interval = 2;
    *run.file.lock().unwrap() = Ok(config.clone());
    let answer = run.client.request(Command::Reload).unwrap();
    assert_eq!(answer["streams_removed"], serde_json::json!(["a"]));
    assert_eq!(answer["streams_changed"], serde_json::json!(["b"]));
    let seen = run.collected[0].of("b").len();
    run.collected[0].wait_for("b", seen + 20);
    run.collected[0].wait_for("c", seen + 20);
    let ends = run.collected[0].wait_for_ends("a", 1);
    assert_eq!(ends, [run.collected[0].of("a").len()], "its end comes after its last frame");

    // `a` comes back.
    *run.file.lock().unwrap() = Ok(run.config.clone());
    assert_eq!(run.client.request(Command::Reload).unwrap()["streams_added"], serde_json::json!(["a"]));
    let seen = run.collected[0].of("a").len();
    run.collected[0].wait_for("a", seen + 3);

    config.model.path = "other.onnx".into();
    *run.file.lock().unwrap() = Ok(config);
    let refused = run.client.request(Command::Reload);
    assert!(matches!(&refused, Err(ClientError::Refused(reason)) if reason.starts_with("`model` cannot be changed")));
    *run.file.lock().unwrap() = Err("pipeline.toml:3: unknown key".into());
    let refused = run.client.request(Command::Reload);
    assert!(matches!(&refused, Err(ClientError::Refused(reason)) if reason == "pipeline.toml:3: unknown key"));

    assert_eq!(run.collected[0].wait_for_ends("b", 0), [0; 0], "a stream that is only changed goes on");
    run.stop.request();
    let summary = run.thread.join().unwrap().unwrap();
    assert_eq!(summary.failures().count(), 0);
    for stream in &summary.streams {
        assert_eq!(stream.frames_in, stream.frames_out + stream.frames_dropped.total(), "{stream:?}");
    }
}

#[test]
fn reload_changes_the_tracker_and_numbers_go_on() {
    let script = endless(&["a"]).set("tracker.algorithm", "sort").set("tracker.across_classes", true);
    let mut run = start(&script);
    run.collected[0].wait_for("a", 5);
    let config = script.clone().set("tracker.algorithm", "ocsort").config();
    let tracker = config.tracker;
    *run.file.lock().unwrap() = Ok(PipelineConfig { tracker, ..run.config.clone() });
    let answer = run.client.request(Command::Reload).unwrap();
    assert_eq!(answer["tracker_changed"], true);
    let seen = run.collected[0].of("a").len();
    run.collected[0].wait_for("a", seen + 20);
    *run.file.lock().unwrap() = Ok(PipelineConfig { tracker: None, ..run.config.clone() });
    run.client.request(Command::Reload).unwrap();
    let seen = run.collected[0].of("a").len();
    run.collected[0].wait_for("a", seen + 20);
    run.stop.request();
    run.thread.join().unwrap().unwrap();
    let mut tracks = run.collected[0].tracks("a");
    tracks.dedup();
    assert_eq!(tracks, [Some(1), Some(2), None]);
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn metrics_and_streams_are_served_over_http() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let run = endless(&["a"]).set("http.address", address.to_string()).start();
    run.collected[0].wait_for("a", 5);
    let metrics = get(address, "/metrics");
    for name in
        ["revoada_frames_in_total{stream=\"a\"}", "revoada_frame_latency_seconds_bucket", "revoada_queue_frames"]
    {
        assert!(metrics.contains(name), "{name} is missing in {metrics}");
    }
    let streams = get(address, "/api/streams");
    assert!(streams.contains("\"running\""), "{streams}");
    run.stop.request();
    run.finish().unwrap();
}

#[test]
fn a_stream_joins_and_leaves_while_others_run() {
    let steps: &[&[Step]] = &[&[Step::FramesWithoutEnd]];
    let script = Script::new(&[("a", FILE, steps), ("late", FILE, steps)]);
    let mut run = start(&script);
    run.collected[0].wait_for("a", 3);
    let remove = |stream: &str| Command::RemoveStream { stream: stream.into() };
    run.client.request(remove("late")).unwrap();
    run.collected[0].wait_for_ends("late", 1);
    let before = run.collected[0].of("late").len();
    let add = |stream: serde_json::Value| Command::AddStream { stream: stream.as_object().unwrap().clone() };
    let answer = run.client.request(add(json!({ "uri": FILE, "id": "late", "interval": 2 }))).unwrap();
    assert_eq!((&answer["streams_added"], &answer["streams_changed"]), (&json!(["late"]), &json!([])));
    run.collected[0].wait_for("late", before + 5);
    let frames = run.collected[0].of("late");
    assert!(frames[before..].iter().all(|frame| frame % 2 == 0), "{frames:?}");
    for (asked, reason) in [
        (remove("gone"), "there is no stream `gone`"),
        (add(json!({ "uri": FILE, "id": "a" })), "request: stream[2].id: there is another stream `a`"),
        (add(json!({ "uri": FILE, "intervall": 2 })), "unknown key, did you mean `interval`?"),
        (add(json!({ "id": "b" })), "uri"),
    ] {
        let error = run.client.request(asked).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    run.client.request(remove("late")).unwrap();
    let error = run.client.request(remove("a")).unwrap_err().to_string();
    assert!(error.contains("cannot remove stream `a`: "), "{error}");
    assert!(error.contains("a pipeline has at least one `[[stream]]`"), "{error}");
    run.stop.request();
    run.thread.join().unwrap().unwrap();
}

#[test]
fn no_picture_is_awaited_of_a_stream_that_is_over() {
    let steps: [&[&[Step]]; 3] = [&[&[Step::FramesWithoutEnd]], &[&[Step::Frames(3)]], &[&[Step::Unopenable]]];
    let mut run = start(&Script::new(&[("a", FILE, steps[0]), ("short", FILE, steps[1]), ("broken", FILE, steps[2])]));
    for (stream, state) in [("short", "ended"), ("broken", "failed")] {
        run.collected[0].wait_for_ends(stream, 1);
        let snapshot = Command::snapshot(stream, Path::new("a.jpg"), Path::new("/tmp"));
        let record = Command::Record { stream: stream.into(), seconds: None };
        for command in [snapshot, record] {
            let error = run.client.request(command).unwrap_err().to_string();
            assert!(error.contains(&format!("`{stream}` shows no more pictures: it has {state}")), "{error}");
        }
    }
    run.stop.request();
    run.thread.join().unwrap().unwrap();
}

#[test]
fn streams_are_added_over_http_only_where_that_is_allowed() {
    for allowed in [true, false] {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let script = endless(&["a"]).set("http.address", address.to_string()).set("http.control", allowed);
        let run = start(&script);
        run.collected[0].wait_for("a", 1);
        let ask = |method: &str, path: &str, kind: &str, body: &str| {
            let mut connection = TcpStream::connect(address).unwrap();
            write!(
                connection,
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            answer
        };
        let stream = json!({ "uri": "test://smpte", "id": "a-2" }).to_string();
        let plain = ask("POST", "/api/streams", "text/plain", &stream);
        assert!(plain.starts_with("HTTP/1.1 415"), "a form of another site: {plain}");
        let removed = ask("DELETE", "/api/streams/b", "text/plain", "");
        let wrong = ask("POST", "/api/streams", "application/json", r#"{"uri":"ftp://x"}"#);
        if allowed {
            assert!(removed.starts_with("HTTP/1.1 400") && removed.contains("there is no stream `b`"), "{removed}");
            assert!(wrong.starts_with("HTTP/1.1 400") && wrong.contains("ftp"), "{wrong}");
        } else {
            assert!(removed.starts_with("HTTP/1.1 403") && wrong.starts_with("HTTP/1.1 403"), "{removed}{wrong}");
        }
        run.stop.request();
        run.thread.join().unwrap().unwrap();
    }
}

#[test]
fn a_shadow_is_compared_and_changes_nothing() {
    let mut run = start(&endless(&["a", "b"]));
    run.collected[0].wait_for("a", 3);
    let shadow = |model: &str| Command::Shadow { model: format!("/models/{model}.onnx").into() };
    let error = run.client.request(shadow("missing")).unwrap_err().to_string();
    assert!(error.contains("fake cannot load missing: it is not there"), "{error}");
    assert!(run.client.request(Command::EndShadow).unwrap_err().to_string().contains("no model follows"));
    let started = run.client.request(shadow("shadow-25")).unwrap();
    assert_eq!((&started["model"], &started["against"]), (&json!("shadow-25"), &json!("fake")));
    // Stands in the statistics while it goes on.
    let deadline = std::time::Instant::now() + fakes::DEADLINE;
    let seen = loop {
        let stats: RunSummary = serde_json::from_value(run.client.request(Command::Stats).unwrap()).unwrap();
        let seen = stats.shadow.unwrap();
        if seen.frames >= 20 {
            break seen;
        }
        assert!(std::time::Instant::now() < deadline, "{seen:?}");
    };
    let boxes = seen.boxes.unwrap();
    assert_eq!((seen.frames_agreed, boxes.matched as u64), (seen.frames, seen.frames));
    assert!((boxes.score_difference_max - 0.75).abs() < 1e-6, "{boxes:?}");
    let ended = run.client.request(Command::EndShadow).unwrap();
    assert!(ended["frames"].as_u64().unwrap() >= seen.frames);
    run.stop.request();
    run.thread.join().unwrap().unwrap();
    assert_eq!(run.collected[0].scores(), [1.0], "what was written is the first model's");
}
