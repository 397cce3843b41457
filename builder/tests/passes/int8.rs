//! Eight bits.

use std::collections::BTreeMap;

use revoada_builder::compare::compare;
use revoada_builder::fp16;
use revoada_builder::int8::{Calibration, Int8, Int8Options, Method, Weights, calibrate, quantize};
use revoada_builder::{Keep, emulate, mixed_nodes};
use revoada_bundle::onnx::{Attribute, ElementType, Graph, GraphBuilder, OnnxModel};
use revoada_core::{DType, Tensor};

use crate::support::{backends, crops, difference, is_full, noise, parse, real_model, run};

const METHODS: [Method; 3] = [Method::MinMax, Method::Percentile(99.99), Method::Entropy];

fn conv(graph: GraphBuilder, inputs: &[&str], output: &str) -> GraphBuilder {
    let pads = ("pads", Attribute::Ints(vec![1, 1, 1, 1]));
    graph.node_with("Conv", inputs, &[output], &[pads, ("kernel_shape", Attribute::Ints(vec![3, 3]))])
}

/// A residual block, a concatenation, and a classifier behind a pool.
fn network() -> OnnxModel {
    let [w, v, u] = [1, 2, 3].map(|seed| noise(&[4, 4, 3, 3], seed));
    let (bias, fc) = (noise(&[4], 4), noise(&[8, 5], 5));
    let graph = GraphBuilder::new("network")
        .input("x", DType::F32, "N,4,8,8")
        .initializer("w", w.as_ref())
        .initializer("v", v.as_ref())
        .initializer("u", u.as_ref())
        .initializer("bias", bias.as_ref())
        .initializer("fc", fc.as_ref());
    let graph = conv(graph, &["x", "w", "bias"], "a").node("Relu", &["a"], &["b"]);
    let graph = conv(graph, &["b", "v"], "c").node("Add", &["c", "b"], &["d"]).node("Relu", &["d"], &["e"]);
    let graph = graph.node_with("Concat", &["b", "e"], &["f"], &[("axis", Attribute::Int(1))]);
    let graph = conv(graph.node("Split", &["f"], &["g", "h"]), &["g", "u"], "i");
    parse(
        graph
            .node_with("Concat", &["i", "h"], &["j"], &[("axis", Attribute::Int(1))])
            .node("GlobalAveragePool", &["j"], &["p"])
            .node("Flatten", &["p"], &["q"])
            .node("MatMul", &["q", "fc"], &["y"])
            .output("y", DType::F32, "N,5"),
    )
}

fn split_by_channels(model: &OnnxModel) -> OnnxModel {
    let mut graph = model.edit().unwrap();
    let split = graph.nodes_mut().iter_mut().find(|node| node.op_type() == "Split").unwrap();
    split.set_attribute("axis", &Attribute::Int(1));
    graph.finish().unwrap()
}

fn samples(count: u32) -> Vec<Vec<Tensor>> {
    (0..count).map(|seed| vec![noise(&[1, 4, 8, 8], 100 + seed)]).collect()
}

/// The value behind a pair, and its scale; `None` where the value is read as it is.
fn pair(graph: &Graph, op: &str, nth: usize, input: usize) -> Option<(String, f32)> {
    let node = graph.nodes().iter().filter(|node| node.op_type() == op).nth(nth).unwrap();
    let uses = graph.uses();
    let producer = |name: &str| uses.producer(name).map(|index| &graph.nodes()[index]);
    let wide = producer(&node.input[input]).filter(|node| node.op_type() == "DequantizeLinear")?;
    let quantise = producer(&wide.input[0]).filter(|node| node.op_type() == "QuantizeLinear")?;
    assert_eq!(quantise.input[1..], wide.input[1..], "one scale and one zero");
    let scale = graph.tensor(&wide.input[1]).unwrap();
    assert_eq!(graph.tensor(&wide.input[2]), Some(Tensor::of(vec![], vec![0i8]).unwrap()));
    Some((quantise.input[0].clone(), scale.as_ref().as_slice::<f32>().unwrap()[0]))
}

fn quantised(options: &Int8Options) -> Int8 {
    let model = split_by_channels(&network());
    let backend = backends().swap_remove(0);
    let calibration = calibrate(&*backend, &model, &samples(4), Method::MinMax).unwrap();
    quantize(&model, &calibration, options).unwrap()
}

