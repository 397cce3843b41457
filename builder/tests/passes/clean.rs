//! What does nothing goes, and nothing else changes.

use proptest::prelude::*;
use revoada_builder::clean::{CleanOptions, Cleaned, clean};
use revoada_bundle::onnx::{Attribute, GraphBuilder, OnnxModel};
use revoada_core::{DType, Tensor, TensorRef};
use revoada_engine::Rten;

use crate::support::{backends, difference, noise, parse, real_model, run};

fn cleaned(model: &OnnxModel) -> Cleaned {
    clean(&Rten, model, &CleanOptions::default()).unwrap()
}

fn ops(model: &OnnxModel) -> Vec<&str> {
    model.graph().node.iter().map(|node| node.op_type()).collect()
}

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

/// Every backend gives the same before and after.
fn answers_stay(model: &OnnxModel, after: &OnnxModel, inputs: &[Tensor], tolerance: f32) {
    for backend in backends() {
        let (before, after) = (run(&*backend, model, inputs), run(&*backend, after, inputs));
        for (before, after) in before.iter().zip(&after) {
            assert!(difference(before, after) <= tolerance, "{}", backend.name());
        }
    }
}

#[test]
fn identities_go_and_names_at_the_border_stay() {
    let graph = GraphBuilder::new("identities")
        .input("x", DType::F32, "N,3")
        .node("Identity", &["x"], &["a"])
        .node("Dropout", &["a"], &["b"])
        .node("Relu", &["b"], &["c"])
        .node("Identity", &["c"], &["y"])
        .node("Identity", &["x"], &["z"])
        .node_with("Cast", &["c"], &["d"], &[("to", Attribute::Int(1))])
        .node("Neg", &["d"], &["w"])
        .node("Exp", &["w"], &["unread"])
        .output("y", DType::F32, "N,3")
        .output("z", DType::F32, "N,3")
        .output("w", DType::F32, "N,3");
    let model = parse(graph);
    let after = cleaned(&model);
    // The input itself is an output, which takes a node.
    assert_eq!(ops(&after.model), ["Relu", "Identity", "Neg"]);
    assert_eq!(after.report.identities, 3);
    assert_eq!((after.report.nodes_before, after.report.nodes_after), (8, 3));
    assert_eq!(after.model.outputs().unwrap(), model.outputs().unwrap());
    answers_stay(&model, &after.model, &[noise(&[2, 3], 1)], 0.0);
}

#[test]
fn a_dropout_in_training_or_with_a_mask_that_is_read_stays() {
    let truth = Tensor::of(vec![], vec![true]).unwrap();
    let ratio = Tensor::of(vec![], vec![0f32]).unwrap();
    let graph = GraphBuilder::new("training")
        .input("x", DType::F32, "N,3")
        .initializer("ratio", ratio.as_ref())
        .initializer("truth", truth.as_ref())
        .node("Dropout", &["x", "ratio", "truth"], &["y"])
        .node("Dropout", &["x"], &["z", "mask"])
        .output("y", DType::F32, "N,3")
        .output("mask", DType::Bool, "N,3");
    assert_eq!(ops(&cleaned(&parse(graph)).model), ["Dropout", "Dropout"]);
}

#[test]
fn what_follows_from_constants_is_computed_once() {
    let graph = GraphBuilder::new("constants")
        .input("x", DType::F32, "N,4,4")
        .initializer("two", TensorRef::of(&[1], &[2i64]).unwrap())
        .initializer("zero", TensorRef::of(&[], &[0i64]).unwrap())
        .initializer("four", TensorRef::of(&[], &[4i64]).unwrap())
        .initializer("one", TensorRef::of(&[], &[1i64]).unwrap())
        .initializer("m", noise(&[4, 4], 1).as_ref())
        .node("Mul", &["two", "two"], &["sixteen"])
        .node_with("Concat", &["two", "sixteen"], &["sizes"], &[("axis", Attribute::Int(0))])
        .node_with("ConstantOfShape", &["two"], &["zeros"], &[])
        .node("Range", &["zero", "four", "one"], &["count"])
        .node_with("Cast", &["count"], &["places"], &[("to", Attribute::Int(1))])
        .node("Transpose", &["m"], &["t"])
        .node("MatMul", &["x", "t"], &["a"])
        .node("Add", &["a", "places"], &["b"])
        .node("Reshape", &["b", "minus"], &["y"])
        .initializer("minus", TensorRef::of(&[3], &[-1i64, 2, 8]).unwrap())
        .output("y", DType::F32, "?,2,8");
    let model = parse(graph.clone());
    let inputs = [noise(&[2, 4, 4], 2)];
    for backend in backends() {
        let after = clean(&*backend, &model, &CleanOptions::default()).unwrap();
        assert_eq!(after.report.constants_left, None, "{}", backend.name());
        assert_eq!((ops(&after.model), after.report.constants), (vec!["MatMul", "Add", "Reshape"], 3));
        for runs in backends() {
            assert_eq!(run(&*runs, &model, &inputs), run(&*runs, &after.model, &inputs), "{}", runs.name());
        }
    }
    // An output is computed, even from constants.
    let model = parse(graph.output("sizes", DType::I64, "2"));
    assert_eq!(ops(&cleaned(&model).model), ["Concat", "MatMul", "Add", "Reshape"]);
}

