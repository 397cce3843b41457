//! Boxes as trackers compare them.

use revoada_core::{Point, Rect};

use super::Warp;

/// The corners of a box, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Bounds {
    pub(super) fn around(x: f64, y: f64, width: f64, height: f64) -> Self {
        Self { left: x - width / 2.0, top: y - height / 2.0, right: x + width / 2.0, bottom: y + height / 2.0 }
    }

    pub(super) fn of(rect: Rect) -> Self {
        let [x, y, width, height] = [rect.x, rect.y, rect.width, rect.height].map(f64::from);
        Self { left: x, top: y, right: x + width, bottom: y + height }
    }

    pub(super) fn rect(&self) -> Rect {
        let corner = |x: f64, y: f64| Point::new(x as f32, y as f32);
        Rect::from_corners(corner(self.left, self.top), corner(self.right, self.bottom))
    }

    pub(super) fn width(&self) -> f64 {
        self.right - self.left
    }

    pub(super) fn height(&self) -> f64 {
        self.bottom - self.top
    }

    pub(super) fn center(&self) -> (f64, f64) {
        ((self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0)
    }

    pub(super) fn is_finite(&self) -> bool {
        [self.left, self.top, self.right, self.bottom].iter().all(|side| side.is_finite())
    }

    /// Whether there is anything in it.
    pub(super) fn is_proper(&self) -> bool {
        self.is_finite() && self.width() > 0.0 && self.height() > 0.0
    }

    /// Intersection over union of boxes whose right and lower sides lie `edge` pixels further out than they say: 0
    /// where corners are points, 1 where they are the last pixels inside.
    pub(super) fn iou(&self, other: &Self, edge: f64) -> f64 {
        // One instruction each, unlike the standard library's, which also look for NaN: boxes that are compared have none.
        let least = |a: f64, b: f64| if a < b { a } else { b };
        let most = |a: f64, b: f64| if a > b { a } else { b };
        let width = least(self.right, other.right) - most(self.left, other.left) + edge;
        if width <= 0.0 {
            return 0.0;
        }
        let height = least(self.bottom, other.bottom) - most(self.top, other.top) + edge;
        if height <= 0.0 {
            return 0.0;
        }
        let area = |bounds: &Self| (bounds.width() + edge) * (bounds.height() + edge);
        let shared = width * height;
        let union = area(self) + area(other) - shared;
        if union > 0.0 && union.is_finite() { shared / union } else { 0.0 }
    }

    pub(super) fn warped(&self, warp: &Warp) -> Self {
        let (x, y) = self.center();
        let (x, y) = warp.place(x, y);
        Self::around(x, y, self.width() * warp.scale(), self.height() * warp.scale())
    }
}
