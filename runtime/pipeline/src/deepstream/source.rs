//! Sources of the application, as streams.

use std::path::Path;

use toml_edit::{Item, Table, Value, value};

use super::Files;
use super::file::{Entry, File, Group};
use super::section::Section;
use crate::config::{SourceConfig, is_stream_id};

/// The most of `num-sources`: no pipeline runs more.
const SOURCES_MAX: u32 = 1024;

/// A stream, and what it is called.
pub(super) struct Stream {
    pub(super) id: String,
    pub(super) table: Table,
    /// Frames that are skipped for each that is passed on, with that one.
    pub(super) interval: u32,
    /// Plays files; `repeat` has a meaning.
    pub(super) is_file: bool,
}

/// The keys of a `[sourceN]` or `[source-attr-all]`.
struct Attributes<'a> {
    kind: Option<i64>,
    uri: Option<&'a str>,
    count: u32,
    camera: [u32; 3],
    csi: u32,
    v4l2: u32,
    latency_ms: u32,
    transport: &'static str,
    interval: u32,
    stall_s: u32,
    attempts: Option<u32>,
    repeat: bool,
}

impl<'a> Attributes<'a> {
    fn read(section: &Section<'a>) -> Self {
        section.switch("enable");
        let (numerator, denominator) = (section.count("camera-fps-n"), section.count("camera-fps-d"));
        let fps = numerator.map_or(0, |numerator| numerator.div_ceil(denominator.unwrap_or(1).max(1)));
        let side = |key: &'static str| section.count(key).unwrap_or(0);
        let protocols = (section.integer("select-rtp-protocol"), section.integer("set-rtp-protocol"));
        let count = section.count("num-sources").unwrap_or(1).max(1);
        if count > SOURCES_MAX {
            section.problem("num-sources", format!("expected at most {SOURCES_MAX}, got {count}"));
        }
        Self {
            kind: section.integer("type"),
            uri: section.text("uri"),
            count: count.min(SOURCES_MAX),
            camera: [side("camera-width"), side("camera-height"), fps],
            csi: side("camera-csi-sensor-id"),
            v4l2: side("camera-v4l2-dev-node"),
            latency_ms: section.count("latency").unwrap_or(100),
            // Bits of GStreamer's `GstRTSPLowerTrans`.
            transport: match protocols.0.or(protocols.1) {
                Some(4) => "tcp",
                Some(1) => "udp",
                _ => "auto",
            },
            interval: section.count("drop-frame-interval").unwrap_or(0).max(1),
            stall_s: section.count("rtsp-reconnect-interval-sec").unwrap_or(0),
            attempts: section.integer("rtsp-reconnect-attempts").and_then(|attempts| u32::try_from(attempts).ok()),
            repeat: section.switch("file-loop").unwrap_or(false),
        }
    }

    fn stream(&self, uri: &str, id: String) -> Stream {
        let mut table = Table::new();
        table.insert("id", value(id.as_str()));
        table.insert("uri", value(uri));
        let source = SourceConfig::parse(uri).ok();
        let is_file = matches!(source, Some(SourceConfig::File(_) | SourceConfig::Images(_)));
        if is_file && self.repeat {
            table.insert("repeat", value("forever"));
        }
        match source {
            Some(SourceConfig::Rtsp { .. }) => {
                let rtsp =
                    [("transport", Value::from(self.transport)), ("latency_ms", i64::from(self.latency_ms).into())];
                table.insert("rtsp", nested(rtsp));
                let stall = (self.stall_s > 0).then(|| ("stall_ms", Value::from(i64::from(self.stall_s) * 1000)));
                let attempts = self.attempts.map(|attempts| ("attempts_max", i64::from(attempts).into()));
                let reconnect: Vec<_> = [stall, attempts].into_iter().flatten().collect();
                if !reconnect.is_empty() {
                    table.insert("reconnect", nested(reconnect));
                }
            }
            Some(SourceConfig::V4l2 { .. } | SourceConfig::Csi { .. }) if self.camera != [0; 3] => {
                let sides = ["width", "height", "fps"].into_iter().zip(self.camera);
                table.insert("camera", nested(sides.map(|(key, side)| (key, Value::from(i64::from(side))))));
            }
            _ => {}
        }
        Stream { id, table, interval: self.interval, is_file }
    }
}

fn nested<'k>(pairs: impl IntoIterator<Item = (&'k str, Value)>) -> Item {
    Item::Table(pairs.into_iter().map(|(key, value)| (key, Item::Value(value))).collect())
}

