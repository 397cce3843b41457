//! Who is in a region, for how long, and whether it is crowded.

use std::sync::Arc;
use std::time::Duration;

use revoada_core::{Rect, Size, Timestamp};

use super::rules::RegionRule;
use super::tracks::Tracks;
use super::{Event, EventKind, Object};
use crate::config::CrowdConfig;

/// A crowd that thins out for less has not gone: a detector misses somebody now and then.
const CROWD_SETTLES: Duration = Duration::from_secs(1);

/// What one region holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionCount {
    /// Objects in it now, as far as the detector sees them, tracked or not.
    pub objects: u64,
    /// Tracks that came in and that left since the stream began.
    pub entered: u64,
    pub left: u64,
    /// Stays that reached the time to tell.
    pub dwelt: u64,
    pub is_crowded: bool,
}

/// Watches one region.
///
/// A track that is new is where its anchor is; afterwards it has changed sides once its anchor is past the outline by
/// the margin. One that is not seen any more stays where it was until it is forgotten.
#[derive(Debug)]
pub(super) struct RegionWatch {
    pub(super) rule: Arc<RegionRule>,
    pub(super) count: RegionCount,
    tracks: Tracks<Visitor>,
    crowd: Crowd,
}

#[derive(Debug)]
struct Visitor {
    stay: Option<Stay>,
    class: u32,
    bbox: Rect,
}

#[derive(Clone, Copy, Debug)]
struct Stay {
    since: Timestamp,
    is_told: bool,
}

impl RegionWatch {
    pub(super) fn new(rule: Arc<RegionRule>) -> Self {
        Self { rule, count: RegionCount::default(), tracks: Tracks::default(), crowd: Crowd::default() }
    }

    pub(super) fn update(
        &mut self,
        at: Timestamp,
        size: Size,
        margin: f64,
        objects: &mut [Object<'_>],
        events: &mut Vec<Event>,
    ) {
        let RegionRule { config, classes, polygon } = &*self.rule;
        let (extent, name) = (config.scope.extent(size), &config.scope.name);
        let mut is_inside = vec![false; objects.len()];
        for (object, inside) in objects.iter_mut().zip(&mut is_inside) {
            if !classes.has(object.detection.class) {
                continue;
            }
            let place = object.place.times(extent);
            *inside = polygon.contains(place) != config.inverse;
            let Some(track) = object.detection.track else { continue };
            let (class, bbox) = (object.detection.class, object.detection.bbox);
            let mut is_new = false;
            let visitor = self.tracks.seen(track, at, || {
                is_new = true;
                Visitor { stay: None, class, bbox }
            });
            (visitor.class, visitor.bbox) = (class, bbox);
            let is_clear = || polygon.distance_to_outline(place) >= margin * object.height * extent.y;
            if *inside != visitor.stay.is_some() && !is_new && !is_clear() {
                *inside = !*inside;
            }
            for kind in [visitor.comes_or_goes(at, *inside), visitor.dwells(at, config.dwell)].into_iter().flatten() {
                self.count.add(&kind);
                events.push(object.event(name, kind));
            }
            object.is_marked |= visitor.stay.is_some_and(|stay| stay.is_told);
        }
        self.count.objects = is_inside.iter().filter(|inside| **inside).count() as u64;
        if let Some(crowd) = config.crowd {
            events.extend(self.crowd.update(at, self.count.objects, crowd).map(|kind| Event::of_rule(name, kind)));
            self.count.is_crowded = self.crowd.told.is_some();
            if self.count.is_crowded {
                objects.iter_mut().zip(&is_inside).for_each(|(object, inside)| object.is_marked |= *inside);
            }
        }
    }

    /// Tracks that are gone have left when they were seen last.
    pub(super) fn forget(&mut self, at: Timestamp, forget: Duration, events: &mut Vec<Event>) {
        for (track, gone) in self.tracks.forget(at, forget) {
            let Visitor { stay: Some(stay), class, bbox } = gone.state else { continue };
            let kind = EventKind::Left { stayed: gone.seen.since(stay.since), is_lost: true };
            self.count.add(&kind);
            let name = &self.rule.config.scope.name;
            events.push(Event {
                track: Some(track),
                class: Some(class),
                bbox: Some(bbox),
                ..Event::of_rule(name, kind)
            });
        }
    }
}

impl Visitor {
    fn comes_or_goes(&mut self, at: Timestamp, is_inside: bool) -> Option<EventKind> {
        match self.stay {
            None if is_inside => {
                self.stay = Some(Stay { since: at, is_told: false });
                Some(EventKind::Entered)
            }
            Some(stay) if !is_inside => {
                self.stay = None;
                Some(EventKind::Left { stayed: at.since(stay.since), is_lost: false })
            }
            _ => None,
        }
    }

    /// Once in a stay, when it has become as long as is to be told.
    fn dwells(&mut self, at: Timestamp, dwell: Option<Duration>) -> Option<EventKind> {
        let stay = self.stay.as_mut().filter(|stay| !stay.is_told)?;
        let stayed = at.since(stay.since);
        stay.is_told = stayed >= dwell?;
        stay.is_told.then_some(EventKind::Dwelt { stayed })
    }
}

impl RegionCount {
    fn add(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Entered => self.entered += 1,
            EventKind::Left { .. } => self.left += 1,
            EventKind::Dwelt { .. } => self.dwelt += 1,
            _ => {}
        }
    }
}

/// Whether there are too many, and since when.
#[derive(Debug, Default)]
struct Crowd {
    /// The first and the latest time that there were too many.
    span: Option<(Timestamp, Timestamp)>,
    /// When it was told.
    told: Option<Timestamp>,
}

impl Crowd {
    fn update(&mut self, at: Timestamp, objects: u64, config: CrowdConfig) -> Option<EventKind> {
        if objects > u64::from(config.objects_max) {
            let (since, _) = self.span.unwrap_or((at, at));
            self.span = Some((since, at));
            if self.told.is_none() && at.since(since) >= config.after {
                self.told = Some(at);
                return Some(EventKind::CrowdBegan { objects, lasted: at.since(since) });
            }
            return None;
        }
        let (since, latest) = self.span?;
        if at.since(latest) < CROWD_SETTLES {
            return None;
        }
        self.span = None;
        self.told.take().map(|_| EventKind::CrowdEnded { objects, lasted: latest.since(since) })
    }
}
