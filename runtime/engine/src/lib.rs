//! Loads ONNX models on whichever backend a machine has and runs pictures and tensors through them.
//!
//! Three lifetimes, three traits: a [`Backend`] lives as long as the process, an [`Engine`] as long
//! as its model is wanted and is shared by all threads, a [`Session`] belongs to one thread and owns
//! its buffers. Staging and inference of two batches overlap by having two sessions on two threads.
//!
//! It is *not* the place for decoding outputs into detections (the pipeline's), nor for building
//! TensorRT plans (the builder's).
#![forbid(unsafe_code)]

mod api;
mod backend;
mod picture;
mod stage;

pub use api::{Backend, Engine, EngineError, LoadOptions, ModelSource, Outputs, Session, Shapes, Surface, Timings};
pub use backend::{BackendChoice, BackendOptions, OnnxRuntime, Rten, Selected, backends, library_candidates, select};
pub use picture::{PictureInput, picture_input};
pub use stage::{StageTarget, Stager, stage_reference};
