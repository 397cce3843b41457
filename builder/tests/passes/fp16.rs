//! Half precision.

use half::f16;
use revoada_builder::fp16::{self, Fp16, Fp16Options, Interface, KeptBecause};
use revoada_builder::{Keep, emulate, mixed_nodes};
use revoada_bundle::onnx::{Attribute, ElementType, GraphBuilder, OnnxModel};
use revoada_core::{DType, Tensor, TensorRef};

use crate::support::{backends, difference, floats, noise, parse, real_model, run};

fn convert(model: &OnnxModel, options: &Fp16Options) -> Fp16 {
    let converted = fp16::convert(model, options).unwrap();
    let graph = converted.model.edit().unwrap();
    assert_eq!(mixed_nodes(&graph), [], "the result is strongly typed");
    let names = |model: &OnnxModel| {
        let infos = model.graph().input.iter().chain(&model.graph().output);
        infos.map(|info| info.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&converted.model), names(&model.edit().unwrap().finish().unwrap()));
    converted
}

fn ops(model: &OnnxModel) -> Vec<&str> {
    model.graph().node.iter().map(|node| node.op_type()).collect()
}

fn constant<'a>(shape: &'a [usize], numbers: &'a [f32]) -> TensorRef<'a> {
    TensorRef::of(shape, numbers).unwrap()
}

/// A network in small: two convolutions with a shortcut, and a classifier.
fn network() -> OnnxModel {
    let (w, v, fc) = (noise(&[4, 3, 3, 3], 1), noise(&[4, 4, 3, 3], 2), noise(&[5, 4], 3));
    let pads = || ("pads", Attribute::Ints(vec![1, 1, 1, 1]));
    let kernel = || ("kernel_shape", Attribute::Ints(vec![3, 3]));
    parse(
        GraphBuilder::new("network")
            .input("x", DType::F32, "N,3,8,8")
            .initializer("w", w.as_ref())
            .initializer("v", v.as_ref())
            .initializer("fc", fc.as_ref())
            .initializer("zero", constant(&[], &[0.0]))
            .initializer("six", constant(&[], &[6.0]))
            .node_with("Conv", &["x", "w"], &["c"], &[pads(), kernel()])
            .node("Clip", &["c", "zero", "six"], &["r"])
            .node_with("Conv", &["r", "v"], &["d"], &[pads(), kernel()])
            .node("Add", &["d", "r"], &["s"])
            .node("GlobalAveragePool", &["s"], &["p"])
            .node("Flatten", &["p"], &["f"])
            .node_with("Gemm", &["f", "fc"], &["y"], &[("transB", Attribute::Int(1))])
            .output("y", DType::F32, "N,5"),
    )
}

#[test]
fn a_network_becomes_half_with_casts_at_its_borders_alone() {
    let model = network();
    let converted = convert(&model, &Fp16Options::default());
    assert_eq!(converted.report.half_nodes, 7);
    assert_eq!(converted.report.casts, 2);
    let nodes = ops(&converted.model);
    assert_eq!((nodes[0], nodes[nodes.len() - 1]), ("Cast", "Cast"));
    // Weights keep their names.
    let graph = converted.model.edit().unwrap();
    for name in ["w", "v", "fc"] {
        assert_eq!(graph.initializer(name).unwrap().element_type(), ElementType::FLOAT16, "{name}");
    }
    let input = noise(&[2, 3, 8, 8], 9);
    for backend in backends() {
        let before = run(&*backend, &model, std::slice::from_ref(&input));
        let after = run(&*backend, &converted.model, std::slice::from_ref(&input));
        let emulated = run(&*backend, &emulate(&converted.model).unwrap(), std::slice::from_ref(&input));
        assert!(difference(&before[0], &after[0]) < 4e-3, "{}", backend.name());
        assert!(difference(&before[0], &emulated[0]) < 4e-3, "{}", backend.name());
        assert_ne!(before, emulated, "rounding shows somewhere");
    }
}

