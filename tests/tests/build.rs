//! `revoada build`, `verify` and `key`, with TensorRT for RTX compiling for a GPU that is not here.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, in its helpers too")]

use std::path::Path;
use std::process::Command;

use revoada_bundle::onnx::GraphBuilder;
use revoada_core::{DType, TensorRef};
use revoada_tests::{Running, asset, finish, names_in, revoada, root, wait_for};
use serde_json::Value;

/// `revoada` with a home of its own, for keys and plans.
fn at_home(home: &Path) -> Command {
    let mut command = revoada();
    command.env("HOME", home).env_remove("XDG_DATA_HOME").env_remove("XDG_CACHE_HOME").env_remove("REVOADA_TENSORRT");
    command
}

fn build(home: &Path, model: &Path) -> Command {
    let mut command = at_home(home);
    command.arg("build").arg(model).arg("--json").current_dir(home);
    command
}

/// TensorRT for RTX, where set-up has put it.
fn rtx(test: &str) -> Option<std::path::PathBuf> {
    let folder = root().join(".cache/lib");
    let found = folder.join("libtensorrt_rtx.so.1").exists();
    if !found {
        eprintln!("skipped: {test}: there is no TensorRT for RTX in `.cache/lib`");
    }
    found.then_some(folder)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// A network that overflows half precision in its middle: 200 · 900 is beyond 65504, the answer is 1.8 times the
/// input's mean.
fn overflowing(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("overflowing.onnx");
    let scalar = |number: f32| -> [f32; 1] { [number] };
    let graph = GraphBuilder::new("overflowing")
        .input("x", DType::F32, "1,3,8,8")
        .initializer("large", TensorRef::of(&[], &scalar(900.0)).unwrap())
        .initializer("small", TensorRef::of(&[], &scalar(1e-5)).unwrap())
        .node("GlobalAveragePool", &["x"], &["mean"])
        .node("Mul", &["mean", "large"], &["enlarged"])
        .node("Relu", &["enlarged"], &["kept"])
        .node("Mul", &["kept", "small"], &["y"])
        .output("y", DType::F32, "1,3,1,1");
    std::fs::write(&path, graph.encode()).unwrap();
    std::fs::write(path.with_extension("toml"), "version = 1\n").unwrap();
    path
}

#[test]
fn a_model_becomes_a_signed_bundle_and_the_same_one_again() {
    let home = tempfile::tempdir().unwrap();
    let model = asset("models/efficientnet-lite0.onnx");
    let mut digests = Vec::new();
    for output in ["one.bundle", "two.bundle"] {
        let mut command = build(home.path(), &model);
        command.args(["--target", "none", "--output", output, "--evaluation"]).arg(asset("pictures"));
        let built = json(&finish(&mut command).expect_code(0).stdout);
        assert_eq!(built["precision"], "fp16");
        assert_eq!(built["accuracy"]["comparison"]["top"]["top1"], 1.0, "the photographs are named alike");
        let verified = finish(at_home(home.path()).args(["verify", "--json"]).arg(home.path().join(output)));
        let verified = json(&verified.expect_code(0).stdout);
        assert_eq!((&verified["digest"], &verified["signed_by"]), (&built["digest"], &built["signer"]));
        digests.push(built["digest"].clone());
    }
    assert_eq!(digests[0], digests[1]);
    let page = std::fs::read_to_string(home.path().join("one.bundle/reports/accuracy.html")).unwrap();
    assert!(page.contains("Accurate enough, on 4 samples"), "{page}");

    // A bundle stands wherever a model does; one that was changed does not.
    let mut classify = at_home(home.path());
    classify.args(["classify", "--json", "--model", "one.bundle"]).arg(asset("pictures/coffee.png"));
    let named = finish(classify.current_dir(home.path())).expect_code(0);
    assert_eq!(json(&named.stdout)["classifications"][0]["label"], "espresso");
    let mut inspect = at_home(home.path());
    let inspected = finish(inspect.args(["inspect", "one.bundle", "--json"]).current_dir(home.path())).expect_code(0);
    assert!(inspected.stdout.contains("logits"), "{}", inspected.stdout);
    std::fs::write(home.path().join("two.bundle/model.toml"), "version = 1\n").unwrap();
    let mut classify = at_home(home.path());
    classify.args(["classify", "--model", "two.bundle"]).arg(asset("pictures/coffee.png"));
    let refused = finish(classify.current_dir(home.path())).expect_code(1);
    assert!(refused.error().contains("has a file `model.toml` that was changed"), "{}", refused.stderr);

    let key = finish(at_home(home.path()).arg("key")).expect_code(0).stdout;
    finish(at_home(home.path()).arg("verify").arg(home.path().join("one.bundle")).args(["--key", key.trim()]))
        .expect_code(0);
    let other = finish(at_home(home.path()).args(["key", "--new"]).arg(home.path().join("other.pem"))).expect_code(0);
    let refused = finish(
        at_home(home.path()).arg("verify").arg(home.path().join("one.bundle")).args(["--key", other.stdout.trim()]),
    );
    assert!(refused.expect_code(1).error().contains("which is not among the trusted keys"));

    let mut again = build(home.path(), &model);
    let refused = finish(again.args(["--target", "none", "--output", "one.bundle"])).expect_code(1);
    assert!(refused.error().contains("is there already"), "{}", refused.stderr);
}

#[test]
fn a_plan_is_compiled_once_and_then_found() {
    let Some(libraries) = rtx("a_plan_is_compiled_once_and_then_found") else { return };
    let home = tempfile::tempdir().unwrap();
    let model = asset("models/efficientnet-lite0.onnx");
    let compile = |output: &str, batch: &str| {
        let mut command = build(home.path(), &model);
        command.args(["--target", "sm_86", "--batch-max", batch, "--output", output, "--tensorrt"]).arg(&libraries);
        json(&finish(&mut command).expect_code(0).stdout)
    };
    let first = compile("a.bundle", "4");
    assert_eq!((&first["plan"]["cached"], &first["plan"]["path"]), (&false.into(), &"a.plan".into()));
    assert_eq!(first["plan"]["tensorrt"]["flavour"], "rtx");
    let again = compile("b.bundle", "4");
    assert_eq!(again["plan"]["cached"], true);
    assert_eq!(std::fs::read(home.path().join("a.plan")).unwrap(), std::fs::read(home.path().join("b.plan")).unwrap());
    assert_eq!(compile("c.bundle", "8")["plan"]["cached"], false, "another profile is another plan");

    let plan = home.path().join("a.plan");
    let verified = finish(at_home(home.path()).args(["verify", "--json"]).arg(&plan)).expect_code(0);
    assert!(json(&verified.stdout)["built_for"].as_str().unwrap().starts_with("sm_86, TensorRT for RTX 1."));
    let whole = std::fs::read(&plan).unwrap();
    std::fs::write(&plan, &whole[..whole.len() / 2]).unwrap();
    let refused = finish(at_home(home.path()).arg("verify").arg(&plan)).expect_code(1);
    assert!(refused.error().contains("is truncated"), "{}", refused.stderr);
}

#[test]
fn a_model_that_overflows_is_refused_with_the_layer_to_blame_and_passes_mixed() {
    let home = tempfile::tempdir().unwrap();
    let model = overflowing(home.path());
    let mut command = build(home.path(), &model);
    let refused = finish(command.args(["--target", "none"])).expect_code(1);
    for word in ["the fp16 model is not accurate enough", "infinities", "hint: `--mixed` keeps", "Mul"] {
        assert!(refused.stderr.contains(word), "no `{word}` in {}", refused.stderr);
    }
    assert!(!home.path().join("overflowing-fp16.bundle").exists());
    let report = std::fs::read_to_string(home.path().join("overflowing-fp16.refused/accuracy.json")).unwrap();
    assert_eq!(json(&report)["layers"][0]["overflows"], true);

    let mut command = build(home.path(), &model);
    let built = finish(command.args(["--target", "none", "--mixed"])).expect_code(0);
    let built = json(&built.stdout);
    assert!(built["accuracy"]["kept"].as_array().unwrap().iter().any(|node| node.as_str().unwrap().contains("Mul")));
}

#[test]
fn what_cannot_be_built_is_refused_in_one_sentence_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let model = asset("models/efficientnet-lite0.onnx");
    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("work")).unwrap();
    let work = home.path().join("work");
    let refused = |args: &[&str], code: i32, word: &str| {
        let mut command = build(home.path(), &model);
        let finished = finish(command.current_dir(&work).args(args)).expect_code(code);
        assert!(finished.error().contains(word), "no `{word}` in {}", finished.stderr);
        assert_eq!(names_in(&work), Vec::<String>::new(), "{args:?}");
    };
    let nothing = empty.path().display().to_string();
    refused(&["--precision", "int8"], 2, "INT8 needs pictures");
    refused(&["--calibration", &nothing], 1, "there is no picture in");
    refused(&["--target", "sm_eighty"], 2, "expected `auto`, `local`, `none` or one like `sm_86`");
    refused(&["--target", "sm_86", "--tensorrt", &nothing], 1, "no TensorRT was found");
    refused(&["--profile", "nobody=1x3x224x224"], 2, "names no input");
    refused(&["--output", "no/such/folder/x.bundle", "--target", "none"], 1, "there is no folder");
    if let Some(libraries) = rtx("a target that TensorRT for RTX does not know") {
        let libraries = libraries.display().to_string();
        refused(&["--target", "sm_53", "--tensorrt", &libraries], 1, "`sm_53`");
        let much = u32::MAX.to_string();
        let want = ["--target", "sm_86", "--tensorrt", &libraries, "--memory-left", &much];
        refused(&want, 1, "MiB of memory");
    }
    let missing = finish(build(home.path(), Path::new("missing.onnx")).current_dir(&work)).expect_code(1);
    assert!(missing.error().contains("cannot read model `missing.onnx`"), "{}", missing.stderr);
}

