//! `revoada bench`: models on the CPU, and plans on the emulated device, whose figures mean nothing.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;

use revoada_bundle::bundle::Precision;
use revoada_bundle::hash;
use revoada_bundle::onnx::GraphBuilder;
use revoada_bundle::plan::{Plan, PlanFacts, PlanKey};
use revoada_bundle::sign::SecretKey;
use revoada_core::{Architecture, Compatibility, DType, DeviceClass, TensorRef, TensorRtFlavour, TensorRtVersion};
use revoada_emulator::{Emulated, Log, Power, Profile};
use revoada_tests::{asset, finish, names_in, revoada};
use serde_json::Value;

/// What `trtexec` prints of each of its times, and the percentiles that are asked for here.
const FIGURES: [&str; 6] = ["min", "max", "mean", "median", "p90", "p99.9"];

/// Of the emulated plan: far more than its inputs and outputs.
const WORKSPACE_BYTES: u64 = 4 << 20;

const SHORT: [&str; 4] = ["--duration", "0.05", "--warm-up", "0"];

fn bench(model: &Path) -> Command {
    let mut command = revoada();
    command.arg("bench").arg(model).args(SHORT).args(["--percentiles", "90,99.9"]);
    command
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Three scores, for pictures of 8 by 8, by a convolution that INT8 takes too.
fn classifier(folder: &Path) -> PathBuf {
    let path = folder.join("classifier.onnx");
    let weights: Vec<f32> = (0..27).map(|index| (index % 7) as f32 / 7.0 - 0.4).collect();
    let graph = GraphBuilder::new("classifier")
        .input("x", DType::F32, "N,3,8,8")
        .initializer("weights", TensorRef::of(&[9, 3, 1, 1], &weights).unwrap())
        .node("Conv", &["x", "weights"], &["features"])
        .node("GlobalAveragePool", &["features"], &["mean"])
        .node("Flatten", &["mean"], &["y"])
        .output("y", DType::F32, "N,9");
    std::fs::write(&path, graph.encode()).unwrap();
    path
}

/// A plan for one of the emulated devices, with two layers; `None` where the emulator has no TensorRT.
fn plan(test: &str, profile: Profile, folder: &Path) -> Option<PathBuf> {
    if revoada_emulator::tensorrt().is_none() {
        println!("skipped: {test}: there were no headers of TensorRT 10.16 to build the emulator's from");
        return None;
    }
    let payload = format!(
        "EMULATED PLAN\noperation increment\nworkspace {WORKSPACE_BYTES}\ninput x f32 -1,3 1,3 2,3 4,3\noutput y f32 -1,3\n\
        layer reformat Reformat Float 250\nlayer conv+relu CaskConvolution Half 750\n"
    );
    let path = folder.join("emulated.plan");
    std::fs::write(&path, sealed(profile, payload.as_bytes())).unwrap();
    Some(path)
}

fn sealed(profile: Profile, payload: &[u8]) -> Vec<u8> {
    let (name, architecture, multiprocessors) = match profile {
        Profile::Discrete => ("discrete", Architecture::new(9, 0), 132),
        _ => ("orin", Architecture::new(8, 7), 16),
    };
    let device = DeviceClass {
        module: Some(format!("emulator ({name})")),
        architecture,
        multiprocessors: Some(multiprocessors),
        tensorrt: TensorRtVersion { flavour: TensorRtFlavour::Full, major: 10, minor: 16, patch: 0 },
        cuda: Some([12, 2]),
    };
    let key = PlanKey {
        bundle: hash(payload),
        device,
        compatibility: Compatibility::default(),
        precision: Precision::Fp16,
        profile: Default::default(),
        dla_core: None,
        builder: "test".to_owned(),
    };
    Plan::seal(key, PlanFacts::default(), payload, &SecretKey::generate().unwrap()).bytes().to_vec()
}

/// Shows the program an emulated device, with a home of its own.
fn on_emulator(command: &mut Command, profile: Profile, log: &Path) {
    present(command, &Emulated::new(profile), log);
}

fn present(command: &mut Command, emulated: &Emulated, log: &Path) {
    emulated.present(command, log);
    command.arg("--tensorrt").arg(revoada_emulator::libraries()).env("HOME", log.parent().unwrap());
    command.env_remove("XDG_CACHE_HOME").env_remove("XDG_DATA_HOME");
}

fn bench_plan(plan: &Path, log: &Path) -> Command {
    let mut command = bench(plan);
    on_emulator(&mut command, Profile::Orin, log);
    command
}

fn has_figures(spread: &Value) {
    for figure in FIGURES {
        assert!(spread[figure].is_number(), "no `{figure}` in {spread}");
    }
}

#[test]
fn on_the_cpu_each_batch_has_its_latency_and_nothing_of_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let model = classifier(folder.path());
    let report = json(&finish(bench(&model).args(["--batch", "1,3", "--json"])).expect_code(0).stdout);
    assert_eq!((&report["version"], &report["transfers"]), (&2.into(), &false.into()));
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for (result, batch) in results.iter().zip([1, 3]) {
        assert_eq!(result["batch"], batch);
        has_figures(&result["latency_ms"]);
        assert!(result["device"].is_null() && result["layers"].is_null(), "{result}");
        let memory = &result["memory"];
        assert!(memory["peak_bytes"].as_u64().unwrap() > 0 && memory["device_bytes"].is_null(), "{result}");
    }
    let text = finish(&mut bench(&model)).expect_code(0).stdout;
    assert!(text.contains("p99.9") && text.contains("peak MiB") && !text.contains("H2D"), "{text}");
}

