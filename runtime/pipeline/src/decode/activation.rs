//! What turns raw numbers into confidences, and the search for the best of them.

/// What is not finite stays as it is: an overflow must not become a certainty.
pub(super) fn sigmoid(logit: f32) -> f32 {
    if logit.is_finite() { 1.0 / (1.0 + (-logit).exp()) } else { logit }
}

/// The logit at which a sigmoid reaches `probability`: comparing logits saves the exponential for
/// all that is below it.
pub(super) fn logit(probability: f32) -> f32 {
    if probability <= 0.0 {
        f32::NEG_INFINITY
    } else if probability >= 1.0 {
        f32::INFINITY
    } else {
        (probability / (1.0 - probability)).ln()
    }
}

/// Softmax in place over the finite values; what is not finite stays as it is.
pub(super) fn softmax(values: &mut [f32]) {
    let greatest = values.iter().copied().filter(|value| value.is_finite()).fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f32;
    for value in values.iter_mut().filter(|value| value.is_finite()) {
        *value = (*value - greatest).exp();
        sum += *value;
    }
    for value in values.iter_mut().filter(|value| value.is_finite()) {
        *value /= sum;
    }
}

/// Whether the values are probabilities that sum to one, within what FP16 keeps of such a sum.
pub(super) fn is_distribution(values: &[f32]) -> bool {
    values.iter().all(|value| *value >= 0.0) && (values.iter().sum::<f32>() - 1.0).abs() <= 0.01
}

/// Whether every value could be a probability. NaN says nothing either way.
pub(super) fn are_probabilities(values: &[f32]) -> bool {
    !values.iter().any(|value| *value < 0.0 || *value > 1.001)
}

/// The greatest value and its first index, NaN left out; `None` where there is nothing else.
pub(super) fn best(values: &[f32]) -> Option<(usize, f32)> {
    // Eight running maxima, because one alone would be a chain of dependent comparisons.
    let mut lanes = [f32::NEG_INFINITY; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let greatest = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| if *b > a { *b } else { a });
    values.iter().position(|value| *value == greatest).map(|index| (index, greatest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_is_the_first_of_the_greatest_and_never_nan() {
        let mut values = vec![0.1f32; 21];
        (values[3], values[9], values[17]) = (f32::NAN, 0.7, 0.7);
        assert_eq!(best(&values), Some((9, 0.7)));
        values[20] = 0.9;
        assert_eq!(best(&values), Some((20, 0.9)));
        assert_eq!(best(&[f32::NAN; 9]), None);
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn logit_is_the_inverse_of_sigmoid() {
        for probability in [0.01f32, 0.25, 0.5, 0.9] {
            assert!((sigmoid(logit(probability)) - probability).abs() < 1e-6);
        }
        assert_eq!((logit(0.0), logit(1.0)), (f32::NEG_INFINITY, f32::INFINITY));
    }

    #[test]
    fn softmax_neither_overflows_nor_spreads_nan() {
        let mut values = [1000.0, 1000.0, f32::NAN, f32::INFINITY];
        softmax(&mut values);
        assert_eq!(&values[..2], &[0.5, 0.5]);
        assert!(values[2].is_nan());
    }
}
