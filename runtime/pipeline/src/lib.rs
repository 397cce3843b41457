//! From cameras and files to results: sources, batching, inference, decoding, drawing and sinks.
//!
//! Frames travel on threads and bounded queues; ownership moves forward and nothing calls back.
//! It is *not* where models are loaded from (the engine's) nor a command line (the program's).
#![forbid(unsafe_code)]

mod api;
pub mod config;
pub mod control;
pub mod decode;
pub mod draw;
pub mod http;
pub mod media;
mod metrics;
pub mod run;
pub mod sink;

pub use api::{FrameResult, FrameTimings, Pull, Sink, SinkError, SinkReport, Source, SourceError};
