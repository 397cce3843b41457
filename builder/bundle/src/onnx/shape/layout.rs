//! Operators that make, move and relabel data without computing.

use crate::onnx::ElementType;

use super::arithmetic::{broadcast, broadcast_index};
use super::node::Node;
use super::{Cost, Effect, NUMBERS_MAX, Unknown, Value, product};

/// `None` where the operator is none of these.
pub(super) fn effect(node: &Node<'_>) -> Result<Option<Effect>, Unknown> {
    let value = match node.op() {
        "Identity" | "Dropout" => node.input(0)?.clone(),
        "Cast" => cast(node.input(0)?, ElementType(i32::try_from(node.int("to", 0)).unwrap_or_default())),
        "CastLike" => cast(node.input(0)?, node.input(1)?.element),
        "Constant" => constant(node)?,
        "ConstantOfShape" => constant_of_shape(node)?,
        "Range" => range(node)?,
        "Shape" => shape_of(node)?,
        "Size" => {
            let count = node.input(0)?.count()?;
            Value::constant(ElementType::INT64, Vec::new(), vec![count as f64])
        }
        "Reshape" => reshape(node)?,
        "Flatten" => {
            let x = node.input(0)?;
            let axis = node.int("axis", 1);
            let axis = if axis == x.rank() as i64 { x.rank() } else { Node::axis(axis, x.rank())? };
            x.reshaped(vec![product(&x.shape[..axis])?, product(&x.shape[axis..])?])
        }
        "Squeeze" => squeeze(node)?,
        "Unsqueeze" => unsqueeze(node)?,
        "Transpose" => transpose(node)?,
        "Concat" => concat(node)?,
        "Split" => return Ok(Some(Effect { outputs: split(node)?, cost: Cost::default() })),
        "Slice" => slice(node)?,
        "Gather" => gather(node)?,
        "GatherElements" => Value::new(node.input(0)?.element, node.input(1)?.shape.clone()),
        "GatherND" => gather_nd(node)?,
        "Scatter" | "ScatterElements" | "ScatterND" => {
            let data = node.input(0)?;
            Value::new(data.element, data.shape.clone())
        }
        "Expand" => {
            let (x, target) = (node.input(0)?, sizes(node.numbers(1)?)?);
            x.picked(broadcast(&x.shape, &target)?, |index| broadcast_index(index, &x.shape))
        }
        "Tile" => {
            let (x, repeats) = (node.input(0)?, sizes(node.numbers(1)?)?);
            if repeats.len() != x.rank() {
                return Err(Unknown::Mismatch);
            }
            let dims = x.shape.iter().zip(&repeats).map(|(dim, repeat)| dim.checked_mul(*repeat));
            let shape: Option<Vec<usize>> = dims.collect();
            x.picked(shape.ok_or(Unknown::Mismatch)?, |index| {
                index.iter().zip(&x.shape).map(|(place, dim)| place.checked_rem(*dim)).collect()
            })
        }
        _ => return Ok(None),
    };
    Ok(Some(Effect::free(value)))
}

/// Sizes from constants; none is negative.
fn sizes(numbers: &[f64]) -> Result<Vec<usize>, Unknown> {
    let size = |number: &f64| (*number >= 0.0 && *number < 9e15).then_some(*number as usize).ok_or(Unknown::Mismatch);
    numbers.iter().map(size).collect()
}

fn cast(x: &Value, element: ElementType) -> Value {
    let truncates = element.is_integer() && element != ElementType::BOOL;
    let convert = |number: f64| match () {
        () if truncates => number.trunc(),
        () if element == ElementType::BOOL => f64::from(number != 0.0),
        () => number,
    };
    let numbers = x.numbers.as_ref().map(|numbers| numbers.iter().map(|number| convert(*number)).collect());
    Value { element, shape: x.shape.clone(), numbers }
}