/// The process that compiles for `parent`: the one before it only asks whether TensorRT reads the model, and the
/// folder of plans comes between them.
fn compiler_of(parent: u32, home: &Path) -> Option<u32> {
    home.join(".cache/revoada/plans").exists().then_some(())?;
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().filter_map(|id| id.parse().ok()).find(|id| {
        std::fs::read(format!("/proc/{id}/cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains("compile-plan"))
    })
}

#[test]
fn what_tensorrt_refuses_is_named_before_any_work() {
    let Some(libraries) = rtx("what_tensorrt_refuses_is_named_before_any_work") else { return };
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("unknown.onnx");
    let graph = GraphBuilder::new("unknown")
        .input("x", DType::F32, "1,3,8,8")
        .node("Relu", &["x"], &["a"])
        .node("Det", &["a"], &["y"])
        .output("y", DType::F32, "1,3");
    std::fs::write(&path, graph.encode()).unwrap();
    let mut command = build(home.path(), &path);
    let refused = finish(command.args(["--target", "sm_86", "--tensorrt"]).arg(libraries)).expect_code(1);
    assert!(
        refused.error().contains("cannot read the model: node `") && refused.error().contains("Det"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("rewrite the graph"), "{}", refused.stderr);
}

#[test]
fn a_signal_cancels_the_build_and_leaves_nothing() {
    let Some(libraries) = rtx("a_signal_cancels_the_build_and_leaves_nothing") else { return };
    let home = tempfile::tempdir().unwrap();
    let mut command = build(home.path(), &asset("models/efficientnet-lite0.onnx"));
    command.args(["--target", "sm_86", "--tensorrt"]).arg(&libraries);
    let running = Running::start(&mut command);
    let parent = running.0.id();
    wait_for("the compiler runs", || compiler_of(parent, home.path()));
    assert!(Command::new("sh").args(["-c", &format!("kill -INT {parent}")]).status().unwrap().success());
    let finished = running.finish().expect_code(1);
    assert!(finished.error().contains("the build was cancelled"), "{}", finished.stderr);
    let left: Vec<String> = names_in(home.path()).into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn a_compiler_that_is_killed_is_told_and_leaves_nothing() {
    let Some(libraries) = rtx("a_compiler_that_is_killed_is_told_and_leaves_nothing") else { return };
    let home = tempfile::tempdir().unwrap();
    let mut command = build(home.path(), &asset("models/efficientnet-lite0.onnx"));
    command.args(["--target", "sm_86", "--tensorrt"]).arg(&libraries);
    let running = Running::start(&mut command);
    let parent = running.0.id();
    let compiler = wait_for("the compiler runs", || compiler_of(parent, home.path()));
    assert!(Command::new("sh").args(["-c", &format!("kill -9 {compiler}")]).status().unwrap().success());
    let finished = running.finish().expect_code(1);
    assert!(finished.error().contains("the build was ended by signal 9"), "{}", finished.stderr);
    let left: Vec<String> = names_in(home.path()).into_iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(left, Vec::<String>::new());
    let cached = names_in(&home.path().join(".cache/revoada/plans"));
    assert!(cached.iter().all(|name| name.ends_with(".lock")), "{cached:?}");
}
