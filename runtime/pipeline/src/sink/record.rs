//! What one frame's results look like to a machine: the schema of JSON Lines, version 1.
//!
//! `schema/results-v1.schema.json` says the same as a JSON Schema. A field may be added within a
//! version; one that is renamed, removed or changes its meaning makes a new version.

mod events;
mod recordings;

use std::time::Duration;

use revoada_core::{Attribute, Classification, Detection, Segmentation};
use serde::{Deserialize, Serialize};

use crate::{FrameResult, FrameTimings};

pub(super) use events::rfc3339;
pub use events::{
    ClassCrossingsRecord, CountsRecord, CrossingsRecord, DirectionRecord, EventRecord, LineRecord, RegionRecord, Way,
};
pub use recordings::RecordingRecord;

pub const VERSION: u32 = 1;

/// One line: the first is a header, each further one a frame or, in a file of events, an event. Told apart by `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    Header(HeaderRecord),
    Frame(FrameRecord),
    Event(EventRecord),
}

/// What holds for all lines that follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeaderRecord {
    /// Of this schema.
    pub version: u32,
    /// The program and its version, `revoada 0.1.0`.
    pub producer: String,
    /// The model's name.
    pub model: String,
    /// Ids of the streams at the start; others may join later.
    pub streams: Vec<String>,
    /// The model's classes in order; `class` is an index into it.
    pub labels: Vec<String>,
}

/// All that is known about one frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameRecord {
    /// Of this schema.
    pub version: u32,
    /// Id of the stream.
    pub stream: String,
    /// Counts the stream's frames from 0; frames that were dropped leave gaps.
    pub frame: u64,
    /// Presentation time in milliseconds since the stream's start.
    pub pts_ms: f64,
    /// Of the picture, in pixels.
    pub width: usize,
    /// Of the picture, in pixels.
    pub height: usize,
    /// Objects: those of whole pictures by falling score, then what was found in them.
    pub detections: Vec<DetectionRecord>,
    /// A classifier's best guesses, by falling score.
    pub classifications: Vec<ClassRecord>,
    /// Absent where the model does not segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<SegmentationRecord>,
    /// What the objects did in this frame; absent where nothing happened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventRecord>,
    /// The counts of the stream's lines, regions and directions; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<CountsRecord>,
    /// Absent from a deterministic run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timings_ms: Option<TimingsRecord>,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectionRecord {
    /// Index of the class.
    pub class: u32,
    /// Name of the class; absent where the model has no labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Confidence, 0 to 1.
    pub score: f64,
    /// Left, top, width, height in pixels of the picture; may reach past its border.
    #[serde(rename = "box")]
    pub bbox: [f64; 4],
    /// Points as [x, y] in pixels of the picture, in the model's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub landmarks: Vec<[f64; 2]>,
    /// Number of its track in the stream, from 1; absent where nothing is tracked or no track is sure of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<u64>,
    /// What further models say about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<AttributeRecord>,
    /// The object in which it was found, as an index into the frame's detections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<usize>,
}

/// What a classifier says about one object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttributeRecord {
    /// The classifier's name.
    pub name: String,
    /// Its class's label, or number.
    pub value: String,
    /// Confidence, 0 to 1.
    pub score: f64,
}

/// One guess about the whole picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassRecord {
    /// Index of the class.
    pub class: u32,
    /// Name of the class; absent where the model has no labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Confidence, 0 to 1.
    pub score: f64,
}

/// A class for every cell of a grid over the picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentationRecord {
    /// Cells in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The part of the picture that the grid covers: left, top, width, height in pixels.
    pub area: [f64; 4],
    /// The classes that occur and their share of the cells, by falling share.
    pub shares: Vec<ShareRecord>,
    /// The grid row by row as runs: class, count, class, count, …; the counts add up to
    /// `width * height`.
    pub runs: Vec<usize>,
}

/// How much of the grid one class has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareRecord {
    /// Index of the class.
    pub class: u32,
    /// Name of the class; absent where the model has no labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Share of the cells, 0 to 1.
    pub share: f64,
}

/// Where the frame's time went, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimingsRecord {
    /// In the stream's queue and the mux.
    pub queued: f64,
    /// From pixels to the network's input.
    pub staging: f64,
    /// Of the frame's whole batch.
    pub inference: f64,
    /// From the network's outputs to results.
    pub decoding: f64,
    /// Of the further models, for the frame's whole batch.
    #[serde(default)]
    pub secondary: f64,
    /// Following objects.
    #[serde(default)]
    pub tracking: f64,
    /// Drawing and anonymising.
    pub drawing: f64,
    /// From leaving the video decoder to entering the sinks.
    pub total: f64,
}