#[test]
fn a_plan_has_every_figure_of_trtexec() {
    let folder = tempfile::tempdir().unwrap();
    let Some(plan) = plan("a_plan_has_every_figure_of_trtexec", Profile::Orin, folder.path()) else { return };
    let log = folder.path().join("log");
    let report = json(&finish(bench_plan(&plan, &log).args(["--batch", "2", "--json"])).expect_code(0).stdout);
    assert_eq!(report["backend"], "tensorrt");
    assert_eq!(report["transfers"], true);
    let result = &report["results"][0];
    for name in ["latency_ms", "enqueue_ms", "h2d_ms", "compute_ms", "d2h_ms"] {
        has_figures(&result["device"][name]);
    }
    assert!(result["device"]["compute_s"].is_number() && result["seconds"].is_number(), "{result}");
    let text = finish(bench_plan(&plan, &log).args(["--sessions", "2"])).expect_code(0).stdout;
    for line in ["throughput", "qps", "latency", "enqueue time", "H2D latency", "GPU compute time", "D2H latency"] {
        assert!(text.contains(line), "no `{line}` in {text}");
    }
    assert!(text.contains("total host walltime") && text.contains("total GPU compute time"), "{text}");
    assert!(Log::read(&log).alive().is_empty());
}

#[test]
fn inputs_are_copied_before_each_inference_unless_they_shall_stay() {
    let name = "inputs_are_copied_before_each_inference_unless_they_shall_stay";
    let folder = tempfile::tempdir().unwrap();
    let Some(plan) = plan(name, Profile::Discrete, folder.path()) else { return };
    // One inference to warm up, and one that is measured.
    let uploads = |options: &[&str]| {
        let log = folder.path().join(format!("log{}", options.len()));
        let mut command = revoada();
        command.arg("bench").arg(&plan).args(["--duration", "0", "--warm-up", "0"]).args(options);
        on_emulator(&mut command, Profile::Discrete, &log);
        finish(&mut command).expect_code(0);
        Log::read(&log).calls("cuMemcpyHtoDAsync_v2")
    };
    assert_eq!(uploads(&[]) - uploads(&["--no-transfers"]), 2);
}

#[test]
fn layers_are_shown_with_what_the_inspector_says_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let name = "layers_are_shown_with_what_the_inspector_says_of_them";
    let Some(plan) = plan(name, Profile::Orin, folder.path()) else { return };
    let log = folder.path().join("log");
    let report = json(&finish(bench_plan(&plan, &log).args(["--layers", "--json"])).expect_code(0).stdout);
    let layers = &report["results"][0]["layers"];
    let expected = serde_json::json!([
        {"name": "reformat", "kind": "Reformat", "inputs": ["f32"], "outputs": ["f32"],
         "mean_ms": 0.25, "median_ms": 0.25, "share": 0.25},
        {"name": "conv+relu", "kind": "CaskConvolution", "inputs": ["f16"], "outputs": ["f16"],
         "mean_ms": 0.75, "median_ms": 0.75, "share": 0.75},
    ]);
    assert_eq!((&layers["layers"], &layers["mean_ms"]), (&expected, &1.0.into()));
    let text = finish(bench_plan(&plan, &log).arg("--layers")).expect_code(0).stdout;
    let row = text.lines().find(|line| line.starts_with("conv+relu")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>()[1..],
        ["CaskConvolution", "f16", "f16", "0.7500", "0.7500", "75.0", "%"]
    );
}

