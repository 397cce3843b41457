//! Recordings of a running pipeline: of events, and on request.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod fakes;
mod media_clips;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use fakes::{DEADLINE, FILE, Script, Step};
use media_clips::{drain, open_file, skipped};
use revoada_pipeline::control::{Client, ClientError, Command};
use revoada_pipeline::run::{Parts, RunSummary, StopFlag, run};
use revoada_pipeline::sink;
use revoada_pipeline::sink::record::RecordingRecord;
use serde_json::json;

const NEEDED: [&str; 3] = ["x264enc", "mp4mux", "avdec_h264"];
const RULES: &str = r#"
[tracker]
algorithm = "bytetrack"
[analytics]
margin = 0
forget_s = 0.2
[[analytics.line]]
name = "door"
points = [[0, 8], [16, 8]]
"#;

fn recorder(folder: &Path, more: &str) -> String {
    format!("[[sink]]\ntype = \"recording\"\nfolder = {folder:?}\nbefore_s = 1\nafter_s = 1\n{more}\n")
}

fn start(script: &Script, stop: &StopFlag) -> JoinHandle<RunSummary> {
    let mut config = script.clone().set("model.decoder", "walker").config();
    // The detections have their tracks already.
    (config.tracker, config.model.score_low) = (None, None);
    let (parts, _) = script.parts();
    let (parts, stop) = (Parts { open_sink: Box::new(sink::open), ..parts }, stop.clone());
    std::thread::spawn(move || run(config, parts, &stop).unwrap())
}

fn recorded(folder: &Path) -> Vec<RecordingRecord> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut about: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with(".recording.json")).collect();
    about.sort();
    let read = |path: PathBuf| {
        let about: RecordingRecord = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let (frames, error) = drain(&mut *open_file(&folder.join(&about.file)).unwrap());
        assert!(error.is_none() && frames.len() as u64 == about.frames, "{about:?}: {error:?}");
        about
    };
    about.into_iter().map(read).collect()
}

#[test]
fn the_events_of_each_stream_are_recorded_and_counted() {
    if skipped("the_events_of_each_stream_are_recorded_and_counted", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let steps: &[&[Step]] = &[&[Step::Frames(64)]];
    let streams = [("a", FILE, steps), ("b", FILE, steps)];
    let script = Script::described(&streams, &format!("{RULES}{}", recorder(folder.path(), "streams = [\"b\"]")));
    let summary = start(&script, &StopFlag::new()).join().unwrap();
    assert_eq!((summary.frames_out, &summary.files[..]), (128, &[folder.path().to_owned()][..]));
    let recorded = recorded(folder.path());
    let [recording] = &recorded[..] else { panic!("one recording: {recorded:?}") };
    // Four objects come in, sixteen frames apart, and cross the line in the eighth or ninth.
    assert_eq!((recording.stream.as_str(), recording.cause.as_str(), recording.events.len()), ("b", "line-crossed", 4));
    assert_eq!((recording.start_pts_ms, recording.end_pts_ms), (0.0, 63.0 * 40.0));
    let [tally] = &summary.recordings[..] else { panic!("one sink records: {:?}", summary.recordings) };
    assert_eq!((tally.recordings, tally.failed, tally.open), (1, 0, 0));
}

/// A pipeline that runs until it is stopped.
struct Running {
    _folder: tempfile::TempDir,
    client: Client,
    stop: StopFlag,
    thread: JoinHandle<RunSummary>,
}

fn endless(tables: &str) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("control.sock");
    let steps: &[&[Step]] = &[&[Step::FramesWithoutEnd]];
    let script = Script::described(&[("front", FILE, steps)], tables);
    let stop = StopFlag::new();
    let thread = start(&script.set("control.socket", socket.display().to_string()), &stop);
    let begun = std::time::Instant::now();
    let client = loop {
        match Client::connect(&socket) {
            Ok(client) => break client,
            Err(error) => assert!(begun.elapsed() < DEADLINE, "{error:?}"),
        }
        std::thread::yield_now();
    };
    let mut running = Running { _folder: folder, client, stop, thread };
    running.wait_for(|stats| stats.frames_out > 0);
    running
}

impl Running {
    fn wait_for(&mut self, reached: impl Fn(&RunSummary) -> bool) {
        let begun = std::time::Instant::now();
        loop {
            let stats: RunSummary = serde_json::from_value(self.client.request(Command::Stats).unwrap()).unwrap();
            if reached(&stats) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{stats:?}");
            std::thread::yield_now();
        }
    }
}

fn record(stream: &str, seconds: Option<u64>) -> Command {
    Command::Record { stream: stream.to_owned(), seconds }
}

#[test]
fn a_stream_is_recorded_on_request() {
    if skipped("a_stream_is_recorded_on_request", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut run = endless(&recorder(folder.path(), "on = []"));
    let answer = run.client.request(record("front", Some(2))).unwrap();
    assert_eq!(answer["stream"], "front");
    let path = PathBuf::from(answer["files"][0].as_str().unwrap());
    assert!(path.starts_with(folder.path()) && path.to_string_lossy().ends_with("_manual.recording.mp4"), "{path:?}");
    run.wait_for(|stats| stats.recordings[0].recordings == 1);
    assert!(path.exists());
    let refused = run.client.request(record("back", None));
    let expected = "there is no stream `back`; choose one of `front`";
    assert!(matches!(&refused, Err(ClientError::Refused(reason)) if reason == expected), "{refused:?}");
    run.stop.request();
    run.thread.join().unwrap();
    let recorded = recorded(folder.path());
    assert_eq!(recorded.len(), 1);
    // Two seconds behind the picture in which it was asked, and what was there before it.
    let length_ms = recorded[0].end_pts_ms - recorded[0].start_pts_ms;
    assert!((2000.0..=2.0 * 1040.0 + 2000.0).contains(&length_ms), "{recorded:?}");
    assert!(recorded[0].events.is_empty());
}

#[test]
fn a_pipeline_that_records_nothing_says_what_is_missing() {
    let mut run = endless("[[sink]]\ntype = \"none\"\n");
    let refused = run.client.request(record("front", None));
    let expected =
        "no sink records stream `front`: add a `[[sink]]` of type `recording`, or the stream to its `streams`";
    assert!(matches!(&refused, Err(ClientError::Refused(reason)) if reason == expected), "{refused:?}");
    run.stop.request();
    run.thread.join().unwrap();
}

#[test]
fn a_recording_can_be_asked_for_by_http_where_control_is_allowed() {
    if skipped("a_recording_can_be_asked_for_by_http_where_control_is_allowed", &NEEDED) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for control in [true, false] {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let http = format!("[http]\naddress = \"{address}\"\ncontrol = {control}\n");
        let run = endless(&format!("{}{http}", recorder(folder.path(), "on = []")));
        let post = |body: &str| {
            let mut stream = TcpStream::connect(address).unwrap();
            let head = "POST /api/streams/front/recordings HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
            let length = body.len();
            let request = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        let answer = post(&json!({ "seconds": 1 }).to_string());
        match control {
            true => {
                assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("_manual.recording.mp4"), "{answer}");
                assert!(post("{\"minutes\":1}").contains("there is no key `minutes`, only `seconds`"));
                assert!(post("{\"seconds\":-1}").contains("expected `seconds` from 1 to 86400, got -1"));
            }
            false => assert!(answer.starts_with("HTTP/1.1 403"), "{answer}"),
        }
        run.stop.request();
        run.thread.join().unwrap();
    }
    assert_eq!(recorded(folder.path()).len(), 1);
}
