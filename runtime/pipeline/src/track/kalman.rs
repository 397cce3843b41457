//! Kalman filters of boxes that move at a constant speed.
//!
//! The trackers' papers write them with 7 or 8 states. Their noise and first uncertainty are diagonal, and motion ties
//! a coordinate to its own speed alone, so that the covariance never gets an entry between two coordinates: each is a
//! filter of its own, with the same numbers at a fraction of the work. Time is counted in frames.

use super::Warp;
use super::bounds::Bounds;

/// A coordinate and its speed, with their covariance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moving {
    pub(super) value: f64,
    pub(super) speed: f64,
    variance: f64,
    /// Between the value and the speed.
    covariance: f64,
    speed_variance: f64,
}

impl Moving {
    fn new(value: f64, variance: f64, speed_variance: f64) -> Self {
        Self { value, speed: 0.0, variance, covariance: 0.0, speed_variance }
    }

    /// One frame later; the variances of the noise are added.
    fn predict(&mut self, noise: f64, speed_noise: f64) {
        self.value += self.speed;
        self.variance += 2.0 * self.covariance + self.speed_variance + noise;
        self.covariance += self.speed_variance;
        self.speed_variance += speed_noise;
    }

    /// The value was measured with a noise of that variance.
    fn update(&mut self, measured: f64, noise: f64) {
        let total = self.variance + noise;
        let (gain, speed_gain) = (self.variance / total, self.covariance / total);
        let innovation = measured - self.value;
        self.value += gain * innovation;
        self.speed += speed_gain * innovation;
        self.speed_variance -= speed_gain * self.covariance;
        self.variance *= noise / total;
        self.covariance *= noise / total;
    }

    /// In units that are smaller by `factor`.
    fn scale(&mut self, factor: f64) {
        self.value *= factor;
        self.speed *= factor;
        self.variance *= factor * factor;
        self.covariance *= factor * factor;
        self.speed_variance *= factor * factor;
    }
}

/// Moves a centre with the picture. What a shear would correlate between the coordinates is left out: a turn, a shift
/// and a zoom, which cameras make, correlate nothing where both coordinates are known equally well.
fn warp_center(x: &mut Moving, y: &mut Moving, warp: &Warp) {
    let (before_x, before_y) = (*x, *y);
    (x.value, y.value) = warp.place(x.value, y.value);
    (x.speed, y.speed) = warp.turn(x.speed, y.speed);
    for (coordinate, row) in [(x, warp.matrix[0]), (y, warp.matrix[1])] {
        let mix = |of_x: f64, of_y: f64| row[0] * row[0] * of_x + row[1] * row[1] * of_y;
        coordinate.variance = mix(before_x.variance, before_y.variance);
        coordinate.covariance = mix(before_x.covariance, before_y.covariance);
        coordinate.speed_variance = mix(before_x.speed_variance, before_y.speed_variance);
    }
}

/// A box by its centre, its area and the ratio of its sides, of which the last has no speed: the filter of SORT.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AreaMotion {
    x: Moving,
    y: Moving,
    area: Moving,
    ratio: f64,
    ratio_variance: f64,
}

/// What SORT's filter measures of a box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AreaBox {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) area: f64,
    /// Width over height.
    pub(super) ratio: f64,
}

impl AreaBox {
    pub(super) fn of(bounds: &Bounds) -> Self {
        let (width, height) = (bounds.width(), bounds.height());
        Self { x: bounds.left + width / 2.0, y: bounds.top + height / 2.0, area: width * height, ratio: width / height }
    }

    pub(super) fn warped(&self, warp: &Warp) -> Self {
        let (x, y) = warp.place(self.x, self.y);
        Self { x, y, area: self.area * warp.scale().powi(2), ratio: self.ratio }
    }
}

impl AreaMotion {
    const VARIANCE: f64 = 10.0;
    const SPEED_VARIANCE: f64 = 10_000.0;
    const MEASURING_NOISE: f64 = 1.0;
    const MEASURING_NOISE_SHAPE: f64 = 10.0;
    const NOISE: f64 = 1.0;
    const NOISE_SPEED: f64 = 0.01;
    const NOISE_AREA_SPEED: f64 = 0.0001;

    pub(super) fn new(first: AreaBox) -> Self {
        let moving = |value| Moving::new(value, Self::VARIANCE, Self::SPEED_VARIANCE);
        Self {
            x: moving(first.x),
            y: moving(first.y),
            area: moving(first.area),
            ratio: first.ratio,
            ratio_variance: Self::VARIANCE,
        }
    }

