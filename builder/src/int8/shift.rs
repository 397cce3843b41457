//! What rounding weights does to the mean of each channel, and how a bias makes up for it.
//!
//! An error of a weight is the same for every input, and inputs behind a rectifier are all positive: so a
//! channel of few weights is off in one direction, always (M. Nagel et al., "Data-Free Quantization Through
//! Weight Equalization and Bias Correction", ICCV 2019). The mean of it is measured on the samples.

use std::collections::BTreeMap;

use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{Attribute, Graph, OnnxModel};
use revoada_core::{Tensor, TensorRef};
use revoada_engine::Backend;

use super::place::place;
use super::rewrite::{OPSET_AXIS, nearest, scales_of, widened};
use crate::observe::observe;
use crate::{BuilderError, Keep, Samples};

/// The first operator set in which the axes of a mean are an input.
const OPSET_AXES_INPUT: i64 = 18;

/// For each product of weights that has a bias, or could, by the name of its output: what to add to the bias
/// of each channel.
pub(super) fn shifts(
    backend: &dyn Backend,
    model: &OnnxModel,
    samples: &dyn Samples,
    levels: &BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Vec<f32>>, BuilderError> {
    let mut graph = model.edit()?;
    graph.lift(OPSET_AXIS)?;
    graph.sort()?;
    let weights = place(&graph, &Keep::default()).weights;
    let mut means = Vec::new();
    for ((index, _), axis) in weights {
        let node = graph.nodes()[index].clone();
        if takes_shift(&node) {
            let mean = append(&mut graph, &node, axis, levels)?;
            means.push((node.output[0].clone(), mean));
        }
    }
    let (outputs, means): (Vec<String>, Vec<String>) = means.into_iter().unzip();
    let mut sums: Vec<Vec<f64>> = vec![Vec::new(); means.len()];
    observe(backend, &[&graph.finish()?], &means, samples, &mut |value, tensors| {
        let numbers = tensors.first().and_then(|tensor| tensor.as_slice::<f32>()).unwrap_or_default();
        sums[value].resize(numbers.len(), 0.0);
        for (sum, number) in sums[value].iter_mut().zip(numbers) {
            *sum += f64::from(*number);
        }
    })?;
    let mean = |sums: Vec<f64>| sums.into_iter().map(|sum| (sum / samples.count() as f64) as f32).collect();
    Ok(outputs.into_iter().zip(sums.into_iter().map(mean)).collect())
}

/// Whether a node adds a bias as it is.
pub(super) fn takes_shift(node: &NodeProto) -> bool {
    let plain = node.is("Gemm") && node.float("beta").unwrap_or(1.0) == 1.0;
    node.is("Conv") || node.is("ConvTranspose") || plain
}

/// Appends the same product by what rounding took from the weights, and the mean of its channels, whose name
/// is returned. A product is linear, so this is by how much its answer falls short.
fn append(
    graph: &mut Graph,
    node: &NodeProto,
    axis: usize,
    levels: &BTreeMap<String, Tensor>,
) -> Result<String, BuilderError> {
    let weight = graph.tensor(&node.input[1]).expect("only initialisers are placed as weights");
    let lost = lost(&weight, axis, levels.get(&node.input[1]));
    let name = graph.fresh(&format!("{}/lost", node.label()));
    let lost = graph.add_tensor(&format!("{}_lost", node.input[1]), lost.as_ref());
    let product = graph.fresh(&format!("{}_lost", node.output[0]));
    let mut twin = node.clone();
    twin.name = Some(name.clone());
    twin.input = vec![node.input[0].clone(), lost];
    twin.output = vec![product.clone()];
    graph.nodes_mut().push(twin);

    let rank = weight.shape().len() as i64;
    let axes: Vec<i64> = if node.is("Gemm") { vec![0] } else { std::iter::once(0).chain(2..rank).collect() };
    let mean = graph.fresh(&format!("{product}_mean"));
    let keep = ("keepdims", Attribute::Int(0));
    let name = graph.fresh(&format!("{name}/mean"));
    let node = if graph.opset() >= OPSET_AXES_INPUT {
        let axes = TensorRef::of(&[axes.len()], &axes).expect("a list has its own length").to_owned();
        let axes = graph.add_tensor(&format!("{mean}_axes"), axes.as_ref());
        NodeProto::new("ReduceMean", &name, &[&product, &axes], &[&mean], &[keep])
    } else {
        NodeProto::new("ReduceMean", &name, &[&product], &[&mean], &[("axes", Attribute::Ints(axes)), keep])
    };
    graph.nodes_mut().push(node);
    Ok(mean)
}

/// The weight without what its levels hold.
fn lost(weight: &Tensor, axis: usize, levels: Option<&Tensor>) -> Tensor {
    let scales = scales_of(weight, axis);
    let levels = levels.cloned().unwrap_or_else(|| nearest(weight, axis, &scales));
    let kept = widened(&levels, axis, &scales);
    let (weights, kept) = (weight.as_ref(), kept.as_ref());
    let pairs = weights.as_slice::<f32>().unwrap_or_default().iter().zip(kept.as_slice::<f32>().unwrap_or_default());
    let lost = pairs.map(|(weight, kept)| weight - kept).collect();
    Tensor::of(weight.shape().to_vec(), lost).expect("each weight has its level")
}
