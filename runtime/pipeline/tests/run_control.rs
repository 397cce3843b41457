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
