//! What ONNX Runtime's load errors mean: it has sentences, not codes, for an operator it lacks.

use revoada_bundle::onnx::OnnxModel;

use super::NAME;
use crate::EngineError;
use crate::backend::{OnnxSource, read_onnx};

/// What is wrong with the model, from what ONNX Runtime said and from the model itself.
pub(super) fn explain(source: OnnxSource<'_>, message: &str) -> EngineError {
    let onnx = match read_onnx(source) {
        Ok(onnx) => onnx,
        Err(error) => return error.into(),
    };
    let model = source.name();
    match missing_operator(message) {
        Some((operator, node)) => {
            let node = node.or_else(|| node_using(&onnx, &operator));
            EngineError::UnsupportedOperator { backend: NAME, model, operator, node }
        }
        None => EngineError::Load { backend: NAME, model, reason: reason(message) },
    }
}

/// The operator, and the node where the message has it.
fn missing_operator(message: &str) -> Option<(String, Option<String>)> {
    if let Some(operator) = between(message, "No Op registered for ", " ") {
        return Some((operator, between(message, "In Node, (\"", "\"")));
    }
    if message.ends_with("is not a registered function/op") {
        return Some((between(message, "Fatal error: ", "(")?, None));
    }
    None
}

/// The message without `Load model from <path> failed:`, which our own sentence says.
fn reason(message: &str) -> String {
    if let Some(operator) = between(message, "Could not find an implementation for ", "(") {
        let node = between(message, "node with name '", "'").map(|node| format!(" of node `{node}`"));
        return format!("operator `{operator}` is not supported for the types{}", node.unwrap_or_default());
    }
    let message = match message.split_once(" failed:") {
        Some((before, after)) if before.starts_with("Load model from ") => after,
        _ => message,
    };
    message.trim().trim_end_matches('.').to_owned()
}

/// The first node of a `domain:Operator`; functions of the default domain have no prefix.
fn node_using(model: &OnnxModel, operator: &str) -> Option<String> {
    let (domain, op_type) = operator.rsplit_once(':').unwrap_or(("", operator));
    let node = model.graph().node.iter().find(|node| node.domain() == domain && node.op_type() == op_type)?;
    Some(node.name().to_owned()).filter(|name| !name.is_empty())
}

fn between(message: &str, start: &str, end: &str) -> Option<String> {
    let (_, rest) = message.split_once(start)?;
    let (found, _) = rest.split_once(end)?;
    (!found.is_empty()).then(|| found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_that_is_missing_is_found_in_the_message() {
        let cases = [
            (
                "Load model from m.onnx failed:This is an invalid model. In Node, (\"frob1\", Frobnicate, \"\", -1) : \
                 (\"x\": tensor(float),) -> (\"y\": tensor(float),) , Error No Op registered for Frobnicate with \
                 domain_version of 13",
                ("Frobnicate", Some("frob1")),
            ),
            (
                "Load model from m.onnx failed:Fatal error: com.acme:Frobnicate(-1) is not a registered function/op",
                ("com.acme:Frobnicate", None),
            ),
        ];
        for (message, (operator, node)) in cases {
            assert_eq!(missing_operator(message), Some((operator.to_owned(), node.map(str::to_owned))));
        }
    }

    #[test]
    fn other_messages_are_passed_on_without_what_we_say_ourselves() {
        let cases = [
            (
                "Load model from m.onnx failed:Node (mm) Op (MatMul) [ShapeInferenceError] Incompatible dimensions.",
                "Node (mm) Op (MatMul) [ShapeInferenceError] Incompatible dimensions",
            ),
            (
                "Could not find an implementation for Sqrt(13) node with name 'root'",
                "operator `Sqrt` is not supported for the types of node `root`",
            ),
            (
                "Could not find an implementation for Sqrt(13) node with name ''",
                "operator `Sqrt` is not supported for the types",
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(missing_operator(message), None);
            assert_eq!(reason(message), expected);
        }
    }
}
