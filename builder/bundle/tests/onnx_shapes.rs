//! What `summary` knows of shapes and arithmetic, operator by operator.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::collections::BTreeMap;

use revoada_bundle::onnx::{Attribute, CostSummary, GraphBuilder, OnnxModel, Summary};
use revoada_core::{DType, TensorRef};

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

fn text(value: &str) -> Attribute {
    Attribute::String(value.to_owned())
}

fn summarize(graph: GraphBuilder, shapes: &[(&str, &[usize])]) -> Summary {
    let shapes = shapes.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    OnnxModel::parse(graph.encode()).unwrap().summary(&shapes).unwrap()
}

/// One node from inputs `a`, `b`, `c` of fixed shapes to `y`, whose declared shape says nothing.
struct Case {
    op: &'static str,
    opset: i64,
    inputs: &'static [&'static str],
    attributes: Vec<(&'static str, Attribute)>,
    /// An integer constant, the last input.
    list: Option<Vec<i64>>,
    expected: Expected,
}

enum Expected {
    /// Shape, multiply-accumulates, FLOPs.
    Known(&'static [usize], u64, u64),
    Unknown(&'static str),
}
use Expected::{Known, Unknown};

fn case(op: &'static str, inputs: &'static [&'static str], expected: Expected) -> Case {
    Case { op, opset: 17, inputs, attributes: Vec::new(), list: None, expected }
}

impl Case {
    fn with(mut self, name: &'static str, value: Attribute) -> Self {
        self.attributes.push((name, value));
        self
    }

    fn list(mut self, list: &[i64]) -> Self {
        self.list = Some(list.to_vec());
        self
    }

    fn opset(mut self, opset: i64) -> Self {
        self.opset = opset;
        self
    }

    fn run(&self) -> Summary {
        let names = ["a", "b", "c", "d"];
        let mut graph = GraphBuilder::new("case").opset(self.opset);
        let mut inputs = Vec::new();
        for (name, dims) in names.iter().zip(self.inputs) {
            // An input without dimensions is one that the node leaves out.
            inputs.push(if dims.is_empty() { "" } else { name });
            if !dims.is_empty() {
                graph = graph.input(name, DType::F32, dims);
            }
        }
        if let Some(list) = &self.list {
            graph = graph.initializer("list", TensorRef::of(&[list.len()], list).unwrap());
            inputs.push("list");
        }
        let attributes: Vec<(&str, Attribute)> = self.attributes.clone();
        let graph = graph.node_with(self.op, &inputs, &["y"], &attributes).output("y", DType::F32, "?");
        summarize(graph, &[])
    }
}

#[test]
fn every_operator_has_the_shape_and_cost_that_its_definition_says() {
    let cases = [
        // 112·112·64 outputs of 7·7·3 products: the first layer of ResNet-50.
        case("Conv", &["1,3,224,224", "64,3,7,7"], Known(&[1, 64, 112, 112], 118_013_952, 236_027_904))
            .with("strides", ints(&[2, 2]))
            .with("pads", ints(&[3, 3, 3, 3])),
        case("Conv", &["2,8,5,5", "8,1,3,3", "8"], Known(&[2, 8, 3, 3], 1296, 2736)).with("group", Attribute::Int(8)),
        case("Conv", &["1,1,7", "1,1,3"], Known(&[1, 1, 3], 9, 18)).with("dilations", ints(&[2])),
        case("Conv", &["1,1,5,5", "1,1,3,3"], Known(&[1, 1, 3, 3], 81, 162))
            .with("strides", ints(&[2, 2]))
            .with("auto_pad", text("SAME_UPPER")),
        case("Conv", &["1,3,5,5", "4,2,3,3"], Unknown("its inputs do not fit together")),
        case("Conv", &["1,1,2,2", "1,1,3,3"], Unknown("its inputs do not fit together")),
        case("ConvTranspose", &["1,4,3,3", "4,2,2,2"], Known(&[1, 2, 6, 6], 288, 576)).with("strides", ints(&[2, 2])),
        case("ConvTranspose", &["1,1,3,3", "1,1,3,3"], Known(&[1, 1, 6, 6], 81, 162))
            .with("strides", ints(&[2, 2]))
            .with("pads", ints(&[1, 1, 1, 1]))
            .with("output_padding", ints(&[1, 1])),
        case("Gemm", &["4,8", "16,8", "16"], Known(&[4, 16], 512, 1088)).with("transB", Attribute::Int(1)),
        case("Gemm", &["4,8", "16,8"], Unknown("its inputs do not fit together")),
        case("MatMul", &["2,1,4,8", "3,8,5"], Known(&[2, 3, 4, 5], 960, 1920)),
        case("MatMul", &["8", "8"], Known(&[], 8, 16)),
        case("LSTM", &["5,2,3", "1,16,3", "1,16,4"], Known(&[5, 1, 2, 4], 1120, 2240)),
        case("MaxPool", &["1,64,112,112"], Known(&[1, 64, 56, 56], 0, 1_806_336))
            .with("kernel_shape", ints(&[3, 3]))
            .with("strides", ints(&[2, 2]))
            .with("pads", ints(&[1, 1, 1, 1])),
        case("MaxPool", &["1,1,6,6"], Known(&[1, 1, 3, 3], 0, 81))
            .with("kernel_shape", ints(&[3, 3]))
            .with("strides", ints(&[2, 2]))
            .with("ceil_mode", Attribute::Int(1)),
        // A third window would start in the padding.
        case("AveragePool", &["1,1,3"], Known(&[1, 1, 2], 0, 4))
            .with("kernel_shape", ints(&[2]))
            .with("strides", ints(&[2]))
            .with("pads", ints(&[1, 1]))
            .with("ceil_mode", Attribute::Int(1)),
        case("GlobalAveragePool", &["2,3,4,5"], Known(&[2, 3, 1, 1], 0, 120)),
        case("Relu", &["2,3"], Known(&[2, 3], 0, 6)),
        case("Add", &["2,1,4", "3,1"], Known(&[2, 3, 4], 0, 24)),
        case("Add", &["2,3", "4"], Unknown("its inputs do not fit together")),
        case("Add", &["2,3,4", "3"], Known(&[2, 3, 4], 0, 24)).opset(6).with("broadcast", Attribute::Int(1)),
        case("Sum", &["2,3", "3", "1"], Known(&[2, 3], 0, 12)),
        case("Softmax", &["2,10"], Known(&[2, 10], 0, 100)),
        case("BatchNormalization", &["1,2,2,2", "2", "2", "2"], Known(&[1, 2, 2, 2], 0, 16)),
        case("ReduceMean", &["2,3,4"], Known(&[2, 1, 1], 0, 24)).with("axes", ints(&[1, -1])),
        case("ReduceSum", &["2,3,4"], Known(&[2, 4], 0, 24)).list(&[1]).with("keepdims", Attribute::Int(0)),
        case("ReduceMax", &["2,3"], Known(&[1, 1], 0, 6)),
        case("ArgMax", &["1,21,8,8"], Known(&[1, 1, 8, 8], 0, 1344)).with("axis", Attribute::Int(1)),
        case("TopK", &["2,10"], Known(&[2, 3], 0, 20)).list(&[3]),
        case("Resize", &["1,2,4,4", "", ""], Known(&[1, 2, 8, 8], 0, 0)).list(&[1, 2, 8, 8]),
        case("Upsample", &["1,2,4,4"], Known(&[1, 2, 8, 8], 0, 896))
            .opset(7)
            .with("scales", Attribute::Floats(vec![1.0, 1.0, 2.0, 2.0]))
            .with("mode", text("linear")),
        case("Pad", &["1,1,4,4"], Known(&[1, 1, 7, 5], 0, 0)).list(&[0, 0, 1, 0, 0, 0, 2, 1]),
        case("DepthToSpace", &["1,8,2,3"], Known(&[1, 2, 4, 6], 0, 0)).with("blocksize", Attribute::Int(2)),
        case("SpaceToDepth", &["1,2,4,6"], Known(&[1, 8, 2, 3], 0, 0)).with("blocksize", Attribute::Int(2)),
        case("DepthToSpace", &["1,7,2,3"], Unknown("its inputs do not fit together"))
            .with("blocksize", Attribute::Int(2)),
        case("GridSample", &["1,2,4,4", "1,3,5,2"], Known(&[1, 2, 3, 5], 0, 210)),
        case("Reshape", &["2,3,4"], Known(&[2, 12], 0, 0)).list(&[0, -1]),
        case("Reshape", &["2,3,4"], Unknown("its inputs do not fit together")).list(&[5, -1]),
        case("Reshape", &["2,3", "2"], Unknown("the shape of an input is not known")),
        case("Flatten", &["2,3,4"], Known(&[2, 12], 0, 0)),
        case("Flatten", &["2,3,4"], Known(&[6, 4], 0, 0)).with("axis", Attribute::Int(-1)),
        case("Transpose", &["2,3,4"], Known(&[2, 4, 3], 0, 0)).with("perm", ints(&[0, 2, 1])),
        case("Transpose", &["2,3,4"], Known(&[4, 3, 2], 0, 0)),
        case("Transpose", &["2,3"], Unknown("its inputs do not fit together")).with("perm", ints(&[0, 0])),
        case("Concat", &["2,3", "2,5"], Known(&[2, 8], 0, 0)).with("axis", Attribute::Int(-1)),
        case("Concat", &["2,3", "3,5"], Unknown("its inputs do not fit together")).with("axis", Attribute::Int(1)),
        case("Split", &["2,7"], Known(&[2, 3], 0, 0)).list(&[3, 4]).with("axis", Attribute::Int(1)),
        case("Slice", &["2,10"], Known(&[2, 3], 0, 0))
            .opset(9)
            .with("starts", ints(&[-4]))
            .with("ends", ints(&[-1]))
            .with("axes", ints(&[1])),
        case("Slice", &["10,4"], Known(&[5, 4], 0, 0))
            .with("starts", ints(&[9]))
            .with("ends", ints(&[i64::MIN]))
            .with("steps", ints(&[-2])),
        case("Squeeze", &["1,3,1"], Known(&[3], 0, 0)),
        case("Squeeze", &["1,3,1"], Known(&[1, 3], 0, 0)).list(&[-1]),
        case("Unsqueeze", &["3"], Known(&[1, 3, 1], 0, 0)).list(&[0, -1]),
        case("Gather", &["5,4"], Known(&[5, 2], 0, 0)).list(&[0, 2]).with("axis", Attribute::Int(1)),
        case("Expand", &["3,1"], Known(&[2, 3, 4], 0, 0)).list(&[2, 1, 4]),
        case("Tile", &["2,3"], Known(&[4, 9], 0, 0)).list(&[2, 3]),
        case("NonZero", &["3"], Unknown("its cost is not known here")),
        case("FlashyNewOp", &["3"], Unknown("its cost is not known here")),
    ];
    let mut failures = Vec::new();
    for case in cases {
        let summary = case.run();
        let got = (summary.outputs[0].shape.clone(), &summary.cost);
        let wanted = match case.expected {
            Known(shape, macs, flops) => (Some(shape.to_vec()), CostSummary { macs, flops, uncounted: Vec::new() }),
            Unknown(reason) => {
                let op = case.op.to_owned();
                let uncounted = vec![revoada_bundle::onnx::Uncounted { op, nodes: 1, reason }];
                (None, CostSummary { macs: 0, flops: 0, uncounted })
            }
        };
        if got != (wanted.0.clone(), &wanted.1) {
            failures.push(format!("{} {:?}: got {got:?}, wanted {wanted:?}", case.op, case.inputs));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// `x.view(x.size(0), -1)` and an upsampling to twice the size of another tensor, as PyTorch writes them.
#[test]
fn shape_arithmetic_of_exporters_is_computed_and_free() {
    let scalar = TensorRef::of(&[], &[0i64]).unwrap();
    let graph = GraphBuilder::new("exported")
        .input("x", DType::F32, "N,3,H,W")
        .initializer("zero", scalar)
        .initializer("axis", TensorRef::of(&[1], &[0i64]).unwrap())
        .initializer("rest", TensorRef::of(&[1], &[-1i64]).unwrap())
        .initializer("two", TensorRef::of(&[1], &[2i64]).unwrap())
        .initializer("four", TensorRef::of(&[1], &[4i64]).unwrap())
        .node("Shape", &["x"], &["shape"])
        .node_with("Gather", &["shape", "zero"], &["batch"], &[("axis", Attribute::Int(0))])
        .node("Unsqueeze", &["batch", "axis"], &["batches"])
        .node_with("Concat", &["batches", "rest"], &["flat_shape"], &[("axis", Attribute::Int(0))])
        .node("Reshape", &["x", "flat_shape"], &["flat"])
        .node("Slice", &["shape", "two", "four"], &["sides"])
        .node_with("Cast", &["sides"], &["float_sides"], &[("to", Attribute::Int(1))])
        .node_with("Cast", &["two"], &["float_two"], &[("to", Attribute::Int(1))])
        .node("Mul", &["float_sides", "float_two"], &["doubled"])
        .node("Floor", &["doubled"], &["floored"])
        .node_with("Cast", &["floored"], &["whole"], &[("to", Attribute::Int(7))])
        .node("Slice", &["shape", "axis", "two"], &["outer"])
        .node_with("Concat", &["outer", "whole"], &["sizes"], &[("axis", Attribute::Int(0))])
        .node_with("Resize", &["x", "", "", "sizes"], &["large"], &[("mode", Attribute::String("nearest".into()))])
        .output("flat", DType::F32, "?,?")
        .output("large", DType::F32, "?,?,?,?");
    let summary = summarize(graph.clone(), &[("x", &[2, 3, 10, 20])]);
    assert_eq!(summary.outputs[0].shape, Some(vec![2, 600]));
    assert_eq!(summary.outputs[1].shape, Some(vec![2, 3, 20, 40]));
    assert_eq!(summary.cost, CostSummary::default());

    // Without a size nothing is guessed.
    let summary = summarize(graph, &[]);
    assert_eq!(summary.outputs[0].shape, None);
    assert_eq!(summary.cost.uncounted.iter().map(|uncounted| uncounted.nodes).sum::<usize>(), 13);
}

#[test]
fn the_batch_multiplies_the_cost_and_wrong_shapes_are_refused() {
    let graph = GraphBuilder::new("linear")
        .input("x", DType::F32, "N,4")
        .initializer("w", TensorRef::of(&[4, 2], &[0f32; 8]).unwrap())
        .node("MatMul", &["x", "w"], &["y"])
        .output("y", DType::F32, "N,2");
    assert_eq!(summarize(graph.clone(), &[]).cost.macs, 8);
    assert_eq!(summarize(graph.clone(), &[("x", &[10, 4])]).cost.macs, 80);
    let model = OnnxModel::parse(graph.encode()).unwrap();
    let refuse = |name: &str, shape: &[usize]| {
        model.summary(&BTreeMap::from([(name.to_owned(), shape.to_vec())])).unwrap_err().to_string()
    };
    let cannot = "the model in memory has input `x f32[N,4]`, which cannot take the shape";
    assert_eq!(refuse("x", &[1, 5]), format!("{cannot} [1, 5]"));
    assert_eq!(refuse("x", &[4]), format!("{cannot} [4]"));
    assert_eq!(refuse("z", &[4]), "the model in memory has no tensor input or output `z`");
}

#[test]
fn declared_shapes_carry_past_an_unknown_operator() {
    let graph = GraphBuilder::new("custom")
        .input("x", DType::F32, "1,4")
        .node("Mystery", &["x"], &["m"])
        .node("Relu", &["m"], &["y"])
        .output("m", DType::F32, "1,16")
        .output("y", DType::F32, "?,?");
    let summary = summarize(graph, &[]);
    assert_eq!(summary.outputs[1].shape, Some(vec![1, 16]));
    assert_eq!((summary.cost.flops, summary.cost.uncounted.len()), (16, 1));
}

#[test]
fn a_summary_is_json() {
    let graph = GraphBuilder::new("tiny")
        .input("x", DType::F16, "N,2")
        .initializer("w", TensorRef::of(&[2], &[0f32; 2]).unwrap())
        .node("Mul", &["x", "w"], &["y"])
        .output("y", DType::F16, "N,2");
    let summary = summarize(graph, &[]);
    assert_eq!(summary.inputs[0].to_string(), "x f16[N,2]");
    assert_eq!((summary.parameters, summary.parameter_bytes), (2, 8));
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["ops"]["Mul"], 1);
    assert_eq!(json["inputs"][0]["dims"], serde_json::json!(["N", "2"]));
    assert_eq!(json["cost"]["flops"], 2);
    assert_eq!(json["opsets"]["ai.onnx"], 17);
}

/// ResNet-50 as torchvision defines it, whose documentation gives 4.09 billion multiply-accumulates
/// for a picture of 224×224. Weights are inputs here, so that nothing is stored.
#[test]
fn resnet_50_has_its_published_cost() {
    struct Net(GraphBuilder, usize);
    impl Net {
        fn conv(mut self, x: &str, sizes: [usize; 3], stride: i64) -> (Self, String) {
            let ([depth, kernels, side], pad) = (sizes, sizes[2] as i64 / 2);
            let (weight, output) = (format!("w{}", self.1), format!("c{}", self.1));
            let attributes = [("strides", ints(&[stride; 2])), ("pads", ints(&[pad; 4]))];
            self.0 = self.0.input(&weight, DType::F32, &format!("{kernels},{depth},{side},{side}"));
            self.0 = self.0.node_with("Conv", &[x, &weight], &[&output], &attributes);
            self.1 += 1;
            (self, output)
        }
    }
    let net = Net(GraphBuilder::new("resnet-50").input("x", DType::F32, "N,3,224,224"), 0);
    let (mut net, stem) = net.conv("x", [3, 64, 7], 2);
    let pool = [("kernel_shape", ints(&[3, 3])), ("strides", ints(&[2, 2])), ("pads", ints(&[1, 1, 1, 1]))];
    net.0 = net.0.node_with("MaxPool", &[&stem], &["p"], &pool);
    let (mut x, mut depth) = ("p".to_owned(), 64);
    for (blocks, width, stride) in [(3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)] {
        for block in 0..blocks {
            let stride = if block == 0 { stride } else { 1 };
            let (inner, shortcut, reduced, spread, expanded);
            (inner, reduced) = net.conv(&x, [depth, width, 1], 1);
            (net, spread) = inner.conv(&reduced, [width, width, 3], stride);
            (net, expanded) = net.conv(&spread, [width, 4 * width, 1], 1);
            (net, shortcut) = if block == 0 { net.conv(&x, [depth, 4 * width, 1], stride) } else { (net, x) };
            x = format!("{expanded}_sum");
            net.0 = net.0.node("Add", &[&expanded, &shortcut], &[&x]);
            depth = 4 * width;
        }
    }
    let graph = net.0.input("fc", DType::F32, "1000,2048").node("GlobalAveragePool", &[&x], &["g"]);
    let graph =
        graph.node("Flatten", &["g"], &["f"]).node_with("Gemm", &["f", "fc"], &["y"], &[("transB", Attribute::Int(1))]);
    let summary = summarize(graph.output("y", DType::F32, "N,1000"), &[]);
    assert_eq!(summary.outputs[0].shape, Some(vec![1, 1000]));
    assert_eq!(summary.cost.macs, 4_089_184_256);
    assert_eq!(summary.cost.uncounted, []);
}
