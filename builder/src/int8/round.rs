//! Which way each weight is rounded.
//!
//! The nearest level is best for each weight and not for their sum. Inputs of a product go together (the pixels
//! under a kernel are nearly alike), so that the errors of the weights add up where they have one sign: what is
//! to be small is the error of the product, `eᵀ C e` for the errors `e` of one output channel's weights and the
//! covariance `C` of what they are multiplied with, as the samples show it. The mean is left to the bias (see
//! [`shift`](super::shift)). Each weight goes up or down (M. Nagel et al., "Up or Down? Adaptive Rounding for
//! Post-Training Quantization", ICML 2020), one after the other by coordinate descent (K. Behdin et al.,
//! "QuantEase: Optimization-based Quantization for Language Models", 2023).

use std::collections::BTreeMap;

use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{Attribute, Graph, OnnxModel};
use revoada_core::{Tensor, TensorRef};
use revoada_engine::Backend;

use super::place::place;
use super::rewrite::{LEVEL_MAX, OPSET_AXIS, scales_of};
use crate::observe::observe;
use crate::{BuilderError, Keep, Samples};

/// Weights of one output channel beyond which they are rounded to the nearest: the covariance grows with the
/// square, and errors of so many even out.
const WEIGHTS_MAX: usize = 2304;

/// Of the sums that are held at once, in numbers of eight bytes.
const SUMS_MAX: usize = 24 << 20;

/// Each pass over the weights finds less to gain.
const PASSES_MAX: usize = 4;

/// Added to the diagonal of a covariance, as a share of its mean, so that few samples are not taken too
/// seriously.
const DAMPING: f64 = 0.01;

/// A weight whose rounding is chosen.
struct Product {
    node: NodeProto,
    weight: Tensor,
    /// The dimension of the weight's output channels.
    axis: usize,
    groups: usize,
}

impl Product {
    /// `None` where the sums are not known to be of this weight alone, or not worth it.
    fn of(graph: &Graph, node: &NodeProto, axis: usize, readers: usize) -> Option<Self> {
        let groups = match node.op_type() {
            "Conv" => usize::try_from(node.int("group").unwrap_or(1)).ok()?,
            "MatMul" => 1,
            "Gemm" if node.int("transA").unwrap_or(0) == 0 => 1,
            _ => return None,
        };
        let weight = graph.tensor(&node.input[1])?;
        let product = Self { node: node.clone(), weight, axis, groups };
        let whole = groups > 0 && product.rows().is_multiple_of(groups);
        (readers == 1 && whole && (1..=WEIGHTS_MAX).contains(&product.columns())).then_some(product)
    }

    /// Output channels.
    fn rows(&self) -> usize {
        self.weight.shape()[self.axis]
    }

    /// Weights of one output channel.
    fn columns(&self) -> usize {
        self.weight.shape().iter().product::<usize>() / self.rows().max(1)
    }

    /// Of one sample: for each group the products of all inputs with one another, and of each with 1.
    fn sums(&self) -> usize {
        self.groups * (self.columns() + 1).pow(2)
    }

    /// Where the weight of a row and column lies in the tensor.
    fn place(&self, row: usize, column: usize) -> usize {
        if self.axis == 0 { row * self.columns() + column } else { column * self.rows() + row }
    }

    /// Appends what computes the sums, by whose name they are observed.
    fn append(&self, graph: &mut Graph) -> String {
        let mut steps = Steps { base: self.node.label(), graph };
        let columns = self.columns() as i64;
        let inputs = if self.node.is("Conv") {
            // Each tap of the kernel alone, for each channel: a picture of what it is multiplied with.
            let (shape, channels) = (self.weight.shape(), self.weight.shape()[1] * self.groups);
            let taps: usize = shape[2..].iter().product();
            let mut one_hot = vec![0f32; channels * taps * taps];
            for output in 0..channels * taps {
                one_hot[output * taps + output % taps] = 1.0;
            }
            let shape: Vec<usize> = [channels * taps, 1].into_iter().chain(shape[2..].iter().copied()).collect();
            let one_hot = Tensor::of(shape, one_hot).expect("each tap has a kernel");
            let one_hot = steps.graph.add_tensor(&format!("{}_taps", steps.base), one_hot.as_ref());
            let mut twin = self.node.clone();
            twin.input = vec![self.node.input[0].clone(), one_hot];
            twin.set_attribute("group", &Attribute::Int(channels as i64));
            let taps = steps.push(twin);
            steps.reshape(&taps, [0, self.groups as i64, columns, -1])
        } else {
            let rows = steps.reshape(&self.node.input[0], [1, 1, -1, columns]);
            steps.transpose(&rows)
        };
        let pads = steps.integers("pads", &[0, 0, 0, 0, 0, 0, 1, 0]);
        let one =
            steps.graph.add_tensor(&format!("{}_one", steps.base), TensorRef::of(&[], &[1f32]).expect("a scalar"));
        let with_one = steps.node("Pad", &[&inputs, &pads, &one], &[]);
        let turned = steps.transpose(&with_one);
        steps.node("MatMul", &[&with_one, &turned], &[])
    }

