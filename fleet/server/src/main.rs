//! `revoada-fleet`: the fleet service, and what operators ask it. Each verb is a module with its `Args` and `run`.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use cli::{
    Access, alerts, audit, commands, devices, enrolment, failure, models, rollouts, runs, serve, simulate, terminal,
    tokens, users,
};

/// Pushes models to many Jetsons, safely, and shows it happen.
#[derive(Debug, Parser)]
#[command(
    name = "revoada-fleet",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Start here:\n  \
        revoada-fleet serve --folder fleet                    a whole fleet service, made where there is none\n  \
        revoada-fleet enrolment add gate-7                    a token with which a device joins\n  \
        revoada-fleet models add faces-2.bundle --version 2   register what its owner has signed\n  \
        revoada-fleet rollouts start faces 2 --watch          a canary, a tenth, everybody\n\n\
        Exit status: 0 done, 1 failed, 2 misused."
)]
struct Cli {
    #[command(flatten)]
    access: Access,
    /// What is logged to standard error: off, error, warn, info, debug, trace, or a tracing filter.
    #[arg(long, global = true, env = "REVOADA_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve devices and operators.
    Serve(Box<serve::Args>),
    /// Simulate devices against a service, and judge whether it lost anything.
    Simulate(simulate::Args),
    /// Which devices there are, and how they are.
    #[command(subcommand)]
    Devices(devices::Verb),
    /// Ask a device to do something once.
    Command(commands::Args),
    /// Models, pipelines and packages, and their versions.
    #[command(subcommand)]
    Models(models::Verb),
    /// Bring a version to devices, wave by wave.
    #[command(subcommand)]
    Rollouts(rollouts::Verb),
    /// Learn together, round after round.
    #[command(subcommand)]
    Runs(runs::Verb),
    /// Tokens with which devices join.
    #[command(subcommand)]
    Enrolment(enrolment::Verb),
    /// People.
    #[command(subcommand)]
    Users(users::Verb),
    /// Programs.
    #[command(subcommand)]
    Tokens(tokens::Verb),
    /// What somebody is told of.
    #[command(subcommand)]
    Alerts(alerts::Verb),
    /// Who changed what.
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Copy a service's database while it runs.
    Backup(serve::BackupArgs),
    /// Put a backup in the place of a database, while nobody serves it.
    Restore(serve::RestoreArgs),
    /// Print the OpenAPI document of the REST API.
    Openapi,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(reason) = terminal::start_logging(&cli.log) {
        eprintln!("error: `--log {}` is not a filter: {reason}", cli.log);
        return ExitCode::from(failure::MISUSED);
    }
    let access = &cli.access;
    let outcome = match cli.verb {
        Verb::Serve(args) => serve::run(&args),
        Verb::Simulate(args) => simulate::run(&args, access),
        Verb::Devices(verb) => devices::run(&verb, access),
        Verb::Command(args) => commands::run(&args, access),
        Verb::Models(verb) => models::run(&verb, access),
        Verb::Rollouts(verb) => rollouts::run(&verb, access),
        Verb::Runs(verb) => runs::run(&verb, access),
        Verb::Enrolment(verb) => enrolment::run(&verb, access),
        Verb::Users(verb) => users::run(&verb, access),
        Verb::Tokens(verb) => tokens::run(&verb, access),
        Verb::Alerts(verb) => alerts::run(&verb, access),
        Verb::Audit(verb) => audit::run(&verb, access),
        Verb::Backup(args) => serve::backup(&args),
        Verb::Restore(args) => serve::restore(&args),
        Verb::Openapi => serve::openapi(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the results has seen enough.
        Err(error) if failure::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
