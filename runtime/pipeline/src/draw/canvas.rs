//! Painting straight into a picture's own planes, whatever its format.
//!
//! A picture is seen as one to three components (R, G, B; or Y, U, V; or grey), each a strided
//! array of bytes at full or half resolution. Whatever is drawn goes through [`Canvas::blend`], so
//! that a new format is a line in [`components`] and nothing else.

use crate::analyse::geometry::{Segment, Vector};
use revoada_core::{ColorMatrix, ColorRange, ImageLayout, PixelFormat, Rect, Size};

/// A colour as people name it: 8-bit sRGB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl Rgb {
    pub(super) const BLACK: Self = Self(0, 0, 0);
    pub(super) const WHITE: Self = Self(255, 255, 255);

    /// Perceived brightness in 0..=1.
    pub(super) fn brightness(self) -> f32 {
        (0.299 * f32::from(self.0) + 0.587 * f32::from(self.1) + 0.114 * f32::from(self.2)) / 255.0
    }
}

/// A colour as one picture stores it: a value per component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ink([u8; 3]);

/// Pixels `left..right` × `top..bottom`; always inside the picture it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) right: usize,
    pub(super) bottom: usize,
}

impl Area {
    /// The part of `x..x + width` × `y..y + height` inside the picture; `None` where there is none.
    pub(super) fn clipped(x: i64, y: i64, width: i64, height: i64, size: Size) -> Option<Self> {
        let clip = |from: i64, length: i64, side: usize| {
            let side = i64::try_from(side).unwrap_or(i64::MAX);
            let (low, high) = (from.clamp(0, side), from.saturating_add(length).clamp(0, side));
            // Both lie in 0..=side, which came from a `usize`.
            (low < high).then_some((low as usize, high as usize))
        };
        let ((left, right), (top, bottom)) = (clip(x, width, size.width)?, clip(y, height, size.height)?);
        Some(Self { left, top, right, bottom })
    }

    /// The pixels whose centres a box covers, at least one where the box touches the picture at
    /// all. Boxes come from a network: any number may stand in them.
    pub(super) fn of(rect: Rect, size: Size) -> Option<Self> {
        Self::between(rect, size, f32::round)
    }

    /// Every pixel that a box touches.
    pub(super) fn covering(rect: Rect, size: Size) -> Option<Self> {
        let Self { left, top, .. } = Self::between(rect, size, f32::floor)?;
        let Self { right, bottom, .. } = Self::between(rect, size, f32::ceil)?;
        Some(Self { left, top, right, bottom })
    }

    fn between(rect: Rect, size: Size, rounded: fn(f32) -> f32) -> Option<Self> {
        let span = |from: f32, to: f32, side: usize| {
            let limit = side as f32;
            // NaN fails every comparison and so is nowhere.
            if !(from <= to && from < limit && to > 0.0) {
                return None;
            }
            let low = (rounded(from.clamp(0.0, limit)) as usize).min(side - 1);
            let high = (rounded(to.clamp(0.0, limit)) as usize).clamp(low + 1, side);
            Some((low, high))
        };
        let (left, right) = span(rect.x, rect.right(), size.width)?;
        let (top, bottom) = span(rect.y, rect.bottom(), size.height)?;
        Some(Self { left, top, right, bottom })
    }

    pub(super) fn width(&self) -> usize {
        self.right - self.left
    }

    pub(super) fn height(&self) -> usize {
        self.bottom - self.top
    }
}

/// One component of every pixel (or of every 2×2 pixels, where `half`).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Component {
    offset: usize,
    stride: usize,
    step: usize,
    pub(super) half: bool,
}

impl Component {
    /// Where the sample of column `x` in row `y` lies, both counted in samples.
    pub(super) fn at(&self, x: usize, y: usize) -> usize {
        self.offset + y * self.stride + x * self.step
    }
}

/// A picture being drawn on.
pub(super) struct Canvas<'a> {
    pub(super) bytes: &'a mut [u8],
    layout: ImageLayout,
    components: [Component; 3],
    count: usize,
}

impl<'a> Canvas<'a> {
    /// `bytes` holds a picture of this layout.
    pub(super) fn new(layout: ImageLayout, bytes: &'a mut [u8]) -> Self {
        let (components, count) = components(&layout);
        Self { bytes, layout, components, count }
    }

    pub(super) fn size(&self) -> Size {
        self.layout.size
    }

    pub(super) fn components(&self) -> impl Iterator<Item = Component> + use<> {
        self.components.into_iter().take(self.count)
    }

