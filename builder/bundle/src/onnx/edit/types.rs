//! The element type of every value, operator by operator. Unlike shapes, types do not depend on what is
//! fed.

use std::collections::HashMap;

use crate::onnx::ElementType;
use crate::onnx::proto::NodeProto;

use super::Graph;

impl Graph {
    /// Element types by name, of every value of the main graph whose type is known. Nodes must be in
    /// topological order, as they are after [`edit`](crate::onnx::OnnxModel::edit) of a well-formed model.
    pub fn types(&self) -> HashMap<String, ElementType> {
        let interface = self.interface();
        let mut types = HashMap::new();
        for info in &interface.input {
            types.extend(info.tensor_type().map(|tensor| (info.name().to_owned(), tensor.element_type())));
        }
        types.extend(self.initializers.iter().map(|(name, tensor)| (name.clone(), tensor.element_type())));
        let infos = interface.value_info.iter().chain(&interface.output);
        let declared: HashMap<&str, ElementType> =
            infos.filter_map(|info| Some((info.name(), info.tensor_type()?.element_type()))).collect();
        for node in &self.nodes {
            for (index, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let element = output_type(node, index, &types).or_else(|| declared.get(name.as_str()).copied());
                types.extend(element.map(|element| (name.clone(), element)));
            }
        }
        types
    }
}

/// The element type of one output of a node; `None` where that is not known.
fn output_type(node: &NodeProto, index: usize, types: &HashMap<String, ElementType>) -> Option<ElementType> {
    if !node.is_standard() {
        return None;
    }
    let input = |index: usize| node.input_name(index).and_then(|name| types.get(name)).copied();
    let attribute = |name: &str| node.int(name).and_then(|number| i32::try_from(number).ok()).map(ElementType);
    match (node.op_type(), index) {
        ("Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" | "NonMaxSuppression", _) => Some(ElementType::INT64),
        ("TopK" | "MaxPool", 1) => Some(ElementType::INT64),
        ("Unique", 1..) => Some(ElementType::INT64),
        (
            "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor" | "Not" | "IsInf"
            | "IsNaN",
            _,
        )
        | ("Dropout", 1) => Some(ElementType::BOOL),
        ("Cast", _) => attribute("to"),
        ("CastLike" | "Where", _) => input(1),
        ("OneHot", _) => input(2),
        ("Constant", _) => match node.attribute.first()?.name() {
            "value" => Some(node.attribute("value")?.t.as_ref()?.element_type()),
            "value_float" | "value_floats" => Some(ElementType::FLOAT),
            "value_int" | "value_ints" => Some(ElementType::INT64),
            _ => None,
        },
        ("ConstantOfShape", _) => match node.attribute("value") {
            Some(value) => Some(value.t.as_ref()?.element_type()),
            None => Some(ElementType::FLOAT),
        },
        ("QuantizeLinear", _) => attribute("output_dtype").or_else(|| input(2)).or(Some(ElementType::UINT8)),
        ("DequantizeLinear", _) => attribute("output_dtype").or_else(|| input(1)),
        ("DynamicQuantizeLinear", 0 | 2) => Some(ElementType::UINT8),
        ("DynamicQuantizeLinear", _) => Some(ElementType::FLOAT),
        ("ConvInteger" | "MatMulInteger", _) => Some(ElementType::INT32),
        ("QLinearConv" | "QLinearMatMul", _) => input(7),
        // The statistics that it also returns are computed in f32 unless the node says otherwise.
        ("LayerNormalization", 1..) => attribute("stash_type").or(Some(ElementType::FLOAT)),
        ("RandomNormal" | "RandomUniform", _) => attribute("dtype").or(Some(ElementType::FLOAT)),
        ("RandomNormalLike" | "RandomUniformLike" | "EyeLike" | "Bernoulli", _) => {
            attribute("dtype").or_else(|| input(0))
        }
        ("Multinomial", _) => attribute("dtype").or(Some(ElementType::INT32)),
        ("If", _) => nested_type(node, "then_branch", index),
        ("Loop", _) => nested_type(node, "body", index.checked_add(1)?),
        ("Scan", _) => nested_type(node, "body", index),
        (op, _) if KEEPS_TYPE.contains(&op) => input(0),
        _ => None,
    }
}

fn nested_type(node: &NodeProto, attribute: &str, output: usize) -> Option<ElementType> {
    let graph = node.attribute(attribute)?.g.as_ref()?;
    Some(graph.output.get(output)?.tensor_type()?.element_type())
}

/// Operators all of whose outputs have the type of their first input.
#[rustfmt::skip]
const KEEPS_TYPE: &[&str] = &[
    "Abs", "Acos", "Acosh", "Add", "AffineGrid", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
    "BatchNormalization", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Ceil", "Celu",
    "CenterCropPad", "Clip", "Col2Im", "Compress", "Concat", "Conv", "ConvTranspose", "Cos", "Cosh", "CumSum",
    "DeformConv", "DepthToSpace", "Det", "Div", "Dropout", "Einsum", "Elu", "Erf", "Exp", "Expand", "Flatten",
    "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "GridSample", "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity",
    "InstanceNormalization", "LRN", "LSTM", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax",
    "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean",
    "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul", "Neg", "PRelu", "Pad", "Pow", "RMSNormalization",
    "RNN", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize",
    "ReverseSequence", "RoiAlign", "Round", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shrink", "Sigmoid",
    "Sign", "Sin", "Sinh", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze",
    "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unique",
    "Unsqueeze", "Upsample",
];
