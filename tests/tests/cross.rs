//! The programs for aarch64 that `cargo xtask cross` builds, under an emulator of its processor and on Debian's libraries
//! for it. An emulator shows that they start and compute the same; it is no Jetson, and says nothing of speed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use revoada_tests::{asset, finish, revoada, root};
use serde_json::Value;

/// Of a class's probability: sums are taken in another order.
const SCORE_TOLERANCE: f64 = 1e-3;

/// Of a side of a box in pixels.
const PLACE_TOLERANCE: f64 = 0.5;

/// What the program for aarch64 says of it.
const WITHOUT_OPENCV: &str = "this program was built without feature `opencv`";

/// Why a test cannot run here.
type Skipped = String;

/// What emulates the target, and the folder of files that it sees in the place of this machine's.
struct Device {
    emulator: PathBuf,
    sysroot: PathBuf,
    home: tempfile::TempDir,
}

impl Device {
    fn find() -> Result<Self, Skipped> {
        let (emulator, sysroot) = (root().join(".cache/cross/qemu-aarch64"), root().join(".cache/cross/sysroot"));
        if !emulator.exists() || !sysroot.exists() {
            return Err("there is no emulator in `.cache/cross`: `cargo xtask cross --tests` puts it there".to_owned());
        }
        Ok(Self { emulator, sysroot, home: tempfile::tempdir().unwrap() })
    }

    /// Starts a program that was built for the target, such as `revoada` or `examples/compile`: the newer of the build
    /// for tests and the one that is delivered.
    fn program(&self, name: &str) -> Result<Command, Skipped> {
        let built =
            ["debug", "release"].map(|folder| root().join("target/aarch64-unknown-linux-gnu").join(folder).join(name));
        let newest = built.iter().filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max();
        let (_, program) =
            newest.ok_or_else(|| format!("`{name}` was not built for aarch64: `cargo xtask cross` does"))?;
        let mut command = Command::new(&self.emulator);
        command.arg("-L").arg(&self.sysroot).arg(program);
        command.stdin(Stdio::null()).current_dir(root());
        // The emulator cannot start a child of its own kind, so GStreamer looks at its plugins itself.
        command.env("GST_REGISTRY_FORK", "no").env("GST_REGISTRY", self.home.path().join("registry"));
        command.env("HOME", self.home.path()).env_remove("XDG_DATA_HOME").env_remove("XDG_CACHE_HOME");
        Ok(command)
    }
}

/// Runs a test where it can be.
fn on_a_device(what: &str, test: impl FnOnce(&Device) -> Result<(), Skipped>) {
    if let Err(why) = Device::find().and_then(|device| test(&device)) {
        println!("skipped: {what} on aarch64: {why}");
    }
}

fn full() -> Result<(), Skipped> {
    let asked = std::env::var_os("REVOADA_FULL").is_some();
    asked.then_some(()).ok_or_else(|| "slow under an emulator: `cargo xtask test --full` does it".to_owned())
}

/// A file that only `cargo xtask test --full` fetches.
fn library(name: &str) -> Result<PathBuf, Skipped> {
    let path = root().join(".cache/cross/lib").join(name);
    if path.exists() { Ok(path) } else { Err(format!("there is no `{name}` in `.cache/cross/lib`")) }
}

#[test]
fn the_version_is_that_of_the_program_for_this_machine() {
    on_a_device("the version", |device| {
        let theirs = finish(device.program("revoada")?.arg("--version")).expect_code(0);
        let ours = finish(revoada().arg("--version")).expect_code(0);
        assert_eq!(theirs.stdout, ours.stdout);
        Ok(())
    });
}

#[test]
fn doctor_sees_the_processor_and_gstreamer_of_the_device_and_speaks_every_dialect() {
    on_a_device("doctor", |device| {
        let report = |mut command: Command| -> Value {
            serde_json::from_str(&finish(command.args(["doctor", "--json"])).expect_code(0).stdout).unwrap()
        };
        let (theirs, ours) = (report(device.program("revoada")?), report(revoada()));
        assert_eq!(theirs["machine"]["architecture"], "aarch64");
        assert_eq!(theirs["media"]["Ok"]["gstreamer"], "1.22.0", "{theirs:#}");
        // Every dialect of TensorRT.
        assert!(!list(&ours["gpu"]["spoken"]).is_empty());
        assert_eq!(theirs["gpu"]["spoken"], ours["gpu"]["spoken"]);
        assert_eq!(theirs["opencv"]["Err"], WITHOUT_OPENCV);
        Ok(())
    });
}

#[test]
fn what_needs_opencv_is_refused_by_name_where_it_is_left_out() {
    on_a_device("what needs OpenCV", |device| {
        let config = device.home.path().join("lens.toml");
        let lens = "camera_matrix = [900, 900, 640, 360], distortion = [0, 0, 0, 0], size = \"1280x720\"";
        let text = format!(
            "[[stream]]\nuri = \"a.mp4\"\nlens = {{ {lens} }}\n[model]\npath = \"m.onnx\"\n[tracker]\n\
             algorithm = \"sort\"\ncamera_motion = true\n"
        );
        std::fs::write(&config, text).unwrap();
        let refused = finish(device.program("revoada")?.arg("run").arg(&config)).expect_code(2).stderr;
        for place in ["lens.toml:3: stream[0].lens", "lens.toml:8: tracker.camera_motion"] {
            assert!(refused.contains(&format!("{place}: {WITHOUT_OPENCV}")), "{refused}");
        }
        Ok(())
    });
}

