//! `[analytics]`: the lines, regions and directions that tracked objects are held against.

use std::time::Duration;

use revoada_core::{Point, Size, StreamId};

/// Rules of one kind in a pipeline. Each costs every object of its streams a few multiplications.
pub const RULES_MAX: usize = 256;
/// Corners of a region.
pub const CORNERS_MAX: usize = 64;

/// What to tell of tracked objects.
#[derive(Clone, Debug, PartialEq)]
pub struct AnalyticsConfig {
    /// The point of a box that stands for the object.
    pub anchor: Anchor,
    /// An object has changed sides of a line or of a region's outline once its anchor is so far past it, as a
    /// fraction of its box's height. What trembles on the line is not counted again and again.
    pub margin: f32,
    /// A track that is unseen for longer is forgotten, and has left where it was.
    pub forget: Duration,
    pub lines: Vec<LineConfig>,
    pub regions: Vec<RegionConfig>,
    pub directions: Vec<DirectionConfig>,
}

impl Default for AnalyticsConfig {
    fn default() -> Self {
        Self {
            anchor: Anchor::default(),
            margin: 0.05,
            forget: Duration::from_secs(8),
            lines: Vec::new(),
            regions: Vec::new(),
            directions: Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anchor {
    /// Where the object stands.
    #[default]
    BottomCenter,
    Center,
}

/// What every rule has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// Names the rule in events, metrics and pictures; once among the rules of its kind.
    pub name: String,
    /// Empty: all.
    pub streams: Vec<StreamId>,
    /// Labels of the classes that are looked at; empty: all.
    pub classes: Vec<String>,
    /// The size of the picture that the rule's points are of; `None`: that of the stream.
    pub reference: Option<Size>,
}

/// A line that objects cross.
#[derive(Clone, Debug, PartialEq)]
pub struct LineConfig {
    pub scope: Scope,
    /// From the first to the second.
    pub points: [Point; 2],
    /// "In" is the way from the first to the second; `None`: from the left to the right of whoever walks along the
    /// line.
    pub direction: Option<[Point; 2]>,
    pub mode: CrossingMode,
    /// The line goes on past its ends.
    pub extended: bool,
}

/// How well an object must keep to a line's direction, or its opposite, to be counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CrossingMode {
    /// However it comes.
    #[default]
    Loose,
    /// Within 60°.
    Balanced,
    /// Within 30°.
    Strict,
}

/// A part of the picture in which objects stay.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionConfig {
    pub scope: Scope,
    /// Of a polygon that does not cross itself.
    pub corners: Vec<Point>,
    /// All but the polygon.
    pub inverse: bool,
    /// An object that stays for so long is told once.
    pub dwell: Option<Duration>,
    pub crowd: Option<CrowdConfig>,
}

/// More objects than a region is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrowdConfig {
    /// More are a crowd.
    pub objects_max: u32,
    /// Once there were more for so long.
    pub after: Duration,
}

/// A way to move that is told.
#[derive(Clone, Debug, PartialEq)]
pub struct DirectionConfig {
    pub scope: Scope,
    /// From the first to the second; where they lie does not matter.
    pub points: [Point; 2],
    /// How far an object's way may turn from it to either side.
    pub angle_deg: f32,
}
