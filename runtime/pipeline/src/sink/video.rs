//! One video file per stream.
//!
//! A stream that changes its picture size begins a new file, `name-2.mp4` after `name.mp4`: players
//! do not cope with a film that changes size, and scaling it would falsify what was seen.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use revoada_core::{Size, StreamId};

use super::SinkContext;
use super::output::{check_distinct, check_folder, path_for};
use crate::media::VideoWriter;
use crate::{FrameResult, Sink, SinkError, SinkReport};

pub(super) struct VideoSink {
    template: PathBuf,
    bitrate_kbps: Option<u32>,
    recordings: HashMap<StreamId, Recording>,
    /// Every path in use, finished ones included, so that no stream's second part takes the name of
    /// another stream's file.
    taken: BTreeSet<PathBuf>,
    finished: Vec<PathBuf>,
}

struct Recording {
    writer: VideoWriter,
    /// Of the stream's first file.
    path: PathBuf,
    /// `None` before the first frame.
    size: Option<Size>,
}

impl VideoSink {
    pub(super) fn open(path: &Path, bitrate_kbps: Option<u32>, context: &SinkContext) -> Result<Self, SinkError> {
        check_distinct(path, &context.streams)?;
        let mut sink = Self {
            template: path.to_path_buf(),
            bitrate_kbps,
            recordings: HashMap::new(),
            taken: BTreeSet::new(),
            finished: Vec::new(),
        };
        context.streams.iter().try_for_each(|stream| sink.begin(stream))?;
        Ok(sink)
    }

    fn begin(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        let path = path_for(&self.template, stream);
        check_folder(&path)?;
        if !self.taken.insert(path.clone()) {
            let message = "another stream writes this file; put `{stream}` into its path";
            return Err(SinkError::Write { path, source: io::Error::new(io::ErrorKind::InvalidInput, message) });
        }
        let writer = VideoWriter::create(&path, self.bitrate_kbps)?;
        self.recordings.insert(stream.clone(), Recording { writer, path, size: None });
        Ok(())
    }
}

impl Sink for VideoSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        let frame = result.picture();
        if !self.recordings.contains_key(&frame.stream) {
            // A stream that joined while the pipeline runs.
            self.begin(&frame.stream)?;
        }
        let recording = self.recordings.get_mut(&frame.stream).expect("a missing one was just begun");
        if let Some(before) = recording.size.filter(|size| *size != frame.size()) {
            let next = next_part(&recording.path, &self.taken);
            tracing::warn!(
                stream = %frame.stream, %before, now = %frame.size(), file = %next.display(),
                "the picture changed its size: the video goes on in a new file"
            );
            self.taken.insert(next.clone());
            let writer = VideoWriter::create(&next, self.bitrate_kbps)?;
            self.finished.push(std::mem::replace(&mut recording.writer, writer).finish()?);
        }
        recording.size = Some(frame.size());
        recording.writer.push(frame)
    }

    /// Completes every file. A stream that never had a frame leaves none.
    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        let mut recordings: Vec<_> = self.recordings.drain().collect();
        recordings.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut failed = None;
        for (stream, recording) in recordings {
            if recording.size.is_some() {
                // One file that cannot be completed does not cost the others.
                match recording.writer.finish() {
                    Ok(path) => self.finished.push(path),
                    Err(error) => _ = failed.get_or_insert(error),
                }
            } else {
                tracing::warn!(%stream, file = %recording.path.display(), "no frames came: there is no video");
            }
        }
        failed.map_or_else(|| Ok(SinkReport { files: std::mem::take(&mut self.finished) }), Err)
    }
}

/// `name-2.mp4` after `name.mp4`, or the next number that is free.
fn next_part(first: &Path, taken: &BTreeSet<PathBuf>) -> PathBuf {
    let stem = first.file_stem().unwrap_or_default().to_string_lossy();
    let extension = first.extension().unwrap_or_default().to_string_lossy();
    (2u64..)
        .map(|part| first.with_file_name(format!("{stem}-{part}.{extension}")))
        .find(|path| !taken.contains(path))
        .expect("fewer than 2⁶⁴ files are taken")
}
