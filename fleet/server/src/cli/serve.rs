//! `revoada-fleet serve`, `backup`, `restore` and `openapi`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use revoada_fleet::api;
use revoada_fleet::serve::{self, Addresses, Service};
use revoada_fleet::settings::Settings;
use tokio::signal::unix::{SignalKind, signal};

use super::terminal::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada-fleet serve --folder fleet\n  \
    revoada-fleet serve --config /etc/revoada/fleet.toml\n  \
    revoada-fleet serve --folder fleet --flower 127.0.0.1:9092 --flower-plain\n\n\
    Nothing else has to be installed. The first time, the folder gets an authority, a database and an\n\
    administrator: the user `admin`, whose password is in `admin.password`, and an API token in `admin.token`.")]
pub(crate) struct Args {
    /// How the service is set up; `configs/fleet.toml` says all of it.
    #[arg(long, value_name = "FILE", required_unless_present = "folder")]
    config: Option<PathBuf>,
    /// Where the service keeps what it has; wins over the file.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// What devices call this machine; may be given again; wins over the file.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Who may sign what is registered: a public key or a file of them; wins over the file.
    #[arg(long = "trust", value_name = "KEY")]
    trusted: Vec<revoada_bundle::sign::TrustedKeys>,
    /// Where devices speak MQTT; wins over the file.
    #[arg(long, value_name = "ADDRESS")]
    mqtt: Option<std::net::SocketAddr>,
    /// Where devices fetch and enrol; wins over the file.
    #[arg(long, value_name = "ADDRESS")]
    devices: Option<std::net::SocketAddr>,
    /// Where people and programs come in; wins over the file.
    #[arg(long, value_name = "ADDRESS")]
    operators: Option<std::net::SocketAddr>,
    /// Signs bundles of what devices have learned; wins over the file.
    #[arg(long, value_name = "FILE")]
    learning_key: Option<PathBuf>,
    /// Labelled pictures by which the service judges what was learned, FOLDER/SET/LABEL/picture.jpg; wins over the file.
    #[arg(long, value_name = "FOLDER")]
    learning_pictures: Option<PathBuf>,
    /// Where clients of Flower's `start_client` come in; wins over the file.
    #[arg(long, value_name = "ADDRESS")]
    flower: Option<std::net::SocketAddr>,
    /// Where SuperNodes of Flower come in; wins over the file.
    #[arg(long, value_name = "ADDRESS")]
    supernodes: Option<std::net::SocketAddr>,
    /// Speak with Flower's clients without TLS, on addresses of this machine alone.
    #[arg(long)]
    flower_plain: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let settings = settings(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut stops = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [terminate, interrupt] = &mut stops;
        let (Ok(terminate), Ok(interrupt)) = (terminate, interrupt) else {
            anyhow::bail!("cannot listen for signals");
        };
        let service = Service::start(&settings).await?;
        let scheme = if settings.operators.tls.is_some() { "https" } else { "http" };
        let Addresses { mqtt, devices, operators, join, nodes } = service.addresses;
        let mut text = format!("operators: {scheme}://{operators}\ndevices: {devices}, MQTT: {mqtt}\n");
        for (what, address) in [("Flower's clients", join), ("Flower's SuperNodes", nodes)] {
            if let Some(address) = address {
                text += &format!("{what}: {address}\n");
            }
        }
        if let Some(password) = &service.admin_password {
            text += &format!("sign in as `admin` with the password in {}\n", password.display());
        }
        if let Err(error) = say(&text) {
            // Nobody listens; devices do.
            tracing::warn!(%error, "cannot say where the service listens");
        }
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        service.stop().await;
        Ok(())
    })
}

fn settings(args: &Args) -> anyhow::Result<Settings> {
    let mut settings = match (&args.config, &args.folder) {
        (Some(path), _) => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            Settings::parse(&path.display().to_string(), &text, path.parent().unwrap_or(Path::new(".")))?
        }
        (None, Some(folder)) => Settings::in_folder(folder),
        (None, None) => unreachable!("clap asks for one of them"),
    };
    if let Some(folder) = &args.folder {
        settings.folder.clone_from(folder);
    }
    if !args.names.is_empty() {
        settings.names.clone_from(&args.names);
    }
    if !args.trusted.is_empty() {
        settings.trusted.clone_from(&args.trusted);
    }
    settings.mqtt = args.mqtt.unwrap_or(settings.mqtt);
    settings.devices = args.devices.unwrap_or(settings.devices);
    if let Some(address) = args.operators {
        settings.operators.address = address;
        if settings.operators.tls.is_none() && !address.ip().is_loopback() {
            let reason = "passwords would go in clear: name `certificate` and `key` in a file";
            return Err(super::failure::Misuse(format!(
                "`--operators {address}` can be reached from elsewhere, and {reason}"
            ))
            .into());
        }
    }
    if let Some(path) = &args.learning_key {
        settings.learning_key = Some(path.clone());
    }
    if let Some(folder) = &args.learning_pictures {
        settings.pictures.folder = Some(folder.clone());
    }
    settings.flower.join = args.flower.or(settings.flower.join);
    settings.flower.nodes = args.supernodes.or(settings.flower.nodes);
    settings.flower.is_encrypted &= !args.flower_plain;
    let doors = [("--flower", settings.flower.join), ("--supernodes", settings.flower.nodes)];
    for (option, address) in doors.into_iter().filter_map(|(option, address)| Some((option, address?))) {
        if !settings.flower.is_encrypted && !address.ip().is_loopback() {
            let reason = "weights would go in clear: leave out `--flower-plain`";
            return Err(super::failure::Misuse(format!(
                "`{option} {address}` can be reached from elsewhere, and {reason}"
            ))
            .into());
        }
    }
    Ok(settings)
}

#[derive(Debug, clap::Args)]
pub(crate) struct BackupArgs {
    /// The service's folder; it may be in use.
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// Where to write the copy. Blobs and keys are files, to be copied as such.
    target: PathBuf,
}

pub(crate) fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    serve::backup(&args.folder, &args.target)?;
    say(&format!("wrote {}", args.target.display()))
}

#[derive(Debug, clap::Args)]
pub(crate) struct RestoreArgs {
    /// The service's folder; nobody may be serving it.
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// What `backup` wrote.
    source: PathBuf,
}

pub(crate) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    serve::restore(&args.folder, &args.source)?;
    say(&format!("restored {}", args.source.display()))
}

pub(crate) fn openapi() -> anyhow::Result<()> {
    say(&api::openapi().to_pretty_json()?)
}