fn constant(node: &Node<'_>) -> Result<Value, Unknown> {
    let attribute = |name| node.attribute(name);
    if let Some(tensor) = attribute("value").and_then(|value| value.t.as_ref()) {
        return Value::of(tensor).ok_or(Unknown::Mismatch);
    }
    if let Some(int) = attribute("value_int") {
        return Ok(Value::constant(ElementType::INT64, Vec::new(), vec![int.i() as f64]));
    }
    if let Some(float) = attribute("value_float") {
        return Ok(Value::constant(ElementType::FLOAT, Vec::new(), vec![float.f().into()]));
    }
    if let Some(ints) = attribute("value_ints") {
        let numbers = ints.ints.iter().map(|int| *int as f64).collect();
        return Ok(Value::constant(ElementType::INT64, vec![ints.ints.len()], numbers));
    }
    if let Some(floats) = attribute("value_floats") {
        let numbers = floats.floats.iter().map(|float| f64::from(*float)).collect();
        return Ok(Value::constant(ElementType::FLOAT, vec![floats.floats.len()], numbers));
    }
    Err(Unknown::Operator)
}

fn constant_of_shape(node: &Node<'_>) -> Result<Value, Unknown> {
    let shape = sizes(node.numbers(0)?)?;
    let count = product(&shape)?;
    let fill = node.attribute("value").and_then(|value| value.t.as_ref());
    let element = fill.map_or(ElementType::FLOAT, |tensor| tensor.element_type());
    let number = match fill {
        None => Some(0.0),
        Some(tensor) => tensor.numbers(1).and_then(|numbers| numbers.first().copied()),
    };
    let numbers = number.filter(|_| count <= NUMBERS_MAX).map(|number| vec![number; count]);
    Ok(Value { element, shape, numbers })
}

fn range(node: &Node<'_>) -> Result<Value, Unknown> {
    let scalar = |index| node.numbers(index)?.first().copied().ok_or(Unknown::Mismatch);
    let (start, limit, delta) = (scalar(0)?, scalar(1)?, scalar(2)?);
    let count = ((limit - start) / delta).ceil().max(0.0);
    let count = *sizes(&[count])?.first().ok_or(Unknown::Mismatch)?;
    let numbers = (count <= NUMBERS_MAX).then(|| (0..count).map(|index| start + index as f64 * delta).collect());
    Ok(Value { element: node.input(0)?.element, shape: vec![count], numbers })
}

fn shape_of(node: &Node<'_>) -> Result<Value, Unknown> {
    let shape = &node.input(0)?.shape;
    let rank = shape.len() as i64;
    let place = |value: i64| (if value < 0 { value.saturating_add(rank) } else { value }).clamp(0, rank) as usize;
    let (start, end) = (place(node.int("start", 0)), place(node.int("end", rank)));
    let dims: Vec<f64> = shape.get(start..end).unwrap_or_default().iter().map(|dim| *dim as f64).collect();
    Ok(Value::constant(ElementType::INT64, vec![dims.len()], dims))
}

fn reshape(node: &Node<'_>) -> Result<Value, Unknown> {
    let x = node.input(0)?;
    let target = node.list("shape", 1)?.ok_or(Unknown::Mismatch)?;
    let keeps_zero = node.int("allowzero", 0) != 0;
    let mut shape = Vec::with_capacity(target.len());
    let mut open = None;
    for (index, size) in target.iter().enumerate() {
        shape.push(match size {
            -1 if open.is_none() => {
                open = Some(index);
                1
            }
            0 if !keeps_zero => *x.shape.get(index).ok_or(Unknown::Mismatch)?,
            size => usize::try_from(*size).map_err(|_| Unknown::Mismatch)?,
        });
    }
    let (count, known) = (x.count()?, product(&shape)?);
    if let Some(index) = open {
        shape[index] = count.checked_div(known).ok_or(Unknown::Mismatch)?;
    }
    match product(&shape)? == count {
        true => Ok(x.reshaped(shape)),
        false => Err(Unknown::Mismatch),
    }
}

