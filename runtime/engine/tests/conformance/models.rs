//! Small models, each for one thing that can go wrong.

use revoada_bundle::onnx::{Attribute, GraphBuilder};
use revoada_core::{DType, TensorRef};

/// `y` is `x` with its two dimensions exchanged, in any element type.
pub(crate) fn transpose(dtype: DType) -> Vec<u8> {
    GraphBuilder::new("transpose")
        .input("x", dtype, "N,3")
        .node_with("Transpose", &["x"], &["y"], &[("perm", Attribute::Ints(vec![1, 0]))])
        .output("y", dtype, "3,N")
        .encode()
}

/// `y` = `x` + 1, over rows of three.
pub(crate) fn increment(batch: &str) -> Vec<u8> {
    GraphBuilder::new("increment")
        .input("x", DType::F32, &format!("{batch},3"))
        .initializer("one", TensorRef::of(&[1], &[1f32]).unwrap())
        .node("Add", &["x", "one"], &["y"])
        .output("y", DType::F32, &format!("{batch},3"))
        .encode()
}

/// `y` is the mean of each channel: a picture's colour, where the picture has one.
pub(crate) fn channel_means(dims: &str, axes: [i64; 2]) -> Vec<u8> {
    GraphBuilder::new("means")
        .input("picture", DType::F32, dims)
        .node_with(
            "ReduceMean",
            &["picture"],
            &["y"],
            &[("axes", Attribute::Ints(axes.to_vec())), ("keepdims", Attribute::Int(0))],
        )
        .output("y", DType::F32, &format!("{},3", dims.split(',').next().unwrap()))
        .encode()
}

/// `y` is the picture itself, as f32.
pub(crate) fn picture(dtype: DType) -> Vec<u8> {
    GraphBuilder::new("picture")
        .input("picture", dtype, "N,3,4,4")
        .node_with("Cast", &["picture"], &["wide"], &[("to", Attribute::Int(1))])
        .initializer("one", TensorRef::of(&[1], &[1f32]).unwrap())
        .node("Mul", &["wide", "one"], &["y"])
        .output("y", DType::F32, "N,3,4,4")
        .encode()
}

/// `sum` = `a` + `b`, `scaled` = (`a` − `b`) · `factor`; `factor` has no batch.
pub(crate) fn sum_and_scaled_difference() -> Vec<u8> {
    GraphBuilder::new("two by two")
        .input("a", DType::F32, "N,2")
        .input("b", DType::F32, "N,2")
        .input("factor", DType::F32, "1")
        .node("Add", &["a", "b"], &["sum"])
        .node("Sub", &["a", "b"], &["difference"])
        .node("Mul", &["difference", "factor"], &["scaled"])
        .output("sum", DType::F32, "N,2")
        .output("scaled", DType::F32, "N,2")
        .encode()
}

/// One output depends on the input, the other does not.
pub(crate) fn increment_and_constant() -> Vec<u8> {
    GraphBuilder::new("constant")
        .input("x", DType::F32, "N,1")
        .initializer("one", TensorRef::of(&[1, 1], &[1f32]).unwrap())
        .initializer("fixed", TensorRef::of(&[2], &[5f32, 6.0]).unwrap())
        .node("Add", &["x", "one"], &["y"])
        .output("y", DType::F32, "N,1")
        .output("fixed", DType::F32, "2")
        .encode()
}

/// `y` lists where `x` is not zero: its length is known only afterwards.
pub(crate) fn nonzero() -> Vec<u8> {
    GraphBuilder::new("nonzero")
        .input("x", DType::F32, "N,4")
        .node("NonZero", &["x"], &["y"])
        .output("y", DType::I64, "2,K")
        .encode()
}

/// Convolution, pooling and a linear layer with made-up weights: a network in small. The kernel's
/// shape is written out, as exporters do: rten needs it, though ONNX lets it be inferred.
pub(crate) fn network() -> Vec<u8> {
    let mut state = 1u32;
    let mut weights = |count: usize| -> Vec<f32> {
        let mut next = || {
            // Numerical Recipes' generator; the weights only have to be unlike each other.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..count).map(|_| next()).collect()
    };
    let (filters, linear, bias) = (weights(8 * 3 * 9), weights(8 * 5), weights(5));
    GraphBuilder::new("network")
        .input("picture", DType::F32, "N,3,16,16")
        .initializer("filters", TensorRef::of(&[8, 3, 3, 3], &filters).unwrap())
        .initializer("linear", TensorRef::of(&[8, 5], &linear).unwrap())
        .initializer("bias", TensorRef::of(&[5], &bias).unwrap())
        .node_with(
            "Conv",
            &["picture", "filters"],
            &["c"],
            &[("pads", Attribute::Ints(vec![1, 1, 1, 1])), ("kernel_shape", Attribute::Ints(vec![3, 3]))],
        )
        .node("Relu", &["c"], &["r"])
        .node("GlobalAveragePool", &["r"], &["p"])
        .node("Flatten", &["p"], &["f"])
        .node("Gemm", &["f", "linear", "bias"], &["scores"])
        .output("scores", DType::F32, "N,5")
        .encode()
}

/// A batch of pictures for [`network`], each unlike the others.
pub(crate) fn network_input(rows: usize) -> Vec<f32> {
    (0..rows * 3 * 16 * 16).map(|index| (index as f32 * 0.37).sin()).collect()
}

/// Its first node is fine, its second is nobody's.
pub(crate) fn unknown_operator() -> Vec<u8> {
    GraphBuilder::new("unknown")
        .input("x", DType::F32, "N,3")
        .node("Relu", &["x"], &["z"])
        .node("Frobnicate", &["z"], &["y"])
        .output("y", DType::F32, "N,3")
        .encode()
}
