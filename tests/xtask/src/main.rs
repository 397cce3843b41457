//! The chores around the project: sets a machine up, shows the demo, runs the tests and the benchmarks.
//!
//! It is not part of what is delivered, and it is built on a bare machine, before any system package that the
//! other crates need: it depends on pure Rust only and starts everything else as a child process.
//!
//! How a test says that it could not run here: it prints a line `skipped: <what>: <why>` and returns. `cargo
//! xtask test` counts such tests as skipped, not as passed, and repeats their reasons.

#![forbid(unsafe_code)]

mod assets;
mod bench;
mod cross;
mod demo;
mod fetch;
mod headers;
mod models;
mod opencv_samples;
mod outcomes;
mod process;
mod progress;
mod python;
mod release;
mod setup;
mod stamp;
mod system;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::Workspace;

const HELP: &str = "\
usage: cargo xtask COMMAND

  setup           install system packages and fetch headers, ONNX Runtime, models, clips and pictures into .cache
  setup --tests   the same, and what the tests need beside it
  setup --list    name each file that is fetched, where it comes from and its licence; fetch nothing
  demo            set up, build, then find faces in a clip and name what two pictures show
  demo fleet      set up, build, then roll three versions of a model out to three devices, with a console to look at
  demo learning [--seeds N] [--rounds N]
                  set up, build, then have devices learn digits together, withstand attackers, and learn a new class
  test            set up, then check formatting and lints and run every test
  test --full     the same, with the slow tests and the check of dependencies
  cross           build `revoada` for aarch64, for every Jetson from JetPack 4 on, into target/aarch64-unknown-linux-gnu
  cross --tests   the same in a profile that is quicker to build, and what tests need to run it under an emulator
  cross --tests --full   the same, with what only the slow tests need
  bench [PART]…   measure against Python and OpenCV: python, pipeline, start, stage, plan; conversions against
                  onnxconverter-common and onnxruntime.quantization: quantise; on a GPU against a bare loop and the
                  card's own copies: gpu; the fleet service, its downloads against nginx: fleet; learning together
                  against Flower: learning; all of them, if none is named
  release --dry-run
                  build what people install into target/release-files and list its sizes; nothing is published
  help            print this

A second run of `setup` finds everything in place, does nothing and needs no network.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &[&str]) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match arguments {
        ["setup"] => setup::run(&workspace, setup::For::Demo)?,
        ["setup", "--tests"] => setup::run(&workspace, setup::For::Tests)?,
        ["setup", "--list"] => {
            let assets = assets::list(assets::packages(std::env::consts::ARCH), "");
            print!("{}{assets}{}{}", headers::list(), opencv_samples::list(), cross::list());
        }
        ["demo"] => demo::run(&workspace)?,
        ["demo", "fleet"] => demo::fleet(&workspace)?,
        ["demo", "learning", options @ ..] => demo::learning(&workspace, options)?,
        ["test"] => return test::run(&workspace, test::Extent::Usual),
        ["test", "--full"] => return test::run(&workspace, test::Extent::Full),
        ["cross"] => cross::run(&workspace, cross::Profile::Release)?,
        ["cross", "--tests"] => cross::prepare_tests(&workspace, test::Extent::Usual)?,
        ["cross", "--tests", "--full"] => cross::prepare_tests(&workspace, test::Extent::Full)?,
        ["release", "--dry-run"] => release::dry_run(&workspace)?,
        ["bench", parts @ ..] => bench::run(&workspace, parts)?,
        ["help" | "--help" | "-h"] => print!("{HELP}"),
        _ => {
            eprint!("{HELP}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}
