//! The plan that a running pipeline's bundle lacks: `revoada build BUNDLE --target local` in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use revoada_pipeline::run::Rebuild;
use rustix::process::{Pid, Signal, kill_process};
use tracing::{debug, warn};

use crate::Global;
use crate::failure::reported;

/// The process, until it has ended; cancelled for good where there is none yet.
#[derive(Default)]
struct Building {
    process: Option<Pid>,
    cancelled: bool,
}

pub(crate) fn rebuild(global: &Global) -> Rebuild {
    let building = Arc::new(Mutex::new(Building::default()));
    let (global, cancelled) = (global.clone(), Arc::clone(&building));
    Rebuild {
        build: Box::new(move |bundle, rows| {
            build(bundle, rows, &global, &building).map_err(|error| format!("{error:#}"))
        }),
        cancel: Box::new(move || {
            let mut building = cancelled.lock().unwrap_or_else(PoisonError::into_inner);
            building.cancelled = true;
            // It ends its compiler, and leaves nothing behind.
            if let Some(Err(error)) = building.process.map(|process| kill_process(process, Signal::TERM)) {
                debug!(%error, "the build has ended by itself");
            }
        }),
    }
}

/// `revoada build` of a model or a bundle, with a plan for the device that is here. The plan goes into the cache; its file, into
/// `scratch`.
pub(crate) fn build_here(model: &Path, rows: usize, scratch: &Path, global: &Global) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg("build").arg(model).args(["--target", "local", "--log", "warn", "--batch-max", &rows.to_string()]);
    command.arg("--plan").arg(scratch.join("plan"));
    global.pass_libraries(&mut command);
    Ok(command)
}

/// The plan goes into the cache, where the loader looks; a file of it is not wanted.
fn build(bundle: &Path, rows: usize, global: &Global, building: &Mutex<Building>) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("cannot create a folder")?;
    let mut command = build_here(bundle, rows, scratch.path(), global)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = start(&mut command, building)?;
    let mut reason = String::new();
    let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    for line in lines {
        match reported(&line) {
            Some(said) => reason = said.to_owned(),
            None => debug!(target: "build", "{line}"),
        }
    }
    // The process is not waited for before nobody can signal it any more: its number may be another's afterwards.
    building.lock().unwrap_or_else(PoisonError::into_inner).process = None;
    let status = child.wait().context("cannot wait for the build")?;
    if !status.success() && reason.is_empty() {
        warn!(%status, "the build said nothing");
    }
    ensure!(status.success(), "{reason}");
    Ok(())
}

fn start(command: &mut Command, building: &Mutex<Building>) -> anyhow::Result<Child> {
    let mut building = building.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(!building.cancelled, "the build was cancelled");
    let child = command.spawn().context("cannot start the build")?;
    building.process = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok(child)
}
