//! From interpolated components to normalised channels: one affine map, a clamp, another affine map.

use pulp::{Simd, WithSimd};
use revoada_core::{ChannelOrder, ColorMatrix, ColorRange, ImageTransform, ImageView, PixelFormat};

use super::LANES;

/// Every conversion that staging knows, from up to three components to up to three channels:
/// `clamp(matrix · components + offset, 0, 255) · scale + bias`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    matrix: [[f32; 3]; 3],
    offset: [f32; 3],
    scale: [f32; 3],
    bias: [f32; 3],
}

/// Two resampled rows of one component and the share of the lower.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blend<'a> {
    pub(super) upper: &'a [f32],
    pub(super) lower: &'a [f32],
    pub(super) weight: f32,
}

impl Mix {
    pub(super) fn new(image: &ImageView<'_>, transform: &ImageTransform) -> Self {
        let channels = transform.channels;
        let rows = match image.format() {
            PixelFormat::Nv12 | PixelFormat::I420 => from_yuv(image, channels),
            PixelFormat::Rgb => from_rgb(channels),
            PixelFormat::Bgr => from_rgb(channels).map(|([r, g, b], offset)| ([b, g, r], offset)),
            PixelFormat::Gray => [([1.0, 0.0, 0.0], 0.0); 3],
        };
        let ImageTransform { mean, scale, .. } = *transform;
        Self {
            matrix: rows.map(|(row, _)| row.map(|factor| factor as f32)),
            offset: rows.map(|(_, offset)| offset as f32),
            scale,
            bias: std::array::from_fn(|channel| (-f64::from(mean[channel]) * f64::from(scale[channel])) as f32),
        }
    }
}

/// The factors of one channel and what is added.
type Row = ([f64; 3], f64);

/// The shares of red and blue in luma: Rec. ITU-R BT.601-7 section 2.5.1, BT.709-6 item 3.2.
pub(super) fn luma_weights(matrix: ColorMatrix) -> (f64, f64) {
    match matrix {
        ColorMatrix::Bt601 => (0.299, 0.114),
        ColorMatrix::Bt709 => (0.2126, 0.0722),
    }
}

fn from_yuv(image: &ImageView<'_>, channels: ChannelOrder) -> [Row; 3] {
    let (black, luma, chroma) = match image.color().range {
        ColorRange::Limited => (16.0, 255.0 / 219.0, 255.0 / 224.0),
        ColorRange::Full => (0.0, 1.0, 1.0),
    };
    let (kr, kb) = luma_weights(image.color().matrix);
    let (red_by_v, blue_by_u) = (2.0 * (1.0 - kr) * chroma, 2.0 * (1.0 - kb) * chroma);
    let kg = 1.0 - kr - kb;
    let row = |u: f64, v: f64| ([luma, u, v], -black * luma - 128.0 * (u + v));
    let (red, green, blue) = (row(0.0, red_by_v), row(-blue_by_u * kb / kg, -red_by_v * kr / kg), row(blue_by_u, 0.0));
    match channels {
        ChannelOrder::Rgb => [red, green, blue],
        ChannelOrder::Bgr => [blue, green, red],
        ChannelOrder::Gray => [row(0.0, 0.0); 3],
    }
}

fn from_rgb(channels: ChannelOrder) -> [Row; 3] {
    let (red, green, blue) = (([1.0, 0.0, 0.0], 0.0), ([0.0, 1.0, 0.0], 0.0), ([0.0, 0.0, 1.0], 0.0));
    match channels {
        ChannelOrder::Rgb => [red, green, blue],
        ChannelOrder::Bgr => [blue, green, red],
        ChannelOrder::Gray => [([0.299, 0.587, 0.114], 0.0); 3],
    }
}

/// Blends `K` components vertically and maps them to `C` channels. The inputs are whole blocks long,
/// the outputs as long as the network's row.
pub(super) struct MixRow<'a, const K: usize, const C: usize> {
    pub(super) inputs: [Blend<'a>; K],
    pub(super) mix: &'a Mix,
    pub(super) outputs: [&'a mut [f32]; C],
}

impl<const K: usize, const C: usize> WithSimd for MixRow<'_, K, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { inputs, mix, mut outputs } = self;
        let width = outputs[0].len();
        let whole = width / LANES;
        for block in 0..whole {
            let channels = mix_block::<K, C>(&inputs, block, mix);
            for (output, channel) in outputs.iter_mut().zip(&channels) {
                output[block * LANES..][..LANES].copy_from_slice(channel);
            }
        }
        if whole * LANES < width {
            let channels = mix_block::<K, C>(&inputs, whole, mix);
            for (output, channel) in outputs.iter_mut().zip(&channels) {
                let rest = &mut output[whole * LANES..];
                rest.copy_from_slice(&channel[..rest.len()]);
            }
        }
    }
}

#[inline(always)]
fn mix_block<const K: usize, const C: usize>(inputs: &[Blend<'_>; K], block: usize, mix: &Mix) -> [[f32; LANES]; C] {
    let mut components = [[0.0f32; LANES]; K];
    for (component, input) in components.iter_mut().zip(inputs) {
        let (upper, lower) = (&input.upper[block * LANES..][..LANES], &input.lower[block * LANES..][..LANES]);
        for lane in 0..LANES {
            component[lane] = upper[lane] + (lower[lane] - upper[lane]) * input.weight;
        }
    }
    let mut channels = [[0.0f32; LANES]; C];
    for (index, channel) in channels.iter_mut().enumerate() {
        for lane in 0..LANES {
            let mut sum = mix.offset[index];
            for (component, factor) in components.iter().zip(&mix.matrix[index]) {
                sum += component[lane] * factor;
            }
            channel[lane] = sum.clamp(0.0, 255.0) * mix.scale[index] + mix.bias[index];
        }
    }
    channels
}
