//! Bundles and their plans on the device that is here, which `tests/emulator` stands for: it proves which plan is taken
//! and what happens where there is none, nothing of a GPU.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;

use revoada_bundle::onnx::{Attribute, GraphBuilder};
use revoada_bundle::plan::Plan;
use revoada_bundle::sign::SecretKey;
use revoada_core::{DType, TensorRef};
use revoada_emulator::{Emulated, Log, Profile};
use revoada_federated::from_safetensors;
use revoada_tests::{Finished, Running, asset, finish, names_in, revoada, root, wait_for};
use serde_json::Value;

/// A home with a model in it, `channel_means.onnx`, whose plans the emulator can run.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// `None`, and said aloud, where the emulator has no TensorRT. A model that adds something to the means is one that
    /// the emulator does not compute.
    fn new(adding: [f32; 3]) -> Option<Self> {
        if revoada_emulator::tensorrt().is_none() {
            println!("skipped: there were no headers of TensorRT 10.16 to build the emulator's TensorRT from");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let graph = GraphBuilder::new("channel_means")
            .input("x", DType::F32, "N,3,8,8")
            .initializer("more", TensorRef::of(&[3], &adding).unwrap())
            .node("GlobalAveragePool", &["x"], &["means"])
            .node("Flatten", &["means"], &["flat"])
            .node("Add", &["flat", "more"], &["y"])
            .output("y", DType::F32, "N,3");
        std::fs::write(folder.path().join("channel_means.onnx"), graph.encode()).unwrap();
        let manifest = "version = 1\n[output]\ndecoder = \"classification\"\n";
        std::fs::write(folder.path().join("channel_means.toml"), manifest).unwrap();
        Some(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, profile: Profile, arguments: &[&str]) -> Command {
        self.command_on(&Emulated::new(profile), arguments)
    }

    fn command_on(&self, device: &Emulated, arguments: &[&str]) -> Command {
        let mut command = revoada();
        command.env("HOME", self.folder.path()).current_dir(self.folder.path()).args(arguments);
        for variable in ["XDG_DATA_HOME", "XDG_CACHE_HOME", "REVOADA_TENSORRT"] {
            command.env_remove(variable);
        }
        device.present(&mut command, &self.path("emulator.log"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.command(Profile::Orin, arguments))
    }

    /// Builds `a.bundle` and what is said of its plan.
    fn build(&self, plan: &[&str]) {
        self.run(&[&["build", "channel_means.onnx", "--output", "a.bundle"], plan].concat()).expect_code(0);
    }

    /// Builds `a.bundle` and another one of the same model, each with its plan beside it.
    fn build_two(&self) {
        self.build(&["--target", "local", "--batch-max", "2"]);
        let other = ["build", "channel_means.onnx", "--precision", "fp32", "--output", "b.bundle"];
        self.run(&[&other[..], &["--target", "local", "--batch-max", "2"]].concat()).expect_code(0);
        // Of the same plan in the cache it would be tried whether that one fits.
        std::fs::remove_dir_all(self.plans_in_cache()).unwrap();
    }

    fn swap(&self, model: &str) -> Finished {
        self.run(&["ctl", "--socket", "control.sock", "swap", model])
    }

    fn classify(&self, profile: Profile, arguments: &[&str]) -> Finished {
        let picture = asset("pictures/coffee.png");
        let mut command = self.command(profile, &["classify", "--json", "--model"]);
        finish(command.args(arguments).arg(picture))
    }

    fn plans_in_cache(&self) -> PathBuf {
        self.path(".cache/revoada/plans")
    }

    fn key(&self) -> String {
        self.run(&["key"]).expect_code(0).stdout.trim().to_owned()
    }
}

#[track_caller]
fn said(finished: Finished, words: &[&str]) {
    let finished = finished.expect_code(0);
    for word in words {
        assert!(finished.stderr.contains(word), "no `{word}` in {}", finished.stderr);
    }
}

#[test]
fn a_bundle_runs_as_the_plan_beside_it_then_as_one_of_the_cache_then_as_its_onnx_model() {
    let Some(home) = Home::new([0.0; 3]) else { return };
    home.build(&["--target", "local", "--batch-max", "2"]);
    let means = home.classify(Profile::Orin, &["a.bundle", "--backend", "rten"]).expect_code(0).stdout;
    let taken = home.classify(Profile::Orin, &["a.bundle"]).expect_code(0);
    let class = |text: &str| serde_json::from_str::<Value>(text).unwrap()["classifications"][0]["class"].clone();
    assert_eq!(class(&means), class(&taken.stdout));
    said(taken, &["took a plan of the bundle", "a.plan", "auto took tensorrt"]);

    std::fs::remove_file(home.path("a.plan")).unwrap();
    said(home.classify(Profile::Orin, &["a.bundle"]), &["took a plan of the bundle", ".cache/revoada/plans"]);

    std::fs::remove_dir_all(home.plans_in_cache()).unwrap();
    said(home.classify(Profile::Orin, &["a.bundle"]), &["there is none for sm_87, 16 multiprocessors", "onnxruntime"]);
}

/// The network is a picture of 5×4 pixels read as ten cells of two classes; the decoder gets the few that pass.
#[test]
fn of_a_yolo_only_candidates_leave_the_device_and_detections_are_the_same() {
    let Some(home) = Home::new([0.0; 3]) else { return };
    let graph = GraphBuilder::new("widen")
        .input("x", DType::F32, "N,3,4,5")
        .initializer("shape", TensorRef::of(&[3], &[-1i64, 6, 10]).unwrap())
        .node("Reshape", &["x", "shape"], &["y"])
        .output("y", DType::F32, "N,6,10");
    std::fs::write(home.path("cells.onnx"), graph.encode()).unwrap();
    let manifest = "version = 1\n[input]\nscale = 0.0039\n[output]\ndecoder = \"yolo-v8\"\nscore_min = 0.5\n";
    std::fs::write(home.path("cells.toml"), manifest).unwrap();
    home.run(&["build", "cells.onnx", "--output", "cells.bundle", "--target", "local"]).expect_code(0);
    let picture = asset("pictures/coffee.png");
    let detect = |backend: &str| {
        let mut command = home.command(Profile::Orin, &["detect", "--json", "--backend", backend, "--model"]);
        finish(command.arg("cells.bundle").arg(&picture)).expect_code(0).stdout
    };
    let detections = |text: &str| serde_json::from_str::<Value>(text).unwrap()["detections"].clone();
    let on_cpu = detections(&detect("rten"));
    assert!(on_cpu.as_array().is_some_and(|found| !found.is_empty()), "{on_cpu}");
    std::fs::remove_file(home.path("emulator.log")).unwrap();
    assert_eq!(detections(&detect("tensorrt")), on_cpu);
    let log = Log::read(&home.path("emulator.log"));
    assert_eq!(log.calls("cuLaunchKernel"), 2, "one stages the picture, one filters the cells");
}

#[test]
fn a_plan_that_does_not_fit_is_named_with_both_sides() {
    let Some(home) = Home::new([0.0; 3]) else { return };
    home.build(&["--target", "local", "--batch-max", "2"]);
    std::fs::remove_dir_all(home.plans_in_cache()).unwrap();
    let both = "plan `a.plan` was built for sm_87, this device has sm_90";
    said(home.classify(Profile::Discrete, &["a.bundle"]), &[both, "auto took onnxruntime"]);
    let refused = home.classify(Profile::Discrete, &["a.bundle", "--backend", "tensorrt"]).expect_code(1);
    let expected =
        format!("error: bundle `a.bundle` has no plan that runs here: {both}; build one with `revoada build a.bundle`");
    assert_eq!(refused.error(), expected);

    let batch = ["run", "--model", "a.bundle", "--source", "test://smpte?width=64&height=48", "--no-output"];
    let three = [&batch[..], &["--frames", "3", "--batch", "3", "--no-rebuild"]].concat();
    said(home.run(&three), &["plan `a.plan` was built for batches of up to 2, and 3 are asked for"]);
    let two = [&batch[..], &["--frames", "3", "--batch", "2"]].concat();
    said(home.run(&two), &["took a plan of the bundle"]);

    // One that is damaged is told, and does not keep the bundle from running.
    let whole = std::fs::read(home.path("a.plan")).unwrap();
    std::fs::write(home.path("a.plan"), &whole[..whole.len() - 1]).unwrap();
    said(home.classify(Profile::Orin, &["a.bundle"]), &["plan `a.plan` is truncated: 1 bytes are missing"]);
}

#[test]
fn a_plan_that_another_device_built_is_tried_here_and_then_this_device_s_own() {
    let Some(home) = Home::new([0.0; 3]) else { return };
    home.build(&["--target", "local", "--batch-max", "4"]);
    let theirs = Plan::read(&home.path("a.plan")).unwrap();
    let owner = home.key();
    // From here on this is another device of the class, with a key of its own and nothing in its cache.
    for folder in [".local", ".cache"] {
        std::fs::remove_dir_all(home.path(folder)).unwrap();
    }
    std::fs::rename(home.path("a.plan"), home.path("theirs.plan")).unwrap();
    std::fs::remove_file(home.path("emulator.log")).unwrap();
    let run = ["run", "--model", "a.bundle", "--source", "test://smpte?width=64&height=48", "--frames", "3", "--batch"];
    let run = [&run[..], &["2", "--no-output", "--no-rebuild", "--trust", &owner]].concat();
    said(home.run(&run), &["there is none for sm_87"]);

    let offered = ["build", "a.bundle", "--target", "local", "--batch-max", "2", "--offered", "theirs.plan", "--json"];
    let built: Value = serde_json::from_str(&home.run(&offered).expect_code(0).stdout).unwrap();
    assert_eq!((&built["plan"]["cached"], &built["plan"]["compile_ms"]), (&false.into(), &Value::Null));
    let own = Plan::read(&home.path("a.plan")).unwrap();
    assert_eq!((own.key(), own.payload()), (theirs.key(), theirs.payload()));
    assert_eq!(own.signer().to_string(), home.key());
    assert_ne!(own.signer(), theirs.signer());
    assert!(own.facts().accuracy.is_some() && own.facts().speed != theirs.facts().speed, "it was measured here");
    assert_eq!(Log::read(&home.path("emulator.log")).calls("buildSerializedNetwork"), 0);
    std::fs::remove_file(home.path("a.plan")).unwrap();
    said(home.run(&run), &["took a plan of the bundle", ".cache/revoada/plans"]);
    said(home.run(&offered), &["the plan is in the cache"]);
}

#[test]
fn whose_bundles_and_plans_run_is_the_user_s_choice() {
    let Some(home) = Home::new([0.0; 3]) else { return };
    home.build(&["--target", "local", "--batch-max", "2"]);
    std::fs::remove_dir_all(home.plans_in_cache()).unwrap();
    let builder = home.key();
    // From here on this is another user's home.
    std::fs::remove_dir_all(home.path(".local")).unwrap();
    let stranger = "which is neither this user's key nor among the trusted keys";
    said(home.classify(Profile::Orin, &["a.bundle"]), &[stranger, "auto took onnxruntime"]);
    assert!(!home.path(".local").exists(), "nobody's key is made by running a model");
    said(home.classify(Profile::Orin, &["a.bundle", "--trust", &builder]), &["took a plan of the bundle"]);
    said(home.classify(Profile::Orin, &["a.plan", "--decoder", "classification"]), &["auto took tensorrt"]);

    let own = home.key();
    std::fs::write(home.path("trusted"), format!("# nobody but me\n{own}\n")).unwrap();
    for (model, trusted, code, expected) in [
        ("a.bundle", own.as_str(), 1, "bundle `a.bundle` is signed by `ed25519:"),
        ("a.bundle", "trusted", 1, "which is not among the trusted keys"),
        ("a.plan", "trusted", 1, "which is not among the trusted keys"),
        ("a.bundle", "nowhere", 1, "cannot read key `nowhere`"),
        ("a.bundle", "ed25519:12", 2, "is no public key"),
    ] {
        let finished = home.classify(Profile::Orin, &[model, "--trust", trusted]).expect_code(code);
        assert!(finished.error().contains(expected), "{model} {trusted}: {}", finished.stderr);
        let finished = home.run(&["bench", model, "--shape", "x=1x3x8x8", "--trust", trusted]).expect_code(code);
        assert!(finished.error().contains(expected), "{model} {trusted}: {}", finished.stderr);
    }
    let text = "[[stream]]\nuri = \"test://smpte\"\n[[sink]]\ntype = \"none\"\n\
                [model]\npath = \"a.bundle\"\ntrust = [\"trusted\"]\n";
    std::fs::write(home.path("pipeline.toml"), text).unwrap();
    let refused = home.run(&["run", "pipeline.toml"]).expect_code(1);
    assert!(refused.error().contains("which is not among the trusted keys"), "{}", refused.stderr);
    let trusting = ["run", "pipeline.toml", "--frames", "3", "--no-rebuild", "--trust", &builder];
    said(home.run(&trusting), &["took a plan of the bundle"]);
}

/// A pipeline that runs until it is asked to end, and what it writes.
fn endless(home: &Home) -> Running {
    endless_on(home, &Emulated::new(Profile::Orin))
}

fn endless_on(home: &Home, device: &Emulated) -> Running {
    let arguments = ["run", "--model", "a.bundle", "--source", "test://smpte?width=64&height=48"];
    let outputs = ["--results", "results.jsonl", "--control", "control.sock", "--batch", "2"];
    Running::start(&mut home.command_on(device, &[&arguments[..], &outputs].concat()))
}

fn stats(home: &Home) -> Option<Value> {
    let finished = home.run(&["ctl", "--socket", "control.sock", "stats", "--json"]);
    (finished.code == Some(0)).then(|| serde_json::from_str(&finished.stdout).unwrap())
}

/// Every frame was written once and in order.
fn assert_contiguous(results: &Path) {
    let text = std::fs::read_to_string(results).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let frames: Vec<u64> = records.filter_map(|record| record["frame"].as_u64()).collect();
    assert!(frames.len() > 10, "{} frames", frames.len());
    assert_eq!(frames, (0..frames.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_bundle_without_a_plan_runs_at_once_and_goes_on_with_the_plan_that_is_built_meanwhile() {
    let Some(home) = Home::new([0.0; 3]) else { return };
    home.build(&["--target", "none"]);
    let run = endless(&home);
    let swapped = wait_for("the plan takes over", || stats(&home).filter(|stats| stats["swaps"] == 1));
    let then = swapped["frames_out"].as_u64().unwrap();
    wait_for("it goes on", || stats(&home).filter(|stats| stats["frames_out"].as_u64() > Some(then + 100)));
    home.run(&["ctl", "--socket", "control.sock", "drain"]).expect_code(0);
    said(run.finish(), &["there is none for sm_87", "swapped the model", "backend=\"tensorrt\""]);
    assert_contiguous(&home.path("results.jsonl"));
    assert_eq!(names_in(&home.plans_in_cache()).iter().filter(|name| name.ends_with(".plan")).count(), 1);
    assert!(!home.path("a.plan").exists(), "what the user did not ask for lies in the cache alone");
    said(home.classify(Profile::Orin, &["a.bundle"]), &["took a plan of the bundle"]);
}

#[test]
fn a_plan_that_is_built_meanwhile_takes_over_where_this_user_had_no_key_before() {
    let Some(home) = Home::new([0.0; 3]) else { return };
    home.build(&["--target", "none"]);
    std::fs::remove_dir_all(home.path(".local")).unwrap();
    let run = endless(&home);
    wait_for("the plan takes over", || stats(&home).filter(|stats| stats["swaps"] == 1));
    home.run(&["ctl", "--socket", "control.sock", "drain"]).expect_code(0);
    said(run.finish(), &["there is none for sm_87", "backend=\"tensorrt\""]);
}

#[test]
fn where_no_plan_can_be_built_the_pipeline_goes_on_without() {
    // The emulator's plan would answer otherwise than the model, and is not kept.
    let Some(home) = Home::new([1000.0, -1000.0, 0.0]) else { return };
    home.build(&["--target", "none"]);
    let log = home.path("log");
    let run =
        ["run", "--model", "a.bundle", "--source", "test://smpte?width=64", "--no-output", "--control", "control.sock"];
    let mut command = home.command(Profile::Orin, &run);
    let mut run = Running(command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap());
    let text = || std::fs::read_to_string(&log).unwrap();
    wait_for("the build fails", || text().contains("no plan takes over").then_some(()));
    let then = wait_for("there are statistics", || stats(&home));
    wait_for("it goes on", || {
        stats(&home)
            .filter(|stats| stats["frames_out"].as_u64() > then["frames_out"].as_u64().map(|frames| frames + 100))
    });
    home.run(&["ctl", "--socket", "control.sock", "drain"]).expect_code(0);
    assert!(run.0.wait().unwrap().success(), "{}", text());
    assert_eq!(text().matches("no plan takes over").count(), 1, "{}", text());
}

#[test]
fn a_run_that_ends_takes_its_build_with_it() {
    let Some(home) = Home::new([0.0; 3]) else { return };
    home.build(&["--target", "none"]);
    let short = ["run", "--model", "a.bundle", "--source", "test://smpte?width=64", "--frames", "1", "--no-output"];
    said(home.run(&short), &["building a plan for this device"]);
    let scratch = names_in(&home.plans_in_cache());
    assert!(scratch.iter().all(|name| !name.starts_with(".build-") || name.ends_with(".lock")), "{scratch:?}");
}

fn wait_for_more_frames(home: &Home) {
    let then = wait_for("there are statistics", || stats(home))["frames_out"].as_u64();
    wait_for("it goes on", || {
        stats(home).filter(|stats| stats["frames_out"].as_u64() > then.map(|frames| frames + 50))
    });
}

/// Gives the plan beside a bundle other kernels, and the user's signature.
fn falsify(home: &Home, plan: &str) {
    let own = Plan::read(&home.path(plan)).unwrap();
    let engine = String::from_utf8(own.payload().to_vec()).unwrap();
    assert!(engine.contains("operation channel_means"), "{engine}");
    let other = engine.replace("operation channel_means", "operation mixture");
    let key = SecretKey::load(&home.path(".local/share/revoada/keys/owner.pem")).unwrap();
    let plan_bytes = Plan::seal(own.key().clone(), own.facts().clone(), other.as_bytes(), &key);
    std::fs::write(home.path(plan), plan_bytes.bytes()).unwrap();
}

#[test]
fn a_bundle_takes_over_only_with_the_answers_that_it_had_when_it_was_built() {
    let Some(home) = Home::new([0.0; 3]) else { return };
    home.build_two();
    let run = endless(&home);
    wait_for_more_frames(&home);
    home.swap("b.bundle").expect_code(0);
    falsify(&home, "a.plan");
    let refused = home.swap("a.bundle").expect_code(1);
    let expected =
        "answers the golden inputs of its bundle otherwise than when it was built: the cosine of output `y` is ";
    assert!(refused.error().contains(expected), "{}", refused.stderr);
    wait_for_more_frames(&home);
    // One that was built when bundles had no golden inputs.
    let old = root().join("builder/bundle/tests/data/bundle-v1/plain.bundle");
    home.swap(&old.display().to_string()).expect_code(0);
    assert_eq!(stats(&home).unwrap()["swaps"], 2);
    home.run(&["ctl", "--socket", "control.sock", "drain"]).expect_code(0);
    run.finish().expect_code(0);
    assert_contiguous(&home.path("results.jsonl"));
}

#[test]
fn a_bundle_whose_plan_does_not_fit_beside_the_running_one_takes_over_after_a_gap() {
    let Some(home) = Home::new([0.0; 3]) else { return };
    home.build_two();
    // The first plan runs, and for the next one there is no memory beside it; then for one there is none at all.
    let out_of_memory = |nth| ("deserializeCudaEngine", nth, 2);
    let failures = vec![out_of_memory(2), out_of_memory(4), out_of_memory(5)];
    let run = endless_on(&home, &Emulated { failures, ..Emulated::new(Profile::Orin) });
    wait_for_more_frames(&home);
    let swapped: Value = serde_json::from_str(&home.swap("b.bundle").expect_code(0).stdout).unwrap();
    assert_eq!(swapped["backend"], "tensorrt", "{swapped}");
    assert!(swapped["gap_s"].as_f64().is_some_and(|gap| gap > 0.0), "{swapped}");
    wait_for_more_frames(&home);
    let refused = home.swap("a.bundle").expect_code(1);
    assert!(refused.error().contains("the GPU has no memory for plan `"), "{}", refused.stderr);
    wait_for_more_frames(&home);
    let stats = stats(&home).unwrap();
    assert_eq!(stats["swaps"], 1);
    assert!(stats["swap_gap_s"].as_f64() > swapped["gap_s"].as_f64(), "the way back was a gap, too: {stats}");
    home.run(&["ctl", "--socket", "control.sock", "drain"]).expect_code(0);
    said(run.finish(), &["unloading `channel_means` first, so that nothing is inferred meanwhile"]);
    assert_contiguous(&home.path("results.jsonl"));
}

/// A classifier whose head knows nothing yet, `channel_means.onnx`, and pictures of its two classes.
fn learner() -> Option<Home> {
    let home = Home::new([0.0; 3])?;
    let graph = GraphBuilder::new("channel_means")
        .input("x", DType::F32, "N,3,8,8")
        .initializer("weight", TensorRef::of(&[2, 3], &[0f32; 6]).unwrap())
        .initializer("bias", TensorRef::of(&[2], &[0f32; 2]).unwrap())
        .node("GlobalAveragePool", &["x"], &["means"])
        .node("Flatten", &["means"], &["flat"])
        .node_with("Gemm", &["flat", "weight", "bias"], &["y"], &[("transB", Attribute::Int(1))])
        .output("y", DType::F32, "N,2");
    std::fs::write(home.path("channel_means.onnx"), graph.encode()).unwrap();
    let manifest = "version = 1\nlabels = [\"red\", \"blue\"]\n[input]\nscale = 0.00392156862745098\n\
        [output]\ndecoder = \"classification\"\n";
    std::fs::write(home.path("channel_means.toml"), manifest).unwrap();
    for (label, channel) in [("red", 0), ("blue", 2)] {
        let folder = home.path("pictures").join(label);
        std::fs::create_dir_all(&folder).unwrap();
        for shade in 0..20u8 {
            let mut pixel = [40 + shade; 3];
            pixel[channel] = 200 + shade;
            image::RgbImage::from_pixel(8, 8, image::Rgb(pixel)).save(folder.join(format!("{shade}.png"))).unwrap();
        }
    }
    Some(home)
}

#[test]
fn a_head_learns_from_what_a_plan_sees() {
    let Some(home) = learner() else { return };
    let train = |backend: &str, output: &str| {
        let words = ["learn", "train", "channel_means.onnx", "--data", "pictures", "--output", output, "--json"];
        let how = ["--backend", backend, "--epochs", "40", "--rate", "0.5", "--seed", "1", "--held-out", "0"];
        let finished = home.run(&[&words[..], &how].concat()).expect_code(0);
        serde_json::from_str::<Value>(&finished.stdout).unwrap()
    };
    let here = train("tensorrt", "plan.safetensors");
    assert_eq!((&here["pictures"]["computed"], &here["classes"]), (&40.into(), &2.into()), "{here}");
    let log = || Log::read(&home.path("emulator.log"));
    let inferred = log().calls("enqueueV3");
    assert_eq!(log().calls("buildSerializedNetwork"), 1);
    assert!(inferred >= 5, "eight pictures at once: {inferred}");
    // The same head as of what another backend sees, but for what halves round off.
    home.run(&["learn", "forget", "--data", "pictures"]).expect_code(0);
    let elsewhere = train("rten", "onnx.safetensors");
    assert_eq!((&elsewhere["pictures"]["computed"], log().calls("enqueueV3")), (&40.into(), inferred));
    let [here, elsewhere] = ["plan.safetensors", "onnx.safetensors"].map(|name| {
        let bytes = std::fs::read(home.path(name)).unwrap();
        from_safetensors(&bytes, None).unwrap().into_values()
    });
    for (here, elsewhere) in here.iter().zip(&elsewhere) {
        assert!((here - elsewhere).abs() < 0.01, "{here} and {elsewhere}");
    }
    // Of new pictures it sees by the plan that there is.
    home.run(&["learn", "forget", "--data", "pictures"]).expect_code(0);
    assert_eq!(train("auto", "again.safetensors")["pictures"]["computed"], 40);
    assert_eq!(log().calls("buildSerializedNetwork"), 1);
    assert!(log().calls("enqueueV3") > inferred);
}
