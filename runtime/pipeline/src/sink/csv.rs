//! Comma-separated values (RFC 4180), one row per detection, class or segment.
//!
//! Columns: `stream, frame, pts_ms, kind, class, label, score, x, y, width, height, track`. `kind` is
//! `detection`, `classification` or `segment`; only a detection has a box, in pixels of the
//! picture, and a track, where it is tracked; a segment's score is its share of the picture. Landmarks and masks are in JSON Lines.

use std::fmt::{self, Write as _};
use std::path::Path;

use revoada_core::StreamId;

use super::SinkContext;
use super::jsonl::Files;
use super::record::{DetectionRecord, FrameRecord};
use crate::{FrameResult, Sink, SinkError, SinkReport};

const HEADER: &str = "stream,frame,pts_ms,kind,class,label,score,x,y,width,height,track\n";

pub(super) struct CsvSink {
    files: Files,
    rows: String,
}

impl CsvSink {
    pub(super) fn open(path: &Path, context: &SinkContext) -> Result<Self, SinkError> {
        let files = Files::open(path, &context.streams, Box::new(|_| HEADER.into()))?;
        Ok(Self { files, rows: String::new() })
    }
}

impl Sink for CsvSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        self.rows.clear();
        push_rows(&mut self.rows, &FrameRecord::from(result)).expect("a string takes whatever is written to it");
        if self.rows.is_empty() {
            return Ok(());
        }
        self.files.write_line(&result.frame.stream, self.rows.as_bytes())
    }

    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        self.files.end_stream(stream)
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        self.files.finish()
    }
}

fn push_rows(rows: &mut String, record: &FrameRecord) -> fmt::Result {
    let mut row = |kind: &str, class: u32, label: &Option<String>, score: f64, found: Option<&DetectionRecord>| {
        push_field(rows, &record.stream);
        write!(rows, ",{},{},{kind},{class},", record.frame, record.pts_ms)?;
        push_field(rows, label.as_deref().unwrap_or(""));
        write!(rows, ",{score}")?;
        let Some(&DetectionRecord { bbox: [x, y, width, height], track, .. }) = found else {
            return writeln!(rows, ",,,,,");
        };
        write!(rows, ",{x},{y},{width},{height},")?;
        match track {
            Some(track) => writeln!(rows, "{track}"),
            None => writeln!(rows),
        }
    };
    for found in &record.detections {
        row("detection", found.class, &found.label, found.score, Some(found))?;
    }
    for guess in &record.classifications {
        row("classification", guess.class, &guess.label, guess.score, None)?;
    }
    for segment in record.segmentation.iter().flat_map(|segmentation| &segmentation.shares) {
        row("segment", segment.class, &segment.label, segment.share, None)?;
    }
    Ok(())
}

/// Quotes what would end the field or the row.
fn push_field(rows: &mut String, field: &str) {
    if field.contains([',', '"', '\n', '\r']) {
        rows.push('"');
        rows.push_str(&field.replace('"', "\"\""));
        rows.push('"');
    } else {
        rows.push_str(field);
    }
}
