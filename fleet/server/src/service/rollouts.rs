//! Rollouts, for people.

use std::collections::BTreeMap;

use revoada_core::Digest;
use revoada_proto::{Deployable, DeviceId, Kind};
use serde::Serialize;

use super::planning::RolloutProgress;
use super::{Change, Fleet, Principal, Result, RolloutForm, ServiceError, now};
use crate::filter::Filter;
use crate::planner::{self, Aim, Deferred, GateView, Intent, Member, Phase, Rollout, RolloutId};
use crate::store::{Role, RolloutNote};

/// A rollout, what it is of, and how far it is.
#[derive(Clone, Debug)]
pub struct RolloutView {
    pub id: RolloutId,
    pub note: RolloutNote,
    /// What is rolled out; the digest alone, where that is not registered any more.
    pub artefact: Option<(String, String)>,
    pub rollout: Rollout,
    /// `None` before it was first planned.
    pub phase: Option<Phase>,
    pub is_paused: bool,
    pub progress: RolloutProgress,
    pub waves: Vec<WaveView>,
    /// Why it is as it is.
    pub status: String,
}

/// One wave's devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WaveView {
    pub devices: usize,
    pub reached: usize,
    pub gave_up: usize,
    pub in_flight: usize,
}

/// A device of a rollout, and why it is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberView {
    pub device: DeviceId,
    /// From 1.
    pub wave: usize,
    pub is_back: bool,
    pub attempts: u32,
    pub standing: String,
}

impl Fleet {
    /// Adds a rollout of a registered version, which begins at once.
    pub fn add_rollout(&self, by: &Principal, form: &RolloutForm) -> Result<RolloutId> {
        by.require(Role::Operator)?;
        let digest = self.version_digest(form.kind, &form.name, &form.version)?;
        let rollout = form.read(digest).map_err(|error| ServiceError::Invalid(error.to_string()))?;
        let title = match form.title.trim() {
            "" => format!("{} {}", form.name, form.version),
            title => title.to_owned(),
        };
        let id = self.store.add_rollout(&title, &rollout, &by.actor, now())?;
        self.policy_changed(id)?;
        Ok(id)
    }

    pub(super) fn version_digest(&self, kind: Kind, name: &str, version: &str) -> Result<Digest> {
        if self.store.artefact(kind, name)?.is_none() {
            return Err(ServiceError::Missing { what: super::kind_name(kind), name: name.to_owned() });
        }
        let versions = self.store.versions(kind, name)?;
        let found = versions.iter().find(|known| known.version == version).map(|known| known.digest);
        found.ok_or_else(|| ServiceError::Missing { what: "version", name: format!("{name} {version}") })
    }

    /// Devices that a filter would mean now: what somebody who writes one wants to know.
    pub fn preview(&self, by: &Principal, filter: &Filter) -> Result<usize> {
        by.require(Role::Viewer)?;
        let now = now();
        Ok(self.live().inventory.devices.iter().filter(|(id, device)| filter.matches(id, device, now)).count())
    }

    pub fn intend(&self, by: &Principal, id: RolloutId, intent: Intent) -> Result<()> {
        by.require(Role::Operator)?;
        let known = self.live().policy.policy.rollouts().get(&id).map(|rollout| rollout.intent);
        match known {
            None => return Err(missing(id)),
            Some(Intent::Abort { .. }) => {
                return Err(ServiceError::Conflict(format!("rollout {id} was aborted, and stays so")));
            }
            Some(_) => self.store.set_intent(id, intent, &by.actor, now())?,
        }
        self.policy_changed(id)
    }

    /// The newest rollout of this that was not aborted.
    pub(crate) fn rollout_of(&self, kind: Kind, digest: Digest) -> Option<RolloutId> {
        let wanted = Deployable { kind, digest };
        let live = self.live();
        let mut rollouts = live.policy.policy.rollouts().iter().rev();
        rollouts.find(|(_, rollout)| rollout.deployable == wanted && rollout.intent == Intent::Run).map(|(id, _)| *id)
    }

    /// Forgets a rollout; its devices keep what they have.
    pub fn remove_rollout(&self, by: &Principal, id: RolloutId) -> Result<()> {
        by.require(Role::Operator)?;
        if !self.live().policy.policy.rollouts().contains_key(&id) {
            return Err(missing(id));
        }
        self.store.remove_rollout(id, &by.actor, now())?;
        self.policy_changed(id)
    }

    fn policy_changed(&self, id: RolloutId) -> Result<()> {
        {
            let mut live = self.live_mut();
            live.policy = self.store.policy()?.expect("limits were set when the service began");
        }
        self.announce(Change::Rollout { rollout: id.0 });
        self.wake();
        Ok(())
    }

