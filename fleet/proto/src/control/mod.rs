//! The control socket: how `revoada ctl` and the agent speak to a running pipeline.
//!
//! A Unix stream socket, one JSON object a line in each direction:
//!
//! ```text
//! → {"version":1,"id":7,"command":"snapshot","stream":"front","path":"/tmp/front.jpg"}
//! ← {"version":1,"id":7,"result":{"path":"/tmp/front.jpg","bytes":81920}}
//! → {"version":1,"id":8,"command":"explode"}
//! ← {"version":1,"id":8,"error":"unknown command `explode`, choose from `stats`, …"}
//! ```
//!
//! The socket belongs to its user alone (mode 0600). A message is answered before the next is read.
//! What cannot be read as a message at all is answered with the id 0.

mod client;

use std::path::{Path, PathBuf};

use revoada_core::nearest;
use serde_json::{Map, Value, json};

use crate::Label;

pub use client::{Client, ClientError};

/// Raised when a message changes its meaning; new commands and new keys do not raise it.
pub const VERSION: u64 = 1;

/// A request is a few names and a path.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// A day: whoever wants more asks again.
pub const RECORD_SECONDS_MAX: u64 = 86_400;

/// As many pictures of one track as tell anything new, unless somebody says otherwise.
pub const LABEL_COUNT: u32 = 20;
/// Of one track, however often its pictures are asked for at once.
pub const LABEL_COUNT_MAX: u32 = 500;
/// From one picture of a track to the next, unless somebody says otherwise: it has moved by then.
pub const LABEL_EVERY_MS: u32 = 500;
/// An hour: whoever wants less takes single pictures.
pub const LABEL_EVERY_MS_MAX: u32 = 3_600_000;

const COMMANDS: [&str; 12] = [
    "stats",
    "drain",
    "reload",
    "swap",
    "shadow",
    "end-shadow",
    "snapshot",
    "record",
    "label",
    "end-labels",
    "add-stream",
    "remove-stream",
];

/// What can be asked of a running pipeline.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// The statistics so far, as the pipeline's `RunSummary`.
    Stats,
    /// Take no more frames, finish those that were taken, complete every output, end.
    Drain,
    /// Read the configuration again and change what can be changed without stopping.
    Reload,
    /// Run another model from the next batch on: an ONNX file, a plan, or a bundle.
    Swap { model: PathBuf },
    /// Have another model answer the same frames, to count how its answers differ; nothing else changes.
    Shadow { model: PathBuf },
    /// End that, and say what was counted.
    EndShadow,
    /// Write the next picture of a stream, as sinks show it, to a file: `.jpg`, `.jpeg` or `.png`.
    Snapshot { stream: String, path: PathBuf },
    /// Record a stream from its next picture on, and what its `recording` sinks hold of the time before; `None` for as long
    /// as they record behind an event. One that is recorded already is recorded for longer.
    Record { stream: String, seconds: Option<u64> },
    /// Keep pictures of a track of a stream in the folder `label` of `folder`, one now and another each `every_ms` of the
    /// stream's time, until there are `count` or the track has ended. They show what is in the track's box with some margin, as
    /// the model sees it: nothing is drawn into them. The answer comes with the first.
    Label { stream: String, track: u64, label: Label, folder: PathBuf, count: u32, every_ms: u32 },
    /// Keep no more pictures of any track.
    EndLabels,
    /// Take frames from one more stream: the keys of `[[stream]]`, paths being absolute.
    AddStream { stream: Map<String, Value> },
    /// Take no more frames from a stream; those that were taken are finished.
    RemoveStream { stream: String },
}

/// One message to a pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Comes back with the answer.
    pub id: u64,
    pub command: Command,
}

/// Why a message was refused, and the id that the refusal carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub id: u64,
    pub reason: String,
}

