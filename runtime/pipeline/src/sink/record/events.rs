//! What tracked objects did: events and counts.

use std::time::Duration;

use revoada_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::{VERSION, label, pixels, rounded};
use crate::FrameResult;
use crate::analyse::{Analysis, Crossing, Crossings, Event, EventKind};

/// Something that happened in one frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Of this schema.
    pub version: u32,
    /// Told once in a run, and the same whenever the same file is run. For live streams it has the time in it and is
    /// told once ever.
    pub id: String,
    /// Id of the stream.
    pub stream: String,
    /// The stream's frame.
    pub frame: u64,
    /// Presentation time of the frame in milliseconds since the stream's start.
    pub pts_ms: f64,
    /// Time of day when a live stream's frame was captured, as RFC 3339 in UTC; absent for files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// What happened: one of [`EventKind::NAMES`].
    pub event: String,
    /// Name of the line, region or direction.
    pub rule: String,
    /// The object's track; absent, like the three below, where the region as a whole is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<u64>,
    /// Index of the object's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<u32>,
    /// Name of the object's class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Left, top, width, height in pixels of the picture; where the object was seen last.
    #[serde(rename = "box", default, skip_serializing_if = "Option::is_none")]
    pub bbox: Option<[f64; 4]>,
    /// Of a crossing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// All that have crossed the line, with this one.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub crossings: Option<CrossingsRecord>,
    /// How long the object stayed, or the crowd lasted, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasted_ms: Option<f64>,
    /// Objects in the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<u64>,
    /// The object was not seen to leave but not seen any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
    /// File of the frame's picture, on the device; absent where none is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    In,
    Out,
}

/// The counts of a stream's rules since it began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CountsRecord {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<LineRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directions: Vec<DirectionRecord>,
}

/// What has crossed a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossingsRecord {
    #[serde(rename = "in")]
    pub inwards: u64,
    #[serde(rename = "out")]
    pub outwards: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LineRecord {
    pub name: String,
    #[serde(flatten)]
    pub crossings: CrossingsRecord,
    /// Those classes that have crossed.
    pub classes: Vec<ClassCrossingsRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassCrossingsRecord {
    /// Index of the class.
    pub class: u32,
    /// Name of the class; absent where the model has no labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    #[serde(flatten)]
    pub crossings: CrossingsRecord,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionRecord {
    pub name: String,
    /// In it now.
    pub objects: u64,
    /// Tracks that came in.
    pub entered: u64,
    /// Tracks that left.
    pub left: u64,
    /// Stays that reached the time to tell.
    pub dwelt: u64,
    /// Whether too many have been in it for too long.
    pub crowded: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DirectionRecord {
    pub name: String,
    /// Moving along it now.
    pub objects: u64,
    /// Times that a track began to.
    pub taken: u64,
}

impl EventRecord {
    /// What happened in a frame.
    pub fn of(result: &FrameResult) -> impl Iterator<Item = Self> + '_ {
        let events = result.analysis.iter().flat_map(|analysis| &analysis.events).enumerate();
        events.map(|(index, event)| Self::new(event, index, result))
    }

    fn new(event: &Event, index: usize, result: &FrameResult) -> Self {
        let frame = &result.frame;
        let mut id = format!("{}-{}-{index}", frame.stream, frame.sequence);
        if let Some(wall) = result.wall {
            id += &format!("-{}", wall.as_nanos() / 1_000_000);
        }
        let mut record = Self {
            version: VERSION,
            id,
            stream: frame.stream.to_string(),
            frame: frame.sequence,
            pts_ms: rounded(frame.pts.as_nanos() as f64 / 1e6, 3),
            time: result.wall.map(rfc3339),
            event: event.kind.name().to_owned(),
            rule: event.rule.clone(),
            track: event.track.map(|track| track.0),
            class: event.class,
            label: event.class.and_then(|class| label(class, &result.labels)),
            bbox: event.bbox.map(|bbox| [bbox.x, bbox.y, bbox.width, bbox.height].map(pixels)),
            way: None,
            crossings: None,
            lasted_ms: None,
            objects: None,
            lost: false,
            snapshot: None,
        };
        let ms = |duration: Duration| Some(rounded(duration.as_secs_f64() * 1e3, 3));
        match event.kind {
            EventKind::Crossed { crossing, count } => {
                record.way = Some(match crossing {
                    Crossing::In => Way::In,
                    Crossing::Out => Way::Out,
                });
                record.crossings = Some(count.into());
            }
            EventKind::Entered | EventKind::Took => {}
            EventKind::Left { stayed, is_lost } => (record.lasted_ms, record.lost) = (ms(stayed), is_lost),
            EventKind::Dwelt { stayed } => record.lasted_ms = ms(stayed),
            EventKind::CrowdBegan { objects, lasted } | EventKind::CrowdEnded { objects, lasted } => {
                (record.objects, record.lasted_ms) = (Some(objects), ms(lasted));
            }
        }
        record
    }
}

impl From<Crossings> for CrossingsRecord {
    fn from(Crossings { inwards, outwards }: Crossings) -> Self {
        Self { inwards, outwards }
    }
}

impl From<&Analysis> for CountsRecord {
    fn from(analysis: &Analysis) -> Self {
        let Analysis { rules, counts, .. } = analysis;
        let lines = rules.lines.iter().zip(&counts.lines).map(|(rule, count)| LineRecord {
            name: rule.config.scope.name.clone(),
            crossings: count.total.into(),
            classes: count
                .classes
                .iter()
                .map(|(class, count)| ClassCrossingsRecord {
                    class: *class,
                    label: label(*class, &rules.labels),
                    crossings: (*count).into(),
                })
                .collect(),
        });
        let regions = rules.regions.iter().zip(&counts.regions).map(|(rule, count)| RegionRecord {
            name: rule.config.scope.name.clone(),
            objects: count.objects,
            entered: count.entered,
            left: count.left,
            dwelt: count.dwelt,
            crowded: count.is_crowded,
        });
        let directions = rules.directions.iter().zip(&counts.directions).map(|(rule, count)| DirectionRecord {
            name: rule.config.scope.name.clone(),
            objects: count.objects,
            taken: count.taken,
        });
        Self { lines: lines.collect(), regions: regions.collect(), directions: directions.collect() }
    }
}

/// `2026-11-29T01:48:40.123Z`, of a time since Unix time began. The date is counted as in Hinnant's "chrono-compatible
/// low-level date algorithms": years begin in March, so that the day that some have and some have not is their last.
pub(in crate::sink) fn rfc3339(wall: Timestamp) -> String {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let ms = wall.as_nanos() / 1_000_000;
    let (s, ms) = (ms / 1000, ms % 1000);
    // From 1 March of the year 0.
    let days = s / 86_400 + 719_468;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + u64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z", s / 3600 % 24, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_are_written_as_everybody_reads_them() {
        for (s, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (68_169_599, "1972-02-28T23:59:59.000Z"),
            (68_169_600, "1972-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_764_380_920, "2025-11-29T01:48:40.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Timestamp::ZERO + Duration::from_secs(s)), expected);
        }
        assert_eq!(rfc3339(Timestamp::from_nanos(1_999_999)), "1970-01-01T00:00:00.001Z");
    }
}
