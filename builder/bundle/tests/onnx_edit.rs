//! A graph taken apart, rewritten and put together again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::path::Path;

use revoada_bundle::onnx::proto::{NodeProto, TensorProto};
use revoada_bundle::onnx::{Attribute, ElementType, GraphBuilder, OnnxModel, Use};
use revoada_core::{DType, Tensor, TensorRef};

fn ints(values: &[i64]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

fn parse(graph: GraphBuilder) -> OnnxModel {
    OnnxModel::parse(graph.encode()).unwrap()
}

/// A convolution whose weight is also an input, as old files have it, and a branch that reads it.
fn branching() -> GraphBuilder {
    let body = |op: &str| {
        let body = GraphBuilder::new(op).node(op, &["c"], &[&format!("{op}_c")]);
        Attribute::Graph(body.output(&format!("{op}_c"), DType::F32, "N,2,3,3").graph())
    };
    let truth = Tensor::of(vec![], vec![true]).unwrap();
    GraphBuilder::new("branching")
        .input("x", DType::F32, "N,1,3,3")
        .input("w", DType::F32, "2,1,1,1")
        .initializer("w", TensorRef::of(&[2, 1, 1, 1], &[1f32, 2.0]).unwrap())
        .initializer("forgotten", TensorRef::of(&[1], &[1f32]).unwrap())
        .node_with("Conv", &["x", "w"], &["c"], &[])
        .node_with("Constant", &[], &["truth"], &[("value", Attribute::Tensor(truth))])
        .node_with("If", &["truth"], &["y"], &[("then_branch", body("Relu")), ("else_branch", body("Neg"))])
        .node("Abs", &["x"], &["unread"])
        .output("y", DType::F32, "N,2,3,3")
}

#[test]
fn weights_and_constants_become_initialisers_and_the_interface_stays() {
    let graph = parse(branching()).edit().unwrap();
    assert_eq!(graph.inputs().iter().map(|info| info.name()).collect::<Vec<_>>(), ["x"]);
    assert_eq!(graph.tensor("truth"), Some(Tensor::of(vec![], vec![true]).unwrap()));
    assert_eq!(graph.tensor("w"), Some(Tensor::of(vec![2, 1, 1, 1], vec![1f32, 2.0]).unwrap()));
    assert_eq!(graph.nodes().len(), 3);
    // A constant that is an output is left where it is.
    let tensor = Tensor::of(vec![1], vec![1f32]).unwrap();
    let output = GraphBuilder::new("k").node_with("Constant", &[], &["k"], &[("value", Attribute::Tensor(tensor))]);
    assert_eq!(parse(output.output("k", DType::F32, "1")).edit().unwrap().nodes().len(), 1);
}

#[test]
fn external_data_is_read_into_an_edited_model() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/model-with-external-data/model.onnx");
    let model = OnnxModel::read(&path).unwrap();
    let name = model.graph().initializer.iter().find(|tensor| tensor.data_location == Some(TensorProto::EXTERNAL));
    let name = name.expect("the model keeps a weight beside it").name().to_owned();
    let edited = model.edit().unwrap();
    let tensor = edited.tensor(&name).unwrap();
    let bytes = std::fs::read(path.with_file_name("weights.bin")).unwrap();
    let raw = edited.initializer(&name).unwrap().raw_data.clone().unwrap();
    assert!(bytes.windows(raw.len()).any(|window| window == raw), "{tensor:?}");
    let written = OnnxModel::parse(edited.finish().unwrap().encode()).unwrap();
    assert!(written.graph().initializer.iter().all(|tensor| tensor.external_data.is_empty()));
}

#[test]
fn producers_and_consumers_are_found_in_nested_graphs_too() {
    let graph = parse(branching()).edit().unwrap();
    let uses = graph.uses();
    assert_eq!(uses.producer("c"), Some(0));
    assert_eq!(uses.producer("x"), None);
    assert_eq!(uses.consumers("c"), [Use { node: 1, input: None }]);
    assert_eq!(uses.consumers("x"), [Use { node: 0, input: Some(0) }, Use { node: 2, input: Some(0) }]);
    assert_eq!(uses.consumers("w"), [Use { node: 0, input: Some(1) }]);
}

#[test]
fn fresh_names_are_new_everywhere() {
    let mut graph = parse(branching()).edit().unwrap();
    assert_eq!(graph.fresh("new"), "new");
    assert_eq!(graph.fresh("new"), "new_1");
    // Taken inside a branch.
    assert_eq!(graph.fresh("Relu_c"), "Relu_c_1");
    assert_eq!(graph.fresh(""), "_1");
}

#[test]
fn what_no_output_needs_is_removed_and_what_a_branch_reads_is_not() {
    let mut graph = parse(branching()).edit().unwrap();
    graph.remove_unused();
    assert_eq!(graph.nodes().iter().map(|node| node.op_type()).collect::<Vec<_>>(), ["Conv", "If"]);
    assert_eq!(graph.initializers().map(|(name, _)| name).collect::<Vec<_>>(), ["truth", "w"]);
}