impl Request {
    /// Reads one line. Strict: a key that no command has is refused by name.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let refuse = |id: u64, reason: String| Refusal { id, reason };
        let mut message: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| refuse(0, format!("not a JSON object: {error}")))?;
        let id = message.remove("id").and_then(|id| id.as_u64());
        let id = id.ok_or_else(|| refuse(0, "`id` is missing or not a non-negative integer".into()))?;
        let refuse = |reason: String| refuse(id, reason);
        match message.remove("version").map(|version| version.as_u64()) {
            Some(Some(VERSION)) => {}
            Some(Some(version)) => return Err(refuse(format!("version {version} is not spoken here, only {VERSION}"))),
            _ => return Err(refuse(format!("`version` is missing; this is version {VERSION}"))),
        }
        let command = take_text(&mut message, "command").map_err(refuse)?;
        let command = match command.as_str() {
            "stats" => Command::Stats,
            "drain" => Command::Drain,
            "reload" => Command::Reload,
            "swap" => Command::Swap { model: take_path(&mut message, "model").map_err(refuse)? },
            "shadow" => Command::Shadow { model: take_path(&mut message, "model").map_err(refuse)? },
            "end-shadow" => Command::EndShadow,
            "snapshot" => {
                let stream = take_text(&mut message, "stream").map_err(refuse)?;
                Command::Snapshot { stream, path: take_path(&mut message, "path").map_err(refuse)? }
            }
            "record" => {
                let stream = take_text(&mut message, "stream").map_err(refuse)?;
                Command::Record { stream, seconds: take_seconds(&mut message).map_err(refuse)? }
            }
            "label" => Command::Label {
                stream: take_text(&mut message, "stream").map_err(refuse)?,
                track: take_track(&mut message).map_err(refuse)?,
                label: take_text(&mut message, "label")
                    .and_then(|label| label.parse().map_err(|error: crate::LabelError| error.to_string()))
                    .map_err(refuse)?,
                folder: take_path(&mut message, "folder").map_err(refuse)?,
                count: take_number(&mut message, "count", LABEL_COUNT, LABEL_COUNT_MAX).map_err(refuse)?,
                every_ms: take_number(&mut message, "every_ms", LABEL_EVERY_MS, LABEL_EVERY_MS_MAX).map_err(refuse)?,
            },
            "end-labels" => Command::EndLabels,
            "add-stream" => match message.remove("stream") {
                Some(Value::Object(stream)) => Command::AddStream { stream },
                _ => return Err(refuse("`stream` is missing or not an object".into())),
            },
            "remove-stream" => Command::RemoveStream { stream: take_text(&mut message, "stream").map_err(refuse)? },
            other => {
                let hint = match nearest(other, COMMANDS) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("choose from {}", COMMANDS.map(|name| format!("`{name}`")).join(", ")),
                };
                return Err(refuse(format!("unknown command `{}`, {hint}", shortened(other))));
            }
        };
        match message.keys().next() {
            Some(key) => Err(refuse(format!("`{}` has no key `{}`", command.name(), shortened(key)))),
            None => Ok(Self { id, command }),
        }
    }

    /// The line that [`parse`](Self::parse) reads, without its end.
    pub fn to_line(&self) -> String {
        let mut message = json!({ "version": VERSION, "id": self.id, "command": self.command.name() });
        match &self.command {
            Command::Stats | Command::Drain | Command::Reload | Command::EndShadow | Command::EndLabels => {}
            Command::Swap { model } | Command::Shadow { model } => message["model"] = json!(model.to_string_lossy()),
            Command::Snapshot { stream, path } => {
                message["stream"] = json!(stream);
                message["path"] = json!(path.to_string_lossy());
            }
            Command::Record { stream, seconds } => {
                message["stream"] = json!(stream);
                if let Some(seconds) = seconds {
                    message["seconds"] = json!(seconds);
                }
            }
            Command::Label { stream, track, label, folder, count, every_ms } => {
                message["stream"] = json!(stream);
                message["track"] = json!(track);
                message["label"] = json!(label);
                message["folder"] = json!(folder.to_string_lossy());
                message["count"] = json!(count);
                message["every_ms"] = json!(every_ms);
            }
            Command::AddStream { stream } => message["stream"] = json!(stream),
            Command::RemoveStream { stream } => message["stream"] = json!(stream),
        }
        message.to_string()
    }
}

impl Command {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stats => "stats",
            Self::Drain => "drain",
            Self::Reload => "reload",
            Self::Swap { .. } => "swap",
            Self::Shadow { .. } => "shadow",
            Self::EndShadow => "end-shadow",
            Self::Snapshot { .. } => "snapshot",
            Self::Record { .. } => "record",
            Self::Label { .. } => "label",
            Self::EndLabels => "end-labels",
            Self::AddStream { .. } => "add-stream",
            Self::RemoveStream { .. } => "remove-stream",
        }
    }

    /// A snapshot into `path`, made absolute against `working_folder`.
    pub fn snapshot(stream: &str, path: &Path, working_folder: &Path) -> Self {
        Self::Snapshot { stream: stream.to_owned(), path: working_folder.join(path) }
    }
}

fn take_text(message: &mut Map<String, Value>, key: &str) -> Result<String, String> {
    match message.remove(key) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(format!("`{key}` is missing or not a text")),
    }
}

fn take_track(message: &mut Map<String, Value>) -> Result<u64, String> {
    let track = message.remove("track").and_then(|track| track.as_u64());
    track.ok_or_else(|| "`track` is missing or not the number of a track".to_owned())
}

/// A number from 1 to `max`, or what it is where nobody says.
fn take_number(message: &mut Map<String, Value>, key: &str, default: u32, max: u32) -> Result<u32, String> {
    let Some(number) = message.remove(key) else { return Ok(default) };
    let within =
        number.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| (1..=max).contains(number));
    within.ok_or_else(|| format!("expected `{key}` from 1 to {max}, got {number}"))
}

/// For how long to record, where that is said.
pub fn take_seconds(message: &mut Map<String, Value>) -> Result<Option<u64>, String> {
    let Some(seconds) = message.remove("seconds") else { return Ok(None) };
    let within = seconds.as_u64().filter(|seconds| (1..=RECORD_SECONDS_MAX).contains(seconds));
    within.map(Some).ok_or_else(|| format!("expected `seconds` from 1 to {RECORD_SECONDS_MAX}, got {seconds}"))
}

