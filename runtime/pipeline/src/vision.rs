//! What OpenCV does for a pipeline. A program that was built without it refuses configurations that ask for it, and says
//! so here too.

use revoada_core::{Detection, Frame};
#[cfg(feature = "opencv")]
use revoada_core::{MemoryKind, causes, sentence_of};

use crate::config::LensConfig;
use crate::draw::pool::BufferPool;
use crate::track::Warp;

/// Why a program without OpenCV does not do what needs it.
pub(crate) const WITHOUT: &str = "this program was built without feature `opencv`";

/// Whether that is not so.
pub(crate) const IS_THERE: bool = cfg!(feature = "opencv");

/// The version of OpenCV that this program uses; otherwise why there is none.
pub fn opencv_version() -> Result<String, String> {
    #[cfg(feature = "opencv")]
    return revoada_vision::opencv_version().map_err(|error| sentence_of(causes(&error)));
    #[cfg(not(feature = "opencv"))]
    Err(WITHOUT.to_owned())
}

/// The camera of one stream. An error is a sentence.
#[derive(Debug, Default)]
pub(crate) struct Camera {
    #[cfg(feature = "opencv")]
    motion: revoada_vision::CameraMotion,
}

impl Camera {
    /// How it moved since the last frame, as far as can be seen beside what was found.
    #[cfg(feature = "opencv")]
    pub(crate) fn follow(&mut self, frame: &Frame, found: &[Detection]) -> Result<Option<Warp>, String> {
        let moved = self.motion.update(&frame.view(), found.iter().map(|found| found.bbox));
        let moved = moved.map_err(|error| sentence_of(causes(&error)))?;
        Ok(moved.map(|moved| Warp { matrix: moved.matrix }))
    }

    #[cfg(not(feature = "opencv"))]
    pub(crate) fn follow(&mut self, _: &Frame, _: &[Detection]) -> Result<Option<Warp>, String> {
        Err(WITHOUT.to_owned())
    }
}

/// Makes the frames of one lens straight. An error is a sentence.
#[derive(Debug)]
#[cfg_attr(not(feature = "opencv"), expect(dead_code, reason = "nothing is made straight"))]
pub(crate) struct Straightener {
    lens: LensConfig,
    /// For the size of the latest frame.
    #[cfg(feature = "opencv")]
    undistort: Option<revoada_vision::Undistort>,
    buffers: BufferPool,
}

impl Straightener {
    pub(crate) fn new(lens: LensConfig) -> Self {
        Self {
            lens,
            #[cfg(feature = "opencv")]
            undistort: None,
            buffers: BufferPool::default(),
        }
    }

    /// A straight copy of the frame.
    #[cfg(feature = "opencv")]
    pub(crate) fn straighten(&mut self, frame: &Frame) -> Result<Frame, String> {
        self.copy(frame).map_err(|error| sentence_of(causes(&error)))
    }

    #[cfg(feature = "opencv")]
    fn copy(&mut self, frame: &Frame) -> Result<Frame, revoada_vision::VisionError> {
        let undistort = match self.undistort.take().filter(|undistort| undistort.size() == frame.size()) {
            Some(undistort) => undistort,
            None => {
                let LensConfig { camera_matrix, distortion, size, alpha } = self.lens.clone();
                let lens = revoada_vision::Lens { camera_matrix, distortion, size, alpha };
                revoada_vision::Undistort::new(&lens, frame.size())?
            }
        };
        let undistort = self.undistort.insert(undistort);
        let mut pixels = self.buffers.take(frame.layout().bytes().unwrap_or_default());
        let layout = undistort.apply(&frame.view(), &mut pixels)?;
        let Frame { stream, sequence, pts, captured, .. } = frame;
        let memory = self.buffers.memory(pixels);
        let straight = Frame::new(stream.clone(), *sequence, *pts, *captured, layout, MemoryKind::Host, memory);
        Ok(straight.expect("the memory was made for the layout"))
    }

    #[cfg(not(feature = "opencv"))]
    pub(crate) fn straighten(&mut self, _: &Frame) -> Result<Frame, String> {
        Err(WITHOUT.to_owned())
    }
}
