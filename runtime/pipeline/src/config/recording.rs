//! The sink that records the seconds around events.

use std::path::{Path, PathBuf};
use std::time::Duration;

use revoada_bundle::strict::{Table, nearest};
use revoada_core::StreamId;
use toml_edit::{Array, Value};

use super::print::{integer, path as path_value, word};
use super::read::path;
use crate::analyse::EventKind;

/// What is held of each stream before anything happens.
const BEFORE_SECONDS_MAX: u64 = 600;
const AFTER_SECONDS_MAX: u64 = 3600;
const LENGTH_SECONDS_MAX: u64 = 24 * 3600;
/// A hundred years.
const DAYS_MAX: u32 = 36_500;

pub(super) const CONTAINERS: [(&str, Container); 2] = [("mp4", Container::Mp4), ("mkv", Container::Matroska)];

/// Where the seconds around events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingConfig {
    pub folder: PathBuf,
    /// Empty: all.
    pub streams: Vec<StreamId>,
    /// What is recorded of the time before an event, and up to a second more.
    pub before: Duration,
    /// And behind it.
    pub after: Duration,
    /// A recording that becomes longer goes on in another.
    pub length_max: Duration,
    /// Kinds of events, of [`EventKind::NAMES`]; none where only what is asked for is recorded.
    pub on: Vec<&'static str>,
    /// Names of lines, regions and directions; empty: all.
    pub rules: Vec<String>,
    /// Of the folder's recordings that are complete; beyond it the oldest are deleted. A recording that becomes larger goes
    /// on in another.
    pub mb_max: u32,
    /// Older ones are deleted; `None`: only where there are too many.
    pub keep_days: Option<u32>,
    /// Of each stream's encoded video in memory; beyond it the oldest is dropped.
    pub buffer_mb_max: u32,
    pub bitrate_kbps: Option<u32>,
    pub container: Container,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Container {
    #[default]
    Mp4,
    Matroska,
}

impl Container {
    /// Of a file's name.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Matroska => "mkv",
        }
    }
}

impl RecordingConfig {
    pub(crate) fn bytes_max(&self) -> u64 {
        u64::from(self.mb_max) * 1_000_000
    }

    pub(crate) fn buffer_bytes_max(&self) -> u64 {
        u64::from(self.buffer_mb_max) * 1_000_000
    }
}

pub(super) fn recording(table: &Table<'_>, folder: &Path) -> Option<RecordingConfig> {
    let seconds = |key: &str, least: u64, most: u64, default: u64| {
        Duration::from_secs(table.integer(key, least..=most).unwrap_or(default))
    };
    let named = |key: &str, all: &str| {
        let names = table.strings(key);
        if names.as_ref().is_some_and(Vec::is_empty) {
            table.problem(key, format!("names none; leave it out to record {all}"));
        }
        names.unwrap_or_default()
    };
    let config = RecordingConfig {
        folder: path(&table.required(), "folder", folder).unwrap_or_default(),
        streams: named("streams", "all streams").iter().map(|id| StreamId::new(id)).collect(),
        before: seconds("before_s", 0, BEFORE_SECONDS_MAX, 10),
        after: seconds("after_s", 0, AFTER_SECONDS_MAX, 10),
        length_max: seconds("length_s_max", 1, LENGTH_SECONDS_MAX, 300),
        on: kinds(table),
        rules: named("rules", "for all of them"),
        mb_max: table.integer("mb_max", 1..=100_000_000).unwrap_or(10_000),
        keep_days: table.integer("keep_days", 1..=DAYS_MAX),
        buffer_mb_max: table.integer("buffer_mb_max", 1..=10_000).unwrap_or(32),
        bitrate_kbps: table.integer("bitrate_kbps", 50u32..=500_000),
        container: table.choice("container", &CONTAINERS).unwrap_or_default(),
    };
    let shortest = (config.before + config.after).as_secs();
    if config.length_max.as_secs() < shortest {
        table.problem("length_s_max", format!("is less than `before_s` and `after_s` together, {shortest}"));
    }
    if config.buffer_mb_max > config.mb_max {
        table.problem("buffer_mb_max", format!("is more than the folder may hold, `mb_max`, {}", config.mb_max));
    }
    (!config.folder.as_os_str().is_empty()).then_some(config)
}

fn kinds(table: &Table<'_>) -> Vec<&'static str> {
    let Some(named) = table.strings("on") else { return EventKind::NAMES.to_vec() };
    let mut kinds = Vec::new();
    for name in named {
        match EventKind::NAMES.iter().find(|kind| **kind == name) {
            Some(kind) => kinds.push(*kind),
            None => {
                let hint = match nearest(&name, EventKind::NAMES) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("choose from {}", EventKind::NAMES.map(|kind| format!("`{kind}`")).join(", ")),
                };
                table.problem("on", format!("there is no event `{name}`, {hint}"));
            }
        }
    }
    kinds
}

pub(super) fn print(config: &RecordingConfig) -> Vec<(&'static str, Option<Value>)> {
    let texts = |texts: Vec<&str>| Value::from(texts.into_iter().collect::<Array>());
    let listed = |listed: Vec<&str>| (!listed.is_empty()).then(|| texts(listed));
    let seconds = |duration: Duration| Some(integer(duration.as_secs()));
    vec![
        ("folder", Some(path_value(&config.folder))),
        ("streams", listed(config.streams.iter().map(StreamId::as_str).collect())),
        ("before_s", seconds(config.before)),
        ("after_s", seconds(config.after)),
        ("length_s_max", seconds(config.length_max)),
        ("on", Some(texts(config.on.clone()))),
        ("rules", listed(config.rules.iter().map(String::as_str).collect())),
        ("mb_max", Some(integer(config.mb_max.into()))),
        ("keep_days", config.keep_days.map(|days| integer(days.into()))),
        ("buffer_mb_max", Some(integer(config.buffer_mb_max.into()))),
        ("bitrate_kbps", config.bitrate_kbps.map(|rate| integer(rate.into()))),
        ("container", Some(word(&CONTAINERS, &config.container))),
    ]
}
