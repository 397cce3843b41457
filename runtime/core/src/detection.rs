//! What a model found in one picture, in the coordinates of that picture.

use std::fmt;
use std::sync::Arc;

use crate::{Point, Rect};

/// One object of a stream for as long as it is followed. Counted from 1 in the order in which tracks are first
/// told, per stream; never used twice while a pipeline runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackId(pub u64);

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

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
    /// The track that it belongs to; `None` where nothing tracks, and until a tracker is sure of it.
    pub track: Option<TrackId>,
    /// What other models say about it, in their order.
    pub attributes: Vec<Attribute>,
    /// The object in which it was found, as an index into the list that both are in; `None` where it was found in the whole
    /// picture.
    pub parent: Option<usize>,
}

/// What a classifier says about one object: its colour, its make.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Of what: the name that the configuration gives the classifier.
    pub name: Arc<str>,
    /// The label of the class; its number where it has none.
    pub value: Arc<str>,
    /// Confidence in 0..=1.
    pub score: f32,
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
