//! Eight bits: `QuantizeLinear` and `DequantizeLinear` inserted where a compiler fuses them.
//!
//! Everything is symmetric, with zero at zero. Weights have a scale for each output channel, activations one
//! for the tensor, biases stay float. [`calibrate`] tells from samples the range of each activation, whether each
//! weight goes up or down, and what its bias makes up for; [`quantize`] writes it into the graph. The result may go
//! through [`fp16::convert`](crate::fp16::convert), so that what is not INT8 is f16.
//!
//! Where pairs are placed, after TensorRT's advice on explicit quantisation:
//! - on what `Conv`, `ConvTranspose`, `Gemm` and `MatMul` read;
//! - on the shortcut of a residual `Add`; the branch that a convolution writes for it alone stays as it is,
//!   since the sum is computed inside that convolution. Where no branch is such, on both;
//! - on what average pooling reads, and on all that a `Concat` reads, with one scale, where something
//!   quantised reads the result;
//! - never on an output of the model.

mod calibrate;
mod histogram;
mod place;
mod rewrite;
mod round;
mod shift;

use std::collections::{BTreeMap, BTreeSet};

use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::onnx::proto::NodeProto;
use revoada_core::Tensor;
use revoada_engine::Backend;
use serde::{Deserialize, Serialize};

use crate::search::{self, Conversion};
use crate::{BuilderError, Keep, Samples, Search, SearchOptions};

/// How the range of an activation follows from the numbers seen. Zeros do not count: every scale holds them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The largest magnitude.
    MinMax,
    /// The magnitude that this share of the numbers, in percent, does not pass.
    Percentile(f64),
    /// The range whose 128 levels keep most of the distribution's information: least Kullback–Leibler
    /// divergence (S. Migacz, "8-bit Inference with TensorRT", GTC 2017).
    Entropy,
}

impl Default for Method {
    /// Nearly all of the range, and no lone outlier. Entropy clips much of what follows a `Clip`: it did worse
    /// on EfficientNet-Lite0.
    fn default() -> Self {
        Self::Percentile(99.99)
    }
}

/// Ranges of activations: the record of a calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    pub method: Method,
    pub samples: usize,
    /// By value: numbers from `-range` to `range` are kept apart, what is beyond is clipped.
    pub ranges: BTreeMap<String, f32>,
    /// By the output of each product of weights: what is added to the bias of each channel, to make up for
    /// what rounding the weights does to the mean of its answers. Like the levels it is no part of the record,
    /// since it lies in the model.
    #[serde(skip)]
    pub shifts: BTreeMap<String, Vec<f32>>,
    /// By weight: the level of each of its elements, where the nearest is not the best.
    #[serde(skip)]
    pub levels: BTreeMap<String, Tensor>,
}

/// How weights lie in the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// As INT8: a quarter of the size.
    #[default]
    Int8,
    /// As f32 with a pair behind them, for compilers that take no INT8 constants.
    F32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Int8Options {
    /// What is not quantised.
    pub keep: Keep,
    pub weights: Weights,
}

/// A quantised model, and what was done.
#[derive(Clone, Debug)]
pub struct Int8 {
    pub model: OnnxModel,
    pub report: Int8Report,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Int8Report {
    /// Nodes that compute from INT8.
    pub nodes: Vec<String>,
    /// Scales of the activations that are quantised.
    pub scales: BTreeMap<String, f32>,
    /// Nodes that would be quantised and are not.
    pub kept: Vec<String>,
    /// What was to be kept and is not in the model.
    pub unknown: Vec<String>,
}

/// Runs the model on every sample, a few times, and finds the range of each activation that [`quantize`] may ask
/// for, whatever is kept, the levels of each weight, and the shift of each bias. Memory does not grow with the
/// number of samples.
pub fn calibrate(
    backend: &dyn Backend,
    model: &OnnxModel,
    samples: &dyn Samples,
    method: Method,
) -> Result<Calibration, BuilderError> {
    let values = place::activations(&model.edit()?);
    let ranges = calibrate::ranges(backend, model, samples, method, &values)?;
    let levels = round::levels(backend, model, samples)?;
    let shifts = shift::shifts(backend, model, samples, &levels)?;
    Ok(Calibration { method, samples: samples.count(), ranges, shifts, levels })
}

/// Inserts the pairs; see the [module](self). A model of an operator set before 13, which has no scales for
/// each channel, is lifted to it.
pub fn quantize(model: &OnnxModel, calibration: &Calibration, options: &Int8Options) -> Result<Int8, BuilderError> {
    rewrite::rewrite(model, calibration, options)
}

/// Finds the layers that must not be quantised for the answers on `samples` to be good, over those that
/// `conversion` keeps. Scales come from `calibration`, whose samples should be others.
pub fn search(
    backend: &dyn Backend,
    model: &OnnxModel,
    samples: &dyn Samples,
    calibration: &Calibration,
    conversion: &Int8Options,
    options: &SearchOptions,
) -> Result<Search<Int8>, BuilderError> {
    search::search(backend, model, samples, &Layers { model, calibration, conversion }, options)
}

struct Layers<'a> {
    model: &'a OnnxModel,
    calibration: &'a Calibration,
    conversion: &'a Int8Options,
}

impl Conversion for Layers<'_> {
    type Converted = Int8;

    fn convert(&self, kept: &BTreeSet<String>) -> Result<Int8, BuilderError> {
        let mut options = self.conversion.clone();
        options.keep.nodes.extend(kept.iter().cloned());
        quantize(self.model, self.calibration, &options)
    }

    fn model(converted: &Int8) -> &OnnxModel {
        &converted.model
    }

    fn is_converted(converted: &Int8, node: &NodeProto) -> bool {
        converted.report.nodes.contains(&node.label())
    }

    /// What is beyond the range of a scale is clipped, not lost.
    fn largest(&self) -> Option<f32> {
        None
    }
}
