//! Whether TensorRT took the graph's precisions as they stand.

use std::collections::{BTreeMap, HashMap, HashSet};

use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{ElementType, OnnxError, OnnxModel};
use revoada_tensorrt::{DataType, InspectedLayer, Layer};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Operators in which nearly all of a network's time goes.
const HEAVY: [&str; 4] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];

/// A layer that does not compute in the graph's precision: a plan that would be slow, or wrong, in silence.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
#[error("layer `{layer}` computes in {planned}, and the graph says {wanted}")]
pub struct PrecisionMismatch {
    pub layer: String,
    pub planned: String,
    pub wanted: String,
}

/// Holds what TensorRT parsed against the graph: the convolutions and products of matrices, by name; how many
/// were found.
pub(super) fn check_precision(
    model: &OnnxModel,
    layers: &[Layer],
) -> Result<Result<usize, PrecisionMismatch>, OnnxError> {
    let graph = model.edit()?;
    let types = graph.types();
    let layers: BTreeMap<&str, &Layer> = layers.iter().map(|layer| (layer.name.as_str(), layer)).collect();
    let mut checked = 0;
    for node in graph.nodes().iter().filter(|node| HEAVY.contains(&node.op_type())) {
        let wanted = node.output.first().and_then(|output| types.get(output));
        let layer = node.name.as_deref().and_then(|name| layers.get(name));
        let (Some(wanted), Some(layer)) = (wanted, layer) else { continue };
        let planned = layer.outputs.first().map(ToString::to_string).unwrap_or_default();
        if planned != type_name(*wanted) {
            let wanted = type_name(*wanted).to_owned();
            return Ok(Err(PrecisionMismatch { layer: layer.name.clone(), planned, wanted }));
        }
        checked += 1;
    }
    Ok(Ok(checked))
}

/// Holds what the inspector tells of a plan against the graph that it was made of: in what the convolutions and
/// products of matrices compute, by name; how many were found. A layer that TensorRT made of several bears all their
/// names. Between a pair of quantise and dequantise that it could not fuse it computes in more than INT8.
pub fn check_plan_precision(
    model: &OnnxModel,
    layers: &[InspectedLayer],
) -> Result<Result<usize, PrecisionMismatch>, OnnxError> {
    let graph = model.edit()?;
    let types = graph.types();
    let dequantised = |node: &&NodeProto| node.is("DequantizeLinear");
    let dequantised: HashSet<&String> =
        graph.nodes().iter().filter(dequantised).flat_map(|node| &node.output).collect();
    let parts = |layer: &'_ InspectedLayer| layer.name.split(" + ").map(str::to_owned).collect::<Vec<_>>();
    let by_node: HashMap<String, &InspectedLayer> =
        layers.iter().flat_map(|layer| parts(layer).into_iter().map(move |part| (part, layer))).collect();
    let mut checked = 0;
    for node in graph.nodes().iter().filter(|node| HEAVY.contains(&node.op_type())) {
        let quantised = node.input.len() > 1 && node.input[..2].iter().all(|input| dequantised.contains(input));
        let wanted = match node.input.first().and_then(|input| types.get(input)) {
            _ if quantised => DataType::I8,
            Some(&ElementType::FLOAT) => DataType::F32,
            Some(&ElementType::FLOAT16) => DataType::F16,
            _ => continue,
        };
        let layer = node.name.as_ref().and_then(|name| by_node.get(name));
        let planned = layer.and_then(|layer| layer.inputs.first()).map(|input| input.data_type);
        match planned {
            None | Some(DataType::Other) => {}
            Some(planned) if planned == wanted => checked += 1,
            Some(planned) => {
                let layer = node.label();
                return Ok(Err(PrecisionMismatch { layer, planned: planned.to_string(), wanted: wanted.to_string() }));
            }
        }
    }
    Ok(Ok(checked))
}

/// As `revoada-tensorrt` calls it.
fn type_name(element: ElementType) -> &'static str {
    match element {
        ElementType::FLOAT => "f32",
        ElementType::FLOAT16 => "f16",
        _ => "another type",
    }
}
