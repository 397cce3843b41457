//! What moves in a direction.

use std::sync::Arc;
use std::time::Duration;

use revoada_core::{Size, Timestamp};

use super::rules::DirectionRule;
use super::tracks::Tracks;
use super::{Event, EventKind, Object};

/// What moves less over the window, as a fraction of its box's height, stands, and its boxes tremble.
const MOVED_MIN: f64 = 0.2;
/// A track that is told has turned away once it is so much further off than the angle: it does not come and go where it
/// moves along the limit.
const TURNED_AWAY_DEG: f32 = 15.0;

/// What one direction has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCount {
    /// In this frame.
    pub objects: u64,
    /// Times that a track took the direction since the stream began.
    pub taken: u64,
}

/// Watches for one direction. What stands keeps the state that it had.
#[derive(Debug)]
pub(super) struct DirectionWatch {
    pub(super) rule: Arc<DirectionRule>,
    pub(super) count: DirectionCount,
    /// Whether each moves along.
    tracks: Tracks<bool>,
}

impl DirectionWatch {
    pub(super) fn new(rule: Arc<DirectionRule>) -> Self {
        Self { rule, count: DirectionCount::default(), tracks: Tracks::default() }
    }

    pub(super) fn update(&mut self, at: Timestamp, size: Size, objects: &mut [Object<'_>], events: &mut Vec<Event>) {
        let DirectionRule { config, classes, way } = &*self.rule;
        let extent = config.scope.extent(size);
        self.count.objects = 0;
        for object in objects.iter_mut().filter(|object| classes.has(object.detection.class)) {
            let Some(track) = object.detection.track else { continue };
            let moves_along = self.tracks.seen(track, at, || false);
            let moved = object.moved.times(extent);
            if moved.length() >= MOVED_MIN * object.height * extent.y {
                let angle_deg = moved.angle_to(*way).to_degrees();
                let within = |limit: f32| angle_deg <= f64::from(limit);
                if !*moves_along && within(config.angle_deg) {
                    *moves_along = true;
                    self.count.taken += 1;
                    events.push(object.event(&config.scope.name, EventKind::Took));
                } else if *moves_along && !within(config.angle_deg + TURNED_AWAY_DEG) {
                    *moves_along = false;
                }
            }
            self.count.objects += u64::from(*moves_along);
            object.is_marked |= *moves_along;
        }
    }

    pub(super) fn forget(&mut self, at: Timestamp, forget: Duration) {
        self.tracks.forget(at, forget);
    }
}