    /// Whether some component has one sample for 2×2 pixels.
    pub(super) fn is_subsampled(&self) -> bool {
        self.layout.format.is_yuv()
    }

    /// This picture's own values for a colour.
    pub(super) fn ink(&self, color: Rgb) -> Ink {
        let Rgb(r, g, b) = color;
        match self.layout.format {
            // `components` lists red first for both.
            PixelFormat::Rgb | PixelFormat::Bgr => Ink([r, g, b]),
            PixelFormat::Gray => Ink([(color.brightness() * 255.0).round() as u8, 0, 0]),
            PixelFormat::Nv12 | PixelFormat::I420 => Ink(yuv(color, self.layout.color.matrix, self.layout.color.range)),
        }
    }

    /// Lays over every pixel of `area` the ink and opacity (255: opaque) that `shade` names for its
    /// row and then its column. A chroma sample becomes the mean of what its pixels would each have
    /// made of it.
    pub(super) fn blend<Row: Fn(usize) -> (Ink, u8)>(&mut self, area: Area, shade: impl Fn(usize) -> Row) {
        let size = self.layout.size;
        for (index, component) in self.components().enumerate() {
            let over = |sample: u8, (ink, alpha): (Ink, u8)| mix(sample, ink.0[index], alpha);
            if !component.half {
                for y in area.top..area.bottom {
                    let shade = shade(y);
                    let row = self.bytes[component.at(area.left, y)..].iter_mut().step_by(component.step);
                    row.zip(area.left..area.right).for_each(|(sample, x)| *sample = over(*sample, shade(x)));
                }
                continue;
            }
            for half_y in area.top / 2..area.bottom.div_ceil(2) {
                let rows = [half_y * 2, half_y * 2 + 1];
                // `None` outside the area, where a pixel leaves its sample as it is.
                let shades = rows.map(|y| (area.top..area.bottom).contains(&y).then(|| shade(y)));
                let rows_in_picture = rows.iter().filter(|&&y| y < size.height).count() as u32;
                let row = self.bytes[component.at(area.left / 2, half_y)..].iter_mut().step_by(component.step);
                for (sample, half_x) in row.zip(area.left / 2..area.right.div_ceil(2)) {
                    let columns = half_x * 2..(half_x * 2 + 2).min(size.width);
                    let count = columns.len() as u32 * rows_in_picture;
                    let (mut sum, mut shaded) = (0, 0);
                    for shade in shades.iter().flatten() {
                        for x in columns.start.max(area.left)..columns.end.min(area.right) {
                            sum += u32::from(over(*sample, shade(x)));
                            shaded += 1;
                        }
                    }
                    sum += (count - shaded) * u32::from(*sample);
                    // A sum of at most four bytes divided by their count is a byte.
                    *sample = ((sum + count / 2) / count) as u8;
                }
            }
        }
    }

    /// A rectangle in one colour.
    pub(super) fn fill(&mut self, area: Area, ink: Ink, alpha: u8) {
        self.blend(area, |_| move |_| (ink, alpha));
    }

    /// The four edges of a rectangle, inside it.
    pub(super) fn outline(&mut self, area: Area, thickness: usize, ink: Ink) {
        let Area { left, top, right, bottom } = area;
        if area.width() <= 2 * thickness || area.height() <= 2 * thickness {
            return self.fill(area, ink, 255);
        }
        self.fill(Area { bottom: top + thickness, ..area }, ink, 255);
        self.fill(Area { top: bottom - thickness, ..area }, ink, 255);
        let sides = Area { top: top + thickness, bottom: bottom - thickness, ..area };
        self.fill(Area { right: left + thickness, ..sides }, ink, 255);
        self.fill(Area { left: right - thickness, ..sides }, ink, 255);
    }

