//! Products of matrices, and recurrent layers, which are made of them.

use crate::onnx::ElementType;

use super::arithmetic::broadcast;
use super::node::Node;
use super::{Cost, Effect, Unknown, Value, product, times};

/// `None` where the operator is none of these.
pub(super) fn effect(node: &Node<'_>) -> Result<Option<Effect>, Unknown> {
    let effect = match node.op() {
        "MatMul" => matmul(node.input(0)?, node.input(1)?, node.input(0)?.element)?,
        "MatMulInteger" => matmul(node.input(0)?, node.input(1)?, ElementType::INT32)?,
        "QLinearMatMul" => matmul(node.input(0)?, node.input(3)?, node.input(7)?.element)?,
        "Gemm" => gemm(node)?,
        "GRU" | "LSTM" | "RNN" => recurrent(node)?,
        _ => return Ok(None),
    };
    Ok(Some(effect))
}

/// As NumPy multiplies: vectors are rows on the left and columns on the right, and outer dimensions
/// are broadcast.
fn matmul(a: &Value, b: &Value, element: ElementType) -> Result<Effect, Unknown> {
    let (a, b) = (&a.shape[..], &b.shape[..]);
    let (outer_a, rows, inner) = match a {
        [] => return Err(Unknown::Mismatch),
        [inner] => (&a[..0], None, *inner),
        [outer @ .., rows, inner] => (outer, Some(*rows), *inner),
    };
    let (outer_b, depth, columns) = match b {
        [] => return Err(Unknown::Mismatch),
        [depth] => (&b[..0], *depth, None),
        [outer @ .., depth, columns] => (outer, *depth, Some(*columns)),
    };
    if inner != depth {
        return Err(Unknown::Mismatch);
    }
    let mut shape = broadcast(outer_a, outer_b)?;
    shape.extend(rows.into_iter().chain(columns));
    let macs = times(product(&shape)?, inner as u64)?;
    Ok(Effect { outputs: vec![Value::new(element, shape)], cost: Cost { macs, other: 0 } })
}

fn gemm(node: &Node<'_>) -> Result<Effect, Unknown> {
    let matrix = |index, transposed| match node.input(index)?.shape[..] {
        [rows, columns] if node.int(transposed, 0) == 0 => Ok((rows, columns)),
        [rows, columns] => Ok((columns, rows)),
        _ => Err(Unknown::Mismatch),
    };
    let ((rows, inner), (depth, columns)) = (matrix(0, "transA")?, matrix(1, "transB")?);
    if inner != depth {
        return Err(Unknown::Mismatch);
    }
    let count = product(&[rows, columns])?;
    let other = if node.optional(2)?.is_some() { count as u64 } else { 0 };
    let output = Value::new(node.input(0)?.element, vec![rows, columns]);
    Ok(Effect { outputs: vec![output], cost: Cost { macs: times(count, inner as u64)?, other } })
}

/// All gates of all steps; what is done to their sums is small beside them and not counted.
fn recurrent(node: &Node<'_>) -> Result<Effect, Unknown> {
    let (x, w, r) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let ([steps, batch, _], [directions, _, hidden]) = (&x.shape[..], &r.shape[..]) else {
        return Err(Unknown::Mismatch);
    };
    if node.int("layout", 0) != 0 {
        return Err(Unknown::Operator);
    }
    let weights = w.count()?.checked_add(r.count()?).ok_or(Unknown::Mismatch)?;
    let macs = times(product(&[*steps, *batch])?, weights as u64)?;
    let state = Value::new(x.element, vec![*directions, *batch, *hidden]);
    let all = Value::new(x.element, vec![*steps, *directions, *batch, *hidden]);
    Ok(Effect { outputs: vec![all, state.clone(), state], cost: Cost { macs, other: 0 } })
}
