//! From an ONNX model to one that a device computes fast and rightly.
//!
//! Precision is a property of the graph: [`fp16::convert`] rewrites it so that every tensor has the type
//! in which it is computed, which is what strongly typed compilers take as it stands.
//!
//! It is *not* the compiler, nor what runs a plan: here graphs are rewritten, and run on a CPU to see what
//! the rewriting cost.
#![forbid(unsafe_code)]

pub mod clean;
pub mod compare;
pub mod compile;
pub mod convert;
mod emulate;
pub mod fp16;
pub mod int8;
mod keep;
mod observe;
pub mod report;
mod run;
pub mod samples;
mod search;
mod typing;

pub use emulate::emulate;
pub use keep::Keep;
pub use run::{BuilderError, Samples};
pub use search::{LayerDamage, Search, SearchOptions};
pub use typing::{MixedNode, mixed_nodes};
