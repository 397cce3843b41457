//! Casts that do nothing.

use revoada_bundle::onnx::{ElementType, Graph};

/// Removes casts to the type that a value has already, and casts back to f16 from what was widened from
/// f16. Casts that make an output of the graph stay, and so do those that a nested graph reads.
pub(crate) fn simplify_casts(graph: &mut Graph) {
    let types = graph.types();
    let uses = graph.uses();
    let is_captured = |name: &str| uses.consumers(name).iter().any(|reader| reader.input.is_none());
    // What each cast's answer may be replaced by; chains resolve because nodes are in order.
    let mut same: Vec<(String, String)> = Vec::new();
    let resolve = |same: &[(String, String)], name: &str| {
        same.iter().rev().find(|(from, _)| from == name).map_or_else(|| name.to_owned(), |(_, to)| to.clone())
    };
    for node in graph.nodes().iter().filter(|node| node.is("Cast")) {
        let ([input], [output]) = (node.input.as_slice(), node.output.as_slice()) else { continue };
        if graph.is_output(output) || is_captured(output) {
            continue;
        }
        let target = types.get(output).copied();
        let input = resolve(&same, input);
        if target.is_some() && types.get(&input).copied() == target {
            same.push((output.clone(), input));
            continue;
        }
        // Every f16 is an f32.
        let before = uses.producer(&input).map(|index| &graph.nodes()[index]).filter(|before| before.is("Cast"));
        let narrow = before.and_then(|before| before.input.first()).map(|name| resolve(&same, name));
        let widened = types.get(&input) == Some(&ElementType::FLOAT) && target == Some(ElementType::FLOAT16);
        if let Some(narrow) = narrow.filter(|name| widened && types.get(name) == Some(&ElementType::FLOAT16)) {
            same.push((output.clone(), narrow));
        }
    }
    for (from, to) in &same {
        graph.replace_uses(from, to);
    }
    graph.nodes_mut().retain(|node| !node.is("Cast") || same.iter().all(|(from, _)| node.output.first() != Some(from)));
    graph.remove_unused();
}
