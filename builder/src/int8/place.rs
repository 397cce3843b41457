//! Where pairs of quantise and dequantise go.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{ElementType, Graph, Uses};

use crate::Keep;

/// What is to be quantised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placement {
    /// Inputs of nodes that read a quantised activation, as (node, input).
    pub(super) reads: BTreeSet<(usize, usize)>,
    /// Inputs of nodes that read a quantised weight, with the dimension of the weight's output channels.
    pub(super) weights: BTreeMap<(usize, usize), usize>,
    /// Activations by name, each with the group of values that have one scale.
    pub(super) groups: BTreeMap<String, usize>,
    /// Nodes that would be quantised, had the caller not kept them.
    pub(super) kept: Vec<usize>,
}

/// Every activation that may be quantised, whichever nodes are kept: keeping one node may let another read
/// quantised what it would else have read as it is.
pub(super) fn activations(graph: &Graph) -> Vec<String> {
    let types = graph.types();
    let mut names = BTreeSet::new();
    for node in graph.nodes() {
        let count = match node.op_type() {
            "Add" | "MatMul" => 2,
            "Concat" => node.input.len(),
            _ if is_weighted(node) || is_average(node) => 1,
            _ => 0,
        };
        if node.is_standard() {
            names.extend(node.input.iter().take(count).filter(|name| is_activation(graph, &types, name)).cloned());
        }
    }
    names.into_iter().collect()
}

/// An f32 value that is computed or fed.
fn is_activation(graph: &Graph, types: &HashMap<String, ElementType>, name: &str) -> bool {
    !name.is_empty() && graph.initializer(name).is_none() && types.get(name) == Some(&ElementType::FLOAT)
}

fn is_average(node: &NodeProto) -> bool {
    node.is("AveragePool") || node.is("GlobalAveragePool")
}

/// Decides for a sorted graph.
pub(super) fn place(graph: &Graph, keep: &Keep) -> Placement {
    let mut placer = Placer { graph, keep, uses: graph.uses(), types: graph.types(), placement: Placement::default() };
    for index in 0..graph.nodes().len() {
        placer.weighted(index);
    }
    for index in 0..graph.nodes().len() {
        placer.pooled(index);
    }
    // Backwards, since what follows a sum or a concatenation decides.
    for index in (0..graph.nodes().len()).rev() {
        placer.summed(index);
    }
    let mut joined = Vec::new();
    for index in (0..graph.nodes().len()).rev() {
        joined.extend(placer.concatenated(index));
    }
    placer.group(&joined);
    placer.placement
}

struct Placer<'a> {
    graph: &'a Graph,
    keep: &'a Keep,
    uses: Uses,
    types: HashMap<String, ElementType>,
    placement: Placement,
}

