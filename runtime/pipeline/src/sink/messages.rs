//! Messages, and files of them as JSON Lines; [`payload`](super::payload) says what stands in one.

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use revoada_core::{StreamId, Timestamp};
use uuid::Uuid;

use super::SinkContext;
use super::jsonl::Files;
use super::payload::{self, Stamp};
use crate::config::Payload;
use crate::{FrameResult, Sink, SinkError, SinkReport};

/// Makes the messages of every n-th frame of each stream.
pub(super) struct Messages {
    payload: Payload,
    every: u64,
    /// The model's name.
    model: String,
    /// Frames seen, per stream.
    seen: HashMap<StreamId, u64>,
}

impl Messages {
    pub(super) fn new(payload: Payload, every: u32, context: &SinkContext) -> Self {
        Self { payload, every: every.max(1).into(), model: context.model.clone(), seen: HashMap::new() }
    }

    /// What one of them tells of.
    pub(super) fn kind(&self) -> &'static str {
        match self.payload {
            Payload::DeepStreamFull => "object",
            Payload::DeepStreamMinimal => "frame",
        }
    }

    pub(super) fn of(&mut self, result: &FrameResult) -> Vec<String> {
        let seen = self.seen.entry(result.frame.stream.clone()).or_default();
        let wanted = seen.is_multiple_of(self.every);
        *seen += 1;
        if !wanted {
            return Vec::new();
        }
        // A camera's frame knows when it was taken; a file's is as old as its message.
        let at = result.wall.map_or_else(SystemTime::now, |wall| SystemTime::UNIX_EPOCH + wall.since(Timestamp::ZERO));
        match self.payload {
            Payload::DeepStreamFull => {
                payload::full(result, &self.model, at, || Stamp { message: Uuid::new_v4(), event: Uuid::new_v4() })
            }
            Payload::DeepStreamMinimal => vec![payload::minimal(result, at)],
        }
    }

    /// One that comes again is counted anew.
    pub(super) fn end_stream(&mut self, stream: &StreamId) {
        self.seen.remove(stream);
    }
}

pub(super) struct MessagesSink {
    files: Files,
    messages: Messages,
}

impl MessagesSink {
    pub(super) fn open(path: &Path, payload: Payload, every: u32, context: &SinkContext) -> Result<Self, SinkError> {
        let files = Files::open(path, &context.streams, Box::new(|_| Vec::new()))?;
        Ok(Self { files, messages: Messages::new(payload, every, context) })
    }
}

impl Sink for MessagesSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        for mut message in self.messages.of(result) {
            message.push('\n');
            self.files.write_line(&result.frame.stream, message.as_bytes())?;
        }
        Ok(())
    }

    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        self.messages.end_stream(stream);
        self.files.end_stream(stream)
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        self.files.finish()
    }
}