#[test]
fn precisions_are_compared_and_what_they_were_measured_on_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let model = classifier(folder.path());
    std::fs::write(model.with_extension("toml"), "version = 1\n").unwrap();
    let compare = |options: &[&str]| {
        let mut command = bench(&model);
        command.args(["--precision", "fp32,fp16,int8", "--calibration"]).arg(asset("pictures")).args(options);
        finish(&mut command).expect_code(0)
    };
    let compared = compare(&["--json"]);
    assert!(compared.stderr.contains("there is no GPU to measure plans on"), "{}", compared.stderr);
    let report = json(&compared.stdout);
    assert_eq!((&report["version"], &report["plans"]), (&2.into(), &false.into()));
    let rows = report["precisions"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["precision"].as_str().unwrap()).collect();
    assert_eq!(names, ["fp32", "fp16", "int8"]);
    assert_eq!(rows[0]["speed_up"], 1.0);
    for row in rows {
        has_figures(&row["measured"]["latency_ms"]);
        assert!(row["model_bytes"].as_u64().unwrap() > 0);
        assert!(row["comparison"]["top"]["top1"].is_number(), "{row}");
    }
    let text = compare(&[]).stdout;
    for words in ["speed-up", "cosine min", "top-1", "peak MiB", "it says nothing of a GPU"] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
    for words in ["plan MiB", "GPU MiB", "missed"] {
        assert!(!text.contains(words), "`{words}` without a figure for it in {text}");
    }
}

#[test]
fn precisions_are_measured_as_plans_where_there_is_a_gpu() {
    let name = "precisions_are_measured_as_plans_where_there_is_a_gpu";
    let folder = tempfile::tempdir().unwrap();
    if plan(name, Profile::Orin, folder.path()).is_none() {
        return;
    }
    let model = classifier(folder.path());
    std::fs::write(model.with_extension("toml"), "version = 1\n").unwrap();
    let mut command = bench_plan(&model, &folder.path().join("log"));
    command.args(["--batch", "2", "--precision", "fp32,int8", "--json", "--calibration"]).arg(asset("pictures"));
    let compared = finish(&mut command).expect_code(0);
    let report = json(&compared.stdout);
    assert_eq!((&report["plans"], report["precisions"].as_array().unwrap().len()), (&true.into(), 2));
    assert!(report["measured_on"].as_str().unwrap().contains("emulator (orin)"), "{report}");
    assert!(report["no_power"].as_str().unwrap().ends_with("NVML says `Not Supported`"), "{report}");
    for row in report["precisions"].as_array().unwrap() {
        assert!(row["plan_bytes"].as_u64().unwrap() > 0, "{row}");
        assert!(row["plan_comparison"]["outputs"][0]["cosine_min"].is_number(), "{row}");
        assert!(row["measured"]["memory"]["device_bytes"].as_u64().unwrap() > 0, "{row}");
        assert_eq!(row["measured"]["batch"], 2);
        has_figures(&row["measured"]["device"]["compute_ms"]);
    }
}

/// Whoever converts and compares models holds several of them at once.
#[test]
fn the_peak_of_a_precision_is_that_of_a_process_that_only_runs_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.onnx");
    let (inputs, outputs) = (2048, 4096);
    let weights: Vec<f32> = (0..inputs * outputs).map(|index| (index % 7) as f32 / 7.0 - 0.4).collect();
    let graph = GraphBuilder::new("large")
        .input("x", DType::F32, "N,2048")
        .initializer("weights", TensorRef::of(&[inputs, outputs], &weights).unwrap())
        .node("MatMul", &["x", "weights"], &["y"])
        .output("y", DType::F32, "N,4096");
    std::fs::write(&path, graph.encode()).unwrap();
    let report = |options: &[&str]| json(&finish(bench(&path).arg("--json").args(options)).expect_code(0).stdout);
    let peak = |result: &Value| result["memory"]["peak_bytes"].as_f64().unwrap();
    let alone = peak(&report(&[])["results"][0]);
    let compared = peak(&report(&["--precision", "fp32"])["precisions"][0]["measured"]);
    let weights_bytes = (inputs * outputs * 4) as f64;
    assert!(alone > weights_bytes && compared < alone + weights_bytes / 2.0, "{compared} against {alone}");
}

