//! Measurements for the README, against what people use today.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::step;
use crate::stamp::Made;
use crate::workspace::Workspace;
use crate::{opencv_samples, process, python, setup};

/// How often the 720p clip is played into the 1080p one: long enough that start-up does not count.
const CLIP_REPEATS: usize = 3;

/// Programs by package, kind and name.
type Programs = [(&'static str, &'static str, &'static str)];

const DEVICE: &Programs = &[
    ("revoada", "--bin", "revoada"),
    ("revoada-tests", "--example", "bare_ort"),
    ("revoada-engine", "--example", "stage_bench"),
    ("revoada-engine", "--example", "stage_cuda"),
    ("revoada-pipeline", "--example", "track_mot"),
    ("revoada-tests", "--example", "serve_clip"),
    ("revoada-tests", "--example", "latency_bench"),
];
const FLEET: &Programs = &[
    ("revoada", "--bin", "revoada"),
    ("revoada-fleet", "--bin", "revoada-fleet"),
    ("revoada-fleet", "--example", "hundred_thousand"),
];
const LEARNING: &Programs = &[
    ("revoada", "--bin", "revoada"),
    ("revoada-fleet", "--bin", "revoada-fleet"),
    ("revoada-fleet", "--example", "flower_nodes"),
    ("revoada-federated", "--example", "fold"),
];

/// Runs the benchmarks that `arguments` name, or all.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    setup::run(workspace, setup::For::Tests)?;
    let asked = |name: &str| arguments.is_empty() || arguments.contains(&name);
    if asked("fleet") {
        build(workspace, FLEET)?;
        process::show(&mut python::script(workspace, "tests/bench/fleet.py"))?;
    }
    if asked("learning") {
        build(workspace, LEARNING)?;
        python::install(workspace, &python::FLOWER)?;
        process::show(&mut python::script_of(workspace, &python::FLOWER, "tests/bench/learning.py"))?;
    }
    if !arguments.is_empty() && arguments.iter().all(|argument| ["fleet", "learning"].contains(argument)) {
        return Ok(());
    }
    make_clip(workspace)?;
    make_camera_clip(workspace)?;
    build(workspace, DEVICE)?;
    let own = ["stage", "plan", "quantise", "gpu", "tracker", "fleet", "learning"];
    let parts: Vec<&str> = arguments.iter().copied().filter(|argument| !own.contains(argument)).collect();
    if !parts.is_empty() || arguments.is_empty() {
        process::show(python::script(workspace, "tests/bench/bench.py").args(parts))?;
    }
    if asked("plan") {
        process::show(&mut python::script(workspace, "tests/bench/plan.py"))?;
    }
    if asked("quantise") {
        prepare_quantise(workspace)?;
        process::show(&mut python::script(workspace, "tests/bench/quantise.py"))?;
    }
    if asked("stage") {
        process::show(
            python::script(workspace, "tests/bench/stage_opencv.py").arg("target/release/examples/stage_bench"),
        )?;
    }
    if asked("tracker") {
        let mut script = python::script(workspace, "tests/python/tracking.py");
        process::show(script.args(["bench", "target/release/examples/track_mot"]))?;
    }
    if asked("gpu") {
        process::show(&mut python::script(workspace, "tests/bench/gpu.py"))?;
    }
    Ok(())
}

fn build(workspace: &Workspace, programs: &Programs) -> Result<()> {
    programs.iter().try_for_each(|(package, kind, name)| process::build_release(workspace, package, kind, name))
}

/// What the comparison with other converters needs, which a slow test makes as well.
pub(crate) fn prepare_quantise(workspace: &Workspace) -> Result<()> {
    python::install(workspace, &python::QUANTISE)?;
    opencv_samples::fetch(workspace)
}

/// Makes the 1080p H.264 clip out of a smaller one.
fn make_clip(workspace: &Workspace) -> Result<()> {
    let source = workspace.cached("clips/bigbuckbunny.mp4");
    let target = workspace.cached("clips/bench-1080p.mp4");
    let inputs = [source.clone(), workspace.file("tests/xtask/src/bench.rs")];
    Made { name: "bench-clip", inputs: &inputs, outputs: std::slice::from_ref(&target) }.ensure(workspace, || {
        step("make a 1080p clip", || {
            let beside = target.with_added_extension("part");
            process::output(&mut encoder(&source, &beside))?;
            fs::rename(&beside, &target).with_context(|| format!("cannot put `{}` in place", target.display()))
        })
    })
}

/// Makes a minute and a half of 360p at 5 frames a second, as cameras send it.
fn make_camera_clip(workspace: &Workspace) -> Result<()> {
    let source = workspace.cached("clips/bigbuckbunny.mp4");
    let target = workspace.cached("clips/bench-360p.mp4");
    let inputs = [source.clone(), workspace.file("tests/xtask/src/bench.rs")];
    Made { name: "bench-camera-clip", inputs: &inputs, outputs: std::slice::from_ref(&target) }.ensure(
        workspace,
        || {
            step("make a 360p clip", || {
                let beside = target.with_added_extension("part");
                let mut encoder = Command::new("ffmpeg");
                encoder.args(["-v", "error", "-y", "-stream_loop", "-1", "-i"]).arg(&source);
                encoder.args(
                    "-t 90 -an -vf fps=5,scale=640:360 -c:v libx264 -pix_fmt yuv420p -g 10 -bf 0 -f mp4".split(' '),
                );
                process::output(encoder.arg(&beside))?;
                fs::rename(&beside, &target).with_context(|| format!("cannot put `{}` in place", target.display()))
            })
        },
    )
}

fn encoder(source: &Path, target: &Path) -> Command {
    let mut command = Command::new("gst-launch-1.0");
    command.args(["--quiet", "concat", "name=clip", "!"]);
    command.args("x264enc bitrate=6000 key-int-max=50 speed-preset=fast ! h264parse ! mp4mux !".split(' '));
    command.arg("filesink").arg(format!("location={}", target.display()));
    for _ in 0..CLIP_REPEATS {
        command.arg("filesrc").arg(format!("location={}", source.display()));
        let scaled =
            "! decodebin ! videoscale ! videoconvert ! video/x-raw,format=I420,width=1920,height=1080 ! queue ! clip.";
        command.args(scaled.split(' '));
    }
    command
}
