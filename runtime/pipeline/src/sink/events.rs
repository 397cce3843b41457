//! Events only, as JSON Lines: a header, then one line an event. See [`record`](super::record) for the fields.

use std::path::Path;

use revoada_core::StreamId;

use super::SinkContext;
use super::jsonl::{Files, header, to_line};
use super::record::{EventRecord, Record};
use crate::{FrameResult, Sink, SinkError, SinkReport};

pub(super) struct EventsSink {
    files: Files,
    line: Vec<u8>,
}

impl EventsSink {
    pub(super) fn open(path: &Path, context: &SinkContext) -> Result<Self, SinkError> {
        let mut files = Files::open(path, &context.streams, header(context))?;
        files.flush()?;
        Ok(Self { files, line: Vec::new() })
    }
}

impl Sink for EventsSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        let mut any = false;
        for event in EventRecord::of(result) {
            any = true;
            to_line(&Record::Event(event), &mut self.line);
            self.files.write_line(&result.frame.stream, &self.line)?;
        }
        // They are few, and each may be what somebody waits for.
        if any { self.files.flush() } else { Ok(()) }
    }

    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        self.files.end_stream(stream)
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        self.files.finish()
    }
}
