//! Where an object comes from: its way over the latest second.

use std::collections::VecDeque;
use std::time::Duration;

use revoada_core::{Timestamp, TrackId};

use super::geometry::Vector;
use super::tracks::Tracks;

/// Long enough that a walking step outweighs the trembling of boxes, short enough to notice a turn.
const WINDOW: Duration = Duration::from_secs(1);
/// Places that are kept of the window: closer ones tell nothing new.
const PLACES_MAX: u32 = 16;

/// The latest places of every track, as fractions of the picture.
#[derive(Debug, Default)]
pub(super) struct Paths {
    tracks: Tracks<VecDeque<(Timestamp, Vector)>>,
}

impl Paths {
    /// Notes where a track is, and returns its displacement over the window, or since it came where that is later.
    pub(super) fn moved(&mut self, track: TrackId, at: Timestamp, place: Vector) -> Vector {
        let places = self.tracks.seen(track, at, VecDeque::new);
        // Of those before the window one stays, so that the way is as long as the window and not shorter.
        while places.get(1).is_some_and(|(noted, _)| at.since(*noted) >= WINDOW) {
            places.pop_front();
        }
        if places.back().is_none_or(|(noted, _)| at.since(*noted) >= WINDOW / PLACES_MAX) {
            places.push_back((at, place));
        }
        let from = places.front().map_or(place, |(_, from)| *from);
        place.minus(from)
    }

    pub(super) fn forget(&mut self, at: Timestamp, forget: Duration) {
        self.tracks.forget(at, forget);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_that_of_the_latest_second_and_its_memory_is_bounded() {
        let mut paths = Paths::default();
        let mut moved = Vector::default();
        // 100 frames a second, to the right for two seconds and then down for one.
        for frame in 0..300u32 {
            let (right, down) = (frame.min(200), frame.saturating_sub(200));
            let place = Vector::new(f64::from(right), f64::from(down));
            let at = Timestamp::ZERO + Duration::from_millis(10) * frame;
            moved = paths.moved(TrackId(1), at, place);
            assert!(paths.tracks.get(TrackId(1)).unwrap().len() <= PLACES_MAX as usize + 2);
            match frame {
                0 => assert_eq!(moved, Vector::default()),
                50 => assert_eq!(moved, Vector::new(50.0, 0.0)),
                199 => assert!(moved.y == 0.0 && (100.0..=108.0).contains(&moved.x), "{moved:?}"),
                _ => {}
            }
        }
        assert!(moved.x <= 8.0 && (95.0..=100.0).contains(&moved.y), "{moved:?}");
    }
}
