//! A model's main graph, opened for rewriting.
//!
//! [`OnnxModel::edit`] takes the graph apart: nodes in a list, constants by name, external data read in.
//! A pass changes them through [`Graph`], and [`Graph::finish`] puts a model together again that is in
//! topological order and reads nothing that is not there.
//!
//! ```
//! use revoada_bundle::onnx::{GraphBuilder, OnnxModel};
//! use revoada_bundle::onnx::proto::NodeProto;
//! use revoada_core::{DType, TensorRef};
//!
//! let model = GraphBuilder::new("one").input("x", DType::F32, "N,3").node("Relu", &["x"], &["y"]);
//! let model = OnnxModel::parse(model.output("y", DType::F32, "N,3").encode())?;
//! let mut graph = model.edit()?;
//! let two = graph.add_tensor("two", TensorRef::of(&[], &[2f32])?);
//! let doubled = graph.fresh("doubled");
//! graph.nodes_mut()[0].input[0] = doubled.clone();
//! // Order does not matter here; `finish` sorts.
//! graph.nodes_mut().push(NodeProto::new("Mul", "double", &["x", &two], &[&doubled], &[]));
//! let model = graph.finish()?;
//! assert_eq!(model.graph().node[0].op_type(), "Mul");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod head;
mod node;
mod opset;
mod order;
mod types;
mod uses;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use prost::Message;
use revoada_core::{DType, Dim, Tensor, TensorRef, TensorSpec};

use super::proto::{GraphProto, NodeProto, TensorProto, TypeValue, ValueInfoProto};
use super::{ElementType, MODEL_BYTES_MAX, OnnxError, OnnxErrorKind, OnnxModel, external};

pub use head::{Linear, LinearError, Split};
pub use uses::{Use, Uses};

/// The oldest format in which initialisers need not be inputs as well.
const IR_VERSION_MIN: i64 = 4;

/// A main graph, open for rewriting. Its inputs and outputs keep their names and their order.
#[derive(Clone, Debug)]
pub struct Graph {
    /// With a graph that lacks its nodes and initialisers.
    model: OnnxModel,
    nodes: Vec<NodeProto>,
    initializers: BTreeMap<String, TensorProto>,
    /// Every name of a value or node, those inside nested graphs included.
    taken: HashSet<String>,
}

impl OnnxModel {
    /// Opens the main graph. External data is read, `Constant` nodes become initialisers, and an
    /// initialiser is no longer an input as well.
    pub fn edit(&self) -> Result<Graph, OnnxError> {
        let mut model = self.clone();
        let folder = self.path.as_deref().map(|path| path.parent().unwrap_or(Path::new("")));
        external::load(&mut model.proto, folder).map_err(|kind| self.error(kind))?;
        let graph = model.proto.graph.get_or_insert_default();
        let mut taken = HashSet::new();
        take_names(graph, &mut taken);
        let nodes = std::mem::take(&mut graph.node);
        let weights = std::mem::take(&mut graph.initializer);
        let mut initializers: BTreeMap<String, TensorProto> =
            weights.into_iter().map(|tensor| (tensor.name().to_owned(), tensor)).collect();
        graph.input.retain(|info| !initializers.contains_key(info.name()));
        let outputs: HashSet<&str> = graph.output.iter().map(|info| info.name()).collect();
        let nodes = nodes.into_iter().filter(|node| match constant(node, &outputs) {
            Some(tensor) => {
                initializers.insert(tensor.name().to_owned(), tensor);
                false
            }
            None => true,
        });
        let nodes = nodes.collect();
        let ir_version = model.proto.ir_version().max(IR_VERSION_MIN);
        model.proto.ir_version = Some(ir_version);
        Ok(Graph { model, nodes, initializers, taken })
    }
}

