//! What the programs link with, and what they load when a test runs them.

use std::path::PathBuf;

use anyhow::Result;

use super::debian::{Extent, Release};
use crate::progress::step;
use crate::stamp::Made;
use crate::workspace::Workspace;

/// Newer than any JetPack: which of its symbols are used is for [`super::abi`] to say.
const RELEASE: Release = Release { suite: "bookworm", architecture: "arm64" };

const PACKAGES: &[&str] = &[
    "libc6-dev",
    "libgstreamer1.0-dev",
    "libgstreamer-plugins-base1.0-dev",
    "gstreamer1.0-plugins-base",
    "gstreamer1.0-plugins-good",
];

/// The folder that stands for the root of a device.
pub(super) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let sysroot = workspace.cached("cross/sysroot");
    let inputs = [workspace.file("tests/xtask/src/cross/sysroot.rs")];
    let outputs = [sysroot.join("usr/lib/aarch64-linux-gnu/libgstreamer-1.0.so")];
    Made { name: "cross-sysroot", inputs: &inputs, outputs: &outputs }.ensure(workspace, || {
        step(&format!("fetch GStreamer and glibc of Debian {} for {}", RELEASE.suite, RELEASE.architecture), || {
            RELEASE.unpack(workspace, PACKAGES, Extent::WithDependencies, &sysroot)
        })
    })?;
    Ok(sysroot)
}