#[test]
fn constants_that_are_too_large_or_quantised_or_random_stay() {
    let scale = Tensor::of(vec![], vec![0.1f32]).unwrap();
    let graph = GraphBuilder::new("left")
        .input("x", DType::F32, "N,4")
        .initializer("large", TensorRef::of(&[2], &[5000i64, 1000]).unwrap())
        .initializer("w", TensorRef::of(&[4], &[1i8, 2, 3, 4]).unwrap())
        .initializer("scale", scale.as_ref())
        .initializer("huge", TensorRef::of(&[1], &[1i64 << 40]).unwrap())
        .node("ConstantOfShape", &["large"], &["zeros"])
        .node_with("ReduceSum", &["zeros"], &["sum"], &[("keepdims", Attribute::Int(0))])
        .node("DequantizeLinear", &["w", "scale"], &["wide"])
        .node_with("RandomNormal", &[], &["noise"], &[("shape", ints(&[4]))])
        .node("Neg", &["huge"], &["less"])
        .node("Add", &["x", "sum"], &["a"])
        .node("Add", &["a", "wide"], &["b"])
        .node("Add", &["b", "noise"], &["y"])
        .node_with("Cast", &["less"], &["single"], &[("to", Attribute::Int(1))])
        .node("Add", &["y", "single"], &["z"])
        .output("z", DType::F32, "N,4");
    let model = parse(graph);
    let after = cleaned(&model);
    assert_eq!(ops(&after.model), ops(&model));
    let generous = CleanOptions { constant_bytes_max: 20_000_000 };
    let after = clean(&Rten, &model, &generous).unwrap();
    assert_eq!(after.report.constants, 2);
}

#[test]
fn shapes_are_constants_where_the_model_leaves_none_open() {
    let build = |dims: &str| {
        let graph = GraphBuilder::new("shapes")
            .input("x", DType::F32, dims)
            .initializer("index", TensorRef::of(&[1], &[1i64]).unwrap())
            .initializer("rest", TensorRef::of(&[1], &[-1i64]).unwrap())
            .node("Relu", &["x"], &["r"])
            .node("Shape", &["r"], &["shape"])
            .node_with("Gather", &["shape", "index"], &["width"], &[("axis", Attribute::Int(0))])
            .node_with("Concat", &["rest", "width"], &["target"], &[("axis", Attribute::Int(0))])
            .node("Reshape", &["r", "target"], &["y"]);
        parse(graph.output("y", DType::F32, "?,?"))
    };
    let (closed, open) = (build("2,3,4"), build("N,3,4"));
    assert_eq!(ops(&cleaned(&closed).model), ["Relu", "Reshape"]);
    assert_eq!(ops(&cleaned(&open).model), ops(&open));
    answers_stay(&closed, &cleaned(&closed).model, &[noise(&[2, 3, 4], 1)], 0.0);
}

fn normalised(conv: &str, weight: &[usize], group: i64, bias: bool) -> OnnxModel {
    let channels = if conv == "Conv" { weight[0] } else { weight[1] * group as usize };
    let variance = Tensor::of(vec![channels], (0..channels).map(|c| 0.1 + c as f32).collect::<Vec<f32>>()).unwrap();
    let input = if conv == "Conv" { weight[1] * group as usize } else { weight[0] };
    let mut graph = GraphBuilder::new("normalised")
        .input("x", DType::F32, &format!("N,{input},5,5"))
        .initializer("w", noise(weight, 1).as_ref())
        .initializer("variance", variance.as_ref());
    for (name, seed) in [("bias", 2), ("scale", 3), ("shift", 4), ("mean", 5)] {
        graph = graph.initializer(name, noise(&[channels], seed).as_ref());
    }
    let inputs: &[&str] = if bias { &["x", "w", "bias"] } else { &["x", "w"] };
    let attributes = [("group", Attribute::Int(group)), ("kernel_shape", ints(&[3, 3]))];
    let graph = graph.node_with(conv, inputs, &["c"], &attributes).node_with(
        "BatchNormalization",
        &["c", "scale", "shift", "mean", "variance"],
        &["n"],
        &[("epsilon", Attribute::Float(1e-3))],
    );
    parse(graph.node("Relu", &["n"], &["y"]).output("y", DType::F32, "N,?,?,?"))
}

