//! A frame as a still picture: JPEG and PNG.

use std::io;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use jpeg_encoder::{Encoder, ImageBuffer, JpegColorType, SamplingFactor, rgb_to_ycbcr};
use revoada_core::{ColorMatrix, ColorRange, ColorSpec, ImageView, PixelFormat};

/// Encodes as baseline JPEG with 4:2:0 chroma, `quality` in 1..=100. YUV pictures are not taken
/// through RGB: their samples are rescaled to JPEG's full range, and turned to its BT.601 matrix
/// where they have another.
pub fn jpeg(picture: &ImageView<'_>, quality: u8) -> io::Result<Vec<u8>> {
    let size = picture.size();
    // A tenth of the pixels' bytes is the usual size at preview qualities.
    let mut bytes = Vec::with_capacity(size.width * size.height / 8 + 1024);
    let mut encoder = Encoder::new(&mut bytes, quality.clamp(1, 100));
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.encode_image(Rows { picture, yuv: YuvToJpeg::new(picture.color()) }).map_err(io::Error::other)?;
    Ok(bytes)
}

/// Encodes as PNG without loss, 8 bits grey or RGB.
pub fn png(picture: &ImageView<'_>) -> io::Result<Vec<u8>> {
    let size = picture.size();
    let (pixels, color) = match picture.format() {
        PixelFormat::Gray => (gray(picture), ExtendedColorType::L8),
        _ => (rgb(picture), ExtendedColorType::Rgb8),
    };
    let mut bytes = Vec::new();
    // Video is noisy: heavier compression costs much time and saves little.
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
        .write_image(&pixels, side(size.width), side(size.height), color)
        .map_err(io::Error::other)?;
    Ok(bytes)
}

fn side(pixels: usize) -> u32 {
    u32::try_from(pixels).expect("a frame's sides are bounded far below")
}

fn gray(picture: &ImageView<'_>) -> Vec<u8> {
    let plane = picture.plane(0);
    (0..plane.rows).flat_map(|y| plane.row(y)).copied().collect()
}

/// The picture as packed RGB rows without gaps.
pub fn rgb(picture: &ImageView<'_>) -> Vec<u8> {
    let size = picture.size();
    let mut pixels = Vec::with_capacity(size.width * size.height * 3);
    let yuv = YuvToRgb::new(picture.color());
    for y in 0..size.height {
        let row = picture.plane(0).row(y);
        match picture.format() {
            PixelFormat::Rgb => pixels.extend_from_slice(row),
            PixelFormat::Bgr => pixels.extend(row.chunks_exact(3).flat_map(|pixel| [pixel[2], pixel[1], pixel[0]])),
            PixelFormat::Gray => pixels.extend(row.iter().flat_map(|&value| [value; 3])),
            PixelFormat::Nv12 => {
                let chroma = picture.plane(1).row(y / 2);
                pixels.extend((0..size.width).flat_map(|x| yuv.apply(row[x], chroma[x & !1], chroma[x | 1])));
            }
            PixelFormat::I420 => {
                let (u, v) = (picture.plane(1).row(y / 2), picture.plane(2).row(y / 2));
                pixels.extend((0..size.width).flat_map(|x| yuv.apply(row[x], u[x / 2], v[x / 2])));
            }
        }
    }
    pixels
}

/// Luma weights of red and blue.
fn weights(matrix: ColorMatrix) -> (f32, f32) {
    match matrix {
        ColorMatrix::Bt601 => (0.299, 0.114),
        ColorMatrix::Bt709 => (0.2126, 0.0722),
    }
}

/// What stretches luma and chroma to 0..=255, and luma's black.
fn stretch(range: ColorRange) -> (f32, f32, f32) {
    match range {
        ColorRange::Limited => (255.0 / 219.0, 255.0 / 224.0, 16.0),
        ColorRange::Full => (1.0, 1.0, 0.0),
    }
}

struct YuvToRgb {
    luma: f32,
    black: f32,
    v_to_r: f32,
    u_to_g: f32,
    v_to_g: f32,
    u_to_b: f32,
}

