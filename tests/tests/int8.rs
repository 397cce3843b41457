//! What `revoada build` makes of real models: INT8 of a classifier against its FP32 on photographs that it was not
//! calibrated with, and FP16 of a detector.
//!
//! The rule by which photographs were chosen stands in `tests/bench/quantise.py`, which the whole measurement runs.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use revoada_tests::{asset, finish, revoada, root};
use serde_json::Value;

/// A second apart; the man's face is in each.
const CLIP_FRAMES: [&str; 5] = ["0", "30", "60", "90", "119"];

/// What `revoada build` says of the model's comparison with its original.
fn build(home: &Path, model: &str, options: &[&str]) -> Value {
    let mut command = revoada();
    command.env("HOME", home).env_remove("XDG_DATA_HOME").env_remove("XDG_CACHE_HOME").current_dir(home);
    command.args(["build", "--json", "--target", "none", "--output", "built.bundle"]).args(options).arg(asset(model));
    let built: Value = serde_json::from_str(&finish(&mut command).expect_code(0).stdout).unwrap();
    built["accuracy"]["comparison"].clone()
}

fn python(script: &str) -> Command {
    let mut command = Command::new(asset("venv/bin/python"));
    command.arg("-B").arg(root().join(script)).current_dir(root());
    command
}

#[test]
fn efficientnet_in_eight_bits_names_photographs_as_before() {
    let home = tempfile::tempdir().unwrap();
    let calibration = home.path().join("calibration");
    fs::create_dir(&calibration).unwrap();
    for folder in ["pictures", "photographs/calibration"] {
        for entry in fs::read_dir(asset(folder)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, calibration.join(path.file_name().unwrap())).unwrap();
        }
    }
    let evaluation = asset("photographs/evaluation").display().to_string();
    let options = ["--precision", "int8", "--calibration", "calibration", "--evaluation", &evaluation];
    let comparison = build(home.path(), "models/efficientnet-lite0.onnx", &options);
    let top = &comparison["top"];
    assert_eq!(top["rows"], 20, "the photographs of ImageNet that set-up fetches");
    assert!(top["top1"].as_f64().unwrap() >= 0.9 && top["top5"] == 1.0, "{comparison}");
    assert!(comparison["outputs"][0]["cosine_min"].as_f64().unwrap() > 0.98, "{comparison}");

    // And whoever has no GPU gets such answers, too.
    for (picture, expected) in [("chelsea", "Egyptian cat"), ("coffee", "espresso")] {
        for backend in ["onnxruntime", "rten"] {
            let mut command = revoada();
            command.args(["classify", "--json", "--backend", backend, "--model"]).arg(home.path().join("built.bundle"));
            let finished = finish(command.arg(asset(&format!("pictures/{picture}.png")))).expect_code(0);
            let found: Value = serde_json::from_str(&finished.stdout).unwrap();
            assert_eq!(found["classifications"][0]["label"], expected, "{backend}: {found}");
        }
    }
}

#[test]
fn efficientnet_in_eight_bits_agrees_as_often_as_asked_and_as_onnxruntimes() {
    let name = "efficientnet_in_eight_bits_agrees_as_often_as_asked_and_as_onnxruntimes";
    if std::env::var_os("REVOADA_FULL").is_none() {
        eprintln!("skipped: {name}: it takes minutes; `cargo xtask test --full` runs it");
        return;
    }
    if !root().join(".cache/photographs/opencv").exists() {
        eprintln!("skipped: {name}: the photographs of Debian's opencv-doc are not here");
        return;
    }
    let program = PathBuf::from(revoada().get_program());
    let mut bench = python("tests/bench/quantise.py");
    bench.args(["--json", "--only", "classifier", "--program"]).arg(program);
    let result: Value = serde_json::from_str(&finish(&mut bench).expect_code(0).stdout).unwrap();
    let result = &result["classifier"];
    println!("{result}");
    let share = |row: &str| result["rows"][row]["top1"].as_f64().unwrap();
    assert!(result["pictures"].as_u64().unwrap() >= 100);
    assert!(share("INT8, revoada") >= 0.9, "{result}");
    assert!(share("INT8, revoada") >= share("INT8, onnxruntime"), "{result}");
}

#[test]
fn centerface_in_half_precision_finds_the_same_faces() {
    let home = tempfile::tempdir().unwrap();
    let pictures = home.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    let mut frames = python("tests/python/reference.py");
    frames.arg("frames").arg(asset("clips/carphone_pristine.mp4")).arg(&pictures).args(CLIP_FRAMES);
    finish(&mut frames).expect_code(0);
    fs::copy(asset("pictures/astronaut.png"), pictures.join("astronaut.png")).unwrap();

    let options = ["--precision", "fp16", "--evaluation", "pictures", "--boxes-min", "1"];
    let boxes = &build(home.path(), "models/centerface.onnx", &options)["boxes"];
    let found = 1 + CLIP_FRAMES.len();
    assert_eq!((&boxes["matched"], &boxes["missed"], &boxes["added"]), (&found.into(), &0.into(), &0.into()));
    assert!(boxes["iou_mean"].as_f64().unwrap() > 0.98, "{boxes}");
}
