//! Quantising and dequantising as f32 arithmetic.

use std::collections::HashMap;

use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{ElementType, Graph};
use revoada_core::{Tensor, TensorRef};

/// Replaces pairs of constant scale: on constants by what they make of them, on activations with one scale by
/// arithmetic. Other pairs stay for the backend.
pub(super) fn unfold(graph: &mut Graph) {
    let types = graph.types();
    for node in std::mem::take(graph.nodes_mut()) {
        let replaced = match node.op_type() {
            "QuantizeLinear" => quantise(graph, &node, &types),
            "DequantizeLinear" => dequantise(graph, &node),
            _ => None,
        };
        let nodes = replaced.unwrap_or_else(|| vec![node]);
        graph.nodes_mut().extend(nodes);
    }
}

/// Scales and zeros of a node, one or one for each channel.
struct Scales {
    scales: Vec<f64>,
    zeros: Vec<f64>,
    axis: i64,
}

impl Scales {
    fn of(graph: &Graph, node: &NodeProto) -> Option<Self> {
        let list = |index: usize| Some(graph.tensor(node.input_name(index)?)?.as_ref().data().to_f64());
        let scales = list(1)?;
        let zeros = match node.input_name(2) {
            Some(_) => list(2)?,
            None => vec![0.0; scales.len()],
        };
        let alike = zeros.len() == scales.len() && !scales.is_empty();
        let blocks = node.int("block_size").unwrap_or(0) != 0;
        (alike && !blocks).then(|| Self { scales, zeros, axis: node.int("axis").unwrap_or(1) })
    }

    /// The scale and zero of an activation.
    fn single(&self) -> Option<(f64, f64)> {
        (self.scales.len() == 1).then(|| (self.scales[0], self.zeros[0]))
    }

    /// A constant, each element changed by its scale and zero.
    fn map(&self, tensor: &Tensor, change: impl Fn(f64, f64, f64) -> f64) -> Option<Tensor> {
        let shape = tensor.shape();
        let rank = i64::try_from(shape.len()).ok()?;
        let inner: usize = match self.single() {
            Some(_) => 1,
            None => {
                let axis = usize::try_from(if self.axis < 0 { self.axis + rank } else { self.axis }).ok()?;
                if shape.get(axis) != Some(&self.scales.len()) {
                    return None;
                }
                shape[axis + 1..].iter().product()
            }
        };
        let channel = |index: usize| index / inner.max(1) % self.scales.len();
        let changed = tensor.as_ref().data().to_f64().into_iter().enumerate().map(|(index, number)| {
            let channel = channel(index);
            change(number, self.scales[channel], self.zeros[channel]) as f32
        });
        Tensor::of(shape.to_vec(), changed.collect()).ok()
    }
}

fn quantise(graph: &mut Graph, node: &NodeProto, types: &HashMap<String, ElementType>) -> Option<Vec<NodeProto>> {
    let scales = Scales::of(graph, node)?;
    let (x, y) = (node.input_name(0)?, node.output.first()?);
    let (low, high) = match *types.get(y)? {
        ElementType::INT8 => (-128.0, 127.0),
        ElementType::UINT8 => (0.0, 255.0),
        _ => return None,
    };
    if let Some(tensor) = graph.tensor(x) {
        // As backends divide: in f32.
        let level = |x: f64, scale: f64, zero: f64| {
            let level = f64::from((x as f32 / scale as f32).round_ties_even()) + zero;
            level.clamp(low, high)
        };
        let levels = scales.map(&tensor, level)?;
        graph.set_tensor(y, levels.as_ref());
        return Some(Vec::new());
    }
    let (scale, zero) = scales.single()?;
    let mut steps = Steps { graph, nodes: Vec::new(), base: y };
    let scale = steps.scalar("scale", scale);
    let bounds = [steps.scalar("low", low), steps.scalar("high", high)];
    let divided = steps.step("Div", &[x, &scale]);
    let mut level = steps.step("Round", &[&divided]);
    if zero != 0.0 {
        let zero = steps.scalar("zero", zero);
        level = steps.step("Add", &[&level, &zero]);
    }
    Some(steps.last("Clip", &[&level, &bounds[0], &bounds[1]]))
}

fn dequantise(graph: &mut Graph, node: &NodeProto) -> Option<Vec<NodeProto>> {
    let scales = Scales::of(graph, node)?;
    let (x, y) = (node.input_name(0)?, node.output.first()?);
    if let Some(tensor) = graph.tensor(x) {
        let wide = scales.map(&tensor, |level, scale, zero| f64::from((level - zero) as f32 * scale as f32))?;
        graph.set_tensor(y, wide.as_ref());
        return Some(Vec::new());
    }
    let (scale, zero) = scales.single()?;
    let mut steps = Steps { graph, nodes: Vec::new(), base: y };
    let mut level = x.to_owned();
    if zero != 0.0 {
        let zero = steps.scalar("zero", zero);
        level = steps.step("Sub", &[&level, &zero]);
    }
    let scale = steps.scalar("scale", scale);
    Some(steps.last("Mul", &[&level, &scale]))
}

struct Steps<'a> {
    graph: &'a mut Graph,
    nodes: Vec<NodeProto>,
    base: &'a str,
}

impl Steps<'_> {
    fn scalar(&mut self, name: &str, number: f64) -> String {
        let number = [number as f32];
        let tensor = TensorRef::of(&[], &number).expect("a scalar has one element");
        self.graph.add_tensor(&format!("{}/{name}", self.base), tensor)
    }

    fn step(&mut self, op: &str, inputs: &[&str]) -> String {
        let output = self.graph.fresh(&format!("{}/{op}", self.base));
        self.push(op, inputs, &output);
        output
    }

    fn last(mut self, op: &str, inputs: &[&str]) -> Vec<NodeProto> {
        let output = self.base.to_owned();
        self.push(op, inputs, &output);
        self.nodes
    }

    fn push(&mut self, op: &str, inputs: &[&str], output: &str) {
        let name = self.graph.fresh(&format!("{output}/emulated"));
        self.nodes.push(NodeProto::new(op, &name, inputs, &[output], &[]));
    }
}
