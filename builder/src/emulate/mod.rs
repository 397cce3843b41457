//! What low precision does to a model's answers, told by a backend that computes in f32.
//!
//! CPU backends are bad witnesses. They run an f16 model by computing its nodes in f32 and leave out the
//! roundings between nodes that look superfluous, so that no overflow shows; and on processors without
//! instructions for it ONNX Runtime's INT8 kernels saturate in 16 bits where a GPU sums in 32: on an AMD EPYC
//! with AVX2 and no VNNI, 23 % of EfficientNet-Lite0's top classes agreed with f32 on 30 pictures, and 90 %
//! by the arithmetic below, from the same graph.
//! [`emulate`] makes an f32 model in which rounding and quantising are arithmetic that no backend may leave
//! out or replace.
//!
//! Every value that a node writes is what the device would write; what happens inside a node is beyond it: a
//! device that also sums in f16 may lose more.

mod half;
mod quantised;

use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{ElementType, OnnxError, OnnxModel};

/// The first operator set with all of the arithmetic.
const OPSET_MIN: i64 = 11;

/// An f32 model whose values under the same names are those of the f16, INT8 or mixed `model`. Its inputs and
/// outputs are f32 where the model's are f16. A model with neither is returned as it is, and one of an operator
/// set before 11 is lifted to it.
pub fn emulate(model: &OnnxModel) -> Result<OnnxModel, OnnxError> {
    let mut graph = model.edit()?;
    graph.sort()?;
    let half = graph.types().values().any(|element| *element == ElementType::FLOAT16);
    let quantised = |node: &NodeProto| node.is("QuantizeLinear") || node.is("DequantizeLinear");
    if !half && !graph.nodes().iter().any(quantised) {
        return graph.finish();
    }
    graph.lift(OPSET_MIN)?;
    graph.sort()?;
    half::widen(&mut graph)?;
    graph.sort()?;
    quantised::unfold(&mut graph);
    graph.remove_unused();
    graph.finish()
}
