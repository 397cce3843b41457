//! Layers that must stay f32 are found, named and kept.

use revoada_builder::SearchOptions;
use revoada_builder::compare::Thresholds;
use revoada_builder::fp16::{Fp16Options, search};
use revoada_builder::int8::{self, Int8Options, Method};
use revoada_bundle::onnx::{Attribute, GraphBuilder, OnnxModel};
use revoada_core::{DType, Tensor};

use crate::support::{backends, noise, parse, real_model};

fn samples(shape: &[usize], count: u32) -> Vec<Vec<Tensor>> {
    (0..count).map(|seed| vec![noise(shape, seed)]).collect()
}

/// A convolution, a scale that carries it beyond f16, a rectifier there, and the scale back.
fn overflowing() -> OnnxModel {
    let (w, v) = (noise(&[4, 3, 3, 3], 1), noise(&[2, 4, 1, 1], 2));
    let scalar = |number: f32| Tensor::of(vec![], vec![number]).unwrap();
    parse(
        GraphBuilder::new("overflowing")
            .input("x", DType::F32, "N,3,8,8")
            .initializer("w", w.as_ref())
            .initializer("v", v.as_ref())
            .initializer("up", scalar(4e4).as_ref())
            .initializer("down", scalar(4e4).as_ref())
            .node_with("Conv", &["x", "w"], &["c"], &[("kernel_shape", Attribute::Ints(vec![3, 3]))])
            .node("Mul", &["c", "up"], &["large"])
            .node("Relu", &["large"], &["r"])
            .node("Div", &["r", "down"], &["d"])
            .node_with("Conv", &["d", "v"], &["y"], &[("kernel_shape", Attribute::Ints(vec![1, 1]))])
            .output("y", DType::F32, "N,2,6,6"),
    )
}

#[test]
fn an_overflow_is_caught_the_layer_named_and_the_mixed_model_passes() {
    for backend in backends() {
        let found = search(
            &*backend,
            &overflowing(),
            &samples(&[1, 3, 8, 8], 3),
            &Fp16Options::default(),
            &SearchOptions::default(),
        )
        .unwrap();
        let name = backend.name();
        assert!(!found.failures_all.is_empty(), "{name}: half precision alone must fail");
        assert!(found.report_all.outputs[0].not_finite > 0, "{name}");
        assert_eq!(found.failures, [], "{name}: the proposal passes");
        assert!(found.report.outputs[0].cosine_min > 0.9999, "{name}");
        let kept: Vec<&str> = found.layers.iter().filter(|layer| layer.kept).map(|layer| layer.node.as_str()).collect();
        assert_eq!(kept.len(), 3, "{name}: {kept:?}");
        assert!(["Mul_1", "Relu_2", "Div_3"].iter().all(|node| kept.contains(node)), "{name}: {kept:?}");
        // They come first, and what made the infinity is known.
        assert!(found.layers[..3].iter().all(|layer| layer.overflows && layer.largest > 65504.0), "{name}");
        assert_eq!(found.layers.iter().find(|layer| layer.error_added.is_infinite()).unwrap().node, "Mul_1", "{name}");
        assert_eq!(found.proposal.report.half_nodes, 2, "{name}: the convolutions are half");
    }
}

#[test]
fn a_model_that_is_good_in_half_precision_keeps_nothing() {
    let w = noise(&[4, 3, 3, 3], 1);
    let model = parse(
        GraphBuilder::new("good")
            .input("x", DType::F32, "N,3,8,8")
            .initializer("w", w.as_ref())
            .node_with("Conv", &["x", "w"], &["c"], &[("kernel_shape", Attribute::Ints(vec![3, 3]))])
            .node("Relu", &["c"], &["y"])
            .output("y", DType::F32, "N,4,6,6"),
    );
    for backend in backends() {
        let found =
            search(&*backend, &model, &samples(&[1, 3, 8, 8], 2), &Fp16Options::default(), &SearchOptions::default())
                .unwrap();
        assert_eq!((found.failures.len(), found.failures_all.len()), (0, 0));
        assert!(found.layers.iter().all(|layer| !layer.kept && layer.error_alone.is_none()));
        assert_eq!(found.report, found.report_all);
    }
}

