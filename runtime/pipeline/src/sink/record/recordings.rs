//! What stands beside a recording.

use std::path::Path;

use revoada_core::{StreamId, Timestamp};
use serde::{Deserialize, Serialize};

use super::events::rfc3339;
use super::{EventRecord, VERSION, rounded};

/// Events that are named beside one recording; the others are counted.
const EVENTS_MAX: usize = 1000;

/// The file beside a recording, `NAME.recording.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingRecord {
    /// Of this schema.
    pub version: u32,
    /// Id of the stream.
    pub stream: String,
    /// The recording's, in the same folder.
    pub file: String,
    /// What it begins with: the kind of an event, `manual`, or `continued` where an earlier one could not hold it.
    pub cause: String,
    /// Presentation time of the first frame in milliseconds since the stream's start.
    pub start_pts_ms: f64,
    /// Of the last frame.
    pub end_pts_ms: f64,
    /// Time of day of the first frame of a live stream, as RFC 3339 in UTC; absent for files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    pub frames: u64,
    /// What happened in it, as far as it is recorded for; in the order of time.
    pub events: Vec<EventRecord>,
    /// Further events, beyond the first thousand.
    #[serde(default)]
    pub events_left_out: u64,
}

impl RecordingRecord {
    pub(in crate::sink) fn new(
        stream: &StreamId,
        path: &Path,
        cause: &str,
        start: (Timestamp, Option<Timestamp>),
    ) -> Self {
        let (pts, wall) = start;
        Self {
            version: VERSION,
            stream: stream.to_string(),
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            cause: cause.to_owned(),
            start_pts_ms: ms(pts),
            end_pts_ms: ms(pts),
            start_time: wall.map(rfc3339),
            frames: 0,
            events: Vec::new(),
            events_left_out: 0,
        }
    }

    pub(in crate::sink) fn add_frame(&mut self, pts: Timestamp) {
        self.frames += 1;
        self.end_pts_ms = ms(pts);
    }

    pub(in crate::sink) fn add_events(&mut self, events: Vec<EventRecord>) {
        let room = EVENTS_MAX - self.events.len();
        self.events_left_out += events.len().saturating_sub(room) as u64;
        self.events.extend(events.into_iter().take(room));
    }
}

fn ms(pts: Timestamp) -> f64 {
    rounded(pts.as_nanos() as f64 / 1e6, 3)
}