#[test]
fn inspect_says_of_a_model_what_it_says_here() {
    on_a_device("inspect", |device| {
        let model = asset("models/centerface.onnx");
        let inspect = |mut command: Command| {
            let said = finish(command.arg("inspect").arg(&model)).expect_code(0).stdout;
            // Where a library was looked for depends on where the program lies.
            said.lines().filter(|line| !line.starts_with("onnxruntime: ")).map(str::to_owned).collect::<Vec<_>>()
        };
        let (theirs, ours) = (inspect(device.program("revoada")?), inspect(revoada()));
        assert!(theirs.len() > 10, "{theirs:?}");
        assert_eq!(theirs, ours);
        Ok(())
    });
}

#[test]
fn rten_names_the_same_classes_with_the_same_scores() {
    on_a_device("classify with rten", |device| same_classes(device, &["--backend", "rten"], &[]));
}

#[test]
fn onnxruntime_names_the_same_classes_with_the_same_scores() {
    on_a_device("classify with ONNX Runtime", |device| {
        full()?;
        let library = library("libonnxruntime.so")?;
        let library = library.to_str().unwrap();
        same_classes(device, &["--backend", "onnxruntime"], &["--onnxruntime", library])
    });
}

/// Classifies photographs on the device and here.
fn same_classes(device: &Device, options: &[&str], only_there: &[&str]) -> Result<(), Skipped> {
    let classes = |mut command: Command, more: &[&str]| {
        command.args(more).args(["classify", "--json", "--model"]).arg(asset("models/efficientnet-lite0.onnx"));
        command.args(options).arg(asset("pictures/chelsea.png")).arg(asset("pictures/coffee.png"));
        lines(&finish(&mut command).expect_code(0).stdout)
    };
    let theirs = classes(device.program("revoada")?, only_there);
    let ours = classes(revoada(), &[]);
    assert_eq!((theirs.len(), ours.len()), (2, 2));
    for (theirs, ours) in theirs.iter().zip(&ours) {
        let (theirs, ours) = (list(&theirs["classifications"]), list(&ours["classifications"]));
        assert_eq!((theirs.len(), ours.len()), (5, 5));
        for (one, other) in theirs.iter().zip(ours) {
            assert_eq!(one["label"], other["label"]);
            assert!(near(&one["score"], &other["score"], SCORE_TOLERANCE), "{one} and {other}");
        }
    }
    Ok(())
}

#[test]
fn run_finds_in_a_clip_what_it_finds_here() {
    on_a_device("run on a clip", |device| {
        let folder = tempfile::tempdir().unwrap();
        // Debian's base and good plugins decode no H.264.
        let clip = folder.path().join("clip.mkv");
        motion_jpeg(&asset("clips/carphone_pristine.mp4"), &clip);
        let frames = |mut command: Command, name: &str| {
            let results = folder.path().join(name);
            command.args(["run", "--backend", "rten", "--size", "192x192", "--frames", "3", "--model"]);
            command.arg(asset("models/centerface.onnx")).arg("--source").arg(&clip).arg("--results").arg(&results);
            finish(&mut command).expect_code(0);
            let records = lines(&std::fs::read_to_string(results).unwrap());
            records.into_iter().filter(|record| record.get("frame").is_some()).collect::<Vec<Value>>()
        };
        let (theirs, ours) = (frames(device.program("revoada")?, "theirs.jsonl"), frames(revoada(), "ours.jsonl"));
        assert_eq!((theirs.len(), ours.len()), (3, 3));
        for (theirs, ours) in theirs.iter().zip(&ours) {
            let (theirs, ours) = (list(&theirs["detections"]), list(&ours["detections"]));
            assert!(!ours.is_empty() && theirs.len() == ours.len(), "{theirs:?} and {ours:?}");
            for (one, other) in theirs.iter().zip(ours) {
                assert!(near(&one["score"], &other["score"], SCORE_TOLERANCE), "{one} and {other}");
                let sides = list(&one["box"]).iter().zip(list(&other["box"]));
                assert!(sides.into_iter().all(|(a, b)| near(a, b, PLACE_TOLERANCE)), "{one} and {other}");
            }
        }
        Ok(())
    });
}

#[test]
fn tensorrt_for_rtx_compiles_a_model_through_the_shim() {
    on_a_device("compiling with TensorRT for RTX", |device| {
        full()?;
        let folder = library("libtensorrt_rtx.so.1")?.parent().unwrap().to_owned();
        let mut compile = device.program("examples/compile")?;
        compile.arg(folder).arg(asset("models/efficientnet-lite0.onnx")).args(["86", "1", "input=1x3x224x224"]);
        let said = finish(&mut compile).expect_code(0).stdout;
        let bytes: u64 = said.split_whitespace().next().and_then(|word| word.parse().ok()).expect("the plan's size");
        assert!(bytes > 100_000, "{said}");
        Ok(())
    });
}

/// Writes the first frames of a clip as Motion JPEG.
fn motion_jpeg(source: &Path, target: &Path) {
    let mut command = Command::new("gst-launch-1.0");
    command.arg("--quiet").arg("filesrc").arg(format!("location={}", source.display()));
    command.args("! decodebin ! identity eos-after=4 ! videoconvert ! jpegenc quality=95 ! matroskamux !".split(' '));
    finish(command.arg("filesink").arg(format!("location={}", target.display()))).expect_code(0);
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("`{value}` is no list"))
}

fn near(one: &Value, other: &Value, tolerance: f64) -> bool {
    (one.as_f64().unwrap() - other.as_f64().unwrap()).abs() <= tolerance
}
