//! `revoada-fleet simulate`.

use std::path::PathBuf;

use anyhow::Context;
use revoada_fleet::simulate::{self, Faults, Options, Progress, Target};

use super::Access;
use super::failure::Misuse;
use super::terminal::{say, say_json};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada-fleet simulate --devices 1000 --faults mild\n  \
    revoada-fleet simulate --devices 5000 --at fleet.example:8443 --key owner.key \\\n    \
    --server http://127.0.0.1:8080 --token-file fleet/admin.token\n\n\
    Exits with 1 where anything was lost, done twice or out of order. The service must trust the public half of\n\
    `--key`, and is left with the simulated devices.")]
pub(crate) struct Args {
    /// How many devices.
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    devices: usize,
    /// Decides what goes wrong, and when; a new one where it is not given.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// How much goes wrong.
    #[arg(long, value_enum, default_value_t)]
    faults: Faults,
    /// One after another.
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    rollouts: usize,
    /// As many as devices where it is not given.
    #[arg(long, value_name = "COUNT")]
    commands: Option<usize>,
    /// Rounds of learning after that: each device sends the weights that it was given and a little more.
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    rounds: u64,
    #[arg(long, default_value_t = 50, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    commands_per_second: u32,
    /// Between two reports of a device where nothing happens.
    #[arg(long, default_value = "5s", value_name = "TIME")]
    heartbeat: humantime::Duration,
    /// How long devices are connected before anything is asked of them, for who wants to look or measure meanwhile.
    #[arg(long, default_value = "0s", value_name = "TIME")]
    hold: humantime::Duration,
    /// What takes longer counts as lost.
    #[arg(long, default_value = "2m", value_name = "TIME")]
    patience: humantime::Duration,
    /// The device port of a service that runs, which `--server` and `--token-file` name to operators; without it, a service
    /// is run in this process.
    #[arg(long, value_name = "HOST:PORT", requires = "key")]
    at: Option<String>,
    /// The secret key that signs what is rolled out there.
    #[arg(long, value_name = "FILE", requires = "at")]
    key: Option<PathBuf>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, access: &Access) -> anyhow::Result<()> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("cannot draw a seed: {error}"))?;
    let options = Options {
        devices: args.devices,
        seed: args.seed.unwrap_or_else(|| u64::from_le_bytes(seed)),
        faults: args.faults,
        rollouts: args.rollouts,
        commands: args.commands.unwrap_or(args.devices),
        rounds: args.rounds,
        commands_per_second: args.commands_per_second,
        heartbeat: args.heartbeat.into(),
        hold: args.hold.into(),
        target: target(args, access)?,
        patience: args.patience.into(),
    };
    let summary = simulate::run(&options, &Progress::default())?;
    if args.json {
        say_json(&serde_json::to_value(&summary).context("cannot write the figures")?)?;
    } else {
        say(&summary.to_string())?;
    }
    match summary.failures_count {
        0 => Ok(()),
        failures => anyhow::bail!("{failures} failures; `--seed {}` has the same faults again", summary.seed),
    }
}

fn target(args: &Args, access: &Access) -> anyhow::Result<Target> {
    let (Some(at), Some(key)) = (&args.at, &args.key) else { return Ok(Target::Here) };
    let parts = at.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    let devices = parts.ok_or_else(|| Misuse(format!("`--at {at}` is no host and port")))?;
    Ok(Target::There { devices, operators: access.server.clone(), token: access.token_file.clone(), key: key.clone() })
}
