//! Makes the machine ready. Everything that is fetched or made lies in `.cache`.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{assets, fetch, headers, models, python, system};

/// What the machine is to be ready for; each includes the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum For {
    /// Building for another architecture.
    Cross,
    Demo,
    Tests,
    SlowTests,
}

/// Does what is not done yet. What an interrupted run has finished is kept.
pub(crate) fn run(workspace: &Workspace, purpose: For) -> Result<()> {
    let started = Instant::now();
    let folder = workspace.cached("");
    let lock = workspace.cached("lock");
    let lock = fs::create_dir_all(&folder)
        .and_then(|()| fs::File::create(&lock))
        .with_context(|| format!("cannot write to `{}`", folder.display()))?;
    lock.lock().context("cannot wait for another set-up to end")?;

    system::install_packages(purpose)?;
    python::make_environment(workspace)?;
    headers::fetch(workspace)?;
    for package in assets::packages(std::env::consts::ARCH).filter(|package| purpose >= package.purpose) {
        fetch::package(workspace, package, "")?;
    }
    if purpose >= For::Demo {
        python::install(workspace, &python::MODELS)?;
        models::make(workspace)?;
    }
    if purpose >= For::Tests {
        python::install(workspace, &python::TESTS)?;
        python::install(workspace, &python::TRACKING)?;
        python::install(workspace, &python::FLOWER)?;
    }
    if purpose >= For::SlowTests {
        python::install(workspace, &python::BROWSER)?;
        python::install(workspace, &python::OPENAPI)?;
    }
    eprintln!("ready  everything is in `.cache` ({:.1} s)", started.elapsed().as_secs_f64());
    Ok(())
}
