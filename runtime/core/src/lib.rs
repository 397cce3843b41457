//! The words that every other crate of Revoada speaks: tensors, frames, geometry, what a model
//! found, and time.
//!
//! It is *not* a place for I/O, clocks or algorithms over pixels: everything here is data and
//! arithmetic, so that the planner, the pipeline and the simulations can share it.
//!
//! ```
//! use revoada_core::{Fit, ImageTransform, Placement, Point, Rect, Size};
//!
//! // A 1280×720 frame letterboxed into 640×640: what the network calls (320, 320) is …
//! let transform = ImageTransform { fit: Fit::letterbox_centered(), ..ImageTransform::stretch(Size::new(640, 640)) };
//! let placement = Placement::new(Rect::new(0.0, 0.0, 1280.0, 720.0), &transform);
//! let centre = placement.to_source(Point::new(320.0, 320.0));
//! assert_eq!((centre.x, centre.y), (640.0, 360.0));
//! ```
#![forbid(unsafe_code)]

mod agreement;
mod causes;
mod clock;
mod cosine;
mod detection;
mod device;
mod digest;
mod frame;
mod geometry;
mod nearest;
mod staging;
mod tensor;

pub use agreement::{BoxAgreement, BoxMatches, match_boxes};
pub use causes::{causes, sentence_of};
pub use clock::{Clock, Timestamp};
pub use cosine::Cosine;
pub use detection::{Attribute, Classification, Detection, Prediction, Segmentation, TrackId};
pub use device::{
    Architecture, ArchitectureError, Compatibility, DeviceClass, HardwareCompatibility, Mismatch, TensorRtFlavour,
    TensorRtVersion,
};
pub use digest::{Digest, DigestError, from_hex, to_hex};
pub use frame::{
    ColorMatrix, ColorRange, ColorSpec, Frame, FrameError, FrameMemory, ImageLayout, ImageView, MemoryKind,
    PixelFormat, PlaneLayout, PlaneView, StreamId,
};
pub use geometry::{Point, Rect, Size};
pub use half::f16;
pub use nearest::nearest;
pub use staging::{Anchor, ChannelOrder, Fit, ImageTransform, Layout, Placement};
pub use tensor::{DType, Dim, Element, Tensor, TensorData, TensorError, TensorRef, TensorSlice, TensorSpec};
