//! How a picture becomes a network's input, and the way back for what the network answers.

use serde::{Deserialize, Serialize};

use crate::{Point, Rect, Size};

/// The order of a picture input's dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    #[default]
    Nchw,
    Nhwc,
}

/// Which channels the network reads, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    #[default]
    Rgb,
    Bgr,
    Gray,
}

impl ChannelOrder {
    pub const fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
}

/// Where a letterboxed picture sits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anchor {
    /// Padding at right and bottom.
    #[default]
    TopLeft,
    /// Padding on both sides.
    Center,
}

/// How a region of one aspect ratio meets a network of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    #[default]
    Stretch,
    /// The whole region, scaled alike in both directions, the rest filled with `fill` (0..=255,
    /// before mean and scale).
    Letterbox { anchor: Anchor, fill: f32 },
    /// The middle of the region, cut to the network's aspect ratio.
    CenterCrop,
}

impl Fit {
    /// Padding of 114, the YOLO families' grey, on both sides.
    pub const fn letterbox_centered() -> Self {
        Self::Letterbox { anchor: Anchor::Center, fill: 114.0 }
    }
}

/// Everything between a picture and an input tensor, in one description: resized with bilinear
/// interpolation (pixel centres aligned, no antialiasing: OpenCV's `INTER_LINEAR`), then
/// `(x − mean) · scale` per channel of the network's order, x in 0..=255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageTransform {
    /// The network's width and height.
    pub size: Size,
    pub layout: Layout,
    pub channels: ChannelOrder,
    pub fit: Fit,
    pub mean: [f32; 3],
    pub scale: [f32; 3],
}

impl ImageTransform {
    /// RGB, NCHW, stretched, 0..=255 as it is.
    pub const fn stretch(size: Size) -> Self {
        Self {
            size,
            layout: Layout::Nchw,
            channels: ChannelOrder::Rgb,
            fit: Fit::Stretch,
            mean: [0.0; 3],
            scale: [1.0; 3],
        }
    }
}

/// Where a region of a picture came to lie in the network's input. One definition serves staging,
/// which asks where a pixel comes from, and decoding, which asks where a box goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// The part of the source picture that is seen, in its pixels.
    pub source: Rect,
    /// Where it lies in the network's input, in whole pixels; the rest is padding.
    pub target: Rect,
}

impl Placement {
    /// The resized side of a letterbox truncates toward zero, as `reference` implementations and
    /// DeepStream do, and is at least one pixel.
    pub fn new(region: Rect, transform: &ImageTransform) -> Self {
        let (width, height) = (transform.size.width as f32, transform.size.height as f32);
        let whole = Rect::new(0.0, 0.0, width, height);
        match transform.fit {
            Fit::Stretch => Self { source: region, target: whole },
            Fit::Letterbox { anchor, .. } => {
                let (region_width, region_height) = (f64::from(region.width), f64::from(region.height));
                let ratio = (f64::from(width) / region_width).min(f64::from(height) / region_height);
                // The epsilon keeps 1280 · (640 / 1280) at 640 where the product falls just below.
                let side = |length: f64, limit: f32| ((length * ratio + 1e-6).floor().max(1.0) as f32).min(limit);
                let (inner_width, inner_height) = (side(region_width, width), side(region_height, height));
                let (x, y) = match anchor {
                    Anchor::TopLeft => (0.0, 0.0),
                    Anchor::Center => (((width - inner_width) / 2.0).floor(), ((height - inner_height) / 2.0).floor()),
                };
                Self { source: region, target: Rect::new(x, y, inner_width, inner_height) }
            }
            Fit::CenterCrop => {
                let ratio = (region.width / width).min(region.height / height);
                Self { source: Rect::from_center(region.center(), width * ratio, height * ratio), target: whole }
            }
        }
    }

    /// Source pixels per network pixel.
    pub fn scale(&self) -> (f32, f32) {
        (self.source.width / self.target.width, self.source.height / self.target.height)
    }

    /// A point of the network's input, in source pixels.
    pub fn to_source(&self, point: Point) -> Point {
        let (scale_x, scale_y) = self.scale();
        Point::new(
            (point.x - self.target.x) * scale_x + self.source.x,
            (point.y - self.target.y) * scale_y + self.source.y,
        )
    }

    /// A box of the network's input, in source pixels.
    pub fn rect_to_source(&self, rect: Rect) -> Rect {
        Rect::from_corners(
            self.to_source(Point::new(rect.x, rect.y)),
            self.to_source(Point::new(rect.right(), rect.bottom())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(fit: Fit) -> ImageTransform {
        ImageTransform { fit, ..ImageTransform::stretch(Size::new(640, 640)) }
    }

    #[test]
    fn letterbox_keeps_the_aspect_ratio_and_maps_back() {
        let region = Rect::new(0.0, 0.0, 1280.0, 720.0);
        let placement = Placement::new(region, &transform(Fit::letterbox_centered()));
        assert_eq!(placement.target, Rect::new(0.0, 140.0, 640.0, 360.0));
        assert_eq!(placement.rect_to_source(placement.target), region);
    }

    #[test]
    fn center_crop_sees_the_middle() {
        let placement = Placement::new(Rect::new(0.0, 0.0, 1280.0, 720.0), &transform(Fit::CenterCrop));
        assert_eq!(placement.source, Rect::new(280.0, 0.0, 720.0, 720.0));
    }

    #[test]
    fn a_sliver_still_covers_one_pixel() {
        let fit = Fit::Letterbox { anchor: Anchor::TopLeft, fill: 0.0 };
        let placement = Placement::new(Rect::new(0.0, 0.0, 4000.0, 2.0), &transform(fit));
        assert_eq!(placement.target, Rect::new(0.0, 0.0, 640.0, 1.0));
    }
}
