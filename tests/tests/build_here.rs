//! `revoada build` for the device that is here, which `tests/emulator` stands for: it proves what is asked of TensorRT
//! and what becomes of its answers, nothing of a GPU.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;

use revoada_bundle::bundle::{Bundle, BundleWriter, MANIFEST, MODEL, Trust};
use revoada_bundle::golden::GOLDEN;
use revoada_bundle::onnx::GraphBuilder;
use revoada_bundle::plan::{Plan, PlanKey};
use revoada_bundle::sign::SecretKey;
use revoada_core::{DType, HardwareCompatibility, TensorRef};
use revoada_emulator::{Emulated, Log, Profile};
use revoada_tests::{Finished, Running, finish, names_in, revoada, wait_for};
use serde_json::Value;

/// A home for one test, with a model in it and an emulated device beside it.
struct Device {
    home: tempfile::TempDir,
    emulated: Emulated,
}

impl Device {
    /// `None`, and said aloud, where the emulator has no TensorRT.
    fn new(profile: Profile) -> Option<Self> {
        Self::adding(profile, 1.0)
    }

    /// The emulator adds 1, whatever the model adds.
    fn adding(profile: Profile, number: f32) -> Option<Self> {
        if revoada_emulator::tensorrt().is_none() {
            println!("skipped: there were no headers of TensorRT 10.16 to build the emulator's TensorRT from");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let graph = GraphBuilder::new("increment")
            .input("x", DType::F32, "N,3")
            .initializer("same", TensorRef::of(&[3, 3], &[1f32, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]).unwrap())
            .initializer("one", TensorRef::of(&[1], &[number]).unwrap())
            .node("MatMul", &["x", "same"], &["product"])
            .node("Add", &["product", "one"], &["y"])
            .output("y", DType::F32, "N,3");
        std::fs::write(home.path().join("increment.onnx"), graph.encode()).unwrap();
        Some(Self { home, emulated: Emulated::new(profile) })
    }

    fn log(&self) -> PathBuf {
        self.home.path().join("emulator.log")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = revoada();
        command.env("HOME", self.home.path()).current_dir(self.home.path()).args(arguments);
        for variable in ["XDG_DATA_HOME", "XDG_CACHE_HOME", "REVOADA_TENSORRT"] {
            command.env_remove(variable);
        }
        self.emulated.present(&mut command, &self.log());
        command
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.command(arguments))
    }

