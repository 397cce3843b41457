//! A rate as a bound: what comes evenly passes, and so does what had saved up for a second.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket, kept as the time that what was taken is worth.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: u64,
    taken: Duration,
    at: Instant,
}

/// What may be taken at once after a while of nothing.
const BURST: Duration = Duration::from_secs(1);

impl Bucket {
    /// A full one. A rate of zero counts as one.
    pub(crate) fn new(per_second: u64, now: Instant) -> Self {
        Self { per_second: per_second.max(1), taken: Duration::ZERO, at: now }
    }

    /// Whether there was one left.
    pub(crate) fn try_take(&mut self, now: Instant) -> bool {
        self.drain(now);
        let taken = self.taken + self.worth(1);
        if taken > BURST.max(self.worth(1)) {
            return false;
        }
        self.taken = taken;
        true
    }

    /// Takes more than is left too, and says how long to wait before using it.
    pub(crate) fn take(&mut self, amount: u64, now: Instant) -> Duration {
        self.drain(now);
        let wait = self.taken.saturating_sub(BURST);
        self.taken = self.taken.saturating_add(self.worth(amount));
        wait
    }

    fn drain(&mut self, now: Instant) {
        self.taken = self.taken.saturating_sub(now.saturating_duration_since(self.at));
        self.at = self.at.max(now);
    }

    fn worth(&self, amount: u64) -> Duration {
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_passes_than_the_rate_and_one_second_of_it() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, start);
        let passed = (0..1000).filter(|step| bucket.try_take(start + Duration::from_millis(step * 5))).count();
        assert_eq!(passed, 10 + 49, "ten at once, and ten a second in 5 s without its last step");
    }

    #[test]
    fn what_is_taken_beyond_is_waited_for() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1000, start);
        assert_eq!(bucket.take(3000, start), Duration::ZERO);
        assert_eq!(bucket.take(1, start), Duration::from_secs(2));
        assert_eq!(bucket.take(1, start + Duration::from_secs(2)), Duration::from_millis(1));
        assert_eq!(bucket.take(1, start + Duration::from_secs(9)), Duration::ZERO);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(1, start);
        assert!(bucket.try_take(start));
        assert!(!bucket.try_take(start));
        assert!(!bucket.try_take(start - Duration::from_secs(10)));
        assert!(!bucket.try_take(start));
        assert!(bucket.try_take(start + Duration::from_secs(1)));
    }
}
