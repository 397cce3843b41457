//! Starts other programs.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// How much of what a failed program printed is repeated.
const TAIL_LINES: usize = 30;

/// The cargo that started this program, at the root of the workspace.
pub(crate) fn cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace.root());
    command
}

/// Runs a program to its end and returns its standard output; one that fails is an error with the last of
/// what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{name}`"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let said = text + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    bail!("`{name}` ended with {}:\n{tail}", output.status)
}

/// Runs a program whose output people watch.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start `{name}`"))?;
    if !status.success() {
        bail!("`{name}` ended with {status}");
    }
    Ok(())
}

/// Builds a program of a package, which `kind` and `name` say to cargo: `--bin revoada`.
pub(crate) fn build_release(workspace: &Workspace, package: &str, kind: &str, name: &str) -> Result<()> {
    show(cargo(workspace).args(["build", "--release", "--package", package, kind, name]))
}

/// Whether a program can be started and is content.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
}