fn squeeze(node: &Node<'_>) -> Result<Value, Unknown> {
    let x = node.input(0)?;
    let axes = match node.list("axes", 1)? {
        Some(axes) => axes.iter().map(|axis| Node::axis(*axis, x.rank())).collect::<Result<Vec<_>, _>>()?,
        None => (0..x.rank()).filter(|index| x.shape[*index] == 1).collect(),
    };
    if axes.iter().any(|axis| x.shape[*axis] != 1) {
        return Err(Unknown::Mismatch);
    }
    let dims = x.shape.iter().enumerate().filter(|(index, _)| !axes.contains(index));
    Ok(x.reshaped(dims.map(|(_, dim)| *dim).collect()))
}

fn unsqueeze(node: &Node<'_>) -> Result<Value, Unknown> {
    let x = node.input(0)?;
    let axes = node.list("axes", 1)?.ok_or(Unknown::Mismatch)?;
    let rank = x.rank() + axes.len();
    if rank > super::RANK_MAX {
        return Err(Unknown::Mismatch);
    }
    let axes: Vec<usize> = axes.iter().map(|axis| Node::axis(*axis, rank)).collect::<Result<_, _>>()?;
    let mut dims = x.shape.iter();
    // An axis that is named twice leaves a place without a dimension.
    let shape = (0..rank).map(|index| if axes.contains(&index) { Some(1) } else { dims.next().copied() });
    let shape: Vec<usize> = shape.collect::<Option<_>>().ok_or(Unknown::Mismatch)?;
    Ok(x.reshaped(shape))
}

fn transpose(node: &Node<'_>) -> Result<Value, Unknown> {
    let x = node.input(0)?;
    let order: Vec<usize> = match node.ints("perm").filter(|order| !order.is_empty()) {
        Some(order) => order.iter().map(|axis| Node::axis(*axis, x.rank())).collect::<Result<_, _>>()?,
        None => (0..x.rank()).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..x.rank()) {
        return Err(Unknown::Mismatch);
    }
    let shape = order.iter().map(|axis| x.shape[*axis]).collect();
    Ok(x.picked(shape, |index| {
        let mut source = vec![0; order.len()];
        for (axis, place) in order.iter().zip(index) {
            source[*axis] = *place;
        }
        Some(source)
    }))
}

fn concat(node: &Node<'_>) -> Result<Value, Unknown> {
    let inputs = node.inputs()?;
    let first = *inputs.first().ok_or(Unknown::Mismatch)?;
    let axis = Node::axis(node.int("axis", 1), first.rank())?;
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for input in &inputs {
        let alike = input.rank() == first.rank()
            && (0..first.rank()).all(|index| index == axis || input.shape[index] == first.shape[index]);
        let dim = alike.then(|| shape[axis].checked_add(input.shape[axis])).flatten();
        shape[axis] = dim.ok_or(Unknown::Mismatch)?;
    }
    // Constants that follow each other in memory: nothing is interleaved.
    let plain = product(&shape[..axis])? == 1 && product(&shape)? <= NUMBERS_MAX;
    let numbers = inputs.iter().map(|input| input.numbers.as_ref().filter(|_| plain));
    let numbers: Option<Vec<&Vec<f64>>> = numbers.collect();
    let numbers = numbers.map(|parts| parts.into_iter().flatten().copied().collect());
    Ok(Value { element: first.element, shape, numbers })
}