impl YuvToRgb {
    fn new(color: ColorSpec) -> Self {
        let (kr, kb) = weights(color.matrix);
        let kg = 1.0 - kr - kb;
        let (luma, chroma, black) = stretch(color.range);
        Self {
            luma,
            black,
            v_to_r: 2.0 * (1.0 - kr) * chroma,
            u_to_g: -2.0 * (1.0 - kb) * kb / kg * chroma,
            v_to_g: -2.0 * (1.0 - kr) * kr / kg * chroma,
            u_to_b: 2.0 * (1.0 - kb) * chroma,
        }
    }

    fn apply(&self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let y = (f32::from(y) - self.black) * self.luma;
        let (u, v) = (f32::from(u) - 128.0, f32::from(v) - 128.0);
        // `as` saturates, which is the clamp that out-of-range YUV needs.
        [y + self.v_to_r * v, y + self.u_to_g * u + self.v_to_g * v, y + self.u_to_b * u]
            .map(|value| (value + 0.5) as u8)
    }
}

/// From a picture's YUV to JPEG's, which is BT.601 at full range: a 3×3 matrix, since both are
/// linear in RGB. Luma of one matrix and chroma of another mix only where the matrices differ.
struct YuvToJpeg {
    black: i32,
    /// Rows give Y, U, V; 16 bits of fraction.
    matrix: [[i32; 3]; 3],
}

const FRACTION_BITS: u32 = 16;

impl YuvToJpeg {
    fn new(color: ColorSpec) -> Self {
        let to_rgb = YuvToRgb::new(color);
        let (kr, kb) = weights(ColorMatrix::Bt601);
        let jpeg = |[r, g, b]: [f32; 3]| {
            let luma = kr * r + (1.0 - kr - kb) * g + kb * b;
            [luma, (b - luma) / (2.0 * (1.0 - kb)), (r - luma) / (2.0 * (1.0 - kr))]
        };
        // Where each unit of Y, U and V goes.
        let columns = [
            jpeg([to_rgb.luma; 3]),
            jpeg([0.0, to_rgb.u_to_g, to_rgb.u_to_b]),
            jpeg([to_rgb.v_to_r, to_rgb.v_to_g, 0.0]),
        ];
        let fixed = |value: f32| (value * (1 << FRACTION_BITS) as f32).round() as i32;
        let matrix = [0, 1, 2].map(|row| [0, 1, 2].map(|column: usize| fixed(columns[column][row])));
        // A 16 of black is exact in a float.
        Self { black: to_rgb.black as i32, matrix }
    }

    fn apply(&self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let input = [i32::from(y) - self.black, i32::from(u) - 128, i32::from(v) - 128];
        let mut output = [0, 128, 128];
        for (value, row) in output.iter_mut().zip(&self.matrix) {
            let sum: i32 = row.iter().zip(input).map(|(weight, value)| weight * value).sum();
            *value = (*value + ((sum + (1 << (FRACTION_BITS - 1))) >> FRACTION_BITS)).clamp(0, 255);
        }
        output.map(|value| value as u8)
    }
}

/// The picture row by row, as the encoder asks for it.
struct Rows<'a> {
    picture: &'a ImageView<'a>,
    yuv: YuvToJpeg,
}