#[test]
fn inputs_and_outputs_become_half_where_asked() {
    let model = network();
    let converted = convert(&model, &Fp16Options { interface: Interface::F16, ..Fp16Options::default() });
    assert_eq!(converted.report.casts, 0);
    assert_eq!(converted.model.inputs().unwrap()[0].to_string(), "x f16[N,3,8,8]");
    assert_eq!(converted.model.outputs().unwrap()[0].to_string(), "y f16[N,5]");
    let input = noise(&[1, 3, 8, 8], 9);
    let halves = floats(&input).iter().map(|number| f16::from_f32(*number)).collect();
    let half_input = Tensor::of(vec![1, 3, 8, 8], halves).unwrap();
    for backend in backends() {
        let before = run(&*backend, &model, std::slice::from_ref(&input));
        let after = run(&*backend, &converted.model, std::slice::from_ref(&half_input));
        let wide = after[0].as_ref().as_slice::<f16>().unwrap().iter().map(|number| number.to_f32()).collect();
        let wide = Tensor::of(vec![1, 5], wide).unwrap();
        assert!(difference(&before[0], &wide) < 4e-3, "{}", backend.name());
    }
}

#[test]
fn kept_nodes_and_operators_stay_single_between_casts() {
    let model = network();
    let keep = Keep { nodes: ["Conv_2".to_owned(), "nobody".to_owned()].into(), operators: ["Gemm".to_owned()].into() };
    let converted = convert(&model, &Fp16Options { keep, ..Fp16Options::default() });
    let kept: Vec<&str> = converted.report.kept.iter().map(|kept| kept.node.as_str()).collect();
    assert_eq!(kept, ["Conv_2", "Gemm_6"]);
    assert!(converted.report.kept.iter().all(|kept| kept.because == KeptBecause::Asked));
    assert_eq!(converted.report.unknown, ["nobody"]);
    // In, before and after the convolution, before the classifier; its answer is f32 already.
    assert_eq!(converted.report.casts, 4);
    let types = converted.model.edit().unwrap().types();
    assert_eq!(types["v"], ElementType::FLOAT);
    assert_eq!(types["w"], ElementType::FLOAT16);
    // Keeping everything changes nothing.
    let keep = Keep { operators: ops(&model).iter().map(|op| (*op).to_owned()).collect(), ..Keep::default() };
    let same = convert(&model, &Fp16Options { keep, ..Fp16Options::default() });
    assert_eq!(same.report.casts, 0);
    assert_eq!(ops(&same.model), ops(&model));
}

#[test]
fn weights_that_do_not_fit_keep_their_node_single() {
    let graph = GraphBuilder::new("misfits")
        .input("x", DType::F32, "N,4")
        .initializer("huge", constant(&[4], &[1.0, 70000.0, -1e6, 2.0]))
        .initializer("tiny", constant(&[], &[1e-9]))
        .initializer("some", constant(&[4], &[1e-9, 1.0, 2.0, 3.0]))
        .initializer("limit", constant(&[], &[f32::MAX]))
        .initializer("zero", constant(&[], &[0.0]))
        .node("Mul", &["x", "huge"], &["a"])
        .node("Add", &["x", "tiny"], &["b"])
        .node("Div", &["x", "some"], &["c"])
        .node("Mul", &["x", "some"], &["d"])
        .node("Clip", &["d", "zero", "limit"], &["e"])
        .node_with("LpNormalization", &["x"], &["f"], &[("epsilon", Attribute::Float(1e-12))])
        .output("a", DType::F32, "N,4")
        .output("b", DType::F32, "N,4")
        .output("c", DType::F32, "N,4")
        .output("e", DType::F32, "N,4")
        .output("f", DType::F32, "N,4");
    let converted = convert(&parse(graph), &Fp16Options::default());
    let kept: Vec<(&str, &KeptBecause)> =
        converted.report.kept.iter().map(|kept| (kept.node.as_str(), &kept.because)).collect();
    let under = |tensor: &str, value| KeptBecause::Underflow { tensor: tensor.to_owned(), value };
    assert_eq!(
        kept,
        [
            ("Mul_0", &KeptBecause::Overflow { tensor: "huge".to_owned(), value: -1e6 }),
            ("Add_1", &under("tiny", 1e-9)),
            ("Div_2", &under("some", 3.0)),
            ("LpNormalization_5", &under("epsilon", 1e-12)),
        ]
    );
    assert_eq!(converted.report.half_nodes, 2);
    let faded = &converted.report.faded;
    assert_eq!((faded.len(), faded[0].tensor.as_str(), faded[0].zeros, faded[0].elements), (1, "some", 1, 4));
    // The bound was clamped, which changes nothing.
    let graph = converted.model.edit().unwrap();
    let clip = graph.nodes().iter().find(|node| node.op_type() == "Clip").unwrap();
    let limit = graph.tensor(clip.input_name(2).unwrap()).unwrap();
    assert_eq!(limit.as_ref().as_slice::<f16>(), Some(&[f16::MAX][..]));
}

