//! The whole path against a plain Python script with OpenCV and onnxruntime (`tests/python/reference.py`),
//! on photographs and on frames of a clip.
//!
//! The tolerances are what two correct programs may differ by: OpenCV rounds resized pixels to whole numbers,
//! ours does not, and JPEG decoders differ by a level or two.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use revoada_tests::{asset, finish, revoada, root};
use serde_json::Value;

/// Of a class's probability or a face's score.
const SCORE_TOLERANCE: f64 = 0.02;

/// Of each side of a box and each landmark, as a share of the face's width or height.
const PLACE_TOLERANCE: f64 = 0.02;

/// The frames in which the man's face is sought.
const CLIP_FRAMES: &[&str] = &["0", "30", "60", "90", "119"];

#[test]
fn top_five_classes_equal_those_of_the_python_script() {
    let pictures = photographs();
    let ours = answers("classify", "models/efficientnet-lite0.onnx", &pictures, &[]);
    let theirs = reference("classify", "models/efficientnet-lite0.onnx", &pictures);
    for ((picture, ours), theirs) in pictures.iter().zip(&ours).zip(&theirs) {
        let picture = picture.display();
        let (ours, theirs) = (list(&ours["classifications"]), list(&theirs["results"]));
        assert_eq!(ours.len(), 5, "`{picture}`");
        for (rank, (one, other)) in ours.iter().zip(theirs).enumerate() {
            let place = format!("`{picture}`, place {}: {one} and {other}", rank + 1);
            assert!((number(&one["score"]) - number(&other["score"])).abs() <= SCORE_TOLERANCE, "{place}");
            // Two classes may change places where the script itself all but ties them.
            let same = theirs.iter().find(|theirs| theirs["class"] == one["class"]);
            let near =
                same.is_some_and(|same| (number(&same["score"]) - number(&other["score"])).abs() <= SCORE_TOLERANCE);
            assert!(one["class"] == other["class"] || near, "{place}");
        }
        assert_eq!(ours[0]["class"], theirs[0]["class"], "`{picture}`");
    }
}

#[test]
fn faces_equal_those_of_the_python_script() {
    let folder = tempfile::tempdir().unwrap();
    let mut frames = python();
    frames.arg("frames").arg(asset("clips/carphone_pristine.mp4")).arg(folder.path()).args(CLIP_FRAMES);
    finish(&mut frames).expect_code(0);
    let frame = |index: &&str| folder.path().join(format!("{:0>6}.png", index));
    let pictures: Vec<PathBuf> = photographs().into_iter().chain(CLIP_FRAMES.iter().map(frame)).collect();

    let ours = answers("detect", "models/centerface.onnx", &pictures, &["--size", "640x640", "--score-min", "0.5"]);
    let theirs = reference("detect", "models/centerface.onnx", &pictures);
    let mut found = 0;
    for ((picture, ours), theirs) in pictures.iter().zip(&ours).zip(&theirs) {
        let picture = picture.display();
        let (ours, theirs) = (list(&ours["detections"]), list(&theirs["results"]));
        assert_eq!(ours.len(), theirs.len(), "`{picture}`: {ours:?} and {theirs:?}");
        for (one, other) in ours.iter().zip(theirs) {
            let place = format!("`{picture}`: {one} and {other}");
            assert!((number(&one["score"]) - number(&other["score"])).abs() <= SCORE_TOLERANCE, "{place}");
            let (width, height) = (number(&other["box"][2]), number(&other["box"][3]));
            let near = |one: &Value, other: &Value| {
                let horizontal = (number(&one[0]) - number(&other[0])).abs() <= PLACE_TOLERANCE * width;
                horizontal && (number(&one[1]) - number(&other[1])).abs() <= PLACE_TOLERANCE * height
            };
            let far_corner = |bbox: &Value| {
                let [left, top, width, height] = [0, 1, 2, 3].map(|index| number(&bbox[index]));
                Value::from(vec![left + width, top + height])
            };
            assert!(near(&one["box"], &other["box"]), "{place}");
            assert!(near(&far_corner(&one["box"]), &far_corner(&other["box"])), "{place}");
            let (ours, theirs) = (list(&one["landmarks"]), list(&other["landmarks"]));
            assert_eq!((ours.len(), theirs.len()), (5, 5), "{place}");
            assert!(ours.iter().zip(theirs).all(|(one, other)| near(one, other)), "{place}");
            found += 1;
        }
    }
    // The astronaut's, and the man's in each frame.
    assert_eq!(found, 1 + CLIP_FRAMES.len());
}

fn photographs() -> Vec<PathBuf> {
    ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"].map(|name| asset(&format!("pictures/{name}"))).into()
}

/// What `revoada` says of each picture.
fn answers(verb: &str, model: &str, pictures: &[PathBuf], options: &[&str]) -> Vec<Value> {
    let mut command = revoada();
    // Compared on the reference's own backend: how the backends differ is not what is measured here.
    command
        .args([verb, "--json", "--backend", "onnxruntime", "--model"])
        .arg(asset(model))
        .args(options)
        .args(pictures);
    records(&finish(&mut command).expect_code(0).stdout, pictures.len())
}

/// What the script says of each picture.
fn reference(verb: &str, model: &str, pictures: &[PathBuf]) -> Vec<Value> {
    records(&finish(python().arg(verb).arg(asset(model)).args(pictures)).expect_code(0).stdout, pictures.len())
}

fn python() -> Command {
    let executable = asset("venv/bin/python");
    let mut command = Command::new(executable);
    command.arg("-B").arg(root().join(Path::new("tests/python/reference.py")));
    command
}

fn records(lines: &str, count: usize) -> Vec<Value> {
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(records.len(), count, "one line a picture: {lines}");
    records
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is not a list"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}
