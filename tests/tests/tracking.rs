//! The trackers against independent implementations in Python (`tests/python/tracking.py`), on the sequences TUD-Campus
//! and TUD-Stadtmitte with detections that a seeded generator makes.

#![forbid(unsafe_code)]

use std::process::Command;

use revoada_tests::{asset, finish, revoada, root};
use serde_json::Value;

/// What `revoada run` finds in 40 frames in which a man talks in a car: the tracks of each frame's faces.
fn faces(arguments: &[&str]) -> Vec<Vec<Value>> {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.jsonl");
    let mut run = revoada();
    run.args(["run", "--frames", "40", "--source"]).arg(asset("clips/carphone_pristine.mp4"));
    run.arg("--model").arg(asset("models/centerface.onnx")).args(arguments);
    finish(run.arg("--results").arg(&results)).expect_code(0);
    let text = std::fs::read_to_string(&results).unwrap();
    let frames = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
    let tracks =
        |frame: Value| frame["detections"].as_array().unwrap().iter().map(|face| face["track"].clone()).collect();
    frames.map(tracks).collect()
}

#[test]
fn a_face_is_one_track_through_a_clip() {
    for algorithm in ["sort", "bytetrack", "ocsort"] {
        assert_eq!(faces(&["--tracker", algorithm]), vec![vec![Value::from(1)]; 40], "{algorithm}");
    }
}

#[test]
fn bytetrack_goes_on_with_a_face_that_is_below_the_least_score() {
    let plain = faces(&["--score-min", "0.9"]);
    assert!(plain.iter().any(Vec::is_empty), "the face is below 0.9 now and then");
    assert_eq!(faces(&["--score-min", "0.9", "--tracker", "bytetrack"]), vec![vec![Value::from(1)]; 40]);
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