#[test]
fn a_finished_graph_is_sorted_and_complete() {
    let mut graph = parse(branching()).edit().unwrap();
    graph.nodes_mut().reverse();
    let model = graph.finish().unwrap();
    let order: Vec<&str> = model.graph().node.iter().map(|node| node.op_type()).collect();
    assert_eq!(order, ["Abs", "Conv", "If"]);

    let refuse = |change: &dyn Fn(&mut Vec<NodeProto>)| {
        let mut graph = parse(branching()).edit().unwrap();
        change(graph.nodes_mut());
        graph.finish().unwrap_err().to_string()
    };
    let missing = refuse(&|nodes| nodes[0].input[0] = "nowhere".to_owned());
    assert_eq!(missing, "the model in memory does not make value `nowhere`, which node `Conv_0` needs");
    let twice = refuse(&|nodes| nodes[2].output[0] = "c".to_owned());
    assert_eq!(twice, "the model in memory makes value `c` more than once");
    let cycle = refuse(&|nodes| nodes[0].input[0] = "y".to_owned());
    assert_eq!(cycle, "the model in memory has a cycle through node `Conv_0`");
    let output = refuse(&|nodes| drop(nodes.remove(1)));
    assert_eq!(output, "the model in memory does not make value `y`, which an output needs");
}

#[test]
fn types_are_known_without_shapes() {
    let graph = GraphBuilder::new("types")
        .input("x", DType::F16, "N,?")
        .initializer("k", TensorRef::of(&[1], &[1i64]).unwrap())
        .initializer("scale", TensorRef::of(&[], &[1f32]).unwrap())
        .initializer("zero", TensorRef::of(&[], &[0i8]).unwrap())
        .node("Softmax", &["x"], &["s"])
        .node("TopK", &["s", "k"], &["best", "places"])
        .node_with("Cast", &["best"], &["wide"], &[("to", Attribute::Int(1))])
        .node("QuantizeLinear", &["wide", "scale", "zero"], &["q"])
        .node("DequantizeLinear", &["q", "scale", "zero"], &["d"])
        .node("Greater", &["d", "wide"], &["more"])
        .node("Where", &["more", "d", "wide"], &["y"])
        .node("Frobnicate", &["y"], &["z"])
        .output("y", DType::F32, "N,?");
    let types = parse(graph).edit().unwrap().types();
    let expected = [
        ("s", ElementType::FLOAT16),
        ("places", ElementType::INT64),
        ("wide", ElementType::FLOAT),
        ("q", ElementType::INT8),
        ("d", ElementType::FLOAT),
        ("more", ElementType::BOOL),
        ("y", ElementType::FLOAT),
    ];
    for (name, element) in expected {
        assert_eq!(types.get(name), Some(&element), "{name}");
    }
    assert_eq!(types.get("z"), None);
}

#[test]
fn shapes_are_known_for_given_inputs() {
    let model = parse(branching());
    let shapes = model.value_shapes(&[("x".to_owned(), vec![5, 1, 3, 3])].into()).unwrap();
    assert_eq!(shapes["c"], (ElementType::FLOAT, vec![5, 2, 3, 3]));
}

#[test]
fn attributes_move_to_inputs_where_a_later_set_has_them_there() {
    let graph = GraphBuilder::new("old")
        .opset(9)
        .input("x", DType::F32, "1,2,4,4")
        .node_with("Slice", &["x"], &["s"], &[("starts", ints(&[1])), ("ends", ints(&[3])), ("axes", ints(&[2]))])
        .node_with("Clip", &["s"], &["c"], &[("max", Attribute::Float(6.0))])
        .node_with("ReduceMean", &["c"], &["m"], &[("axes", ints(&[1])), ("keepdims", Attribute::Int(0))])
        .node_with("Split", &["m"], &["a", "b"], &[("axis", Attribute::Int(1))])
        .node_with("Upsample", &["x"], &["u"], &[("scales", Attribute::Floats(vec![1.0, 1.0, 2.0, 2.0]))])
        .output("a", DType::F32, "1,1,4")
        .output("b", DType::F32, "1,1,4")
        .output("u", DType::F32, "1,2,8,8");
    let mut graph = parse(graph).edit().unwrap();
    graph.lift(19).unwrap();
    assert_eq!(graph.opset(), 19);
    let node = |op: &str| graph.nodes().iter().find(|node| node.op_type() == op).unwrap();
    let list = |op: &str, input: usize| graph.tensor(node(op).input_name(input).unwrap());
    assert_eq!(list("Slice", 1), Some(Tensor::of(vec![1], vec![1i64]).unwrap()));
    assert_eq!(list("Slice", 3), Some(Tensor::of(vec![1], vec![2i64]).unwrap()));
    assert_eq!(node("Clip").input_name(1), None);
    assert_eq!(list("Clip", 2), Some(Tensor::of(vec![], vec![6f32]).unwrap()));
    assert_eq!(list("ReduceMean", 1), Some(Tensor::of(vec![1], vec![1i64]).unwrap()));
    assert_eq!(node("Split").int("num_outputs"), Some(2));
    assert_eq!(node("Resize").string("coordinate_transformation_mode"), Some("asymmetric"));
    let model = graph.finish().unwrap();
    assert_eq!(model.proto().ir_version(), 9);
    let shapes = model.value_shapes(&Default::default()).unwrap();
    assert_eq!(shapes["a"].1, [1, 1, 4]);
    assert_eq!(shapes["u"].1, [1, 2, 8, 8]);
}

#[test]
fn a_lift_that_is_not_known_is_refused_and_changes_nothing() {
    let graph = GraphBuilder::new("unknown").opset(11).input("x", DType::F32, "1,2").node("Frobnicate", &["x"], &["y"]);
    let mut graph = parse(graph.output("y", DType::F32, "1,2")).edit().unwrap();
    let error = graph.lift(13).unwrap_err().to_string();
    let expected = "the model in memory cannot be lifted from operator set 11 to 13: \
                    the changes of operator `Frobnicate` are not known here";
    assert_eq!(error, expected);
    assert_eq!(graph.opset(), 11);
    assert_eq!(graph.nodes().len(), 1);
    graph.lift(11).unwrap();
}
