//! Counting what crosses a line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use revoada_core::{Size, Timestamp};

use super::geometry::{Segment, Vector};
use super::rules::LineRule;
use super::tracks::Tracks;
use super::{Event, EventKind, Object};
use crate::config::CrossingMode;

/// How long an object that crossed is marked in pictures.
const MARKED: Duration = Duration::from_secs(1);
/// Classes that are counted each by itself; no detector has more, and beyond it only the sum goes on.
const CLASSES_MAX: usize = 1024;

/// To which side a line was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crossing {
    In,
    Out,
}

/// What has crossed a line since the stream began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crossings {
    pub inwards: u64,
    pub outwards: u64,
}

impl Crossings {
    fn add(&mut self, crossing: Crossing) {
        match crossing {
            Crossing::In => self.inwards += 1,
            Crossing::Out => self.outwards += 1,
        }
    }
}

/// The count of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineCount {
    pub total: Crossings,
    /// By the class that the object had when it crossed.
    pub classes: BTreeMap<u32, Crossings>,
}

/// Counts the crossings of one line.
///
/// A track is on the side on which it was last clear of the line by the margin. Where it comes clear on the other side,
/// it has crossed, if its path went over the line between the line's ends more often in that direction than back: what
/// walks round an end is not counted, and what trembles on the line is counted once it has made up its mind.
#[derive(Debug)]
pub(super) struct LineCounter {
    pub(super) rule: Arc<LineRule>,
    pub(super) count: LineCount,
    tracks: Tracks<Walker>,
}

#[derive(Debug)]
struct Walker {
    /// As fractions of the picture.
    place: Vector,
    /// On which side it was clear of the line, or began.
    is_right: bool,
    /// Steps over the line to its right, less those to its left, since it was clear of it.
    steps: i64,
    crossed: Option<Timestamp>,
}

impl LineCounter {
    pub(super) fn new(rule: Arc<LineRule>) -> Self {
        Self { rule, count: LineCount::default(), tracks: Tracks::default() }
    }

    pub(super) fn update(
        &mut self,
        at: Timestamp,
        size: Size,
        margin: f64,
        objects: &mut [Object<'_>],
        events: &mut Vec<Event>,
    ) {
        let LineRule { config, classes, line, .. } = &*self.rule;
        let extent = config.scope.extent(size);
        for object in objects.iter_mut().filter(|object| classes.has(object.detection.class)) {
            let Some(track) = object.detection.track else { continue };
            let place = object.place.times(extent);
            let right_by = line.right_by(place);
            let walker = self.tracks.seen(track, at, || Walker {
                place: object.place,
                is_right: right_by >= 0.0,
                steps: 0,
                crossed: None,
            });
            let step = Segment { from: walker.place.times(extent), to: place };
            walker.place = object.place;
            if let Some((part, to_right)) = line.crossed_by(step)
                && (config.extended || (0.0..=1.0).contains(&part))
            {
                walker.steps += if to_right { 1 } else { -1 };
            }
            if right_by.abs() >= margin * object.height * extent.y {
                let is_right = right_by >= 0.0;
                let over = if is_right { walker.steps > 0 } else { walker.steps < 0 };
                walker.steps = 0;
                if walker.is_right != is_right {
                    walker.is_right = is_right;
                    let crossing = if is_right == self.rule.in_is_right { Crossing::In } else { Crossing::Out };
                    if over && self.rule.admits(crossing, object.moved.times(extent)) {
                        walker.crossed = Some(at);
                        self.count.add(object.detection.class, crossing);
                        events.push(
                            object.event(&config.scope.name, EventKind::Crossed { crossing, count: self.count.total }),
                        );
                    }
                }
            }
            object.is_marked |= walker.crossed.is_some_and(|crossed| at.since(crossed) < MARKED);
        }
    }

    pub(super) fn forget(&mut self, at: Timestamp, forget: Duration) {
        self.tracks.forget(at, forget);
    }
}

impl LineCount {
    fn add(&mut self, class: u32, crossing: Crossing) {
        self.total.add(crossing);
        if self.classes.len() < CLASSES_MAX || self.classes.contains_key(&class) {
            self.classes.entry(class).or_default().add(crossing);
        }
    }
}

impl LineRule {
    /// Whether an object that moves so keeps to the direction as the mode asks.
    fn admits(&self, crossing: Crossing, moved: Vector) -> bool {
        let degrees: f64 = match self.config.mode {
            CrossingMode::Loose => return true,
            CrossingMode::Balanced => 60.0,
            CrossingMode::Strict => 30.0,
        };
        let turned = moved.angle_to(self.inwards);
        let turned = if crossing == Crossing::In { turned } else { std::f64::consts::PI - turned };
        moved.length() > 0.0 && turned <= degrees.to_radians()
    }
}