    /// A straight stroke with round ends and soft edges, clipped to the picture.
    pub(super) fn stroke(&mut self, segment: Segment, width: f32, ink: Ink, alpha: u8) {
        /// Rows that are blended at once: the box around a part of a slanting stroke is mostly empty, and the less so
        /// the lower it is. Even, because two rows share their chroma.
        const ROWS: usize = 8;
        let radius = f64::from(width) / 2.0;
        let reach = radius + 1.0;
        let (inner, outer) = ((radius - 0.5).max(0.0).powi(2), (radius + 0.5).powi(2));
        let Segment { from, to } = segment;
        let (upper, lower) = if from.y <= to.y { (from, to) } else { (to, from) };
        let (along, height) = (segment.along(), lower.y - upper.y);
        let inverse_square = if along.length() > 0.0 { 1.0 / along.dot(along) } else { 0.0 };
        // `as` saturates; what is above or left of the picture begins at its edge.
        let bottom = ((lower.y + reach).max(0.0) as usize + 1).min(self.size().height);
        let mut top = (((upper.y - reach).max(0.0) as usize) / ROWS) * ROWS;
        while top < bottom {
            let x_at = |y: f64| match height > 0.0 {
                true => upper.x + (lower.x - upper.x) * ((y - upper.y) / height).clamp(0.0, 1.0),
                false => upper.x,
            };
            // A flat stroke is as wide as it is long in every row.
            let mut ends = [x_at(top as f64 - reach), x_at((top + ROWS) as f64 + reach)];
            if height == 0.0 {
                ends = [from.x, to.x];
            }
            let (left, right) = (ends[0].min(ends[1]) - reach, ends[0].max(ends[1]) + reach);
            let rect = Rect::new(left as f32, top as f32, (right - left) as f32, ROWS.min(bottom - top) as f32);
            if let Some(area) = Area::covering(rect, self.size()) {
                self.blend(area, |y| {
                    move |x| {
                        let offset = Vector::new(x as f64 + 0.5, y as f64 + 0.5).minus(from);
                        let part = (along.dot(offset) * inverse_square).clamp(0.0, 1.0);
                        let away = offset.minus(Vector::new(along.x * part, along.y * part));
                        // Most pixels are wholly in or out, and need no root.
                        let cover = match away.dot(away) {
                            square if square >= outer => 0.0,
                            square if square <= inner => 1.0,
                            square => radius + 0.5 - square.sqrt(),
                        };
                        (ink, (cover * f64::from(alpha)) as u8)
                    }
                });
            }
            top += ROWS;
        }
    }

    /// A disc with a soft edge. The centre may lie outside.
    pub(super) fn dot(&mut self, x: f32, y: f32, radius: f32, ink: Ink) {
        let reach = radius + 1.0;
        let rect = Rect::new(x - reach, y - reach, 2.0 * reach, 2.0 * reach);
        let Some(area) = Area::covering(rect, self.size()) else { return };
        self.blend(area, |pixel_y| {
            move |pixel_x| {
                let distance = (pixel_x as f32 + 0.5 - x).hypot(pixel_y as f32 + 0.5 - y);
                (ink, ((radius + 0.5 - distance).clamp(0.0, 1.0) * 255.0) as u8)
            }
        });
    }
}

fn components(layout: &ImageLayout) -> ([Component; 3], usize) {
    let planes = &layout.planes;
    let component = |plane: usize, first: usize, step: usize, half: bool| Component {
        offset: planes[plane].offset + first,
        stride: planes[plane].stride,
        step,
        half,
    };
    match layout.format {
        PixelFormat::Rgb => ([0, 1, 2].map(|first| component(0, first, 3, false)), 3),
        PixelFormat::Bgr => ([2, 1, 0].map(|first| component(0, first, 3, false)), 3),
        PixelFormat::Gray => ([component(0, 0, 1, false); 3], 1),
        PixelFormat::Nv12 => ([component(0, 0, 1, false), component(1, 0, 2, true), component(1, 1, 2, true)], 3),
        PixelFormat::I420 => ([component(0, 0, 1, false), component(1, 0, 1, true), component(2, 0, 1, true)], 3),
    }
}

fn mix(old: u8, new: u8, alpha: u8) -> u8 {
    let (old, new, alpha) = (u32::from(old), u32::from(new), u32::from(alpha));
    // A weighted mean of two bytes is a byte.
    ((old * (255 - alpha) + new * alpha + 127) / 255) as u8
}

/// ITU-R BT.601 and BT.709, 8 bits.
fn yuv(Rgb(r, g, b): Rgb, matrix: ColorMatrix, range: ColorRange) -> [u8; 3] {
    let (kr, kb) = match matrix {
        ColorMatrix::Bt601 => (0.299, 0.114),
        ColorMatrix::Bt709 => (0.2126, 0.0722),
    };
    let [r, g, b] = [r, g, b].map(|value| f32::from(value) / 255.0);
    let luma = kr * r + (1.0 - kr - kb) * g + kb * b;
    let (u, v) = ((b - luma) / (2.0 * (1.0 - kb)), (r - luma) / (2.0 * (1.0 - kr)));
    let (black, luma_span, chroma_span) = match range {
        ColorRange::Limited => (16.0, 219.0, 224.0),
        ColorRange::Full => (0.0, 255.0, 255.0),
    };
    // A float becomes the nearest byte; `as` saturates.
    [black + luma * luma_span, 128.0 + u * chroma_span, 128.0 + v * chroma_span].map(|value| value.round() as u8)
}
