//! From an ONNX model to one that a device computes fast and rightly.
//!
//! Precision is a property of the graph: it is rewritten so that every tensor has the type in which it is
//! computed, which is what strongly typed compilers take as it stands. A model goes through here in steps:
//!
//! 1. [`clean`]: what does nothing is removed, what is constant is computed.
//! 2. [`int8`]: `calibrate` runs the model on samples, `quantize` inserts pairs of quantise and dequantise.
//! 3. [`fp16`]: `convert` makes f16 of what is f32.
//! 4. [`emulate`] and [`compare`](mod@compare): the result against f32, by arithmetic that hides neither an
//!    overflow nor a clipped number, and against thresholds.
//! 5. Where it fails, [`fp16::search`] and [`int8::search`] name the layers to blame in the order of their damage,
//!    and propose the mixture that passes.
//!
//! Samples are tensors that the caller has [staged](revoada_engine::Stager) exactly as at run time. Whatever
//! backend is there runs them; none needs a GPU.
//!
//! It is *not* what runs a plan: here graphs are rewritten, and run on a CPU to see what the rewriting cost.
//!
//! ```
//! use revoada_builder::clean::{CleanOptions, clean};
//! use revoada_builder::compare::{Thresholds, compare};
//! use revoada_builder::{emulate, fp16};
//! use revoada_bundle::onnx::{GraphBuilder, OnnxModel};
//! use revoada_core::{DType, Tensor, TensorRef};
//! use revoada_engine::Rten;
//!
//! let model = GraphBuilder::new("softmax")
//!     .input("x", DType::F32, "N,3")
//!     .initializer("factor", TensorRef::of(&[3], &[0.5f32, 1.0, 2.0])?)
//!     .node("Mul", &["x", "factor"], &["scaled"])
//!     .node("Identity", &["scaled"], &["same"])
//!     .node("Softmax", &["same"], &["y"])
//!     .output("y", DType::F32, "N,3");
//! let model = OnnxModel::parse(model.encode())?;
//! let samples = vec![vec![Tensor::of(vec![1, 3], vec![0.1f32, 0.2, 0.3])?]];
//!
//! let cleaned = clean(&Rten, &model, &CleanOptions::default())?;
//! assert_eq!(cleaned.report.identities, 1);
//! let half = fp16::convert(&cleaned.model, &fp16::Fp16Options::default())?;
//! let report = compare(&Rten, &model, &emulate(&half.model)?, &samples, None)?;
//! assert!(report.outputs[0].max_abs > 0.0);
//! assert!(report.failures(&Thresholds::default()).is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod clean;
pub mod compare;
pub mod compile;
pub mod convert;
mod emulate;
pub mod fp16;
mod golden;
pub mod int8;
mod keep;
mod observe;
pub mod report;
mod run;
pub mod samples;
mod search;
mod typing;

pub use emulate::emulate;
pub use golden::make_golden;
pub use keep::Keep;
pub use run::{BuilderError, Samples};
pub use search::{LayerDamage, Search, SearchOptions};
pub use typing::{MixedNode, mixed_nodes};
