//! One picture file per frame: `<folder>/<stream>-<frame>.jpg`, numbered by the frame's sequence.
//!
//! Unlike other outputs the folder is created where only its last part is missing, since it is
//! this sink's own. Each picture appears whole under its name; what is there stays if the run ends
//! early.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use revoada_bundle::partial::Partial;
use revoada_core::StreamId;

use super::SinkContext;
use super::folder::Folder;
use super::output::{file_name, is_per_stream, path_for};
use super::picture::{jpeg, png};
use crate::config::ImageFormat;
use crate::{FrameResult, Sink, SinkError, SinkReport};

const JPEG_QUALITY: u8 = 92;

#[derive(Debug)]
pub(super) struct ImagesSink {
    folder: PathBuf,
    format: ImageFormat,
    every: u64,
    /// Frames seen, per stream.
    seen: HashMap<StreamId, u64>,
    folders: Vec<Folder>,
}

impl ImagesSink {
    pub(super) fn open(
        folder: &Path,
        format: ImageFormat,
        every: u32,
        context: &SinkContext,
    ) -> Result<Self, SinkError> {
        let mut folders = vec![folder.to_path_buf()];
        if is_per_stream(folder) {
            folders = context.streams.iter().map(|stream| path_for(folder, stream)).collect();
        }
        let mut sink = Self {
            folder: folder.to_path_buf(),
            format,
            every: u64::from(every.max(1)),
            seen: HashMap::new(),
            folders: Vec::new(),
        };
        folders.into_iter().try_for_each(|folder| sink.begin(folder))?;
        Ok(sink)
    }

    fn begin(&mut self, folder: PathBuf) -> Result<(), SinkError> {
        self.folders.push(Folder::open(folder)?);
        Ok(())
    }
}

impl Sink for ImagesSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        let frame = result.picture();
        let folder = path_for(&self.folder, &frame.stream);
        if !self.folders.iter().any(|open| open.path() == folder) {
            // A stream that joined while the pipeline runs.
            self.begin(folder.clone())?;
        }
        let seen = self.seen.entry(frame.stream.clone()).or_default();
        let wanted = seen.is_multiple_of(self.every);
        *seen += 1;
        if !wanted {
            return Ok(());
        }
        let (extension, encoded) = match self.format {
            ImageFormat::Jpeg => ("jpg", jpeg(&frame.view(), JPEG_QUALITY)),
            ImageFormat::Png => ("png", png(&frame.view())),
        };
        let name = format!("{}-{:06}.{extension}", file_name(&frame.stream), frame.sequence);
        let path = folder.join(name);
        // Not synced one by one: a folder of pictures is a stream, and what a power cut takes is its end.
        let written = encoded.and_then(|bytes| {
            let partial = Partial::create(&path)?;
            fs::write(partial.path(), bytes)?;
            partial.commit_unsynced()
        });
        written.map(drop).map_err(|source| SinkError::Write { path, source })
    }

    /// One that comes again is counted anew.
    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        self.seen.remove(stream);
        Ok(())
    }

    /// Names the folders: there may be very many pictures.
    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        let folders = std::mem::take(&mut self.folders).into_iter().map(|mut folder| {
            folder.keep();
            folder.path().to_path_buf()
        });
        Ok(SinkReport { files: folders.collect() })
    }
}
