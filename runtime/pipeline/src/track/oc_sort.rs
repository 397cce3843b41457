//! OC-SORT: SORT that trusts what it saw more than what it expected.
//!
//! Three things come to SORT: a track that is found again re-lives the frames in between on the straight way between its
//! two observations, so that the errors of its blind prediction do not stay; detections in the direction in which a
//! track moves are preferred; and what is left over is matched with where tracks were seen last.

use revoada_core::TrackId;

use super::bounds::Bounds;
use super::heading::Headings;
use super::kalman::{AreaBox, AreaMotion};
use super::overlap::Overlaps;
use super::{Algorithm, Ids, Now, Seen, Told, Warp};
use crate::config::{DELTA_FRAMES_MAX, OcSortConfig};

/// Added to lengths and heights that are divided by, as in the authors' code.
pub(super) const TINY: f64 = 1e-6;

#[derive(Debug)]
pub(super) struct OcSort {
    config: OcSortConfig,
    tracks: Vec<Track>,
    /// Detections that nothing is matched with yet.
    good: Vec<Seen>,
    weak: Vec<Seen>,
    matching: Matching,
}

#[derive(Debug)]
struct Track {
    motion: Motion,
    id: Option<TrackId>,
    age: u64,
    streak: u32,
    lost_frames: u32,
    observations: Observations,
    /// Unit vector from an observation some frames ago to the latest one.
    direction: Option<(f64, f64)>,
    /// The detection of this frame.
    index: usize,
}

/// SORT's filter, which takes back what it made up when it learns better.
#[derive(Debug)]
struct Motion {
    filter: AreaMotion,
    /// The last measurement.
    measured: Option<AreaBox>,
    /// Predictions since then, and how the first of them came out.
    predictions: u32,
    first: AreaMotion,
    /// Whether a frame was missed since then.
    is_blind: bool,
}

impl Motion {
    fn new(first: AreaBox) -> Self {
        let filter = AreaMotion::new(first);
        Self { filter, measured: None, predictions: 0, first: filter, is_blind: false }
    }

    fn predict(&mut self) {
        self.filter.predict();
        self.predictions += 1;
        if self.predictions == 1 {
            self.first = self.filter;
        }
    }

    fn update(&mut self, measured: AreaBox) {
        let relived = self.measured.filter(|_| self.is_blind).map(|before| self.relive(before, measured));
        self.filter.update(measured);
        (self.measured, self.predictions, self.is_blind) = (Some(relived.unwrap_or(measured)), 0, false);
    }

    /// Goes from one measurement to the next in equal steps, one a prediction; returns the last of them.
    fn relive(&mut self, before: AreaBox, after: AreaBox) -> AreaBox {
        let sides = |of: AreaBox| ((of.area * of.ratio).sqrt(), (of.area / of.ratio).sqrt());
        let ((width, height), (width_after, height_after)) = (sides(before), sides(after));
        let steps = f64::from(self.predictions);
        let way = |from: f64, to: f64| (to - from) / steps;
        let (x, y) = (way(before.x, after.x), way(before.y, after.y));
        let (wider, higher) = (way(width, width_after), way(height, height_after));
        self.filter = self.first;
        let mut last = after;
        for step in 1..=self.predictions {
            let done = f64::from(step);
            let (width, height) = (width + done * wider, height + done * higher);
            last =
                AreaBox { x: before.x + done * x, y: before.y + done * y, area: width * height, ratio: width / height };
            self.filter.update(last);
            if step < self.predictions {
                self.filter.predict();
            }
        }
        last
    }

    fn warp(&mut self, warp: &Warp) {
        self.filter.warp(warp);
        self.first.warp(warp);
        self.measured = self.measured.map(|measured| measured.warped(warp));
    }
}

impl Track {
    fn begin(seen: &Seen) -> Self {
        Self {
            motion: Motion::new(measured(&seen.bounds)),
            id: None,
            age: 0,
            streak: 0,
            lost_frames: 0,
            observations: Observations::default(),
            direction: None,
            index: seen.index,
        }
    }

    fn predict(&mut self, now: &Now<'_>) {
        if let Some(warp) = now.warp {
            self.motion.warp(warp);
            self.observations.all_mut().for_each(|(_, bounds)| *bounds = bounds.warped(warp));
            self.direction = self.direction.map(|(x, y)| {
                let (x, y) = warp.turn(x, y);
                unit(x, y)
            });
        }
        (0..now.ahead).for_each(|_| self.motion.predict());
        self.age += 1;
        if self.lost_frames > 0 {
            self.streak = 0;
        }
        self.lost_frames += 1;
    }

    fn see(&mut self, seen: &Seen, delta_frames: u32) {
        if let Some(before) = self.observations.earlier(self.age, delta_frames) {
            self.direction = Some(direction(&before, &seen.bounds));
        }
        self.observations.push(self.age, seen.bounds);
        self.motion.update(measured(&seen.bounds));
        self.streak += 1;
        (self.lost_frames, self.index) = (0, seen.index);
    }
}

/// What a track saw after its first detection, each with the track's age, the oldest first: as many as a direction may
/// look back to.
#[derive(Debug, Default)]
struct Observations {
    latest: [Option<(u64, Bounds)>; DELTA_FRAMES_MAX as usize],
}

