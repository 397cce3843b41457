//! `revoada`: the one program on a device. Each verb is a module with its `Args` and `run`.
#![forbid(unsafe_code)]

mod agent;
mod bench;
mod build;
mod classify;
mod completions;
mod convert;
mod ctl;
mod detect;
mod doctor;
mod failure;
mod inspect;
mod keys;
mod learn;
mod manual;
mod models;
mod pictures;
mod rebuild;
mod run;
mod shapes;
mod stop;
mod summary;
mod tegrastats;
mod tensorrt;
mod terminal;
mod verify;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

/// Runs ONNX models over camera, RTSP and file video, on a Jetson or any Linux machine.
#[derive(Debug, Parser)]
#[command(
    name = "revoada",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start here:\n  \
        revoada doctor                                       what this machine can do, and what it lacks\n  \
        revoada inspect model.onnx                           what a model wants and gives\n  \
        revoada run --model model.onnx --source clip.mp4 --output out.mp4\n  \
        revoada run pipeline.toml                            a pipeline described in a file\n  \
        revoada build model.onnx                             FP16, checked and signed, for TensorRT\n\n\
        Exit status: 0 done, 1 failed, 2 misused."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options that every verb takes.
#[derive(Clone, Debug, clap::Args)]
struct Global {
    /// ONNX Runtime's shared library (libonnxruntime.so); looked for beside the program and in the
    /// system's library folders when not given.
    #[arg(long, global = true, env = "REVOADA_ONNXRUNTIME", value_name = "LIBRARY")]
    onnxruntime: Option<PathBuf>,
    /// A folder with TensorRT's libraries; the system's when not given.
    #[arg(long, global = true, env = "REVOADA_TENSORRT", value_name = "FOLDER")]
    tensorrt: Option<PathBuf>,
    /// What is logged to standard error: off, error, warn, info, debug, trace, or a tracing filter
    /// such as `warn,revoada_pipeline=debug`.
    #[arg(long, global = true, env = "REVOADA_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

impl Global {
    /// Lets this program, started again, look for the same libraries.
    fn pass_libraries(&self, command: &mut Command) {
        for (option, path) in [("--tensorrt", &self.tensorrt), ("--onnxruntime", &self.onnxruntime)] {
            if let Some(path) = path {
                command.arg(option).arg(path);
            }
        }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a model over video: decode, infer, draw, write, serve.
    Run(Box<run::Args>),
    /// Say DeepStream's configuration files in our words.
    Convert(convert::Args),
    /// Show what a model wants and gives, what it costs, and what each backend says to it.
    Inspect(inspect::Args),
    /// Convert a model to FP16 or INT8, check its answers, and make a signed bundle and a TensorRT plan of it.
    Build(Box<build::Args>),
    /// The step of `build` that runs in a process of its own.
    #[command(name = build::CHILD_VERB, hide = true)]
    CompilePlan,
    /// The same.
    #[command(name = build::TRIAL_VERB, hide = true)]
    TryPlan,
    /// Say whether a bundle or a plan is whole, and who signed it.
    Verify(verify::Args),
    /// Show or make the key that signs.
    Key(keys::Args),
    /// Measure a model's throughput and latency on a backend.
    Bench(bench::Args),
    /// Say what pictures show.
    #[command(after_help = "Example: revoada classify --model efficientnet-lite0.onnx cat.png coffee.png")]
    Classify(pictures::Args),
    /// Find objects in pictures.
    #[command(after_help = "Example: revoada detect --model centerface.onnx crowd.jpg --json")]
    Detect(pictures::Args),
    /// Train a classifier's last layers on this device's own pictures.
    Learn(Box<learn::Args>),
    /// Say what this machine can do and what is missing, with the package to install.
    Doctor(doctor::Args),
    /// Run what a fleet service says, and watch it.
    Agent(agent::Args),
    /// What the agent asks in a process of its own.
    #[command(name = revoada_agent::shell::FACTS_VERB, hide = true)]
    DeviceFacts,
    /// Speak to a running pipeline: statistics, snapshots, reload, drain.
    Ctl(ctl::Args),
    /// Print completions for a shell.
    Completions(completions::Args),
    /// Write manual pages.
    #[command(hide = true)]
    Manual(manual::Args),
}

/// Where this user's own copy of a library may lie, by the XDG base directory specification.
fn data_folder() -> Option<PathBuf> {
    let folder = |variable, below: &str| std::env::var_os(variable).map(|path| PathBuf::from(path).join(below));
    folder("XDG_DATA_HOME", "revoada").or_else(|| folder("HOME", ".local/share/revoada"))
}

/// What can be had again: plans and timings.
fn cache_folder() -> Option<PathBuf> {
    let folder = |variable, below: &str| std::env::var_os(variable).map(|path| PathBuf::from(path).join(below));
    folder("XDG_CACHE_HOME", "revoada").or_else(|| folder("HOME", ".cache/revoada"))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(reason) = terminal::start_logging(&cli.global.log) {
        eprintln!("error: `--log {}` is not a filter: {reason}", cli.global.log);
        return ExitCode::from(failure::MISUSED);
    }
    let outcome = match cli.verb {
        Verb::Run(args) => run::run(*args, &cli.global),
        Verb::Convert(args) => convert::run(&args),
        Verb::Inspect(args) => inspect::run(&args, &cli.global),
        Verb::Build(args) => build::run(&args, &cli.global),
        Verb::CompilePlan => build::run_child(),
        Verb::TryPlan => build::run_trial(&cli.global),
        Verb::Verify(args) => verify::run(&args),
        Verb::Key(args) => keys::run(&args),
        Verb::Bench(args) => bench::run(&args, &cli.global),
        Verb::Classify(args) => classify::run(&args, &cli.global),
        Verb::Detect(args) => detect::run(&args, &cli.global),
        Verb::Learn(args) => learn::run(*args, &cli.global),
        Verb::Doctor(args) => doctor::run(&args, &cli.global),
        Verb::Agent(args) => agent::run(args),
        Verb::DeviceFacts => agent::print_facts(&cli.global),
        Verb::Ctl(args) => ctl::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Manual(args) => manual::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the results has seen enough.
        Err(error) if failure::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
