//! What the fleet learns together.

use std::collections::BTreeMap;

use revoada_core::{Digest, Timestamp};
use revoada_federated::Participant;

use super::{Actor, Result};
use crate::learning::{MemberRecord, RoundRecord, RunId, RunIntent, RunPlan, RunState};

/// SuperNodes that are remembered; the ones that came least lately go.
pub const NODES_MAX: usize = 100_000;
/// Of a run whose files are kept: the first, and the newest.
pub const WEIGHTS_KEPT: usize = 8;

/// A run of rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRecord {
    pub title: String,
    pub plan: RunPlan,
    pub intent: RunIntent,
    pub state: RunState,
    pub created_by: Actor,
    pub created_at: Timestamp,
}

/// What changes in a run at once.
#[derive(Clone, Debug, Default)]
pub struct RunChanges {
    pub state: Option<RunState>,
    pub rounds: Vec<RoundRecord>,
    /// By their round.
    pub members: Vec<(u64, Participant, MemberRecord)>,
    /// Files that are kept from now on: the round's weights and memory.
    pub files: Vec<(u64, Digest)>,
}

/// Runs, their rounds and who took part; and the SuperNodes that are known.
pub trait Learning {
    /// No number is ever given twice.
    fn add_run(&self, title: &str, plan: &RunPlan, by: &Actor, now: Timestamp) -> Result<RunId>;

    fn runs(&self) -> Result<BTreeMap<RunId, RunRecord>>;

    fn run(&self, id: RunId) -> Result<Option<RunRecord>>;

    fn set_run_intent(&self, id: RunId, intent: RunIntent, by: &Actor, now: Timestamp) -> Result<()>;

    /// Forgets a run and all of its rounds.
    fn remove_run(&self, id: RunId, by: &Actor, now: Timestamp) -> Result<()>;

    /// Nothing of a run that is not there any more.
    fn change_run(&self, id: RunId, changes: &RunChanges) -> Result<()>;

    /// From the first on.
    fn rounds(&self, id: RunId) -> Result<Vec<RoundRecord>>;

    fn members(&self, id: RunId, round: u64) -> Result<BTreeMap<Participant, MemberRecord>>;

    /// The number of the SuperNode with this key, which stays the same; a new one gets `fresh`.
    fn node(&self, key: &[u8], fresh: u64, now: Timestamp) -> Result<u64>;

    /// Forgets a SuperNode, if it is known.
    fn forget_node(&self, id: u64) -> Result<()>;

    /// The key of a SuperNode that is known.
    fn node_key(&self, id: u64) -> Result<Option<Vec<u8>>>;
}
