//! A classifier's head taken off, so that the rest makes features of pictures, and another one put in its place.
//!
//! The head is the last layer with weights on the way to an output: a `Gemm`, or a `MatMul` with the `Add` of its bias. What
//! only reshapes or scales its answers, such as a `Softmax`, may follow; what flattens the features before it stays with
//! the rest, which is called the backbone.

use std::collections::{BTreeMap, HashSet};

use revoada_core::{DType, Dim, TensorRef, f16};
use thiserror::Error;

use super::Graph;
use crate::onnx::build::Attribute;
use crate::onnx::proto::NodeProto;
use crate::onnx::{ElementType, OnnxError, OnnxErrorKind, OnnxModel};

/// What may stand between a head and the output: each works on one answer, or on all answers of one row.
const FOLLOWERS: &[&str] = &["Cast", "Dropout", "Flatten", "Identity", "LogSoftmax", "Sigmoid", "Softmax"];
/// The oldest operators in which a `Gemm` takes one bias for all rows without being told to.
const OPSET_MIN: i64 = 7;

/// A layer that gives `weight · x + bias` for each row `x`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    inputs: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{weights} weights and {biases} biases are no layer of {inputs} inputs")]
pub struct LinearError {
    pub inputs: usize,
    pub weights: usize,
    pub biases: usize,
}

impl Linear {
    /// `weight` has a row of `inputs` numbers for each of `bias`.
    pub fn new(inputs: usize, weight: Vec<f32>, bias: Vec<f32>) -> Result<Self, LinearError> {
        match inputs.checked_mul(bias.len()) {
            Some(count) if count > 0 && count == weight.len() => Ok(Self { inputs, weight, bias }),
            _ => Err(LinearError { inputs, weights: weight.len(), biases: bias.len() }),
        }
    }

    pub fn inputs(&self) -> usize {
        self.inputs
    }

    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// `[outputs, inputs]`, row after row.
    pub fn weight(&self) -> &[f32] {
        &self.weight
    }

    pub fn bias(&self) -> &[f32] {
        &self.bias
    }
}

/// A classifier in two parts.
#[derive(Clone, Debug)]
pub struct Split {
    /// The model up to the features, `[rows, features]`, which are its only output.
    pub backbone: OnnxModel,
    pub head: Linear,
    /// The operators behind the head, in order: `Softmax`.
    pub followers: Vec<String>,
}

/// Where the head is.
struct Place {
    /// The node that multiplies.
    product: usize,
    /// The node that makes the answers: the same, or the one that adds the bias.
    end: usize,
    /// By the numbers of their nodes.
    followers: Vec<usize>,
    features: String,
    weight: String,
    bias: Option<String>,
    /// Whether the weights lie as `[outputs, inputs]`.
    by_output: bool,
}

impl OnnxModel {
    /// Takes off the head before `output`, which may be left out where there is only one.
    pub fn split_head(&self, output: Option<&str>) -> Result<Split, OnnxError> {
        let mut graph = self.edit()?;
        let fail = |reason: String| self.error(OnnxErrorKind::Head { reason });
        let output = chosen(&graph, output).map_err(fail)?;
        let place = Place::find(&graph, &output).map_err(fail)?;
        let (head, element) = place.head(&graph).map_err(fail)?;
        if graph.uses().producer(&place.features).is_none() {
            return Err(fail(format!("there is nothing before node `{}`", graph.nodes()[place.end].label())));
        }
        let followers = place.followers.iter().map(|index| graph.nodes()[*index].op_type().to_owned()).collect();
        let rows = batch(&graph, &output);
        graph.clear_outputs();
        graph.expose(&place.features, element);
        graph.remove_unused();
        let mut backbone = graph.finish()?;
        backbone.set_dims(&place.features, &[rows, Dim::Fixed(head.inputs())])?;
        backbone.check_features(&place.features, head.inputs()).map_err(fail)?;
        Ok(Split { backbone, head, followers })
    }

    /// Puts layers, with a `Relu` between each two, in the place of the head before `output`. Inputs and outputs keep their
    /// names; those that the head makes get the new number of classes.
    pub fn merge_head(&self, output: Option<&str>, layers: &[Linear]) -> Result<OnnxModel, OnnxError> {
        let mut graph = self.edit()?;
        let fail = |reason: String| self.error(OnnxErrorKind::Head { reason });
        let output = chosen(&graph, output).map_err(fail)?;
        let place = Place::find(&graph, &output).map_err(fail)?;
        let (old, element) = place.head(&graph).map_err(fail)?;
        check_chain(&old, layers, &graph.nodes()[place.end]).map_err(fail)?;
        if graph.opset() < OPSET_MIN {
            return Err(fail(format!("its operators are of version {}, before {OPSET_MIN}", graph.opset())));
        }
        let answers = graph.nodes()[place.end].output[0].clone();
        let outputs = made_from(&graph, &answers);
        let classes = layers.last().map_or(0, Linear::outputs);
        place.replace(&mut graph, layers, element);
        graph.remove_unused();
        let mut merged = graph.finish()?;
        for name in outputs {
            let info = merged.graph().output.iter().find(|info| info.name() == name);
            let Some(mut dims) = info.and_then(|info| info.tensor_type()?.dims()) else { continue };
            if let Some(last) = dims.last_mut().filter(|last| **last == Dim::Fixed(old.outputs())) {
                *last = Dim::Fixed(classes);
                merged.set_dims(&name, &dims)?;
            }
        }
        Ok(merged)
    }

