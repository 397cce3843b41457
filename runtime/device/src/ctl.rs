//! `revoada ctl`: asks a running pipeline through its control socket.

use std::path::PathBuf;

use clap::Subcommand;
use revoada_pipeline::control::{Client, Command};
use revoada_pipeline::run::RunSummary;

use crate::summary;
use crate::terminal::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada run pipeline.toml --control /run/user/1000/revoada.sock\n  \
    revoada ctl --socket /run/user/1000/revoada.sock stats\n  \
    revoada ctl --socket /run/user/1000/revoada.sock swap /models/faces-2.bundle\n  \
    revoada ctl --socket /run/user/1000/revoada.sock snapshot --stream door --path door.jpg")]
pub(crate) struct Args {
    /// The socket that the pipeline listens on (`--control`, or `[control] socket` in its file).
    #[arg(long, value_name = "SOCKET")]
    socket: PathBuf,
    #[command(subcommand)]
    ask: Ask,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Frames, rates and latencies so far.
    Stats {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// End the run: no more frames, every output completed.
    Drain,
    /// Read the configuration file again and change what can be changed while running.
    Reload,
    /// Run another model from the next batch on, once it is loaded and tried; no frame is lost.
    Swap {
        /// An ONNX file, a plan, or a bundle.
        #[arg(value_name = "MODEL")]
        model: PathBuf,
    },
    /// Write the next picture of a stream, as sinks show it.
    Snapshot {
        /// The stream's name.
        #[arg(long, value_name = "STREAM")]
        stream: String,
        /// Where to write it: FILE.jpg or FILE.png.
        #[arg(long, value_name = "FILE")]
        path: PathBuf,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut client = Client::connect(&args.socket)?;
    match &args.ask {
        Ask::Stats { json } => {
            let stats = client.request(Command::Stats)?;
            if *json {
                say(&serde_json::to_string_pretty(&stats)?)?;
            } else {
                let summary: RunSummary = serde_json::from_value(stats)?;
                say(&summary::render(&summary))?;
            }
        }
        Ask::Drain => {
            client.request(Command::Drain)?;
        }
        Ask::Reload => say(&client.request(Command::Reload)?.to_string())?,
        Ask::Swap { model } => {
            let model = std::path::absolute(model)?;
            say(&client.request(Command::Swap { model })?.to_string())?;
        }
        Ask::Snapshot { stream, path } => {
            // The pipeline may run in another folder than the person who asks.
            let path = std::path::absolute(path)?;
            client.request(Command::Snapshot { stream: stream.clone(), path: path.clone() })?;
            say(&format!("wrote {}", path.display()))?;
        }
    }
    Ok(())
}
