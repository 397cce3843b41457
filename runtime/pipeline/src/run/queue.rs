//! The one place where frames of all streams meet: a bounded lane per stream, and a mux that takes
//! batches from them in turn.
//!
//! One lock guards all lanes. It is held for pointer moves only, a few thousand times a second at
//! most; a lock per lane would make a fair batch across lanes a protocol instead of a loop.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::lock::lock;

/// What a full lane does to the frame that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// Live: the newest picture is worth most.
    DropOldest,
    /// Files: nothing is lost, the decoder waits.
    Wait,
}

/// What became of an item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed<T> {
    Queued,
    /// Queued, and this older one was dropped for it.
    Displaced(T),
    /// The lane is closed; the item comes back.
    Refused(T),
}

/// Which lane is served next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Turns {
    /// The next one that has an item: nobody waits for a slow stream.
    #[default]
    Ready,
    /// The next one, waiting for its item, and batches are full as long as there are items: whatever the threads do, the
    /// same items come in the same batches.
    Strict,
}

pub(crate) struct Lanes<T> {
    turns: Turns,
    state: Mutex<State<T>>,
    /// Something was pushed or closed.
    arrived: Condvar,
}

struct State<T> {
    lanes: BTreeMap<u64, LaneState<T>>,
    next_key: u64,
    /// The lane that was served last; the next turn starts behind it.
    served: Option<u64>,
    queued: usize,
    /// No lane will be opened any more.
    finished: bool,
}

struct LaneState<T> {
    items: VecDeque<T>,
    frames_max: usize,
    when_full: WhenFull,
    closed: bool,
    /// A lane whose items come first: the same stream's, before it was configured anew.
    after: Option<u64>,
    room: Arc<Condvar>,
}

/// The end of a lane that a decode thread pushes into; dropping it closes the lane.
pub(crate) struct Lane<T> {
    lanes: Arc<Lanes<T>>,
    key: u64,
    room: Arc<Condvar>,
}

impl<T> Lanes<T> {
    pub(crate) fn new(turns: Turns) -> Arc<Self> {
        let state = State { lanes: BTreeMap::new(), next_key: 0, served: None, queued: 0, finished: false };
        Arc::new(Self { turns, state: Mutex::new(state), arrived: Condvar::new() })
    }

    /// A new lane for at most `frames_max` items, none of which is taken before the last of the lane
    /// `after`; closed from the start where the mux is finished.
    pub(crate) fn open(self: &Arc<Self>, frames_max: usize, when_full: WhenFull, after: Option<u64>) -> Lane<T> {
        assert!(frames_max > 0, "the configuration refuses empty queues");
        let mut state = lock(&self.state);
        let key = state.next_key;
        state.next_key += 1;
        let room = Arc::new(Condvar::new());
        if !state.finished {
            let items = VecDeque::with_capacity(frames_max.min(64));
            let lane = LaneState { items, frames_max, when_full, closed: false, after, room: Arc::clone(&room) };
            state.lanes.insert(key, lane);
        }
        Lane { lanes: Arc::clone(self), key, room }
    }

    /// Waits for an item as long as it takes; `false` where there will be no more.
    pub(crate) fn wait(&self) -> bool {
        let state = lock(&self.state);
        let none = |state: &mut State<T>| state.queued == 0 && !state.is_over();
        self.arrived.wait_while(state, none).unwrap_or_else(PoisonError::into_inner).queued > 0
    }

    /// The next batch: at most `max` items, one of each lane in turn, each lane's in order. Waits
    /// for the first item as long as it takes, then up to `wait` for the batch to fill; where turns are strict, as long
    /// as that takes. `None` where there will be no more.
    pub(crate) fn take(&self, max: usize, wait: Duration) -> Option<Vec<T>> {
        match self.turns {
            Turns::Ready => self.take_ready(max, wait),
            Turns::Strict => self.take_strictly(max),
        }
    }

