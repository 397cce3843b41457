//! Shapes of every value of a graph, given the shapes of its inputs, and the arithmetic that each
//! node costs. Good enough for convolutional networks and what exporters wrap around them: shape
//! arithmetic over small constants is computed, so that `Reshape` and `Resize` know their targets.
//!
//! A shape is known whole or not at all, and nothing is guessed. Where no rule knows a node's
//! outputs, the shapes that the file declares for them are taken, if they leave nothing open.

mod arithmetic;
mod layout;
mod matrix;
mod node;
mod spatial;

use std::collections::HashMap;

use revoada_core::Dim;

use super::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::{ElementType, domain_name};
use node::Node;

/// Constants of more elements are weights, not shapes, and their numbers are not carried along. With
/// this bound a graph's constants take at most 2 kB a node.
const NUMBERS_MAX: usize = 256;
/// No real tensor has more dimensions; without a bound, a few `Gather` nodes could make any number.
const RANK_MAX: usize = 32;

/// What is known of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub(super) element: ElementType,
    pub(super) shape: Vec<usize>,
    /// The elements, where they are constants and few.
    numbers: Option<Vec<f64>>,
}

impl Value {
    /// A tensor whose elements are not known.
    pub(super) fn new(element: ElementType, shape: Vec<usize>) -> Self {
        Self { element, shape, numbers: None }
    }

    /// A list of constants, `shape` being a scalar's or a vector's.
    fn constant(element: ElementType, shape: Vec<usize>, numbers: Vec<f64>) -> Self {
        let numbers = Some(numbers).filter(|numbers| numbers.len() <= NUMBERS_MAX);
        Self { element, shape, numbers }
    }

    fn of(tensor: &TensorProto) -> Option<Self> {
        let shape = tensor.shape().filter(|shape| shape.len() <= RANK_MAX)?;
        Some(Self { element: tensor.element_type(), shape, numbers: tensor.numbers(NUMBERS_MAX) })
    }

    /// The shape that a file declares, where it leaves nothing open.
    fn declared(info: &ValueInfoProto) -> Option<Self> {
        let tensor = info.tensor_type()?;
        let dims = tensor.dims().filter(|dims| dims.len() <= RANK_MAX)?;
        let shape: Option<Vec<usize>> = dims.iter().map(Dim::fixed).collect();
        Some(Self::new(tensor.element_type(), shape?))
    }

    fn count(&self) -> Result<usize, Unknown> {
        product(&self.shape)
    }

    fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The same elements in the same order.
    fn reshaped(&self, shape: Vec<usize>) -> Self {
        Self { shape, ..self.clone() }
    }

    /// A value of `shape` whose element at an index is this one's at `index(…)`; constants stay constants.
    fn picked(&self, shape: Vec<usize>, index: impl Fn(&[usize]) -> Option<Vec<usize>>) -> Self {
        let count = product(&shape).ok().filter(|count| *count <= NUMBERS_MAX);
        let numbers = self.numbers.as_ref().zip(count).and_then(|(numbers, count)| {
            let at = |flat| numbers.get(flatten(&index(&unflatten(flat, &shape))?, &self.shape)?).copied();
            (0..count).map(at).collect()
        });
        Self { element: self.element, shape, numbers }
    }
}

fn product(dims: &[usize]) -> Result<usize, Unknown> {
    dims.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim)).ok_or(Unknown::Mismatch)
}

/// The index of element `flat` of a row-major tensor.
fn unflatten(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (place, dim) in index.iter_mut().zip(shape).rev() {
        *place = flat % dim.max(&1);
        flat /= dim.max(&1);
    }
    index
}

fn flatten(index: &[usize], shape: &[usize]) -> Option<usize> {
    index.iter().zip(shape).try_fold(0usize, |flat, (place, dim)| flat.checked_mul(*dim)?.checked_add(*place))
}