#[test]
fn sizes_and_what_has_no_half_form_stay_single() {
    // Upsampling to a size computed from the input's, as exporters write it, then boxes.
    let branch = |op: &str| {
        let branch = GraphBuilder::new(op).node(op, &["u"], &[&format!("{op}_u")]);
        Attribute::Graph(branch.output(&format!("{op}_u"), DType::F32, "N,1,?,?").graph())
    };
    let truth = Tensor::of(vec![], vec![true]).unwrap();
    let graph = GraphBuilder::new("sizes")
        .input("x", DType::F32, "N,1,H,W")
        .input("boxes", DType::F32, "1,B,4")
        .input("scores", DType::F32, "1,1,B")
        .initializer("factors", constant(&[4], &[1.0, 1.0, 2.0, 2.0]))
        .initializer("k", TensorRef::of(&[1], &[2i64]).unwrap())
        .initializer("truth", truth.as_ref())
        .node("Sigmoid", &["x"], &["g"])
        .node("Shape", &["g"], &["shape"])
        .node_with("Cast", &["shape"], &["wide"], &[("to", Attribute::Int(1))])
        .node("Mul", &["wide", "factors"], &["larger"])
        .node_with("Cast", &["larger"], &["sizes"], &[("to", Attribute::Int(7))])
        .node_with("Resize", &["g", "", "", "sizes"], &["u"], &[("mode", Attribute::String("nearest".into()))])
        .node_with("If", &["truth"], &["v"], &[("then_branch", branch("Relu")), ("else_branch", branch("Neg"))])
        .node_with("Resize", &["v", "", "factors"], &["y"], &[("mode", Attribute::String("nearest".into()))])
        .node("NonMaxSuppression", &["boxes", "scores", "k"], &["chosen"])
        .node("Sigmoid", &["scores"], &["t"])
        .node("TopK", &["t", "k"], &["best", "places"])
        .output("y", DType::F32, "N,1,?,?")
        .output("chosen", DType::I64, "?,3")
        .output("best", DType::F32, "1,1,2")
        .output("places", DType::I64, "1,1,2");
    let model = parse(graph);
    let converted = convert(&model, &Fp16Options::default());
    let kept: Vec<&str> = converted.report.kept.iter().map(|kept| kept.op.as_str()).collect();
    assert_eq!(kept, ["If", "NonMaxSuppression"]);
    let types = converted.model.edit().unwrap().types();
    for (name, element) in [
        ("g", ElementType::FLOAT16),
        ("larger", ElementType::FLOAT),
        ("factors", ElementType::FLOAT),
        // The branches read it by name.
        ("u", ElementType::FLOAT),
        ("y", ElementType::FLOAT),
    ] {
        assert_eq!(types[name], element, "{name}");
    }
    let inputs = [noise(&[1, 1, 3, 5], 1), noise(&[1, 6, 4], 2), noise(&[1, 1, 6], 3)];
    for backend in backends() {
        let (before, after) = (run(&*backend, &model, &inputs), run(&*backend, &converted.model, &inputs));
        assert_eq!(before[0].shape(), [1, 1, 12, 20]);
        assert!(difference(&before[0], &after[0]) < 1e-3, "{}", backend.name());
        assert_eq!(before[1], after[1], "{}", backend.name());
        assert_eq!(before[3], after[3], "{}", backend.name());
    }
}

