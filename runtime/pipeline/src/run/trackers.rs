//! One tracker for each stream, told what lies between its frames.

use std::collections::HashMap;

use revoada_core::{Detection, StreamId};

use super::stream::Ticket;
use crate::config::TrackerConfig;
use crate::track::{Step, Tracker};

/// The trackers of a run.
#[derive(Debug, Default)]
pub(crate) struct Trackers {
    config: Option<TrackerConfig>,
    streams: HashMap<StreamId, OfStream>,
}

#[derive(Debug)]
struct OfStream {
    tracker: Tracker,
    /// Of the latest frame.
    opening: u64,
    sequence: u64,
}

impl Trackers {
    /// Where that is a change, every object is forgotten.
    pub(crate) fn configure(&mut self, config: Option<TrackerConfig>) {
        if self.config != config {
            self.streams.clear();
            self.config = config;
        }
    }

    /// Follows the objects of the frame's stream into it. What is weaker than `score_min` stays only where it has a
    /// track.
    pub(crate) fn update(&mut self, ticket: &Ticket, detections: &mut Vec<Detection>, score_min: f32) {
        let Some(config) = &self.config else { return };
        let Ticket { frame, stream, opening, interval } = ticket;
        let known = self.streams.entry(frame.stream.clone()).or_insert_with(|| {
            let tracker = Tracker::new(config, stream.tracks());
            OfStream { tracker, opening: *opening, sequence: frame.sequence }
        });
        if known.opening != *opening {
            known.tracker.reset();
        }
        let frames = frame.sequence.saturating_sub(known.sequence) / u64::from(*interval);
        let step = Step { frames: u32::try_from(frames).unwrap_or(u32::MAX), ..Step::default() };
        (known.opening, known.sequence) = (*opening, frame.sequence);
        known.tracker.update(detections, &step);
        stream.tracked(known.tracker.last_id());
        detections.retain(|detection| detection.track.is_some() || detection.score >= score_min);
    }

    /// No frame of the stream will come, or it begins anew.
    pub(crate) fn end_stream(&mut self, stream: &StreamId) {
        self.streams.remove(stream);
    }
}