impl Observations {
    fn push(&mut self, age: u64, bounds: Bounds) {
        self.latest.rotate_left(1);
        self.latest[DELTA_FRAMES_MAX as usize - 1] = Some((age, bounds));
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut (u64, Bounds)> {
        self.latest.iter_mut().flatten()
    }

    fn last(&self) -> Option<Bounds> {
        self.latest.last().copied().flatten().map(|(_, bounds)| bounds)
    }

    /// Of so many frames before `age`, else of the first frame after that, else the last.
    fn earlier(&self, age: u64, delta_frames: u32) -> Option<Bounds> {
        let lately = |(seen_at, _): &&(u64, Bounds)| age - seen_at <= u64::from(delta_frames);
        self.latest.iter().flatten().find(lately).map(|(_, bounds)| *bounds).or(self.last())
    }
}

fn measured(bounds: &Bounds) -> AreaBox {
    AreaBox { ratio: bounds.width() / (bounds.height() + TINY), ..AreaBox::of(bounds) }
}

fn unit(x: f64, y: f64) -> (f64, f64) {
    let length = (x * x + y * y).sqrt() + TINY;
    (x / length, y / length)
}

fn direction(from: &Bounds, to: &Bounds) -> (f64, f64) {
    let ((from_x, from_y), (to_x, to_y)) = (from.center(), to.center());
    unit(to_x - from_x, to_y - from_y)
}

impl OcSort {
    pub(super) fn new(config: OcSortConfig) -> Self {
        Self { config, tracks: Vec::new(), good: Vec::new(), weak: Vec::new(), matching: Matching::default() }
    }
}

/// Matches tracks with detections and keeps its buffers.
#[derive(Debug, Default)]
struct Matching {
    /// Positions among the tracks.
    candidates: Vec<usize>,
    expected: Vec<Bounds>,
    headings: Headings,
    seen: Vec<Bounds>,
    is_matched: Vec<bool>,
    overlaps: Overlaps,
}

/// With what detections are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Where tracks are expected; detections ahead of them are preferred.
    Ahead,
    Expected,
    LastSeen,
}

impl Matching {
    /// Tracks that have seen nothing in this frame see what overlaps most; that is taken out of `found`.
    fn run(&mut self, tracks: &mut [Track], found: &mut Vec<Seen>, round: Round, config: &OcSortConfig) {
        let Self { candidates, expected, headings, seen, is_matched, overlaps } = self;
        candidates.clear();
        expected.clear();
        for (position, track) in tracks.iter().enumerate().filter(|(_, track)| track.lost_frames > 0) {
            let bounds = match round {
                Round::Ahead | Round::Expected => Some(track.motion.filter.bounds()),
                Round::LastSeen => track.observations.last(),
            };
            if let Some(bounds) = bounds {
                candidates.push(position);
                expected.push(bounds);
            }
        }
        seen.clear();
        seen.extend(found.iter().map(|seen| seen.bounds));
        let OcSortConfig { iou_min, delta_frames, inertia, .. } = *config;
        let pairs = match round {
            Round::Ahead => {
                headings.clear();
                for track in candidates.iter().map(|&candidate| &tracks[candidate]) {
                    let from = track.observations.earlier(track.age, delta_frames).map(|bounds| bounds.center());
                    headings.push(from.zip(track.direction));
                }
                overlaps.pairs(seen, expected, iou_min, |seen, gains| {
                    headings.add_agreements(found[seen].bounds.center(), inertia * found[seen].score, gains);
                })
            }
            Round::Expected | Round::LastSeen => overlaps.best_pairs(seen, expected, iou_min),
        };
        is_matched.clear();
        is_matched.resize(found.len(), false);
        for &(seen, candidate) in pairs {
            is_matched[seen] = true;
            tracks[candidates[candidate]].see(&found[seen], delta_frames);
        }
        let mut is_matched = is_matched.iter();
        found.retain(|_| is_matched.next() == Some(&false));
    }
}

impl Algorithm for OcSort {
    fn step(&mut self, seen: &[Seen], now: &Now<'_>, ids: &mut Ids, told: &mut Vec<Told>) {
        let Self { config, tracks, good, weak, matching } = self;
        good.clear();
        good.extend(seen.iter().filter(|seen| seen.score > config.score_high));
        weak.clear();
        if let Some(score_low) = config.score_low {
            weak.extend(seen.iter().filter(|seen| seen.score > score_low && seen.score < config.score_high));
        }
        tracks.iter_mut().for_each(|track| track.predict(now));
        tracks.retain(|track| track.motion.filter.bounds().is_finite());

        matching.run(tracks, good, Round::Ahead, config);
        if !weak.is_empty() {
            matching.run(tracks, weak, Round::Expected, config);
        }
        matching.run(tracks, good, Round::LastSeen, config);
        tracks.iter_mut().filter(|track| track.lost_frames > 0).for_each(|track| track.motion.is_blind = true);
        tracks.extend(good.iter().map(Track::begin));

        // At a stream's beginning there was no time yet for so many hits.
        let begins = now.frame <= u64::from(config.hits_min);
        for track in tracks.iter_mut().filter(|track| track.lost_frames == 0) {
            if begins || track.streak >= config.hits_min {
                let id = *track.id.get_or_insert_with(|| ids.next());
                // Its box is what it saw.
                told.push(Told { index: track.index, id, bounds: None });
            }
        }
        tracks.retain(|track| track.lost_frames <= config.lost_frames_max);
    }
}
