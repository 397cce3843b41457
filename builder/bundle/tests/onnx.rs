//! ONNX files: what is read, rewritten and refused.
//!
//! `UPDATE_GOLDEN=1 cargo test -p revoada-bundle --test onnx` writes the expected sentences anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use revoada_bundle::onnx::{Attribute, GraphBuilder, OnnxErrorKind, OnnxModel};
use revoada_core::{DType, Dim, Tensor, TensorRef};

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(path)
}

fn small() -> GraphBuilder {
    GraphBuilder::new("small")
        .input("x", DType::F32, "N,3,H,W")
        .input("w", DType::F32, "8,3,3,3")
        .initializer("w", TensorRef::of(&[8, 3, 3, 3], &[0f32; 216]).unwrap())
        .node_with("Conv", &["x", "w"], &["c"], &[("pads", Attribute::Ints(vec![1, 1, 1, 1]))])
        .node("Relu", &["c"], &["y"])
        .output("y", DType::F32, "N,8,H,W")
}

/// The whole chain, as the program prints it.
fn chain(error: &dyn Error) -> String {
    let source = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", source.unwrap_or_default())
}

#[test]
fn inputs_with_an_initialiser_are_weights() {
    let model = OnnxModel::parse(small().encode()).unwrap();
    let specs: Vec<String> = model.inputs().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(specs, ["x f32[N,3,H,W]"]);
    assert_eq!(model.outputs().unwrap()[0].to_string(), "y f32[N,8,H,W]");
    assert_eq!(model.opsets(), [("ai.onnx".to_owned(), 17)].into());
    assert_eq!(model.producer().as_deref(), Some("revoada"));
}

#[test]
fn a_model_is_written_as_it_was_read() {
    let body = GraphBuilder::new("then").node("Identity", &["x"], &["t"]).output("t", DType::F32, "?").graph();
    let tensor = Tensor::of(vec![2], vec![1i64, -1]).unwrap();
    let bytes = small()
        .node_with("If", &["y"], &["z"], &[("then_branch", Attribute::Graph(body))])
        .node_with("Constant", &[], &["k"], &[("value", Attribute::Tensor(tensor))])
        .node_with("Mystery", &["k"], &["m"], &[("s", Attribute::String("é".into())), ("f", Attribute::Float(0.5))])
        .node_with("Upsample", &["y"], &["u"], &[("scales", Attribute::Floats(vec![1.0, 2.0]))])
        .encode();
    assert_eq!(OnnxModel::parse(bytes.clone()).unwrap().encode(), bytes);
    // Written by the reference implementation in Python.
    let path = data("model-with-external-data/model.onnx");
    assert_eq!(OnnxModel::read(&path).unwrap().encode(), fs::read(path).unwrap());
}

#[test]
fn dimensions_can_be_rewritten() {
    let mut model = OnnxModel::parse(small().encode()).unwrap();
    model.set_dims("x", &[1, 3, 32, 64].map(Dim::Fixed)).unwrap();
    model.set_dims("y", &[Dim::Dynamic("batch".into()), Dim::Dynamic("?".into())]).unwrap();
    let again = OnnxModel::parse(model.encode()).unwrap();
    assert_eq!(again.inputs().unwrap()[0].to_string(), "x f32[1,3,32,64]");
    assert_eq!(again.outputs().unwrap()[0].to_string(), "y f32[batch,?]");
    let error = model.set_dims("z", &[]).unwrap_err();
    assert_eq!(error.to_string(), "the model in memory has no tensor input or output `z`");
}

#[test]
fn what_cannot_be_passed_is_named() {
    let mut proto = small().model();
    let graph = proto.graph.as_mut().unwrap();
    let tensor = |graph: &mut revoada_bundle::onnx::proto::GraphProto| match graph.input[0]
        .r#type
        .as_mut()
        .unwrap()
        .value
        .as_mut()
        .unwrap()
    {
        revoada_bundle::onnx::proto::TypeValue::Tensor(tensor) => std::mem::take(tensor),
        _ => panic!("the builder makes tensors"),
    };
    let sixteen = revoada_bundle::onnx::proto::TensorType { elem_type: Some(16), ..tensor(graph) };
    let set = |proto: &mut revoada_bundle::onnx::proto::ModelProto, tensor| {
        let value = Some(revoada_bundle::onnx::proto::TypeValue::Tensor(tensor));
        proto.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().value = value;
    };
    set(&mut proto, sixteen.clone());
    let refuse = |proto: &revoada_bundle::onnx::proto::ModelProto| {
        OnnxModel::parse(prost::Message::encode_to_vec(proto)).unwrap().inputs().unwrap_err().to_string()
    };
    assert_eq!(refuse(&proto), "the model in memory has an input or output `x` of bf16, which cannot be passed");
    let shapeless = revoada_bundle::onnx::proto::TensorType { elem_type: Some(1), shape: None };
    set(&mut proto, shapeless);
    assert_eq!(refuse(&proto), "the model in memory does not declare the shape of `x`");
    proto.graph.as_mut().unwrap().input[0].r#type = None;
    assert_eq!(refuse(&proto), "the model in memory has an input or output `x` that is no tensor");
}

#[test]
fn a_missing_file_and_a_folder_are_refused() {
    let error = OnnxModel::read(Path::new("/nonexistent/a.onnx")).unwrap_err();
    assert_eq!(chain(&error), "model `/nonexistent/a.onnx` cannot be read: No such file or directory (os error 2)");
    let folder = tempfile::tempdir().unwrap();
    let error = OnnxModel::read(folder.path()).unwrap_err();
    assert!(matches!(error.kind, OnnxErrorKind::Read(_)), "{error}");
}

#[test]
fn external_data_beside_the_file_is_accepted() {
    assert!(OnnxModel::read(&data("model-with-external-data/model.onnx")).is_ok());
}

#[test]
fn bytes_that_are_no_model_are_refused_by_a_clear_sentence() {
    let mut failures = Vec::new();
    let mut cases: Vec<PathBuf> = fs::read_dir(data("models")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 17, "the table has lost rows: {cases:?}");
    for case in cases {
        let error = OnnxModel::read(&case.join("model.onnx")).expect_err(&format!("{}", case.display()));
        let got = chain(&error).replace(&format!("{}/", case.display()), "") + "\n";
        let expected = case.join("expected.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &got).unwrap();
        } else if fs::read_to_string(&expected).unwrap() != got {
            failures.push(format!("{}:\n{got}", case.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