/// A relative path would be relative to a folder that the asker does not know.
fn take_path(message: &mut Map<String, Value>, key: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(take_text(message, key)?);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(format!("`{key}` is not absolute: `{}`", path.display())),
    }
}

/// So that an answer is never longer than what was asked.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_back_as_they_were_written() {
        let snapshot = Command::snapshot("front", Path::new("a.jpg"), Path::new("/tmp"));
        let swap = Command::Swap { model: "/models/b.bundle".into() };
        let stream = json!({ "uri": "rtsp://camera/1", "rtsp": { "latency_ms": 50 } });
        let add = Command::AddStream { stream: stream.as_object().unwrap().clone() };
        let remove = Command::RemoveStream { stream: "front".into() };
        let shadow = Command::Shadow { model: "/models/b.onnx".into() };
        let record = |seconds| Command::Record { stream: "front".into(), seconds };
        let records = [record(None), record(Some(60))];
        let plain = [Command::Stats, Command::Drain, Command::Reload, Command::EndShadow, Command::EndLabels];
        let label = Command::Label {
            stream: "front".into(),
            track: 12,
            label: "a parcel".parse().unwrap(),
            folder: "/data".into(),
            count: 3,
            every_ms: 100,
        };
        for command in plain.into_iter().chain([swap, shadow, snapshot, add, remove, label]).chain(records) {
            let request = Request { id: 7, command };
            assert_eq!(Request::parse(request.to_line().as_bytes()), Ok(request));
        }
    }

    #[test]
    fn how_many_pictures_of_a_track_need_not_be_said() {
        let line = r#"{"version":1,"id":3,"command":"label","stream":"a","track":1,"label":"b","folder":"/c"}"#;
        let Command::Label { count, every_ms, .. } = Request::parse(line.as_bytes()).unwrap().command else { panic!() };
        assert_eq!((count, every_ms), (LABEL_COUNT, LABEL_EVERY_MS));
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_id_and_a_reason() {
        for (line, id, reason) in [
            ("", 0, "not a JSON object"),
            ("[1]", 0, "not a JSON object"),
            (r#"{"version":1,"command":"stats"}"#, 0, "`id` is missing"),
            (r#"{"id":3,"command":"stats"}"#, 3, "`version` is missing"),
            (r#"{"version":2,"id":3,"command":"stats"}"#, 3, "version 2 is not spoken here"),
            (r#"{"version":1,"id":3}"#, 3, "`command` is missing"),
            (r#"{"version":1,"id":3,"command":"stat"}"#, 3, "did you mean `stats`?"),
            (r#"{"version":1,"id":3,"command":"explode"}"#, 3, "choose from `stats`"),
            (r#"{"version":1,"id":3,"command":"stats","now":true}"#, 3, "`stats` has no key `now`"),
            (r#"{"version":1,"id":3,"command":"snapshot","stream":"a","path":"b.jpg"}"#, 3, "not absolute"),
            (r#"{"version":1,"id":3,"command":"swap","model":"b.onnx"}"#, 3, "not absolute"),
            (r#"{"version":1,"id":3,"command":"swap"}"#, 3, "`model` is missing"),
            (r#"{"version":1,"id":3,"command":"record","stream":"a","seconds":0}"#, 3, "expected `seconds` from 1 to"),
            (r#"{"version":1,"id":3,"command":"record","stream":"a","seconds":"9"}"#, 3, "86400, got \"9\""),
            (r#"{"version":1,"id":3,"command":"record"}"#, 3, "`stream` is missing"),
            (r#"{"version":1,"id":3,"command":"add-stream","stream":"a.mp4"}"#, 3, "not an object"),
            (r#"{"version":1,"id":3,"command":"label","stream":"a"}"#, 3, "`track` is missing"),
            (r#"{"version":1,"id":3,"command":"label","stream":"a","track":-1}"#, 3, "not the number of a track"),
            (
                r#"{"version":1,"id":3,"command":"label","stream":"a","track":1,"label":"../b"}"#,
                3,
                "expected a label of",
            ),
            (
                r#"{"version":1,"id":3,"command":"label","stream":"a","track":1,"label":"b","folder":"c"}"#,
                3,
                "`folder` is not absolute",
            ),
            (
                r#"{"version":1,"id":3,"command":"label","stream":"a","track":1,"label":"b","folder":"/c","count":0}"#,
                3,
                "expected `count` from 1 to 500, got 0",
            ),
        ] {
            let refusal = Request::parse(line.as_bytes()).unwrap_err();
            assert_eq!(refusal.id, id, "{line}");
            assert!(refusal.reason.contains(reason), "{line}: {}", refusal.reason);
        }
    }

    /// A fuzz target: `cargo bolero test control::tests::any_line_is_read_or_refused`, and a short
    /// run of it in every `cargo test`.
    #[test]
    fn any_line_is_read_or_refused() {
        bolero::check!().for_each(|line: &[u8]| {
            if let Ok(request) = Request::parse(line) {
                assert_eq!(Request::parse(request.to_line().as_bytes()), Ok(request));
            }
        });
    }
}
