//! Models that cannot be run, and models in two files.

use std::error::Error;
use std::fs;
use std::path::Path;

use prost::Message;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::onnx::proto::{StringStringEntryProto, TensorProto};
use revoada_core::TensorRef;
use revoada_engine::{Backend, LoadOptions, ModelSource, Shapes};

use crate::models;

/// The error and its causes, as the program prints them.
fn refused(backend: &dyn Backend, source: ModelSource<'_>) -> String {
    let error = backend.load(source, &LoadOptions::default()).err().expect("the model is refused");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

pub(crate) fn what_is_no_model_is_refused_in_one_sentence(backend: &dyn Backend) {
    let network = models::network();
    for (bytes, expected) in [
        (&b""[..], "the model in memory is not an ONNX model: it is empty"),
        (b"<!DOCTYPE html>", "the model in memory is not an ONNX model: it is a web page"),
        (&network[..network.len() / 2], "the model in memory is truncated"),
    ] {
        let error = refused(backend, ModelSource::Bytes(bytes));
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let error = refused(backend, ModelSource::File(Path::new("/nowhere/model.onnx")));
    assert!(error.starts_with("model `/nowhere/model.onnx` cannot be read: No such file"), "{error}");
}

pub(crate) fn an_unsupported_operator_is_named_with_its_node(backend: &dyn Backend) {
    let error = refused(backend, ModelSource::Bytes(&models::unknown_operator()));
    let name = backend.name();
    assert!(error.starts_with(&format!("{name} cannot load a model of ")), "{error}");
    assert!(error.ends_with("operator `Frobnicate` is not supported, used by node `Frobnicate_1`"), "{error}");
}

/// A file that was cut short ends in an error, wherever it was cut.
pub(crate) fn truncation_is_an_error_wherever_it_happens(backend: &dyn Backend) {
    let network = models::network();
    for end in (0..network.len()).step_by(37) {
        refused(backend, ModelSource::Bytes(&network[..end]));
    }
}

pub(crate) fn external_weights_are_read_beside_the_model(backend: &dyn Backend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let inside = OnnxModel::parse(models::network()).unwrap();
    let mut proto = inside.proto().clone();
    let mut weights = Vec::new();
    for tensor in &mut proto.graph.as_mut().unwrap().initializer {
        move_out(tensor, &mut weights);
    }
    fs::write(&path, proto.encode_to_vec()).unwrap();
    fs::write(folder.path().join("model.onnx.data"), &weights).unwrap();

    let answer = |source: ModelSource<'_>| {
        let engine = backend.load(source, &LoadOptions::default()).expect("the model loads");
        let mut session = engine.session(&Shapes::rows(1)).unwrap();
        session.set_input(0, TensorRef::of(&[1, 3, 16, 16], &models::network_input(1)).unwrap()).unwrap();
        session.submit(1).unwrap();
        session.wait().unwrap().tensors[0].to_owned()
    };
    assert_eq!(answer(ModelSource::File(&path)), answer(ModelSource::Bytes(&models::network())));

    fs::remove_file(folder.path().join("model.onnx.data")).unwrap();
    let error = refused(backend, ModelSource::File(&path));
    assert!(error.contains("filters") && error.contains("model.onnx.data"), "{error}");
}

fn move_out(tensor: &mut TensorProto, weights: &mut Vec<u8>) {
    let bytes = tensor.raw_data.take().expect("the builder writes raw data");
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    tensor.external_data = vec![
        entry("location", "model.onnx.data".to_owned()),
        entry("offset", weights.len().to_string()),
        entry("length", bytes.len().to_string()),
    ];
    tensor.data_location = Some(TensorProto::EXTERNAL);
    weights.extend_from_slice(&bytes);
}

/// Flips bits all over a model. What still loads may answer nonsense, but must not end the process.
/// ONNX Runtime is not asked for this: a failed assertion of its C++ ends the process, so models for
/// it are to be trusted as programs are.
#[test]
fn rten_survives_damaged_models() {
    let backend = crate::rten().expect("it is built in");
    let network = models::network();
    let input = models::network_input(1);
    let mut refused = 0;
    for bit in (0..network.len() * 8).step_by(61) {
        let mut damaged = network.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        match backend.load(ModelSource::Bytes(&damaged), &LoadOptions { threads: Some(1), ..LoadOptions::default() }) {
            Err(_) => refused += 1,
            Ok(engine) => {
                let Ok(mut session) = engine.session(&Shapes::rows(1)) else { continue };
                if session.set_input(0, TensorRef::of(&[1, 3, 16, 16], &input).unwrap()).is_ok() {
                    // Either outcome is fine.
                    let _ = session.submit(1);
                }
            }
        }
    }
    assert!(refused > 0);
}
