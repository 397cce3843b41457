//! Whether TensorRT took the graph's precisions as they stand.

use revoada_bundle::onnx::{ElementType, OnnxError, OnnxModel};
use thiserror::Error;

use super::{PlannedLayer, by_name};

/// Operators in which nearly all of a network's time goes.
const HEAVY: [&str; 4] = ["Conv", "ConvTranspose", "Gemm", "MatMul"];

/// A layer that does not compute in the graph's precision: a plan that would be slow, or wrong, in silence.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("layer `{layer}` computes {planned}, and the graph says {wanted}")]
pub struct PrecisionMismatch {
    pub layer: String,
    pub planned: String,
    pub wanted: String,
}

/// Holds what TensorRT parsed against the graph: the convolutions and products of matrices, by name; how many
/// were found.
pub fn check_precision(
    model: &OnnxModel,
    layers: &[PlannedLayer],
) -> Result<Result<usize, PrecisionMismatch>, OnnxError> {
    let graph = model.edit()?;
    let types = graph.types();
    let layers = by_name(layers);
    let mut checked = 0;
    for node in graph.nodes().iter().filter(|node| HEAVY.contains(&node.op_type())) {
        let wanted = node.output.first().and_then(|output| types.get(output));
        let layer = node.name.as_deref().and_then(|name| layers.get(name));
        let (Some(wanted), Some(layer)) = (wanted, layer) else { continue };
        let planned = layer.outputs.first().map(String::as_str).unwrap_or_default();
        if planned != type_name(*wanted) {
            return Ok(Err(PrecisionMismatch {
                layer: layer.name.clone(),
                planned: planned.to_owned(),
                wanted: type_name(*wanted).to_owned(),
            }));
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
