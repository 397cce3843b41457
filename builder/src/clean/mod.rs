//! A graph without what does nothing: identities, constants that are computed anew each time, normalisation
//! behind convolutions, and what no output needs.
//!
//! What the model answers stays the same, and so do the names of its inputs and outputs. Pairs of quantise and
//! dequantise are left alone: to a compiler they say more than what they compute.

mod constants;
mod identities;
mod normalisation;

use revoada_bundle::onnx::{Graph, OnnxError, OnnxModel};
use revoada_engine::Backend;
use serde::Serialize;

use crate::fp16::simplify_casts;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanOptions {
    /// A constant that would be larger is computed anew each time: the file would grow by it.
    pub constant_bytes_max: u64,
}

impl Default for CleanOptions {
    fn default() -> Self {
        Self { constant_bytes_max: 16 << 20 }
    }
}

#[derive(Clone, Debug)]
pub struct Cleaned {
    pub model: OnnxModel,
    pub report: CleanReport,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CleanReport {
    pub nodes_before: usize,
    pub nodes_after: usize,
    /// Nodes that passed on what they were given.
    pub identities: usize,
    /// Nodes that were computed once and for all.
    pub constants: usize,
    /// Why constants were left to be computed anew, where the backend could not do it.
    pub constants_left: Option<String>,
    /// Normalisations that became part of a convolution.
    pub normalisations: usize,
}

/// Cleans a model; `backend` computes the constants.
pub fn clean(backend: &dyn Backend, model: &OnnxModel, options: &CleanOptions) -> Result<Cleaned, OnnxError> {
    let mut graph = model.edit()?;
    graph.sort()?;
    let mut report = CleanReport { nodes_before: model.graph().node.len(), ..CleanReport::default() };
    graph.remove_unused();
    report.identities = identities::remove(&mut graph);
    // Shapes are read off the whole model, so constants are folded in a finished one.
    let model = graph.finish()?;
    let mut graph = model.edit()?;
    match constants::fold(backend, &model, &mut graph, options.constant_bytes_max) {
        Ok(folded) => report.constants = folded,
        Err(error) => report.constants_left = Some(error.to_string()),
    }
    report.normalisations = normalisation::fold(&mut graph);
    // Constants may have been all that an identity was fed.
    report.identities += identities::remove(&mut graph);
    simplify_casts(&mut graph);
    name_nodes(&mut graph);
    let model = graph.finish()?;
    report.nodes_after = model.graph().node.len();
    Ok(Cleaned { model, report })
}

/// Gives nodes without a name the one that people find them by, so that a compiler calls its layers the same.
fn name_nodes(graph: &mut Graph) {
    for node in graph.nodes_mut() {
        node.name = Some(node.label());
    }
}