impl From<&FrameResult> for FrameRecord {
    fn from(result: &FrameResult) -> Self {
        let (frame, labels) = (&result.frame, &result.labels[..]);
        let prediction = &result.prediction;
        Self {
            version: VERSION,
            stream: frame.stream.to_string(),
            frame: frame.sequence,
            pts_ms: rounded(frame.pts.as_nanos() as f64 / 1e6, 3),
            width: frame.size().width,
            height: frame.size().height,
            detections: prediction.detections.iter().map(|found| detection(found, labels)).collect(),
            classifications: prediction.classifications.iter().map(|guess| class(guess, labels)).collect(),
            segmentation: prediction.segmentation.as_ref().map(|grid| segmentation(grid, labels)),
            events: EventRecord::of(result).collect(),
            counts: result.analysis.as_deref().map(CountsRecord::from),
            timings_ms: Some(timings(&result.timings)),
        }
    }
}

fn label(class: u32, labels: &[String]) -> Option<String> {
    labels.get(class as usize).cloned()
}

fn detection(found: &Detection, labels: &[String]) -> DetectionRecord {
    let bbox = found.bbox;
    DetectionRecord {
        class: found.class,
        label: label(found.class, labels),
        score: score(found.score),
        bbox: [bbox.x, bbox.y, bbox.width, bbox.height].map(pixels),
        landmarks: found.landmarks.iter().map(|point| [pixels(point.x), pixels(point.y)]).collect(),
        track: found.track.map(|track| track.0),
        attributes: found.attributes.iter().map(attribute).collect(),
        parent: found.parent,
    }
}

fn attribute(said: &Attribute) -> AttributeRecord {
    AttributeRecord { name: said.name.to_string(), value: said.value.to_string(), score: score(said.score) }
}

fn class(guess: &Classification, labels: &[String]) -> ClassRecord {
    ClassRecord { class: guess.class, label: label(guess.class, labels), score: score(guess.score) }
}

fn segmentation(grid: &Segmentation, labels: &[String]) -> SegmentationRecord {
    let mut counts = [0usize; 256];
    let mut runs: Vec<usize> = Vec::new();
    for &class in &grid.classes {
        counts[usize::from(class)] += 1;
        match runs.as_mut_slice() {
            [.., last, count] if *last == usize::from(class) => *count += 1,
            _ => runs.extend([usize::from(class), 1]),
        }
    }
    let total = grid.classes.len().max(1) as f64;
    let mut shares: Vec<_> = (0u32..)
        .zip(counts)
        .filter(|&(_, count)| count > 0)
        .map(|(class, count)| ShareRecord {
            class,
            label: label(class, labels),
            share: rounded(count as f64 / total, 4),
        })
        .collect();
    shares.sort_by(|a, b| b.share.total_cmp(&a.share));
    let area = grid.area;
    SegmentationRecord {
        width: grid.width,
        height: grid.height,
        area: [area.x, area.y, area.width, area.height].map(pixels),
        shares,
        runs,
    }
}

fn timings(timings: &FrameTimings) -> TimingsRecord {
    let ms = |duration: Duration| rounded(duration.as_secs_f64() * 1e3, 3);
    TimingsRecord {
        queued: ms(timings.queued),
        staging: ms(timings.staging),
        inference: ms(timings.inference),
        decoding: ms(timings.decoding),
        secondary: ms(timings.secondary),
        tracking: ms(timings.tracking),
        drawing: ms(timings.drawing),
        total: ms(timings.total),
    }
}

/// A hundredth of a pixel is finer than any detector sees.
fn pixels(value: f32) -> f64 {
    rounded(f64::from(value), 2)
}

fn score(value: f32) -> f64 {
    rounded(f64::from(value), 4)
}

/// JSON has no word for NaN and infinity: they become 0 and the largest of a network's numbers, so
/// that a line always holds to the schema.
fn rounded(value: f64, decimals: i32) -> f64 {
    if value.is_nan() {
        return 0.0;
    }
    let unit = 10f64.powi(decimals);
    let value = (value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) * unit).round() / unit;
    // Not −0, which reads as a mistake.
    value + 0.0
}
