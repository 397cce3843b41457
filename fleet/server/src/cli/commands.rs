//! `revoada-fleet command`.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Subcommand;
use revoada_proto::Label;
use serde_json::{Value, json};

use super::Access;
use super::client::Client;
use super::terminal::{rows, say, say_json, table, text};

const ASK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    device: String,
    #[command(subcommand)]
    ask: Ask,
    /// How long to wait for the device's answer; 0 does not wait.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

#[derive(Debug, Subcommand)]
enum Ask {
    /// Start the pipeline anew.
    RestartPipeline,
    /// Run a model that one of its slots holds, until the next start of the pipeline.
    SwapModel { digest: String },
    /// Have the next picture of a stream.
    Snapshot {
        stream: String,
        /// Where to write it: FILE.jpg.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Have the newest lines of its log.
    FetchLogs {
        #[arg(long, value_name = "N", default_value_t = 1000)]
        lines: u32,
        /// Where to write them.
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Keep pictures of a track as examples of a label, to learn from; they stay on the device.
    Label {
        stream: String,
        /// Its number, as a snapshot shows it.
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        track: u64,
        /// What it shows.
        label: Label,
    },
    /// Erase the device's pictures to learn from, and everything that was made of any.
    Forget {
        /// Pictures of this label alone.
        #[arg(long, required_unless_present = "all")]
        label: Option<Label>,
        /// All pictures.
        #[arg(long, conflicts_with = "label")]
        all: bool,
    },
    /// What it was asked, the newest first.
    List {
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: &Args, access: &Access) -> anyhow::Result<()> {
    let client = access.client()?;
    let (form, output) = match &args.ask {
        Ask::RestartPipeline => (json!({ "ask": "restart-pipeline" }), None),
        Ask::SwapModel { digest } => (json!({ "ask": "swap-model", "digest": digest }), None),
        Ask::Snapshot { stream, output } => (json!({ "ask": "snapshot", "stream": stream }), Some(output)),
        Ask::FetchLogs { lines, output } => (json!({ "ask": "fetch-logs", "lines": lines }), Some(output)),
        Ask::Label { stream, track, label } => {
            (json!({ "ask": "label", "stream": stream, "track": track, "label": label }), None)
        }
        Ask::Forget { label, .. } => (json!({ "ask": "forget", "label": label }), None),
        Ask::List { json } => {
            let answer = client.get(&["devices", &args.device, "commands"], &[])?;
            if *json {
                return say_json(&answer);
            }
            let rows = rows(&answer, &["/number", "/issued_at", "/by", "/ask/ask", "/state", "/text"]);
            return say(&table(&["number", "at", "by", "command", "state", "text"], &rows));
        }
    };
    let number = client.post(&["devices", &args.device, "commands"], &form)?["number"].to_string();
    let path = ["devices", &args.device, "commands", &number];
    if args.wait == 0 {
        return say(&format!("command {number} is on its way"));
    }
    let command = answered(&client, &path, Duration::from_secs(args.wait))?;
    let said = text(&command["text"]);
    match command["state"].as_str() {
        Some("done") => {}
        Some("failed") => bail!("`{}` could not: {said}", args.device),
        Some("expired") => bail!("`{}` was not there in time", args.device),
        _ => bail!("`{}` has not answered yet; command {number} is on its way", args.device),
    }
    let Some(output) = output else { return say(&said) };
    client.save(&[path.as_slice(), &["answer"]].concat(), &[], output)?;
    say(&format!("wrote {}: {said}", output.display()))
}

/// The command, once it has ended or nobody waits any longer.
fn answered(client: &Client, path: &[&str], time_max: Duration) -> anyhow::Result<Value> {
    let began = Instant::now();
    loop {
        let command = client.get(path, &[])?;
        if !matches!(command["state"].as_str(), Some("queued" | "sent")) || began.elapsed() > time_max {
            return Ok(command);
        }
        thread::sleep(ASK_EVERY);
    }
}
