//! SORT: a Kalman filter for every object, and the assignment that overlaps most.

use revoada_core::TrackId;

use super::bounds::Bounds;
use super::kalman::{AreaBox, AreaMotion};
use super::overlap::Overlaps;
use super::{Algorithm, Ids, Now, Seen, Told};
use crate::config::SortConfig;

#[derive(Debug)]
pub(super) struct Sort {
    config: SortConfig,
    tracks: Vec<Track>,
    seen: Vec<Bounds>,
    expected: Vec<Bounds>,
    is_matched: Vec<bool>,
    overlaps: Overlaps,
}

#[derive(Debug)]
struct Track {
    motion: AreaMotion,
    id: Option<TrackId>,
    /// In so many frames in a row it was seen again.
    streak: u32,
    /// For so many frames it was not.
    lost_frames: u32,
    /// The detection of this frame.
    index: usize,
}

impl Sort {
    pub(super) fn new(config: SortConfig) -> Self {
        Self {
            config,
            tracks: Vec::new(),
            seen: Vec::new(),
            expected: Vec::new(),
            is_matched: Vec::new(),
            overlaps: Overlaps::default(),
        }
    }

    fn predict(&mut self, now: &Now<'_>) {
        for track in &mut self.tracks {
            if let Some(warp) = now.warp {
                track.motion.warp(warp);
            }
            (0..now.ahead).for_each(|_| track.motion.predict());
            if track.lost_frames > 0 {
                track.streak = 0;
            }
            track.lost_frames += 1;
        }
        self.tracks.retain(|track| track.motion.bounds().is_finite());
        self.expected.clear();
        self.expected.extend(self.tracks.iter().map(|track| track.motion.bounds()));
    }
}

impl Algorithm for Sort {
    fn step(&mut self, seen: &[Seen], now: &Now<'_>, ids: &mut Ids, told: &mut Vec<Told>) {
        self.predict(now);
        self.seen.clear();
        self.seen.extend(seen.iter().map(|seen| seen.bounds));
        self.is_matched.clear();
        self.is_matched.resize(seen.len(), false);
        for &(found, track) in self.overlaps.pairs(&self.seen, &self.expected, self.config.iou_min, |_, _| ()) {
            self.is_matched[found] = true;
            let track = &mut self.tracks[track];
            track.motion.update(AreaBox::of(&seen[found].bounds));
            track.streak += 1;
            (track.lost_frames, track.index) = (0, seen[found].index);
        }
        for (seen, _) in seen.iter().zip(&self.is_matched).filter(|(_, is_matched)| !**is_matched) {
            let motion = AreaMotion::new(AreaBox::of(&seen.bounds));
            self.tracks.push(Track { motion, id: None, streak: 0, lost_frames: 0, index: seen.index });
        }
        let SortConfig { hits_min, lost_frames_max, .. } = self.config;
        // At a stream's beginning there was no time yet for so many hits.
        let begins = now.frame <= u64::from(hits_min);
        for track in self.tracks.iter_mut().filter(|track| track.lost_frames == 0) {
            if begins || track.streak >= hits_min {
                let id = *track.id.get_or_insert_with(|| ids.next());
                told.push(Told { index: track.index, id, bounds: Some(track.motion.bounds()) });
            }
        }
        self.tracks.retain(|track| track.lost_frames <= lost_frames_max);
    }
}
