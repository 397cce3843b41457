//! Programs that cargo builds from source, where they are wanted.

use std::path::PathBuf;

use anyhow::Result;

use crate::process;
use crate::progress::step;
use crate::stamp::Made;
use crate::workspace::Workspace;

/// Builds a crate's program of its own name into the cache, once.
pub(crate) fn ensure(workspace: &Workspace, name: &str, version: &str) -> Result<PathBuf> {
    let root = workspace.cached("tools");
    let tool = root.join("bin").join(name);
    Made { name, inputs: &[], outputs: std::slice::from_ref(&tool) }.ensure(workspace, || {
        step(&format!("build {name}"), || {
            let mut install = process::cargo(workspace);
            install.args(["install", name, "--locked", "--version", version, "--root"]).arg(&root);
            process::output(&mut install).map(drop)
        })
    })?;
    Ok(tool)
}
