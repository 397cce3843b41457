//! Pictures of a world that is known at every point.

// Every test file uses its own part of this.
#![allow(dead_code, unreachable_pub)]

use revoada_core::{ColorSpec, ImageLayout, ImageView, PixelFormat, Rect, Size};

/// A picture and its layout.
pub struct Picture {
    pub layout: ImageLayout,
    pub pixels: Vec<u8>,
}

impl Picture {
    pub fn view(&self) -> ImageView<'_> {
        ImageView::new(self.layout, &self.pixels).expect("the picture is whole")
    }
}

/// Every sample of a picture from its plane, its channel and its place in the whole picture.
pub fn painted(format: PixelFormat, size: Size, paint: impl Fn(usize, usize, f64, f64) -> f64) -> Picture {
    let layout = ImageLayout::packed(format, ColorSpec::default(), size);
    let mut pixels = Vec::new();
    for (plane, &(row, rows)) in format.planes(size).as_slice().iter().enumerate() {
        let (channels, step) = match (format, plane) {
            (PixelFormat::Rgb | PixelFormat::Bgr, _) => (3, 1.0),
            (_, 0) => (1, 1.0),
            (PixelFormat::Nv12, _) => (2, 2.0),
            _ => (1, 2.0),
        };
        for y in 0..rows {
            for x in 0..row / channels {
                let (x, y) = ((x as f64 + 0.5) * step, (y as f64 + 0.5) * step);
                pixels.extend((0..channels).map(|channel| paint(plane, channel, x, y).round().clamp(0.0, 255.0) as u8));
            }
        }
    }
    Picture { layout, pixels }
}

/// Smooth blots of several sizes, 20 to 235; the seed makes another world.
pub fn blots(seed: u64, x: f64, y: f64) -> f64 {
    let layers = [(40.0, 0.5), (13.0, 0.3), (6.0, 0.2)];
    let sum: f64 = layers
        .iter()
        .enumerate()
        .map(|(index, (side, weight))| weight * noise(seed * 8 + index as u64, x / side, y / side))
        .sum();
    20.0 + 215.0 * sum
}

/// Chance at whole numbers, smooth between them.
fn noise(seed: u64, x: f64, y: f64) -> f64 {
    let at = |dx: f64, dy: f64| chance(seed, (x.floor() + dx) as i64, (y.floor() + dy) as i64);
    let ease = |t: f64| t * t * (3.0 - 2.0 * t);
    let (right, down) = (ease(x - x.floor()), ease(y - y.floor()));
    let blend = |a: f64, b: f64, t: f64| a + (b - a) * t;
    blend(blend(at(0.0, 0.0), at(1.0, 0.0), right), blend(at(0.0, 1.0), at(1.0, 1.0), right), down)
}

/// SplitMix64 of a place, as a fraction.
fn chance(seed: u64, x: i64, y: i64) -> f64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (x as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        ^ (y as u64).rotate_left(32);
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        z = (z ^ (z >> 30)).wrapping_mul(factor);
    }
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Whether a place lies in a box.
pub fn covers(bounds: Rect, x: f64, y: f64) -> bool {
    (f64::from(bounds.x)..f64::from(bounds.right())).contains(&x)
        && (f64::from(bounds.y)..f64::from(bounds.bottom())).contains(&y)
}
