//! `revoada ctl`: asks a running pipeline through its control socket.

use std::path::PathBuf;

use clap::Subcommand;
use revoada_pipeline::config::SourceConfig;
use revoada_pipeline::control::{
    Client, Command, LABEL_COUNT, LABEL_COUNT_MAX, LABEL_EVERY_MS, LABEL_EVERY_MS_MAX, Label, RECORD_SECONDS_MAX,
};
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
    revoada ctl --socket /run/user/1000/revoada.sock record door --seconds 60\n  \
    revoada ctl --socket /run/user/1000/revoada.sock label door 12 parcel --folder /var/lib/revoada/learning")]
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
    /// Write the next picture of a stream, as sinks show it, and say which tracks it shows.
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
    /// Keep pictures of a track as examples of a label, to learn from; `snapshot` shows the numbers of tracks.
    Label {
        /// The stream's name.
        #[arg(value_name = "STREAM", required_unless_present = "end")]
        stream: Option<String>,
        /// The track's number.
        #[arg(value_name = "TRACK", required_unless_present = "end")]
        track: Option<u64>,
        /// What it shows.
        #[arg(value_name = "LABEL", required_unless_present = "end")]
        label: Option<Label>,
        /// Where pictures lie in a folder for each label.
        #[arg(long, value_name = "FOLDER", required_unless_present = "end")]
        folder: Option<PathBuf>,
        /// So many pictures, unless the track ends before.
        #[arg(long, value_name = "N", default_value_t = LABEL_COUNT, value_parser = clap::value_parser!(u32).range(1..=i64::from(LABEL_COUNT_MAX)))]
        count: u32,
        /// From one picture to the next, in milliseconds of the stream's time.
        #[arg(long, value_name = "MS", default_value_t = LABEL_EVERY_MS, value_parser = clap::value_parser!(u32).range(1..=i64::from(LABEL_EVERY_MS_MAX)))]
        every_ms: u32,
        /// Keep no more pictures of any track.
        #[arg(long, conflicts_with_all = ["stream", "track", "label", "folder", "count", "every_ms"])]
        end: bool,
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
            let answer = client.request(Command::Snapshot { stream: stream.clone(), path: path.clone() })?;
            say(&format!("wrote {}", path.display()))?;
            let tracks = tracks(&answer);
            if !tracks.is_empty() {
                say(&format!("it shows {}", tracks.join(", ")))?;
            }
        }
        Ask::Record { stream, seconds } => {
            let answer = client.request(Command::Record { stream: stream.clone(), seconds: *seconds })?;
            let mut files = answer["files"].as_array().into_iter().flatten().filter_map(Value::as_str);
            files.try_for_each(|file| say(&format!("recording {file}")))?;
        }
        Ask::Label { stream, track, label, folder, count, every_ms, .. } => {
            let (Some(stream), Some(track), Some(label), Some(folder)) = (stream, track, label, folder) else {
                return Ok(say(&client.request(Command::EndLabels)?.to_string())?);
            };
            let answer = client.request(Command::Label {
                stream: stream.clone(),
                track: *track,
                label: label.clone(),
                folder: std::path::absolute(folder)?,
                count: *count,
                every_ms: *every_ms,
            })?;
            say(&format!("kept {}", answer["file"].as_str().unwrap_or_default()))?;
        }
    }
    Ok(())
}

/// The tracks that a snapshot shows, for people.
fn tracks(answer: &Value) -> Vec<String> {
    let tracks = answer["tracks"].as_array().into_iter().flatten();
    let name = |track: &Value| match track["label"].as_str() {
        Some(label) => format!("track {} ({label})", track["track"]),
        None => format!("track {}", track["track"]),
    };
    tracks.map(name).collect()
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
