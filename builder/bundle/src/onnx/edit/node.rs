//! Nodes: made, asked, changed.

use crate::onnx::build::{Attribute, attribute};
use crate::onnx::domain_name;
use crate::onnx::proto::{AttributeProto, GraphProto, NodeProto};

impl NodeProto {
    /// A node of the default operator set. An empty input name leaves the input out.
    pub fn new(op: &str, name: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attribute)]) -> Self {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            input: strings(inputs),
            output: strings(outputs),
            name: Some(name.to_owned()),
            op_type: Some(op.to_owned()),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            ..Self::default()
        }
    }

    /// Whether this is an operator of the default set.
    pub fn is(&self, op: &str) -> bool {
        self.op_type() == op && self.is_standard()
    }

    pub fn is_standard(&self) -> bool {
        domain_name(self.domain()) == "ai.onnx"
    }

    /// How people find the node: its name, else its operator and what it makes: `Conv of y`.
    pub fn label(&self) -> String {
        match self.name() {
            "" => format!("{} of {}", self.op_type(), self.output.first().map_or("nothing", String::as_str)),
            name => name.to_owned(),
        }
    }

    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name() == name)
    }

    /// An integer attribute; `None` where the node leaves it out.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }

    /// A list attribute; `None` where the node leaves it out.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    pub fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name)?.f
    }

    /// A text attribute; `None` where the node leaves it out or it is no text.
    pub fn string(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.attribute(name)?.s.as_ref()?).ok()
    }

    /// Writes an attribute, in place of one of the same name.
    pub fn set_attribute(&mut self, name: &str, value: &Attribute) {
        self.take_attribute(name);
        self.attribute.push(attribute(name, value));
    }

    pub fn take_attribute(&mut self, name: &str) -> Option<AttributeProto> {
        let index = self.attribute.iter().position(|attribute| attribute.name() == name)?;
        Some(self.attribute.remove(index))
    }

    /// The graphs in its attributes: branches and loop bodies.
    pub fn nested(&self) -> impl Iterator<Item = &GraphProto> {
        self.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
    }

    pub(super) fn nested_mut(&mut self) -> impl Iterator<Item = &mut GraphProto> {
        self.attribute.iter_mut().flat_map(|attribute| attribute.g.iter_mut().chain(&mut attribute.graphs))
    }

    /// What its nested graphs read by name. Some of these names are their own, which are unlike every
    /// name outside.
    pub fn captures(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for graph in self.nested() {
            names.extend(graph.output.iter().map(|info| info.name()));
            for node in &graph.node {
                names.extend(node.reads());
            }
        }
        names
    }

    /// Everything that must exist before this node runs: inputs, and what nested graphs capture.
    pub fn reads(&self) -> Vec<&str> {
        let inputs = self.input.iter().map(String::as_str).filter(|name| !name.is_empty());
        inputs.chain(self.captures()).collect()
    }

    /// An input's name; `None` where the node leaves it out.
    pub fn input_name(&self, index: usize) -> Option<&str> {
        self.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }
}
