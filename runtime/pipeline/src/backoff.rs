//! How long to wait before the next attempt. Pure: no clock is read.

use std::time::Duration;

/// Delays that double from the least to the greatest, until it [went well](Self::succeeded).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, failures: 0 }
    }

    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// Since it went well.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// The next delay is the least again.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// It failed; how long to wait.
    pub(crate) fn failed(&mut self) -> Duration {
        let factor = 2u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        self.min.saturating_mul(factor).min(self.max)
    }
}
