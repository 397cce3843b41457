//! Damaged models never panic, whatever is asked of them. More inputs:
//! `BOLERO_RANDOM_ITERATIONS=1000000 cargo test -p revoada-bundle --test fuzz_onnx`, or `cargo bolero`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::collections::BTreeMap;

use revoada_bundle::onnx::{Attribute, GraphBuilder, OnnxModel};
use revoada_core::{DType, Tensor, TensorRef};

/// Every kind of operator that has a rule, around constants that shapes are made of.
fn seed() -> Vec<u8> {
    let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
    let constant = Tensor::of(vec![2], vec![1i64, -1]).unwrap();
    GraphBuilder::new("seed")
        .input("x", DType::F32, "N,3,8,8")
        .initializer("w", TensorRef::of(&[4, 3, 3, 3], &[0f32; 108]).unwrap())
        .initializer("b", TensorRef::of(&[4], &[0f32; 4]).unwrap())
        .initializer("i", TensorRef::of(&[1], &[0i64]).unwrap())
        .initializer("j", TensorRef::of(&[1], &[2i64]).unwrap())
        .node_with("Conv", &["x", "w", "b"], &["c"], &[("pads", ints(&[1, 1, 1, 1])), ("strides", ints(&[1, 1]))])
        .node("Relu", &["c"], &["r"])
        .node_with("MaxPool", &["r"], &["p"], &[("kernel_shape", ints(&[2, 2])), ("ceil_mode", Attribute::Int(1))])
        .node("Shape", &["p"], &["s"])
        .node("Slice", &["s", "i", "j"], &["outer"])
        .node_with("Gather", &["s", "j"], &["side"], &[("axis", Attribute::Int(0))])
        .node("Mul", &["side", "j"], &["double"])
        .node_with("Concat", &["outer", "double", "double"], &["sizes"], &[("axis", Attribute::Int(0))])
        .node_with("Resize", &["p", "", "", "sizes"], &["u"], &[("mode", Attribute::String("linear".into()))])
        .node_with("Constant", &[], &["k"], &[("value", Attribute::Tensor(constant))])
        .node("Reshape", &["u", "k"], &["f"])
        .node_with("Transpose", &["f"], &["t"], &[("perm", ints(&[1, 0]))])
        .node("MatMul", &["f", "t"], &["m"])
        .node_with("Split", &["m"], &["m1"], &[("axis", Attribute::Int(0))])
        .node_with("Unsqueeze", &["m1", "i"], &["y"], &[])
        .node_with("ReduceMean", &["y"], &["z"], &[("axes", ints(&[-1]))])
        .node("ConstantOfShape", &["sizes"], &["e"])
        .node("Expand", &["z", "s"], &["q"])
        .node("Tile", &["q", "s"], &["v"])
        .node("Range", &["i", "j", "j"], &["g"])
        .output("y", DType::F32, "1,N,N")
        .output("v", DType::F32, "?")
        .encode()
}

fn look_at(bytes: Vec<u8>) {
    let model = match OnnxModel::parse(bytes) {
        Ok(model) => model,
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "{error}");
            return;
        }
    };
    let _ = (model.inputs(), model.outputs(), model.opsets(), model.producer());
    let _ = model.summary(&BTreeMap::new());
    let _ = model.summary(&[("x".to_owned(), vec![2, 3, 8, 8])].into());
    if let Ok(mut graph) = model.edit() {
        let _ = (graph.types(), graph.uses(), graph.lift(19));
        graph.remove_unused();
        let _ = graph.finish();
    }
    let written = model.encode();
    // What cannot be compared with itself (NaN) is compared as bytes.
    assert_eq!(OnnxModel::parse(written.clone()).expect("what is written is read").encode(), written);
}