    pub(super) fn predict(&mut self) {
        // An area does not shrink to nothing.
        if self.area.speed + self.area.value <= 0.0 {
            self.area.speed = 0.0;
        }
        self.x.predict(Self::NOISE, Self::NOISE_SPEED);
        self.y.predict(Self::NOISE, Self::NOISE_SPEED);
        self.area.predict(Self::NOISE, Self::NOISE_AREA_SPEED);
        self.ratio_variance += Self::NOISE;
    }

    pub(super) fn update(&mut self, measured: AreaBox) {
        self.x.update(measured.x, Self::MEASURING_NOISE);
        self.y.update(measured.y, Self::MEASURING_NOISE);
        self.area.update(measured.area, Self::MEASURING_NOISE_SHAPE);
        let gain = self.ratio_variance / (self.ratio_variance + Self::MEASURING_NOISE_SHAPE);
        self.ratio += gain * (measured.ratio - self.ratio);
        self.ratio_variance *= 1.0 - gain;
    }

    /// Not finite where the filter lost itself: an area below nothing.
    pub(super) fn bounds(&self) -> Bounds {
        let width = (self.area.value * self.ratio).sqrt();
        Bounds::around(self.x.value, self.y.value, width, self.area.value / width)
    }

    pub(super) fn warp(&mut self, warp: &Warp) {
        warp_center(&mut self.x, &mut self.y, warp);
        self.area.scale(warp.scale().powi(2));
    }
}

/// A box by its centre, the ratio of its sides and its height, with noise in proportion to the height: the filter of
/// DeepSORT, which ByteTrack uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HeightMotion {
    x: Moving,
    y: Moving,
    ratio: Moving,
    height: Moving,
}

impl HeightMotion {
    /// Of the height, in one frame.
    const DEVIATION: f64 = 1.0 / 20.0;
    const SPEED_DEVIATION: f64 = 1.0 / 160.0;
    const RATIO_DEVIATION: f64 = 1e-2;
    const RATIO_SPEED_DEVIATION: f64 = 1e-5;
    const RATIO_MEASURING_DEVIATION: f64 = 1e-1;

    pub(super) fn new(first: &Bounds) -> Self {
        let (x, y, ratio, height) = Self::measured(first);
        let variance = (2.0 * Self::DEVIATION * height).powi(2);
        let speed_variance = (10.0 * Self::SPEED_DEVIATION * height).powi(2);
        let moving = |value| Moving::new(value, variance, speed_variance);
        Self {
            x: moving(x),
            y: moving(y),
            ratio: Moving::new(ratio, Self::RATIO_DEVIATION.powi(2), Self::RATIO_SPEED_DEVIATION.powi(2)),
            height: moving(height),
        }
    }

    fn measured(bounds: &Bounds) -> (f64, f64, f64, f64) {
        let (width, height) = (bounds.width(), bounds.height());
        (bounds.left + width / 2.0, bounds.top + height / 2.0, width / height, height)
    }

    /// What is out of sight keeps its height.
    pub(super) fn hold_height(&mut self) {
        self.height.speed = 0.0;
    }

    pub(super) fn predict(&mut self) {
        let noise = (Self::DEVIATION * self.height.value).powi(2);
        let speed_noise = (Self::SPEED_DEVIATION * self.height.value).powi(2);
        for coordinate in [&mut self.x, &mut self.y, &mut self.height] {
            coordinate.predict(noise, speed_noise);
        }
        self.ratio.predict(Self::RATIO_DEVIATION.powi(2), Self::RATIO_SPEED_DEVIATION.powi(2));
    }

    pub(super) fn update(&mut self, bounds: &Bounds) {
        let (x, y, ratio, height) = Self::measured(bounds);
        let noise = (Self::DEVIATION * self.height.value).powi(2);
        self.x.update(x, noise);
        self.y.update(y, noise);
        self.ratio.update(ratio, Self::RATIO_MEASURING_DEVIATION.powi(2));
        self.height.update(height, noise);
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds::around(self.x.value, self.y.value, self.ratio.value * self.height.value, self.height.value)
    }

    pub(super) fn warp(&mut self, warp: &Warp) {
        warp_center(&mut self.x, &mut self.y, warp);
        self.height.scale(warp.scale());
    }
}

#[cfg(test)]
mod tests;
