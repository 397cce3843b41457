//! Which box of this frame is which of the last: tracks through the frames of one stream.
//!
//! A [`Tracker`] gives every detection that it is sure of its track. Three algorithms, each as its authors' code does it:
//!
//! | name | source | what it is good at |
//! |---|---|---|
//! | `sort` | A. Bewley et al., "Simple Online and Realtime Tracking" (2016) | good detections, nothing hidden for long |
//! | `bytetrack` | Y. Zhang et al., "ByteTrack" (2021) | what is half hidden: weak detections go on with a track, but begin none |
//! | `ocsort` | J. Cao et al., "Observation-Centric SORT" (2022) | what changes its course, or is hidden and returns |
//!
//! They know nothing of pictures and read no clock: time is counted in frames. Every class is tracked as if it were alone,
//! so that a track keeps its class, unless the configuration says to match across classes. Boxes that are empty or not
//! finite are not tracked. After the first frames nothing is allocated but for more objects than there were before;
//! tracks are at most as many as the detections of the frames that an object may be lost for.
//!
//! ```
//! use revoada_core::{Detection, Rect, TrackId};
//! use revoada_pipeline::config::TrackerConfig;
//! use revoada_pipeline::track::{Step, Tracker};
//!
//! let mut tracker = Tracker::new(&TrackerConfig::SORT, 0);
//! for x in [10.0, 14.0, 18.0] {
//!     let mut found = [Detection { score: 0.9, bbox: Rect::new(x, 20.0, 30.0, 60.0), ..Detection::default() }];
//!     tracker.update(&mut found, &Step::default());
//!     # if x > 10.0 {
//!     assert_eq!(found[0].track, Some(TrackId(1)));
//!     # }
//! }
//! ```

mod assign;
mod bounds;
mod byte_track;
mod heading;
mod kalman;
mod oc_sort;
mod overlap;
mod sort;

use std::fmt::Debug;

use revoada_core::{Detection, TrackId};

use crate::config::{TrackerAlgorithm, TrackerConfig};
use bounds::Bounds;
use byte_track::ByteTrack;
use oc_sort::OcSort;
use sort::Sort;

/// Motion over a longer gap is a guess, and each frame of it costs a prediction.
const FRAMES_PREDICTED_MAX: u32 = 30;

/// What lies between a frame and the one before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// How many frames later it is: more than 1 where frames between were lost. Objects move on for so many frames (at
    /// most 30), but are not missed in those that nobody saw.
    pub frames: u32,
    /// How the camera moved: from places in the frame before to places in this one.
    pub warp: Option<Warp>,
}

impl Default for Step {
    fn default() -> Self {
        Self { frames: 1, warp: None }
    }
}

/// An affine map of the picture, `[[a, b, x], [c, d, y]]`, in pixels. A box goes with its centre, and its sides grow by
/// the square root of the determinant: a box that is turned stays upright.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warp {
    pub matrix: [[f64; 3]; 2],
}

impl Warp {
    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        let [[_, _, shift_x], [_, _, shift_y]] = self.matrix;
        let (x, y) = self.turn(x, y);
        (x + shift_x, y + shift_y)
    }

    /// A difference of places.
    fn turn(&self, x: f64, y: f64) -> (f64, f64) {
        let [[a, b, _], [c, d, _]] = self.matrix;
        (a * x + b * y, c * x + d * y)
    }

    fn scale(&self) -> f64 {
        let [[a, b, _], [c, d, _]] = self.matrix;
        (a * d - b * c).abs().sqrt()
    }
}

/// Follows the objects of one stream.
#[derive(Debug)]
pub struct Tracker {
    config: TrackerConfig,
    /// By class; one for all where classes do not matter.
    groups: Vec<Group>,
    /// Since the start or the last reset.
    frames: u64,
    ids: Ids,
    told: Vec<Told>,
}

/// The objects of one class.
#[derive(Debug)]
struct Group {
    class: u32,
    seen: Vec<Seen>,
    algorithm: Box<dyn Algorithm>,
}

