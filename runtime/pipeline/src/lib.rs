//! From cameras and files to results: sources, batching, inference, decoding, analysing, drawing and sinks.
//!
//! Frames travel on threads and bounded queues; ownership moves forward and nothing calls back.
//! It is *not* where models are loaded from (the engine's) nor a command line (the program's).
//!
//! ```no_run
//! use revoada_engine::BackendOptions;
//! use revoada_pipeline::config::Draft;
//! use revoada_pipeline::run::{Parts, StopFlag, run};
//!
//! let mut draft = Draft::empty();
//! draft.add_stream("clip.mp4");
//! draft.set("model.path", "centerface.onnx");
//! draft.add_sink("jsonl", [("path", "faces.jsonl")]);
//! let summary = run(draft.check()?, Parts::new(&BackendOptions::default()), &StopFlag::new())?;
//! println!("{} frames at {:.1} per second", summary.frames_out, summary.fps);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod analyse;
mod api;
mod backoff;
mod classes;
pub mod config;
pub mod control;
pub mod decode;
pub mod deepstream;
pub mod draw;
pub mod http;
mod lock;
pub mod media;
mod metrics;
pub mod run;
pub mod sink;
pub mod track;
pub mod vision;

pub use api::{FrameResult, FrameTimings, Pull, Sink, SinkError, SinkReport, Source, SourceError};