#[test]
fn an_unknown_operator_keeps_what_follows_it_single() {
    let graph = GraphBuilder::new("unknown")
        .input("x", DType::F32, "N,4")
        .node("Exp", &["x"], &["a"])
        .node("Frobnicate", &["a"], &["b"])
        .node("Relu", &["b"], &["c"])
        .output("c", DType::F32, "N,4");
    let converted = convert(&parse(graph), &Fp16Options::default());
    let kept = &converted.report.kept;
    assert_eq!(kept[0].because, KeptBecause::Operator);
    assert_eq!(kept[1].because, KeptBecause::UnknownType { value: "b".to_owned() });
    assert_eq!(ops(&converted.model), ["Cast", "Exp", "Cast", "Frobnicate", "Relu"]);
}

#[test]
fn casts_that_do_nothing_are_removed() {
    // Half converted by somebody else.
    let graph = GraphBuilder::new("casts")
        .input("x", DType::F32, "N,4")
        .node_with("Cast", &["x"], &["half"], &[("to", Attribute::Int(10))])
        .node("Exp", &["half"], &["a"])
        .node_with("Cast", &["a"], &["wide"], &[("to", Attribute::Int(1))])
        .node("Relu", &["wide"], &["b"])
        .node_with("Cast", &["b"], &["again"], &[("to", Attribute::Int(10))])
        .node("Neg", &["again"], &["c"])
        .node_with("Cast", &["c"], &["y"], &[("to", Attribute::Int(1))])
        .output("y", DType::F32, "N,4");
    let model = parse(graph);
    let converted = convert(&model, &Fp16Options::default());
    assert_eq!(ops(&converted.model), ["Cast", "Exp", "Relu", "Neg", "Cast"]);
}

#[test]
fn the_emulation_rounds_as_half_precision_does() {
    let graph = GraphBuilder::new("round")
        .input("x", DType::F32, "N,1")
        .node_with("Cast", &["x"], &["half"], &[("to", Attribute::Int(10))])
        .node_with("Cast", &["half"], &["y"], &[("to", Attribute::Int(1))])
        .output("y", DType::F32, "N,1");
    let model = emulate(&parse(graph)).unwrap();
    // Every f16 and its neighbours in f32, the middles between two, and what is far outside.
    let mut numbers = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e38, f32::MIN_POSITIVE, 0.0, -0.0];
    for bits in 0..=u16::MAX {
        let number = f16::from_bits(bits).to_f32();
        let next = f16::from_bits(bits.wrapping_add(1)).to_f32();
        numbers.extend([number, number * (1.0 + f32::EPSILON), (number + next) / 2.0]);
    }
    numbers.extend([65519.996, 65520.0, -65520.0]);
    let count = numbers.len();
    let input = Tensor::of(vec![count, 1], numbers.clone()).unwrap();
    for backend in backends() {
        let rounded = run(&*backend, &model, std::slice::from_ref(&input)).swap_remove(0);
        for (number, got) in numbers.iter().zip(floats(&rounded)) {
            let expected = f16::from_f32(*number).to_f32();
            assert!(
                *got == expected || (got.is_nan() && expected.is_nan()),
                "{}: {number:e} became {got:e}, not {expected:e}",
                backend.name()
            );
        }
    }
}

#[test]
fn real_models_become_half_and_answer_alike() {
    for (name, shape) in [("efficientnet-lite0.onnx", [1, 3, 224, 224]), ("centerface.onnx", [1, 3, 64, 96])] {
        let Some(model) = real_model(name) else { return };
        let converted = convert(&model, &Fp16Options::default());
        assert_eq!(converted.report.kept, [], "{name}");
        assert_eq!(converted.report.casts, 1 + model.graph().output.len(), "{name}");
        let emulated = emulate(&converted.model).unwrap();
        let input = noise(&shape, 5);
        for backend in backends() {
            let before = run(&*backend, &model, std::slice::from_ref(&input));
            let after = run(&*backend, &converted.model, std::slice::from_ref(&input));
            let rounded = run(&*backend, &emulated, std::slice::from_ref(&input));
            for ((before, after), rounded) in before.iter().zip(&after).zip(&rounded) {
                assert!(difference(before, after) < 0.02, "{name} on {}", backend.name());
                assert!(difference(before, rounded) < 0.05, "{name} on {}", backend.name());
            }
        }
    }
}
