//! What tracked objects do: they cross lines, stay in regions, crowd there, and move in a direction.
//!
//! An [`Analyser`] holds the state of one stream. It is given the stream's time with every frame and reads no clock, so
//! that the same detections make the same events again. Places are held as fractions of the picture: a stream that
//! comes back in another size goes on where it was, if the rules' points are of a reference picture.
//!
//! What a rule looks at is the detections' track; where nothing tracks, regions still count what is in them.
//!
//! ```
//! use revoada_core::{Detection, Point, Rect, Size, StreamId, Timestamp, TrackId};
//! use revoada_pipeline::analyse::{Analyser, Rules};
//! use revoada_pipeline::config::{AnalyticsConfig, CrossingMode, LineConfig, Scope};
//!
//! let door = LineConfig {
//!     scope: Scope { name: "door".into(), ..Scope::default() },
//!     points: [Point::new(0.0, 50.0), Point::new(100.0, 50.0)],
//!     direction: None,
//!     mode: CrossingMode::Loose,
//!     extended: false,
//! };
//! let config = AnalyticsConfig { lines: vec![door], ..AnalyticsConfig::default() };
//! let rules = Rules::of(&config, &StreamId::new("front"), &[])?.expect("there is a rule for every stream");
//! let mut analyser = Analyser::new(rules);
//! for (second, bottom) in [(0, 40.0), (1, 60.0)] {
//!     let bbox = Rect::new(45.0, bottom - 20.0, 10.0, 20.0);
//!     let somebody = Detection { track: Some(TrackId(1)), bbox, ..Detection::default() };
//!     analyser.update(Timestamp::from_nanos(second * 1_000_000_000), Size::new(100, 100), &[somebody]);
//! }
//! assert_eq!(analyser.counts().lines[0].total.inwards, 1);
//! # Ok::<(), revoada_pipeline::analyse::RuleError>(())
//! ```

mod direction;
pub(crate) mod geometry;
mod line;
mod motion;
mod region;
mod rules;
mod tracks;

use std::sync::Arc;
use std::time::Duration;

use revoada_core::{Detection, Rect, Size, Timestamp, TrackId};

use crate::config::Anchor;
use direction::DirectionWatch;
use geometry::Vector;
use line::LineCounter;
use motion::Paths;
use region::RegionWatch;

pub use direction::DirectionCount;
pub use line::{Crossing, Crossings, LineCount};
pub use region::RegionCount;
pub(crate) use rules::{DirectionRule, LineRule, RegionRule};
pub use rules::{RuleError, Rules};

/// Something that happened in one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Name of the line, region or direction.
    pub rule: String,
    pub kind: EventKind,
    /// The object; none where a region as a whole is meant.
    pub track: Option<TrackId>,
    pub class: Option<u32>,
    pub bbox: Option<Rect>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EventKind {
    /// A line was crossed; the count has it in already.
    Crossed { crossing: Crossing, count: Crossings },
    /// A track came into a region, or began there.
    Entered,
    /// A track left a region; `is_lost` where it was not seen any more, and left when it was seen last.
    Left { stayed: Duration, is_lost: bool },
    /// A track has been in a region for as long as is to be told.
    Dwelt { stayed: Duration },
    /// A region has held too many objects for as long as is to be told.
    CrowdBegan { objects: u64, lasted: Duration },
    /// It holds no more than it should, and has for a second.
    CrowdEnded { objects: u64, lasted: Duration },
    /// A track began to move in a direction.
    Took,
}

impl EventKind {
    /// As records and metrics name them.
    pub const NAMES: [&str; 7] = [
        "line-crossed",
        "region-entered",
        "region-left",
        "region-dwelt",
        "crowd-began",
        "crowd-ended",
        "direction-taken",
    ];

    pub fn name(&self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// Of its name.
    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Crossed { .. } => 0,
            Self::Entered => 1,
            Self::Left { .. } => 2,
            Self::Dwelt { .. } => 3,
            Self::CrowdBegan { .. } => 4,
            Self::CrowdEnded { .. } => 5,
            Self::Took => 6,
        }
    }
}

impl Event {
    fn of_rule(rule: &str, kind: EventKind) -> Self {
        Self { rule: rule.to_owned(), kind, track: None, class: None, bbox: None }
    }
}

/// The counts of a stream's rules, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub lines: Vec<LineCount>,
    pub regions: Vec<RegionCount>,
    pub directions: Vec<DirectionCount>,
}

/// What there is to tell of one frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// What the counts belong to.
    pub rules: Arc<Rules>,
    pub events: Vec<Event>,
    pub counts: Counts,
    /// Indices of the detections that pictures mark: what just crossed a line, stays too long or in a crowd, or moves
    /// in a direction that is told.
    pub marked: Vec<usize>,
}

