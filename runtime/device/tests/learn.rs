//! A classifier learns from pictures on a disk, by the program that people run.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use revoada_bundle::onnx::{Attribute, GraphBuilder, OnnxModel};
use revoada_core::{DType, TensorRef};
use revoada_federated::{Weights, to_safetensors};
use revoada_learn::HeadShape;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SIDE: u32 = 8;
/// What no test waits for.
const LONG: [&str; 8] = ["--epochs", "100000", "--backend", "rten", "--log", "off", "--time-max", "5m"];
const LABELS: [&str; 3] = ["left", "right", "even"];

fn revoada(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_revoada")).args(args).args(["--log", "warn"]).output().unwrap()
}

/// Runs a verb that has to succeed, and reads what it prints.
fn json(args: &[&str]) -> Value {
    let output = revoada(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Why a verb fails, and how it exits.
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = revoada(args);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// A backbone of random weights, and a head that knows two classes, always the first.
fn write_model(path: &Path) {
    let mut random = fastrand::Rng::with_seed(1);
    let (pixels, features) = ((SIDE * SIDE) as usize, 24);
    let weights: Vec<f32> = (0..pixels * features).map(|_| (random.f32() - 0.5) / 8.0).collect();
    let by_output = [("transB", Attribute::Int(1))];
    let graph = GraphBuilder::new("tiny")
        .input("x", DType::F32, &format!("N,1,{SIDE},{SIDE}"))
        .initializer("w1", TensorRef::of(&[pixels, features], &weights).unwrap())
        .initializer("b1", TensorRef::of(&[features], &vec![0.1_f32; features]).unwrap())
        .initializer("w2", TensorRef::of(&[2, features], &vec![0_f32; 2 * features]).unwrap())
        .initializer("b2", TensorRef::of(&[2], &[1_f32, 0.0]).unwrap())
        .node("Flatten", &["x"], &["flat"])
        .node("Gemm", &["flat", "w1", "b1"], &["sums"])
        .node("Relu", &["sums"], &["features"])
        .node_with("Gemm", &["features", "w2", "b2"], &["logits"], &by_output)
        .node("Softmax", &["logits"], &["scores"])
        .output("scores", DType::F32, "N,2");
    fs::write(path, graph.encode()).unwrap();
    let manifest = "version = 1\nlabels = [\"left\", \"right\"]\n\n[input]\nscale = 0.01\nchannels = \"gray\"\n\n\
        [output]\ndecoder = \"classification\"\n";
    fs::write(path.with_extension("toml"), manifest).unwrap();
}

/// Pictures that are brighter on one side, or on none.
fn write_pictures(folder: &Path, count: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for label in LABELS {
        fs::create_dir_all(folder.join(label)).unwrap();
        for number in 0..count {
            let picture = image::GrayImage::from_fn(SIDE, SIDE, |x, _| {
                let bright = match label {
                    "left" => x < SIDE / 2,
                    "right" => x >= SIDE / 2,
                    _ => false,
                };
                image::Luma([random.u8(0..60) + if bright { 160 } else { 40 }])
            });
            picture.save(folder.join(label).join(format!("{seed}-{number}.png"))).unwrap();
        }
    }
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_model(&folder.path().join("tiny.onnx"));
        write_pictures(&folder.path().join("pictures"), 60, 1);
        fs::write(folder.path().join("labels.txt"), LABELS.join("\n")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Until a training has its features, and goes on.
    fn wait_for_features(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.path("pictures/.revoada-learn/features").exists() {
            assert!(Instant::now() < deadline, "no features are kept");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn a_model_learns_a_new_class_and_answers_it() {
    let place = Place::new();
    let [model, data, labels] = ["tiny.onnx", "pictures", "labels.txt"].map(|name| place.text(name));
    let [first, second, output] = ["1.safetensors", "2.safetensors", "new.onnx"].map(|name| place.text(name));
    let train = |more: &[&str]| {
        let always = ["learn", "train", &model, "--data", &data, "--labels", &labels, "--backend", "rten", "--json"];
        json(&[&always[..], &["--rate", "0.02", "--seed", "3"], more].concat())
    };
    let record = train(&["--output", &first, "--epochs", "10"]);
    assert_eq!((&record["pictures"]["used"], &record["pictures"]["computed"]), (&180.into(), &180.into()));
    assert_eq!((&record["features"], &record["classes"], &record["ended"]), (&24.into(), &3.into(), &"epochs".into()));
    // The same again is the same, and no picture goes through the backbone twice.
    let again = train(&["--output", &second, "--epochs", "10"]);
    assert_eq!((&again["weights"], &again["pictures"]["computed"]), (&record["weights"], &0.into()));
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    let further = train(&["--weights", &first, "--output", &second, "--epochs", "20", "--proximal", "0.001"]);
    assert_eq!(further["before"], record["after"]);
    assert!(further["after"]["loss"].as_f64() < record["after"]["loss"].as_f64(), "{further}");

    let others = place.path("others");
    write_pictures(&others, 20, 2);
    let judge = ["learn", "evaluate", &model, "--data", others.to_str().unwrap(), "--labels", &labels, "--json"];
    let judged = json(&[&judge[..], &["--weights", &second, "--backend", "rten"]].concat());
    assert_eq!((&judged["accuracy"], &judged["examples"]), (&1.0.into(), &60.into()), "{judged}");

    let merge = revoada(&["learn", "merge", &model, "--weights", &second, "--output", &output, "--labels", &labels]);
    assert!(merge.status.success(), "{}", String::from_utf8_lossy(&merge.stderr));
    let merged = OnnxModel::read(&place.path("new.onnx")).unwrap();
    assert_eq!(merged.outputs().unwrap()[0].to_string(), "scores f32[N,3]");
    for label in LABELS {
        let picture = others.join(label).join("2-0.png");
        let answer = json(&["classify", "--model", &output, "--backend", "rten", "--json", picture.to_str().unwrap()]);
        assert_eq!(answer["classifications"][0]["label"], label, "{answer}");
    }
}

#[test]
fn a_hidden_layer_learns_too_and_everything_can_be_forgotten() {
    let place = Place::new();
    let [model, data, labels] = ["tiny.onnx", "pictures", "labels.txt"].map(|name| place.text(name));
    let [weights, output] = ["w.safetensors", "new.onnx"].map(|name| place.text(name));
    let train = ["learn", "train", &model, "--data", &data, "--labels", &labels, "--output", &weights, "--json"];
    let more =
        ["--hidden", "8", "--rate", "0.02", "--patience", "5", "--class-weights", "balanced", "--backend", "rten"];
    let endless = json(&[&train[..], &["--epochs", "100000", "--time-max", "1s", "--backend", "rten"]].concat());
    assert_eq!(endless["ended"], "time");
    let record = json(&[&train[..], &more].concat());
    assert_eq!((&record["hidden"], &record["after"]["accuracy"]), (&8.into(), &1.0.into()), "{record}");
    let merge = revoada(&["learn", "merge", &model, "--weights", &weights, "--output", &output, "--labels", &labels]);
    assert!(merge.status.success(), "{}", String::from_utf8_lossy(&merge.stderr));
    let picture = place.text("pictures/even/1-0.png");
    let answer = json(&["classify", "--model", &output, "--backend", "rten", "--json", &picture]);
    assert_eq!(answer["classifications"][0]["label"], "even", "{answer}");

    let derived = json(&["learn", "forget", "--data", &data, "--json"]);
    assert_eq!((&derived["derived"], &derived["pictures"]), (&1.into(), &0.into()));
    let all = json(&["learn", "forget", "--data", &data, "--pictures", "--json"]);
    assert_eq!((&all["derived"], &all["pictures"]), (&0.into(), &180.into()));
    assert_eq!(fs::read_dir(place.path("pictures")).unwrap().count(), 0);
}

#[test]
fn a_training_that_is_stopped_keeps_what_it_has_learned() {
    let place = Place::new();
    let [model, data, labels] = ["tiny.onnx", "pictures", "labels.txt"].map(|name| place.text(name));
    let output = place.text("w.safetensors");
    let train = ["learn", "train", &model, "--data", &data, "--labels", &labels, "--output", &output, "--json"];
    let child =
        Command::new(env!("CARGO_BIN_EXE_revoada")).args(train).args(LONG).stdout(Stdio::piped()).spawn().unwrap();
    place.wait_for_features();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ended = child.wait_with_output().unwrap();
    let record: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.status.code(), &record["ended"]), (Some(0), &"stopped".into()), "{record}");
    assert!(Path::new(&output).exists());
}

#[test]
fn a_training_ends_with_who_has_started_it() {
    let place = Place::new();
    let [model, data, labels] = ["tiny.onnx", "pictures", "labels.txt"].map(|name| place.text(name));
    let output = place.text("w.safetensors");
    let train = ["learn", "train", &model, "--data", &data, "--labels", &labels, "--output", &output, "--json"];
    let mut shell = Command::new("sh");
    shell.args(["-c", "\"$@\" --parent $$ & wait", "sh", env!("CARGO_BIN_EXE_revoada")]).args(train).args(LONG);
    let shell = shell.stdout(Stdio::piped()).spawn().unwrap();
    place.wait_for_features();
    kill_process(Pid::from_child(&shell), Signal::KILL).unwrap();
    // Once nobody holds the other end.
    assert_eq!(shell.wait_with_output().unwrap().stdout, b"");
    assert!(!Path::new(&output).exists());

    let (code, said) = refused(&[&train[..], &["--parent", "1"]].concat());
    assert!(code == Some(1) && said.contains("process 1, with which this was to end"), "{code:?} {said}");
}

#[test]
fn what_cannot_be_learned_is_refused_in_a_sentence() {
    let place = Place::new();
    let [model, data, labels] = ["tiny.onnx", "pictures", "labels.txt"].map(|name| place.text(name));
    let [output, weights] = ["out.safetensors", "w.safetensors"].map(|name| place.text(name));
    let train = ["learn", "train", &model, "--data", &data, "--output", &output, "--backend", "rten"];
    let shape = HeadShape { features: 24, hidden: None, classes: 2 };
    let mut broken = shape.seeded(1).unwrap().into_values();
    broken[0] = f32::NAN;
    let broken = to_safetensors(&Weights::new(shape.layout().unwrap(), broken).unwrap(), &[]);
    fs::write(place.path("broken.safetensors"), broken).unwrap();
    let broken = place.text("broken.safetensors");
    let cases: [(&[&str], i32, &str); 7] = [
        (&["--epochs", "0"], 2, "`epochs` cannot be 0"),
        (&["--decay", "0.1"], 2, "`--decay` is of `--optimiser adamw` alone"),
        (&["--memory-max", "16"], 1, "examples of 24 features need 17 MiB, and at most 16 may be taken"),
        (&["--weights", "model", "--labels", &labels], 1, "the weights are for 2 classes, and there are 3 labels"),
        (&["--weights", "model", "--hidden", "4"], 2, "the weights that are given decide about hidden numbers"),
        (&["--weights", &weights], 1, "cannot read weights"),
        (&["--weights", &broken], 1, "has a value that is no number"),
    ];
    for (more, code, reason) in cases {
        let (exit, stderr) = refused(&[&train[..], more].concat());
        assert!(exit == Some(code) && stderr.contains(reason), "{more:?}: {exit:?} {stderr}");
        assert!(!place.path("out.safetensors").exists());
    }
    // A label that the model does not know is said and passed over.
    let known = revoada(&[&train[..], &["--weights", "model", "--json", "--epochs", "1"]].concat());
    let record: Value = serde_json::from_slice(&known.stdout).unwrap();
    assert_eq!((&record["pictures"]["used"], &record["pictures"]["unknown_labels"]["even"]), (&120.into(), &60.into()));
    assert!(String::from_utf8_lossy(&known.stderr).contains("the model does not know this label"));
}