impl Placer<'_> {
    fn is_activation(&self, name: &str) -> bool {
        is_activation(self.graph, &self.types, name)
    }

    /// Whether the node may be quantised; notes it where only the caller says no.
    fn allowed(&mut self, index: usize) -> bool {
        let kept = self.keep.holds(&self.graph.nodes()[index]);
        if kept {
            self.placement.kept.push(index);
        }
        !kept
    }

    /// Products of weights or matrices.
    fn weighted(&mut self, index: usize) {
        let node = &self.graph.nodes()[index];
        if !is_weighted(node) {
            return;
        }
        let (Some(x), Some(w)) = (node.input_name(0), node.input_name(1)) else { return };
        let weight = self.graph.initializer(w).filter(|tensor| tensor.element_type() == ElementType::FLOAT);
        let axis = weight.and_then(|tensor| channel_axis(node, tensor.dims.len()));
        let both = node.is("MatMul") && self.is_activation(w);
        if !self.is_activation(x) || !(axis.is_some() || both) || !self.allowed(index) {
            return;
        }
        self.placement.reads.insert((index, 0));
        match axis {
            Some(axis) => {
                self.placement.weights.insert((index, 1), axis);
            }
            None => {
                self.placement.reads.insert((index, 1));
            }
        }
    }

    fn pooled(&mut self, index: usize) {
        let node = &self.graph.nodes()[index];
        let activation = node.input_name(0).is_some_and(|name| self.is_activation(name));
        if is_average(node) && activation && self.output_is_quantised(node) && self.allowed(index) {
            self.placement.reads.insert((index, 0));
        }
    }

    fn summed(&mut self, index: usize) {
        let node = &self.graph.nodes()[index];
        let [a, b] = node.input.as_slice() else { return };
        if !node.is("Add") || a == b || !self.is_activation(a) || !self.is_activation(b) {
            return;
        }
        let inside = [a, b].into_iter().position(|name| self.is_summed_inside(name));
        if inside.is_none() && !self.output_is_quantised(node) || !self.allowed(index) {
            return;
        }
        let reads = (0..2).filter(|input| Some(*input) != inside).map(|input| (index, input));
        self.placement.reads.extend(reads);
    }

    /// Whether a quantised product of weights writes this value for one reader.
    fn is_summed_inside(&self, name: &str) -> bool {
        let producer = self.uses.producer(name);
        producer.is_some_and(|producer| self.placement.weights.contains_key(&(producer, 1)))
            && self.uses.consumers(name).len() == 1
            && !self.graph.is_output(name)
    }

    /// The values that have one scale because of this node.
    fn concatenated(&mut self, index: usize) -> Option<Vec<String>> {
        let node = &self.graph.nodes()[index];
        let activations = node.input.iter().all(|name| self.is_activation(name));
        if !node.is("Concat") || !activations || !self.output_is_quantised(node) || !self.allowed(index) {
            return None;
        }
        self.placement.reads.extend((0..node.input.len()).map(|input| (index, input)));
        Some(node.input.iter().chain(&node.output).cloned().collect())
    }

    /// Whether something quantised reads the node's first output, behind nodes that only move numbers.
    fn output_is_quantised(&self, node: &NodeProto) -> bool {
        let mut open: Vec<&str> = node.output.first().map(String::as_str).into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            for reader in self.uses.consumers(name) {
                let Some(input) = reader.input else { continue };
                if self.placement.reads.contains(&(reader.node, input)) {
                    return true;
                }
                let node = &self.graph.nodes()[reader.node];
                if passes_on(node) && input == 0 && seen.insert(reader.node) {
                    open.extend(node.output.iter().map(String::as_str));
                }
            }
        }
        false
    }

    /// Gives each activation that is read quantised a group.
    fn group(&mut self, joined: &[Vec<String>]) {
        let read = |(node, input): &(usize, usize)| self.graph.nodes()[*node].input[*input].clone();
        let names: BTreeSet<String> = self.placement.reads.iter().map(read).collect();
        let mut groups: BTreeMap<String, usize> =
            names.into_iter().enumerate().map(|(index, name)| (name, index)).collect();
        for values in joined {
            let members: BTreeSet<usize> = values.iter().filter_map(|value| groups.get(value)).copied().collect();
            let Some(first) = members.first().copied() else { continue };
            for group in groups.values_mut().filter(|group| members.contains(*group)) {
                *group = first;
            }
        }
        self.placement.groups = groups;
    }
}

fn is_weighted(node: &NodeProto) -> bool {
    ["Conv", "ConvTranspose", "Gemm", "MatMul"].iter().any(|op| node.is(op))
}

/// Operators that a compiler moves quantisation across.
fn passes_on(node: &NodeProto) -> bool {
    let moves =
        ["Flatten", "MaxPool", "Relu", "Clip", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"];
    moves.iter().any(|op| node.is(op))
}

/// The dimension of a weight that counts the channels of the output.
fn channel_axis(node: &NodeProto, rank: usize) -> Option<usize> {
    match node.op_type() {
        "Conv" => (rank >= 3).then_some(0),
        "ConvTranspose" => (rank >= 3).then_some(1),
        "Gemm" => (rank == 2).then_some(if node.int("transB").unwrap_or(0) == 0 { 1 } else { 0 }),
        "MatMul" => (rank == 2).then_some(1),
        _ => None,
    }
}
