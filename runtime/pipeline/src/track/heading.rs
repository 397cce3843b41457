//! Which way tracks go, and how well a detection lies on that way.
//!
//! Every pair of a track and a detection is asked about in every frame, so that this is most of OC-SORT's work: numbers lie
//! in columns and nothing branches, which lets the compiler take several tracks at once.

use std::f64::consts::{FRAC_PI_2, PI};

use super::oc_sort::TINY;

/// Of each track where it came from, and a unit vector of its direction; zeros where it has none.
#[derive(Debug, Default)]
pub(super) struct Headings {
    from_x: Vec<f64>,
    from_y: Vec<f64>,
    direction_x: Vec<f64>,
    direction_y: Vec<f64>,
}

impl Headings {
    pub(super) fn clear(&mut self) {
        self.columns_mut().into_iter().for_each(Vec::clear);
    }

    /// The next track's place and direction.
    pub(super) fn push(&mut self, heading: Option<((f64, f64), (f64, f64))>) {
        let ((from_x, from_y), (direction_x, direction_y)) = heading.unwrap_or_default();
        let values = [from_x, from_y, direction_x, direction_y];
        self.columns_mut().into_iter().zip(values).for_each(|(column, value)| column.push(value));
    }

    fn columns_mut(&mut self) -> [&mut Vec<f64>; 4] {
        [&mut self.from_x, &mut self.from_y, &mut self.direction_x, &mut self.direction_y]
    }

    /// Adds to each track's gain `weight` times 0.5 where a detection at `to` is straight ahead, −0.5 where it is behind,
    /// and in between by the angle.
    pub(super) fn add_agreements(&self, to: (f64, f64), weight: f64, gains: &mut [f64]) {
        let Self { from_x, from_y, direction_x, direction_y } = self;
        let from = from_x.iter().zip(from_y);
        let directions = direction_x.iter().zip(direction_y);
        for (gain, ((from_x, from_y), (direction_x, direction_y))) in gains.iter_mut().zip(from.zip(directions)) {
            let (x, y) = (to.0 - from_x, to.1 - from_y);
            let cosine = (x * direction_x + y * direction_y) / ((x * x + y * y).sqrt() + TINY);
            *gain += arc_sine(cosine.clamp(-1.0, 1.0)) / PI * weight;
        }
    }
}

/// The standard library's calls a function for each number. As in Sun's fdlibm, `e_asin.c`: a rational function near zero,
/// and the half angle's sine elsewhere.
fn arc_sine(sine: f64) -> f64 {
    const P: [f64; 6] = [
        1.666_666_666_666_666_6e-1,
        -3.255_658_186_224_009e-1,
        2.012_125_321_348_629_3e-1,
        -4.005_553_450_067_941e-2,
        7.915_349_942_898_145e-4,
        3.479_331_075_960_212e-5,
    ];
    const Q: [f64; 5] =
        [1.0, -2.403_394_911_734_414, 2.020_945_760_233_505_7, -6.882_839_716_054_533e-1, 7.703_815_055_590_194e-2];
    fn polynomial(coefficients: &[f64], x: f64) -> f64 {
        coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
    }
    let size = sine.abs();
    let is_near = size < 0.5;
    let square = if is_near { size * size } else { (1.0 - size) / 2.0 };
    let base = if is_near { size } else { square.sqrt() };
    let arc = base + base * (square * polynomial(&P, square) / polynomial(&Q, square));
    (if is_near { arc } else { FRAC_PI_2 - 2.0 * arc }).copysign(sine)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_arc_sine_is_the_standard_one(sine in -1.0f64..=1.0) {
            prop_assert!((arc_sine(sine) - sine.asin()).abs() < 1e-15);
        }

        #[test]
        fn agreement_is_by_the_angle(angle in -3.1f64..3.1, distance in 1.0f64..100.0, weight in 0.0f64..1.0) {
            let mut headings = Headings::default();
            headings.push(Some(((3.0, 4.0), (0.0, -1.0))));
            headings.push(None);
            let mut gains = [1.0, 2.0];
            let to = (3.0 + distance * angle.sin(), 4.0 - distance * angle.cos());
            headings.add_agreements(to, weight, &mut gains);
            // A length is made longer by a millionth.
            prop_assert!((gains[0] - 1.0 - weight * (0.5 - angle.abs() / PI)).abs() < 1e-2);
            prop_assert_eq!(gains[1], 2.0);
        }
    }

    #[test]
    fn the_ends_and_the_middle_are_exact() {
        let mut headings = Headings::default();
        headings.push(Some(((0.0, 0.0), (1.0, 0.0))));
        for (to, expected) in [((1e9, 0.0), 0.5), ((-1e9, 0.0), -0.5), ((0.0, 7.0), 0.0), ((0.0, 0.0), 0.0)] {
            let mut gains = [0.0];
            headings.add_agreements(to, 1.0, &mut gains);
            assert!((gains[0] - expected).abs() < 1e-7, "{to:?}: {gains:?}");
        }
    }
}