fn split(node: &Node<'_>) -> Result<Vec<Value>, Unknown> {
    let x = node.input(0)?;
    let axis = Node::axis(node.int("axis", 0), x.rank())?;
    let dim = x.shape[axis];
    let parts = match node.list("split", 1)? {
        Some(parts) => parts.iter().map(|part| usize::try_from(*part)).collect::<Result<Vec<_>, _>>(),
        None => {
            // Equal parts; the last one is smaller where they do not come out even.
            let count = node.proto().output.len();
            let part = dim.div_ceil(count.max(1));
            Ok((0..count).map(|index| part.min(dim.saturating_sub(index.saturating_mul(part)))).collect())
        }
    };
    let parts = parts.map_err(|_| Unknown::Mismatch)?;
    if parts.iter().try_fold(0usize, |sum, part| sum.checked_add(*part)) != Some(dim) {
        return Err(Unknown::Mismatch);
    }
    let mut offset = 0;
    let outputs = parts.into_iter().map(|part| {
        let mut shape = x.shape.clone();
        shape[axis] = part;
        let start = offset;
        offset += part;
        x.picked(shape, |index| {
            let mut source = index.to_vec();
            source[axis] += start;
            Some(source)
        })
    });
    Ok(outputs.collect())
}

fn slice(node: &Node<'_>) -> Result<Value, Unknown> {
    let x = node.input(0)?;
    let starts = node.list("starts", 1)?.ok_or(Unknown::Mismatch)?;
    let ends = node.list("ends", 2)?.ok_or(Unknown::Mismatch)?;
    let axes = node.list("axes", 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = node.list("steps", 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()].iter().any(|length| *length != starts.len()) {
        return Err(Unknown::Mismatch);
    }
    let mut shape = x.shape.clone();
    let mut cuts: Vec<(i64, i64)> = vec![(0, 1); x.rank()];
    for (((start, end), axis), step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let axis = Node::axis(*axis, x.rank())?;
        let dim = i64::try_from(x.shape[axis]).map_err(|_| Unknown::Mismatch)?;
        let from_front = |place: i64| if place < 0 { place.saturating_add(dim) } else { place };
        let (start, count) = match *step {
            0 => return Err(Unknown::Mismatch),
            step if step > 0 => {
                let (start, end) = (from_front(*start).clamp(0, dim), from_front(*end).clamp(0, dim));
                (start, (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs()))
            }
            step => {
                let (start, end) = (from_front(*start).clamp(-1, dim - 1), from_front(*end).clamp(-1, dim - 1));
                (start, (start - end).max(0).unsigned_abs().div_ceil(step.unsigned_abs()))
            }
        };
        shape[axis] = usize::try_from(count).map_err(|_| Unknown::Mismatch)?;
        cuts[axis] = (start, *step);
    }
    Ok(x.picked(shape, |index| {
        let places = index.iter().zip(&cuts);
        places.map(|(place, (start, step))| usize::try_from(start + *place as i64 * step).ok()).collect()
    }))
}

fn gather(node: &Node<'_>) -> Result<Value, Unknown> {
    let (data, indices) = (node.input(0)?, node.input(1)?);
    let axis = Node::axis(node.int("axis", 0), data.rank())?;
    let shape = [&data.shape[..axis], &indices.shape, &data.shape[axis + 1..]].concat();
    let Some(places) = &indices.numbers else { return Ok(Value::new(data.element, shape)) };
    let inner = axis + indices.rank();
    Ok(data.picked(shape, |index| {
        let place = *places.get(super::flatten(&index[axis..inner], &indices.shape)?)?;
        let place = Node::axis(place as i64, data.shape[axis]).ok()?;
        Some([&index[..axis], &[place], &index[inner..]].concat())
    }))
}

fn gather_nd(node: &Node<'_>) -> Result<Value, Unknown> {
    let (data, indices) = (node.input(0)?, node.input(1)?);
    let batch = usize::try_from(node.int("batch_dims", 0)).map_err(|_| Unknown::Mismatch)?;
    let (depth, outer) = indices.shape.split_last().ok_or(Unknown::Mismatch)?;
    let start = batch.checked_add(*depth).ok_or(Unknown::Mismatch)?;
    let inner = data.shape.get(start..).ok_or(Unknown::Mismatch)?;
    Ok(Value::new(data.element, [outer, inner].concat()))
}