/// The tensor of a `Constant` node, under the name of the node's output. A constant that is itself an
/// output of the graph stays a node, since some backends want every output to be computed.
fn constant(node: &NodeProto, outputs: &HashSet<&str>) -> Option<TensorProto> {
    let [output] = node.output.as_slice() else { return None };
    if !node.is("Constant") || outputs.contains(output.as_str()) {
        return None;
    }
    let [attribute] = node.attribute.as_slice() else { return None };
    let tensor = match attribute.name() {
        "value" => attribute.t.clone()?,
        "value_float" => TensorProto::of("", TensorRef::of(&[], &[attribute.f()]).ok()?),
        "value_int" => TensorProto::of("", TensorRef::of(&[], &[attribute.i()]).ok()?),
        "value_floats" => TensorProto::of("", TensorRef::of(&[attribute.floats.len()], &attribute.floats).ok()?),
        "value_ints" => TensorProto::of("", TensorRef::of(&[attribute.ints.len()], &attribute.ints).ok()?),
        _ => return None,
    };
    Some(TensorProto { name: Some(output.clone()), ..tensor })
}

fn take_names(graph: &GraphProto, taken: &mut HashSet<String>) {
    let infos = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
    taken.extend(infos.map(|info| info.name().to_owned()));
    taken.extend(graph.initializer.iter().map(|tensor| tensor.name().to_owned()));
    for node in &graph.node {
        taken.extend(node.input.iter().chain(&node.output).chain(&node.name).cloned());
        for nested in node.nested() {
            take_names(nested, taken);
        }
    }
}

impl Graph {
    pub fn nodes(&self) -> &[NodeProto] {
        &self.nodes
    }

    /// The nodes, to be changed, inserted, replaced and removed freely; names of new values come from
    /// [`fresh`](Self::fresh).
    pub fn nodes_mut(&mut self) -> &mut Vec<NodeProto> {
        &mut self.nodes
    }

    /// What the caller feeds.
    pub fn inputs(&self) -> &[ValueInfoProto] {
        &self.interface().input
    }

    pub fn outputs(&self) -> &[ValueInfoProto] {
        &self.interface().output
    }

    pub fn is_output(&self, name: &str) -> bool {
        self.outputs().iter().any(|info| info.name() == name)
    }

    fn interface(&self) -> &GraphProto {
        self.model.graph()
    }

