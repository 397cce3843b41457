//! The virtual environments: one in which packages are fetched, models are made and reference scripts run, and one of Flower,
//! which asks for other versions than the rest.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::progress::step;
use crate::stamp::{Made, remove_folder};
use crate::workspace::Workspace;

/// Interpreters to try. The pinned requirements have wheels for Python 3.10 to 3.13; `python3` alone is tried
/// first because it is what people mean.
const INTERPRETERS: &[&str] = &["python3", "python3.13", "python3.12", "python3.11", "python3.10"];
const USABLE: &str = "import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))";

const VENV: &str = "venv";

/// The requirements that are installed, and what for.
pub(crate) const MODELS: Requirements = Requirements::new("models", "tests/models/requirements.txt");
/// What the benchmark of conversions compares with.
pub(crate) const QUANTISE: Requirements = Requirements::new("quantise", "tests/bench/requirements.txt");
/// What builds for another architecture.
pub(crate) const CROSS: Requirements = Requirements::new("cross", "cross/requirements.txt");
pub(crate) const TESTS: Requirements = Requirements::new("tests", "tests/python/requirements.txt");
/// Trackers to compare with, and what scores them; the list says why it is installed as it stands.
pub(crate) const TRACKING: Requirements =
    Requirements { is_whole: true, ..Requirements::new("tracking", "tests/python/tracking.txt") };

/// Drives a browser.
pub(crate) const BROWSER: Requirements = Requirements::new("browser", "tests/python/browser.txt");
/// Asks a service whatever its OpenAPI document lets it.
pub(crate) const OPENAPI: Requirements = Requirements::new("openapi", "tests/python/openapi.txt");

/// Flower's own clients.
pub(crate) const FLOWER: Requirements =
    Requirements { is_whole: true, environment: "flower", ..Requirements::new("flower", "tests/python/flower.txt") };

const ALL: [&Requirements; 8] = [&MODELS, &TESTS, &TRACKING, &QUANTISE, &CROSS, &BROWSER, &OPENAPI, &FLOWER];

/// A list of packages pinned by version and hash.
pub(crate) struct Requirements {
    name: &'static str,
    file: &'static str,
    /// Which environment they are installed into: its folder in the cache.
    environment: &'static str,
    /// What the packages say they depend on is not looked at.
    is_whole: bool,
}

/// An interpreter of the machine that can make the environment.
pub(crate) fn interpreter() -> Option<&'static str> {
    INTERPRETERS.iter().copied().find(|name| process::succeeds(Command::new(name).args(["-c", USABLE])))
}

/// The interpreter of the environment.
pub(crate) fn executable(workspace: &Workspace) -> PathBuf {
    executable_of(workspace, VENV)
}

fn executable_of(workspace: &Workspace, environment: &str) -> PathBuf {
    workspace.cached(environment).join("bin/python")
}

/// A script of this repository, run from its root.
pub(crate) fn script(workspace: &Workspace, path: &str) -> Command {
    script_in(workspace, VENV, path)
}

/// The same where these packages are.
pub(crate) fn script_of(workspace: &Workspace, requirements: &Requirements, path: &str) -> Command {
    script_in(workspace, requirements.environment, path)
}

fn script_in(workspace: &Workspace, environment: &str, path: &str) -> Command {
    let mut command = Command::new(executable_of(workspace, environment));
    command.arg("-B").arg(path).current_dir(workspace.root());
    command
}

/// A command of the environment's pip, which asks the registry that the machine is configured for.
pub(crate) fn pip(workspace: &Workspace) -> Command {
    pip_of(workspace, VENV)
}

fn pip_of(workspace: &Workspace, environment: &str) -> Command {
    let mut command = Command::new(executable_of(workspace, environment));
    command.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    command
}

/// Makes the environment, again where the machine's interpreter has changed.
pub(crate) fn make_environment(workspace: &Workspace) -> Result<()> {
    make(workspace, VENV)
}

fn make(workspace: &Workspace, environment: &'static str) -> Result<()> {
    let folder = workspace.cached(environment);
    let outputs = [executable_of(workspace, environment)];
    Made { name: environment, inputs: &[], outputs: &outputs }.ensure(workspace, || {
        step("make a Python environment", || {
            for requirements in ALL.iter().filter(|requirements| requirements.environment == environment) {
                Made::forget(workspace, &requirements.stamp())?;
            }
            let interpreter =
                interpreter().context("there is no Python from 3.10 to 3.13 with `venv` and `ensurepip`")?;
            remove_folder(&folder)?;
            process::output(Command::new(interpreter).args(["-m", "venv"]).arg(&folder)).map(drop)
        })
    })
}

/// Installs a list of packages into its environment, which is made where it is missing.
pub(crate) fn install(workspace: &Workspace, requirements: &Requirements) -> Result<()> {
    make(workspace, requirements.environment)?;
    let file = workspace.file(requirements.file);
    Made { name: &requirements.stamp(), inputs: std::slice::from_ref(&file), outputs: &[] }.ensure(workspace, || {
        step(&format!("install Python packages for {}", requirements.name), || {
            let mut command = pip_of(workspace, requirements.environment);
            command.args(["install", "--quiet", "--require-hashes", "--only-binary=:all:", "--requirement"]).arg(&file);
            if requirements.is_whole {
                command.arg("--no-deps");
            }
            process::output(&mut command).map(drop)
        })
    })
}

impl Requirements {
    const fn new(name: &'static str, file: &'static str) -> Self {
        Self { name, file, environment: VENV, is_whole: false }
    }

    fn stamp(&self) -> String {
        format!("requirements-{}", self.name)
    }
}
