//! A classifier's head taken off and put on.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it should be")]

use revoada_bundle::onnx::{Attribute, ElementType, GraphBuilder, Linear, LinearError, OnnxModel};
use revoada_core::{DType, Tensor, TensorRef, f16};

/// Two features to three classes; the weights lie by output.
const WEIGHT: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
/// The same by input.
const WEIGHT_BY_INPUT: [f32; 6] = [1.0, 3.0, 5.0, 2.0, 4.0, 6.0];
const BIAS: [f32; 3] = [0.5, -0.5, 0.0];

fn body() -> GraphBuilder {
    GraphBuilder::new("classifier").input("x", DType::F32, "N,2,4,4").node("GlobalAveragePool", &["x"], &["pool"]).node(
        "Flatten",
        &["pool"],
        &["features"],
    )
}

fn floats(graph: GraphBuilder, name: &str, shape: &[usize], values: &[f32]) -> GraphBuilder {
    graph.initializer(name, TensorRef::of(shape, values).unwrap())
}

fn gemm(attributes: &[(&str, Attribute)], shape: &[usize], weight: &[f32]) -> GraphBuilder {
    let graph = floats(floats(body(), "w", shape, weight), "b", &[3], &BIAS);
    graph.node_with("Gemm", &["features", "w", "b"], &["logits"], attributes)
}

fn model(graph: GraphBuilder, dims: &str) -> OnnxModel {
    let graph = graph.node("Softmax", &["logits"], &["scores"]).output("scores", DType::F32, dims);
    OnnxModel::parse(graph.encode()).unwrap()
}

