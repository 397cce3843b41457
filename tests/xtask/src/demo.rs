//! The README's first command: faces in a clip, and what two pictures show. And whole fleets on one machine.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{process, python, setup};

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::run(workspace, setup::For::Demo)?;
    process::build_release(workspace, "revoada", "--bin", "revoada")?;
    let folder = workspace.file("demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;

    revoada(
        workspace,
        &[
            "run",
            "--source",
            ".cache/clips/carphone_pristine.mp4",
            "--model",
            ".cache/models/centerface.onnx",
            "--anonymize",
            "blur",
            "--output",
            "demo/faces.mp4",
            "--results",
            "demo/faces.jsonl",
        ],
    )?;
    revoada(
        workspace,
        &[
            "classify",
            "--model",
            ".cache/models/efficientnet-lite0.onnx",
            ".cache/pictures/chelsea.png",
            ".cache/pictures/coffee.png",
        ],
    )?;
    println!("\nlook at  demo/faces.mp4    the clip, each face found, outlined and blurred");
    println!("         demo/faces.jsonl  one line per frame: boxes, scores, landmarks, timings");
    Ok(())
}

/// A fleet service and three devices, until somebody has seen enough (`tests/python/fleet_demo.py`).
pub(crate) fn fleet(workspace: &Workspace) -> Result<()> {
    setup::run(workspace, setup::For::Demo)?;
    for package in ["revoada", "revoada-fleet"] {
        process::build_release(workspace, package, "--bin", package)?;
    }
    process::show(&mut python::script(workspace, "tests/python/fleet_demo.py"))
}

/// A fleet service and fourteen devices that learn together (`tests/python/learning_demo.py`), with the script's options.
pub(crate) fn learning(workspace: &Workspace, options: &[&str]) -> Result<()> {
    setup::run(workspace, setup::For::Demo)?;
    python::install(workspace, &python::TESTS)?;
    for package in ["revoada", "revoada-fleet"] {
        process::build_release(workspace, package, "--bin", package)?;
    }
    process::show(python::script(workspace, "tests/python/learning_demo.py").args(options))
}

/// Shows the command as one would type it, then runs it.
fn revoada(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    eprintln!("\n$ target/release/revoada --onnxruntime .cache/lib/libonnxruntime.so {}", arguments.join(" "));
    let mut command = Command::new(workspace.file("target/release/revoada"));
    command.args(["--onnxruntime", ".cache/lib/libonnxruntime.so"]).args(arguments).current_dir(workspace.root());
    process::show(&mut command)
}