    fn build(&self, arguments: &[&str]) -> Value {
        let always = ["build", "increment.onnx", "--target", "local", "--json"];
        let finished = self.run(&[&always, arguments].concat()).expect_code(0);
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// How often the emulator has written a line that begins so.
    fn noted(&self, start: &str) -> usize {
        let text = std::fs::read_to_string(self.log()).unwrap();
        text.lines().filter(|line| line.starts_with(start)).count()
    }

    fn timings(&self) -> PathBuf {
        let folder = self.home.path().join(".cache/revoada/timings");
        let names: Vec<String> = names_in(&folder).into_iter().filter(|name| name.ends_with(".timings")).collect();
        assert_eq!(names.len(), 1, "one device class, one file: {names:?}");
        folder.join(&names[0])
    }
}

fn plan_at(folder: &Path, name: &str) -> Plan {
    Plan::read(&folder.join(name)).unwrap()
}

#[test]
fn a_plan_says_for_which_device_it_was_built_and_is_built_once() {
    let Some(device) = Device::new(Profile::Orin) else { return };
    let built = device.build(&["--batch-max", "4"]);
    assert!(built["plan"]["built_for"].as_str().unwrap().starts_with("sm_87, 16 multiprocessors, TensorRT 10.16.0"));
    assert_eq!(built["plan"]["cached"], false);
    let plan = plan_at(device.home.path(), "increment-fp16.plan");
    assert_eq!(plan.facts().inputs[0].to_string(), "x f32[N,3]");
    assert_eq!(plan.key().profile["x"].max, [4, 3]);
    let again = device.build(&["--batch-max", "4", "--output", "again.bundle"]);
    assert_eq!(again["plan"]["cached"], true);
    assert_eq!(device.noted("buildSerializedNetwork"), 1);
}

#[test]
fn kernels_are_timed_once_for_all_builds_of_a_device() {
    let Some(device) = Device::new(Profile::Orin) else { return };
    device.build(&[]);
    let timed = device.noted("timed a layer");
    assert!(timed > 0, "the first build times something");
    device.build(&["--batch-max", "2", "--output", "two.bundle"]);
    assert_eq!((device.noted("buildSerializedNetwork"), device.noted("timed a layer")), (2, timed));

    std::fs::write(device.timings(), "damaged").unwrap();
    device.build(&["--batch-max", "3", "--output", "three.bundle"]);
    assert_eq!(device.noted("timed a layer"), 2 * timed, "timings that cannot be used are begun anew");
    assert_ne!(std::fs::read(device.timings()).unwrap(), b"damaged");
}

#[test]
fn a_build_waits_for_another_that_times_its_kernels() {
    let Some(device) = Device::new(Profile::Orin) else { return };
    device.build(&[]);
    let lock = std::fs::File::options().append(true).open(device.timings().with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let mut command = device.command(&["build", "increment.onnx", "--target", "local", "--batch-max", "2"]);
    let stderr = device.home.path().join("stderr");
    command.args(["--output", "two.bundle"]).stderr(std::fs::File::create(&stderr).unwrap());
    let mut running = Running(command.spawn().unwrap());
    wait_for("the build says that it waits", || {
        std::fs::read_to_string(&stderr).unwrap().contains("another build has the device").then_some(())
    });
    assert_eq!(device.noted("buildSerializedNetwork"), 1);
    lock.unlock().unwrap();
    assert!(running.0.wait().unwrap().success());
    assert_eq!(device.noted("buildSerializedNetwork"), 2);
}

#[test]
fn what_was_asked_of_a_plan_is_asked_of_tensorrt_and_stands_in_the_plan() {
    let Some(device) = Device::new(Profile::Orin) else { return };
    device.build(&["--dla", "1", "--version-compatible", "--hardware-compatible", "ampere", "--memory", "8"]);
    assert_eq!((device.noted("DLA core 1"), device.noted("hardware compatibility 1")), (1, 1));
    assert_eq!((device.noted("runtime on DLA core 1"), device.noted("setEngineHostCodeAllowed")), (1, 1));
    assert_eq!(device.noted("workspace 8388608"), 1);
    assert_eq!(device.noted("builder flag"), 2, "version compatibility, and the GPU for what the DLA cannot do");
    let key = plan_at(device.home.path(), "increment-fp16.plan").key().clone();
    assert_eq!((key.dla_core, key.compatibility.version), (Some(1), true));
    assert_eq!(key.compatibility.hardware, HardwareCompatibility::AmpereAndLater);

    let refused = device.run(&["build", "increment.onnx", "--target", "local", "--dla", "7", "--output", "b.bundle"]);
    let refused = refused.expect_code(1);
    assert!(refused.error().contains("has no DLA core 7 here: there are 2"), "{}", refused.stderr);
    assert!(!device.home.path().join("b.bundle").exists());
}

#[test]
fn of_a_bundle_only_the_plan_is_built() {
    let Some(mut device) = Device::new(Profile::Orin) else { return };
    let built = device.build(&["--precision", "fp32", "--output", "it.bundle"]);
    device.emulated = Emulated::new(Profile::Discrete);
    let always = ["build", "it.bundle", "--target", "local"];
    let again = device.run(&[&always[..], &["--json"]].concat()).expect_code(0);
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!((&again["digest"], &again["precision"]), (&built["digest"], &"fp32".into()));
    let plan = plan_at(device.home.path(), "it.plan");
    assert_eq!(plan.key().bundle.to_string(), built["digest"].as_str().unwrap());
    assert!(plan.key().device.to_string().starts_with("sm_90"), "{}", plan.key().device);
    let refused = device.run(&[&always[..], &["--precision", "fp16"]].concat()).expect_code(2);
    assert!(refused.error().contains("`--precision` has no effect: bundle `it.bundle` is converted already"));
    let refused = device.run(&["build", "it.bundle", "--target", "none"]).expect_code(2);
    assert!(refused.error().contains("of a bundle only a plan can be built"), "{}", refused.stderr);
    let refused = device.run(&["build", "increment.onnx", "--target", "none", "--dla", "0"]).expect_code(2);
    assert!(refused.error().contains("`--dla` has no effect with `--target none`"), "{}", refused.stderr);
}

#[test]
fn a_plan_is_tried_here_before_it_is_kept() {
    let Some(device) = Device::new(Profile::Orin) else { return };
    let built = device.build(&[]);
    assert_eq!(built["plan"]["accuracy"]["samples"], 4);
    let accuracy = plan_at(device.home.path(), "increment-fp16.plan").facts().accuracy.unwrap();
    assert!(accuracy.cosine_min > 0.999, "{accuracy:?}");
    let speed = built["plan"]["speed"].as_object().unwrap();
    assert_eq!(speed["rows"], 1);
    assert!(speed["throughput_per_s"].as_f64().unwrap() > 0.0 && speed["latency_ms_p99"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_plan_that_runs_larger_batches_only_is_tried_with_them() {
    let Some(device) = Device::new(Profile::Orin) else { return };
    let built = device.build(&["--profile", "x=4x3:4x3:8x3"]);
    let plan = &built["plan"];
    assert_eq!((&plan["accuracy"]["samples"], &plan["speed"]["rows"]), (&4.into(), &8.into()));
}

/// A bundle like `it.bundle` whose golden answers are those of other weights, as if it had been put together wrongly.
fn write_wrong_bundle(device: &Device) -> Bundle {
    let built = Bundle::open(&device.home.path().join("it.bundle")).unwrap().verify(Trust::Anybody).unwrap();
    let mut golden = built.golden().unwrap().unwrap();
    assert_eq!(golden.inputs.cases(), 3);
    golden.outputs[0].answers.rotate_left(1);
    let mut writer = BundleWriter::create(&device.home.path().join("other.bundle")).unwrap();
    writer.add(MODEL, &built.read(MODEL).unwrap()).unwrap();
    writer.add(MANIFEST, &built.read(MANIFEST).unwrap()).unwrap();
    writer.add(GOLDEN, &golden.encode()).unwrap();
    writer.seal(built.index().clone(), None).unwrap().publish().unwrap()
}

#[test]
fn a_plan_is_held_against_the_golden_inputs_of_its_bundle() {
    let Some(device) = Device::new(Profile::Orin) else { return };
    device.run(&["build", "increment.onnx", "--target", "none", "--output", "it.bundle"]).expect_code(0);
    write_wrong_bundle(&device);
    device.run(&["build", "it.bundle", "--target", "local"]).expect_code(0);
    let refused = device.run(&["build", "other.bundle", "--target", "local"]).expect_code(1);
    let expected =
        "the plan that was built answers the golden inputs of its bundle otherwise: the cosine of output `y` is ";
    assert!(refused.error().contains(expected), "{}", refused.stderr);
    assert!(!device.home.path().join("other.plan").exists());
}

#[test]
fn a_plan_that_computes_in_another_precision_than_its_graph_is_refused_with_the_layer() {
    let Some(mut device) = Device::new(Profile::Orin) else { return };
    device.emulated.failures = vec![("choose tactics", 1, 1)];
    let refused = device.run(&["build", "increment.onnx", "--target", "local"]).expect_code(1);
    let expected =
        "TensorRT did not take the graph's precisions: layer `MatMul_0` computes in f32, and the graph says f16";
    assert!(refused.error().contains(expected) && refused.stderr.contains("hint: `--keep "), "{}", refused.stderr);
    assert!(!device.home.path().join("increment-fp16.bundle").exists());
}

#[test]
fn a_plan_that_answers_otherwise_than_its_model_is_refused_and_leaves_nothing() {
    let Some(device) = Device::adding(Profile::Orin, 10.0) else { return };
    let refused = device.run(&["build", "increment.onnx", "--target", "local"]).expect_code(1);
    let expected = "the plan that was built is not accurate enough: the cosine of output `y` is ";
    assert!(refused.error().contains(expected) && refused.stderr.contains("hint: "), "{}", refused.stderr);
    let mut left = names_in(device.home.path());
    left.retain(|name| !name.starts_with('.'));
    assert_eq!(left, ["emulator.log", "increment.onnx"]);
    device.run(&["build", "increment.onnx", "--target", "local", "--cosine-min", "0"]).expect_code(0);
}

#[test]
fn a_plan_that_breaks_the_process_that_tries_it_is_told() {
    let Some(mut device) = Device::new(Profile::Orin) else { return };
    device.emulated.failures = vec![("enqueueV3", 1, 700)];
    let failed = device.run(&["build", "increment.onnx", "--target", "local"]).expect_code(1);
    assert!(failed.stderr.contains("does not run here: the process that tried it ended with"), "{}", failed.stderr);
    assert!(!device.home.path().join("increment-fp16.bundle").exists());
}

#[test]
fn a_compiler_that_fails_names_the_layer_and_leaves_nothing() {
    let Some(mut device) = Device::new(Profile::Nano) else { return };
    device.emulated.failures = vec![("buildSerializedNetwork", 1, 1)];
    let failed = device.run(&["build", "increment.onnx", "--target", "local"]).expect_code(1);
    assert!(failed.error().contains("Could not find any implementation for node"), "{}", failed.stderr);
    let mut left = names_in(device.home.path());
    left.retain(|name| !name.starts_with('.'));
    assert_eq!(left, ["emulator.log", "increment.onnx"]);
    assert_eq!(Log::read(&device.log()).calls("buildSerializedNetwork"), 1);
}

/// A device with `it.bundle`, and a plan of it that another device of its class has signed.
fn offered_a_plan() -> Option<(Device, Plan, SecretKey)> {
    let device = Device::new(Profile::Orin)?;
    device.build(&["--precision", "fp32", "--output", "it.bundle", "--batch-max", "4", "--plan", "built.plan"]);
    let (built, stranger) = (plan_at(device.home.path(), "built.plan"), SecretKey::generate().unwrap());
    let plan = Plan::seal(built.key().clone(), built.facts().clone(), built.payload(), &stranger);
    std::fs::remove_dir_all(device.home.path().join(".cache")).unwrap();
    std::fs::remove_file(device.log()).unwrap();
    Some((device, plan, stranger))
}

/// Offers a file with these bytes as a plan; it is refused, nothing is kept, and nothing was compiled instead.
#[track_caller]
fn refused(device: &Device, bytes: &[u8], arguments: &[&str], expected: &str) {
    std::fs::write(device.home.path().join("offered.plan"), bytes).unwrap();
    let always = ["build", "--target", "local", "--plan", "taken.plan", "--offered", "offered.plan"];
    let refused = device.run(&[&always[..], arguments].concat()).expect_code(1);
    assert!(refused.error().contains(expected), "no `{expected}` in {}", refused.stderr);
    assert!(!device.home.path().join("taken.plan").exists());
    let cache = device.home.path().join(".cache/revoada/plans");
    assert!(!cache.exists() || names_in(&cache).iter().all(|name| !name.ends_with(".plan")), "{:?}", names_in(&cache));
    assert_eq!(Log::read(&device.log()).calls("buildSerializedNetwork"), 0);
}

#[test]
fn an_offered_plan_is_refused_where_it_is_not_the_one_that_would_be_built_here() {
    let Some((mut device, plan, stranger)) = offered_a_plan() else { return };
    refused(
        &device,
        plan.bytes(),
        &["it.bundle", "--batch-max", "5"],
        "runs input `x` from 1×3 to 4×3, asked for is 1×3 to 5×3",
    );
    refused(&device, plan.bytes(), &["it.bundle", "--dla", "1"], "runs on the GPU, asked for is DLA core 1");
    let asked = ["it.bundle", "--version-compatible"];
    refused(&device, plan.bytes(), &asked, "was built for other versions and devices than are asked for");
    let wrong = PlanKey { precision: revoada_bundle::bundle::Precision::Int8, ..plan.key().clone() };
    let wrong = Plan::seal(wrong, plan.facts().clone(), plan.payload(), &stranger);
    refused(&device, wrong.bytes(), &["it.bundle"], "computes in int8, its bundle in fp32");
    write_wrong_bundle(&device);
    refused(&device, plan.bytes(), &["other.bundle"], "plan `offered.plan` is of another bundle");
    device.emulated = Emulated::new(Profile::Discrete);
    let expected = "was built for sm_87, 16 multiprocessors, TensorRT 10.16.0";
    refused(&device, plan.bytes(), &["it.bundle"], expected);
}

#[test]
fn an_offered_plan_is_refused_where_it_is_damaged() {
    let Some((device, plan, _)) = offered_a_plan() else { return };
    let whole = plan.bytes();
    refused(
        &device,
        &whole[..whole.len() - 1],
        &["it.bundle"],
        "plan `offered.plan` is truncated: 1 bytes are missing",
    );
    let mut changed = whole.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    refused(&device, &changed, &["it.bundle"], "plan `offered.plan` was changed after it was built");
    refused(&device, b"not a plan", &["it.bundle"], "is no plan of revoada");
}

#[test]
fn an_offered_plan_is_refused_where_it_answers_otherwise() {
    let Some((mut device, plan, stranger)) = offered_a_plan() else { return };
    let engine = std::str::from_utf8(plan.payload()).unwrap();
    assert!(engine.contains("operation increment"), "{engine}");
    let other = engine.replace("operation increment", "operation mixture");
    let other = Plan::seal(plan.key().clone(), plan.facts().clone(), other.as_bytes(), &stranger);
    refused(&device, other.bytes(), &["it.bundle"], "the plan that was offered is not accurate enough: the cosine");

    let key = PlanKey { bundle: write_wrong_bundle(&device).digest(), ..plan.key().clone() };
    let of_wrong = Plan::seal(key, plan.facts().clone(), plan.payload(), &stranger);
    let expected =
        "the plan that was offered answers the golden inputs of its bundle otherwise: the cosine of output `y`";
    refused(&device, of_wrong.bytes(), &["other.bundle"], expected);

    device.emulated.failures = vec![("enqueueV3", 1, 700)];
    refused(&device, plan.bytes(), &["it.bundle"], "the plan does not run here: the process that tried it ended with");
}

#[test]
fn a_plan_is_offered_for_a_bundle_on_the_device_that_is_here() {
    let Some((device, plan, _)) = offered_a_plan() else { return };
    std::fs::write(device.home.path().join("offered.plan"), plan.bytes()).unwrap();
    for (arguments, expected) in [
        (
            &["increment.onnx"][..],
            "`--offered` has no effect: it is a plan of a bundle, and `increment.onnx` is none yet",
        ),
        (&["it.bundle", "--target", "none"], "`--offered` has no effect with `--target none`"),
        (&["it.bundle", "--memory", "8"], "'--memory <MIB>'"),
    ] {
        let refused = device.run(&[&["build", "--offered", "offered.plan"][..], arguments].concat()).expect_code(2);
        assert!(refused.error().contains(expected), "{}", refused.stderr);
    }
}