fn by_output() -> [(&'static str, Attribute); 1] {
    [("transB", Attribute::Int(1))]
}

fn ops(model: &OnnxModel) -> Vec<&str> {
    model.graph().node.iter().map(|node| node.op_type()).collect()
}

#[test]
fn the_head_is_found_however_it_is_written() {
    let matmul = |bias: &[usize], inputs: [&str; 2]| {
        let graph = floats(floats(body(), "w", &[2, 3], &WEIGHT_BY_INPUT), "b", bias, &BIAS);
        graph.node("MatMul", &["features", "w"], &["product"]).node("Add", &inputs, &["logits"])
    };
    let graphs = [
        gemm(&by_output(), &[3, 2], &WEIGHT),
        gemm(&[], &[2, 3], &WEIGHT_BY_INPUT),
        matmul(&[3], ["product", "b"]),
        matmul(&[1, 3], ["b", "product"]),
    ];
    let expected = Linear::new(2, WEIGHT.to_vec(), BIAS.to_vec()).unwrap();
    for graph in graphs {
        let split = model(graph, "N,3").split_head(None).unwrap();
        assert_eq!((&split.head, &split.followers[..]), (&expected, &["Softmax".to_owned()][..]));
        assert_eq!(ops(&split.backbone), ["GlobalAveragePool", "Flatten"]);
        assert_eq!(split.backbone.outputs().unwrap()[0].to_string(), "features f32[N,2]");
        assert!(split.backbone.graph().initializer.is_empty());
    }
    let without_bias = floats(body(), "w", &[2, 3], &WEIGHT_BY_INPUT).node("MatMul", &["features", "w"], &["logits"]);
    let head = model(without_bias, "N,3").split_head(Some("scores")).unwrap().head;
    assert_eq!(head, Linear::new(2, WEIGHT.to_vec(), vec![0.0; 3]).unwrap());
}

#[test]
fn a_head_may_be_of_other_classes_and_have_a_hidden_layer() {
    let old = model(gemm(&by_output(), &[3, 2], &WEIGHT), "N,3");
    let hidden = Linear::new(2, vec![1.0; 8], vec![0.0; 4]).unwrap();
    let head = Linear::new(4, vec![2.0; 20], vec![1.0; 5]).unwrap();
    let merged = old.merge_head(None, &[hidden, head.clone()]).unwrap();
    assert_eq!(ops(&merged), ["GlobalAveragePool", "Flatten", "Gemm", "Relu", "Gemm", "Softmax"]);
    assert_eq!(merged.inputs().unwrap(), old.inputs().unwrap());
    assert_eq!(merged.outputs().unwrap()[0].to_string(), "scores f32[N,5]");
    assert_eq!(merged.graph().initializer.len(), 4, "the old weights are gone");
    let split = merged.split_head(None).unwrap();
    assert_eq!(split.head, head);
    assert_eq!(ops(&split.backbone).last(), Some(&"Relu"));
}

#[test]
fn a_head_of_half_precision_stays_so() {
    let halves = |values: &[f32]| values.iter().map(|value| f16::from_f32(*value)).collect::<Vec<_>>();
    let graph = GraphBuilder::new("half")
        .input("x", DType::F16, "N,2,1,1")
        .node("Flatten", &["x"], &["features"])
        .initializer("w", Tensor::of(vec![2, 3], halves(&WEIGHT_BY_INPUT)).unwrap().as_ref())
        .initializer("b", Tensor::of(vec![3], halves(&BIAS)).unwrap().as_ref())
        .node("Gemm", &["features", "w", "b"], &["logits"])
        .node_with("Cast", &["logits"], &["scores"], &[("to", Attribute::Int(1))])
        .output("scores", DType::F32, "N,3");
    let model = OnnxModel::parse(graph.encode()).unwrap();
    let split = model.split_head(None).unwrap();
    assert_eq!(split.head.weight(), WEIGHT);
    assert_eq!(split.backbone.outputs().unwrap()[0].dtype, DType::F16);
    let merged = model.merge_head(None, &[split.head]).unwrap();
    assert!(merged.graph().initializer.iter().all(|tensor| tensor.element_type() == ElementType::FLOAT16));
}

#[test]
fn what_has_no_head_is_refused_by_name() {
    let scaled = [("alpha", Attribute::Float(0.5)), by_output()[0].clone()];
    let computed = floats(body(), "w", &[2, 3], &WEIGHT).node("Relu", &["w"], &["positive"]).node(
        "MatMul",
        &["features", "positive"],
        &["logits"],
    );
    let bare = floats(GraphBuilder::new("bare").input("x", DType::F32, "N,2"), "w", &[2, 3], &WEIGHT);
    let tokens = floats(GraphBuilder::new("tokens").input("x", DType::F32, "N,7,2"), "w", &[2, 3], &WEIGHT);
    let cases = [
        (gemm(&scaled, &[3, 2], &WEIGHT), "node `Gemm_2` scales or transposes what it multiplies"),
        (computed, "node `MatMul_3` computes its weights `positive`, which are to be constants"),
        (
            body().node("Relu", &["features"], &["logits"]),
            "the last layer is node `Relu_2`, which is Relu and neither Gemm nor MatMul",
        ),
        (body().node("Add", &["features", "features"], &["logits"]), "node `Add_2` adds no constant bias"),
        (gemm(&[], &[2, 2], &WEIGHT[..4]), "tensor `b` of shape [3] is no bias of 2 classes"),
        (bare.node("MatMul", &["x", "w"], &["logits"]), "there is nothing before node `MatMul_0`"),
        (
            tokens.node("Relu", &["x"], &["features"]).node("MatMul", &["features", "w"], &["logits"]),
            "its features `features` have the shape [1, 7, 2] and not a row of 2 for each picture",
        ),
        (body().node("Identity", &["x"], &["logits"]), "output `scores` is made from no head"),
    ];
    for (graph, reason) in cases {
        let error = model(graph, "N,3").split_head(None).unwrap_err().to_string();
        assert_eq!(error, format!("the model in memory has no head that can be taken off: {reason}"));
    }
    let whole = model(gemm(&by_output(), &[3, 2], &WEIGHT), "N,3");
    let other = whole.split_head(Some("boxes")).unwrap_err().to_string();
    assert!(other.ends_with("it has no output `boxes`"), "{other}");
    let wide = Linear::new(3, vec![0.0; 6], vec![0.0; 2]).unwrap();
    let error = whole.merge_head(None, &[wide]).unwrap_err().to_string();
    assert!(error.ends_with("a layer of 3 inputs cannot follow 2 features at node `Gemm_2`"), "{error}");
    assert_eq!(Linear::new(2, vec![0.0; 3], vec![0.0]), Err(LinearError { inputs: 2, weights: 3, biases: 1 }));
}
