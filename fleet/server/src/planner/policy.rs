//! What operators want.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use revoada_proto::Deployable;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::gate::Gate;
use crate::filter::Filter;

/// More than a fleet has groups of devices; older ones are removed.
pub const ROLLOUTS_MAX: usize = 1000;

/// Of one rollout.
pub const WAVES_MAX: usize = 32;

/// Of one rollout.
pub const GATES_MAX: usize = 16;

/// Names a rollout; a higher one is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RolloutId(pub u64);

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percent(u8);

/// More than the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected 0 to 100 percent, got {0}")]
pub struct PercentError(u8);

impl TryFrom<u8> for Percent {
    type Error = PercentError;

    fn try_from(percent: u8) -> Result<Self, PercentError> {
        Self::new(percent).ok_or(PercentError(percent))
    }
}

impl From<Percent> for u8 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

impl Percent {
    pub const ZERO: Self = Self(0);
    pub const ALL: Self = Self(100);

    /// `None` above 100.
    pub const fn new(percent: u8) -> Option<Self> {
        if percent <= 100 { Some(Self(percent)) } else { None }
    }

    pub const fn get(self) -> u8 {
        self.0
    }

    /// This share of `whole`, rounded up.
    pub fn of(self, whole: usize) -> usize {
        whole.saturating_mul(self.0.into()).div_ceil(100)
    }

    /// Whether `part` of `whole` is more than this.
    pub fn is_exceeded_by(self, part: usize, whole: usize) -> bool {
        part.saturating_mul(100) > whole.saturating_mul(self.0.into())
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// What operators want of the whole fleet. A rollout that is taken out is forgotten, and its devices keep what they have.
#[derive(Clone, Debug)]
pub struct Policy {
    pub limits: Limits,
    /// Decides which devices are canaries, and how retries spread. Any number; the same one gives the same plan.
    pub seed: u64,
    rollouts: BTreeMap<RolloutId, Rollout>,
}

/// What holds for all rollouts together.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Devices that are carrying out an order at once. At the bound orders wait, and are counted as deferred.
    pub in_flight_max: NonZeroU32,
    /// Orders in any 60 seconds, rollbacks among them. At the bound orders wait, and are counted as deferred.
    pub orders_per_minute_max: NonZeroU32,
    /// A device that was not heard of for longer is away: it is not in flight, and waits for its order until it is back.
    pub away_after: Duration,
    /// How long a device that is there may take to carry out an order before that counts as failed.
    pub answer_timeout: Duration,
}

/// One deployable for all devices of a filter. But for the intent it never changes: something else is another rollout.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    pub deployable: Deployable,
    /// Devices that match at any time while the rollout lives are its devices for good.
    pub filter: Filter,
    /// One after the other. The last has every device.
    pub waves: Vec<Wave>,
    /// Watched from the first order until the last wave has passed. One that fails halts the rollout, and each of its devices
    /// is ordered back.
    pub gates: Vec<Gate>,
    pub retry: Retry,
    pub intent: Intent,
}

/// A part of the devices, and what it takes to go on to the next.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wave {
    pub size: Size,
    /// The wave is complete once this share of its devices runs the deployable, or each of them has done so or given up …
    pub done: Percent,
    /// … or once so long has passed since it began and any device of the rollout runs the deployable.
    pub timeout: Duration,
    /// From when the wave is complete until the next, if the gates hold then.
    pub soak: Duration,
}

/// How far a wave reaches, counted with the waves before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    Devices(u32),
    Share(Percent),
}

/// How often a device that failed is asked again, and after how long.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Orders to one device, the first among them.
    pub attempts_max: NonZeroU32,
    /// After the first failure; doubled after each. A part of it that differs by device, up to the half, is left out.
    pub delay: Duration,
    /// It is doubled no further than this.
    pub delay_max: Duration,
}

/// What its operator wants of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    Run,
    /// Give no order, but for rollbacks. Gates are watched on; clocks of waves stand still.
    Pause,
    /// End it for good, and maybe take back what it did. Also after it has finished.
    Abort {
        rolls_back: bool,
    },
}

/// A rollout that cannot be wanted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    #[error("cannot add rollout {id}: there are {ROLLOUTS_MAX}")]
    Full { id: RolloutId },
    #[error("cannot add rollout {id}: rollout {newest} is not older")]
    NotNewest { id: RolloutId, newest: RolloutId },
    #[error("cannot add rollout {id}: expected 1 to {WAVES_MAX} waves, got {waves}")]
    Waves { id: RolloutId, waves: usize },
    #[error("cannot add rollout {id}: its last wave does not have every device")]
    LastWave { id: RolloutId },
    #[error("cannot add rollout {id}: expected at most {GATES_MAX} gates, got {gates}")]
    Gates { id: RolloutId, gates: usize },
    #[error("cannot add rollout {id}: the threshold of gate `{gate}` is negative or not finite")]
    Threshold { id: RolloutId, gate: &'static str },
    #[error("there is no rollout {id}")]
    Unknown { id: RolloutId },
}

impl Policy {
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self { limits, seed, rollouts: BTreeMap::new() }
    }

    pub fn rollouts(&self) -> &BTreeMap<RolloutId, Rollout> {
        &self.rollouts
    }

    /// Adds the newest rollout.
    pub fn add(&mut self, id: RolloutId, rollout: Rollout) -> Result<(), PolicyError> {
        if self.rollouts.len() >= ROLLOUTS_MAX {
            return Err(PolicyError::Full { id });
        }
        if let Some((&newest, _)) = self.rollouts.last_key_value().filter(|(newest, _)| **newest >= id) {
            return Err(PolicyError::NotNewest { id, newest });
        }
        if !(1..=WAVES_MAX).contains(&rollout.waves.len()) {
            return Err(PolicyError::Waves { id, waves: rollout.waves.len() });
        }
        if rollout.waves.last().is_some_and(|last| last.size != Size::Share(Percent::ALL)) {
            return Err(PolicyError::LastWave { id });
        }
        if rollout.gates.len() > GATES_MAX {
            return Err(PolicyError::Gates { id, gates: rollout.gates.len() });
        }
        if let Some(gate) = rollout.gates.iter().find(|gate| !gate.measure.has_sound_threshold()) {
            return Err(PolicyError::Threshold { id, gate: gate.measure.name() });
        }
        self.rollouts.insert(id, rollout);
        Ok(())
    }

    /// What is wanted of a rollout from now on. An abort stays one, whatever is wanted later.
    pub fn intend(&mut self, id: RolloutId, intent: Intent) -> Result<(), PolicyError> {
        let rollout = self.rollouts.get_mut(&id).ok_or(PolicyError::Unknown { id })?;
        rollout.intent = intent;
        Ok(())
    }

    pub fn remove(&mut self, id: RolloutId) -> Result<(), PolicyError> {
        self.rollouts.remove(&id).map(drop).ok_or(PolicyError::Unknown { id })
    }
}
