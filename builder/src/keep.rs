//! What a pass leaves as it is.

use std::collections::BTreeSet;

use revoada_bundle::onnx::Graph;
use revoada_bundle::onnx::proto::NodeProto;

/// Nodes that a pass leaves in the precision that they have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Nodes by name, or by [label](NodeProto::label) where they have none.
    pub nodes: BTreeSet<String>,
    /// Operators: `Softmax`.
    pub operators: BTreeSet<String>,
}

impl Keep {
    pub(crate) fn holds(&self, node: &NodeProto) -> bool {
        self.nodes.contains(&node.label()) || self.operators.contains(node.op_type())
    }

    /// What it names and the graph has not.
    pub(crate) fn unknown(&self, graph: &Graph) -> Vec<String> {
        let labels: BTreeSet<String> = graph.nodes().iter().map(NodeProto::label).collect();
        let operators: BTreeSet<&str> = graph.nodes().iter().map(|node| node.op_type()).collect();
        let nodes = self.nodes.iter().filter(|name| !labels.contains(*name));
        let operators = self.operators.iter().filter(|name| !operators.contains(name.as_str()));
        nodes.chain(operators).cloned().collect()
    }
}
