//! Batch normalisation, folded into the convolution before it.

use revoada_bundle::onnx::Graph;
use revoada_core::{Tensor, TensorRef};

/// What the standard says where a node does not.
const EPSILON: f32 = 1e-5;

/// Multiplies each normalisation that directly follows a convolution into the convolution's weights and bias,
/// where it is constant and finite, and where nothing else reads between them. Says how many went.
pub(super) fn fold(graph: &mut Graph) -> usize {
    let mut folded = 0;
    let mut index = 0;
    while index < graph.nodes().len() {
        match fold_one(graph, index) {
            Some(()) => {
                graph.nodes_mut().remove(index);
                folded += 1;
            }
            None => index += 1,
        }
    }
    graph.remove_unused();
    folded
}

/// `None` where the node at `index` is none that can be folded; then nothing is changed.
fn fold_one(graph: &mut Graph, index: usize) -> Option<()> {
    let node = &graph.nodes()[index];
    let trains = node.int("training_mode").unwrap_or(0) != 0;
    let x = node.input_name(0)?;
    if !node.is("BatchNormalization") || trains || node.output.len() != 1 || graph.is_output(x) {
        return None;
    }
    let uses = graph.uses();
    let before = uses.producer(x).filter(|_| uses.consumers(x).len() == 1)?;
    let conv = &graph.nodes()[before];
    let transposed = conv.is("ConvTranspose");
    if !(conv.is("Conv") || transposed) {
        return None;
    }
    let numbers = |name: &str| graph.tensor(name)?.as_ref().as_slice::<f32>().map(<[f32]>::to_vec);
    let parameter = |input: usize| numbers(node.input_name(input)?);
    let (scale, shift, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
    let channels = scale.len();
    let bias = match conv.input_name(2) {
        Some(name) => numbers(name)?,
        None => vec![0.0; channels],
    };
    let weight = graph.tensor(conv.input_name(1)?)?;
    let group = usize::try_from(conv.int("group").unwrap_or(1)).ok().filter(|group| *group > 0)?;
    let channel_of = channels_of(weight.shape(), transposed, group, channels)?;
    if [&shift, &mean, &variance, &bias].iter().any(|list| list.len() != channels) {
        return None;
    }
    let epsilon = f64::from(node.float("epsilon").unwrap_or(EPSILON));
    let factors: Vec<f64> = scale
        .iter()
        .zip(&variance)
        .map(|(scale, variance)| f64::from(*scale) / (f64::from(*variance) + epsilon).sqrt())
        .collect();
    let weights = weight.as_ref().as_slice::<f32>()?;
    let weights: Vec<f32> = weights
        .iter()
        .enumerate()
        .map(|(place, number)| (f64::from(*number) * factors[channel_of(place)]) as f32)
        .collect();
    let biases: Vec<f32> = (0..channels)
        .map(|c| ((f64::from(bias[c]) - f64::from(mean[c])) * factors[c] + f64::from(shift[c])) as f32)
        .collect();
    // A variance of nothing makes infinities, and a weight that vanishes was one before.
    if weights.iter().chain(&biases).any(|number| !number.is_finite()) {
        return None;
    }

    let (output, name) = (node.output[0].clone(), conv.input[1].clone());
    let bias_name = conv.input_name(2).map_or_else(|| format!("{}_bias", conv.label()), str::to_owned);
    let weights = Tensor::of(weight.shape().to_vec(), weights).ok()?;
    let alone = |name: &str| uses.consumers(name).len() == 1 && !graph.is_output(name);
    let (weight_alone, bias_alone) = (alone(&name), alone(&bias_name));
    let mut write = |name: String, alone: bool, tensor: TensorRef<'_>| match alone {
        true => {
            graph.set_tensor(&name, tensor);
            name
        }
        false => graph.add_tensor(&name, tensor),
    };
    let weight_name = write(name, weight_alone, weights.as_ref());
    let bias_name = write(bias_name, bias_alone, TensorRef::of(&[channels], &biases).ok()?);
    let conv = &mut graph.nodes_mut()[before];
    conv.input.truncate(2);
    conv.input[1] = weight_name;
    conv.input.push(bias_name);
    conv.output[0] = output;
    Some(())
}

/// Which channel of the output a weight belongs to, by its place; `None` where the shape does not fit.
fn channels_of(
    shape: &[usize],
    transposed: bool,
    group: usize,
    channels: usize,
) -> Option<impl Fn(usize) -> usize + use<>> {
    let [first, second, kernel @ ..] = shape else { return None };
    let (first, second) = (*first, *second);
    let kernel: usize = kernel.iter().product();
    let per_group = first.checked_div(group)?;
    let fits = if transposed { second * group == channels && per_group > 0 } else { first == channels };
    fits.then_some(move |place: usize| {
        let row = place / (kernel * second).max(1);
        match transposed {
            false => row,
            true => row / per_group * second + place / kernel.max(1) % second,
        }
    })
}
