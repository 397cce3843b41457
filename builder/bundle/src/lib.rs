//! What a model is before it runs: its ONNX graph, and the manifest that says how pictures enter it
//! and how its answers are read.
//!
//! Nothing here runs a model or touches a GPU.
#![forbid(unsafe_code)]

pub mod manifest;
pub mod onnx;
pub mod strict;