    /// Changes the element type of an input or output.
    pub fn set_element_type(&mut self, name: &str, element: ElementType) -> Result<(), OnnxError> {
        let graph = self.model.proto.graph.get_or_insert_default();
        let infos = graph.input.iter_mut().chain(&mut graph.output).filter(|info| info.name() == name);
        let mut found = false;
        for info in infos {
            if let Some(TypeValue::Tensor(tensor)) = info.r#type.as_mut().and_then(|r#type| r#type.value.as_mut()) {
                tensor.elem_type = Some(element.0);
                found = true;
            }
        }
        match found {
            true => Ok(()),
            false => Err(self.model.error(OnnxErrorKind::NoSuchValue { name: name.to_owned() })),
        }
    }

    /// Makes a value of the graph its last output, of the given type and of a shape that is left to
    /// inference.
    pub fn expose(&mut self, name: &str, element: ElementType) {
        let tensor = super::proto::TensorType { elem_type: Some(element.0), shape: None };
        let r#type = super::proto::TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: None };
        let info = ValueInfoProto { name: Some(name.to_owned()), r#type: Some(r#type), ..ValueInfoProto::default() };
        self.model.proto.graph.get_or_insert_default().output.push(info);
    }

    /// Forgets every output; whoever asks for it [exposes](Self::expose) others.
    pub fn clear_outputs(&mut self) {
        self.model.proto.graph.get_or_insert_default().output.clear();
    }

    /// Adds an input under a fresh name that begins with `base`, and returns the name.
    pub fn add_input(&mut self, base: &str, dtype: DType, dims: &[Dim]) -> String {
        let name = self.fresh(base);
        let info = super::build::value_info(&TensorSpec { name: name.clone(), dtype, dims: dims.to_vec() });
        self.model.proto.graph.get_or_insert_default().input.push(info);
        name
    }

    /// Forgets inputs and outputs: what is left computes constants.
    pub fn clear_interface(&mut self) {
        self.clear_outputs();
        self.model.proto.graph.get_or_insert_default().input.clear();
    }

    pub fn initializer(&self, name: &str) -> Option<&TensorProto> {
        self.initializers.get(name)
    }

    pub fn initializers(&self) -> impl Iterator<Item = (&str, &TensorProto)> {
        self.initializers.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// An initialiser's elements; `None` where there is none of this name, or where its elements are of a
    /// type that [`Tensor`] does not hold.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        self.initializers.get(name)?.tensor()
    }

    /// Writes an initialiser, in place of one of the same name.
    pub fn set_tensor(&mut self, name: &str, tensor: TensorRef<'_>) {
        self.taken.insert(name.to_owned());
        self.initializers.insert(name.to_owned(), TensorProto::of(name, tensor));
    }

    /// Adds an initialiser under a fresh name that begins with `base`, and returns the name.
    pub fn add_tensor(&mut self, base: &str, tensor: TensorRef<'_>) -> String {
        let name = self.fresh(base);
        self.set_tensor(&name, tensor);
        name
    }

    pub fn remove_initializer(&mut self, name: &str) -> Option<TensorProto> {
        self.initializers.remove(name)
    }

    /// A name that no value and no node has: `base`, or `base_1`, `base_2`, …
    pub fn fresh(&mut self, base: &str) -> String {
        let numbered = (1u64..).map(|number| format!("{base}_{number}"));
        let free = |name: &String| !name.is_empty() && !self.taken.contains(name);
        let name = std::iter::once(base.to_owned()).chain(numbered).find(free);
        let name = name.expect("there are more numbers than names");
        self.taken.insert(name.clone());
        name
    }

    /// Who makes and who reads each value, as the graph is now.
    pub fn uses(&self) -> Uses {
        Uses::of(&self.nodes)
    }

    /// Lets every node of the main graph that reads `from` read `to`. Nested graphs read what they did.
    pub fn replace_uses(&mut self, from: &str, to: &str) {
        for input in self.nodes.iter_mut().flat_map(|node| &mut node.input).filter(|input| *input == from) {
            *input = to.to_owned();
        }
    }

    /// Removes nodes and initialisers that no output depends on.
    pub fn remove_unused(&mut self) {
        let mut wanted: HashSet<String> = self.outputs().iter().map(|info| info.name().to_owned()).collect();
        let uses = self.uses();
        let mut needed = vec![false; self.nodes.len()];
        let mut open: Vec<String> = wanted.iter().cloned().collect();
        while let Some(name) = open.pop() {
            let Some(index) = uses.producer(&name).filter(|index| !needed[*index]) else { continue };
            needed[index] = true;
            for name in self.nodes[index].reads() {
                if wanted.insert(name.to_owned()) {
                    open.push(name.to_owned());
                }
            }
        }
        let mut needed = needed.into_iter();
        self.nodes.retain(|_| needed.next().unwrap_or(true));
        self.initializers.retain(|name, _| wanted.contains(name));
    }

    /// The version of the default operator set.
    pub fn opset(&self) -> i64 {
        let opsets = self.model.proto.opset_import.iter();
        opsets
            .filter(|opset| super::domain_name(opset.domain()) == "ai.onnx")
            .map(|opset| opset.version())
            .max()
            .unwrap_or(1)
    }

    /// Puts the nodes into an order in which every value is made before it is read, as near to the present one
    /// as that allows. Refused where a value is made twice, or not at all, or from itself.
    pub fn sort(&mut self) -> Result<(), OnnxError> {
        let nodes = std::mem::take(&mut self.nodes);
        let sorted = order::sorted(nodes, &self.initializers, self.model.graph());
        self.nodes = sorted.map_err(|kind| self.model.error(kind))?;
        Ok(())
    }

    /// The model, [sorted](Self::sort) and checked. Declared shapes of values in between are dropped: they may no longer
    /// hold, and every backend infers them anew.
    pub fn finish(mut self) -> Result<OnnxModel, OnnxError> {
        self.sort()?;
        let Self { mut model, nodes, initializers, .. } = self;
        let graph = model.proto.graph.get_or_insert_default();
        graph.value_info.clear();
        graph.node = nodes;
        graph.initializer = initializers.into_values().collect();
        let size = model.proto.encoded_len() as u64;
        match size > MODEL_BYTES_MAX {
            true => Err(model.error(OnnxErrorKind::TooLarge { bytes: size })),
            false => Ok(model),
        }
    }
}
