//! `revoada ctl`: asks a running pipeline through its control socket.

use std::path::PathBuf;

use clap::Subcommand;
use revoada_pipeline::config::SourceConfig;
use revoada_pipeline::control::{Client, Command, RECORD_SECONDS_MAX};
use revoada_pipeline::run::RunSummary;
use serde_json::{Map, Value};

use crate::failure::Misuse;
use crate::summary;
use crate::terminal::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada run pipeline.toml --control /run/user/1000/revoada.sock\n  \
    revoada ctl --socket /run/user/1000/revoada.sock stats\n  \
    revoada ctl --socket /run/user/1000/revoada.sock swap /models/faces-2.bundle\n  \
    revoada ctl --socket /run/user/1000/revoada.sock add-stream rtsp://10.0.0.9/gate --id gate --set interval=2\n  \
    revoada ctl --socket /run/user/1000/revoada.sock snapshot --stream door --path door.jpg\n  \
    revoada ctl --socket /run/user/1000/revoada.sock record door --seconds 60")]
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
    /// Have another model answer the same frames, and count how its answers differ; what the pipeline writes stays as it is.
    Shadow {
        /// An ONNX file, a plan, or a bundle with the same classes.
        #[arg(value_name = "MODEL", required_unless_present = "end")]
        model: Option<PathBuf>,
        /// End the shadow, and print what it saw; `stats` has it meanwhile.
        #[arg(long, conflicts_with = "model")]
        end: bool,
    },
    /// Take frames from one more stream; until the next `reload` only, where the file does not have it.
    AddStream {
        /// A file, `rtsp://…`, or whatever else a stream's `uri` is.
        #[arg(value_name = "URI")]
        uri: String,
        /// The stream's name; made from the URI where it is not given.
        #[arg(long, value_name = "STREAM")]
        id: Option<String>,
        /// Any other key of `[[stream]]`, such as `interval=2` or `rtsp.latency_ms=50`; may be given again.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// Take no more frames from a stream; those that were taken are finished.
    RemoveStream {
        /// The stream's name.
        #[arg(value_name = "STREAM")]
        stream: String,
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
    /// Record a stream from now on, with the seconds before that its `recording` sink holds; prints the file.
    Record {
        /// The stream's name.
        #[arg(value_name = "STREAM")]
        stream: String,
        /// For how long; as the sink does behind an event where it is not given.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=RECORD_SECONDS_MAX))]
        seconds: Option<u64>,
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
        Ask::Shadow { model, .. } => {
            let command = match model {
                Some(model) => Command::Shadow { model: std::path::absolute(model)? },
                None => Command::EndShadow,
            };
            say(&serde_json::to_string_pretty(&client.request(command)?)?)?;
        }
        Ask::AddStream { uri, id, set } => {
            let stream = described(uri, id.as_deref(), set)?;
            say(&client.request(Command::AddStream { stream })?.to_string())?;
        }
        Ask::RemoveStream { stream } => {
            say(&client.request(Command::RemoveStream { stream: stream.clone() })?.to_string())?;
        }
        Ask::Snapshot { stream, path } => {
            // The pipeline may run in another folder than the person who asks.
            let path = std::path::absolute(path)?;
            client.request(Command::Snapshot { stream: stream.clone(), path: path.clone() })?;
            say(&format!("wrote {}", path.display()))?;
        }
        Ask::Record { stream, seconds } => {
            let answer = client.request(Command::Record { stream: stream.clone(), seconds: *seconds })?;
            let mut files = answer["files"].as_array().into_iter().flatten().filter_map(Value::as_str);
            files.try_for_each(|file| say(&format!("recording {file}")))?;
        }
    }
    Ok(())
}

/// The table of a stream. A path is made absolute: the pipeline may run in another folder than the person who asks.
fn described(uri: &str, id: Option<&str>, set: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut stream = Map::new();
    let uri = match SourceConfig::parse(uri) {
        Ok(source) => source.relative_to(&std::env::current_dir()?).uri(),
        Err(_) => uri.to_owned(),
    };
    stream.insert("uri".to_owned(), uri.into());
    stream.extend(id.map(|id| ("id".to_owned(), id.into())));
    for text in set {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Misuse(format!("`--set {text}` is not like `interval=2`")).into());
        };
        // What is no number and no truth is a text.
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        insert(&mut stream, key, value);
    }
    Ok(stream)
}

/// Sets a dotted key, making the tables on the way.
fn insert(table: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            insert(inner.as_object_mut().expect("it was just made one"), rest, value);
        }
    }
}