#[test]
fn a_damaged_model_is_refused_or_looked_at_but_never_panics() {
    let seed = seed();
    look_at(seed.clone());
    // Places, what happens there, and a byte for it.
    bolero::check!().with_type::<Vec<(u16, u8, u8)>>().with_iterations(20_000).with_max_len(64).for_each(|edits| {
        let mut bytes = seed.clone();
        // More edits than this leave nothing that gets past the decoder.
        for (place, edit, byte) in edits.iter().take(3) {
            let place = usize::from(*place) % bytes.len().max(1);
            match edit % 16 {
                0 => bytes.truncate(place),
                1 if !bytes.is_empty() => drop(bytes.remove(place)),
                2 => bytes.insert(place, *byte),
                3 => {
                    // A run of the file once more.
                    let end = (place + usize::from(*byte)).min(bytes.len());
                    let run = bytes[place..end].to_vec();
                    bytes.splice(place..place, run);
                }
                4 if !bytes.is_empty() => bytes[place] ^= 1 << (byte % 8),
                _ if !bytes.is_empty() => bytes[place] = *byte,
                _ => {}
            }
        }
        look_at(bytes);
    });
}

#[test]
fn noise_is_refused() {
    bolero::check!().with_iterations(20_000).for_each(|noise: &[u8]| look_at(noise.to_vec()));
}

/// Well-formed messages that say senseless things reach every rule of shape inference.
#[test]
fn a_senseless_graph_is_looked_at_but_never_panics() {
    let seed = OnnxModel::parse(seed()).expect("the seed is a model").proto().clone();
    let operators: Vec<Option<String>> = seed.graph.iter().flat_map(|g| &g.node).map(|n| n.op_type.clone()).collect();
    let more =
        ["ConvTranspose", "Gemm", "GatherND", "Flatten", "Squeeze", "Pad", "TopK", "DepthToSpace", "LSTM", "Where"];
    let operators = [operators, more.map(|op| Some(op.to_owned())).to_vec()].concat();
    // Sizes at which arithmetic breaks.
    let numbers = [0, 1, 2, -1, 3, 1 << 31, i64::MAX, i64::MIN, 1 << 62, -(1 << 33), 7, 255];
    bolero::check!().with_type::<Vec<[u8; 4]>>().with_iterations(8_000).with_max_len(256).for_each(|edits| {
        let mut model = seed.clone();
        let graph = model.graph.as_mut().expect("the seed has a graph");
        for [what, first, second, third] in edits.iter().take(16).map(|edit| edit.map(usize::from)) {
            let number = numbers[third % numbers.len()];
            let values: Vec<String> = graph.node.iter().flat_map(|node| node.output.clone()).collect();
            let nodes = graph.node.len();
            let node = &mut graph.node[first % nodes];
            match what % 8 {
                0 => node.op_type.clone_from(&operators[second % operators.len()]),
                1 if !node.input.is_empty() => {
                    let inputs = node.input.len();
                    node.input[second % inputs].clone_from(&values[third % values.len()]);
                }
                2 => node.input.push(values[second % values.len()].clone()),
                3 => drop(node.input.pop()),
                4 if !node.attribute.is_empty() => {
                    let attributes = node.attribute.len();
                    let attribute = &mut node.attribute[second % attributes];
                    attribute.i = Some(number);
                    if let Some(int) = attribute.ints.get_mut(second / 8 % 4) {
                        *int = number;
                    } else {
                        attribute.ints.push(number);
                    }
                }
                5 => {
                    let count = graph.initializer.len();
                    let tensor = &mut graph.initializer[first % count];
                    match second % 3 {
                        0 => tensor.raw_data = Some(number.to_le_bytes().to_vec().into()),
                        1 => tensor.dims = vec![number; second % 5],
                        _ => tensor.data_type = Some(third as i32 % 30 - 1),
                    }
                }
                6 => graph.node.swap(first % nodes, second % nodes),
                _ => {
                    let copy = graph.node[second % nodes].attribute.clone();
                    graph.node[first % nodes].attribute.extend(copy);
                }
            }
        }
        look_at(prost::Message::encode_to_vec(&model));
    });
}
