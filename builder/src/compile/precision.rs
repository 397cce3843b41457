//! Whether TensorRT took the graph's precisions as they stand.

use std::collections::BTreeMap;

use revoada_bundle::onnx::{ElementType, OnnxError, OnnxModel};
use revoada_tensorrt::Layer;
use thiserror::Error;

/// Operators in which nearly all of a network's time goes.
const HEAVY: [&str; 4] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];

/// A layer that does not compute in the graph's precision: a plan that would be slow, or wrong, in silence.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("layer `{layer}` computes {planned}, and the graph says {wanted}")]
pub(super) struct PrecisionMismatch {
    layer: String,
    planned: String,
    wanted: String,
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

/// As `revoada-tensorrt` calls it.
fn type_name(element: ElementType) -> &'static str {
    match element {
        ElementType::FLOAT => "f32",
        ElementType::FLOAT16 => "f16",
        _ => "another type",
    }
}
