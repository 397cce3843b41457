//! What is remembered of each track, and for how long.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use revoada_core::{Timestamp, TrackId};

/// Tracks that one rule remembers. No picture holds so many objects; a tracker that tells a new track in every frame
/// must not fill the memory all the same.
pub(super) const TRACKS_MAX: usize = 4096;

/// Something per track.
#[derive(Debug)]
pub(super) struct Tracks<T> {
    held: BTreeMap<TrackId, Held<T>>,
}

#[derive(Debug)]
pub(super) struct Held<T> {
    /// When the track was seen last.
    pub(super) seen: Timestamp,
    pub(super) state: T,
}

impl<T> Default for Tracks<T> {
    fn default() -> Self {
        Self { held: BTreeMap::new() }
    }
}

impl<T> Tracks<T> {
    /// The state of a track that is seen now; `first` makes it where the track is new.
    pub(super) fn seen(&mut self, track: TrackId, at: Timestamp, first: impl FnOnce() -> T) -> &mut T {
        let held = match self.held.entry(track) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Held { seen: at, state: first() }),
        };
        held.seen = at;
        &mut held.state
    }

    #[cfg(test)]
    pub(super) fn get(&self, track: TrackId) -> Option<&T> {
        self.held.get(&track).map(|held| &held.state)
    }

    /// Forgets the tracks that were not seen for longer than `forget`, and of too many those that were not seen for
    /// longest.
    pub(super) fn forget(&mut self, at: Timestamp, forget: Duration) -> Vec<(TrackId, Held<T>)> {
        let mut gone: Vec<_> = self.held.extract_if(.., |_, held| at.since(held.seen) > forget).collect();
        while self.held.len() > TRACKS_MAX {
            let oldest = self.held.iter().min_by_key(|(track, held)| (held.seen, **track)).map(|(track, _)| *track);
            let oldest = oldest.expect("there are more than none");
            gone.extend(self.held.remove_entry(&oldest));
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_are_forgotten_by_age_and_by_number() {
        let at = |s: u64| Timestamp::from_nanos(s * 1_000_000_000);
        let forget = Duration::from_secs(5);
        let mut tracks = Tracks::default();
        *tracks.seen(TrackId(1), at(0), || 0) += 1;
        *tracks.seen(TrackId(2), at(1), || 0) += 1;
        *tracks.seen(TrackId(1), at(2), || 0) += 1;
        assert!(tracks.forget(at(6), forget).is_empty(), "5 s are not longer than 5 s");
        let gone = tracks.forget(at(7), forget);
        assert_eq!(
            gone.iter().map(|(track, held)| (track.0, held.state, held.seen)).collect::<Vec<_>>(),
            [(2, 1, at(1))]
        );
        assert_eq!(tracks.get(TrackId(1)), Some(&2));
        for track in 10..10 + TRACKS_MAX as u64 {
            tracks.seen(TrackId(track), at(7), || 0);
        }
        let gone = tracks.forget(at(7), forget);
        assert_eq!(gone.iter().map(|(track, _)| track.0).collect::<Vec<_>>(), [1], "the one unseen for longest");
    }
}
