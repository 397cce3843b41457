//! How a run is asked to end: once to drain, twice to give up.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::lock::lock;

/// What was asked for so far; it only ever rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopLevel {
    Run,
    /// Take no more frames, finish those that were taken, complete every output.
    Drain,
    /// Leave at once; outputs that are not complete are lost.
    Abandon,
}

/// Handed to [`crate::run::run`] and kept by whoever may end it, typically a signal handler's
/// thread. Clones are the same flag.
#[derive(Clone, Default)]
pub struct StopFlag {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    level: AtomicU8,
    watchers: Mutex<Vec<Watcher>>,
}

type Watcher = Box<dyn Fn(StopLevel) + Send>;

impl StopFlag {
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the level by one: the first call drains, the second abandons.
    pub fn request(&self) -> StopLevel {
        let raise = |level| Some(u8::min(level + 1, StopLevel::Abandon as u8));
        let before = self.shared.level.fetch_update(Ordering::SeqCst, Ordering::SeqCst, raise);
        let level = level_of(before.unwrap_or_default() + 1);
        for watcher in lock(&self.shared.watchers).iter() {
            watcher(level);
        }
        level
    }

    pub fn level(&self) -> StopLevel {
        level_of(self.shared.level.load(Ordering::SeqCst))
    }

    /// Calls `watcher` at every later request, and now if there was one already.
    pub(crate) fn watch(&self, watcher: impl Fn(StopLevel) + Send + 'static) {
        let mut watchers = lock(&self.shared.watchers);
        let level = self.level();
        if level > StopLevel::Run {
            watcher(level);
        }
        watchers.push(Box::new(watcher));
    }
}

impl fmt::Debug for StopFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StopFlag").field(&self.level()).finish()
    }
}

fn level_of(value: u8) -> StopLevel {
    match value {
        0 => StopLevel::Run,
        1 => StopLevel::Drain,
        _ => StopLevel::Abandon,
    }
}

/// Tells one thread to end, and wakes it where it waits.
#[derive(Debug, Default)]
pub(crate) struct Halt {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Halt {
    pub(crate) fn set(&self) {
        *lock(&self.set) = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        *lock(&self.set)
    }

    /// Sleeps for `duration`, less where halted; returns whether halted.
    pub(crate) fn sleep(&self, duration: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(lock(&self.set), duration, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_first_request_drains_and_the_second_abandons() {
        let flag = StopFlag::new();
        assert_eq!(flag.level(), StopLevel::Run);
        let levels = [flag.request(), flag.request(), flag.request()];
        assert_eq!(levels, [StopLevel::Drain, StopLevel::Abandon, StopLevel::Abandon]);
    }

    #[test]
    fn a_watcher_hears_of_requests_made_before_and_after_it_came() {
        let flag = StopFlag::new();
        flag.request();
        let (sender, receiver) = mpsc::channel();
        flag.watch(move |level| sender.send(level).expect("the receiver outlives the flag"));
        flag.clone().request();
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [StopLevel::Drain, StopLevel::Abandon]);
    }

    #[test]
    fn a_halted_thread_does_not_sleep_on() {
        let halt = Arc::new(Halt::default());
        assert!(!halt.sleep(Duration::ZERO));
        let other = Arc::clone(&halt);
        let thread = std::thread::spawn(move || other.sleep(Duration::from_secs(3600)));
        halt.set();
        assert!(thread.join().expect("the sleeper does not panic"));
    }
}
