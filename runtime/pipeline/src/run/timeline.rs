//! One unbroken count and clock for a stream whose source is opened more than once. Pure.

use std::time::Duration;

use revoada_core::Timestamp;

/// Numbers frames and keeps their presentation times rising over repeats and reconnects, so that
/// whoever encodes them never sees time run back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeline {
    next_sequence: u64,
    /// When the stream's first frame was captured.
    origin: Option<Timestamp>,
    last: Option<Timestamp>,
    /// The distance of the latest two frames of one opening.
    period: Option<Duration>,
    /// Added to the presentation times of this opening; `None` until its first frame.
    offset: Option<Offset>,
}

#[derive(Clone, Copy, Debug)]
struct Offset {
    source_start: Timestamp,
    stream_start: Timestamp,
}

/// Assumed between the last frame of an opening and the first of the next where nothing better is
/// known: one frame at 25 frames a second.
const PERIOD_UNKNOWN: Duration = Duration::from_millis(40);

impl Timeline {
    /// The source was opened again; its own times start over.
    pub(crate) fn reopened(&mut self) {
        self.offset = None;
    }

    /// The sequence number and presentation time of the next frame. A live stream's gap is as long
    /// as the source was away; a repeated file follows on itself.
    pub(crate) fn place(&mut self, pts: Timestamp, captured: Timestamp, live: bool) -> (u64, Timestamp) {
        let origin = *self.origin.get_or_insert(captured);
        let follow_on = self.last.map(|last| last + self.period.unwrap_or(PERIOD_UNKNOWN));
        let offset = *self.offset.get_or_insert_with(|| {
            let stream_start = match follow_on {
                // The first opening keeps the source's own times.
                None => pts,
                Some(next) if live => next.max(Timestamp::ZERO + captured.since(origin)),
                Some(next) => next,
            };
            Offset { source_start: pts, stream_start }
        });
        let mut placed = offset.stream_start + pts.since(offset.source_start);
        if let Some(last) = self.last {
            // A source whose times stand still or run back gets the least step a container keeps.
            placed = placed.max(last + Duration::from_millis(1));
            self.period = Some(placed.since(last)).filter(|period| *period <= Duration::from_secs(1)).or(self.period);
        }
        self.last = Some(placed);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        (sequence, placed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Timestamp {
        Timestamp::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_repeated_file_follows_on_itself() {
        let mut timeline = Timeline::default();
        let mut placed = Vec::new();
        for _ in 0..2 {
            timeline.reopened();
            for pts in [0, 20, 40] {
                placed.push(timeline.place(ms(pts), ms(999), false));
            }
        }
        let times = [0, 20, 40, 60, 80, 100].map(ms);
        assert_eq!(placed, times.into_iter().enumerate().map(|(n, t)| (n as u64, t)).collect::<Vec<_>>());
    }

    #[test]
    fn a_reconnected_camera_leaves_a_gap_as_long_as_it_was_away() {
        let mut timeline = Timeline::default();
        timeline.place(ms(0), ms(5_000), true);
        timeline.place(ms(40), ms(5_040), true);
        timeline.reopened();
        assert_eq!(timeline.place(ms(7), ms(15_000), true), (2, ms(10_000)));
        assert_eq!(timeline.place(ms(47), ms(15_040), true), (3, ms(10_040)));
    }

    proptest! {
        #[test]
        fn time_and_count_only_rise(
            frames in prop::collection::vec((any::<bool>(), 0u64..100_000, 0u64..5_000), 1..100),
            live: bool,
        ) {
            let mut timeline = Timeline::default();
            let mut captured = Timestamp::ZERO;
            let mut last = None;
            for (index, (reopen, pts, passed)) in frames.into_iter().enumerate() {
                if reopen {
                    timeline.reopened();
                }
                captured = captured + Duration::from_millis(passed);
                let (sequence, placed) = timeline.place(ms(pts), captured, live);
                prop_assert_eq!(sequence, index as u64);
                prop_assert!(last.is_none_or(|last| placed > last));
                last = Some(placed);
            }
        }
    }
}
