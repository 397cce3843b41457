//! Ranges from samples: one look for the largest magnitudes, a second one for what lies below.

use std::collections::BTreeMap;

use revoada_bundle::onnx::OnnxModel;
use revoada_engine::Backend;

use super::Method;
use super::histogram::Histogram;
use crate::observe::observe;
use crate::{BuilderError, Samples};

/// The range of a value that is zero on every sample. Any will do.
const RANGE_OF_ZEROS: f32 = 1.0;

pub(super) fn ranges(
    backend: &dyn Backend,
    model: &OnnxModel,
    samples: &dyn Samples,
    method: Method,
    values: &[String],
) -> Result<BTreeMap<String, f32>, BuilderError> {
    let mut largest: Vec<Option<f32>> = vec![None; values.len()];
    observe(backend, &[model], values, samples, &mut |value, tensors| {
        let numbers = tensors.first().and_then(|tensor| tensor.as_slice::<f32>()).unwrap_or_default();
        for number in numbers.iter().filter(|number| number.is_finite()) {
            largest[value] = Some(largest[value].map_or(number.abs(), |largest| largest.max(number.abs())));
        }
    })?;
    if let Some(value) = largest.iter().position(Option::is_none) {
        return Err(BuilderError::NoRange { value: values[value].clone() });
    }
    let mut histograms: Vec<Histogram> = largest
        .iter()
        .map(|largest| Histogram::new(largest.filter(|largest| *largest > 0.0).unwrap_or(RANGE_OF_ZEROS)))
        .collect();
    if method != Method::MinMax {
        observe(backend, &[model], values, samples, &mut |value, tensors| {
            let numbers = tensors.first().and_then(|tensor| tensor.as_slice::<f32>()).unwrap_or_default();
            histograms[value].add(numbers);
        })?;
    }
    let ranges = values.iter().zip(&histograms).map(|(value, histogram)| (value.clone(), histogram.range(method)));
    Ok(ranges.collect())
}
