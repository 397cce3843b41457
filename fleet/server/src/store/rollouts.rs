//! What operators want, and what came of it.

use std::collections::BTreeMap;

use revoada_core::Timestamp;

use super::{Actor, Result};
use crate::planner::{Blueprint, Intent, Limits, Policy, Rollout, RolloutId};

/// What people know of a rollout that the planner does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutNote {
    pub title: String,
    pub created_by: Actor,
    pub created_at: Timestamp,
}

/// The policy, and who wanted it.
#[derive(Clone, Debug)]
pub struct StoredPolicy {
    pub policy: Policy,
    /// Of every rollout of the policy.
    pub notes: BTreeMap<RolloutId, RolloutNote>,
}

/// Policy and blueprint.
pub trait Rollouts {
    /// `None` before limits were first set.
    fn policy(&self) -> Result<Option<StoredPolicy>>;

    /// What holds for all rollouts. The seed stays as it was first set.
    fn set_limits(&self, limits: &Limits, seed: u64, by: &Actor, now: Timestamp) -> Result<()>;

    /// Adds the newest rollout, as [`Policy::add`] takes it. No number is ever given twice.
    fn add_rollout(&self, title: &str, rollout: &Rollout, by: &Actor, now: Timestamp) -> Result<RolloutId>;

    fn set_intent(&self, id: RolloutId, intent: Intent, by: &Actor, now: Timestamp) -> Result<()>;

    fn remove_rollout(&self, id: RolloutId, by: &Actor, now: Timestamp) -> Result<()>;

    /// The empty first one before any was stored.
    fn blueprint(&self) -> Result<Blueprint>;

    /// Puts `next` in the place of `current`, which is what is stored. Whether it did: not where another one was stored
    /// meanwhile. The two are held against each other, and only what differs is written.
    fn swap_blueprint(&self, current: &Blueprint, next: &Blueprint) -> Result<bool>;
}