#[test]
fn pairs_stand_where_a_compiler_fuses_them() {
    let result = quantised(&Int8Options::default());
    let graph = result.model.edit().unwrap();
    let value = |op: &str, nth: usize, input: usize| pair(&graph, op, nth, input).map(|(value, _)| value);
    for (nth, expected) in ["x", "b", "g"].into_iter().enumerate() {
        assert_eq!(value("Conv", nth, 0).as_deref(), Some(expected));
    }
    assert_eq!(value("MatMul", 0, 0).as_deref(), Some("q"));
    // The sum is computed inside the convolution that writes `c`; the shortcut is quantised.
    assert_eq!(value("Add", 0, 0), None);
    assert_eq!(value("Add", 0, 1).as_deref(), Some("b"));
    assert_eq!(value("GlobalAveragePool", 0, 0).as_deref(), Some("j"));
    // Biases stay float, and nothing comes after the last product.
    assert_eq!(graph.tensor("bias").unwrap().dtype(), DType::F32);
    assert_eq!(graph.nodes().last().unwrap().op_type(), "MatMul");
    assert_eq!(graph.opset(), 17);
}

#[test]
fn what_a_concatenation_joins_has_one_scale() {
    let result = quantised(&Int8Options::default());
    let graph = result.model.edit().unwrap();
    for nth in 0..2 {
        let (left, right) = (pair(&graph, "Concat", nth, 0).unwrap(), pair(&graph, "Concat", nth, 1).unwrap());
        assert_ne!(left.0, right.0);
        assert_eq!(left.1, right.1);
    }
    assert_eq!(pair(&graph, "Concat", 1, 0).unwrap().1, pair(&graph, "GlobalAveragePool", 0, 0).unwrap().1);
}

#[test]
fn weights_are_eight_bits_with_a_scale_for_each_channel() {
    let result = quantised(&Int8Options::default());
    let graph = result.model.edit().unwrap();
    let uses = graph.uses();
    let conv = graph.nodes().iter().find(|node| node.op_type() == "Conv").unwrap();
    let wide = &graph.nodes()[uses.producer(&conv.input[1]).unwrap()];
    assert_eq!((wide.op_type(), wide.int("axis")), ("DequantizeLinear", Some(0)));
    let (levels, scales) = (graph.tensor(&wide.input[0]).unwrap(), graph.tensor(&wide.input[1]).unwrap());
    let (levels, scales) = (levels.as_ref(), scales.as_ref());
    let original = noise(&[4, 4, 3, 3], 1);
    let original = original.as_ref().as_slice::<f32>().unwrap();
    let (levels, scales) = (levels.as_slice::<i8>().unwrap(), scales.as_slice::<f32>().unwrap());
    assert_eq!(scales.len(), 4);
    for (index, (level, number)) in levels.iter().zip(original).enumerate() {
        let scale = scales[index / 36];
        // One of the two that are next to it.
        assert!((f32::from(*level) * scale - number).abs() < scale * 1.0001);
    }
    // Every channel uses its whole range.
    assert!(levels.chunks(36).all(|channel| channel.iter().any(|level| level.abs() == 127)));
    let matmul = graph.nodes().iter().find(|node| node.op_type() == "MatMul").unwrap();
    assert_eq!(graph.nodes()[uses.producer(&matmul.input[1]).unwrap()].int("axis"), Some(1));
    assert!(graph.initializer("w").is_none());

    let result = quantised(&Int8Options { weights: Weights::F32, ..Int8Options::default() });
    let graph = result.model.edit().unwrap();
    let conv = graph.nodes().iter().find(|node| node.op_type() == "Conv").unwrap();
    let uses = graph.uses();
    let producer = |name: &str| &graph.nodes()[uses.producer(name).unwrap()];
    let quantise = producer(&producer(&conv.input[1]).input[0]);
    assert_eq!(quantise.op_type(), "QuantizeLinear");
    let rounded = graph.tensor(&quantise.input[0]).unwrap();
    for (index, (rounded, level)) in rounded.as_ref().as_slice::<f32>().unwrap().iter().zip(levels).enumerate() {
        assert_eq!((rounded / scales[index / 36]).round(), f32::from(*level));
    }
}

