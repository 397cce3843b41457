//! Which devices are whose.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use revoada_core::Timestamp;
use revoada_proto::{DeviceId, Kind};

use super::blueprint::{Aim, Member, Phase, RolloutState, Standing};
use super::policy::{Intent, Rollout, RolloutId, Size};
use super::spread::rank;
use super::text::named;
use super::walk::Walk;
use super::{Draft, Ground, Step};

/// Drops rollouts that are not wanted any more, and devices that are not in the inventory.
pub(super) fn forget(ground: &Ground<'_>, draft: &mut Draft) {
    let is_wanted = |id: &RolloutId, state: &RolloutState| {
        ground.policy.rollouts().get(id).is_some_and(|rollout| rollout.deployable == state.deployable)
    };
    let rollouts = &draft.blueprint.rollouts;
    let unwanted: Vec<_> = rollouts.iter().filter(|(id, state)| !is_wanted(id, state)).map(|(id, _)| *id).collect();
    for id in unwanted {
        draft.blueprint.rollouts.remove(&id);
        draft.has_changed = true;
        draft.decide(id, Step::Forget, "its operator took it out; its devices keep what they have");
    }

    let is_known = |device: &DeviceId| ground.inventory.devices.contains_key(device);
    for id in ids(draft) {
        if !are_known(ground, &draft.blueprint.rollouts[&id].members) {
            draft.state_mut(id).members.retain(|device, _| is_known(device));
        }
    }
    if !are_known(ground, &draft.blueprint.targets) {
        Arc::make_mut(&mut draft.blueprint.targets).retain(|device, _| is_known(device));
        draft.has_changed = true;
    }
}

fn are_known<V>(ground: &Ground<'_>, devices: &BTreeMap<DeviceId, V>) -> bool {
    let mut inventory = Walk::new(&ground.inventory.devices);
    devices.keys().all(|device| inventory.at(device).is_some())
}

pub(super) fn ids(draft: &Draft) -> Vec<RolloutId> {
    draft.blueprint.rollouts.keys().copied().collect()
}

/// Begins rollouts, gives them the devices that match, and has older ones yield.
pub(super) fn join(ground: &Ground<'_>, draft: &mut Draft) {
    // The newest first: what it has, no older one takes.
    for (&id, rollout) in ground.policy.rollouts().iter().rev() {
        if let Entry::Vacant(place) = draft.blueprint.rollouts.entry(id) {
            if rollout.intent != Intent::Run {
                continue;
            }
            let phase = Phase::Running { wave: 0, since: ground.now, complete: None };
            let (deployable, members) = (rollout.deployable, BTreeMap::new());
            place.insert(Arc::new(RolloutState { deployable, phase, paused: None, members }));
            draft.has_changed = true;
            draft.decide(id, Step::Start, format!("its operator wants {} on `{}`", named_of(rollout), rollout.filter));
        }
        if draft.blueprint.rollouts[&id].phase.is_live() {
            take_devices(ground, draft, id, rollout);
            yield_devices(draft, id);
        }
    }
}

/// ``model 010101010101``
pub(super) fn named_of(rollout: &Rollout) -> String {
    format!("{} {}", kind_name(rollout.deployable.kind), rollout.deployable.digest.short())
}

/// What a kind is called.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "model",
        Kind::Pipeline => "pipeline",
        Kind::Package => "package",
    }
}

/// Rollouts that live, are newer, and of the same kind; the newest first.
fn newer(draft: &Draft, id: RolloutId) -> Vec<(RolloutId, Arc<RolloutState>)> {
    let kind = draft.blueprint.rollouts[&id].deployable.kind;
    let newer = draft.blueprint.rollouts.range(id..).rev();
    newer
        .filter(|(newer, state)| **newer != id && state.deployable.kind == kind && state.phase.is_live())
        .map(|(id, state)| (*id, Arc::clone(state)))
        .collect()
}

fn take_devices(ground: &Ground<'_>, draft: &mut Draft, id: RolloutId, rollout: &Rollout) {
    let newer = newer(draft, id);
    let state = &draft.blueprint.rollouts[&id];
    let mut members = Walk::new(&state.members);
    let mut is_new = |device: &DeviceId| {
        members.at(device).is_none() && !newer.iter().any(|(_, newer)| newer.members.contains_key(device))
    };
    let joining = ground
        .inventory
        .devices
        .iter()
        .filter(|(device, facts)| is_new(device) && rollout.filter.matches(device, facts, ground.now));
    let mut joining: Vec<&DeviceId> = joining.map(|(device, _)| device).collect();
    if joining.is_empty() {
        return;
    }
    let last = rollout.waves.len() - 1;
    let is_first = state.members.is_empty() && matches!(state.phase, Phase::Running { wave: 0, complete: None, .. });
    if is_first {
        joining.sort_by_cached_key(|device| (!ground.is_there(device), rank(ground.policy.seed, id, device)));
    }
    let ends = wave_ends(rollout, joining.len());
    let wave_of = |index: usize| if is_first { ends.partition_point(|end| *end <= index) } else { last };
    let text = match is_first {
        true => format!("{}, in waves up to {}", joining.len(), joined(&ends)),
        false => format!("{} in its last wave", named(joining.iter().map(|device| device.to_string()))),
    };
    let now = ground.now;
    let state = draft.state_mut(id);
    state
        .members
        .extend(joining.into_iter().enumerate().map(|(index, device)| (device.clone(), fresh(wave_of(index)))));
    restart_first_wave(state, is_first, now);
    draft.decide(id, Step::Join, text);
}

/// The first wave begins when there are devices for it.
fn restart_first_wave(state: &mut RolloutState, is_first: bool, now: Timestamp) {
    if let (true, Phase::Running { since, .. }) = (is_first, &mut state.phase) {
        *since = now;
    }
}

fn fresh(wave: usize) -> Member {
    let (aim, standing) = (Aim::Forward, Standing::Waiting);
    Member { wave, aim, standing, attempts: 0, asked: None, before: None, figures_before: None }
}

/// How many of `count` devices there are in each wave and those before it.
fn wave_ends(rollout: &Rollout, count: usize) -> Vec<usize> {
    let size = |size| match size {
        Size::Devices(devices) => usize::try_from(devices).unwrap_or(usize::MAX).min(count),
        Size::Share(share) => share.of(count),
    };
    let mut end = 0;
    let ends = rollout.waves.iter().map(|wave| {
        end = end.max(size(wave.size));
        end
    });
    ends.collect()
}

fn joined(ends: &[usize]) -> String {
    ends.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// Devices that wait for an order and that a newer rollout has, too, are its.
fn yield_devices(draft: &mut Draft, id: RolloutId) {
    let newer = newer(draft, id);
    if newer.is_empty() {
        return;
    }
    let waits = |member: &Member| matches!(member.standing, Standing::Waiting | Standing::Retry { .. });
    let members = draft.blueprint.rollouts[&id].members.iter().filter(|(_, member)| waits(member));
    let taken = members.filter_map(|(device, _)| {
        let by = newer.iter().find(|(_, newer)| newer.members.contains_key(device));
        by.map(|(by, _)| (device.clone(), *by))
    });
    let taken: Vec<(DeviceId, RolloutId)> = taken.collect();
    if taken.is_empty() {
        return;
    }
    let names = named(taken.iter().map(|(device, by)| format!("{device} to rollout {by}")));
    for (device, by) in taken {
        draft.member_mut(id, &device).standing = Standing::Superseded { by };
    }
    draft.decide(id, Step::Yield, names);
}
