//! One tracker for each stream, told what lies between its frames.

use std::collections::HashMap;

use revoada_core::{Detection, Frame, StreamId};
use tracing::warn;

use super::stream::Ticket;
use crate::config::TrackerConfig;
use crate::track::{Step, Tracker, Warp};
use crate::vision::Camera;

/// The trackers of a run.
#[derive(Debug, Default)]
pub(crate) struct Trackers {
    config: Option<TrackerConfig>,
    streams: HashMap<StreamId, OfStream>,
}

#[derive(Debug)]
struct OfStream {
    tracker: Tracker,
    /// `None` where it is taken to stand still.
    camera: Option<Camera>,
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

    /// Follows the objects of the frame's stream into it. What is `weak` stays only where it has a track.
    pub(crate) fn update(
        &mut self,
        ticket: &Ticket,
        detections: &mut Vec<Detection>,
        weak: impl Fn(&Detection) -> bool,
    ) {
        let Some(config) = &self.config else { return };
        let Ticket { frame, stream, opening, interval, .. } = ticket;
        let camera = || config.camera_motion.then(Camera::default);
        let known = self.streams.entry(frame.stream.clone()).or_insert_with(|| {
            let tracker = Tracker::new(config, stream.tracks());
            OfStream { tracker, camera: camera(), opening: *opening, sequence: frame.sequence }
        });
        if known.opening != *opening {
            known.tracker.reset();
            known.camera = camera();
        }
        let frames = frame.sequence.saturating_sub(known.sequence) / u64::from(*interval);
        let warp = known.warp(frame, detections);
        let step = Step { frames: u32::try_from(frames).unwrap_or(u32::MAX), warp };
        (known.opening, known.sequence) = (*opening, frame.sequence);
        known.tracker.update(detections, &step);
        stream.tracked(known.tracker.last_id());
        detections.retain(|detection| detection.track.is_some() || !weak(detection));
    }

    /// No frame of the stream will come, or it begins anew.
    pub(crate) fn end_stream(&mut self, stream: &StreamId) {
        self.streams.remove(stream);
    }
}

impl OfStream {
    /// How the camera moved since the latest frame, where that is asked and can be seen.
    fn warp(&mut self, frame: &Frame, detections: &[Detection]) -> Option<Warp> {
        match self.camera.as_mut()?.follow(frame, detections) {
            Ok(warp) => warp,
            Err(reason) => {
                warn!(stream = %frame.stream, reason, "the camera's motion is no longer followed");
                self.camera = None;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use revoada_core::{ColorSpec, ImageLayout, MemoryKind, PixelFormat, Rect, Size, Timestamp, TrackId};

    use super::*;
    use crate::run::stats::StreamStats;

    fn is_weak(found: &Detection) -> bool {
        found.score < 0.25
    }

    fn ticket(stream: &Arc<StreamStats>, opening: u64, sequence: u64) -> Ticket {
        let layout = ImageLayout::packed(PixelFormat::Rgb, ColorSpec::default(), Size::new(2, 2));
        let (host, pixels) = (MemoryKind::Host, Box::new(vec![0; 12]));
        let frame =
            Frame::new(stream.id.clone(), sequence, Timestamp::ZERO, Timestamp::ZERO, layout, host, pixels).unwrap();
        Ticket { frame: Arc::new(frame), stream: Arc::clone(stream), opening, interval: 2, wall: None }
    }

    fn seen(score: f32, x: f32) -> Detection {
        Detection { score, bbox: Rect::new(x, 0.0, 20.0, 40.0), ..Detection::default() }
    }

    #[test]
    fn weak_detections_stay_where_they_are_tracked() {
        let stream = Arc::new(StreamStats::new(StreamId::new("a")));
        let mut trackers = Trackers::default();
        trackers.configure(Some(TrackerConfig::BYTE_TRACK));
        let mut update = |sequence, mut found: Vec<Detection>| {
            trackers.update(&ticket(&stream, 1, sequence), &mut found, is_weak);
            found.iter().map(|found| (found.score, found.track)).collect::<Vec<_>>()
        };
        let tracked = |score| (score, Some(TrackId(1)));
        assert_eq!(update(0, vec![seen(0.9, 0.0), seen(0.2, 90.0)]), [tracked(0.9)]);
        assert_eq!(update(2, vec![seen(0.25, 90.0), seen(0.2, 0.0)]), [(0.25, None), tracked(0.2)]);
    }

    #[test]
    fn what_lies_between_frames_is_counted_in_intervals() {
        let stream = Arc::new(StreamStats::new(StreamId::new("a")));
        let mut trackers = Trackers::default();
        trackers.configure(Some(TrackerConfig::OC_SORT));
        let mut track = |opening, frame: u64, x: f32| {
            let mut found = vec![seen(0.9, x)];
            trackers.update(&ticket(&stream, opening, 2 * frame), &mut found, is_weak);
            found[0].track
        };
        for frame in 0..20 {
            assert_eq!(track(1, frame, 4.0 * frame as f32), Some(TrackId(1)));
        }
        // Ten frames were lost, and it went on for as long.
        assert_eq!(track(1, 30, 120.0), Some(TrackId(1)));
        // After another opening nothing is known.
        assert_eq!(track(2, 31, 124.0), Some(TrackId(2)));
        assert_eq!(stream.tracks(), 2);
    }

    #[test]
    fn a_stream_that_ended_and_comes_again_goes_on_counting() {
        let stream = Arc::new(StreamStats::new(StreamId::new("a")));
        let mut trackers = Trackers::default();
        for id in 1..4 {
            // Another configuration forgets everything, too.
            trackers.configure(Some(if id < 3 { TrackerConfig::SORT } else { TrackerConfig::OC_SORT }));
            let mut found = vec![seen(0.9, 0.0)];
            trackers.update(&ticket(&stream, 1, 0), &mut found, is_weak);
            assert_eq!(found[0].track, Some(TrackId(id)));
            if id == 1 {
                trackers.end_stream(&stream.id);
            }
        }
    }
}
