//! Operators that compute element by element, along axes, or from constants.

use crate::onnx::ElementType;

use super::node::Node;
use super::{Cost, Effect, NUMBERS_MAX, Unknown, Value, flatten, times, unflatten};

/// `None` where the operator is none of these.
pub(super) fn effect(node: &Node<'_>) -> Result<Option<Effect>, Unknown> {
    let effect = match node.op() {
        "Abs" | "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "BitwiseNot" | "Ceil" | "Celu" | "Clip"
        | "Cos" | "Cosh" | "Elu" | "Erf" | "Exp" | "Floor" | "Gelu" | "HardSigmoid" | "HardSwish" | "Hardmax"
        | "IsInf" | "IsNaN" | "LeakyRelu" | "Log" | "Mish" | "Neg" | "Not" | "Reciprocal" | "Relu" | "Round"
        | "Selu" | "Shrink" | "Sigmoid" | "Sign" | "Sin" | "Sinh" | "Softplus" | "Softsign" | "Sqrt" | "Swish"
        | "Tan" | "Tanh" | "ThresholdedRelu" | "QuickGelu" | "FastGelu" => unary(node)?,
        "Add" | "And" | "BitShift" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Div" | "Equal" | "Greater"
        | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Mod" | "Mul" | "Or" | "PRelu" | "Pow" | "Sub" | "Xor" => {
            binary(node)?
        }
        "Max" | "Mean" | "Min" | "Sum" => {
            let (inputs, operations) = (node.inputs()?, node.proto().input.len() as u64);
            Effect::each(broadcast_all(&inputs)?, operations.saturating_sub(1).max(1))?
        }
        "Where" => choose(node)?,
        "QuantizeLinear" => {
            let element = node.optional(2)?.map_or(ElementType::UINT8, |zero| zero.element);
            Effect::each(Value::new(element, node.input(0)?.shape.clone()), 2)?
        }
        "DequantizeLinear" => Effect::each(Value::new(node.input(1)?.element, node.input(0)?.shape.clone()), 2)?,
        "DynamicQuantizeLinear" => {
            let x = node.input(0)?;
            let scalar = |element| Value::new(element, Vec::new());
            let quantized = Value::new(ElementType::UINT8, x.shape.clone());
            // Two comparisons for the range, then scale and shift.
            let cost = Cost { macs: 0, other: times(x.count()?, 4)? };
            Effect { outputs: vec![quantized, scalar(x.element), scalar(ElementType::UINT8)], cost }
        }
        // Scale and shift, both folded from the statistics.
        "BatchNormalization" => same(node, 2)?,
        // Maximum, difference, exponential, sum, quotient.
        "Softmax" | "LogSoftmax" => same(node, 5)?,
        // Mean, difference, square, its mean, root and quotient, scale, shift.
        "InstanceNormalization"
        | "LayerNormalization"
        | "GroupNormalization"
        | "MeanVarianceNormalization"
        | "SimplifiedLayerNormalization"
        | "RMSNormalization"
        | "LpNormalization" => same(node, 7)?,
        // A square and a sum for each neighbour, then power, scale and quotient.
        "LRN" => same(node, u64::try_from(node.int("size", 1)).unwrap_or(1).saturating_mul(2).saturating_add(3))?,
        "CumSum" | "Trilu" => same(node, 1)?,
        "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
        | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => reduce(node)?,
        "ArgMax" | "ArgMin" => {
            let (x, keep) = (node.input(0)?, node.int("keepdims", 1) != 0);
            let shape = without(&x.shape, &[node.int("axis", 0)], keep)?;
            let cost = Cost { macs: 0, other: times(x.count()?, 1)? };
            Effect { outputs: vec![Value::new(ElementType::INT64, shape)], cost }
        }
        "TopK" => top_k(node)?,
        _ => return Ok(None),
    };
    Ok(Some(effect))
}

/// The first output has the first input's shape.
fn same(node: &Node<'_>, operations: u64) -> Result<Effect, Unknown> {
    let x = node.input(0)?;
    Effect::each(Value::new(x.element, x.shape.clone()), operations)
}

fn unary(node: &Node<'_>) -> Result<Effect, Unknown> {
    let x = node.input(0)?;
    let element = if matches!(node.op(), "IsInf" | "IsNaN") { ElementType::BOOL } else { x.element };
    let function: Option<fn(f64) -> f64> = match node.op() {
        "Abs" => Some(f64::abs),
        "Ceil" => Some(f64::ceil),
        "Floor" => Some(f64::floor),
        "Neg" => Some(|x| -x),
        "Not" => Some(|x| f64::from(x == 0.0)),
        "Round" => Some(f64::round_ties_even),
        "Sqrt" => Some(f64::sqrt),
        _ => None,
    };
    let numbers = function.zip(x.numbers.as_ref()).map(|(f, numbers)| numbers.iter().map(|x| f(*x)).collect());
    Effect::each(Value { element, shape: x.shape.clone(), numbers }, 1)
}