/// A detection as the rules see it.
#[derive(Debug)]
struct Object<'d> {
    index: usize,
    detection: &'d Detection,
    /// Of the anchor, as fractions of the picture.
    place: Vector,
    /// Of the box, as a fraction of the picture's.
    height: f64,
    /// Over the latest second, as fractions of the picture; nothing for what is not tracked.
    moved: Vector,
    is_marked: bool,
}

impl Object<'_> {
    fn event(&self, rule: &str, kind: EventKind) -> Event {
        let Detection { class, bbox, track, .. } = *self.detection;
        Event { track, class: Some(class), bbox: Some(bbox), ..Event::of_rule(rule, kind) }
    }
}

/// Follows the objects of one stream through its rules.
#[derive(Debug)]
pub struct Analyser {
    rules: Arc<Rules>,
    paths: Paths,
    lines: Vec<LineCounter>,
    regions: Vec<RegionWatch>,
    directions: Vec<DirectionWatch>,
}

impl Analyser {
    pub fn new(rules: Rules) -> Self {
        let rules = Arc::new(rules);
        Self {
            paths: Paths::default(),
            lines: rules.lines.iter().map(|rule| LineCounter::new(Arc::clone(rule))).collect(),
            regions: rules.regions.iter().map(|rule| RegionWatch::new(Arc::clone(rule))).collect(),
            directions: rules.directions.iter().map(|rule| DirectionWatch::new(Arc::clone(rule))).collect(),
            rules,
        }
    }

    /// Goes on with other rules. Those that are as they were keep their counts and tracks.
    pub fn change(&mut self, rules: Rules) {
        let mut old = std::mem::replace(self, Self::new(rules));
        if old.rules.config.anchor == self.rules.config.anchor {
            self.paths = old.paths;
            keep(&mut self.lines, &mut old.lines, |a, b| a.rule == b.rule);
            keep(&mut self.regions, &mut old.regions, |a, b| a.rule == b.rule);
            keep(&mut self.directions, &mut old.directions, |a, b| a.rule == b.rule);
        }
    }

    /// The next frame: its time in the stream, its picture's size, and what was found in it. Times must not run back.
    pub fn update(&mut self, at: Timestamp, size: Size, detections: &[Detection]) -> Analysis {
        let rules = Arc::clone(&self.rules);
        let (margin, forget) = (f64::from(rules.config.margin), rules.config.forget);
        let mut objects = self.objects(at, size, detections);
        let mut events = Vec::new();
        // First, so that a track which comes back after that time comes anew.
        for line in &mut self.lines {
            line.forget(at, forget);
            line.update(at, size, margin, &mut objects, &mut events);
        }
        for region in &mut self.regions {
            region.forget(at, forget, &mut events);
            region.update(at, size, margin, &mut objects, &mut events);
        }
        for direction in &mut self.directions {
            direction.forget(at, forget);
            direction.update(at, size, &mut objects, &mut events);
        }
        let marked = objects.iter().filter(|object| object.is_marked).map(|object| object.index).collect();
        Analysis { rules, events, counts: self.counts(), marked }
    }

    pub fn counts(&self) -> Counts {
        Counts {
            lines: self.lines.iter().map(|line| line.count.clone()).collect(),
            regions: self.regions.iter().map(|region| region.count).collect(),
            directions: self.directions.iter().map(|direction| direction.count).collect(),
        }
    }

    /// Boxes come from a network: one that has NaN in it is nowhere.
    fn objects<'d>(&mut self, at: Timestamp, size: Size, detections: &'d [Detection]) -> Vec<Object<'d>> {
        self.paths.forget(at, self.rules.config.forget);
        let fraction = Vector::new(1.0 / size.width as f64, 1.0 / size.height as f64);
        let mut objects = Vec::with_capacity(detections.len());
        for (index, detection) in detections.iter().enumerate() {
            let Rect { x, y, width, height } = detection.bbox;
            let down = match self.rules.config.anchor {
                Anchor::BottomCenter => 1.0,
                Anchor::Center => 0.5,
            };
            let [x, y, width, height] = [x, y, width, height].map(f64::from);
            let place = Vector::new(x + width / 2.0, y + height * down).times(fraction);
            if !place.length().is_finite() {
                continue;
            }
            let moved = detection.track.map(|track| self.paths.moved(track, at, place)).unwrap_or_default();
            let height = height.abs() * fraction.y;
            objects.push(Object { index, detection, place, height, moved, is_marked: false });
        }
        objects
    }
}

/// Puts what was there in the place of each new one that is the same.
fn keep<T>(new: &mut [T], old: &mut Vec<T>, is_same: impl Fn(&T, &T) -> bool) {
    for new in new {
        if let Some(index) = old.iter().position(|old| is_same(old, new)) {
            *new = old.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests;
