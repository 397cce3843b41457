//! Chance without a random number: a hash of the policy's seed and of what it is for.

use std::time::Duration;

use revoada_proto::DeviceId;
use sha2::{Digest as _, Sha256};

use super::policy::{Retry, RolloutId};

/// Which number stands for what is for the reader of the code alone; they differ.
const RANK: u64 = 1;
const RETRY: u64 = 2;

fn hash(seed: u64, purpose: u64, rollout: RolloutId, device: &DeviceId, attempt: u32) -> u64 {
    let mut hasher = Sha256::new();
    for number in [seed, purpose, rollout.0, attempt.into()] {
        hasher.update(number.to_le_bytes());
    }
    hasher.update(device.as_str());
    let digest: [u8; 32] = hasher.finalize().into();
    u64::from_le_bytes(std::array::from_fn(|index| digest[index]))
}

/// Where a device stands in line for a rollout's waves.
pub(super) fn rank(seed: u64, rollout: RolloutId, device: &DeviceId) -> u64 {
    hash(seed, RANK, rollout, device, 0)
}

/// How long to wait after the failure of an attempt, counted from 1: between half and all of the doubled delay.
pub(super) fn delay(seed: u64, retry: &Retry, rollout: RolloutId, device: &DeviceId, attempt: u32) -> Duration {
    let doubled = retry.delay.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    let whole = doubled.min(retry.delay_max);
    let share = hash(seed, RETRY, rollout, device, attempt) as f64 / u64::MAX as f64;
    whole.mul_f64(1.0 - share / 2.0)
}
