//! What a model is before it runs: its ONNX graph ([`onnx`]), and the manifest that says how pictures
//! enter it and how its answers are read ([`manifest`]). [`strict`] reads manifests, and every other
//! TOML file of Revoada; [`golden`] has what a model answers to a few inputs; [`partial`] writes files that appear whole or not at all.
//!
//! It is *not* a runtime: nothing here runs a model or touches a GPU, and the shapes and costs that it
//! tells are arithmetic over the graph.
//!
//! ```
//! use revoada_bundle::manifest::Manifest;
//! use revoada_bundle::onnx::{GraphBuilder, OnnxModel};
//! use revoada_core::DType;
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("thumbnails.onnx");
//! let graph = GraphBuilder::new("thumbnails")
//!     .input("x", DType::F32, "N,3,224,224")
//!     .node("GlobalAveragePool", &["x"], &["y"])
//!     .output("y", DType::F32, "N,3,1,1");
//! std::fs::write(&path, graph.encode())?;
//! std::fs::write(folder.path().join("thumbnails.toml"), "version = 1\nlabels = [\"r\", \"g\", \"b\"]")?;
//!
//! let summary = OnnxModel::read(&path)?.summary(&Default::default())?;
//! assert_eq!(summary.outputs[0].shape, Some(vec![1, 3, 1, 1]));
//! assert_eq!(summary.cost.flops, 3 * 224 * 224);
//! let manifest = Manifest::beside(&path)?.unwrap_or_default();
//! assert_eq!(manifest.labels, ["r", "g", "b"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod bundle;
pub mod golden;
mod hash;
pub mod manifest;
pub mod onnx;
pub mod partial;
pub mod plan;
pub mod plan_cache;
pub mod sign;
pub mod strict;

pub use hash::{hash, hash_file};