    /// The newest first.
    pub fn rollouts(&self, by: &Principal) -> Result<Vec<RolloutView>> {
        by.require(Role::Viewer)?;
        let ids: Vec<RolloutId> = self.live().policy.policy.rollouts().keys().rev().copied().collect();
        let views = ids.into_iter().map(|id| self.rollout(by, id));
        // One that is removed meanwhile is not there.
        Ok(views.filter_map(std::result::Result::ok).collect())
    }

    /// How many rollouts there are of each phase.
    pub fn rollout_counts(&self, by: &Principal) -> Result<BTreeMap<&'static str, u64>> {
        by.require(Role::Viewer)?;
        let live = self.live();
        let mut counts = BTreeMap::new();
        for (id, rollout) in live.policy.policy.rollouts() {
            let phase = live.blueprint.rollouts.get(id).map(|state| &state.phase);
            *counts.entry(phase_name(phase, rollout.intent == Intent::Pause)).or_default() += 1;
        }
        Ok(counts)
    }

    /// Orders that are due and wait for room.
    pub fn deferred(&self) -> Deferred {
        self.live().deferred
    }

    pub fn rollout(&self, by: &Principal, id: RolloutId) -> Result<RolloutView> {
        by.require(Role::Viewer)?;
        let (mut view, digest) = {
            let live = self.live();
            let policy = &live.policy;
            let rollout = policy.policy.rollouts().get(&id).ok_or_else(|| missing(id))?.clone();
            let note = policy.notes.get(&id).ok_or_else(|| missing(id))?.clone();
            let state = live.blueprint.rollouts.get(&id);
            let digest = rollout.deployable.digest;
            let mut waves = vec![WaveView::default(); rollout.waves.len()];
            for member in state.iter().flat_map(|state| state.members.values()) {
                if let Some(wave) = waves.get_mut(member.wave) {
                    wave.count(member);
                }
            }
            let view = RolloutView {
                id,
                note,
                artefact: None,
                phase: state.map(|state| state.phase.clone()),
                is_paused: rollout.intent == Intent::Pause,
                progress: RolloutProgress::of(&live.blueprint, id),
                waves,
                status: live.status.get(&id).cloned().unwrap_or_default(),
                rollout,
            };
            (view, digest)
        };
        view.artefact = self.store.version(&digest)?.map(|version| (version.name, version.version));
        Ok(view)
    }

    /// What each gate of a rollout sees now, in its order; nothing where no wave is in progress.
    pub fn rollout_gates(&self, by: &Principal, id: RolloutId) -> Result<Vec<GateView>> {
        by.require(Role::Viewer)?;
        let live = self.live();
        Ok(planner::view_gates(&live.policy.policy, &live.inventory, &live.observations, &live.blueprint, id, now()))
    }

    /// A rollout's devices by name, after `after`.
    pub fn rollout_members(
        &self,
        by: &Principal,
        id: RolloutId,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<MemberView>> {
        by.require(Role::Viewer)?;
        let live = self.live();
        if !live.policy.policy.rollouts().contains_key(&id) {
            return Err(missing(id));
        }
        let Some(state) = live.blueprint.rollouts.get(&id) else { return Ok(Vec::new()) };
        use std::ops::Bound;
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let members = state.members.range((start, Bound::Unbounded)).take(limit);
        let view = |(device, member): (&DeviceId, &Member)| MemberView {
            device: device.clone(),
            wave: member.wave + 1,
            is_back: member.aim == Aim::Back,
            attempts: member.attempts,
            standing: member.standing.to_string(),
        };
        Ok(members.map(view).collect())
    }
}

impl RolloutView {
    /// Its phase in one word.
    pub fn phase_name(&self) -> &'static str {
        phase_name(self.phase.as_ref(), self.is_paused)
    }
}

fn phase_name(phase: Option<&Phase>, is_paused: bool) -> &'static str {
    match phase {
        None => "new",
        Some(Phase::Running { .. }) if is_paused => "paused",
        Some(Phase::Running { .. }) => "running",
        Some(Phase::Finished { .. }) => "finished",
        Some(Phase::Halted { .. }) => "halted",
        Some(Phase::Aborted { .. }) => "aborted",
        Some(Phase::Superseded { .. }) => "superseded",
    }
}

impl WaveView {
    fn count(&mut self, member: &Member) {
        use crate::planner::Standing;
        self.devices += 1;
        match &member.standing {
            Standing::Reached { .. } if member.aim == Aim::Forward => self.reached += 1,
            Standing::GaveUp { .. } => self.gave_up += 1,
            Standing::Ordered { .. } => self.in_flight += 1,
            _ => {}
        }
    }
}

fn missing(id: RolloutId) -> ServiceError {
    ServiceError::Missing { what: "rollout", name: id.to_string() }
}
