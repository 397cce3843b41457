//! Weights that lie beside the file.

use std::fs;
use std::path::{Component, Path};

use super::OnnxErrorKind;
use super::proto::{GraphProto, ModelProto, TensorProto};

/// Every tensor of the model, those of nested graphs and functions included. The decoder bounds how
/// deep they nest.
pub(super) fn tensors(model: &ModelProto) -> Vec<&TensorProto> {
    let mut found = Vec::new();
    if let Some(graph) = &model.graph {
        collect(graph, &mut found);
    }
    for function in &model.functions {
        collect_nodes(&function.node, &mut found);
    }
    found
}

fn collect<'a>(graph: &'a GraphProto, found: &mut Vec<&'a TensorProto>) {
    found.extend(&graph.initializer);
    found.extend(graph.sparse_initializer.iter().flat_map(|sparse| sparse.values.iter().chain(&sparse.indices)));
    collect_nodes(&graph.node, found);
}

fn collect_nodes<'a>(nodes: &'a [super::proto::NodeProto], found: &mut Vec<&'a TensorProto>) {
    for attribute in nodes.iter().flat_map(|node| &node.attribute) {
        found.extend(attribute.t.iter().chain(&attribute.tensors));
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            collect(graph, found);
        }
    }
}

/// Whether each piece of external data lies inside `folder` and is as long as the model says.
pub(super) fn check(model: &ModelProto, folder: &Path) -> Result<(), OnnxErrorKind> {
    let external = tensors(model).into_iter().filter(|tensor| tensor.data_location == Some(TensorProto::EXTERNAL));
    for tensor in external {
        check_tensor(tensor, folder)
            .map_err(|reason| OnnxErrorKind::ExternalData { tensor: tensor.name().to_owned(), reason })?;
    }
    Ok(())
}

fn check_tensor(tensor: &TensorProto, folder: &Path) -> Result<(), String> {
    let entry = |key: &str| {
        let mut entries = tensor.external_data.iter();
        entries.find(|entry| entry.key() == key).map(|entry| entry.value())
    };
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| format!("its {key} `{text}` is no number")),
    };
    let location = entry("location").ok_or("it names no file")?;
    // A model must not read what its folder does not hold.
    if !Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("`{location}` leaves the model's folder"));
    }
    let path = folder.join(location);
    let metadata = fs::metadata(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
    let declared = tensor.element_count().and_then(|count| {
        let bits = tensor.element_type().bits()?.checked_mul(u64::try_from(count).ok()?)?;
        Some(bits.div_ceil(8))
    });
    let length = number("length")?.or(declared).unwrap_or_default();
    let end = number("offset")?.unwrap_or_default().checked_add(length);
    match end {
        Some(end) if end <= metadata.len() => Ok(()),
        _ => Err(format!("`{}` is too short for it", path.display())),
    }
}
