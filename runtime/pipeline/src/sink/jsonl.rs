//! JSON Lines: a header, then one line a frame. See [`record`](super::record) for the fields.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;

use revoada_core::StreamId;
use serde::Serialize;

use super::SinkContext;
use super::output::{Output, check_distinct, is_per_stream, path_for};
use super::record::{FrameRecord, HeaderRecord, Record, VERSION};
use crate::{FrameResult, Sink, SinkError, SinkReport};

/// Makes the line that a file of these streams begins with.
pub(super) type FirstLine = Box<dyn Fn(&[StreamId]) -> Vec<u8> + Send>;

/// Text files of results: one for all streams, or one for each where the path says `{stream}`.
pub(super) struct Files {
    template: PathBuf,
    first_line: FirstLine,
    files: BTreeMap<PathBuf, Output>,
}

impl Files {
    /// Opens the files of all streams at once, so that one that cannot be written fails early.
    pub(super) fn open(template: &Path, streams: &[StreamId], first_line: FirstLine) -> Result<Self, SinkError> {
        let mut files = Self { template: template.to_path_buf(), first_line, files: BTreeMap::new() };
        if is_per_stream(template) {
            check_distinct(template, streams)?;
            streams.iter().try_for_each(|stream| files.add(path_for(template, stream), slice::from_ref(stream)))?;
        } else {
            files.add(template.to_path_buf(), streams)?;
        }
        Ok(files)
    }

    fn add(&mut self, path: PathBuf, streams: &[StreamId]) -> Result<(), SinkError> {
        let mut output = Output::create(&path)?;
        output.write_line(&(self.first_line)(streams))?;
        self.files.insert(path, output);
        Ok(())
    }

    /// Streams may join while the pipeline runs; the file of such a one is opened by its first line.
    pub(super) fn write_line(&mut self, stream: &StreamId, line: &[u8]) -> Result<(), SinkError> {
        let path = path_for(&self.template, stream);
        if !self.files.contains_key(&path) {
            self.add(path.clone(), slice::from_ref(stream))?;
        }
        self.files.get_mut(&path).expect("the file was just added where it was missing").write_line(line)
    }

    pub(super) fn finish(&mut self) -> Result<SinkReport, SinkError> {
        // All are completed before the first error is told.
        let finished: Vec<_> = std::mem::take(&mut self.files).into_values().map(Output::finish).collect();
        Ok(SinkReport { files: finished.into_iter().collect::<Result<_, _>>()? })
    }
}

pub(super) struct JsonLinesSink {
    files: Files,
    line: Vec<u8>,
}

impl JsonLinesSink {
    pub(super) fn open(path: &Path, context: &SinkContext) -> Result<Self, SinkError> {
        let SinkContext { model, labels, .. } = context.clone();
        let header = move |streams: &[StreamId]| {
            let mut line = Vec::new();
            let header = HeaderRecord {
                version: VERSION,
                producer: concat!("revoada ", env!("CARGO_PKG_VERSION")).to_owned(),
                model: model.clone(),
                streams: streams.iter().map(StreamId::to_string).collect(),
                labels: labels.to_vec(),
            };
            to_line(&Record::Header(header), &mut line);
            line
        };
        Ok(Self { files: Files::open(path, &context.streams, Box::new(header))?, line: Vec::new() })
    }
}

impl Sink for JsonLinesSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        to_line(&Record::Frame(FrameRecord::from(result)), &mut self.line);
        self.files.write_line(&result.frame.stream, &self.line)
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        self.files.finish()
    }
}

/// Replaces `line` with the record and a line break.
fn to_line(record: &impl Serialize, line: &mut Vec<u8>) {
    line.clear();
    serde_json::to_writer(&mut *line, record).expect("a record has string keys and is written to memory");
    line.push(b'\n');
}
