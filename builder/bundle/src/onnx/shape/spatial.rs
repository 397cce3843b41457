//! Operators over pictures: windows that slide, and changes of size.

use crate::onnx::ElementType;

use super::node::Node;
use super::{Cost, Effect, Unknown, Value, product, times};

/// `None` where the operator is none of these.
pub(super) fn effect(node: &Node<'_>) -> Result<Option<Effect>, Unknown> {
    let effect = match node.op() {
        "Conv" | "FusedConv" => conv(node, 1, 2, node.input(0)?.element)?,
        "ConvInteger" => conv(node, 1, usize::MAX, ElementType::INT32)?,
        "QLinearConv" => conv(node, 3, 8, node.input(7)?.element)?,
        "ConvTranspose" => conv_transpose(node)?,
        "AveragePool" | "LpPool" | "MaxPool" => pool(node)?,
        "GlobalAveragePool" | "GlobalLpPool" | "GlobalMaxPool" => {
            let x = node.input(0)?;
            let shape = x.shape.iter().enumerate().map(|(index, dim)| if index < 2 { *dim } else { 1 }).collect();
            let cost = Cost { macs: 0, other: times(x.count()?, 1)? };
            Effect { outputs: vec![Value::new(x.element, shape)], cost }
        }
        "Resize" | "Upsample" => resize(node)?,
        "GridSample" => {
            let (x, grid) = (node.input(0)?, node.input(1)?);
            let (_, area) = grid.shape.split_last().ok_or(Unknown::Mismatch)?;
            let places = area.get(1..).ok_or(Unknown::Mismatch)?;
            let shape = [x.shape.get(..2).ok_or(Unknown::Mismatch)?, places].concat();
            Effect::each(Value::new(x.element, shape), interpolation(node.string("mode").unwrap_or("linear")))?
        }
        "Pad" => Effect::free(pad(node)?),
        "DepthToSpace" => Effect::free(blocks(node, |channels, area, block| {
            Some((channels.checked_div(block.checked_mul(block)?)?, area.checked_mul(block)?))
        })?),
        "SpaceToDepth" => Effect::free(blocks(node, |channels, area, block| {
            Some((channels.checked_mul(block.checked_mul(block)?)?, area.checked_div(block)?))
        })?),
        "RoiAlign" => {
            let (x, rois) = (node.input(0)?, node.input(1)?);
            let side = |name| usize::try_from(node.int(name, 1)).map_err(|_| Unknown::Mismatch);
            let [_, channels, ..] = x.shape[..] else { return Err(Unknown::Mismatch) };
            let count = *rois.shape.first().ok_or(Unknown::Mismatch)?;
            let shape = vec![count, channels, side("output_height")?, side("output_width")?];
            // How many samples a bin has depends on the size of the region.
            let samples = u64::try_from(node.int("sampling_ratio", 0)).ok().filter(|ratio| *ratio > 0);
            let samples = samples.and_then(|ratio| ratio.checked_mul(ratio)).ok_or(Unknown::Operator)?;
            Effect::each(Value::new(x.element, shape), samples.saturating_mul(interpolation("linear")))?
        }
        _ => return Ok(None),
    };
    Ok(Some(effect))
}

/// Inputs are the picture and, at `weight` and `bias`, the kernels and what is added to their sums.
fn conv(node: &Node<'_>, weight: usize, bias: usize, element: ElementType) -> Result<Effect, Unknown> {
    let (x, w) = (node.input(0)?, node.input(weight)?);
    let ([batch, channels, area @ ..], [kernels, depth, kernel @ ..]) = (&x.shape[..], &w.shape[..]) else {
        return Err(Unknown::Mismatch);
    };
    let group = usize::try_from(node.int("group", 1)).map_err(|_| Unknown::Mismatch)?;
    if area.len() != kernel.len() || depth.checked_mul(group) != Some(*channels) {
        return Err(Unknown::Mismatch);
    }
    let shape = [&[*batch, *kernels], window(node, area, kernel)?.as_slice()].concat();
    let count = product(&shape)?;
    let macs = times(count, product(&w.shape[1..])? as u64)?;
    let other = if node.proto().input.get(bias).is_some_and(|name| !name.is_empty()) { count as u64 } else { 0 };
    Ok(Effect { outputs: vec![Value::new(element, shape)], cost: Cost { macs, other } })
}