/// What a node does: its outputs (the first ones; later ones may stay unknown) and its arithmetic.
#[derive(Debug, Default)]
struct Effect {
    outputs: Vec<Value>,
    cost: Cost,
}

impl Effect {
    /// Moves or relabels data.
    fn free(output: Value) -> Self {
        Self { outputs: vec![output], cost: Cost::default() }
    }

    /// `operations` for each element of the output.
    fn each(output: Value, operations: u64) -> Result<Self, Unknown> {
        let cost = Cost { macs: 0, other: times(output.count()?, operations)? };
        Ok(Self { outputs: vec![output], cost })
    }
}

/// The arithmetic of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Multiplications whose product is added to a sum.
    pub(super) macs: u64,
    /// Operations that are no part of these; a function of one number counts as one.
    pub(super) other: u64,
}

fn times(count: usize, factor: u64) -> Result<u64, Unknown> {
    u64::try_from(count).ok().and_then(|count| count.checked_mul(factor)).ok_or(Unknown::Mismatch)
}

/// Why a node's outputs or arithmetic are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unknown {
    /// There is no rule for the operator, or for the way in which it is used.
    Operator,
    /// A shape or constant that it depends on is not known.
    Input,
    /// Its inputs and attributes contradict each other.
    Mismatch,
}

/// What inference found.
pub(super) struct Inference<'m> {
    pub(super) values: HashMap<&'m str, Value>,
    /// One for each node of the graph, in its order.
    pub(super) costs: Vec<Result<Cost, Unknown>>,
}

/// Walks the graph in its order, which the format asks to be topological; a value that is used before
/// it is made counts as unknown.
pub(super) fn infer<'m>(graph: &'m GraphProto, inputs: HashMap<&'m str, Value>) -> Inference<'m> {
    let mut values = inputs;
    values.retain(|_, value| value.rank() <= RANK_MAX);
    values.extend(graph.initializer.iter().filter_map(|tensor| Some((tensor.name(), Value::of(tensor)?))));
    let infos = graph.value_info.iter().chain(&graph.output);
    let declared: HashMap<&str, &ValueInfoProto> = infos.map(|info| (info.name(), info)).collect();
    let mut costs = Vec::with_capacity(graph.node.len());
    for proto in &graph.node {
        let effect = effect(&Node::new(proto, &values));
        let (outputs, cost) = match effect {
            Ok(effect) => (effect.outputs, Ok(effect.cost)),
            Err(unknown) => (Vec::new(), Err(unknown)),
        };
        let mut outputs = outputs.into_iter();
        for name in &proto.output {
            let output = outputs.next().or_else(|| Value::declared(declared.get(name.as_str())?));
            if let Some(output) = output.filter(|_| !name.is_empty()) {
                values.insert(name, output);
            }
        }
        costs.push(cost);
    }
    Inference { values, costs }
}

fn effect(node: &Node<'_>) -> Result<Effect, Unknown> {
    if !matches!(domain_name(node.proto().domain()), "ai.onnx" | "com.microsoft") {
        return Err(Unknown::Operator);
    }
    let rules = [arithmetic::effect, layout::effect, spatial::effect, matrix::effect];
    let found = rules.iter().map(|rule| rule(node)).find(|found| !matches!(found, Ok(None)));
    let mut effect = found.unwrap_or(Ok(None))?.ok_or(Unknown::Operator)?;
    if effect.outputs.iter().any(|output| output.rank() > RANK_MAX) {
        return Err(Unknown::Mismatch);
    }
    // What is computed once from constants is no part of an inference.
    if effect.outputs.iter().all(|output| output.numbers.is_some()) {
        effect.cost = Cost::default();
    }
    Ok(effect)
}

/// The operator's name for people: `Conv`, or `com.example.Conv` outside the default domain.
pub(super) fn operator(node: &NodeProto) -> String {
    match domain_name(node.domain()) {
        "ai.onnx" => node.op_type().to_owned(),
        domain => format!("{domain}.{}", node.op_type()),
    }
}