#[test]
fn a_manifest_settles_the_size_that_a_model_leaves_open() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("faces.onnx");
    std::fs::copy(asset("models/centerface.onnx"), &model).unwrap();
    let stderr = finish(&mut bench(&model)).expect_code(2).stderr;
    assert!(stderr.contains("open; say how large it is with `--shape"), "{stderr}");
    std::fs::copy(asset("models/centerface.toml"), model.with_extension("toml")).unwrap();
    finish(&mut bench(&model)).expect_code(0);
    let stderr = finish(bench(&model).args(["--shape", "input.1=1x4x32x32"])).expect_code(1).stderr;
    assert!(stderr.contains("[1, 4, 32, 32]"), "what is given comes before the manifest: {stderr}");
}

#[test]
fn a_detector_s_boxes_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("faces.onnx");
    std::fs::copy(asset("models/centerface.onnx"), &model).unwrap();
    let manifest = std::fs::read_to_string(asset("models/centerface.toml")).unwrap();
    // The astronaut's face is large.
    let small = manifest.replace("size = [640, 640]", "size = [256, 256]");
    assert_ne!(small, manifest);
    std::fs::write(model.with_extension("toml"), small).unwrap();
    let compare = |options: &[&str]| {
        let mut command = bench(&model);
        command.arg("--evaluation").arg(asset("pictures")).args(options);
        finish(&mut command).expect_code(0).stdout
    };
    let report = json(&compare(&["--precision", "fp32,fp16", "--json"]));
    for row in report["precisions"].as_array().unwrap() {
        let boxes = &row["comparison"]["boxes"];
        assert!(boxes["matched"].as_u64().unwrap() > 0, "{row}");
        assert_eq!((&boxes["missed"], &boxes["added"]), (&0.into(), &0.into()), "{row}");
        assert!(boxes["iou_mean"].as_f64().unwrap() > 0.95, "{row}");
    }
    let text = compare(&["--precision", "fp32"]);
    for words in ["matched", "missed", "added", "IoU"] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
    assert!(!text.contains("top-1"), "{text}");
}

/// The plan of the second comparison is in the cache, and what it was tried on is another thing.
#[test]
fn a_plan_is_compared_on_the_pictures_that_are_given_now() {
    let name = "a_plan_is_compared_on_the_pictures_that_are_given_now";
    let folder = tempfile::tempdir().unwrap();
    if plan(name, Profile::Orin, folder.path()).is_none() {
        return;
    }
    let (model, log) = (classifier(folder.path()), folder.path().join("log"));
    let samples = |options: &[&str]| {
        let mut command = bench_plan(&model, &log);
        command.args(["--precision", "fp16", "--json"]).args(options);
        let report = json(&finish(&mut command).expect_code(0).stdout);
        report["precisions"][0]["plan_comparison"]["samples"].as_u64().unwrap()
    };
    let (on_noise, pictures) = (samples(&[]), asset("pictures"));
    let count = std::fs::read_dir(&pictures).unwrap().count() as u64;
    let few = folder.path().join("few");
    std::fs::create_dir(&few).unwrap();
    for picture in names_in(&pictures).into_iter().skip(1) {
        std::fs::copy(pictures.join(&picture), few.join(&picture)).unwrap();
    }
    assert_eq!(samples(&["--evaluation", few.to_str().unwrap()]), count - 1);
    assert_ne!(on_noise, count - 1, "so that it shows");
    assert_eq!(Log::read(&log).calls("buildSerializedNetwork"), 1);
}

#[test]
fn what_a_plan_takes_of_the_gpu_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some(plan) = plan("what_a_plan_takes_of_the_gpu_is_told", Profile::Discrete, folder.path()) else { return };
    let taken = |sessions: &str| {
        let mut command = bench(&plan);
        on_emulator(&mut command, Profile::Discrete, &folder.path().join("log"));
        command.args(["--json", "--sessions", sessions]);
        let report = json(&finish(&mut command).expect_code(0).stdout);
        report["results"][0]["memory"]["device_bytes"].as_u64().unwrap()
    };
    let (one, two) = (taken("1"), taken("2"));
    assert!(one >= WORKSPACE_BYTES && two >= 2 * WORKSPACE_BYTES, "{one} and {two}");
    assert!(two < 3 * WORKSPACE_BYTES, "{two}");
}

