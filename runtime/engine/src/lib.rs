//! Loads models on whichever backend a machine has and runs pictures and tensors through them: plans on an NVIDIA GPU,
//! ONNX models on the CPU.
//!
//! Three lifetimes, three traits: a [`Backend`] lives as long as the process, an [`Engine`] as long
//! as its model is wanted and is shared by all threads, a [`Session`] belongs to one thread and owns
//! its buffers. Staging and inference of two batches overlap by having two sessions on two threads.
//!
//! ```
//! use revoada_bundle::onnx::GraphBuilder;
//! use revoada_core::{DType, TensorRef};
//! use revoada_engine::{BackendChoice, BackendOptions, LoadOptions, ModelFormat, ModelSource, Shapes, backends, select};
//!
//! let model = GraphBuilder::new("double")
//!     .input("x", DType::F32, "N,2")
//!     .node("Add", &["x", "x"], &["y"])
//!     .output("y", DType::F32, "N,2")
//!     .encode();
//!
//! // Without a place to look for ONNX Runtime, `auto` takes what is built in, and says so.
//! let selected = select(&BackendChoice::Auto, &backends(&BackendOptions::default()), ModelFormat::Onnx)?;
//! assert!(selected.reason.starts_with("auto took rten"));
//!
//! let engine = selected.backend.load(ModelSource::Bytes(&model), &LoadOptions::default())?;
//! let mut session = engine.session(&Shapes::rows(4))?;
//! session.set_input(0, TensorRef::of(&[1, 2], &[3f32, 4.0])?)?;
//! session.submit(1)?;
//! assert_eq!(session.wait()?.tensors[0].as_slice::<f32>(), Some(&[6f32, 8.0][..]));
//! # Ok::<(), revoada_engine::EngineError>(())
//! ```
//!
//! It is *not* the place for decoding outputs into detections (the pipeline's), nor for building
//! TensorRT plans (the builder's).
#![deny(unsafe_code)]

mod api;
mod backend;
#[allow(unsafe_code, reason = "the driver of a GPU is a C library")]
pub mod cuda;
mod golden;
mod open;
mod picture;
mod stage;

pub use api::{
    Backend, CandidateQuery, DeviceTimings, Engine, EngineError, Layer, LayerTime, LoadOptions, ModelFormat,
    ModelSource, Outputs, Readback, Session, Shapes, Surface, Timings,
};
pub use backend::{
    BackendChoice, BackendOptions, OnnxRuntime, Rten, Selected, TensorRt, TensorRtOptions, backends,
    library_candidates, select,
};
pub use cuda::{Candidate, CandidateLayout, Candidates};
pub use golden::golden_answers;
pub use open::{Opened, PlanSearch, Wanted, WhenOutOfMemory, open};
pub use picture::{PictureInput, picture_input};
pub use stage::{StageTarget, Stager, stage_reference};