/// A detection of this frame.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// In the frame's list.
    index: usize,
    bounds: Bounds,
    score: f64,
}

/// A detection's track, and the box that its filter sees by now, where it has a better one.
#[derive(Clone, Copy, Debug)]
struct Told {
    index: usize,
    id: TrackId,
    bounds: Option<Bounds>,
}

/// Gives numbers to tracks.
#[derive(Debug)]
struct Ids {
    last: u64,
}

impl Ids {
    fn next(&mut self) -> TrackId {
        self.last += 1;
        TrackId(self.last)
    }
}

/// Where a group is in its stream.
#[derive(Clone, Copy, Debug)]
struct Now<'s> {
    /// Counted from 1.
    frame: u64,
    /// Frames to predict, 1 to [`FRAMES_PREDICTED_MAX`].
    ahead: u32,
    warp: Option<&'s Warp>,
}

/// One algorithm, for objects among which any box may become any other's next.
trait Algorithm: Debug + Send {
    /// Follows the objects into this frame, and appends to `told` the tracks that are sure of what they see in it.
    fn step(&mut self, seen: &[Seen], now: &Now<'_>, ids: &mut Ids, told: &mut Vec<Told>);
}

fn algorithm(config: &TrackerAlgorithm) -> Box<dyn Algorithm> {
    match config {
        TrackerAlgorithm::Sort(config) => Box::new(Sort::new(*config)),
        TrackerAlgorithm::ByteTrack(config) => Box::new(ByteTrack::new(*config)),
        TrackerAlgorithm::OcSort(config) => Box::new(OcSort::new(*config)),
    }
}

impl Tracker {
    /// The first track gets the id after `last_id`, so that a stream's ids are never used twice.
    pub fn new(config: &TrackerConfig, last_id: u64) -> Self {
        Self { config: *config, groups: Vec::new(), frames: 0, ids: Ids { last: last_id }, told: Vec::new() }
    }

    /// Follows the objects into the next frame. Has to be told of every frame, also of one in which nothing was found.
    /// Sets the track of every detection, `None` where there is none or none that is sure yet; where the configuration
    /// smooths and the algorithm does, the boxes of tracks become what their filters see.
    pub fn update(&mut self, detections: &mut [Detection], step: &Step) {
        self.frames += 1;
        self.groups.iter_mut().for_each(|group| group.seen.clear());
        for (index, detection) in detections.iter_mut().enumerate() {
            detection.track = None;
            let bounds = Bounds::of(detection.bbox);
            if bounds.is_proper() && detection.score.is_finite() {
                let class = if self.config.across_classes { 0 } else { detection.class };
                self.group(class).seen.push(Seen { index, bounds, score: detection.score.into() });
            }
        }
        let ahead = step.frames.clamp(1, FRAMES_PREDICTED_MAX);
        let now = Now { frame: self.frames, ahead, warp: step.warp.as_ref() };
        self.told.clear();
        for group in &mut self.groups {
            group.algorithm.step(&group.seen, &now, &mut self.ids, &mut self.told);
        }
        for told in &self.told {
            let detection = &mut detections[told.index];
            detection.track = Some(told.id);
            if let Some(bounds) = told.bounds.filter(|bounds| self.config.smooth && bounds.is_finite()) {
                detection.bbox = bounds.rect();
            }
        }
    }

    /// Forgets every object, as where a stream was interrupted. Ids go on.
    pub fn reset(&mut self) {
        self.groups.clear();
        self.frames = 0;
    }

    /// Of the latest track that was told; as many tracks were told so far, where ids began with 1.
    pub fn last_id(&self) -> u64 {
        self.ids.last
    }

    fn group(&mut self, class: u32) -> &mut Group {
        let position = self.groups.binary_search_by_key(&class, |group| group.class).unwrap_or_else(|position| {
            let algorithm = algorithm(&self.config.algorithm);
            self.groups.insert(position, Group { class, seen: Vec::new(), algorithm });
            position
        });
        &mut self.groups[position]
    }
}

#[cfg(test)]
mod tests;