/// Nothing overflows here: a large offset is added and taken away again, which leaves few digits in f16.
fn cancelling() -> OnnxModel {
    let w = noise(&[4, 4], 1);
    let offset = Tensor::of(vec![], vec![1000f32]).unwrap();
    parse(
        GraphBuilder::new("cancelling")
            .input("x", DType::F32, "N,4")
            .initializer("w", w.as_ref())
            .initializer("offset", offset.as_ref())
            .node("MatMul", &["x", "w"], &["a"])
            .node("Sigmoid", &["a"], &["s"])
            .node("Add", &["s", "offset"], &["far"])
            .node("Sub", &["far", "offset"], &["near"])
            .node("MatMul", &["near", "w"], &["y"])
            .output("y", DType::F32, "N,4"),
    )
}

#[test]
fn a_loss_of_digits_is_traced_to_its_layer_and_few_layers_are_kept() {
    let thresholds = Thresholds { relative_max: Some(0.01), cosine_min: None, ..Thresholds::default() };
    let options = SearchOptions { thresholds, ..SearchOptions::default() };
    for backend in backends() {
        let found = search(&*backend, &cancelling(), &samples(&[1, 4], 4), &Fp16Options::default(), &options).unwrap();
        assert!(!found.failures_all.is_empty());
        assert_eq!(found.failures, [], "{:?}", found.layers);
        assert!(found.layers.iter().all(|layer| !layer.overflows));
        let worst = &found.layers[0];
        assert!(["Add_2", "Sub_3"].contains(&worst.node.as_str()), "{:?}", found.layers);
        let kept: Vec<&str> = found.layers.iter().filter(|layer| layer.kept).map(|layer| layer.node.as_str()).collect();
        assert!(kept.len() <= 2 && kept.iter().all(|node| ["Add_2", "Sub_3"].contains(node)), "{kept:?}");
    }
}

#[test]
fn thresholds_that_no_mixture_reaches_are_reported_as_failures() {
    let thresholds = Thresholds { max_abs_max: Some(0.0), ..Thresholds::default() };
    let options = SearchOptions { thresholds, ..SearchOptions::default() };
    let backend = backends().swap_remove(0);
    let weight = Tensor::of(vec![2, 2], vec![0.1f32, 0.2, 0.3, 0.4]).unwrap();
    let graph = GraphBuilder::new("linear").input("x", DType::F32, "N,2").initializer("w", weight.as_ref());
    let graph = graph.node("Transpose", &["x"], &["t"]).node("MatMul", &["w", "t"], &["y"]);
    let model = parse(graph.output("y", DType::F32, "2,N"));
    let found = search(&*backend, &model, &samples(&[1, 2], 2), &Fp16Options::default(), &options).unwrap();
    // The transposition is still half: it moves numbers and was never tried.
    assert!(!found.failures.is_empty());
    assert!(found.layers.iter().any(|layer| layer.kept && layer.op == "MatMul"));
}

#[test]
fn a_search_without_samples_is_refused() {
    let nothing: Vec<Vec<Tensor>> = Vec::new();
    let error = search(&*backends()[0], &cancelling(), &nothing, &Fp16Options::default(), &SearchOptions::default())
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "there are no samples to run the model on");
    let wrong = vec![vec![noise(&[1, 4], 1), noise(&[1, 4], 1)]];
    let error = search(&*backends()[0], &cancelling(), &wrong, &Fp16Options::default(), &SearchOptions::default())
        .err()
        .unwrap();
    assert_eq!(error.to_string(), "sample 0 has 2 tensors, the model has 1 inputs");
}

