//! What a model found in one picture, in the coordinates of that picture.

use crate::{Point, Rect};

/// One object. `bbox` and `landmarks` are in source pixels and may reach past the border; whoever
/// draws or crops clamps them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detection {
    /// Index into the model's labels.
    pub class: u32,
    /// Confidence in 0..=1.
    pub score: f32,
    pub bbox: Rect,
    /// In the model's order; empty for models without landmarks.
    pub landmarks: Vec<Point>,
}

/// One guess of a classifier. A list of them is sorted by falling score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classification {
    pub class: u32,
    pub score: f32,
}

/// A class for every cell of a grid that covers `area` of the source picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Segmentation {
    pub width: usize,
    pub height: usize,
    /// Row-major, `width * height` classes.
    pub classes: Vec<u8>,
    /// The part of the source picture, in pixels, that the grid covers.
    pub area: Rect,
}

/// All that one model says about one picture (or one region of it).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    pub detections: Vec<Detection>,
    pub classifications: Vec<Classification>,
    pub segmentation: Option<Segmentation>,
}