#[test]
fn a_quantised_network_answers_nearly_alike_with_every_method_and_form() {
    let model = split_by_channels(&network());
    for backend in backends() {
        for method in METHODS {
            for weights in [Weights::Int8, Weights::F32] {
                let options = Int8Options { weights, ..Int8Options::default() };
                let calibration = calibrate(&*backend, &model, &samples(8), method).unwrap();
                assert_eq!((calibration.method, calibration.samples), (method, 8));
                let result = quantize(&model, &calibration, &options).unwrap();
                for inputs in samples(3) {
                    let (before, after) =
                        (run(&*backend, &model, &inputs), run(&*backend, &emulate(&result.model).unwrap(), &inputs));
                    let name = format!("{} {method:?} {weights:?}", backend.name());
                    let difference = difference(&before[0], &after[0]);
                    assert!(difference > 0.0 && difference < 0.08, "{name}: {difference}");
                }
            }
        }
    }
}

#[test]
fn the_emulation_quantises_as_a_backend_does() {
    let model = split_by_channels(&network());
    // rten's kernels do not saturate.
    let rten = backends().pop().unwrap();
    for weights in [Weights::Int8, Weights::F32] {
        let result = quantised(&Int8Options { weights, ..Int8Options::default() });
        let emulated = emulate(&result.model).unwrap();
        assert!(emulated.graph().node.iter().all(|node| !node.op_type().ends_with("Linear")));
        for inputs in samples(3) {
            let real = run(&*rten, &result.model, &inputs);
            for backend in backends() {
                let difference = difference(&real[0], &run(&*backend, &emulated, &inputs)[0]);
                // A sum that is rounded otherwise may cross to the next level here and there.
                assert!(difference < 0.01, "{}: {difference}", backend.name());
            }
            assert_ne!(real, run(&*rten, &model, &inputs));
        }
    }
}

#[test]
fn backends_agree_on_ranges_and_a_record_goes_through_json() {
    let model = split_by_channels(&network());
    let records: Vec<Calibration> =
        backends().iter().map(|backend| calibrate(&**backend, &model, &samples(4), Method::Entropy).unwrap()).collect();
    for record in &records {
        assert_eq!(record.ranges.keys().collect::<Vec<_>>(), records[0].ranges.keys().collect::<Vec<_>>());
        for (value, range) in &record.ranges {
            // A bin more or less, where sums are rounded otherwise.
            assert!((range / records[0].ranges[value] - 1.0).abs() < 0.05, "{value}: {range}");
        }
        let text = serde_json::to_string(record).unwrap();
        let read = serde_json::from_str::<Calibration>(&text).unwrap();
        assert_eq!((&read.ranges, read.method, read.samples), (&record.ranges, record.method, record.samples));
    }
    let largest = samples(4).iter().flatten().fold(0f32, |largest, tensor| {
        tensor.as_ref().as_slice::<f32>().unwrap().iter().fold(largest, |largest, number| largest.max(number.abs()))
    });
    let min_max = calibrate(&*backends()[0], &model, &samples(4), Method::MinMax).unwrap();
    assert_eq!(min_max.ranges["x"], largest);
}

#[test]
fn what_rounding_weights_does_to_a_mean_is_made_up_for_by_the_bias() {
    // Inputs like those behind a rectifier, and a channel of few weights, all of which round down.
    let w = Tensor::of(vec![2, 1, 1, 2], vec![127f32 / 128.0, 0.4 / 128.0, 127.0 / 128.0, -0.4 / 128.0]).unwrap();
    let graph = GraphBuilder::new("shift").input("x", DType::F32, "N,1,1,8").initializer("w", w.as_ref());
    let graph = graph.node_with("Conv", &["x", "w"], &["y"], &[("kernel_shape", Attribute::Ints(vec![1, 2]))]);
    let model = parse(graph.output("y", DType::F32, "N,2,1,7"));
    let positive = |seed: u32| {
        let numbers = noise(&[8], seed).as_ref().as_slice::<f32>().unwrap().iter().map(|x| x.abs()).collect();
        vec![Tensor::of(vec![1, 1, 1, 8], numbers).unwrap()]
    };
    let samples: Vec<Vec<Tensor>> = (0..16).map(positive).collect();
    for backend in backends() {
        let calibration = calibrate(&*backend, &model, &samples, Method::MinMax).unwrap();
        // The nearest levels, whose errors have one sign.
        let calibration = Calibration { levels: BTreeMap::new(), ..calibration };
        let [up, down] = calibration.shifts["y"][..] else { panic!("a shift for each channel") };
        assert!(up > 0.001 && (up + down).abs() < 1e-6, "{up}, {down}");
        let without = Calibration { shifts: BTreeMap::new(), ..calibration.clone() };
        let error = |calibration: &Calibration| {
            let result = quantize(&model, calibration, &Int8Options::default()).unwrap();
            let report = compare(&*backend, &model, &emulate(&result.model).unwrap(), &samples, None).unwrap();
            report.outputs[0].relative
        };
        assert!(error(&calibration) < 0.95 * error(&without), "{}", backend.name());
    }
}

