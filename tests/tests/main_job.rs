//! The main job from end to end: a real model on a real clip, through the program that people run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use revoada_tests::{Finished, Running, asset, finish, names_in, revoada, wait_for};
use serde_json::Value;

fn centerface(verb: &str) -> Command {
    let mut command = revoada();
    command.arg(verb).arg("--model").arg(asset("models/centerface.onnx"));
    command
}

/// The frame records of a JSON Lines file.
fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    lines.filter(|line| line.get("frame").is_some()).collect()
}

/// Frames that a video player reads out of a file, counted by decoding it.
fn decoded_frames(path: &Path) -> u64 {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames"])
        .args(["-of", "csv=p=0"])
        .arg(path)
        .output()
        .expect("ffprobe is part of the set-up");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    text.trim().trim_end_matches(',').parse().unwrap_or_else(|_| panic!("ffprobe said `{text}`"))
}

#[test]
fn faces_are_found_drawn_and_written_on_either_backend() {
    let mut found = Vec::new();
    for (backend, frames) in [("onnxruntime", 60), ("rten", 10)] {
        let folder = tempfile::tempdir().unwrap();
        let (video, results) = (folder.path().join("faces.mp4"), folder.path().join("faces.jsonl"));
        let frames_text = frames.to_string();
        finish(
            centerface("run")
                .arg("--source")
                .arg(asset("clips/carphone_pristine.mp4"))
                .args(["--backend", backend, "--size", "320x320", "--anonymize", "blur", "--frames", &frames_text])
                .arg("--output")
                .arg(&video)
                .arg("--results")
                .arg(&results),
        )
        .expect_code(0);
        assert_eq!(names_in(folder.path()), ["faces.jsonl", "faces.mp4"]);
        assert_eq!(decoded_frames(&video), frames);
        let records = records(&results);
        assert_eq!(records.len() as u64, frames);
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record["frame"], index);
            let faces = record["detections"].as_array().unwrap();
            assert_eq!(faces.len(), 1, "the clip shows one man: {record}");
            assert_eq!(faces[0]["label"], "face");
            assert_eq!(faces[0]["landmarks"].as_array().unwrap().len(), 5);
        }
        found.push(records.into_iter().take(10).map(|record| record["detections"].clone()).collect::<Vec<_>>());
    }
    for (a, b) in found[0].iter().zip(&found[1]) {
        for side in 0..4 {
            let (a, b) = (a[0]["box"][side].as_f64().unwrap(), b[0]["box"][side].as_f64().unwrap());
            assert!((a - b).abs() < 0.1, "the backends disagree: {a} and {b}");
        }
    }
}

#[test]
fn several_streams_share_batches_and_each_keeps_its_own_order() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("all.jsonl");
    finish(
        centerface("run")
            .arg("--source")
            .arg(asset("clips/carphone_pristine.mp4"))
            .arg("--source")
            .arg(asset("clips/bikes.mp4"))
            .args(["--source", "test://smpte?width=320&height=240&fps=30"])
            .args(["--size", "160x160", "--batch", "3", "--frames", "40"])
            .arg("--results")
            .arg(&results)
            .arg("--output")
            .arg(folder.path().join("{stream}.mkv")),
    )
    .expect_code(0);
    let records = records(&results);
    let streams: BTreeSet<&str> = records.iter().map(|record| record["stream"].as_str().unwrap()).collect();
    assert_eq!(streams.len(), 3);
    for stream in streams {
        let frames: Vec<u64> = records
            .iter()
            .filter(|record| record["stream"] == stream)
            .map(|record| record["frame"].as_u64().unwrap())
            .collect();
        assert_eq!(frames, (0..40).collect::<Vec<_>>(), "{stream}");
        assert_eq!(decoded_frames(&folder.path().join(format!("{stream}.mkv"))), 40);
    }
}

#[test]
fn a_signal_drains_so_that_every_file_is_complete() {
    for signal in ["INT", "TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let (video, results) = (folder.path().join("endless.mp4"), folder.path().join("endless.jsonl"));
        let running = Running::start(
            centerface("run")
                .args(["--source", "test://ball?width=320&height=240&fps=30", "--size", "160x160"])
                .arg("--output")
                .arg(&video)
                .arg("--results")
                .arg(&results),
        );
        // Lines are written in blocks of some thousand bytes: once there is one, frames were encoded too.
        let written = folder.path().join(".endless.jsonl.partial");
        wait_for("the run has begun to write", || std::fs::metadata(&written).ok().filter(|file| file.len() > 0));
        let process = running.0.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &process]).status().unwrap().success());
        let finished = running.finish().expect_code(0);
        assert!(finished.stderr.contains("fps") || finished.stdout.contains("fps"), "the summary is printed");
        assert_eq!(names_in(folder.path()), ["endless.jsonl", "endless.mp4"]);
        assert_eq!(decoded_frames(&video), records(&results).len() as u64);
    }
}

#[test]
fn photographs_are_named_rightly() {
    let Finished { stdout, .. } = finish(
        revoada()
            .args(["classify", "--json", "--model"])
            .arg(asset("models/efficientnet-lite0.onnx"))
            .arg(asset("pictures/chelsea.png"))
            .arg(asset("pictures/coffee.png")),
    )
    .expect_code(0);
    let records: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let first = |index: usize| records[index]["classifications"][0]["label"].as_str().unwrap().to_lowercase();
    assert!(first(0).contains("cat") || first(0).contains("tabby"), "{}", records[0]);
    assert!(first(1).contains("espresso") || first(1).contains("cup"), "{}", records[1]);
}

#[test]
fn the_astronaut_has_one_face() {
    let Finished { stdout, .. } =
        finish(centerface("detect").args(["--json"]).arg(asset("pictures/astronaut.png"))).expect_code(0);
    let record: Value = serde_json::from_str(stdout.trim()).unwrap();
    let faces = record["detections"].as_array().unwrap();
    assert_eq!(faces.len(), 1, "{record}");
    let bbox: Vec<f64> = faces[0]["box"].as_array().unwrap().iter().map(|side| side.as_f64().unwrap()).collect();
    // Eileen Collins' face lies around (225, 115) of the 512×512 photograph.
    assert!(bbox[0] < 225.0 && 225.0 < bbox[0] + bbox[2] && bbox[1] < 115.0 && 115.0 < bbox[1] + bbox[3], "{bbox:?}");
}