impl ImageBuffer for Rows<'_> {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        match self.picture.format() {
            PixelFormat::Gray => JpegColorType::Luma,
            _ => JpegColorType::Ycbcr,
        }
    }

    fn width(&self) -> u16 {
        u16::try_from(self.picture.size().width).expect("a frame's sides are bounded below")
    }

    fn height(&self) -> u16 {
        u16::try_from(self.picture.size().height).expect("a frame's sides are bounded below")
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let y = usize::from(y);
        let row = self.picture.plane(0).row(y);
        let [luma, u, v, _] = buffers;
        let mut push = |[a, b, c]: [u8; 3]| {
            luma.push(a);
            u.push(b);
            v.push(c);
        };
        match self.picture.format() {
            PixelFormat::Gray => luma.extend_from_slice(row),
            PixelFormat::Rgb => row.chunks_exact(3).for_each(|p| push(rgb_to_ycbcr(p[0], p[1], p[2]).into())),
            PixelFormat::Bgr => row.chunks_exact(3).for_each(|p| push(rgb_to_ycbcr(p[2], p[1], p[0]).into())),
            PixelFormat::Nv12 => {
                let chroma = self.picture.plane(1).row(y / 2);
                for (pair, chroma) in row.chunks(2).zip(chroma.chunks_exact(2)) {
                    pair.iter().for_each(|&y| push(self.yuv.apply(y, chroma[0], chroma[1])));
                }
            }
            PixelFormat::I420 => {
                let (u, v) = (self.picture.plane(1).row(y / 2), self.picture.plane(2).row(y / 2));
                for ((pair, &u), &v) in row.chunks(2).zip(u).zip(v) {
                    pair.iter().for_each(|&y| push(self.yuv.apply(y, u, v)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use revoada_core::{ImageLayout, Size};

    use super::*;

    fn spec(matrix: ColorMatrix, range: ColorRange) -> ColorSpec {
        ColorSpec { matrix, range }
    }

    const SPECS: [ColorSpec; 4] = [
        ColorSpec { matrix: ColorMatrix::Bt601, range: ColorRange::Limited },
        ColorSpec { matrix: ColorMatrix::Bt601, range: ColorRange::Full },
        ColorSpec { matrix: ColorMatrix::Bt709, range: ColorRange::Limited },
        ColorSpec { matrix: ColorMatrix::Bt709, range: ColorRange::Full },
    ];

    /// One colour over an odd-sized picture, in this format.
    fn flat(format: PixelFormat, color: ColorSpec, values: [u8; 3]) -> (ImageLayout, Vec<u8>) {
        let layout = ImageLayout::packed(format, color, Size::new(17, 9));
        let mut bytes = vec![values[0]; layout.bytes().unwrap()];
        match format {
            PixelFormat::Nv12 => {
                bytes[layout.planes[1].offset..].chunks_exact_mut(2).for_each(|pair| pair.copy_from_slice(&values[1..]))
            }
            PixelFormat::I420 => {
                bytes[layout.planes[1].offset..layout.planes[2].offset].fill(values[1]);
                bytes[layout.planes[2].offset..].fill(values[2]);
            }
            _ => bytes.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&values)),
        }
        (layout, bytes)
    }

    #[test]
    fn known_colors_convert_to_the_published_values() {
        // Y, U, V of pure red, from ITU-R BT.601 and BT.709.
        let table = [
            (spec(ColorMatrix::Bt601, ColorRange::Limited), [81, 90, 240]),
            (spec(ColorMatrix::Bt709, ColorRange::Limited), [63, 102, 240]),
            (spec(ColorMatrix::Bt601, ColorRange::Full), [76, 85, 255]),
        ];
        for (color, yuv) in table {
            let [r, g, b] = YuvToRgb::new(color).apply(yuv[0], yuv[1], yuv[2]);
            assert!(r >= 253 && g <= 2 && b <= 2, "{color:?}: {r} {g} {b}");
        }
    }

    #[test]
    fn jpeg_and_png_show_the_same_colors_in_every_format() {
        let mut cases = vec![
            (PixelFormat::Rgb, ColorSpec::default(), [200, 60, 90]),
            (PixelFormat::Bgr, ColorSpec::default(), [90, 60, 200]),
        ];
        for color in SPECS {
            cases.push((PixelFormat::Nv12, color, [120, 100, 170]));
            cases.push((PixelFormat::I420, color, [120, 100, 170]));
        }
        for (format, color, values) in cases {
            let (layout, bytes) = flat(format, color, values);
            let view = ImageView::new(layout, &bytes).unwrap();
            let png = image::load_from_memory(&png(&view).unwrap()).unwrap().to_rgb8();
            let jpeg = image::load_from_memory(&jpeg(&view, 95).unwrap()).unwrap().to_rgb8();
            assert_eq!((png.dimensions(), jpeg.dimensions()), ((17, 9), (17, 9)));
            for (a, b) in png.pixels().zip(jpeg.pixels()) {
                let worst = (0..3).map(|channel| a[channel].abs_diff(b[channel])).max();
                assert!(worst <= Some(4), "{format:?} {color:?}: {a:?} {b:?}");
            }
        }
    }

    #[test]
    fn gray_stays_gray() {
        let layout = ImageLayout::packed(PixelFormat::Gray, ColorSpec::default(), Size::new(3, 2));
        let bytes = [0, 50, 100, 150, 200, 250];
        let view = ImageView::new(layout, &bytes).unwrap();
        let image::DynamicImage::ImageLuma8(decoded) = image::load_from_memory(&png(&view).unwrap()).unwrap() else {
            panic!("a grey PNG is grey")
        };
        assert_eq!(decoded.as_raw(), &bytes);
    }
}
