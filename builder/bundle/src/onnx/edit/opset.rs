//! Lifting a graph to a later operator set.
//!
//! Most operators only gained types and optional attributes. The rest is here: what moved from attributes
//! to inputs, what was renamed, and what changed its meaning. An operator that is not known here is
//! refused rather than hoped for.

use revoada_core::TensorRef;

use crate::onnx::build::Attribute;
use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::onnx::{OnnxError, OnnxErrorKind};

use super::Graph;

/// Before this version, operands were fitted to each other by attributes.
const OPSET_MIN: i64 = 7;
/// The last version whose changes are known here.
const OPSET_MAX: i64 = 19;

/// Operators that mean in every version from [`OPSET_MIN`] to [`OPSET_MAX`] what they meant in the ones
/// before, but for what [`Graph::lift`] rewrites.
#[rustfmt::skip]
const KNOWN: &[&str] = &[
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
    "BatchNormalization", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "CastLike",
    "Ceil", "Celu", "Clip", "Compress", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvInteger",
    "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Det", "Div", "Dropout",
    "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "GRU",
    "Gather", "GatherElements", "GatherND", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater",
    "GreaterOrEqual", "GridSample", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "If", "InstanceNormalization",
    "IsInf", "IsNaN", "LRN", "LSTM", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax",
    "Loop", "LpNormalization", "LpPool", "MatMul", "MatMulInteger", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool",
    "Mean", "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul", "Neg", "NonMaxSuppression", "NonZero", "Not",
    "OneHot", "Or", "PRelu", "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RNN", "Range",
    "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize", "ReverseSequence", "RoiAlign",
    "Round", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
    "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum",
    "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unique", "Unsqueeze", "Upsample",
    "Where", "Xor",
];

impl Graph {
    /// Rewrites the graph, nested graphs included, for operator set `target`; does nothing where it is
    /// there already. What a backend computes stays the same. Refused where the model has functions, is
    /// older than version 7 or has an operator whose changes are not known here; then nothing is changed.
    pub fn lift(&mut self, target: i64) -> Result<(), OnnxError> {
        let from = self.opset();
        if from >= target {
            return Ok(());
        }
        let mut lifted = self.clone();
        lifted
            .lift_nodes(from, target)
            .map_err(|reason| self.model.error(OnnxErrorKind::Opset { from, to: target, reason }))?;
        for opset in &mut lifted.model.proto.opset_import {
            if super::super::domain_name(opset.domain()) == "ai.onnx" {
                opset.version = Some(target);
            }
        }
        // Each set needs the format of its time.
        let ir_version = if target >= 19 {
            9
        } else if target >= 15 {
            8
        } else {
            7
        };
        lifted.model.proto.ir_version = Some(lifted.model.proto.ir_version().max(ir_version));
        *self = lifted;
        Ok(())
    }

    fn lift_nodes(&mut self, from: i64, target: i64) -> Result<(), String> {
        if from < OPSET_MIN {
            return Err(format!("sets before {OPSET_MIN} are not known here"));
        }
        if target > OPSET_MAX {
            return Err(format!("sets after {OPSET_MAX} are not known here"));
        }
        if !self.model.proto.functions.is_empty() {
            return Err("it has functions of its own".to_owned());
        }
        let nodes = std::mem::take(&mut self.nodes);
        self.nodes = self.lift_list(nodes, from, target)?;
        Ok(())
    }