#[test]
fn errors_of_weights_cancel_where_inputs_are_alike() {
    // A kernel whose weights all round down, over inputs that are nearly the same under all of it.
    let w = [vec![127.0 / 128.0f32], vec![10.4 / 128.0; 24]].concat();
    let w = Tensor::of(vec![1, 1, 5, 5], w).unwrap();
    let graph = GraphBuilder::new("smooth").input("x", DType::F32, "N,1,8,8").initializer("w", w.as_ref());
    let graph = graph.node_with("Conv", &["x", "w"], &["y"], &[("kernel_shape", Attribute::Ints(vec![5, 5]))]);
    let model = parse(graph.output("y", DType::F32, "N,1,4,4"));
    let smooth = |seed: u32| {
        let level = noise(&[1], seed).as_ref().as_slice::<f32>().unwrap()[0];
        let detail = noise(&[64], seed + 500);
        let numbers = detail.as_ref().as_slice::<f32>().unwrap().iter().map(|detail| level + 0.05 * detail).collect();
        vec![Tensor::of(vec![1, 1, 8, 8], numbers).unwrap()]
    };
    let (seen, judged): (Vec<_>, Vec<_>) = ((0..32).map(smooth).collect(), (100..116).map(smooth).collect());
    for backend in backends() {
        let chosen = calibrate(&*backend, &model, &seen, Method::MinMax).unwrap();
        let nearest = Calibration { levels: BTreeMap::new(), ..chosen.clone() };
        let error = |calibration: &Calibration| {
            let result = quantize(&model, calibration, &Int8Options::default()).unwrap();
            let report = compare(&*backend, &model, &emulate(&result.model).unwrap(), &judged, None).unwrap();
            report.outputs[0].relative
        };
        assert!(error(&chosen) < 0.5 * error(&nearest), "{} {}", error(&chosen), error(&nearest));
    }
}

#[test]
fn kept_nodes_read_what_they_read() {
    let keep =
        Keep { nodes: ["Conv_0".to_owned()].into(), operators: ["Concat".to_owned(), "Mystery".to_owned()].into() };
    let result = quantised(&Int8Options { keep, ..Int8Options::default() });
    let graph = result.model.edit().unwrap();
    assert_eq!(pair(&graph, "Conv", 0, 0), None);
    assert!(pair(&graph, "Conv", 1, 0).is_some());
    assert_eq!(pair(&graph, "Concat", 1, 0), None);
    assert!(result.report.kept.contains(&"Conv_0".to_owned()));
    assert_eq!(result.report.unknown, ["Mystery"]);
    assert!(!result.report.nodes.contains(&"Conv_0".to_owned()));
}

#[test]
fn a_value_without_a_range_is_named() {
    let model = split_by_channels(&network());
    let nothing = Calibration {
        method: Method::MinMax,
        samples: 1,
        ranges: BTreeMap::new(),
        shifts: BTreeMap::new(),
        levels: BTreeMap::new(),
    };
    let error = quantize(&model, &nothing, &Int8Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "the range of `b` cannot be told: no sample gave a finite number there");
    let infinite = vec![vec![Tensor::of(vec![1, 4, 8, 8], vec![f32::NAN; 256]).unwrap()]];
    let error = calibrate(&*backends()[0], &model, &infinite, Method::MinMax).unwrap_err();
    assert!(error.to_string().starts_with("the range of `"), "{error}");
}

#[test]
fn the_rest_becomes_half_precision_without_a_cast_inside() {
    let result = quantised(&Int8Options::default());
    let converted = fp16::convert(&result.model, &Default::default()).unwrap();
    let graph = converted.model.edit().unwrap();
    assert_eq!(mixed_nodes(&graph), []);
    assert_eq!(converted.report.kept, []);
    assert_eq!(converted.report.casts, 2);
    assert_eq!(graph.opset(), 19);
    assert_eq!(graph.types()["bias"], ElementType::FLOAT16);
    // Scales are what they were.
    for (value, scale) in &result.report.scales {
        let half = graph.tensor(&format!("{value}_scale")).unwrap();
        assert_eq!(half.as_ref().as_slice::<half::f16>().unwrap()[0].to_f32(), *scale, "{value}");
    }
    let emulated = emulate(&converted.model).unwrap();
    let model = split_by_channels(&network());
    let inputs = samples(1).remove(0);
    for backend in backends() {
        let (before, after) = (run(&*backend, &model, &inputs), run(&*backend, &emulated, &inputs));
        assert!(difference(&before[0], &after[0]) < 0.08, "{}", backend.name());
    }
    // Where the compiler knows no such operator set, quantisation stays f32 behind casts.
    let older = fp16::Fp16Options { opset_max: 17, ..Default::default() };
    let converted = fp16::convert(&result.model, &older).unwrap();
    let graph = converted.model.edit().unwrap();
    assert_eq!((mixed_nodes(&graph), graph.opset()), (vec![], 17));
    assert!(converted.report.casts > 2);
}

