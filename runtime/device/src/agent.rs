//! `revoada agent`: the fleet service's hand on this device.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Subcommand;
use revoada_agent::shell::{self, Address, AgentConfig, DeviceFacts, Ending, Notify, Options};
use revoada_proto::{DeviceId, EnrolmentToken, Fact};
use tokio::signal::unix::{SignalKind, signal};

use crate::terminal::{say, table};
use crate::{Global, doctor, tensorrt};

/// Where the package puts it.
const CONFIG: &str = "/etc/revoada/agent.toml";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada agent enrol --server fleet.example.org:8443 --token TOKEN\n  \
    revoada agent run\n  \
    revoada agent status")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run what the fleet service says, and watch it; the pipeline runs on when the agent ends.
    Run(Config),
    /// Exchange a token for this device's certificate.
    Enrol(Enrol),
    /// Say how the running agent is.
    Status {
        #[command(flatten)]
        config: Config,
        /// Print one JSON object instead of the table.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Config {
    /// What describes the agent.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// systemd's socket for services of `Type=notify`.
    #[arg(long, env = "NOTIFY_SOCKET", hide = true, value_name = "SOCKET")]
    notify_socket: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Enrol {
    /// The fleet service's port for devices; that of the configuration when not given.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<Address>,
    /// What the operator was given for this device.
    #[arg(long, value_name = "TOKEN", env = "REVOADA_TOKEN", hide_env_values = true)]
    token: String,
    /// What the device is called; its host name when not given.
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceId>,
    #[command(flatten)]
    config: Config,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.verb {
        Verb::Run(config) => run_agent(&config),
        Verb::Enrol(args) => enrol(&args),
        Verb::Status { config, json } => status(&AgentConfig::load(&config.config)?, json),
    }
}

fn run_agent(args: &Config) -> anyhow::Result<()> {
    let config = AgentConfig::load(&args.config)?;
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let notify = Notify::new(args.notify_socket.as_deref()).context("cannot speak to systemd")?;
    let ending = runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
        let stop = async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        anyhow::Ok(shell::run(Options { config, program, notify }, stop).await?)
    })?;
    match ending {
        Ending::Stopped => Ok(()),
        Ending::Replace { program } => {
            tracing::info!(program = %program.display(), "becoming another program");
            let error = Command::new(&program).args(std::env::args_os().skip(1)).exec();
            Err(error).with_context(|| format!("cannot execute `{}`", program.display()))
        }
    }
}

fn enrol(args: &Enrol) -> anyhow::Result<()> {
    let config = AgentConfig::load(&args.config.config)?;
    let token: EnrolmentToken = args.token.parse()?;
    let server = args.server.as_ref().unwrap_or(&config.server);
    let device = match &args.device {
        Some(device) => device.clone(),
        None => host_name()?.parse().context("the host's name names no device; give `--device`")?,
    };
    let identity = runtime()?.block_on(shell::enrol(server, &token, &device))?;
    std::fs::create_dir_all(&config.folder)
        .with_context(|| format!("cannot create folder `{}`", config.folder.display()))?;
    identity.save(&shell::identity_path(&config.folder))?;
    say(&format!("enrolled as {device}; an agent that runs already as another device is to be restarted"))?;
    Ok(())
}

fn status(config: &AgentConfig, json: bool) -> anyhow::Result<()> {
    let status = shell::ask(&config.folder)?;
    if json {
        return Ok(say(&serde_json::to_string_pretty(&status)?)?);
    }
    let number = |number: Option<f64>| number.map_or_else(|| "–".to_owned(), |number| format!("{number:.1}"));
    let mut rows = vec![
        ("version", status.version.clone()),
        ("device", status.device.clone().unwrap_or_else(|| "not enrolled".to_owned())),
        ("server", status.server.clone()),
        ("connected", if status.is_connected { "yes" } else { "no" }.to_owned()),
        ("generation", status.generation.to_string()),
        ("progress", status.progress.clone()),
        ("fps", number(status.fps)),
        ("latency ms", number(status.latency_ms)),
        ("temperature", number(status.temperature_c)),
        ("restarts", status.restarts.to_string()),
        ("events waiting", status.events_waiting.to_string()),
    ];
    rows.extend(status.running.values().map(|digest| ("runs", digest.to_string())));
    let rows: Vec<_> = rows.into_iter().map(|(name, text)| vec![format!("{name:<14}  {text}")]).collect();
    Ok(say(&table(&rows))?)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

fn host_name() -> anyhow::Result<String> {
    let name =
        std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).context("cannot tell the host's name")?;
    Ok(name.trim().to_owned())
}

/// The hidden verb by which the agent asks what only this program can tell: in a process of its own, because it looks for
/// GPUs and their libraries.
pub(crate) fn print_facts(global: &Global) -> anyhow::Result<()> {
    let mut facts = DeviceFacts { class: tensorrt::device_class(global).ok(), ..DeviceFacts::default() };
    if let Ok(device) = tensorrt::device() {
        facts.facts.insert("gpu".to_owned(), Fact::Text(device.name.clone()));
    }
    if let Ok(version) = tensorrt::version(global) {
        facts.facts.insert("tensorrt".to_owned(), Fact::Text(version.to_string()));
    }
    if let Some(mode) = doctor::power_mode() {
        facts.facts.insert("power-mode".to_owned(), Fact::Text(mode));
    }
    Ok(say(&serde_json::to_string(&facts)?)?)
}
