//! Half precision: a graph rewritten so that its tensors are f16.
//!
//! Weights and computation become f16; what the standard defines only in f32 (regions and scales of a
//! `Resize`, `NonMaxSuppression`, `Range`, loops and branches as a whole), what is computed from shapes and
//! constants alone, and what the caller keeps stay f32, with casts where the two meet. The caller's inputs
//! and outputs stay f32 unless asked.
//!
//! A weight that f16 cannot hold is never clamped: the node that reads it stays f32 and is reported.
//!
//! [`emulate`](crate::emulate) then tells what the conversion does to the model's answers, and [`search`] finds the layers that
//! must stay f32 for the answers to be good.
//!
//! ```
//! use revoada_bundle::onnx::{GraphBuilder, OnnxModel};
//! use revoada_builder::fp16::{self, KeptBecause};
//! use revoada_core::{DType, TensorRef};
//!
//! let model = GraphBuilder::new("large")
//!     .input("x", DType::F32, "N,3")
//!     .initializer("factor", TensorRef::of(&[], &[1e6f32])?)
//!     .node("Sigmoid", &["x"], &["s"])
//!     .node("Mul", &["s", "factor"], &["y"])
//!     .output("y", DType::F32, "N,3");
//! let converted = fp16::convert(&OnnxModel::parse(model.encode())?, &Default::default())?;
//! assert_eq!(converted.report.half_nodes, 1);
//! assert_eq!(converted.report.kept[0].node, "Mul_1");
//! assert!(matches!(converted.report.kept[0].because, KeptBecause::Overflow { .. }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod casts;
mod fit;
mod rewrite;

use std::collections::BTreeSet;

use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{OnnxError, OnnxModel};
use revoada_engine::Backend;
use serde::Serialize;

use crate::search::{self, Conversion};
use crate::{BuilderError, Keep, Samples, Search, SearchOptions};

pub(crate) use casts::simplify_casts;
pub use fit::{Fit, HALF_MAX};

/// The type of the caller's inputs and outputs that were f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    #[default]
    F32,
    F16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fp16Options {
    pub keep: Keep,
    pub interface: Interface,
    /// The latest operator set that the result may need. Quantised models are lifted to 19, the first in
    /// which scales are f16; where that is too late, quantisation stays f32 with casts around it.
    pub opset_max: i64,
}

impl Default for Fp16Options {
    fn default() -> Self {
        Self { keep: Keep::default(), interface: Interface::F32, opset_max: 19 }
    }
}

/// A converted model, and what was done.
#[derive(Clone, Debug)]
pub struct Fp16 {
    pub model: OnnxModel,
    pub report: Fp16Report,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Fp16Report {
    /// Nodes that compute in f16.
    pub half_nodes: usize,
    /// Nodes that compute floats from data and stay f32.
    pub kept: Vec<KeptNode>,
    /// Casts in the result.
    pub casts: usize,
    /// Weights of which some elements became zero, too few to matter to the whole.
    pub faded: Vec<FadedTensor>,
    /// What was to be kept and is not in the model.
    pub unknown: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeptNode {
    pub node: String,
    pub op: String,
    pub because: KeptBecause,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptBecause {
    /// The caller said so.
    Asked,
    /// The operator has no half-precision form, or none that is known here.
    Operator,
    /// It reads a value whose type is not known, since an operator before it is not known here.
    UnknownType { value: String },
    /// An initialiser holds a number beyond ±65504.
    Overflow { tensor: String, value: f32 },
    /// An initialiser, or an attribute, would vanish or lose its digits.
    Underflow { tensor: String, value: f32 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FadedTensor {
    pub tensor: String,
    pub zeros: usize,
    pub elements: usize,
}

/// Rewrites a model; see the [module](self). The result is
/// [strongly typed](crate::mixed_nodes), and its inputs and outputs have the names they had.
pub fn convert(model: &OnnxModel, options: &Fp16Options) -> Result<Fp16, OnnxError> {
    rewrite::rewrite(model, options)
}

/// Finds the layers that must stay f32 for the answers on `samples` to be good, over those that
/// `conversion` keeps.
pub fn search(
    backend: &dyn Backend,
    model: &OnnxModel,
    samples: &dyn Samples,
    conversion: &Fp16Options,
    options: &SearchOptions,
) -> Result<Search<Fp16>, BuilderError> {
    search::search(backend, model, samples, &Layers { model, conversion }, options)
}

struct Layers<'a> {
    model: &'a OnnxModel,
    conversion: &'a Fp16Options,
}

impl Conversion for Layers<'_> {
    type Converted = Fp16;

    fn convert(&self, kept: &BTreeSet<String>) -> Result<Fp16, BuilderError> {
        let mut options = self.conversion.clone();
        options.keep.nodes.extend(kept.iter().cloned());
        Ok(convert(self.model, &options)?)
    }

    fn model(converted: &Fp16) -> &OnnxModel {
        &converted.model
    }

    fn is_converted(converted: &Fp16, node: &NodeProto) -> bool {
        let label = node.label();
        converted.report.kept.iter().all(|kept| kept.node != label)
    }

    fn largest(&self) -> Option<f32> {
        Some(HALF_MAX)
    }
}
