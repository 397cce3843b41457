//! Runs every check and every test, and counts them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::outcomes::{Outcomes, Reader};
use crate::progress::step;
use crate::workspace::Workspace;
use crate::{bench, cross, process, release, setup, tools};

/// What the program is built without where nothing is said, and tested with. The program without it is the one that is
/// built for aarch64.
const FEATURES: &[&str] = &["--features", "revoada/opencv"];

/// Version of `cargo deny`, which is built from source where the machine has none.
const CARGO_DENY: &str = "0.20.2";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Usual,
    /// With the slow and the heavy.
    Full,
}

/// The exit code says whether all that ran passed; the last line printed is `N passed, N failed, N skipped`.
pub(crate) fn run(workspace: &Workspace, extent: Extent) -> Result<ExitCode> {
    let purpose = if extent == Extent::Full { setup::For::SlowTests } else { setup::For::Tests };
    setup::run(workspace, purpose)?;
    let mut total = Outcomes::default();
    if extent == Extent::Full
        && let Err(error) = bench::prepare_quantise(workspace)
    {
        // The test that asks for them says that it was skipped.
        eprintln!("note: {error:#}");
    }
    if extent == Extent::Full
        && let Err(error) = release::for_tests(workspace)
    {
        eprintln!("note: {error:#}");
    }
    check(&mut total, "formatting", "rustfmt", cargo(workspace, &["fmt", "--all", "--check"]));
    let mut lints = cargo(workspace, &["clippy", "--workspace", "--all-targets", "--quiet"]);
    lints.args(FEATURES).args(["--", "--deny", "warnings"]);
    check(&mut total, "lints", "clippy-driver", lints);
    dependencies(workspace, extent, &mut total);
    match cross::prepare_tests(workspace, extent) {
        Ok(()) => total.passed += 1,
        Err(error) => {
            eprintln!("error: {error:#}");
            total.failed += 1;
        }
    }
    let mut log = Log::create(workspace)?;
    let mut all = cargo(workspace, &["test", "--workspace", "--no-fail-fast"]);
    all.env("REVOADA_FLOWER_VENV", workspace.cached("flower"));
    all.args(FEATURES);
    tests(all, extent, &mut log, &mut total)?;
    if extent == Extent::Full {
        eprintln!("unit tests for {} under an emulator", cross::TARGET);
        tests(cross::unit_tests(workspace)?, extent, &mut log, &mut total)?;
    }

    for reason in &total.reasons {
        println!("skipped: {reason}");
    }
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = process::cargo(workspace);
    command.args(arguments);
    command
}

/// Counts a check as one test; it is skipped where the machine lacks `tool`.
fn check(total: &mut Outcomes, name: &str, tool: &str, mut command: Command) {
    if !process::succeeds(Command::new(tool).arg("--version")) {
        total.skipped += 1;
        total.reasons.push(format!("{name}: `{tool}` is not installed"));
        return;
    }
    match step(&format!("check {name}"), || process::output(&mut command)) {
        Ok(_) => total.passed += 1,
        Err(error) => {
            eprintln!("{error:#}");
            total.failed += 1;
        }
    }
}

/// Licences, bans and sources of the dependencies, and the advisories where their database can be fetched.
fn dependencies(workspace: &Workspace, extent: Extent, total: &mut Outcomes) {
    let mut skip = |name: &str, why: &str| {
        total.skipped += 1;
        total.reasons.push(format!("{name}: {why}"));
    };
    if extent != Extent::Full {
        skip("dependencies", "checked by `cargo xtask test --full`, which builds cargo-deny");
        return;
    }
    let tool = match tools::ensure(workspace, "cargo-deny", CARGO_DENY) {
        Ok(tool) => tool,
        Err(error) => return skip("dependencies", &format!("{error:#}")),
    };
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&tool);
        command.args(arguments).current_dir(workspace.root());
        command
    };
    let advisories = process::succeeds(&mut deny(&["fetch", "db"]));
    if !advisories {
        skip("advisories", "their database cannot be fetched");
    }
    let tool = tool.to_string_lossy();
    check(total, "licences, bans and sources of dependencies", &tool, deny(&["check", "licenses", "bans", "sources"]));
    if advisories {
        check(total, "advisories", &tool, deny(&["check", "--disable-fetch", "advisories"]));
    }
}

/// Runs `cargo test`, showing failures as they come; the whole output is kept in the log.
fn tests(mut command: Command, extent: Extent, log: &mut Log, total: &mut Outcomes) -> Result<()> {
    command.args(["--", "--show-output"]);
    if extent == Extent::Full {
        command.env("REVOADA_FULL", "1");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start `cargo test`")?;
    let output = child.stdout.take().expect("standard output is piped");
    let mut reader = Reader::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let line = String::from_utf8_lossy(&line);
        log.line(&line)?;
        if reader.line(&line) {
            println!("{line}");
        }
    }
    let status = child.wait().context("cannot wait for `cargo test`")?;
    let outcomes = reader.finish();
    // A program that does not compile, or dies before it has counted, fails as one.
    let uncounted = usize::from(!status.success() && outcomes.failed == 0);
    if uncounted > 0 {
        println!("`cargo test` ended with {status} though no test failed: see above and `.cache/test.log`");
    }
    total.passed += outcomes.passed;
    total.failed += outcomes.failed + uncounted;
    total.skipped += outcomes.skipped;
    total.reasons.extend(outcomes.reasons);
    Ok(())
}

/// Everything that tests printed.
struct Log {
    path: PathBuf,
    file: fs::File,
}

impl Log {
    fn create(workspace: &Workspace) -> Result<Self> {
        let path = workspace.cached("test.log");
        let file = fs::File::create(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self { path, file })
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}").with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}
