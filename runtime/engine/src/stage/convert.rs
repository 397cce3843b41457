//! From interpolated components to normalised channels: one affine map and a clamp.

use pulp::{Simd, WithSimd};
use revoada_core::{ChannelOrder, ColorMatrix, ColorRange, ColorSpec, ImageTransform, PixelFormat};

/// Every conversion that staging knows, from up to three components to up to three channels, mean
/// and scale included: `clamp(matrix · components + offset, lowest, highest)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) matrix: [[f32; 3]; 3],
    pub(crate) offset: [f32; 3],
    /// What 0 and 255 become, in rising order.
    pub(crate) lowest: [f32; 3],
    pub(crate) highest: [f32; 3],
}

/// Two resampled rows of one component and the share of the lower.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blend<'a> {
    pub(super) upper: &'a [f32],
    pub(super) lower: &'a [f32],
    pub(super) weight: f32,
}

impl Mix {
    /// For pictures of this format; colour matters to YUV alone.
    pub(crate) fn new(format: PixelFormat, color: ColorSpec, transform: &ImageTransform) -> Self {
        let channels = transform.channels;
        let rows = match format {
            PixelFormat::Nv12 | PixelFormat::I420 => from_yuv(color, channels),
            PixelFormat::Rgb => from_rgb(channels),
            PixelFormat::Bgr => from_rgb(channels).map(|([r, g, b], offset)| ([b, g, r], offset)),
            PixelFormat::Gray => [([1.0, 0.0, 0.0], 0.0); 3],
        };
        let scale = transform.scale.map(f64::from);
        let normalised = |channel: usize, level: f64| (level - f64::from(transform.mean[channel])) * scale[channel];
        let ends = |channel: usize| (normalised(channel, 0.0) as f32, normalised(channel, 255.0) as f32);
        Self {
            matrix: std::array::from_fn(|channel| rows[channel].0.map(|factor| (factor * scale[channel]) as f32)),
            offset: std::array::from_fn(|channel| normalised(channel, rows[channel].1) as f32),
            lowest: std::array::from_fn(|channel| ends(channel).0.min(ends(channel).1)),
            highest: std::array::from_fn(|channel| ends(channel).0.max(ends(channel).1)),
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

fn from_yuv(color: ColorSpec, channels: ChannelOrder) -> [Row; 3] {
    let (black, luma, chroma) = match color.range {
        ColorRange::Limited => (16.0, 255.0 / 219.0, 255.0 / 224.0),
        ColorRange::Full => (0.0, 1.0, 1.0),
    };
    let (kr, kb) = luma_weights(color.matrix);
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

    // No closure may hold a vector operation: the compiler does not inline closures reliably, and
    // an instruction of AVX2 in a function of its own is a call.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        const { assert!(super::LANES.is_multiple_of(S::F32_LANES)) };
        let Self { inputs, mix, outputs } = self;
        let width = outputs[0].len();
        let (whole, vectors) = (width / S::F32_LANES, width.div_ceil(S::F32_LANES));
        let uppers = inputs.map(|input| &S::as_simd_f32s(input.upper).0[..vectors]);
        let lowers = inputs.map(|input| &S::as_simd_f32s(input.lower).0[..vectors]);
        let weights = inputs.map(|input| input.weight);
        let outputs = outputs.map(|output| S::as_mut_simd_f32s(&mut output[..width]));
        for index in 0..whole {
            let channels: [S::f32s; C] = mix_vectors(simd, uppers, lowers, weights, index, mix);
            for c in 0..C {
                outputs[c].0[index] = channels[c];
            }
        }
        if whole < vectors {
            let channels: [S::f32s; C] = mix_vectors(simd, uppers, lowers, weights, whole, mix);
            for c in 0..C {
                simd.partial_store_f32s(outputs[c].1, channels[c]);
            }
        }
    }
}

#[inline(always)]
fn mix_vectors<S: Simd, const K: usize, const C: usize>(
    simd: S,
    uppers: [&[S::f32s]; K],
    lowers: [&[S::f32s]; K],
    weights: [f32; K],
    index: usize,
    mix: &Mix,
) -> [S::f32s; C] {
    let mut components = [simd.splat_f32s(0.0); K];
    for k in 0..K {
        let (upper, lower) = (uppers[k][index], lowers[k][index]);
        components[k] = simd.mul_add_e_f32s(simd.sub_f32s(lower, upper), simd.splat_f32s(weights[k]), upper);
    }
    let mut channels = [simd.splat_f32s(0.0); C];
    for (c, channel) in channels.iter_mut().enumerate() {
        let mut sum = simd.splat_f32s(mix.offset[c]);
        for (k, component) in components.iter().enumerate() {
            sum = simd.mul_add_e_f32s(*component, simd.splat_f32s(mix.matrix[c][k]), sum);
        }
        let sum = simd.max_f32s(sum, simd.splat_f32s(mix.lowest[c]));
        *channel = simd.min_f32s(sum, simd.splat_f32s(mix.highest[c]));
    }
    channels
}