    /// The level of each weight, for the sums of all samples.
    fn levels(&self, sums: &[f64]) -> Tensor {
        let scales = scales_of(&self.weight, self.axis);
        let numbers = self.weight.as_ref().as_slice::<f32>().expect("only f32 initialisers are placed as weights");
        let (rows, columns) = (self.rows(), self.columns());
        let mut levels = vec![0i8; numbers.len()];
        for (group, sums) in sums.chunks_exact((columns + 1).pow(2)).enumerate() {
            let covariance = covariance(sums, columns);
            for row in group * rows / self.groups..(group + 1) * rows / self.groups {
                let exact: Vec<f32> =
                    (0..columns).map(|column| numbers[self.place(row, column)] / scales[row]).collect();
                for (column, level) in descend(&exact, &covariance).into_iter().enumerate() {
                    levels[self.place(row, column)] = level as i8;
                }
            }
        }
        Tensor::of(self.weight.shape().to_vec(), levels).expect("each weight has its level")
    }
}

/// Levels by the name of the weight. A weight that is not there is rounded to the nearest.
pub(super) fn levels(
    backend: &dyn Backend,
    model: &OnnxModel,
    samples: &dyn Samples,
) -> Result<BTreeMap<String, Tensor>, BuilderError> {
    let mut graph = model.edit()?;
    graph.lift(OPSET_AXIS)?;
    graph.sort()?;
    let weights = place(&graph, &Keep::default()).weights;
    let uses = graph.uses();
    let product = |((index, _), axis): (&(usize, usize), &usize)| {
        let node = &graph.nodes()[*index];
        Product::of(&graph, node, *axis, uses.consumers(&node.input[1]).len())
    };
    let products: Vec<Product> = weights.iter().filter_map(product).collect();
    let mut levels = BTreeMap::new();
    let mut rest = products.as_slice();
    while !rest.is_empty() {
        let mut held = 0;
        let fits = rest.iter().take_while(|product| {
            held += product.sums();
            held <= SUMS_MAX
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        rest = later;
        let mut graph = graph.clone();
        let names: Vec<String> = now.iter().map(|product| product.append(&mut graph)).collect();
        let mut sums: Vec<Vec<f64>> = now.iter().map(|product| vec![0.0; product.sums()]).collect();
        observe(backend, &[&graph.finish()?], &names, samples, &mut |value, tensors| {
            let numbers = tensors.first().and_then(|tensor| tensor.as_slice::<f32>()).unwrap_or_default();
            // A batch has several.
            for numbers in numbers.chunks_exact(sums[value].len()) {
                for (sum, number) in sums[value].iter_mut().zip(numbers) {
                    *sum += f64::from(*number);
                }
            }
        })?;
        let chosen = now.iter().zip(&sums).map(|(product, sums)| (product.node.input[1].clone(), product.levels(sums)));
        levels.extend(chosen);
    }
    Ok(levels)
}

/// The covariance of the inputs, damped, from sums whose last row and column are those of a 1.
fn covariance(sums: &[f64], columns: usize) -> Vec<f32> {
    let side = columns + 1;
    let count = sums[side * side - 1].max(1.0);
    let mean = |column: usize| sums[column * side + columns] / count;
    let of = |a: usize, b: usize| sums[a * side + b] / count - mean(a) * mean(b);
    let damping = DAMPING * (0..columns).map(|column| of(column, column).max(0.0)).sum::<f64>() / columns as f64;
    let mut covariance = Vec::with_capacity(columns * columns);
    for a in 0..columns {
        covariance.extend((0..columns).map(|b| (of(a, b) + if a == b { damping } else { 0.0 }) as f32));
    }
    covariance
}

/// Levels for one output channel: each the one below or above `exact`.
fn descend(exact: &[f32], covariance: &[f32]) -> Vec<f32> {
    let columns = exact.len();
    let bounded = |level: f32| level.clamp(-LEVEL_MAX, LEVEL_MAX);
    let mut levels: Vec<f32> = exact.iter().map(|exact| bounded(exact.round_ties_even())).collect();
    // Half the slope of the error in each weight.
    let mut slope = vec![0f32; columns];
    for (column, row) in covariance.chunks_exact(columns).enumerate() {
        add(&mut slope, row, levels[column] - exact[column]);
    }
    for _ in 0..PASSES_MAX {
        let mut changed = false;
        for column in 0..columns {
            let row = &covariance[column * columns..(column + 1) * columns];
            // What is always the same is made up for by the bias, and no number has no best level.
            if !(row[column] > 0.0 && slope[column].is_finite()) {
                continue;
            }
            let best = levels[column] - slope[column] / row[column];
            let (below, above) = (bounded(exact[column].floor()), bounded(exact[column].ceil()));
            let level = best.round_ties_even().clamp(below, above);
            if level != levels[column] {
                add(&mut slope, row, level - levels[column]);
                levels[column] = level;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    levels
}

fn add(sum: &mut [f32], row: &[f32], factor: f32) {
    if factor != 0.0 {
        for (sum, number) in sum.iter_mut().zip(row) {
            *sum += number * factor;
        }
    }
}

struct Steps<'a> {
    graph: &'a mut Graph,
    base: String,
}

impl Steps<'_> {
    fn node(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        self.push(NodeProto::new(op, "", inputs, &[], attributes))
    }

    /// Appends a node with a name and an output of its own.
    fn push(&mut self, mut node: NodeProto) -> String {
        let output = self.graph.fresh(&format!("{}/{}", self.base, node.op_type()));
        node.name = Some(self.graph.fresh(&format!("{output}/sums")));
        node.output = vec![output.clone()];
        self.graph.nodes_mut().push(node);
        output
    }

    fn integers(&mut self, name: &str, integers: &[i64]) -> String {
        let tensor = TensorRef::of(&[integers.len()], integers).expect("a list has its own length").to_owned();
        self.graph.add_tensor(&format!("{}_{name}", self.base), tensor.as_ref())
    }

    fn reshape(&mut self, value: &str, shape: [i64; 4]) -> String {
        let shape = self.integers("shape", &shape);
        self.node("Reshape", &[value, &shape], &[])
    }

    /// Changes the places of the last two of four dimensions.
    fn transpose(&mut self, value: &str) -> String {
        self.node("Transpose", &[value], &[("perm", Attribute::Ints(vec![0, 1, 3, 2]))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(exact: &[f32], levels: &[f32], covariance: &[f32]) -> f32 {
        let lost: Vec<f32> = exact.iter().zip(levels).map(|(exact, level)| level - exact).collect();
        let mut sum = 0.0;
        for (a, row) in lost.iter().zip(covariance.chunks_exact(lost.len())) {
            sum += a * row.iter().zip(&lost).map(|(c, b)| c * b).sum::<f32>();
        }
        sum
    }

    #[test]
    fn errors_of_inputs_that_go_together_cancel() {
        // All but alike: what counts is the sum of the weights, 5.6.
        let exact = [1.4f32, 1.4, 1.4, 1.4];
        let covariance: Vec<f32> = (0..16).map(|index| if index % 5 == 0 { 1.01 } else { 1.0 }).collect();
        let levels = descend(&exact, &covariance);
        assert_eq!(levels.iter().sum::<f32>(), 6.0, "{levels:?}");
        assert!(levels.iter().all(|level| [1.0, 2.0].contains(level)));
        assert!(error(&exact, &levels, &covariance) < error(&exact, &[1.0; 4], &covariance));
    }

    #[test]
    fn independent_inputs_take_the_nearest_level() {
        let exact = [0.4f32, -1.6, 126.9, -127.3];
        let covariance: Vec<f32> = (0..16).map(|index| if index % 5 == 0 { 2.0 } else { 0.0 }).collect();
        assert_eq!(descend(&exact, &covariance), [0.0, -2.0, 127.0, -127.0]);
    }

    #[test]
    fn a_covariance_follows_from_the_sums() {
        // Two inputs, seen as (1, 2) and (3, 6).
        let sums = [10.0, 20.0, 4.0, 20.0, 40.0, 8.0, 4.0, 8.0, 2.0];
        let damping = 0.01 * (1.0 + 4.0) as f32 / 2.0;
        assert_eq!(covariance(&sums, 2), [1.0 + damping, 2.0, 2.0, 4.0 + damping]);
    }
}
