//! Pairs written into a graph.

use std::collections::{BTreeMap, BTreeSet};

use half::f16;
use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{Attribute, Graph, OnnxModel, Uses};
use revoada_core::{Tensor, TensorRef};

use super::place::{Placement, place};
use super::shift::takes_shift;
use super::{Calibration, Int8, Int8Options, Int8Report, Weights};
use crate::BuilderError;

/// The first operator set with a scale for each channel.
pub(super) const OPSET_AXIS: i64 = 13;
/// Symmetric: −128 stays unused, so that a number and its negative are as far from zero.
pub(super) const LEVEL_MAX: f32 = 127.0;

pub(super) fn rewrite(
    model: &OnnxModel,
    calibration: &Calibration,
    options: &Int8Options,
) -> Result<Int8, BuilderError> {
    let mut graph = model.edit()?;
    graph.lift(OPSET_AXIS)?;
    graph.sort()?;
    let placement = place(&graph, &options.keep);
    let scales = scales(&placement, calibration)?;
    let labels = |nodes: BTreeSet<usize>| nodes.into_iter().map(|index| graph.nodes()[index].label()).collect();
    let report = Int8Report {
        nodes: labels(placement.reads.iter().map(|(node, _)| *node).collect()),
        kept: labels(placement.kept.iter().copied().collect()),
        scales: scales.clone(),
        unknown: options.keep.unknown(&graph),
    };

    let mut pairs = Pairs { nodes: Vec::new(), made: BTreeMap::new(), uses: graph.uses(), graph: &mut graph };
    for (index, mut node) in std::mem::take(pairs.graph.nodes_mut()).into_iter().enumerate() {
        for input in 0..node.input.len() {
            let name = node.input[input].clone();
            if placement.reads.contains(&(index, input)) {
                node.input[input] = pairs.activation(&name, scales[&name]);
            } else if let Some(axis) = placement.weights.get(&(index, input)) {
                node.input[input] = pairs.weight(&name, *axis, options.weights, calibration);
                pairs.shift(&mut node, calibration);
            }
        }
        pairs.nodes.push(node);
    }
    let nodes = std::mem::take(&mut pairs.nodes);
    *graph.nodes_mut() = nodes;
    graph.remove_unused();
    Ok(Int8 { model: graph.finish()?, report })
}

/// The scale of each activation: of its group's widest range.
fn scales(placement: &Placement, calibration: &Calibration) -> Result<BTreeMap<String, f32>, BuilderError> {
    let mut widest: BTreeMap<usize, f32> = BTreeMap::new();
    for (value, group) in &placement.groups {
        let range = calibration.ranges.get(value).copied().filter(|range| range.is_finite() && *range > 0.0);
        let range = range.ok_or_else(|| BuilderError::NoRange { value: value.clone() })?;
        let group = widest.entry(*group).or_insert(range);
        *group = group.max(range);
    }
    Ok(placement.groups.iter().map(|(value, group)| (value.clone(), scale(widest[group]))).collect())
}

struct Pairs<'a> {
    graph: &'a mut Graph,
    /// Of the graph as it was.
    uses: Uses,
    nodes: Vec<NodeProto>,
    /// The dequantised name of what has a pair already, by name and, of weights, axis.
    made: BTreeMap<(String, Option<usize>), String>,
}

impl Pairs<'_> {
    /// The name of an activation behind its pair.
    fn activation(&mut self, name: &str, scale: f32) -> String {
        let key = (name.to_owned(), None);
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let scale = Tensor::of(vec![], vec![scale]).expect("a scalar has one element");
        let scale = self.graph.add_tensor(&format!("{name}_scale"), scale.as_ref());
        let zero = self.graph.add_tensor(&format!("{name}_zero"), TensorRef::of(&[], &[0i8]).expect("a scalar"));
        let quantised = self.node("QuantizeLinear", &format!("{name}_i8"), [name, &scale, &zero], None);
        let wide = self.node("DequantizeLinear", &format!("{name}_wide"), [&quantised, &scale, &zero], None);
        self.made.insert(key, wide.clone());
        wide
    }

    /// The name of a weight behind its pair, or behind the second half of it.
    fn weight(&mut self, name: &str, axis: usize, form: Weights, calibration: &Calibration) -> String {
        let key = (name.to_owned(), Some(axis));
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let tensor = self.graph.tensor(name).expect("only f32 initialisers are placed as weights");
        let scales = scales_of(&tensor, axis);
        let chosen = calibration.levels.get(name).filter(|levels| levels.shape() == tensor.shape());
        let levels = chosen.cloned().unwrap_or_else(|| nearest(&tensor, axis, &scales));
        let channels = [scales.len()];
        let zeros = vec![0i8; scales.len()];
        let of = "each channel has one";
        let scale = self.graph.add_tensor(&format!("{name}_scale"), TensorRef::of(&channels, &scales).expect(of));
        let zero = self.graph.add_tensor(&format!("{name}_zero"), TensorRef::of(&channels, &zeros).expect(of));
        let quantised = match form {
            Weights::Int8 => self.graph.add_tensor(&format!("{name}_i8"), levels.as_ref()),
            Weights::F32 => {
                let rounded = widened(&levels, axis, &scales);
                let rounded = self.graph.add_tensor(&format!("{name}_rounded"), rounded.as_ref());
                self.node("QuantizeLinear", &format!("{name}_i8"), [&rounded, &scale, &zero], Some(axis))
            }
        };
        let inputs = [&quantised, &scale, &zero].map(String::as_str);
        let wide = self.node("DequantizeLinear", &format!("{name}_wide"), inputs, Some(axis));
        self.made.insert(key, wide.clone());
        wide
    }

    /// Adds to a node's bias what rounding its weights takes from the mean of each channel, where the
    /// calibration tells and the bias is constant.
    fn shift(&mut self, node: &mut NodeProto, calibration: &Calibration) {
        let Some(shifts) = calibration.shifts.get(&node.output[0]).filter(|_| takes_shift(node)) else { return };
        let bias = match node.input_name(2) {
            None => vec![0f32; shifts.len()],
            Some(name) => match self.graph.tensor(name).as_ref().and_then(|bias| bias.as_ref().as_slice::<f32>()) {
                Some(bias) if bias.len() == shifts.len() => bias.to_vec(),
                _ => return,
            },
        };
        let shifted: Vec<f32> = bias.iter().zip(shifts).map(|(bias, shift)| bias + shift).collect();
        let shifted = Tensor::of(vec![shifts.len()], shifted).expect("each channel has one");
        let name = match node.input_name(2) {
            Some(name) if self.uses.consumers(name).len() == 1 && !self.graph.is_output(name) => {
                self.graph.set_tensor(name, shifted.as_ref());
                name.to_owned()
            }
            _ => self.graph.add_tensor(&format!("{}_bias", node.label()), shifted.as_ref()),
        };
        node.input.truncate(2);
        node.input.push(name);
    }

    fn node(&mut self, op: &str, output: &str, inputs: [&str; 3], axis: Option<usize>) -> String {
        let output = self.graph.fresh(output);
        let name = self.graph.fresh(&format!("{output}/{op}"));
        let axis = axis.map(|axis| ("axis", Attribute::Int(i64::try_from(axis).unwrap_or(i64::MAX))));
        self.nodes.push(NodeProto::new(op, &name, &inputs, &[&output], axis.as_slice()));
        output
    }
}