    /// Whether the features are rows, as far as that can be told without running the model.
    fn check_features(&self, name: &str, features: usize) -> Result<(), String> {
        let Ok(summary) = self.summary(&BTreeMap::new()) else { return Ok(()) };
        match summary.outputs.into_iter().find(|output| output.name == name).and_then(|output| output.shape) {
            Some(shape) if shape.len() != 2 || shape[1] != features => Err(format!(
                "its features `{name}` have the shape {shape:?} and not a row of {features} for each picture"
            )),
            _ => Ok(()),
        }
    }
}

/// The output that is named, or the only one.
fn chosen(graph: &Graph, output: Option<&str>) -> Result<String, String> {
    match (output, graph.outputs()) {
        (Some(name), _) if graph.is_output(name) => Ok(name.to_owned()),
        (Some(name), _) => Err(format!("it has no output `{name}`")),
        (None, [only]) => Ok(only.name().to_owned()),
        (None, several) => Err(format!("it has {} outputs, and which is the classes' is not said", several.len())),
    }
}

impl Place {
    /// Walks from an output towards the inputs, up to the first node that has to be the head.
    fn find(graph: &Graph, output: &str) -> Result<Self, String> {
        let (uses, nodes) = (graph.uses(), graph.nodes());
        let mut followers = Vec::new();
        let mut value = output;
        // A well-formed graph has no cycle; in another one the walk is longer than there are nodes.
        while followers.len() <= nodes.len() {
            let end = uses.producer(value).ok_or_else(|| format!("output `{output}` is made from no head"))?;
            let node = &nodes[end];
            if FOLLOWERS.iter().any(|op| node.is(op)) {
                followers.insert(0, end);
                value = node.input_name(0).unwrap_or_default();
                continue;
            }
            let (product, bias) = match node.is("Add") {
                true => {
                    let constant =
                        |index: usize| node.input_name(index).filter(|name| graph.initializer(name).is_some());
                    let (bias, sum) = match (constant(0), constant(1)) {
                        (None, Some(bias)) => (bias, 0),
                        (Some(bias), None) => (bias, 1),
                        _ => return Err(format!("node `{}` adds no constant bias", node.label())),
                    };
                    let product = node.input_name(sum).and_then(|name| uses.producer(name));
                    let product = product.filter(|index| nodes[*index].is("MatMul"));
                    let product = product.ok_or_else(|| format!("node `{}` adds to no MatMul", node.label()))?;
                    (product, Some(bias.to_owned()))
                }
                false => (end, node.input_name(2).map(str::to_owned)),
            };
            return Self::at(graph, followers, product, end, bias);
        }
        Err(format!("output `{output}` is made from itself"))
    }

    fn at(
        graph: &Graph,
        followers: Vec<usize>,
        product: usize,
        end: usize,
        bias: Option<String>,
    ) -> Result<Self, String> {
        let node = &graph.nodes()[product];
        let label = node.label();
        if !node.is("Gemm") && !node.is("MatMul") {
            let op = node.op_type();
            return Err(format!("the last layer is node `{label}`, which is {op} and neither Gemm nor MatMul"));
        }
        let is_one = |name: &str| node.float(name).unwrap_or(1.0) == 1.0;
        if node.is("Gemm") && !(is_one("alpha") && is_one("beta") && node.int("transA").unwrap_or(0) == 0) {
            return Err(format!("node `{label}` scales or transposes what it multiplies"));
        }
        let input = |index: usize| node.input_name(index).map(str::to_owned);
        let (Some(features), Some(weight)) = (input(0), input(1)) else {
            return Err(format!("node `{label}` lacks an input"));
        };
        let by_output = node.is("Gemm") && node.int("transB").unwrap_or(0) != 0;
        Ok(Self { product, end, followers, features, weight, bias, by_output })
    }

    /// The head's numbers, and their type.
    fn head(&self, graph: &Graph) -> Result<(Linear, ElementType), String> {
        let label = graph.nodes()[self.product].label();
        let (shape, weight, element) = numbers(graph, &self.weight, &label)?;
        let &[rows, columns] = shape.as_slice() else {
            return Err(format!(
                "tensor `{}` of node `{label}` has the shape {shape:?} and not two sides",
                self.weight
            ));
        };
        let (outputs, inputs) = if self.by_output { (rows, columns) } else { (columns, rows) };
        let weight = if self.by_output { weight } else { transposed(&weight, inputs, outputs) };
        let bias = match &self.bias {
            None => vec![0.0; outputs],
            Some(name) => {
                let (shape, bias, _) = numbers(graph, name, &label)?;
                match (shape.iter().rev().skip(1).all(|side| *side == 1), bias.len()) {
                    (true, 1) => vec![bias[0]; outputs],
                    (true, count) if count == outputs => bias,
                    _ => return Err(format!("tensor `{name}` of shape {shape:?} is no bias of {outputs} classes")),
                }
            }
        };
        let head = Linear::new(inputs, weight, bias).map_err(|error| format!("node `{label}` is no layer: {error}"))?;
        Ok((head, element))
    }

