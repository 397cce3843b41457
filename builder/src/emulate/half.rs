//! Rounding to f16 as f32 arithmetic: to nearest, with f16's range and subnormal numbers.

use revoada_bundle::onnx::proto::{NodeProto, TensorProto};
use revoada_bundle::onnx::{Attribute, ElementType, Graph, OnnxError};
use revoada_core::{Tensor, TensorRef};

use crate::typing::moves;

/// Multiplying by this and subtracting leaves the upper 11 of f32's 24 bits (T. J. Dekker's splitting).
const SPLIT: f32 = 8193.0;
/// The smallest number that rounds to infinity.
const OVERFLOW: f32 = 65520.0;
/// The smallest normal f16; smaller ones are multiples of 2⁻²⁴, which are what remains of a number after
/// [`STEP`] was added to it and taken away again.
const SUBNORMAL: f32 = 1.0 / 16384.0;
const STEP: f32 = 0.75;

/// Makes every f16 of a sorted graph an f32 that is rounded where a node writes it.
pub(super) fn widen(graph: &mut Graph) -> Result<(), OnnxError> {
    let types = graph.types();
    let is_half = |name: &str| types.get(name) == Some(&ElementType::FLOAT16);
    let halves: Vec<(String, Tensor)> = graph
        .initializers()
        .filter(|(name, _)| is_half(name))
        .filter_map(|(name, tensor)| Some((name.to_owned(), widened(&tensor.tensor()?)?)))
        .collect();
    for (name, tensor) in halves {
        graph.set_tensor(&name, tensor.as_ref());
    }
    let rounding = Rounding::new(graph);
    let mut nodes = Vec::new();

    let interface = graph.inputs().iter().chain(graph.outputs()).map(|info| info.name().to_owned());
    let interface: Vec<String> = interface.filter(|name| is_half(name)).collect();
    for name in &interface {
        graph.set_element_type(name, ElementType::FLOAT)?;
    }
    let inputs: Vec<String> = graph.inputs().iter().map(|info| info.name().to_owned()).collect();
    let mut rounded_inputs = Vec::new();
    for name in inputs.into_iter().filter(|name| is_half(name)) {
        let rounded = graph.fresh(&format!("{name}_rounded"));
        rounding.append(graph, &mut nodes, &name, &rounded);
        rounded_inputs.push((name, rounded));
    }
    for (name, rounded) in &rounded_inputs {
        graph.replace_uses(name, rounded);
    }
    for mut node in std::mem::take(graph.nodes_mut()) {
        let from_half = node.input.first().is_some_and(|input| is_half(input));
        widen_attributes(&mut node);
        let exact = moves(&node) || (node.is("Cast") && from_half);
        let mut after = Vec::new();
        for index in 0..node.output.len() {
            let name = node.output[index].clone();
            if is_half(&name) && !exact {
                let unrounded = graph.fresh(&format!("{name}_exact"));
                node.output[index] = unrounded.clone();
                rounding.append(graph, &mut after, &unrounded, &name);
            }
        }
        nodes.push(node);
        nodes.extend(after);
    }
    *graph.nodes_mut() = nodes;
    Ok(())
}

fn widened(tensor: &Tensor) -> Option<Tensor> {
    let halves = tensor.as_ref().as_slice::<half::f16>()?;
    Tensor::of(tensor.shape().to_vec(), halves.iter().map(|number| number.to_f32()).collect()).ok()
}

/// f16 in a node's attributes: constants, and the type that it casts to.
fn widen_attributes(node: &mut NodeProto) {
    for name in ["to", "dtype"] {
        if node.int(name) == Some(ElementType::FLOAT16.0.into()) {
            node.set_attribute(name, &Attribute::Int(ElementType::FLOAT.0.into()));
        }
    }
    for tensor in node.attribute.iter_mut().filter_map(|attribute| attribute.t.as_mut()) {
        if let Some(wide) = tensor.tensor().as_ref().and_then(widened) {
            let name = tensor.name().to_owned();
            *tensor = TensorProto::of(&name, wide.as_ref());
        }
    }
}

/// The constants of the arithmetic, once for the graph.
struct Rounding {
    split: String,
    overflow: String,
    infinity: String,
    subnormal: String,
    step: String,
}

impl Rounding {
    fn new(graph: &mut Graph) -> Self {
        let mut scalar = |name: &str, number: f32| {
            let number = [number];
            graph.add_tensor(name, TensorRef::of(&[], &number).expect("a scalar has one element"))
        };
        Self {
            split: scalar("f16_split", SPLIT),
            overflow: scalar("f16_overflow", OVERFLOW),
            infinity: scalar("f16_infinity", f32::INFINITY),
            subnormal: scalar("f16_subnormal", SUBNORMAL),
            step: scalar("f16_step", STEP),
        }
    }

    /// Nodes that make `to` from `from`.
    fn append(&self, graph: &mut Graph, nodes: &mut Vec<NodeProto>, from: &str, to: &str) {
        let mut node = |op: &str, inputs: &[&str], output: Option<&str>| {
            let output = output.map_or_else(|| graph.fresh(&format!("{to}/{op}")), str::to_owned);
            let name = graph.fresh(&format!("{output}/round"));
            nodes.push(NodeProto::new(op, &name, inputs, &[&output], &[]));
            output
        };
        let scaled = node("Mul", &[from, &self.split], None);
        let low = node("Sub", &[&scaled, from], None);
        let normal = node("Sub", &[&scaled, &low], None);
        let shifted = node("Add", &[from, &self.step], None);
        let small = node("Sub", &[&shifted, &self.step], None);
        let magnitude = node("Abs", &[from], None);
        let is_small = node("Less", &[&magnitude, &self.subnormal], None);
        let finite = node("Where", &[&is_small, &small, &normal], None);
        // What is too large, infinite or no number takes the other way, where arithmetic keeps it so.
        let fits = node("Less", &[&magnitude, &self.overflow], None);
        let beyond = node("Mul", &[from, &self.infinity], None);
        node("Where", &[&fits, &finite, &beyond], Some(to));
    }
}