/// The scale for numbers up to `range`: the next one that f16 holds, so that it is still the same, and still
/// positive, when the rest of the model becomes f16. A range beyond f16 has the scale that it has.
fn scale(range: f32) -> f32 {
    let exact = range / LEVEL_MAX;
    let near = f16::from_f32(exact);
    let up = if near.to_f32() < exact { f16::from_bits(near.to_bits() + 1) } else { near };
    match up.is_finite() {
        true => up.max(f16::MIN_POSITIVE_SUBNORMAL).to_f32(),
        false => exact,
    }
}

/// The scale of each channel of a weight.
pub(super) fn scales_of(weight: &Tensor, axis: usize) -> Vec<f32> {
    let shape = weight.shape();
    let channels = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let numbers = weight.as_ref().as_slice::<f32>().expect("only f32 initialisers are placed as weights");
    let mut largest = vec![0f32; channels];
    for (index, number) in numbers.iter().enumerate().filter(|(_, number)| number.is_finite()) {
        let largest = &mut largest[index / inner.max(1) % channels];
        *largest = largest.max(number.abs());
    }
    // The scale of a channel of zeros is nobody's concern, but must be positive; it takes the widest one.
    let widest = largest.iter().copied().fold(0f32, f32::max);
    let widest = if widest > 0.0 { widest } else { LEVEL_MAX };
    largest.iter().map(|largest| scale(if *largest > 0.0 { *largest } else { widest })).collect()
}

/// The nearest level of each element of a weight.
pub(super) fn nearest(weight: &Tensor, axis: usize, scales: &[f32]) -> Tensor {
    let inner: usize = weight.shape()[axis + 1..].iter().product();
    let numbers = weight.as_ref().as_slice::<f32>().expect("only f32 initialisers are placed as weights");
    let level = |(index, number): (usize, &f32)| {
        let level = (number / scales[index / inner.max(1) % scales.len()]).round_ties_even();
        level.clamp(-LEVEL_MAX, LEVEL_MAX) as i8
    };
    let levels = numbers.iter().enumerate().map(level).collect();
    Tensor::of(weight.shape().to_vec(), levels).expect("each element has a level")
}

/// What a weight's levels stand for.
pub(super) fn widened(levels: &Tensor, axis: usize, scales: &[f32]) -> Tensor {
    let inner: usize = levels.shape()[axis + 1..].iter().product();
    let numbers = levels.as_ref().as_slice::<i8>().expect("levels are INT8").iter().enumerate();
    let wide = numbers.map(|(index, level)| f32::from(*level) * scales[index / inner.max(1) % scales.len()]);
    Tensor::of(levels.shape().to_vec(), wide.collect()).expect("each level is a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_holds_its_range_in_half_precision_too() {
        for range in [1e-30, 1e-6, 0.01, 1.0, 5.999, 6.0, 1234.5, 8e6, 1e9] {
            let scale = scale(range);
            assert!(scale > 0.0 && scale * LEVEL_MAX >= range, "{range}");
            assert!(scale * LEVEL_MAX <= range * 1.001 || range < 0.01, "{range}");
            assert!(f16::from_f32(scale).to_f32() == scale || range > 8e6, "{range}");
        }
    }

    #[test]
    fn channels_of_zeros_and_of_nearly_nothing_keep_positive_scales() {
        let weights = Tensor::of(vec![3, 2], vec![0.5f32, -1.0, 0.0, 0.0, 1e-9, -1e-9]).unwrap();
        let scales = scales_of(&weights, 0);
        let levels = nearest(&weights, 0, &scales);
        assert!(scales.iter().all(|scale| *scale > 0.0));
        assert_eq!(levels.as_ref().as_slice::<i8>(), Some(&[63i8, -127, 0, 0, 0, 0][..]));
        let nothing = Tensor::of(vec![1, 2], vec![0f32; 2]).unwrap();
        assert_eq!(scales_of(&nothing, 0), [1.0]);
    }
}
