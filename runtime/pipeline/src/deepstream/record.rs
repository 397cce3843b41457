//! Smart recording of sources, as sinks.

use std::path::Path;

use toml_edit::{Array, Table, value};

use super::Files;
use super::section::Section;

/// The most of `sink.before_s` and `sink.after_s`.
const BEFORE_SECONDS_MAX: u32 = 600;
const AFTER_SECONDS_MAX: u32 = 3600;
/// What a recording lasts where nothing is said.
const LENGTH_SECONDS: u32 = 300;

/// The sources that are recorded, by what becomes a sink.
#[derive(Default)]
pub(super) struct Recordings {
    sinks: Vec<(Recording, Vec<String>)>,
}

#[derive(Clone, PartialEq)]
struct Recording {
    folder: String,
    by_events: bool,
    before_s: Option<u32>,
    after_s: Option<u32>,
    container: &'static str,
}

impl Recordings {
    /// Adds the streams `ids` of a source, where it is recorded.
    pub(super) fn add(&mut self, section: &Section<'_>, ids: Vec<String>, files: &Files<'_>) {
        let mode = section.integer("smart-record").unwrap_or(0);
        let folder = section.text("smart-rec-dir-path").unwrap_or(".");
        let before = first(section, &["smart-rec-start-time", "smart-rec-cache", "smart-rec-video-cache"]);
        let after = first(section, &["smart-rec-duration", "smart-rec-default-duration"]);
        let container = match section.integer("smart-rec-container") {
            None | Some(0) => "mp4",
            Some(1) => "mkv",
            Some(other) => {
                let message = format!("expected 0 (MP4) or 1 (Matroska), got {other}");
                return section.problem("smart-rec-container", message);
            }
        };
        match mode {
            0 => return,
            1 => section.note(
                "smart-record",
                "messages start no recordings; `revoada ctl record STREAM` does, with `--control SOCKET`",
            ),
            2 => {}
            other => return section.problem("smart-record", format!("expected 0, 1 or 2, got {other}")),
        }
        let recording = Recording {
            folder: files.shown(&files.resolve(Path::new(""), folder)),
            by_events: mode == 2,
            before_s: before.map(|(key, seconds)| bounded(section, key, seconds, BEFORE_SECONDS_MAX)),
            after_s: after.map(|(key, seconds)| bounded(section, key, seconds, AFTER_SECONDS_MAX)),
            container,
        };
        match self.sinks.iter_mut().find(|(known, _)| known.folder == recording.folder) {
            Some((known, streams)) => {
                if *known != recording {
                    section.note("smart-record", "is done as that of the first source with this folder");
                }
                streams.extend(ids);
            }
            None => self.sinks.push((recording, ids)),
        }
    }

    /// Sinks of a pipeline of these streams; `analysed`: something makes events.
    pub(super) fn tables(self, streams: &[String], analysed: bool) -> impl Iterator<Item = Table> {
        self.sinks.into_iter().map(move |(recording, ids)| {
            let Recording { folder, by_events, before_s, after_s, container } = recording;
            let mut table = Table::new();
            table.insert("type", value("recording"));
            table.insert("folder", value(if folder.is_empty() { "." } else { &folder }));
            if ids.len() < streams.len() {
                table.insert("streams", value(ids.iter().map(String::as_str).collect::<Array>()));
            }
            for (key, seconds) in [("before_s", before_s), ("after_s", after_s)] {
                if let Some(seconds) = seconds {
                    table.insert(key, value(i64::from(seconds)));
                }
            }
            // What is not said is ten seconds each.
            let length = before_s.unwrap_or(10) + after_s.unwrap_or(10);
            if length > LENGTH_SECONDS {
                table.insert("length_s_max", value(i64::from(length)));
            }
            if !(by_events && analysed) {
                table.insert("on", value(Array::new()));
            }
            table.insert("container", value(container));
            table
        })
    }
}

/// Says of a source that is recorded at events that there will be none.
pub(super) fn without_events(section: &Section<'_>) {
    if section.integer("smart-record") == Some(2) {
        section.note(
            "smart-record",
            "there are no events without `nvds-analytics`; `revoada ctl record STREAM` records, with `--control SOCKET`",
        );
    }
}

/// The first key that says something. All are read.
fn first(section: &Section<'_>, keys: &[&'static str]) -> Option<(&'static str, u32)> {
    let said: Vec<_> = keys.iter().filter_map(|key| Some((*key, section.count(key)?))).collect();
    said.first().copied()
}

fn bounded(section: &Section<'_>, key: &str, seconds: u32, most: u32) -> u32 {
    if seconds > most {
        section.note(key, format!("becomes {most} s, the most that is recorded"));
    }
    seconds.min(most)
}