    /// Writes the layers' nodes over the one that makes the answers.
    fn replace(&self, graph: &mut Graph, layers: &[Linear], element: ElementType) {
        let answers = graph.nodes()[self.end].output[0].clone();
        let mut value = self.features.clone();
        for (index, layer) in layers.iter().enumerate() {
            let is_last = index + 1 == layers.len();
            let base = if is_last { "head" } else { "hidden" };
            let shape = [layer.outputs(), layer.inputs()];
            let weight = add(graph, &format!("{base}.weight"), &shape, layer.weight(), element);
            let bias = add(graph, &format!("{base}.bias"), &shape[..1], layer.bias(), element);
            let name = graph.fresh(base);
            let sum = if is_last { answers.clone() } else { graph.fresh(&format!("{base}.sum")) };
            let by_output = [("transB", Attribute::Int(1))];
            let gemm = NodeProto::new("Gemm", &name, &[&value, &weight, &bias], &[&sum], &by_output);
            if is_last {
                graph.nodes_mut()[self.end] = gemm;
                return;
            }
            graph.nodes_mut().push(gemm);
            let (name, positive) = (graph.fresh("hidden.relu"), graph.fresh("hidden.positive"));
            graph.nodes_mut().push(NodeProto::new("Relu", &name, &[&sum], &[&positive], &[]));
            value = positive;
        }
    }
}

/// Shape, elements and type of a constant.
fn numbers(graph: &Graph, name: &str, reader: &str) -> Result<(Vec<usize>, Vec<f32>, ElementType), String> {
    if graph.initializer(name).is_none() {
        return Err(format!("node `{reader}` computes its weights `{name}`, which are to be constants"));
    }
    let tensor = graph.tensor(name).filter(|tensor| matches!(tensor.dtype(), DType::F32 | DType::F16));
    let tensor = tensor.ok_or_else(|| format!("tensor `{name}` of node `{reader}` is neither f32 nor f16"))?;
    let values = tensor.data().as_slice().to_f64().into_iter().map(|value| value as f32).collect();
    Ok((tensor.shape().to_vec(), values, tensor.dtype().into()))
}

fn add(graph: &mut Graph, base: &str, shape: &[usize], values: &[f32], element: ElementType) -> String {
    let halves: Vec<f16>;
    let tensor = match element {
        ElementType::FLOAT16 => {
            halves = values.iter().map(|value| f16::from_f32(*value)).collect();
            TensorRef::of(shape, &halves)
        }
        _ => TensorRef::of(shape, values),
    };
    graph.add_tensor(base, tensor.expect("a layer has as many numbers as its shape says"))
}

/// From `[inputs, outputs]` to `[outputs, inputs]`.
fn transposed(weight: &[f32], inputs: usize, outputs: usize) -> Vec<f32> {
    (0..outputs).flat_map(|output| (0..inputs).map(move |input| weight[input * outputs + output])).collect()
}

/// Whether each layer takes what the one before it gives, and the first the features.
fn check_chain(old: &Linear, layers: &[Linear], node: &NodeProto) -> Result<(), String> {
    let mut width = old.inputs();
    for layer in layers {
        if layer.inputs() != width {
            let (label, inputs) = (node.label(), layer.inputs());
            return Err(format!("a layer of {inputs} inputs cannot follow {width} features at node `{label}`"));
        }
        width = layer.outputs();
    }
    if layers.is_empty() { Err("there is no layer to put in its place".to_owned()) } else { Ok(()) }
}

/// The first dimension of an output, as it is declared.
fn batch(graph: &Graph, output: &str) -> Dim {
    let info = graph.outputs().iter().find(|info| info.name() == output);
    let dims = info.and_then(|info| info.tensor_type()?.dims());
    dims.and_then(|dims| dims.into_iter().next()).unwrap_or_else(|| Dim::Dynamic("?".to_owned()))
}

/// The outputs that depend on a value.
fn made_from(graph: &Graph, value: &str) -> Vec<String> {
    let uses = graph.uses();
    let (mut known, mut open) = (HashSet::from([value]), vec![value]);
    while let Some(value) = open.pop() {
        for read in uses.consumers(value) {
            for made in &graph.nodes()[read.node].output {
                if known.insert(made) {
                    open.push(made);
                }
            }
        }
    }
    graph.outputs().iter().map(|info| info.name().to_owned()).filter(|name| known.contains(name.as_str())).collect()
}
