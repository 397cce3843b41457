//! Gaussian noise.

use std::f64::consts::TAU;

/// The standard deviation of the noise on a mean of so many updates, each of which counts once and is no longer than the
/// clipping norm: `multiplier` is what an [`Accountant`](super::Accountant) notes.
pub fn deviation(multiplier: f64, norm: f64, updates: usize) -> f64 {
    multiplier * norm / updates as f64
}

/// Adds noise to each value. `random` gives 64 random bits at a time: of a cryptographic generator, since whoever can guess
/// them can take the noise off again.
///
/// Numbers are drawn in double precision and rounded to the values' single precision afterwards; of what an attacker could
/// learn from the least bits of a double, that leaves nothing (Mironov, "On Significance of the Least Significant Bits for
/// Differential Privacy", 2012).
pub fn add_noise(values: &mut [f32], deviation: f64, mut random: impl FnMut() -> u64) {
    for pair in values.chunks_mut(2) {
        for (value, noise) in pair.iter_mut().zip(normal(&mut random)) {
            *value = (f64::from(*value) + deviation * noise) as f32;
        }
    }
}

/// Two normal numbers (Box and Muller, 1958).
fn normal(random: &mut impl FnMut() -> u64) -> [f64; 2] {
    // 53 bits, as a double has; the first is above zero, so that it has a logarithm.
    let mut uniform = |least: u64| ((random() >> 11) + least) as f64 / (1_u64 << 53) as f64;
    let (radius, angle) = ((-2.0 * uniform(1).ln()).sqrt(), TAU * uniform(0));
    [radius * angle.cos(), radius * angle.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_as_wide_as_it_is_said_to_be_and_not_wider() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut values = vec![3.0_f32; 200_001];
        add_noise(&mut values, 2.0, || random.u64(..));
        let count = values.len() as f64;
        let of =
            |power: i32| values.iter().map(|value| ((f64::from(*value) - 3.0) / 2.0).powi(power)).sum::<f64>() / count;
        // A normal number's moments are 0, 1, 0 and 3; of so many, these are some standard errors.
        for (power, expected, apart) in [(1, 0.0, 0.01), (2, 1.0, 0.015), (3, 0.0, 0.03), (4, 3.0, 0.1)] {
            assert!((of(power) - expected).abs() < apart, "moment {power} is {}", of(power));
        }
        let beyond = values.iter().filter(|value| (**value - 3.0).abs() > 2.0 * 1.96).count() as f64 / count;
        assert!((beyond - 0.05).abs() < 0.003, "{beyond}");
    }

    #[test]
    fn extremes_of_chance_are_numbers() {
        for bits in [0, u64::MAX] {
            let mut values = [0.0_f32; 4];
            add_noise(&mut values, 1.0, || bits);
            assert!(values.iter().all(|value| value.is_finite()), "{values:?}");
        }
        assert_eq!(deviation(1.5, 2.0, 10), 0.3);
    }
}
