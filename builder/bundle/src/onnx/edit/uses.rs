//! Who makes a value, and who reads it.

use std::collections::HashMap;

use crate::onnx::proto::NodeProto;

/// One reading of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Index of the node.
    pub node: usize,
    /// Index of the node's input; `None` where a nested graph of the node reads the value by name.
    pub input: Option<usize>,
}

/// An index of a graph's values by name, as the graph was when the index was made.
#[derive(Clone, Debug, Default)]
pub struct Uses {
    producers: HashMap<String, usize>,
    consumers: HashMap<String, Vec<Use>>,
}

impl Uses {
    pub(super) fn of(nodes: &[NodeProto]) -> Self {
        let mut uses = Self::default();
        for (node, proto) in nodes.iter().enumerate() {
            for name in proto.output.iter().filter(|name| !name.is_empty()) {
                uses.producers.insert(name.clone(), node);
            }
            for (input, name) in proto.input.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                uses.consumers.entry(name.clone()).or_default().push(Use { node, input: Some(input) });
            }
            for name in proto.captures() {
                let list = uses.consumers.entry(name.to_owned()).or_default();
                let read = Use { node, input: None };
                if !list.contains(&read) {
                    list.push(read);
                }
            }
        }
        uses
    }

    /// The index of the node that makes a value; `None` for inputs, initialisers and unknown names.
    pub fn producer(&self, value: &str) -> Option<usize> {
        self.producers.get(value).copied()
    }

    /// In the order of the nodes; an output of the graph is no use.
    pub fn consumers(&self, value: &str) -> &[Use] {
        self.consumers.get(value).map_or(&[], Vec::as_slice)
    }
}