#[test]
fn what_a_card_takes_is_read_from_its_own_library() {
    let folder = tempfile::tempdir().unwrap();
    let Some(plan) = plan("what_a_card_takes_is_read_from_its_own_library", Profile::Discrete, folder.path()) else {
        return;
    };
    let measured = |power: Option<Power>, log: &str| {
        let mut command = bench(&plan);
        present(&mut command, &Emulated { power, ..Emulated::new(Profile::Discrete) }, &folder.path().join(log));
        json(&finish(command.arg("--json")).expect_code(0).stdout)
    };
    let silent = measured(None, "silent");
    assert!(silent["results"][0]["power"].is_null(), "{silent}");
    let why = "the board has no INA3221 monitor as Jetsons have, and the card does not tell its power: NVML says \
               `Not Supported`";
    assert_eq!(silent["no_power"], why);

    let result = &measured(Some(Power::Milliwatts(250_000)), "power")["results"][0];
    let power = &result["power"];
    assert_eq!((&power["watts"], &power["source"]), (&250.0.into(), &"emulator (discrete) by NVML".into()));
    let frames = result["throughput_per_s"].as_f64().unwrap();
    let per_watt = power["frames_per_s_per_watt"].as_f64().unwrap();
    assert!((per_watt * 250.0 / frames - 1.0).abs() < 1e-12, "{per_watt} of {frames}");
    assert!(Log::read(&folder.path().join("power")).alive().is_empty());

    // Energy that is counted says more than a power that is an average of the last second.
    let power = &measured(Some(Power::Millijoules(100)), "energy")["results"][0]["power"];
    assert!(power["watts"].as_f64().unwrap() > 0.0, "{power}");
    let log = Log::read(&folder.path().join("energy"));
    assert_eq!(log.calls("nvmlDeviceGetPowerUsage"), 1, "but to see whether it is there");
}

#[test]
fn a_precision_that_cannot_be_measured_is_told_with_the_reason() {
    let name = "a_precision_that_cannot_be_measured_is_told_with_the_reason";
    let folder = tempfile::tempdir().unwrap();
    if plan(name, Profile::Orin, folder.path()).is_none() {
        return;
    }
    let model = classifier(folder.path());
    let mut command = bench(&model);
    // It is enough to try the plan, in one session, and too little to measure it in so many.
    let emulated = Emulated { memory_bytes: 1 << 19, ..Emulated::new(Profile::Orin) };
    present(&mut command, &emulated, &folder.path().join("log"));
    command.args(["--precision", "fp32", "--json", "--sessions", "64", "--batch", "16"]);
    let compared = finish(&mut command).expect_code(1);
    let report = json(&compared.stdout);
    let failure = report["precisions"][0]["failure"].as_str().unwrap();
    assert!(failure.starts_with("the GPU has no memory for "), "{failure}");
    assert!(compared.error().contains("1 of 1 precisions could not be measured"), "{}", compared.stderr);
}

#[test]
fn what_would_have_no_effect_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = classifier(folder.path());
    let refused = |model: &Path, options: &[&str], word: &str| {
        let finished = finish(bench(model).args(options)).expect_code(2);
        assert!(finished.error().contains(word), "no `{word}` in {}", finished.stderr);
    };
    refused(&model, &["--layers"], "`--layers` needs a plan");
    refused(&model, &["--no-transfers"], "`--no-transfers` needs a plan");
    refused(&model, &["--calibration", "pictures"], "--precision");
    refused(&model, &["--precision", "fp32", "--layers"], "cannot be used with");
    refused(&model, &["--precision", "int8"], "INT8 needs pictures to calibrate with");
    refused(&model, &["--precision", "fp32,fp16", "--batch", "1,2"], "compares one batch size");
    refused(&model, &["--percentiles", "100"], "not between 0 and 100");
    let not_a_model = folder.path().join("a.plan");
    std::fs::write(&not_a_model, sealed(Profile::Orin, b"")).unwrap();
    refused(&not_a_model, &["--precision", "fp16"], "converts an ONNX model");
}
