//! A video file that is being written: H.264 in MP4 or Matroska.

use std::io;
use std::path::{Path, PathBuf};

use gstreamer as gst;
use revoada_bundle::partial::Partial;

use gst::prelude::*;

use super::elements::{self, make};
use super::failure::{Cause, Failure};
use crate::SinkError;

/// Written beside, as `.name.partial`, until it is committed; dropped before, it leaves nothing. An MP4 file has its
/// index at the front, so that a browser can play it while it loads.
pub(super) struct VideoFile {
    path: PathBuf,
    container: Container,
    video: Partial,
    /// Where the MP4 muxer keeps pictures until it knows the index that goes before them; never committed.
    media: Partial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Mp4,
    Matroska,
}

impl Container {
    /// `None` where files of this extension are none that are written.
    pub(super) fn of(extension: &str) -> Option<Self> {
        match extension.to_lowercase().as_str() {
            "mp4" | "m4v" => Some(Self::Mp4),
            "mkv" => Some(Self::Matroska),
            _ => None,
        }
    }

    pub(super) fn muxer(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4mux",
            Self::Matroska => "matroskamux",
        }
    }
}

impl VideoFile {
    /// Creates the unfinished file; the container is that of the path's extension.
    pub(super) fn create(path: &Path) -> Result<Self, SinkError> {
        let encode = |reason: String| SinkError::Encode { path: path.to_owned(), reason };
        let write = |source| SinkError::Write { path: path.to_owned(), source };
        super::init().map_err(|error| encode(error.to_string()))?;
        let container = path.extension().and_then(|extension| Container::of(&extension.to_string_lossy()));
        let container = container.ok_or_else(|| encode("its name ends neither in `.mp4` nor in `.mkv`".to_owned()))?;
        elements::require(container.muxer()).map_err(|error| encode(error.to_string()))?;
        let mut media = path.as_os_str().to_owned();
        media.push(".media");
        let (video, media) =
            (Partial::create(path).map_err(write)?, Partial::create(Path::new(&media)).map_err(write)?);
        Ok(Self { path: path.to_owned(), container, video, media })
    }

    /// The muxer, which takes parsed H.264, and what writes.
    pub(super) fn elements(&self) -> Result<[gst::Element; 2], Failure> {
        let (muxer, sink) = (make(self.container.muxer())?, make("filesink")?);
        if self.container == Container::Mp4 {
            muxer.set_property("faststart", true);
            muxer.set_property("faststart-file", self.media.path());
        }
        sink.set_property("location", self.video.path());
        // Nobody waits for the first frame to be shown.
        sink.set_property("async", false);
        Ok([muxer, sink])
    }

    /// Bytes that are on the disk so far.
    pub(super) fn written(&self) -> u64 {
        let bytes = |file: &Partial| std::fs::metadata(file.path()).map_or(0, |metadata| metadata.len());
        bytes(&self.video) + bytes(&self.media)
    }

    /// Gives the file its name; its pipeline has ended.
    pub(super) fn commit(self) -> Result<PathBuf, SinkError> {
        let Self { path, video, .. } = self;
        video.commit().map_err(|source| SinkError::Write { path, source })
    }

    pub(super) fn describe(&self, failure: Failure) -> SinkError {
        let path = self.path.clone();
        match failure.cause {
            Cause::NoSpace => SinkError::Write { path, source: io::ErrorKind::StorageFull.into() },
            _ => SinkError::Encode { path, reason: failure.reason },
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