/// Puts the lines of a table of sources, where the group `source` names one, among the groups as `source0`, `source1`, …
/// They stand on the line that names the table.
pub(super) fn expand(file: &mut File, files: &Files<'_>, problem: impl FnOnce(usize, String)) {
    let Some(place) = file.groups.iter().position(|group| group.name == "source") else { return };
    let Some(entry) = file.groups[place].entry("csv-file-path") else { return };
    let line = entry.line;
    let text = match files.text(&files.resolve(Path::new(""), &entry.value)) {
        Ok(text) => text,
        Err(message) => return problem(line, message),
    };
    let mut rows = text.lines().map(str::trim).filter(|row| !row.is_empty() && !row.starts_with('#'));
    let keys: Vec<&str> = rows.next().unwrap_or_default().split(',').map(str::trim).collect();
    let group = |(number, row): (usize, &str)| {
        let cells = keys.iter().zip(row.split(',')).filter(|(key, cell)| !key.is_empty() && !cell.trim().is_empty());
        let entries = cells.map(|(key, cell)| Entry { key: (*key).to_owned(), value: cell.trim().to_owned(), line });
        Group { name: format!("source{number}"), line, entries: entries.collect() }
    };
    let groups: Vec<Group> = rows.take(SOURCES_MAX as usize).enumerate().map(group).collect();
    file.groups.splice(place + 1..place + 1, groups);
}

/// The streams of a `[sourceN]`; `first` is the index of the first.
pub(super) fn streams(section: &Section<'_>, first: usize, files: &Files<'_>) -> Vec<Stream> {
    let attributes = Attributes::read(section);
    let uris = match attributes.kind {
        Some(1) => vec![format!("v4l2:///dev/video{}", attributes.v4l2)],
        Some(5) => vec![format!("csi://{}", attributes.csi)],
        Some(2..=4) => {
            let Some(uri) = attributes.uri else {
                section.problem("uri", "this key is missing");
                return Vec::new();
            };
            let count = if attributes.kind == Some(3) { attributes.count } else { 1 };
            let numbered = |number: u32| match attributes.kind {
                Some(3) => uri.replace("%d", &number.to_string()),
                _ => uri.to_owned(),
            };
            (0..count).filter_map(|number| address(section, "uri", &numbered(number), files)).collect()
        }
        Some(other) => {
            let message = match other {
                6 => "ALSA (6) is audio; there is none here: set `enable=0`".to_owned(),
                7 | 8 => "sources of other processes (7, 8) are not read: let the other process serve RTSP".to_owned(),
                _ => format!("expected a type from 1 to 5, got {other}"),
            };
            section.problem("type", message);
            return Vec::new();
        }
        None => {
            section.problem("type", "this key is missing: 1 V4L2, 2 URI, 3 several URIs, 4 RTSP, 5 CSI");
            return Vec::new();
        }
    };
    let named = uris.iter().zip(first..);
    named.map(|(uri, index)| attributes.stream(uri, format!("source{index}"))).collect()
}

/// The streams of a `[source-list]`, each with the attributes of `[source-attr-all]`.
pub(super) fn listed(list: &Section<'_>, all: Option<&Section<'_>>, files: &Files<'_>) -> Vec<Stream> {
    let uris = list.texts("list").unwrap_or_default();
    let count = list.count("num-source-bins").unwrap_or(0) as usize;
    if count > uris.len() {
        list.problem("num-source-bins", format!("{count} sources, but `list` has {}", uris.len()));
    }
    let ids = list.texts("sensor-id-list").unwrap_or_default();
    let section = all.unwrap_or(list);
    let attributes = all.map(Attributes::read);
    let mut streams = Vec::new();
    for (index, uri) in uris.iter().enumerate().take(count) {
        let Some(uri) = address(list, "list", uri, files) else { continue };
        let id = ids.get(index).map_or_else(|| format!("source{index}"), |id| id.clone());
        if !is_stream_id(&id) {
            list.problem("sensor-id-list", format!("`{id}` is no stream's id: letters, digits, `-`, `_` and `.` are"));
            continue;
        }
        match &attributes {
            Some(attributes) => streams.push(attributes.stream(&uri, id)),
            None => {
                section.problem("", "a list needs a group `source-attr-all`, with `enable=1`");
                return streams;
            }
        }
    }
    streams
}

/// An address of DeepStream as one of ours; relative files are those of the application's folder.
fn address(section: &Section<'_>, key: &str, uri: &str, files: &Files<'_>) -> Option<String> {
    let ours = match uri.split_once(':') {
        Some(("csi", number)) if !number.starts_with('/') => format!("csi://{number}"),
        Some(("usb", number)) if !number.starts_with('/') => format!("v4l2:///dev/video{number}"),
        Some(("file", path)) if path.starts_with("//") => {
            files.shown(&files.resolve(Path::new(""), &unescaped(&path[2..])))
        }
        Some((_, rest)) if rest.starts_with("//") => uri.to_owned(),
        _ => files.shown(&files.resolve(Path::new(""), uri)),
    };
    match SourceConfig::parse(&ours) {
        Ok(_) => Some(ours),
        Err(message) => {
            section.problem(key, message);
            None
        }
    }
}

/// `%20` is a blank in an address, and not in a path.
fn unescaped(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.filter(|_| *first == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn escapes_of_addresses_are_bytes_of_paths() {
        for (uri, path) in [("a%20b", "a b"), ("100%", "100%"), ("%zz%4", "%zz%4"), ("%c3%a9", "é"), ("%ff", "%ff")] {
            assert_eq!(unescaped(uri), path);
        }
    }
}
