//! Nodes that pass on what they are given.

use revoada_bundle::onnx::Graph;
use revoada_bundle::onnx::proto::NodeProto;

/// Removes `Identity`, and `Dropout` outside training, and says how many. One stays where the graph's own
/// input or constant is its output, or where a nested graph reads the value by name.
pub(super) fn remove(graph: &mut Graph) -> usize {
    let mut removed = 0;
    let mut index = 0;
    while index < graph.nodes().len() {
        let node = &graph.nodes()[index];
        match passes_on(node, graph).then(|| (node.input[0].clone(), node.output[0].clone())) {
            Some((input, output)) if take_out(graph, &input, &output) => {
                graph.nodes_mut().remove(index);
                removed += 1;
            }
            _ => index += 1,
        }
    }
    removed
}

fn passes_on(node: &NodeProto, graph: &Graph) -> bool {
    if node.is("Identity") {
        return node.input_name(0).is_some();
    }
    if !node.is("Dropout") {
        return false;
    }
    // A mask that somebody reads, or training, keeps it.
    let uses = graph.uses();
    let masked = node.output.get(1).is_some_and(|mask| !uses.consumers(mask).is_empty() || graph.is_output(mask));
    let trains = match node.input_name(2) {
        None => false,
        Some(training) => match graph.tensor(training) {
            Some(training) => training.as_ref().as_slice::<bool>().is_none_or(|flag| flag != [false]),
            None => true,
        },
    };
    node.input_name(0).is_some() && !masked && !trains
}

/// Lets everything that reads `output` read `input`, or `input` be made under the name of `output`.
fn take_out(graph: &mut Graph, input: &str, output: &str) -> bool {
    let uses = graph.uses();
    let captured = |name: &str| uses.consumers(name).iter().any(|reader| reader.input.is_none());
    if !graph.is_output(output) {
        if captured(output) {
            return false;
        }
        graph.replace_uses(output, input);
        return true;
    }
    let Some(producer) = uses.producer(input).filter(|_| !graph.is_output(input) && !captured(input)) else {
        return false;
    };
    for made in graph.nodes_mut()[producer].output.iter_mut().filter(|made| *made == input) {
        *made = output.to_owned();
    }
    graph.replace_uses(input, output);
    true
}
