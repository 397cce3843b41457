//! Topological order.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::onnx::OnnxErrorKind;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};

/// The nodes in an order in which every value is made before it is read, as near to the given one as that
/// allows.
pub(super) fn sorted(
    nodes: Vec<NodeProto>,
    initializers: &BTreeMap<String, TensorProto>,
    interface: &GraphProto,
) -> Result<Vec<NodeProto>, OnnxErrorKind> {
    let mut producers: HashMap<&str, usize> = HashMap::new();
    let given: HashSet<&str> = interface.input.iter().map(|info| info.name()).collect();
    let sparse = interface.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
    let sparse: HashSet<&str> = sparse.map(|values| values.name()).collect();
    for (index, node) in nodes.iter().enumerate() {
        for name in node.output.iter().filter(|name| !name.is_empty()) {
            let known = given.contains(name.as_str()) || initializers.contains_key(name);
            if known || producers.insert(name, index).is_some() {
                return Err(OnnxErrorKind::MadeTwice { value: name.clone() });
            }
        }
    }
    let known = |name: &str| given.contains(name) || sparse.contains(name) || initializers.contains_key(name);
    for info in &interface.output {
        if !known(info.name()) && !producers.contains_key(info.name()) {
            return Err(OnnxErrorKind::Unmade { value: info.name().to_owned(), reader: "an output".to_owned() });
        }
    }
    // For each node, how many of the nodes that it waits for have not run yet.
    let mut waits = vec![0usize; nodes.len()];
    let mut followers = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let captures: HashSet<&str> = node.captures().into_iter().collect();
        let mut before = BTreeSet::new();
        for name in node.reads() {
            match producers.get(name) {
                Some(producer) => {
                    before.insert(*producer);
                }
                // Names that a nested graph makes itself are not ours to find.
                None if known(name) || captures.contains(name) => {}
                None => {
                    let reader = format!("node `{}`", node.label());
                    return Err(OnnxErrorKind::Unmade { value: name.to_owned(), reader });
                }
            }
        }
        waits[index] = before.len();
        for producer in before {
            followers[producer].push(index);
        }
    }
    let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|index| waits[*index] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for follower in &followers[index] {
            waits[*follower] -= 1;
            if waits[*follower] == 0 {
                ready.insert(*follower);
            }
        }
    }
    if let Some(stuck) = waits.iter().position(|waits| *waits > 0) {
        return Err(OnnxErrorKind::Cycle { node: nodes[stuck].label() });
    }
    let mut places: Vec<Option<NodeProto>> = nodes.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|index| places[index].take()).collect())
}
