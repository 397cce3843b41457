//! JSON Lines: a header, then one line a frame. See [`record`](super::record) for the fields.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;

use revoada_core::StreamId;
use serde::Serialize;

use super::SinkContext;
use super::output::{Claims, Output, is_per_stream};
use super::record::{FrameRecord, HeaderRecord, Record, VERSION};
use crate::{FrameResult, Sink, SinkError, SinkReport};

/// Makes the line that a file of these streams begins with.
pub(super) type FirstLine = Box<dyn Fn(&[StreamId]) -> Vec<u8> + Send>;

/// Text files of results: one for all streams, or one for each where the path says `{stream}`.
pub(super) struct Files {
    first_line: FirstLine,
    open: Open,
    finished: Vec<PathBuf>,
}

enum Open {
    Shared(Option<Output>),
    PerStream { claims: Claims, outputs: BTreeMap<StreamId, Output> },
}

impl Files {
    /// Opens the files of all streams at once, so that one that cannot be written fails early.
    pub(super) fn open(template: &Path, streams: &[StreamId], first_line: FirstLine) -> Result<Self, SinkError> {
        let open = if is_per_stream(template) {
            let mut claims = Claims::new(template);
            let begin = |stream: &StreamId| Ok((stream.clone(), begin(&mut claims, stream, &first_line)?));
            let outputs = streams.iter().map(begin).collect::<Result<_, SinkError>>()?;
            Open::PerStream { claims, outputs }
        } else {
            let mut output = Output::create(template)?;
            output.write_line(&first_line(streams))?;
            Open::Shared(Some(output))
        };
        Ok(Self { first_line, open, finished: Vec::new() })
    }

    /// Streams may join while the pipeline runs; the file of such a one is opened by its first line.
    pub(super) fn write_line(&mut self, stream: &StreamId, line: &[u8]) -> Result<(), SinkError> {
        match &mut self.open {
            Open::Shared(output) => output.as_mut().expect("nothing is written after the end").write_line(line),
            Open::PerStream { claims, outputs } => {
                if !outputs.contains_key(stream) {
                    outputs.insert(stream.clone(), begin(claims, stream, &self.first_line)?);
                }
                outputs.get_mut(stream).expect("it was just added where it was missing").write_line(line)
            }
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), SinkError> {
        match &mut self.open {
            Open::Shared(output) => output.iter_mut().try_for_each(Output::flush),
            Open::PerStream { outputs, .. } => outputs.values_mut().try_for_each(Output::flush),
        }
    }

    pub(super) fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        if let Open::PerStream { outputs, .. } = &mut self.open
            && let Some(output) = outputs.remove(stream)
        {
            self.finished.push(output.finish()?);
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<SinkReport, SinkError> {
        let outputs = match &mut self.open {
            Open::Shared(output) => output.take().into_iter().collect(),
            Open::PerStream { outputs, .. } => std::mem::take(outputs).into_values().collect::<Vec<_>>(),
        };
        // All are completed before the first error is told.
        let completed: Vec<_> = outputs.into_iter().map(Output::finish).collect();
        let mut files = std::mem::take(&mut self.finished);
        for path in completed {
            files.push(path?);
        }
        Ok(SinkReport { files })
    }
}

fn begin(claims: &mut Claims, stream: &StreamId, first_line: &FirstLine) -> Result<Output, SinkError> {
    let mut output = Output::create(&claims.claim(stream)?)?;
    output.write_line(&first_line(slice::from_ref(stream)))?;
    Ok(output)
}

pub(super) struct JsonLinesSink {
    files: Files,
    with_timings: bool,
    line: Vec<u8>,
}

impl JsonLinesSink {
    pub(super) fn open(path: &Path, context: &SinkContext) -> Result<Self, SinkError> {
        let files = Files::open(path, &context.streams, header(context))?;
        Ok(Self { files, with_timings: !context.deterministic, line: Vec::new() })
    }
}

/// The line that files of records begin with.
pub(super) fn header(context: &SinkContext) -> FirstLine {
    let SinkContext { model, labels, .. } = context.clone();
    Box::new(move |streams: &[StreamId]| {
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
    })
}

impl Sink for JsonLinesSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        let mut record = FrameRecord::from(result);
        record.timings_ms = record.timings_ms.filter(|_| self.with_timings);
        to_line(&Record::Frame(record), &mut self.line);
        self.files.write_line(&result.frame.stream, &self.line)
    }

    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        self.files.end_stream(stream)
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        self.files.finish()
    }
}

/// Replaces `line` with the record and a line break.
pub(super) fn to_line(record: &impl Serialize, line: &mut Vec<u8>) {
    line.clear();
    serde_json::to_writer(&mut *line, record).expect("a record has string keys and is written to memory");
    line.push(b'\n');
}
