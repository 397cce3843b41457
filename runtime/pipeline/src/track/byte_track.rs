//! ByteTrack: good detections are matched first, and what is left of the tracks with the weak ones.

use revoada_core::TrackId;

use super::assign::Assignment;
use super::kalman::HeightMotion;
use super::{Algorithm, Ids, Now, Seen, Told};
use crate::config::ByteTrackConfig;

/// Corners are pixels that belong to the box, as in the authors' code.
const EDGE: f64 = 1.0;
/// Most distance (1 − IoU) between a track and a weak detection.
const WEAK_DISTANCE_MAX: f64 = 0.5;
/// Most distance between a new track and its second detection.
const SECOND_DISTANCE_MAX: f64 = 0.7;
/// A lost track that is nearer than this to one that is seen is the same object.
const SAME_DISTANCE: f64 = 0.15;

#[derive(Debug)]
pub(super) struct ByteTrack {
    config: ByteTrackConfig,
    tracks: Vec<Track>,
    /// Detections that nothing is matched with yet.
    good: Vec<Seen>,
    weak: Vec<Seen>,
    matching: Matching,
}

#[derive(Debug)]
struct Track {
    motion: HeightMotion,
    id: Option<TrackId>,
    state: State,
    began: u64,
    /// When it was seen last.
    frame: u64,
    /// It was lost for too long once. It may still come back in the one frame that follows, and is not kept when it is
    /// lost again.
    expired: bool,
    /// Another track follows the same object, and this one is to go.
    doubles: bool,
    /// The detection of the frame in which it was seen last.
    index: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Seen once: not sure.
    New,
    Seen,
    Lost,
}

impl Track {
    fn begin(seen: &Seen, now: &Now<'_>) -> Self {
        // In a stream's first frame everything is new.
        let state = if now.frame == 1 { State::Seen } else { State::New };
        let motion = HeightMotion::new(&seen.bounds);
        let (began, frame, index) = (now.frame, now.frame, seen.index);
        Self { motion, id: None, state, began, frame, expired: false, doubles: false, index }
    }

    fn see(&mut self, seen: &Seen, frame: u64) {
        self.motion.update(&seen.bounds);
        (self.state, self.frame, self.index) = (State::Seen, frame, seen.index);
    }

    /// New tracks stay where they are: nothing is known of their speed.
    fn predict(&mut self, now: &Now<'_>) {
        if let Some(warp) = now.warp {
            self.motion.warp(warp);
        }
        let frames = if self.state == State::New { 0 } else { now.ahead };
        for _ in 0..frames {
            if self.state == State::Lost {
                self.motion.hold_height();
            }
            self.motion.predict();
        }
    }

    fn frames(&self) -> u64 {
        self.frame - self.began
    }
}

/// Matches tracks with detections and keeps its buffers.
#[derive(Debug, Default)]
struct Matching {
    /// Positions among the tracks.
    candidates: Vec<usize>,
    /// Candidates × detections.
    distances: Vec<f64>,
    is_matched: Vec<bool>,
    assignment: Assignment,
}

impl Matching {
    /// Tracks that are `wanted` see what is nearest, up to `distance_max`; that is taken out of `found`. Overlaps count
    /// in proportion to the score where these are weighed.
    fn run(
        &mut self,
        tracks: &mut [Track],
        wanted: impl Fn(&Track) -> bool,
        found: &mut Vec<Seen>,
        (distance_max, weighs): (f64, bool),
        frame: u64,
    ) {
        let Self { candidates, distances, is_matched, assignment } = self;
        candidates.clear();
        candidates.extend((0..tracks.len()).filter(|&track| wanted(&tracks[track])));
        distances.clear();
        for &candidate in &*candidates {
            let bounds = tracks[candidate].motion.bounds();
            distances.extend(found.iter().map(|seen| {
                let overlap = bounds.iou(&seen.bounds, EDGE);
                1.0 - if weighs { overlap * seen.score } else { overlap }
            }));
        }
        is_matched.clear();
        is_matched.resize(found.len(), false);
        let distance = |candidate: usize, seen: usize| distances[candidate * is_matched.len() + seen];
        let pairs = assignment.solve_below(distance_max, candidates.len(), found.len(), distance);
        for &(candidate, seen) in pairs {
            tracks[candidates[candidate]].see(&found[seen], frame);
        }
        for &(_, seen) in pairs {
            is_matched[seen] = true;
        }
        let mut is_matched = is_matched.iter();
        found.retain(|_| is_matched.next() == Some(&false));
    }
}

impl ByteTrack {
    pub(super) fn new(config: ByteTrackConfig) -> Self {
        Self { config, tracks: Vec::new(), good: Vec::new(), weak: Vec::new(), matching: Matching::default() }
    }

    /// What was lost for too long goes, and of a lost track and a seen one of the same object the younger.
    fn forget(&mut self, now: &Now<'_>) {
        let lost_frames_max = u64::from(self.config.lost_frames_max);
        self.tracks.retain_mut(|track| {
            let is_kept = track.state != State::Lost || !track.expired;
            track.expired |= track.state == State::Lost && now.frame - track.frame > lost_frames_max;
            is_kept
        });
        for lost in 0..self.tracks.len() {
            if self.tracks[lost].state != State::Lost {
                continue;
            }
            let (bounds, frames) = (self.tracks[lost].motion.bounds(), self.tracks[lost].frames());
            for seen in 0..self.tracks.len() {
                let track = &self.tracks[seen];
                if track.state != State::Lost && 1.0 - bounds.iou(&track.motion.bounds(), EDGE) < SAME_DISTANCE {
                    let younger = if track.frames() > frames { lost } else { seen };
                    self.tracks[younger].doubles = true;
                }
            }
        }
        self.tracks.retain(|track| !track.doubles);
    }
}

impl Algorithm for ByteTrack {
    fn step(&mut self, seen: &[Seen], now: &Now<'_>, ids: &mut Ids, told: &mut Vec<Told>) {
        let ByteTrackConfig { score_high, score_low, score_new, distance_max, weigh_scores, .. } = self.config;
        let frame = now.frame;
        let Self { tracks, good, weak, matching, .. } = self;
        good.clear();
        good.extend(seen.iter().filter(|seen| seen.score > score_high));
        weak.clear();
        weak.extend(seen.iter().filter(|seen| seen.score > score_low && seen.score < score_high));
        tracks.iter_mut().for_each(|track| track.predict(now));

        let known = |track: &Track| track.state != State::New;
        matching.run(tracks, known, good, (distance_max, weigh_scores), frame);
        let missed = |track: &Track| track.state == State::Seen && track.frame < frame;
        matching.run(tracks, missed, weak, (WEAK_DISTANCE_MAX, false), frame);
        tracks.iter_mut().filter(|track| missed(track)).for_each(|track| track.state = State::Lost);
        let new = |track: &Track| track.state == State::New;
        matching.run(tracks, new, good, (SECOND_DISTANCE_MAX, weigh_scores), frame);
        tracks.retain(|track| !new(track));
        tracks.extend(good.iter().filter(|seen| seen.score >= score_new).map(|seen| Track::begin(seen, now)));

        self.forget(now);
        for track in self.tracks.iter_mut().filter(|track| track.state == State::Seen) {
            let id = *track.id.get_or_insert_with(|| ids.next());
            told.push(Told { index: track.index, id, bounds: Some(track.motion.bounds()) });
        }
    }
}
