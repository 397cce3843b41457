//! What the engine inspector tells, read from its JSON.
//!
//! TensorRT documents the format by example only, and it changes with the version: nothing of it is relied on but that
//! there is a list of layers, each a name or an object.

use serde_json::Value;
use thiserror::Error;

use crate::tensor::DataType;

/// A layer of an engine, as it is left after fusing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedLayer {
    pub name: String,
    /// What runs it, such as `CaskConvolution` or `Reformat`; `None` where the plan was built to keep names only.
    pub kind: Option<String>,
    pub inputs: Vec<InspectedTensor>,
    pub outputs: Vec<InspectedTensor>,
}

/// A tensor between layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedTensor {
    pub name: String,
    /// In TensorRT's words: `Half`, or `Channel major FP16 format where channel % 8 == 0`.
    pub format: String,
    /// [`DataType::Other`] where the words name no type that is known here.
    pub data_type: DataType,
}

/// Some versions of TensorRT write names of layers into their JSON as they are, quotation marks included.
#[derive(Debug, Error)]
pub enum InspectError {
    #[error("TensorRT's description of the engine is no JSON")]
    Json(#[from] serde_json::Error),
    #[error("TensorRT's description of the engine has no list of layers")]
    NoLayers,
}

/// Reads what [`Engine::inspect`](crate::Engine::inspect) answers.
pub fn inspected_layers(json: &str) -> Result<Vec<InspectedLayer>, InspectError> {
    let told: Value = serde_json::from_str(json)?;
    let layers = told.get("Layers").and_then(Value::as_array).ok_or(InspectError::NoLayers)?;
    Ok(layers.iter().map(layer).collect())
}

fn layer(told: &Value) -> InspectedLayer {
    if let Value::String(name) = told {
        return InspectedLayer { name: name.clone(), kind: None, inputs: Vec::new(), outputs: Vec::new() };
    }
    let tensors = |side: &str| told.get(side).and_then(Value::as_array).into_iter().flatten().map(tensor).collect();
    InspectedLayer {
        name: text(told, "Name"),
        kind: Some(text(told, "LayerType")).filter(|kind| !kind.is_empty()),
        inputs: tensors("Inputs"),
        outputs: tensors("Outputs"),
    }
}

fn tensor(told: &Value) -> InspectedTensor {
    // One entry up to now; both halves are looked for in case they part.
    let parts = ["Format/Datatype", "Format", "Datatype"].map(|key| text(told, key));
    let format = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    InspectedTensor { name: text(told, "Name"), data_type: data_type(&format), format }
}

fn text(told: &Value, key: &str) -> String {
    told.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The type that the words of a format name.
fn data_type(format: &str) -> DataType {
    let word = |word: &str| {
        Some(match word.to_ascii_lowercase().as_str() {
            "fp32" | "float" | "float32" => DataType::F32,
            "fp16" | "half" | "float16" => DataType::F16,
            "bf16" | "bfloat16" => DataType::BF16,
            "fp8" | "float8" => DataType::F8,
            "fp4" | "float4" => DataType::F4,
            "int64" => DataType::I64,
            "int32" => DataType::I32,
            "int8" => DataType::I8,
            "int4" => DataType::I4,
            "uint8" => DataType::U8,
            "bool" => DataType::Bool,
            _ => return None,
        })
    };
    format.split(|letter: char| !letter.is_ascii_alphanumeric()).find_map(word).unwrap_or(DataType::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As TensorRT 8 writes it.
    const DETAILED: &str = r#"{"Layers": [{
        "Name": "Reformatting CopyNode for Input Tensor 0 to conv1 + relu1",
        "LayerType": "Reformat",
        "Inputs": [{
            "Name": "data", "Location": "Device", "Dimensions": [1,3,224,224],
            "Format/Datatype": "Row major linear FP32"
        }],
        "Outputs": [{
            "Name": "Reformatted Input Tensor 0 to conv1 + relu1", "Location": "Device", "Dimensions": [1,3,224,224],
            "Format/Datatype": "Channel major FP16 format where channel % 4 == 0"
        }],
        "TacticValue": "0x0"
    },{
        "Name": "conv1 + relu1",
        "LayerType": "CaskConvolution",
        "Inputs": [{
            "Name": "Reformatted Input Tensor 0 to conv1 + relu1",
            "Format/Datatype": "Channel major FP16 format where channel % 4 == 0"
        }],
        "Outputs": [{
            "Name": "relu1", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"
        }],
        "ParameterType": "Convolution", "Kernel": [3,3], "Weights": {"Type": "Half", "Count": 864},
        "TacticName": "sm80_xmma_fprop_implicit_gemm_f16f16", "TacticValue": "0xf64396b97c889179"
    }],
    "Bindings": ["data", "relu1"]
    }"#;

    fn types(tensors: &[InspectedTensor]) -> Vec<DataType> {
        tensors.iter().map(|tensor| tensor.data_type).collect()
    }

    #[test]
    fn each_layer_has_its_name_its_kind_and_the_types_around_it() {
        let layers = inspected_layers(DETAILED).unwrap();
        assert_eq!(layers.len(), 2);
        assert_eq!(layers[0].kind.as_deref(), Some("Reformat"));
        assert_eq!((types(&layers[0].inputs), types(&layers[0].outputs)), (vec![DataType::F32], vec![DataType::F16]));
        assert_eq!((layers[1].name.as_str(), layers[1].outputs[0].name.as_str()), ("conv1 + relu1", "relu1"));
        assert_eq!((types(&layers[1].inputs), types(&layers[1].outputs)), (vec![DataType::F16], vec![DataType::I8]));
    }

    #[test]
    fn the_words_of_every_version_name_types() {
        for (format, expected) in [
            ("Half", DataType::F16),
            ("Float", DataType::F32),
            ("Int8", DataType::I8),
            ("BFloat16", DataType::BF16),
            ("Row major linear INT8 format", DataType::I8),
            ("Two wide channel vectorized row major FP16 format", DataType::F16),
            ("Row major linear BOOL", DataType::Bool),
            ("Row major Int64 format", DataType::I64),
            ("N/A due to dynamic shapes", DataType::Other),
            ("", DataType::Other),
        ] {
            assert_eq!(data_type(format), expected, "{format}");
        }
        let parted =
            r#"{"Layers": [{"Name": "a", "Inputs": [{"Name": "x", "Format": "Linear", "Datatype": "Half"}]}]}"#;
        assert_eq!(types(&inspected_layers(parted).unwrap()[0].inputs), [DataType::F16]);
    }

    #[test]
    fn a_plan_that_keeps_names_only_has_those() {
        let layers =
            inspected_layers(r#"{"Layers": ["conv1 + relu1", "{ForeignNode[a...b]}"], "Bindings": []}"#).unwrap();
        assert_eq!(layers[1].name, "{ForeignNode[a...b]}");
        assert_eq!((&layers[0].kind, layers[0].inputs.len()), (&None, 0));
    }

    #[test]
    fn what_is_no_description_is_refused() {
        assert!(matches!(inspected_layers("{\"Layers\": [{\"Name\": \"a\"b\"}]}"), Err(InspectError::Json(_))));
        assert!(matches!(inspected_layers("{\"Bindings\": []}"), Err(InspectError::NoLayers)));
        assert!(matches!(inspected_layers("[]"), Err(InspectError::NoLayers)));
    }
}