fn binary(node: &Node<'_>) -> Result<Effect, Unknown> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    // Before version 7 the second operand was fitted to the first, at an axis that it named.
    let mut value = match node.int("broadcast", 0) {
        0 => broadcast_all(&[a, b])?,
        _ => Value::new(a.element, a.shape.clone()),
    };
    if matches!(node.op(), "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual") {
        value.element = ElementType::BOOL;
    }
    let truncates = a.element.is_integer();
    let function: Option<Box<dyn Fn(f64, f64) -> f64>> = match node.op() {
        "Add" => Some(Box::new(|a, b| a + b)),
        "Sub" => Some(Box::new(|a, b| a - b)),
        "Mul" => Some(Box::new(|a, b| a * b)),
        "Div" if truncates => Some(Box::new(|a, b| (a / b).trunc())),
        "Div" => Some(Box::new(|a, b| a / b)),
        "Mod" if node.int("fmod", 0) == 0 => Some(Box::new(|a, b| a - b * (a / b).floor())),
        "Pow" => Some(Box::new(f64::powf)),
        "Equal" => Some(Box::new(|a, b| f64::from(a == b))),
        "Greater" => Some(Box::new(|a, b| f64::from(a > b))),
        "Less" => Some(Box::new(|a, b| f64::from(a < b))),
        "And" => Some(Box::new(|a, b| f64::from(a != 0.0 && b != 0.0))),
        "Or" => Some(Box::new(|a, b| f64::from(a != 0.0 || b != 0.0))),
        _ => None,
    };
    value.numbers = function.and_then(|f| fold(&[a, b], &value.shape, |numbers| f(numbers[0], numbers[1])));
    Effect::each(value, 1)
}

fn choose(node: &Node<'_>) -> Result<Effect, Unknown> {
    let (condition, a, b) = (node.input(0)?, node.input(1)?, node.input(2)?);
    let mut value = broadcast_all(&[a, b, condition])?;
    value.numbers = fold(&[condition, a, b], &value.shape, |numbers| numbers[if numbers[0] != 0.0 { 1 } else { 2 }]);
    Ok(Effect::free(value))
}

/// Computes a broadcast operator over constants.
fn fold(inputs: &[&Value], shape: &[usize], function: impl Fn(&[f64]) -> f64) -> Option<Vec<f64>> {
    let count = super::product(shape).ok().filter(|count| *count <= NUMBERS_MAX)?;
    let at = |flat| {
        let index = unflatten(flat, shape);
        let operands = inputs.iter().map(|input| {
            let place = flatten(&broadcast_index(&index, &input.shape)?, &input.shape)?;
            input.numbers.as_ref()?.get(place).copied()
        });
        Some(function(&operands.collect::<Option<Vec<f64>>>()?)).filter(|number| !number.is_nan())
    };
    (0..count).map(at).collect()
}

/// Where a broadcast operand of `shape` is read for the output's element at `index`.
pub(super) fn broadcast_index(index: &[usize], shape: &[usize]) -> Option<Vec<usize>> {
    let tail = index.get(index.len().checked_sub(shape.len())?..)?;
    Some(tail.iter().zip(shape).map(|(place, dim)| if *dim == 1 { 0 } else { *place }).collect())
}

/// Several directions at once, as NumPy broadcasts; the element type is the first one's.
fn broadcast_all(inputs: &[&Value]) -> Result<Value, Unknown> {
    let first = inputs.first().ok_or(Unknown::Mismatch)?;
    let shape = inputs[1..].iter().try_fold(first.shape.clone(), |shape, input| broadcast(&shape, &input.shape))?;
    Ok(Value::new(first.element, shape))
}

pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Unknown> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], index: usize| (index + shape.len()).checked_sub(rank).map_or(1, |index| shape[index]);
    let join = |index| match (dim(a, index), dim(b, index)) {
        (a, b) if a == b => Ok(a),
        (1, other) | (other, 1) => Ok(other),
        _ => Err(Unknown::Mismatch),
    };
    (0..rank).map(join).collect()
}

fn reduce(node: &Node<'_>) -> Result<Effect, Unknown> {
    let x = node.input(0)?;
    let keep = node.int("keepdims", 1) != 0;
    let axes = match node.list("axes", 1)? {
        Some(axes) if !axes.is_empty() => axes,
        _ if node.int("noop_with_empty_axes", 0) != 0 => return Ok(Effect::free(x.clone())),
        _ => (0..x.rank() as i64).collect(),
    };
    let cost = Cost { macs: 0, other: times(x.count()?, 1)? };
    Ok(Effect { outputs: vec![Value::new(x.element, without(&x.shape, &axes, keep)?)], cost })
}

/// The shape after a reduction over `axes`.
fn without(shape: &[usize], axes: &[i64], keep: bool) -> Result<Vec<usize>, Unknown> {
    let axes: Vec<usize> = axes.iter().map(|axis| Node::axis(*axis, shape.len())).collect::<Result<_, _>>()?;
    let dims = shape.iter().enumerate().filter_map(|(index, dim)| match axes.contains(&index) {
        false => Some(*dim),
        true => keep.then_some(1),
    });
    Ok(dims.collect())
}

fn top_k(node: &Node<'_>) -> Result<Effect, Unknown> {
    let x = node.input(0)?;
    let count = match node.attribute("k") {
        Some(k) => k.i(),
        None => node.numbers(1)?.first().map(|k| *k as i64).ok_or(Unknown::Mismatch)?,
    };
    let axis = Node::axis(node.int("axis", -1), x.rank())?;
    let mut shape = x.shape.clone();
    shape[axis] = usize::try_from(count).map_err(|_| Unknown::Mismatch)?.min(shape[axis]);
    let cost = Cost { macs: 0, other: times(x.count()?, 1)? };
    Ok(Effect { outputs: vec![Value::new(x.element, shape.clone()), Value::new(ElementType::INT64, shape)], cost })
}
