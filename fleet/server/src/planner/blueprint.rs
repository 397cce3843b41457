//! The whole desired state.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use revoada_core::{Digest, Timestamp};
use revoada_proto::{Deployable, DeviceId, Figures, Generation, Kind, Order};
use serde::{Deserialize, Serialize};

use super::policy::RolloutId;

/// What every device is to run, and how far each rollout is. It never changes: the next one has the next number. Whoever
/// stores it compares and swaps, so that of two made from the same parent one is refused and planned again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blueprint {
    pub number: u64,
    /// `None` for the first, which is empty.
    pub parent: Option<u64>,
    /// Of devices of the inventory that were ever ordered anything.
    pub targets: Arc<BTreeMap<DeviceId, Target>>,
    /// Shared with the parent where nothing changed.
    pub rollouts: BTreeMap<RolloutId, Arc<RolloutState>>,
    /// How many orders were given in which second, for the minute before and, where the clock went
    /// back, after the newest: at most 121 entries.
    pub recent: BTreeMap<u64, u32>,
}

/// The newest order of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub order: Order,
    /// When it was given.
    pub since: Timestamp,
}

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutState {
    pub deployable: Deployable,
    pub phase: Phase,
    /// Since when, while it is paused.
    pub paused: Option<Timestamp>,
    pub members: BTreeMap<DeviceId, Member>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Devices up to this wave are ordered. `complete` since when it waits for its soak and its gates.
    Running { wave: usize, since: Timestamp, complete: Option<Timestamp> },
    /// Every wave has passed. Devices that were away, and new ones, are still ordered; gates are no longer watched.
    Finished { since: Timestamp },
    /// A gate failed: devices are ordered back, and nothing else.
    Halted { since: Timestamp, why: String },
    /// An operator ended it.
    Aborted { since: Timestamp, rolls_back: bool },
    /// Newer rollouts have all of its devices, of which nothing is kept.
    Superseded { since: Timestamp },
}

/// A device of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// From which it is ordered, counted from 0.
    pub wave: usize,
    pub aim: Aim,
    pub standing: Standing,
    /// Orders towards the aim.
    pub attempts: u32,
    /// The newest order of the rollout. `None` where it gave none.
    pub asked: Option<Asked>,
    /// What ran when the rollout first ordered it, where that is known and another.
    pub before: Option<Digest>,
    /// What was measured of that.
    pub figures_before: Option<Arc<Figures>>,
}

/// Where a device is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aim {
    /// To the rollout's deployable.
    Forward,
    /// To what ran before.
    Back,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub generation: Generation,
    pub digest: Digest,
}

/// How far a device is towards its aim. Written for people, it is the reason why a device does not have what it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    Waiting,
    /// In flight. The time-out counts from `since`.
    Ordered {
        since: Timestamp,
    },
    /// It was not heard of for long; it takes up its order when it is back, and the time-out begins anew.
    Away,
    Reached {
        since: Timestamp,
    },
    /// It is ordered again from `at` on.
    Retry {
        at: Timestamp,
        why: String,
    },
    GaveUp {
        why: String,
    },
    /// A newer rollout has ordered it, will, or found that it has what that names.
    Superseded {
        by: RolloutId,
    },
    /// The rollout ended before it was ordered, or there is nothing to go back to.
    Left {
        why: String,
    },
}

impl Blueprint {
    /// What a device is to run, where anything was ordered.
    pub fn order(&self, device: &DeviceId) -> Option<&Order> {
        self.targets.get(device).map(|target| &target.order)
    }

    /// What a device goes back to from a rollout: what ran before, or what ran before that where a rollout of that is
    /// being taken back too.
    pub(super) fn before(&self, id: RolloutId, kind: Kind, device: &DeviceId) -> Option<Digest> {
        let mut digest = self.rollouts.get(&id)?.members.get(device)?.before?;
        for older in self.rollouts.range(..id).rev().map(|(_, older)| older) {
            let is_of_it = older.deployable == Deployable { kind, digest };
            if let Some(member) = older.members.get(device).filter(|_| is_of_it && older.phase.rolls_back()) {
                digest = member.before?;
            }
        }
        Some(digest)
    }
}

impl Phase {
    /// Whether it has devices that may still be ordered the deployable, and takes new ones.
    pub fn is_live(&self) -> bool {
        matches!(self, Phase::Running { .. } | Phase::Finished { .. })
    }

    pub fn rolls_back(&self) -> bool {
        matches!(self, Phase::Halted { .. } | Phase::Aborted { rolls_back: true, .. })
    }
}

impl Standing {
    /// Whether the rollout still has to do with the device.
    pub fn counts(&self) -> bool {
        !matches!(self, Standing::Superseded { .. } | Standing::Left { .. })
    }

    pub fn is_reached(&self) -> bool {
        matches!(self, Standing::Reached { .. })
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Standing::Waiting => f.write_str("waits for its order"),
            Standing::Ordered { .. } => f.write_str("carries out its order"),
            Standing::Away => f.write_str("is away, with an order"),
            Standing::Reached { .. } => f.write_str("done"),
            Standing::Retry { why, .. } => write!(f, "is tried again: {why}"),
            Standing::GaveUp { why } => write!(f, "gave up: {why}"),
            Standing::Superseded { by } => write!(f, "belongs to rollout {by}"),
            Standing::Left { why } => write!(f, "left as it is: {why}"),
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Aim::Forward => "forward",
            Aim::Back => "back",
        })
    }
}
