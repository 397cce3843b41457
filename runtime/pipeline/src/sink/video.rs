//! One video file per stream.
//!
//! A stream that changes its picture size begins a new file, `name-2.mp4` after `name.mp4`: players
//! do not cope with a film that changes size, and scaling it would falsify what was seen. So does a
//! stream that comes again after it had ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use revoada_core::{Size, StreamId};

use super::SinkContext;
use super::output::Claims;
use crate::media::VideoWriter;
use crate::{FrameResult, Sink, SinkError, SinkReport};

pub(super) struct VideoSink {
    claims: Claims,
    bitrate_kbps: Option<u32>,
    recordings: BTreeMap<StreamId, Recording>,
    finished: Vec<PathBuf>,
}

struct Recording {
    writer: VideoWriter,
    path: PathBuf,
    /// `None` before the first frame.
    size: Option<Size>,
}

impl VideoSink {
    pub(super) fn open(path: &Path, bitrate_kbps: Option<u32>, context: &SinkContext) -> Result<Self, SinkError> {
        let mut sink =
            Self { claims: Claims::new(path), bitrate_kbps, recordings: BTreeMap::new(), finished: Vec::new() };
        for stream in &context.streams {
            let recording = sink.begin(stream)?;
            sink.recordings.insert(stream.clone(), recording);
        }
        Ok(sink)
    }

    fn begin(&mut self, stream: &StreamId) -> Result<Recording, SinkError> {
        let path = self.claims.claim(stream)?;
        let writer = VideoWriter::create(&path, self.bitrate_kbps)?;
        Ok(Recording { writer, path, size: None })
    }

    /// A stream that never had a frame leaves no file.
    fn complete(&mut self, stream: &StreamId, recording: Recording) -> Result<(), SinkError> {
        if recording.size.is_some() {
            self.finished.push(recording.writer.finish()?);
        } else {
            tracing::warn!(%stream, file = %recording.path.display(), "no frames came: there is no video");
        }
        Ok(())
    }
}

impl Sink for VideoSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        let frame = result.picture();
        let mut recording = match self.recordings.remove(&frame.stream) {
            Some(recording) => recording,
            // A stream that joined while the pipeline runs.
            None => self.begin(&frame.stream)?,
        };
        if let Some(before) = recording.size.filter(|size| *size != frame.size()) {
            let next = self.begin(&frame.stream)?;
            tracing::warn!(
                stream = %frame.stream, %before, now = %frame.size(), file = %next.path.display(),
                "the picture changed its size: the video goes on in a new file"
            );
            self.complete(&frame.stream, std::mem::replace(&mut recording, next))?;
        }
        recording.size = Some(frame.size());
        recording.writer.push(frame)?;
        self.recordings.insert(frame.stream.clone(), recording);
        Ok(())
    }

    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        self.recordings.remove(stream).map_or(Ok(()), |recording| self.complete(stream, recording))
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        let mut failed = None;
        for (stream, recording) in std::mem::take(&mut self.recordings) {
            // One file that cannot be completed does not cost the others.
            if let Err(error) = self.complete(&stream, recording) {
                failed.get_or_insert(error);
            }
        }
        failed.map_or_else(|| Ok(SinkReport { files: std::mem::take(&mut self.finished) }), Err)
    }
}