#[test]
fn efficientnet_needs_no_layer_in_f32() {
    let Some(model) = real_model("efficientnet-lite0.onnx") else { return };
    let options = SearchOptions { scores: Some(0), ..SearchOptions::default() };
    let found =
        search(&*backends()[0], &model, &samples(&[1, 3, 224, 224], 1), &Fp16Options::default(), &options).unwrap();
    assert_eq!(found.failures, []);
    assert_eq!(found.proposal.report.kept, []);
    assert!(found.layers.iter().all(|layer| layer.largest > 0.0 && !layer.overflows));
}

#[test]
fn a_named_layer_is_kept_from_the_start() {
    let mut conversion = Fp16Options::default();
    conversion.keep.nodes.insert("Conv_4".to_owned());
    let options = SearchOptions::default();
    let found = search(&*backends()[0], &overflowing(), &samples(&[1, 3, 8, 8], 2), &conversion, &options).unwrap();
    assert_eq!(found.failures, []);
    assert_eq!(found.proposal.report.half_nodes, 1);
}

/// Two harmless convolutions around one whose input has a channel a hundred thousand times smaller than the
/// other, though both weigh the same in its answer: one scale cannot hold both.
fn lopsided() -> OnnxModel {
    let (w, v) = (noise(&[2, 2, 1, 1], 1), noise(&[3, 2, 1, 1], 2));
    let factors = Tensor::of(vec![1, 2, 1, 1], vec![100f32, 0.001]).unwrap();
    let back = Tensor::of(vec![2, 2, 1, 1], vec![0.01f32, 1000.0, 0.005, -500.0]).unwrap();
    let kernel = || [("kernel_shape", Attribute::Ints(vec![1, 1]))];
    parse(
        GraphBuilder::new("lopsided")
            .input("x", DType::F32, "N,2,6,6")
            .initializer("w", w.as_ref())
            .initializer("factors", factors.as_ref())
            .initializer("back", back.as_ref())
            .initializer("v", v.as_ref())
            .node_with("Conv", &["x", "w"], &["a"], &kernel())
            .node("Mul", &["a", "factors"], &["b"])
            .node_with("Conv", &["b", "back"], &["c"], &kernel())
            .node_with("Conv", &["c", "v"], &["y"], &kernel())
            .output("y", DType::F32, "N,3,6,6"),
    )
}

#[test]
fn a_layer_that_eight_bits_ruin_is_found_and_kept() {
    let (model, seen, judged) = (lopsided(), samples(&[1, 2, 6, 6], 4), samples(&[1, 2, 6, 6], 2));
    let thresholds = Thresholds { cosine_min: Some(0.995), ..Thresholds::default() };
    let options = SearchOptions { thresholds, ..SearchOptions::default() };
    for backend in backends() {
        let calibration = int8::calibrate(&*backend, &model, &seen, Method::MinMax).unwrap();
        let conversion = Int8Options::default();
        let found = int8::search(&*backend, &model, &judged, &calibration, &conversion, &options).unwrap();
        assert!(!found.failures_all.is_empty());
        assert_eq!(found.failures, [], "{:?}", found.layers);
        let kept: Vec<&str> = found.layers.iter().filter(|layer| layer.kept).map(|layer| layer.node.as_str()).collect();
        assert_eq!(kept, ["Conv_2"], "{}", backend.name());
        assert_eq!(found.layers[0].node, "Conv_2");
        assert_eq!(found.proposal.report.nodes, ["Conv_0", "Conv_3"]);
    }
}

#[test]
fn a_quantised_model_is_searched_for_half_precision_too() {
    let (model, samples) = (lopsided(), samples(&[1, 2, 6, 6], 2));
    let backend = backends().swap_remove(0);
    let calibration = int8::calibrate(&*backend, &model, &samples, Method::MinMax).unwrap();
    let quantised = int8::quantize(&model, &calibration, &Int8Options::default()).unwrap().model;
    let found = search(&*backend, &quantised, &samples, &Fp16Options::default(), &SearchOptions::default()).unwrap();
    assert_eq!(found.failures, []);
    let labels: Vec<String> = quantised.graph().node.iter().map(|node| node.label()).collect();
    assert!(found.layers.iter().all(|layer| labels.contains(&layer.node)), "{:?}", found.layers);
}