    fn lift_list(&mut self, nodes: Vec<NodeProto>, from: i64, target: i64) -> Result<Vec<NodeProto>, String> {
        let mut lifted = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            for graph in node.nested_mut() {
                graph.node = self.lift_list(std::mem::take(&mut graph.node), from, target)?;
            }
            if !node.is_standard() {
                lifted.push(node);
                continue;
            }
            if !KNOWN.contains(&node.op_type()) {
                return Err(format!("the changes of operator `{}` are not known here", node.op_type()));
            }
            // Each change holds from the version that it is listed under.
            lifted.extend(self.lift_node(node, &|version| from < version && version <= target)?);
        }
        Ok(lifted)
    }

    fn lift_node(&mut self, mut node: NodeProto, crosses: &dyn Fn(i64) -> bool) -> Result<Vec<NodeProto>, String> {
        let op = node.op_type().to_owned();
        match op.as_str() {
            "BatchNormalization" => {
                let spatial = node.take_attribute("spatial").is_none_or(|spatial| spatial.i() != 0);
                if !spatial {
                    return Err(format!("node `{}` normalises each pixel on its own", node.label()));
                }
                if crosses(14) && node.output.len() > 1 {
                    return Err(format!("node `{}` is in training", node.label()));
                }
            }
            "Upsample" if crosses(10) => {
                self.floats_to_input(&mut node, "scales", 1);
                node.op_type = Some("Resize".to_owned());
                self.resize_as_before(&mut node);
            }
            "Resize" if crosses(11) => self.resize_as_before(&mut node),
            "Resize"
                if crosses(13) && node.string("coordinate_transformation_mode") == Some("tf_half_pixel_for_nn") =>
            {
                return Err(format!("node `{}` resizes as `tf_half_pixel_for_nn`", node.label()));
            }
            "Slice" if crosses(10) => {
                for (index, name) in ["starts", "ends", "axes"].into_iter().enumerate() {
                    self.ints_to_input(&mut node, name, 1 + index);
                }
            }
            "TopK" if crosses(10) => {
                if let Some(k) = node.take_attribute("k") {
                    node.set_attribute("k", &Attribute::Ints(vec![k.i()]));
                    self.ints_to_input(&mut node, "k", 1);
                }
            }
            "Clip" if crosses(11) => {
                for (index, name) in ["min", "max"].into_iter().enumerate() {
                    self.float_to_input(&mut node, name, 1 + index);
                }
            }
            "Pad" if crosses(11) => {
                self.ints_to_input(&mut node, "pads", 1);
                self.float_to_input(&mut node, "value", 2);
            }
            "Scatter" if crosses(11) => node.op_type = Some("ScatterElements".to_owned()),
            // What it drops in training is nothing to an inference.
            "Dropout" if crosses(12) => drop(node.take_attribute("ratio")),
            "Squeeze" | "Unsqueeze" | "ReduceSum" if crosses(13) => self.ints_to_input(&mut node, "axes", 1),
            "Split" => {
                if crosses(13) {
                    self.ints_to_input(&mut node, "split", 1);
                }
                if crosses(18) && node.input_name(1).is_none() {
                    let count = i64::try_from(node.output.len()).unwrap_or(i64::MAX);
                    node.set_attribute("num_outputs", &Attribute::Int(count));
                }
            }
            "Softmax" | "LogSoftmax" | "Hardmax" if crosses(13) => return Ok(self.softmax_over_the_rest(node)),
            "RoiAlign" if crosses(16) && node.attribute("coordinate_transformation_mode").is_none() => {
                let mode = Attribute::String("output_half_pixel".to_owned());
                node.set_attribute("coordinate_transformation_mode", &mode);
            }
            "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
            | "ReduceProd" | "ReduceSumSquare"
                if crosses(18) =>
            {
                self.ints_to_input(&mut node, "axes", 1);
            }
            _ => {}
        }
        Ok(vec![node])
    }

    /// Version 10 had no region of interest, and always computed thus.
    fn resize_as_before(&mut self, node: &mut NodeProto) {
        // Versions 11 and 12 ask for a region even where it says nothing.
        let region =
            self.add_tensor(&format!("{}_roi", node.label()), TensorRef::of(&[0], &[0f32; 0]).expect("nothing"));
        node.input.insert(1, region);
        node.set_attribute("coordinate_transformation_mode", &Attribute::String("asymmetric".to_owned()));
        node.set_attribute("nearest_mode", &Attribute::String("floor".to_owned()));
    }

    /// Before version 13 these worked on everything from `axis` on (1 unless said), as if it were flat.
    fn softmax_over_the_rest(&mut self, mut node: NodeProto) -> Vec<NodeProto> {
        let axis = node.take_attribute("axis").map_or(1, |axis: AttributeProto| axis.i());
        node.set_attribute("axis", &Attribute::Int(-1));
        if axis == -1 {
            return vec![node];
        }
        let (Some(x), Some(y)) = (node.input.first().cloned(), node.output.first().cloned()) else { return vec![node] };
        let label = node.label();
        let [shape, flat, soft] = ["shape", "flat", "rows"].map(|part| self.fresh(&format!("{label}_{part}")));
        let names = ["shape", "flatten", "reshape"].map(|part| self.fresh(&format!("{label}/{part}")));
        node.input[0] = flat.clone();
        node.output[0] = soft.clone();
        vec![
            NodeProto::new("Shape", &names[0], &[&x], &[&shape], &[]),
            NodeProto::new("Flatten", &names[1], &[&x], &[&flat], &[("axis", Attribute::Int(axis))]),
            node,
            NodeProto::new("Reshape", &names[2], &[&soft, &shape], &[&y], &[]),
        ]
    }

    fn ints_to_input(&mut self, node: &mut NodeProto, attribute: &str, input: usize) {
        let Some(list) = node.take_attribute(attribute) else { return };
        let base = format!("{}_{attribute}", node.label());
        let tensor = TensorRef::of(&[list.ints.len()], &list.ints).expect("a list has its own length").to_owned();
        let name = self.add_tensor(&base, tensor.as_ref());
        place_input(node, input, name);
    }

    fn floats_to_input(&mut self, node: &mut NodeProto, attribute: &str, input: usize) {
        let Some(list) = node.take_attribute(attribute) else { return };
        let base = format!("{}_{attribute}", node.label());
        let tensor = TensorRef::of(&[list.floats.len()], &list.floats).expect("a list has its own length").to_owned();
        let name = self.add_tensor(&base, tensor.as_ref());
        place_input(node, input, name);
    }

    fn float_to_input(&mut self, node: &mut NodeProto, attribute: &str, input: usize) {
        let Some(value) = node.take_attribute(attribute) else { return };
        let base = format!("{}_{attribute}", node.label());
        let value = [value.f()];
        let tensor = TensorRef::of(&[], &value).expect("a scalar has one element").to_owned();
        let name = self.add_tensor(&base, tensor.as_ref());
        place_input(node, input, name);
    }
}

fn place_input(node: &mut NodeProto, index: usize, name: String) {
    if node.input.len() <= index {
        node.input.resize(index + 1, String::new());
    }
    node.input[index] = name;
}
