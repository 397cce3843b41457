//! The trackers against independent implementations in Python (`tests/python/tracking.py`), on the sequences TUD-Campus
//! and TUD-Stadtmitte with detections that a seeded generator makes.

#![forbid(unsafe_code)]

use std::process::Command;

use revoada_tests::{asset, finish, revoada, root};
use serde_json::Value;

/// A man talks in a car: one face, in every frame.
#[test]
fn a_face_is_one_track_through_a_clip() {
    for algorithm in ["sort", "bytetrack", "ocsort"] {
        let folder = tempfile::tempdir().unwrap();
        let results = folder.path().join("results.jsonl");
        let mut run = revoada();
        run.args(["run", "--tracker", algorithm, "--frames", "40", "--source"]);
        run.arg(asset("clips/carphone_pristine.mp4")).arg("--model").arg(asset("models/centerface.onnx"));
        finish(run.arg("--results").arg(&results)).expect_code(0);
        let mut frames = 0;
        for line in std::fs::read_to_string(&results).unwrap().lines().skip(1) {
            let line: Value = serde_json::from_str(line).unwrap();
            let tracks: Vec<_> = line["detections"].as_array().unwrap().iter().map(|found| &found["track"]).collect();
            assert_eq!(tracks, [1], "{algorithm}: {line}");
            frames += 1;
        }
        assert_eq!(frames, 40);
    }
}

#[test]
fn every_track_is_that_of_the_python_and_scores_no_less() {
    let test = std::env::current_exe().unwrap();
    // Tests lie in `deps`, examples beside it.
    let program = test.parent().unwrap().with_file_name("examples").join("track_mot");
    assert!(program.exists(), "`{}` is missing: run `cargo build --example track_mot` first", program.display());
    let mut script = Command::new(asset("venv/bin/python"));
    script.arg("-B").arg(root().join("tests/python/tracking.py")).arg("compare").arg(&program);
    let ran = finish(&mut script).expect_code(0);

    let mut compared = 0;
    for line in ran.stdout.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        compared += 1;
        assert_eq!(line["differences"], 0, "{line}");
        assert!(line["boxes"].as_u64() > Some(100) && line["tracks"].as_u64() > Some(5), "{line}");
        for score in ["mota", "idf1", "hota"] {
            let [ours, theirs] = ["ours", "theirs"].map(|whose| line[whose][score].as_f64().unwrap());
            // Ours are written with three decimals of a pixel.
            assert!(ours >= theirs - 1e-3 && ours > 0.2, "{score} in {line}");
        }
    }
    assert_eq!(compared, 18, "two sequences, three seeds, three trackers");
}