#[test]
fn normalisation_becomes_part_of_the_convolution_before_it() {
    let cases: [(&str, &[usize], i64, bool); 5] = [
        ("Conv", &[4, 3, 3, 3], 1, true),
        ("Conv", &[4, 3, 3, 3], 1, false),
        ("Conv", &[6, 2, 3, 3], 3, true),
        ("ConvTranspose", &[4, 3, 3, 3], 1, false),
        ("ConvTranspose", &[4, 3, 3, 3], 2, true),
    ];
    for (conv, weight, group, bias) in cases {
        let model = normalised(conv, weight, group, bias);
        let after = cleaned(&model);
        assert_eq!(ops(&after.model), [conv, "Relu"]);
        assert_eq!(after.report.normalisations, 1);
        let input = model.inputs().unwrap()[0].dims[1].fixed().unwrap();
        // rten has no grouped transposed convolution.
        let backends =
            backends().into_iter().filter(|backend| conv == "Conv" || group == 1 || backend.name() != "rten");
        for backend in backends {
            let inputs = [noise(&[2, input, 5, 5], 9)];
            let (before, after) = (run(&*backend, &model, &inputs), run(&*backend, &after.model, &inputs));
            assert!(difference(&before[0], &after[0]) < 1e-5, "{conv} {weight:?} {group}: {}", backend.name());
        }
    }
}

#[test]
fn normalisation_stays_where_somebody_reads_between_or_it_is_not_finite() {
    let mut read = normalised("Conv", &[4, 3, 3, 3], 1, true).edit().unwrap();
    read.expose("c", revoada_bundle::onnx::ElementType::FLOAT);
    let read = read.finish().unwrap();
    assert_eq!(cleaned(&read).report.normalisations, 0);
    let mut flat = normalised("Conv", &[4, 3, 3, 3], 1, true).edit().unwrap();
    flat.set_tensor("variance", TensorRef::of(&[4], &[1f32, -1.0, 1.0, 1.0]).unwrap());
    assert_eq!(cleaned(&flat.finish().unwrap()).report.normalisations, 0);
}

#[test]
fn a_weight_that_another_node_reads_is_not_changed() {
    let mut graph = normalised("Conv", &[4, 3, 3, 3], 1, false).edit().unwrap();
    let mut twin = graph.nodes()[0].clone();
    (twin.name, twin.output[0]) = (Some("twin".to_owned()), "y2".to_owned());
    graph.nodes_mut().push(twin);
    graph.expose("y2", revoada_bundle::onnx::ElementType::FLOAT);
    let model = graph.finish().unwrap();
    let after = cleaned(&model);
    assert_eq!(after.report.normalisations, 1);
    answers_stay(&model, &after.model, &[noise(&[1, 3, 5, 5], 3)], 1e-5);
}

#[test]
fn real_models_lose_what_they_do_not_need_and_answer_alike() {
    let Some(model) = real_model("centerface.onnx") else { return };
    let after = cleaned(&model);
    assert_eq!(after.report.normalisations, 3);
    assert!(!ops(&after.model).contains(&"BatchNormalization"));
    answers_stay(&model, &after.model, &[noise(&[1, 3, 64, 64], 1)], 1e-4);
    let Some(model) = real_model("efficientnet-lite0.onnx") else { return };
    let after = cleaned(&model);
    assert_eq!(ops(&after.model), ops(&model), "it has nothing to lose");
    answers_stay(&model, &after.model, &[noise(&[1, 3, 224, 224], 1)], 0.0);
}

/// A chain of layers over rows of four numbers, some of which do nothing.
fn chain(layers: &[u8]) -> OnnxModel {
    let mut graph = GraphBuilder::new("chain")
        .input("x", DType::F32, "N,4")
        .initializer("k", noise(&[4], 1).as_ref())
        .initializer("m", noise(&[4, 4], 2).as_ref());
    let mut latest = "x".to_owned();
    for (index, layer) in layers.iter().enumerate() {
        let (next, side) = (format!("v{index}"), format!("s{index}"));
        graph = match layer % 8 {
            0 => graph.node("Identity", &[&latest], &[&next]),
            1 => graph.node("Dropout", &[&latest], &[&next]),
            2 => graph.node("Neg", &["k"], &[&side]).node("Add", &[&latest, &side], &[&next]),
            3 => graph.node("Transpose", &["m"], &[&side]).node("MatMul", &[&latest, &side], &[&next]),
            4 => graph.node("Tanh", &[&latest], &[&next]).node("Exp", &[&next], &[&side]),
            5 => graph.node_with("Cast", &[&latest], &[&next], &[("to", Attribute::Int(1))]),
            6 => graph.node("Identity", &["k"], &[&side]).node("Mul", &[&latest, &side], &[&next]),
            _ => graph.node("Shape", &[&latest], &[&side]).node("Reshape", &[&latest, &side], &[&next]),
        };
        latest = next;
    }
    parse(graph.node("Relu", &[&latest], &["y"]).output("y", DType::F32, "N,4"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_chain_answers_as_before(layers in prop::collection::vec(any::<u8>(), 0..12), seed in any::<u32>()) {
        let model = chain(&layers);
        let after = cleaned(&model);
        prop_assert!(after.report.nodes_after <= after.report.nodes_before);
        prop_assert!(!ops(&after.model).iter().any(|op| ["Identity", "Dropout", "Exp", "Cast", "Transpose"].contains(op)));
        answers_stay(&model, &after.model, &[noise(&[2, 4], seed)], 1e-6);
    }
}