/// The size of what a window of `kernel` sees as it slides over `area`.
fn window(node: &Node<'_>, area: &[usize], kernel: &[usize]) -> Result<Vec<usize>, Unknown> {
    let rank = area.len();
    let (strides, dilations) = (each(node, "strides", rank, 1)?, each(node, "dilations", rank, 1)?);
    let pads = each(node, "pads", 2 * rank, 0)?;
    let auto_pad = node.string("auto_pad").unwrap_or("NOTSET");
    let rounds_up = node.int("ceil_mode", 0) != 0;
    let side = |index: usize| {
        let (length, stride) = (i64::try_from(area[index]).ok()?, strides[index]);
        let reach = i64::try_from(kernel[index]).ok()?.checked_sub(1)?.checked_mul(dilations[index])?.checked_add(1)?;
        if stride < 1 || reach < 1 {
            return None;
        }
        let padded = match auto_pad {
            "SAME_UPPER" | "SAME_LOWER" => return usize::try_from(length).ok().map(|x| x.div_ceil(stride as usize)),
            "VALID" => length,
            _ => length.checked_add(pads[index])?.checked_add(pads[index + rank])?,
        };
        let room = padded.checked_sub(reach).filter(|room| *room >= 0)?;
        let mut count = room / stride + 1;
        if rounds_up && room % stride != 0 {
            // One window more, unless it would start in the padding at the end.
            let start = count.checked_mul(stride)?;
            count += i64::from(start < length.checked_add(pads[index])?);
        }
        usize::try_from(count).ok()
    };
    (0..rank).map(|index| side(index).ok_or(Unknown::Mismatch)).collect()
}

/// A list attribute with one number for each axis (or each end of it).
fn each(node: &Node<'_>, name: &str, count: usize, default: i64) -> Result<Vec<i64>, Unknown> {
    match node.ints(name) {
        None | Some([]) => Ok(vec![default; count]),
        Some(list) if list.len() == count => Ok(list.to_vec()),
        Some(_) => Err(Unknown::Mismatch),
    }
}

fn conv_transpose(node: &Node<'_>) -> Result<Effect, Unknown> {
    let (x, w) = (node.input(0)?, node.input(1)?);
    let ([batch, channels, area @ ..], [depth, kernels, kernel @ ..]) = (&x.shape[..], &w.shape[..]) else {
        return Err(Unknown::Mismatch);
    };
    let group = usize::try_from(node.int("group", 1)).map_err(|_| Unknown::Mismatch)?;
    let kernels = kernels.checked_mul(group).ok_or(Unknown::Mismatch)?;
    if channels != depth || area.len() != kernel.len() {
        return Err(Unknown::Mismatch);
    }
    let rank = area.len();
    let (strides, dilations) = (each(node, "strides", rank, 1)?, each(node, "dilations", rank, 1)?);
    let (pads, extra) = (each(node, "pads", 2 * rank, 0)?, each(node, "output_padding", rank, 0)?);
    let same = matches!(node.string("auto_pad"), Some("SAME_UPPER" | "SAME_LOWER"));
    let sizes = node.ints("output_shape").filter(|sizes| !sizes.is_empty());
    let side = |index: usize| {
        if let Some(sizes) = sizes {
            return usize::try_from(*sizes.get(index)?).ok();
        }
        let length = i64::try_from(area[index]).ok()?;
        if same {
            return usize::try_from(length.checked_mul(strides[index])?).ok();
        }
        let reach = i64::try_from(kernel[index]).ok()?.checked_sub(1)?.checked_mul(dilations[index])?.checked_add(1)?;
        let spread = length.checked_sub(1)?.checked_mul(strides[index])?.checked_add(extra[index])?;
        let padding = pads[index].checked_add(pads[index + rank])?;
        usize::try_from(spread.checked_add(reach)?.checked_sub(padding)?).ok()
    };
    let sides: Vec<usize> = (0..rank).map(|index| side(index).ok_or(Unknown::Mismatch)).collect::<Result<_, _>>()?;
    let shape = [&[*batch, kernels], sides.as_slice()].concat();
    // Every input pixel meets every weight of its group once.
    let macs = times(x.count()?, product(&w.shape[1..])? as u64)?;
    let other = if node.optional(2)?.is_some() { product(&shape)? as u64 } else { 0 };
    Ok(Effect { outputs: vec![Value::new(x.element, shape)], cost: Cost { macs, other } })
}

fn pool(node: &Node<'_>) -> Result<Effect, Unknown> {
    let x = node.input(0)?;
    let [batch, channels, area @ ..] = &x.shape[..] else { return Err(Unknown::Mismatch) };
    let kernel = node.ints("kernel_shape").ok_or(Unknown::Mismatch)?.iter().map(|side| usize::try_from(*side));
    let kernel: Vec<usize> = kernel.collect::<Result<_, _>>().map_err(|_| Unknown::Mismatch)?;
    if kernel.len() != area.len() {
        return Err(Unknown::Mismatch);
    }
    let shape = [&[*batch, *channels], window(node, area, &kernel)?.as_slice()].concat();
    let cost = Cost { macs: 0, other: times(product(&shape)?, product(&kernel)? as u64)? };
    let indices = Value::new(ElementType::INT64, shape.clone());
    Ok(Effect { outputs: vec![Value::new(x.element, shape), indices], cost })
}

