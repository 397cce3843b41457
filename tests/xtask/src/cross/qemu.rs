//! Runs programs of the target on this machine, one process at a time: the processor is emulated, the kernel is this
//! machine's.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::debian::{Extent, Release};
use crate::progress::step;
use crate::stamp::{Made, remove_folder};
use crate::workspace::Workspace;

/// Its QEMU is linked statically, so it runs on any distribution. Version 7, of the release before, crashes in ONNX
/// Runtime.
const SUITE: &str = "trixie";

/// Puts the emulator into `.cache/cross`.
pub(super) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let program = workspace.cached("cross/qemu-aarch64");
    let inputs = [workspace.file("tests/xtask/src/cross/qemu.rs")];
    Made { name: "cross-qemu", inputs: &inputs, outputs: std::slice::from_ref(&program) }
        .ensure(workspace, || step("fetch the emulator qemu-aarch64", || fetch(workspace, &program)))?;
    Ok(program)
}

fn fetch(workspace: &Workspace, program: &Path) -> Result<()> {
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("Debian has no emulator for a machine of the kind {other}"),
    };
    let unpacked = workspace.cached("cross/qemu");
    Release { suite: SUITE, architecture }.unpack(workspace, &["qemu-user"], Extent::Alone, &unpacked)?;
    // It is one of forty, each for another processor.
    fs::rename(unpacked.join("usr/bin/qemu-aarch64"), program)
        .with_context(|| format!("cannot put `{}` in place", program.display()))?;
    remove_folder(&unpacked)
}
