//! What staging means, one network pixel at a time.

use revoada_core::{
    ChannelOrder, ColorRange, Fit, ImageTransform, ImageView, Layout, PixelFormat, Placement, Rect, Size,
};

use super::convert::luma_weights;

/// Stages a picture slowly and exactly: the definition that the CPU's and the GPU's kernels are
/// tested against. Returns `channels * height * width` elements in the transform's layout; a `u8`
/// target is these, rounded half to even and saturated.
pub fn stage_reference(image: &ImageView<'_>, placement: &Placement, transform: &ImageTransform) -> Vec<f64> {
    let Size { width, height } = transform.size;
    let channels = transform.channels.channels();
    let mut target = vec![0.0; channels * height * width];
    for y in 0..height {
        for x in 0..width {
            let pixel = network_pixel(image, placement, transform, x, y);
            for (channel, value) in pixel.into_iter().take(channels).enumerate() {
                let index = match transform.layout {
                    Layout::Nchw => (channel * height + y) * width + x,
                    Layout::Nhwc => (y * width + x) * channels + channel,
                };
                let (mean, scale) = (f64::from(transform.mean[channel]), f64::from(transform.scale[channel]));
                target[index] = (value - mean) * scale;
            }
        }
    }
    target
}

/// The channels of one network pixel in 0..=255, before mean and scale.
fn network_pixel(
    image: &ImageView<'_>,
    placement: &Placement,
    transform: &ImageTransform,
    x: usize,
    y: usize,
) -> [f64; 3] {
    let Rect { x: left, y: top, width, height } = placement.target;
    let (left, top, width, height) = (f64::from(left), f64::from(top), f64::from(width), f64::from(height));
    let (x, y) = (x as f64, y as f64);
    if x < left || x >= left + width || y < top || y >= top + height {
        let Fit::Letterbox { fill, .. } = transform.fit else { return [0.0; 3] };
        return [f64::from(fill); 3];
    }
    let source = placement.source;
    let source_x = (x + 0.5 - left) * f64::from(source.width) / width + f64::from(source.x) - 0.5;
    let source_y = (y + 0.5 - top) * f64::from(source.height) / height + f64::from(source.y) - 0.5;
    let components = bilinear(image, source_x, source_y);
    match transform.channels {
        ChannelOrder::Rgb => to_rgb(image, components),
        ChannelOrder::Bgr => {
            let [red, green, blue] = to_rgb(image, components);
            [blue, green, red]
        }
        ChannelOrder::Gray => [to_gray(image, components), 0.0, 0.0],
    }
}

/// The stored components between the four pixels around a point, where pixel (0, 0) is at (0, 0).
fn bilinear(image: &ImageView<'_>, x: f64, y: f64) -> [f64; 3] {
    let Size { width, height } = image.size();
    let (x, y) = (x.clamp(0.0, (width - 1) as f64), y.clamp(0.0, (height - 1) as f64));
    let (left, top) = (x.floor() as usize, y.floor() as usize);
    let (right, bottom) = ((left + 1).min(width - 1), (top + 1).min(height - 1));
    let (weight_x, weight_y) = (x - x.floor(), y - y.floor());
    let (a, b) = (stored(image, left, top), stored(image, right, top));
    let (c, d) = (stored(image, left, bottom), stored(image, right, bottom));
    std::array::from_fn(|i| {
        (a[i] * (1.0 - weight_x) + b[i] * weight_x) * (1.0 - weight_y)
            + (c[i] * (1.0 - weight_x) + d[i] * weight_x) * weight_y
    })
}

/// One source pixel as it is stored: Y, U, V or R, G, B or grey thrice.
fn stored(image: &ImageView<'_>, x: usize, y: usize) -> [f64; 3] {
    let byte = |plane: usize, row: usize, column: usize| f64::from(image.plane(plane).row(row)[column]);
    match image.format() {
        PixelFormat::Nv12 => [byte(0, y, x), byte(1, y / 2, x / 2 * 2), byte(1, y / 2, x / 2 * 2 + 1)],
        PixelFormat::I420 => [byte(0, y, x), byte(1, y / 2, x / 2), byte(2, y / 2, x / 2)],
        PixelFormat::Rgb => [byte(0, y, 3 * x), byte(0, y, 3 * x + 1), byte(0, y, 3 * x + 2)],
        PixelFormat::Bgr => [byte(0, y, 3 * x + 2), byte(0, y, 3 * x + 1), byte(0, y, 3 * x)],
        PixelFormat::Gray => [byte(0, y, x); 3],
    }
}

/// Red, green and blue in 0..=255 of what [`stored`] returns.
fn to_rgb(image: &ImageView<'_>, components: [f64; 3]) -> [f64; 3] {
    if !image.format().is_yuv() {
        return components;
    }
    let luma = full_range_luma(image, components[0]);
    let excursion = match image.color().range {
        ColorRange::Full => 255.0,
        ColorRange::Limited => 224.0,
    };
    let [blue_difference, red_difference] = [components[1], components[2]].map(|c| (c - 128.0) * 255.0 / excursion);
    let (kr, kb) = luma_weights(image.color().matrix);
    let red = luma + 2.0 * (1.0 - kr) * red_difference;
    let blue = luma + 2.0 * (1.0 - kb) * blue_difference;
    // Green is what is left of the luma.
    let green = (luma - kr * red - kb * blue) / (1.0 - kr - kb);
    [red, green, blue].map(|channel| channel.clamp(0.0, 255.0))
}

fn to_gray(image: &ImageView<'_>, components: [f64; 3]) -> f64 {
    match image.format() {
        PixelFormat::Nv12 | PixelFormat::I420 => full_range_luma(image, components[0]).clamp(0.0, 255.0),
        PixelFormat::Rgb | PixelFormat::Bgr => 0.299 * components[0] + 0.587 * components[1] + 0.114 * components[2],
        PixelFormat::Gray => components[0],
    }
}

fn full_range_luma(image: &ImageView<'_>, luma: f64) -> f64 {
    match image.color().range {
        ColorRange::Full => luma,
        ColorRange::Limited => (luma - 16.0) * 255.0 / 219.0,
    }
}
