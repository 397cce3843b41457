//! How patient an agent is.

use std::time::Duration;

use revoada_bundle::hash;
use revoada_core::Timestamp;

/// The bounds of an agent's work.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long looking for room may take, and how long a fetch may bring nothing.
    pub fetch_silence_max: Duration,
    /// How long holding a slot against its digest and signature may take.
    pub verify_time_max: Duration,
    /// How long a pre-flight may take; it may build a plan.
    pub preflight_time_max: Duration,
    /// How often verification and pre-flight may run out of time before the order is refused.
    pub timeouts_max: u32,
    /// How often the server may say that it does not have something before the order is refused.
    pub not_found_max: u32,
    /// How often something may come damaged before the order is refused.
    pub damaged_max: u32,
    /// The first wait before something is tried again; each next one may be twice as long.
    pub retry_min: Duration,
    /// The longest wait.
    pub retry_max: Duration,
    /// A report that was not answered for so long is sent again.
    pub report_time_max: Duration,
    /// What was flipped to is committed after it was healthy for so long without a break.
    pub healthy_for: Duration,
    /// A pipeline that says nothing for so long is not healthy meanwhile.
    pub health_silence_max: Duration,
    /// What is not committed after so long is rolled back.
    pub trial_time_max: Duration,
    /// How often a pipeline is started in one trial, whatever ended it; then it is rolled back.
    pub starts_max: u32,
    /// A pipeline with fewer frames a second is not healthy. Without it, one that has had a frame is.
    pub fps_min: Option<f64>,
    /// A trial with more results that are not finite is rolled back at once.
    pub nonfinite_max: u64,
}

impl Default for Policy {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self {
            fetch_silence_max: minutes(2),
            verify_time_max: minutes(10),
            preflight_time_max: minutes(60),
            timeouts_max: 2,
            not_found_max: 6,
            damaged_max: 3,
            retry_min: Duration::from_secs(1),
            retry_max: minutes(15),
            report_time_max: minutes(1),
            healthy_for: minutes(2),
            health_silence_max: Duration::from_secs(15),
            trial_time_max: minutes(15),
            starts_max: 3,
            fps_min: None,
            nonfinite_max: 0,
        }
    }
}

/// When something that failed is tried again: after a random part of a wait that doubles ("full jitter"), so that devices
/// that lost the same server do not come back together.
#[derive(Clone, Debug, Default)]
pub(super) struct Retry {
    failures: u32,
    at: Option<Timestamp>,
}

impl Retry {
    /// Notes a failure. `seed` and `draw` decide which part of the wait it is.
    pub(super) fn failed(&mut self, policy: &Policy, seed: u64, draw: u64, now: Timestamp) {
        let doubled = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let wait = policy.retry_min.saturating_mul(doubled).min(policy.retry_max);
        self.failures = self.failures.saturating_add(1);
        let digest = hash(&[seed.to_le_bytes(), draw.to_le_bytes()].concat());
        let bytes = digest.as_bytes().first_chunk().expect("a digest has 32 bytes");
        let part = u64::from_le_bytes(*bytes) as f64 / u64::MAX as f64;
        self.at = Some(now + wait.mul_f64(part));
    }

    /// Notes that things go on: the next wait is short again.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Tries at once whatever waits.
    pub(super) fn hurry(&mut self) {
        self.at = None;
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.at.is_none_or(|at| at <= now)
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    pub(super) fn at(&self) -> Option<Timestamp> {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_spread() {
        let policy = Policy::default();
        let mut retry = Retry::default();
        let mut waits = Vec::new();
        for draw in 0..1000 {
            retry.failed(&policy, 7, draw, Timestamp::ZERO);
            waits.push(retry.at().expect("it waits").since(Timestamp::ZERO));
        }
        for (index, wait) in waits.iter().enumerate() {
            let bound = policy.retry_min.saturating_mul(1 << index.min(20)).min(policy.retry_max);
            assert!(*wait <= bound, "wait {index} is {wait:?}");
        }
        let mean = waits[20..].iter().sum::<Duration>() / (waits.len() as u32 - 20);
        let half = policy.retry_max / 2;
        assert!(mean > half.mul_f64(0.9) && mean < half.mul_f64(1.1), "{mean:?}");
    }
}
