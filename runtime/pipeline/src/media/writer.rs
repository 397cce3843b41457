//! Frames into a video file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use revoada_core::Frame;

use super::elements;
use super::encoder::{FrameRate, Purpose, Target};
use super::encoding::Encoding;
use super::file::VideoFile;
use super::raw;
use crate::SinkError;

/// Encodes frames into a file that appears under its name when it is whole.
///
/// It is written beside, as `.name.partial`, and renamed by [`finish`](Self::finish); dropping the
/// writer without that removes it. Frames are not copied on the way to the encoder unless it does not
/// take their format. Frames of another size than the first are scaled to it; a last odd column or row
/// is left out, since H.264 halves the chroma. Times are those of the frames, from the first one on, so
/// a varying frame rate is kept. An MP4 file has its index at the front, so that a browser can
/// play it while it loads.
pub struct VideoWriter {
    // Dropped before the file that it writes is removed.
    state: State,
    file: VideoFile,
    bitrate_kbps: Option<u32>,
}

enum State {
    /// The interval between two frames tells the frame rate, so the first one waits for the second.
    Waiting(Option<Arc<Frame>>),
    Encoding(Encoding),
}

impl VideoWriter {
    /// Creates the unfinished file. `bitrate_kbps` of `None` asks for constant good quality.
    pub fn create(path: &Path, bitrate_kbps: Option<u32>) -> Result<Self, SinkError> {
        let file = VideoFile::create(path)?;
        for element in ["h264parse", "videoscale"] {
            let encode = |reason: String| SinkError::Encode { path: path.to_owned(), reason };
            elements::require(element).map_err(|error| encode(error.to_string()))?;
        }
        Ok(Self { file, bitrate_kbps, state: State::Waiting(None) })
    }

    /// Takes a frame; blocks while the encoder is behind.
    pub fn push(&mut self, frame: &Arc<Frame>) -> Result<(), SinkError> {
        match &mut self.state {
            State::Encoding(encoding) => encoding.push(frame).map_err(|failure| self.file.describe(failure)),
            State::Waiting(waiting @ None) => {
                *waiting = Some(Arc::clone(frame));
                Ok(())
            }
            State::Waiting(Some(first)) => {
                let first = Arc::clone(first);
                self.start(&first, FrameRate::of(frame.pts.since(first.pts)))?;
                self.push(frame)
            }
        }
    }

    fn start(&mut self, first: &Arc<Frame>, rate: FrameRate) -> Result<(), SinkError> {
        let target =
            Target { purpose: Purpose::File, size: raw::even(first.size()), rate, bitrate_kbps: self.bitrate_kbps };
        let encoding = self.file.elements().and_then(|rest| {
            let mut encoding = Encoding::start(&target, first, &rest)?;
            encoding.push(first)?;
            Ok(encoding)
        });
        self.state = State::Encoding(encoding.map_err(|failure| self.file.describe(failure))?);
        Ok(())
    }

    /// Completes the file and gives it its name.
    pub fn finish(mut self) -> Result<PathBuf, SinkError> {
        if let State::Waiting(waiting) = &mut self.state {
            let first = waiting.take().ok_or_else(|| SinkError::Encode {
                path: self.file.path().to_owned(),
                reason: "there were no frames".to_owned(),
            })?;
            self.start(&first, FrameRate::DEFAULT)?;
        }
        if let State::Encoding(encoding) = &self.state {
            encoding.finish(|| self.file.written()).map_err(|failure| self.file.describe(failure))?;
        }
        let Self { state, file, .. } = self;
        drop(state);
        file.commit()
    }
}
