//! The pipeline's clock.

use std::time::{Instant, SystemTime};

use revoada_core::{Clock, Timestamp};

/// Monotonic time since it was made.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }
}

/// The time of day: since 1970 began in Greenwich. It may be set back.
#[derive(Clone, Copy, Debug)]
pub struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        // A machine that was never told the time may be in an earlier year.
        Timestamp::ZERO + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.origin.elapsed()
    }
}
