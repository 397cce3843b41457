//! When to try a lost source again. Pure: events in, decisions out, no clock read.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::config::ReconnectConfig;

/// The exponential back-off of one stream. Streams do not share one, so that a dead camera never
/// makes another wait.
#[derive(Clone, Debug)]
pub struct Reconnect {
    /// Failures since the last frame.
    backoff: Backoff,
    attempts_max: Option<u32>,
}

/// What to do about a lost source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Retry { after: Duration },
    GiveUp,
}

impl Reconnect {
    pub fn new(config: ReconnectConfig) -> Self {
        let backoff = Backoff::new(config.delay_min, config.delay_max);
        Self { backoff, attempts_max: config.attempts_max }
    }

    /// A frame came: the next loss starts from the shortest delay again. Opening a source proves
    /// nothing, because a server may accept and then send nothing.
    pub fn frame_arrived(&mut self) {
        self.backoff.succeeded();
    }

    /// The source was lost, or could not be opened.
    pub fn lost(&mut self) -> Next {
        if self.attempts_max.is_some_and(|max| self.backoff.failures() >= max) {
            return Next::GiveUp;
        }
        Next::Retry { after: self.backoff.failed() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(attempts_max: Option<u32>) -> ReconnectConfig {
        ReconnectConfig {
            delay_min: Duration::from_millis(500),
            delay_max: Duration::from_secs(3),
            attempts_max,
            stall: Duration::from_secs(5),
        }
    }

    #[test]
    fn delays_double_up_to_the_greatest_and_a_frame_resets_them() {
        let mut reconnect = Reconnect::new(config(None));
        let mut delays_ms = Vec::new();
        for step in 0..7 {
            if step == 5 {
                reconnect.frame_arrived();
            }
            let Next::Retry { after } = reconnect.lost() else { panic!("gave up without a bound") };
            delays_ms.push(after.as_millis());
        }
        assert_eq!(delays_ms, [500, 1000, 2000, 3000, 3000, 500, 1000]);
    }

    #[test]
    fn attempts_are_bounded_between_frames() {
        let mut reconnect = Reconnect::new(config(Some(2)));
        reconnect.lost();
        reconnect.frame_arrived();
        assert!(matches!(reconnect.lost(), Next::Retry { .. }));
        assert!(matches!(reconnect.lost(), Next::Retry { .. }));
        assert_eq!(reconnect.lost(), Next::GiveUp);
    }

    proptest! {
        #[test]
        fn a_delay_never_leaves_its_bounds(min_ms in 1u64..10_000, extra_ms in 0u64..1_000_000, losses in 1usize..200) {
            let delay_min = Duration::from_millis(min_ms);
            let delay_max = delay_min + Duration::from_millis(extra_ms);
            let mut reconnect = Reconnect::new(ReconnectConfig { delay_min, delay_max, ..config(None) });
            let mut previous = Duration::ZERO;
            for _ in 0..losses {
                let Next::Retry { after } = reconnect.lost() else { panic!("gave up without a bound") };
                prop_assert!(after >= previous && (delay_min..=delay_max).contains(&after));
                previous = after;
            }
        }
    }
}