/// Operations for one interpolated number in two dimensions: a product for each neighbour, and sums.
fn interpolation(mode: &str) -> u64 {
    match mode {
        "nearest" => 0,
        "cubic" | "bicubic" => 2 * 16 - 1,
        _ => 2 * 4 - 1,
    }
}

fn resize(node: &Node<'_>) -> Result<Effect, Unknown> {
    let x = node.input(0)?;
    let axes: Vec<usize> = match node.ints("axes") {
        Some(axes) => axes.iter().map(|axis| Node::axis(*axis, x.rank())).collect::<Result<_, _>>()?,
        None => (0..x.rank()).collect(),
    };
    if node.string("keep_aspect_ratio_policy").is_some_and(|policy| policy != "stretch") {
        return Err(Unknown::Operator);
    }
    // The region of interest came between the picture and its scales in version 11.
    let last = node.proto().input.iter().rposition(|name| !name.is_empty()).unwrap_or_default();
    let scales: Vec<f64> = match node.attribute("scales") {
        Some(scales) => scales.floats.iter().map(|scale| f64::from(*scale)).collect(),
        None if last == 0 => return Err(Unknown::Operator),
        None if last <= 2 => node.numbers(last)?.to_vec(),
        None => Vec::new(),
    };
    let mut shape = x.shape.clone();
    if scales.is_empty() {
        let sizes = node.numbers(3)?;
        if sizes.len() != axes.len() {
            return Err(Unknown::Mismatch);
        }
        for (axis, size) in axes.iter().zip(sizes) {
            shape[*axis] = side(*size)?;
        }
    } else {
        if scales.len() != axes.len() {
            return Err(Unknown::Mismatch);
        }
        for (axis, scale) in axes.iter().zip(&scales) {
            // In the precision in which backends multiply, so that 0.1 · 10 floors alike.
            shape[*axis] = side((x.shape[*axis] as f32 * *scale as f32).floor().into())?;
        }
    }
    Effect::each(Value::new(x.element, shape), interpolation(node.string("mode").unwrap_or("nearest")))
}

fn side(number: f64) -> Result<usize, Unknown> {
    (number >= 0.0 && number < f64::from(u32::MAX)).then_some(number as usize).ok_or(Unknown::Mismatch)
}

fn pad(node: &Node<'_>) -> Result<Value, Unknown> {
    let x = node.input(0)?;
    let pads = match node.ints("paddings") {
        Some(pads) => pads.to_vec(),
        None => node.list("pads", 1)?.ok_or(Unknown::Mismatch)?,
    };
    let axes: Vec<usize> = match node.optional(3)? {
        Some(_) => {
            let axes = node.numbers(3)?.iter().map(|axis| Node::axis(*axis as i64, x.rank()));
            axes.collect::<Result<_, _>>()?
        }
        None => (0..x.rank()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(Unknown::Mismatch);
    }
    let mut shape = x.shape.clone();
    let (before, after) = pads.split_at(axes.len());
    for (axis, (before, after)) in axes.iter().zip(before.iter().zip(after)) {
        let length = i64::try_from(shape[*axis]).ok().and_then(|x| x.checked_add(*before)?.checked_add(*after));
        shape[*axis] = length.and_then(|length| usize::try_from(length).ok()).ok_or(Unknown::Mismatch)?;
    }
    Ok(Value::new(x.element, shape))
}

/// Moves blocks of pixels into channels or back; `sides` gives channels and a side from channels, a
/// side and the block.
fn blocks(node: &Node<'_>, sides: impl Fn(usize, usize, usize) -> Option<(usize, usize)>) -> Result<Value, Unknown> {
    let x = node.input(0)?;
    let [batch, channels, height, width] = x.shape[..] else { return Err(Unknown::Mismatch) };
    let block = usize::try_from(node.int("blocksize", 0)).map_err(|_| Unknown::Mismatch)?;
    let (depth, height) = sides(channels, height, block).ok_or(Unknown::Mismatch)?;
    let (_, width) = sides(channels, width, block).ok_or(Unknown::Mismatch)?;
    let shape = vec![batch, depth, height, width];
    match product(&shape)? == x.count()? {
        true => Ok(Value::new(x.element, shape)),
        false => Err(Unknown::Mismatch),
    }
}