    fn take_strictly(&self, max: usize) -> Option<Vec<T>> {
        let mut batch = Vec::with_capacity(max);
        let mut state = lock(&self.state);
        while batch.len() < max && !state.is_over() {
            match state.turn(Turns::Strict) {
                Some(key) => batch.extend(state.serve(key)),
                None => state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
        if batch.is_empty() { None } else { Some(batch) }
    }

    fn take_ready(&self, max: usize, wait: Duration) -> Option<Vec<T>> {
        let state = lock(&self.state);
        let state = self
            .arrived
            .wait_while(state, |state| state.queued == 0 && !state.is_over())
            .unwrap_or_else(PoisonError::into_inner);
        let mut state = if state.queued < max && !wait.is_zero() {
            let filling = |state: &mut State<T>| state.queued < max && state.more_may_come();
            self.arrived.wait_timeout_while(state, wait, filling).unwrap_or_else(PoisonError::into_inner).0
        } else {
            state
        };
        let batch = state.take_in_turn(max);
        if batch.is_empty() { None } else { Some(batch) }
    }

    /// No lane will be opened any more: when the open ones are closed and empty, `take` says so.
    pub(crate) fn finish(&self) {
        lock(&self.state).finished = true;
        self.arrived.notify_all();
    }

    /// Closes every lane for good and gives back what was queued.
    pub(crate) fn discard(&self) -> Vec<T> {
        let mut state = lock(&self.state);
        state.finished = true;
        state.queued = 0;
        let lanes = std::mem::take(&mut state.lanes);
        drop(state);
        self.arrived.notify_all();
        let mut items = Vec::new();
        for lane in lanes.into_values() {
            items.extend(lane.items);
            lane.room.notify_all();
        }
        items
    }

    /// Closes every lane; what is queued can still be taken.
    pub(crate) fn close_all(&self) {
        let mut state = lock(&self.state);
        for lane in state.lanes.values_mut() {
            lane.closed = true;
            lane.room.notify_all();
        }
        state.forget_closed();
        drop(state);
        self.arrived.notify_all();
    }

    fn close(&self, key: u64) {
        let mut state = lock(&self.state);
        if let Some(lane) = state.lanes.get_mut(&key) {
            lane.closed = true;
            lane.room.notify_all();
        }
        state.forget_closed();
        drop(state);
        self.arrived.notify_all();
    }
}

impl<T> State<T> {
    /// Full lanes have no room for more, however long one waits.
    fn more_may_come(&self) -> bool {
        let mut open = self.lanes.values().filter(|lane| !lane.closed).peekable();
        match open.peek() {
            Some(_) => open.any(|lane| lane.items.len() < lane.frames_max),
            None => !self.finished,
        }
    }

    fn is_over(&self) -> bool {
        self.finished && self.lanes.is_empty()
    }

    fn take_in_turn(&mut self, max: usize) -> Vec<T> {
        let mut batch = Vec::with_capacity(max.min(self.queued));
        while batch.len() < max && self.queued > 0 {
            let key = self.turn(Turns::Ready).expect("`queued` counts the items of all lanes");
            batch.extend(self.serve(key));
        }
        batch
    }

    /// The lane whose turn it is, where it has an item.
    fn turn(&self, turns: Turns) -> Option<u64> {
        let first_behind = self.served.map_or(0, |served| served.saturating_add(1));
        let mut in_turn = self.lanes.range(first_behind..).chain(self.lanes.range(..first_behind));
        // A lane that comes after another waits until that one, closed by then, is empty and forgotten.
        let may_come = |lane: &LaneState<T>| lane.after.is_none_or(|key| !self.lanes.contains_key(&key));
        let (key, lane) = in_turn.find(|(_, lane)| match turns {
            Turns::Ready => !lane.items.is_empty() && may_come(lane),
            Turns::Strict => may_come(lane),
        })?;
        if lane.items.is_empty() { None } else { Some(*key) }
    }

    fn serve(&mut self, key: u64) -> Option<T> {
        let lane = self.lanes.get_mut(&key)?;
        let item = lane.items.pop_front()?;
        lane.room.notify_one();
        self.queued -= 1;
        self.served = Some(key);
        self.forget_closed();
        Some(item)
    }

    fn forget_closed(&mut self) {
        self.lanes.retain(|_, lane| !lane.closed || !lane.items.is_empty());
    }
}

impl<T> Lane<T> {
    /// What a later lane may come after.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// Queues `item`, waiting for room where the lane waits.
    pub(crate) fn push(&self, item: T) -> Pushed<T> {
        let mut state = lock(&self.lanes.state);
        loop {
            let Some(lane) = state.lanes.get_mut(&self.key).filter(|lane| !lane.closed) else {
                return Pushed::Refused(item);
            };
            if lane.items.len() < lane.frames_max {
                lane.items.push_back(item);
                state.queued += 1;
                drop(state);
                self.lanes.arrived.notify_one();
                return Pushed::Queued;
            }
            if lane.when_full == WhenFull::DropOldest {
                let oldest = lane.items.pop_front().expect("a full lane holds at least one item");
                lane.items.push_back(item);
                return Pushed::Displaced(oldest);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes and refuses a push that waits; what is queued can still be taken. For other threads
    /// than the pushing one.
    pub(crate) fn closer(&self) -> impl Fn() + Send + use<T>
    where
        T: Send + 'static,
    {
        let (lanes, key) = (Arc::clone(&self.lanes), self.key);
        move || lanes.close(key)
    }
}

impl<T> Drop for Lane<T> {
    fn drop(&mut self) {
        self.lanes.close(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn a_batch_takes_one_of_each_lane_in_turn() {
        let lanes = Lanes::new(Turns::Ready);
        let open = [(); 3].map(|()| lanes.open(4, WhenFull::Wait, None));
        for (name, lane) in ["a", "b", "c"].into_iter().zip(&open) {
            for n in 0..if name == "a" { 4 } else { 1 } {
                assert_eq!(lane.push(format!("{name}{n}")), Pushed::Queued);
            }
        }
        assert_eq!(lanes.take(2, Duration::ZERO).expect("items are queued").len(), 2);
        let mut rest = lanes.take(9, SHORT).expect("items are queued");
        rest.sort();
        assert_eq!(rest.len(), 4);
    }

    #[test]
    fn a_flooding_lane_does_not_starve_another() {
        let lanes = Lanes::new(Turns::Ready);
        let (flood, quiet) = (lanes.open(100, WhenFull::DropOldest, None), lanes.open(1, WhenFull::DropOldest, None));
        for n in 0..1000 {
            flood.push(n);
        }
        quiet.push(-1);
        let first_two: Vec<i32> = (0..2).filter_map(|_| lanes.take(1, Duration::ZERO)).flatten().collect();
        assert!(first_two.contains(&-1), "{first_two:?}");
    }

    #[test]
    fn a_lane_after_another_waits_for_its_last_item() {
        let lanes = Lanes::new(Turns::Ready);
        let old = lanes.open(4, WhenFull::Wait, None);
        let new = lanes.open(4, WhenFull::Wait, Some(old.key()));
        for n in 0..3 {
            old.push(n);
        }
        drop(old);
        new.push(3);
        assert_eq!(lanes.take(9, Duration::ZERO), Some(vec![0, 1, 2, 3]));
    }

    #[test]
    fn a_batch_does_not_wait_for_lanes_that_are_full() {
        let lanes = Lanes::new(Turns::Ready);
        let lane = lanes.open(2, WhenFull::Wait, None);
        lane.push(0);
        lane.push(1);
        assert_eq!(lanes.take(8, Duration::from_secs(3600)), Some(vec![0, 1]));
    }

    #[test]
    fn closing_wakes_a_push_that_waits_for_room() {
        let lanes = Lanes::new(Turns::Ready);
        let lane = lanes.open(1, WhenFull::Wait, None);
        lane.push(1);
        let close = lane.closer();
        let thread = thread::spawn(move || lane.push(2));
        close();
        assert_eq!(thread.join().expect("push does not panic"), Pushed::Refused(2));
        assert_eq!(lanes.take(5, SHORT), Some(vec![1]));
        lanes.finish();
        assert_eq!(lanes.take(5, SHORT), None);
    }

    #[test]
    fn an_incomplete_batch_does_not_wait_once_all_lanes_are_closed() {
        let lanes = Lanes::new(Turns::Ready);
        let lane = lanes.open(2, WhenFull::Wait, None);
        lane.push(1);
        drop(lane);
        lanes.finish();
        assert_eq!(lanes.take(8, Duration::from_secs(3600)), Some(vec![1]));
        assert_eq!(lanes.take(8, Duration::from_secs(3600)), None);
    }

    #[test]
    fn discarding_gives_back_what_was_queued_and_ends_the_mux() {
        let lanes = Lanes::new(Turns::Ready);
        let lane = lanes.open(2, WhenFull::Wait, None);
        lane.push(1);
        assert_eq!(lanes.discard(), [1]);
        assert_eq!(lane.push(2), Pushed::Refused(2));
        assert_eq!(lanes.open(1, WhenFull::Wait, None).push(3), Pushed::Refused(3));
        assert_eq!(lanes.take(1, Duration::ZERO), None);
    }

    proptest! {
        /// Against the plainest model of it: a list per lane.
        #[test]
        fn a_lane_keeps_its_newest_items_in_order(
            frames_max in 1usize..5,
            steps in prop::collection::vec((any::<bool>(), 1usize..6), 1..60),
        ) {
            let lanes = Lanes::new(Turns::Ready);
            let lane = lanes.open(frames_max, WhenFull::DropOldest, None);
            let mut model: VecDeque<usize> = VecDeque::new();
            for (index, (push, max)) in steps.into_iter().enumerate() {
                if push {
                    let displaced = if model.len() == frames_max { model.pop_front() } else { None };
                    model.push_back(index);
                    prop_assert_eq!(lane.push(index), displaced.map_or(Pushed::Queued, Pushed::Displaced));
                } else if !model.is_empty() {
                    let expected: Vec<_> = model.drain(..max.min(model.len())).collect();
                    prop_assert_eq!(lanes.take(max, Duration::ZERO), Some(expected));
                }
            }
        }
    }

    #[test]
    fn strict_turns_form_the_same_batches_whatever_the_threads_do() {
        let lengths = [7u32, 0, 12, 3];
        let run = |seed: u64| {
            let lanes = Lanes::new(Turns::Strict);
            let open: Vec<_> = (1..=4).map(|frames_max| lanes.open(frames_max, WhenFull::Wait, None)).collect();
            lanes.finish();
            let threads: Vec<_> = open
                .into_iter()
                .zip(lengths)
                .enumerate()
                .map(|(stream, (lane, length))| {
                    let mut chance = fastrand::Rng::with_seed(seed + stream as u64);
                    thread::spawn(move || {
                        for n in 0..length {
                            (0..chance.u32(..50)).for_each(|_| thread::yield_now());
                            assert_eq!(lane.push((stream, n)), Pushed::Queued);
                        }
                    })
                })
                .collect();
            let batches: Vec<_> = std::iter::from_fn(|| lanes.take(5, Duration::ZERO)).collect();
            threads.into_iter().for_each(|thread| thread.join().expect("a producer panicked"));
            batches
        };
        let batches = run(0);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 5, 5, 2]);
        assert_eq!(batches[0], [(0, 0), (2, 0), (3, 0), (0, 1), (2, 1)]);
        (1..50).for_each(|seed| assert_eq!(run(seed), batches, "seed {seed}"));
    }

    #[test]
    fn discarding_wakes_a_strict_mux() {
        let lanes = Lanes::new(Turns::Strict);
        let lane = lanes.open(2, WhenFull::Wait, None);
        let taking = thread::spawn({
            let lanes = Arc::clone(&lanes);
            move || lanes.take(2, Duration::ZERO)
        });
        lanes.discard();
        assert_eq!(taking.join().expect("take does not panic"), None);
        assert_eq!(lane.push(1), Pushed::Refused(1));
    }

    /// Every item is taken, displaced or refused, exactly once, and each lane's in order.
    #[test]
    fn many_threads_lose_and_double_nothing() {
        const ITEMS: u64 = 2_000;
        for when_full in [WhenFull::Wait, WhenFull::DropOldest] {
            let lanes = Lanes::new(Turns::Ready);
            let producers: Vec<_> = (0..6u64)
                .map(|stream| {
                    let lane = lanes.open(1 + stream as usize % 3, when_full, None);
                    thread::spawn(move || {
                        let pushes = (0..ITEMS).map(|n| lane.push((stream, n)));
                        pushes.filter(|pushed| matches!(pushed, Pushed::Displaced(_))).count() as u64
                    })
                })
                .collect();
            lanes.finish();
            let mut taken: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            while let Some(batch) = lanes.take(4, Duration::from_micros(50)) {
                for (stream, n) in batch {
                    taken.entry(stream).or_default().push(n);
                }
            }
            let displaced: u64 = producers.into_iter().map(|p| p.join().expect("a producer panicked")).sum();
            assert!(taken.values().all(|items| items.is_sorted_by(|a, b| a < b)));
            assert_eq!(taken.values().map(|items| items.len() as u64).sum::<u64>() + displaced, 6 * ITEMS);
            assert!(when_full == WhenFull::DropOldest || displaced == 0);
        }
    }
}
