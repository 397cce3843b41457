//! Looking inside a model: the values between its nodes, for every sample, in bounded memory.

use std::collections::BTreeMap;

use revoada_bundle::onnx::{ElementType, OnnxError, OnnxModel};
use revoada_core::{Tensor, TensorRef};
use revoada_engine::Backend;

use crate::BuilderError;
use crate::run::{Runner, Samples, sample};

/// Values that are held at once, whichever model they are of. A backend needs as much again for what it
/// computes them from.
const OBSERVED_BYTES_MAX: u64 = 256 << 20;

/// What a value whose shape is not known counts for.
const UNKNOWN_BYTES: u64 = 16 << 20;

/// Runs each of `models` on every sample and hands `visit` the index of each value of `values` with its tensor
/// in each model, sample after sample. Where the values of one sample do not fit into memory together, the
/// samples are run again for the rest of them, so that the same value comes once for each sample but not
/// every value of a sample comes at once.
///
/// Every value must exist in every model and be f32; it may be an input of the model, too.
pub(crate) fn observe(
    backend: &dyn Backend,
    models: &[&OnnxModel],
    values: &[String],
    samples: &dyn Samples,
    visit: &mut dyn FnMut(usize, &[TensorRef<'_>]),
) -> Result<(), BuilderError> {
    let (Some(first), true) = (models.first(), samples.count() > 0) else { return Err(BuilderError::NoSamples) };
    let sizes = sizes(first, values, samples)?;
    let inputs: Vec<String> = first.inputs()?.into_iter().map(|spec| spec.name).collect();
    let fed = |value: usize| inputs.iter().position(|input| *input == values[value]);
    let count = models.len();
    for part in parts(&sizes, OBSERVED_BYTES_MAX / models.len() as u64) {
        let (given, made): (Vec<usize>, Vec<usize>) = part.partition(|value| fed(*value).is_some());
        let names: Vec<&str> = made.iter().map(|value| values[*value].as_str()).collect();
        let models = models.iter().filter(|_| !made.is_empty());
        let runners = models.map(|model| Ok(Runner::load(backend, &exposing(model, &names)?)?));
        let mut runners: Vec<Runner> = runners.collect::<Result<_, BuilderError>>()?;
        for index in 0..samples.count() {
            let inputs_of = sample(samples, index)?;
            if inputs_of.len() != inputs.len() {
                return Err(BuilderError::SampleInputs { index, expected: inputs.len(), got: inputs_of.len() });
            }
            let answers = runners.iter_mut().map(|runner| runner.run(index, &inputs_of));
            let answers: Vec<Vec<TensorRef<'_>>> = answers.collect::<Result<_, _>>()?;
            for (place, value) in made.iter().enumerate() {
                let tensors: Vec<TensorRef<'_>> = answers.iter().map(|answer| answer[place]).collect();
                visit(*value, &tensors);
            }
            for value in &given {
                let input = fed(*value).and_then(|place| inputs_of.get(place)).map(Tensor::as_ref);
                visit(*value, &vec![input.expect("the sample has as many inputs as the model"); count]);
            }
        }
    }
    Ok(())
}

/// The model with these values as its outputs.
fn exposing(model: &OnnxModel, values: &[&str]) -> Result<OnnxModel, OnnxError> {
    let mut graph = model.edit()?;
    graph.clear_outputs();
    for value in values {
        graph.expose(value, ElementType::FLOAT);
    }
    graph.remove_unused();
    graph.finish()
}

/// Bytes of each value for inputs like the first sample.
fn sizes(model: &OnnxModel, values: &[String], samples: &dyn Samples) -> Result<Vec<u64>, BuilderError> {
    let inputs = sample(samples, 0)?;
    let specs = model.inputs()?;
    let named = specs.iter().zip(inputs.iter());
    let shapes: BTreeMap<String, Vec<usize>> =
        named.map(|(spec, input)| (spec.name.clone(), input.shape().to_vec())).collect();
    let known = model.value_shapes(&shapes)?;
    let size = |value: &String| {
        let count = known.get(value)?.1.iter().try_fold(4u64, |bytes, dim| bytes.checked_mul(*dim as u64));
        Some(count.unwrap_or(u64::MAX))
    };
    Ok(values.iter().map(|value| size(value).unwrap_or(UNKNOWN_BYTES)).collect())
}

/// Cuts a list where its sum passes `bytes_max`; every part has one element at least.
fn parts(sizes: &[u64], bytes_max: u64) -> Vec<std::ops::Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut sum) = (0, 0u64);
    for (index, size) in sizes.iter().enumerate() {
        if index > start && sum.saturating_add(*size) > bytes_max {
            parts.push(start..index);
            (start, sum) = (index, 0);
        }
        sum = sum.saturating_add(*size);
    }
    if start < sizes.len() {
        parts.push(start..sizes.len());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_below_the_bound_where_one_value_alone_does() {
        assert_eq!(parts(&[], 10), []);
        assert_eq!(parts(&[4, 4, 4, 20, 4], 10), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(parts(&[u64::MAX, u64::MAX], 10), [0..1, 1..2]);
    }
}
