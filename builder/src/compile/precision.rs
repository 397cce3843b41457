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

#[cfg(test)]
mod tests {
    use revoada_bundle::onnx::GraphBuilder;
    use revoada_core::{DType, TensorRef};
    use revoada_tensorrt::InspectedTensor;

    use super::*;

    fn fused(name: &str, data_type: DataType) -> InspectedLayer {
        let input = InspectedTensor { name: "x".to_owned(), format: String::new(), data_type };
        InspectedLayer { name: name.to_owned(), kind: None, inputs: vec![input], outputs: Vec::new() }
    }

    #[test]
    fn a_product_of_dequantised_tensors_is_to_be_computed_in_int8() {
        let scale: [f32; 1] = [0.1];
        let graph = GraphBuilder::new("quantised")
            .input("x", DType::F32, "1,2")
            .initializer("scale", TensorRef::of(&[], &scale).unwrap())
            .initializer("zero", TensorRef::of(&[], &[0i8]).unwrap())
            .initializer("weights", TensorRef::of(&[2, 2], &[1i8, 2, 3, 4]).unwrap())
            .node("QuantizeLinear", &["x", "scale", "zero"], &["small"])
            .node("DequantizeLinear", &["small", "scale", "zero"], &["back"])
            .node("DequantizeLinear", &["weights", "scale", "zero"], &["w"])
            .node("MatMul", &["back", "w"], &["y"])
            .node("Relu", &["y"], &["z"])
            .output("z", DType::F32, "1,2");
        let model = OnnxModel::parse(graph.encode()).unwrap();
        let name = model.graph().node.iter().find(|node| node.is("MatMul")).unwrap().label();
        let check = |layers: &[InspectedLayer]| check_plan_precision(&model, layers).unwrap();
        assert_eq!(check(&[fused(&format!("w + {name} + relu"), DataType::I8)]), Ok(1));
        assert_eq!(check(&[fused("another", DataType::F32)]), Ok(0));
        assert_eq!(
            check(&[fused(&name, DataType::Other)]),
            Ok(0),
            "what the inspector does not tell is not held against it"
        );
        let mismatch = check(&[fused(&name, DataType::F16)]).unwrap_err();
        assert_eq!(mismatch.to_string(), format!("layer `{name}` computes in f16, and the graph says i8"));
    }
}
