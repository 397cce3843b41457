//! Which operators compute in half precision, and whether every node of a graph has one precision.

use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{ElementType, Graph};
use serde::Serialize;

/// How an operator takes part in half precision: all its floats are f16, but for these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HalfForm {
    /// Inputs that stay as they are: f32 by definition, or of a type of their own.
    pub(crate) inputs_kept: &'static [usize],
    pub(crate) outputs_kept: &'static [usize],
}

/// The form of a node in the given version of the operator set; `None` where it has none and must be
/// computed in f32.
pub(crate) fn half_form(node: &NodeProto, opset: i64) -> Option<HalfForm> {
    if !node.is_standard() {
        return None;
    }
    let all = HalfForm { inputs_kept: &[], outputs_kept: &[] };
    let since = |version: i64| (opset >= version).then_some(all);
    match node.op_type() {
        // The region and the scales say where pixels lie, not what they are.
        "Resize" => Some(HalfForm { inputs_kept: &[1, 2], ..all }),
        "Upsample" | "Dropout" => Some(HalfForm { inputs_kept: &[1], ..all }),
        "OneHot" => Some(HalfForm { inputs_kept: &[0, 1], ..all }),
        // Mean and deviation are f32 unless the node asks for another type.
        "LayerNormalization" => Some(HalfForm { outputs_kept: &[1, 2], ..all }),
        "Less" | "Greater" => since(9),
        "Mod" | "RoiAlign" => since(10),
        "Equal" => since(11),
        "CumSum" | "HardSwish" => since(14),
        "Mish" => since(18),
        "QuantizeLinear" | "DequantizeLinear" => since(19),
        "IsInf" => since(20),
        op if HALF.contains(&op) => Some(all),
        _ => None,
    }
}

/// Operators all of whose floats may be f16, in every version that can be met. `MeanVarianceNormalization` is
/// none: the standard says so, but what it is made of there has constants in f32.
#[rustfmt::skip]
const HALF: &[&str] = &[
    "Abs", "Acos", "Acosh", "Add", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
    "BatchNormalization", "Cast", "CastLike", "Ceil", "Clip", "Compress", "Concat", "Conv", "ConvTranspose", "Cos",
    "Cosh", "DepthToSpace", "Det", "Div", "Einsum", "Elu", "Erf", "Exp", "Expand", "Flatten", "Floor", "GRU", "Gather",
    "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool",
    "GreaterOrEqual", "GridSample", "GroupNormalization", "HardSigmoid", "Hardmax", "Identity",
    "InstanceNormalization", "IsNaN", "LRN", "LSTM", "LeakyRelu", "LessOrEqual", "Log", "LogSoftmax",
    "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean",
    "Min", "Mul", "Neg", "NonZero", "PRelu", "Pad", "Pow", "RNN", "Reciprocal",
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "ReverseSequence", "Round", "Scatter", "ScatterElements",
    "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus",
    "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "ThresholdedRelu", "Tile",
    "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Where",
];

/// Whether an operator only moves, picks or compares elements: its answer holds no number that was not among
/// its inputs.
pub(crate) fn moves(node: &NodeProto) -> bool {
    #[rustfmt::skip]
    const MOVES: &[&str] = &[
        "Abs", "Clip", "Compress", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements",
        "GatherND", "GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Neg", "Pad", "ReduceMax", "ReduceMin",
        "Relu", "Reshape", "ReverseSequence", "Scatter", "ScatterElements", "ScatterND", "Slice", "SpaceToDepth",
        "Split", "Squeeze", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where",
    ];
    node.is_standard() && MOVES.contains(&node.op_type())
}

/// A node that a strongly typed compiler would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MixedNode {
    pub node: String,
    pub op: String,
    /// The floating-point types that meet there, by value.
    pub values: Vec<(String, String)>,
}

/// The nodes at which f16 and f32 meet, other than casts.
pub fn mixed_nodes(graph: &Graph) -> Vec<MixedNode> {
    let types = graph.types();
    let opset = graph.opset();
    let float = |name: &String| {
        let element = *types.get(name)?;
        matches!(element, ElementType::FLOAT | ElementType::FLOAT16).then(|| (name.clone(), element.to_string()))
    };
    let mixed = |node: &NodeProto| {
        if node.is("Cast") {
            return None;
        }
        let form = half_form(node, opset).unwrap_or(HalfForm { inputs_kept: &[], outputs_kept: &[] });
        let others = |kept: &'static [usize]| move |(index, _): &(usize, &String)| !kept.contains(index);
        let inputs = node.input.iter().enumerate().filter(others(form.inputs_kept));
        let outputs = node.output.iter().enumerate().filter(others(form.outputs_kept));
        let values: Vec<(String, String)> = inputs.chain(outputs).filter_map(|(_, name)| float(name)).collect();
        let differs = values.iter().any(|(_, element)| *element != values[0].1);
        differs.then(|| MixedNode { node: node.label(), op: node.op_type().to_owned(), values })
    };
    graph.nodes().iter().filter_map(mixed).collect()
}
