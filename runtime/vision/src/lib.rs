//! What OpenCV does for Revoada: how the camera moved from one picture to the next, and straight pictures from a lens that
//! bends them.
//!
//! It is *not* a door to the rest of OpenCV (4.5 or later), whose types do not leave this crate. Everything is computed on
//! the calling thread: the first call tells OpenCV, for the whole process, to start none of its own. Nothing is left to
//! chance either (RANSAC draws from a fixed seed), so that equal pictures give equal bits on one machine.
//!
//! ```
//! use revoada_core::{ColorSpec, ImageLayout, ImageView, PixelFormat, Rect, Size};
//! use revoada_vision::CameraMotion;
//!
//! let layout = ImageLayout::packed(PixelFormat::Gray, ColorSpec::default(), Size::new(640, 360));
//! let flat = vec![128; 640 * 360];
//! let mut camera = CameraMotion::new();
//! for _ in 0..2 {
//!     let moved = camera.update(&ImageView::new(layout, &flat)?, [Rect::new(10.0, 10.0, 40.0, 80.0)])?;
//!     assert_eq!(moved, None, "there is nothing to hold on to");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod camera;
mod lens;
mod plane;

use std::sync::Once;

use revoada_core::Size;
use thiserror::Error;

pub use camera::{Affine, CameraMotion};
pub use lens::{Lens, Undistort};

#[derive(Debug, Error)]
pub enum VisionError {
    #[error("OpenCV cannot {operation}")]
    OpenCv {
        operation: &'static str,
        #[source]
        source: opencv::Error,
    },
    #[error("the lens was calibrated at {calibrated}, a picture of {size} has another shape")]
    Shape { calibrated: Size, size: Size },
}

/// Says of an error of OpenCV what it kept it from.
trait While<T> {
    fn to(self, operation: &'static str) -> Result<T, VisionError>;
}

impl<T> While<T> for opencv::Result<T> {
    fn to(self, operation: &'static str) -> Result<T, VisionError> {
        self.map_err(|source| VisionError::OpenCv { operation, source })
    }
}

/// The version of OpenCV that is loaded, as `4.6.0`.
pub fn opencv_version() -> Result<String, VisionError> {
    opencv::core::get_version_string().to("tell its version")
}

/// A pipeline has a thread for each stream; threads inside of them would only get into each other's way.
fn stay_on_the_calling_thread() -> Result<(), VisionError> {
    static TOLD: Once = Once::new();
    let mut told = Ok(());
    TOLD.call_once(|| told = opencv::core::set_num_threads(1));
    told.to("stay on one thread")
}