#[test]
fn transposed_convolutions_and_older_models_are_quantised() {
    let w = noise(&[4, 2, 2, 2], 1);
    let graph = GraphBuilder::new("up").opset(9).input("x", DType::F32, "N,4,3,3").initializer("w", w.as_ref());
    let strides = [("strides", Attribute::Ints(vec![2, 2])), ("kernel_shape", Attribute::Ints(vec![2, 2]))];
    let graph = graph.node_with("ConvTranspose", &["x", "w"], &["y"], &strides);
    let model = parse(graph.output("y", DType::F32, "N,2,6,6"));
    let inputs = vec![vec![noise(&[1, 4, 3, 3], 2)]];
    for backend in backends() {
        let options = Int8Options::default();
        let calibration = calibrate(&*backend, &model, &inputs, Method::MinMax).unwrap();
        let result = quantize(&model, &calibration, &options).unwrap();
        let graph = result.model.edit().unwrap();
        assert_eq!(graph.opset(), 13);
        let weight = graph.nodes().iter().find(|node| node.int("axis").is_some()).unwrap();
        assert_eq!((weight.op_type(), weight.int("axis")), ("DequantizeLinear", Some(1)));
        let (before, after) =
            (run(&*backend, &model, &inputs[0]), run(&*backend, &emulate(&result.model).unwrap(), &inputs[0]));
        assert!(difference(&before[0], &after[0]) < 0.03, "{}", backend.name());
    }
}

#[test]
fn efficientnet_in_eight_bits_names_the_same_classes() {
    let Some(model) = real_model("efficientnet-lite0.onnx") else { return };
    let pictures = ["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"].map(crops);
    let [Some(astronaut), Some(coffee), Some(chelsea), Some(rocket)] = pictures else { return };
    let backend = backends().swap_remove(0);
    // Calibrated on two photographs, judged on two others.
    let (seen, judged) = ([astronaut, coffee].concat(), [chelsea, rocket].concat());
    let methods = METHODS.into_iter().filter(|method| is_full() || *method == Method::default());
    for method in methods {
        let options = Int8Options::default();
        let calibration = calibrate(&*backend, &model, &seen, method).unwrap();
        let result = quantize(&model, &calibration, &options).unwrap();
        assert!(result.model.encode().len() * 3 < model.encode().len());
        let report = compare(&*backend, &model, &emulate(&result.model).unwrap(), &judged, Some(0)).unwrap();
        let top = report.top.unwrap();
        let cosine = report.outputs[0].cosine;
        println!("{method:?}: top-1 {:.3}, top-5 {:.3}, cosine {cosine:.4}", top.top1, top.top5);
        assert!(top.rows == 30 && top.top1 >= 0.8 && top.top5 >= 0.9, "{method:?}: {top:?}, cosine {cosine}");
    }
}

#[test]
fn centerface_is_quantised_from_its_old_operator_set() {
    let Some(model) = real_model("centerface.onnx") else { return };
    let inputs = vec![vec![Tensor::of(vec![1, 3, 64, 96], pixels(3 * 64 * 96)).unwrap()]];
    for backend in backends() {
        let options = Int8Options::default();
        let calibration = calibrate(&*backend, &model, &inputs, Method::MinMax).unwrap();
        let result = quantize(&model, &calibration, &options).unwrap();
        let report = compare(&*backend, &model, &emulate(&result.model).unwrap(), &inputs, None).unwrap();
        println!("{}: {:?}", backend.name(), report.outputs.iter().map(|output| output.cosine).collect::<Vec<_>>());
        assert!(report.outputs.iter().all(|output| output.cosine > 0.8), "{}: {report:?}", backend.name());
    }
}

/// Noise where pixels would be.
fn pixels(count: usize) -> Vec<f32> {
    noise(&[count], 7).as_ref().as_slice::<f32>().unwrap().iter().map(|number| (number + 1.0) * 127.5).collect()
}
