//! Slows down who guesses.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use revoada_core::Timestamp;

/// So many may be wrong before anything is slowed down: people mistype.
const FREE_FAILURES: u32 = 5;
/// After the first failure that is one too many; doubled after each.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_mins(15);
/// What is remembered for so long after the last failure.
const KEPT: Duration = Duration::from_hours(1);
/// Names and addresses; at the bound those whose last failure is longest ago are forgotten.
const ENTRIES_MAX: usize = 10_000;

/// How often each name and each address was wrong lately. Each is slowed down by itself, so that neither one name guessed
/// from many addresses nor many names from one are free.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<BTreeMap<String, Failures>>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Timestamp,
}

impl Failures {
    fn open_at(&self) -> Timestamp {
        match self.count.checked_sub(FREE_FAILURES) {
            None => self.last,
            Some(over) => self.last + WAIT_MIN.saturating_mul(1u32.checked_shl(over).unwrap_or(u32::MAX)).min(WAIT_MAX),
        }
    }
}

impl Throttle {
    /// How long all of these have to wait yet.
    pub(super) fn wait(&self, keys: &[String], now: Timestamp) -> Option<Duration> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open_at = keys.iter().filter_map(|key| failures.get(key)).map(Failures::open_at).max()?;
        Some(open_at.since(now)).filter(|wait| !wait.is_zero())
    }

    pub(super) fn failed(&self, keys: &[String], now: Timestamp) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            let entry = failures.entry(key.clone()).or_insert(Failures { count: 0, last: now });
            *entry = Failures { count: entry.count.saturating_add(1), last: now };
        }
        if failures.len() > ENTRIES_MAX {
            failures.retain(|_, entry| now.since(entry.last) < KEPT);
        }
        while failures.len() > ENTRIES_MAX {
            let oldest = failures.iter().min_by_key(|(_, entry)| entry.last).map(|(key, _)| key.clone());
            failures.remove(&oldest.expect("there are more than the bound"));
        }
    }

    pub(super) fn succeeded(&self, keys: &[String]) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            failures.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guessing_gets_ever_slower_and_a_right_answer_ends_that() {
        let throttle = Throttle::default();
        let keys = ["user anna".to_owned()];
        let mut now = Timestamp::ZERO;
        let mut tried = 0;
        while now < Timestamp::ZERO + Duration::from_hours(24) {
            match throttle.wait(&keys, now) {
                Some(wait) => now = now + wait,
                None => {
                    throttle.failed(&keys, now);
                    tried += 1;
                }
            }
        }
        assert!((100..120).contains(&tried), "{tried} guesses in a day");
        throttle.succeeded(&keys);
        assert_eq!(throttle.wait(&keys, now), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let throttle = Throttle::default();
        for index in 0..ENTRIES_MAX + 10 {
            let now = Timestamp::from_nanos(index as u64);
            throttle.failed(&[format!("address {index}")], now);
        }
        assert_eq!(throttle.0.lock().unwrap().len(), ENTRIES_MAX);
    }
}
