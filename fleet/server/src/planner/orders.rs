//! New orders, as many as there is room for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use revoada_core::Digest;
use revoada_proto::{Deployable, DeviceId, Generation, Kind, Order};

use super::blueprint::{Aim, Asked, Member, Phase, RolloutState, Standing, Target};
use super::join::kind_name;
use super::policy::{Intent, Rollout, RolloutId};
use super::walk::Walk;
use super::{Deferred, Draft, Ground, Step};

const WINDOW_SECONDS: u64 = 60;

/// An order that is due. They are given in this order: where a rollback is due before others, to devices that are there
/// first, and rollouts in turn.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    can_wait: bool,
    is_away: bool,
    /// Among those of its rollout.
    rank: usize,
    id: RolloutId,
    device: DeviceId,
    aim: Aim,
    /// Whether it replaces an order that the device is carrying out.
    is_in_flight: bool,
}

/// Devices that are carrying out an order, and of whom.
type Flying = BTreeMap<DeviceId, BTreeSet<(RolloutId, Kind)>>;

/// At most one for a device and kind: where an older rollout would order it back, and a newer one elsewhere, it goes there
/// at once.
fn due(ground: &Ground<'_>, draft: &Draft, flying: &Flying) -> Vec<Due> {
    let mut due: Vec<(Due, Kind)> = Vec::new();
    for (id, state) in &draft.blueprint.rollouts {
        let rollout = &ground.policy.rollouts()[id];
        let (mut inventory, mut flying) = (Walk::new(&ground.inventory.devices), Walk::new(flying));
        let kind = state.deployable.kind;
        let mut rank = 0;
        for (device, member) in &state.members {
            let is_there = || ground.has_been_seen(inventory.at(device));
            let Some((aim, is_there)) = aim(ground, draft, (*id, rollout), state, (device, member), is_there) else {
                continue;
            };
            let (can_wait, is_away, others) = (aim == Aim::Forward, !is_there, flying.at(device));
            // Its own order and those of older rollouts of the kind it replaces; others are carried out first.
            let may_replace = |(other, other_kind): &(RolloutId, Kind)| other <= id && *other_kind == kind;
            if others.is_none_or(|others| others.iter().all(may_replace)) {
                let (device, is_in_flight) = (device.clone(), others.is_some());
                due.push((Due { can_wait, is_away, rank, id: *id, device, aim, is_in_flight }, kind));
                rank += 1;
            }
        }
    }
    // Older rollouts stay before newer ones.
    due.sort_by(|(a, a_kind), (b, b_kind)| (&a.device, a_kind).cmp(&(&b.device, b_kind)));
    due.dedup_by(|(newer, newer_kind), (older, older_kind)| {
        let is_same = newer.device == older.device && newer_kind == older_kind;
        if is_same {
            newer.can_wait &= older.can_wait;
            std::mem::swap(newer, older);
        }
        is_same
    });
    let mut due: Vec<Due> = due.into_iter().map(|(due, _)| due).collect();
    due.sort();
    due
}

pub(super) fn order(ground: &Ground<'_>, draft: &mut Draft) {
    draft.deferred = Deferred::default();
    let flying = flying(draft);
    let due = due(ground, draft, &flying);
    let (mut in_flight, mut room) = (flying.len(), room_this_minute(ground, draft));
    let in_flight_max = usize::try_from(ground.policy.limits.in_flight_max.get()).unwrap_or(usize::MAX);
    let mut ordered = BTreeSet::new();
    for Due { is_away, id, device, aim, is_in_flight, .. } in due {
        let flies_anew = !is_away && !is_in_flight;
        if flies_anew && in_flight >= in_flight_max {
            draft.deferred.by_in_flight += 1;
            continue;
        }
        if aim == Aim::Forward && room == 0 {
            draft.deferred.by_orders_per_minute += 1;
            continue;
        }
        // Of another kind, just now.
        if ordered.contains(&device) {
            continue;
        }
        let Some(goal) = goal(draft, id, &device, aim) else {
            let why = "nothing is known to have run before".to_owned();
            draft.member_mut(id, &device).standing = Standing::Left { why };
            continue;
        };
        if !(aim == Aim::Back && adopts(ground, draft, id, &device, goal)) {
            if room == 0 {
                draft.deferred.by_orders_per_minute += 1;
                continue;
            }
            if !issue(ground, draft, id, &device, aim, goal) {
                continue;
            }
            room -= 1;
        }
        in_flight += usize::from(flies_anew);
        ordered.insert(device);
    }
}

fn flying(draft: &Draft) -> Flying {
    let mut flying = Flying::new();
    for (id, state) in &draft.blueprint.rollouts {
        for (device, member) in &state.members {
            if matches!(member.standing, Standing::Ordered { .. }) {
                flying.entry(device.clone()).or_default().insert((*id, state.deployable.kind));
            }
        }
    }
    flying
}

/// Where a member is to be ordered now, if anywhere, and whether it is there.
fn aim(
    ground: &Ground<'_>,
    draft: &Draft,
    (id, rollout): (RolloutId, &Rollout),
    state: &RolloutState,
    (device, member): (&DeviceId, &Member),
    mut is_there: impl FnMut() -> bool,
) -> Option<(Aim, bool)> {
    let is_due = match &member.standing {
        Standing::Waiting => true,
        Standing::Retry { at, .. } => *at <= ground.now,
        _ => false,
    };
    if state.phase.rolls_back() {
        let is_to_turn = match (&member.standing, member.aim) {
            (Standing::Left { .. }, _) => false,
            // A newer rollout had it, went back too, and left it with ours.
            (Standing::Superseded { by }, _) => {
                let newer = draft.blueprint.rollouts.get(by);
                newer.is_some_and(|newer| newer.phase.rolls_back())
                    && draft.blueprint.order(device).and_then(|order| order.of(state.deployable.kind))
                        == Some(state.deployable.digest)
            }
            (_, Aim::Forward) => true,
            (_, Aim::Back) => is_due,
        };
        return (member.asked.is_some() && is_to_turn).then(|| (Aim::Back, is_there()));
    }
    let is_open = match state.phase {
        Phase::Running { wave, .. } => member.wave <= wave,
        Phase::Finished { .. } => true,
        Phase::Halted { .. } | Phase::Aborted { .. } | Phase::Superseded { .. } => false,
    };
    let may_go = is_open && is_due && rollout.intent == Intent::Run && is_there();
    (may_go && !is_being_taken_back(draft, id, state.deployable.kind, device)).then_some((Aim::Forward, true))
}

/// Whether a newer rollout of the kind has still to order a device back.
fn is_being_taken_back(draft: &Draft, id: RolloutId, kind: Kind, device: &DeviceId) -> bool {
    draft.blueprint.rollouts.range(id..).any(|(newer, state)| {
        let is_on_its_way = |member: &Member| {
            let is_settled = matches!(member.standing, Standing::Reached { .. } | Standing::GaveUp { .. });
            member.asked.is_some() && member.standing.counts() && !(member.aim == Aim::Back && is_settled)
        };
        *newer != id
            && state.deployable.kind == kind
            && state.phase.rolls_back()
            && state.members.get(device).is_some_and(is_on_its_way)
    })
}

fn goal(draft: &Draft, id: RolloutId, device: &DeviceId, aim: Aim) -> Option<Digest> {
    let deployable = draft.blueprint.rollouts[&id].deployable;
    match aim {
        Aim::Forward => Some(deployable.digest),
        Aim::Back => draft.blueprint.before(id, deployable.kind, device),
    }
}

/// Where another rollout has already ordered a device back to the same, that order is this one's too.
fn adopts(ground: &Ground<'_>, draft: &mut Draft, id: RolloutId, device: &DeviceId, goal: Digest) -> bool {
    let state = &draft.blueprint.rollouts[&id];
    let is_first = state.members[device].aim == Aim::Forward;
    let order = draft.blueprint.order(device).filter(|order| order.of(state.deployable.kind) == Some(goal));
    let Some(generation) = order.map(|order| order.generation).filter(|_| is_first) else { return false };
    turn(ground, draft.member_mut(id, device), Aim::Back, Asked { generation, digest: goal }, ground.is_there(device));
    true
}

/// A member that has been ordered somewhere.
fn turn(ground: &Ground<'_>, member: &mut Member, aim: Aim, asked: Asked, is_there: bool) {
    member.attempts = if member.aim == aim { member.attempts.saturating_add(1) } else { 1 };
    member.aim = aim;
    member.asked = Some(asked);
    member.standing = if is_there { Standing::Ordered { since: ground.now } } else { Standing::Away };
}

/// How many more orders may be given now. Counted in whole seconds, of which one too many is looked at: no 60 seconds have
/// more orders than may be.
fn room_this_minute(ground: &Ground<'_>, draft: &Draft) -> u64 {
    let recent = draft.blueprint.recent.range(second(ground).saturating_sub(WINDOW_SECONDS)..);
    let given = recent.map(|(_, orders)| u64::from(*orders)).sum::<u64>();
    u64::from(ground.policy.limits.orders_per_minute_max.get()).saturating_sub(given)
}

fn second(ground: &Ground<'_>) -> u64 {
    ground.now.as_nanos() / 1_000_000_000
}

/// Gives an order, unless no generation is left for one.
fn issue(ground: &Ground<'_>, draft: &mut Draft, id: RolloutId, device: &DeviceId, aim: Aim, digest: Digest) -> bool {
    let report = ground.observations.of(device);
    let known = draft.blueprint.order(device).map_or(Generation(0), |order| order.generation);
    // A device may know more than a service that was restored from a backup.
    let known = known.max(report.map_or(Generation(0), |report| report.generation));
    let generation = known.next();
    if generation == known {
        draft.member_mut(id, device).standing = Standing::GaveUp { why: "no higher generation is left".to_owned() };
        return false;
    }

    let kind = draft.blueprint.rollouts[&id].deployable.kind;
    let mut deployables = others(draft, device, kind);
    deployables.insert(Deployable { kind, digest });
    let ordered = draft.blueprint.order(device).and_then(|order| order.of(kind));
    let before = report.and_then(|report| report.running.get(&kind).copied()).or(ordered);
    let figures = report.map(|report| Arc::new(report.figures.clone()));

    let member = draft.member_mut(id, device);
    if member.asked.is_none() {
        member.before = before.filter(|before| *before != digest);
        member.figures_before = figures;
    }
    turn(ground, member, aim, Asked { generation, digest }, ground.is_there(device));
    let (attempt, wave) = (member.attempts, member.wave);
    let target = Target { order: Order { generation, deployables }, since: ground.now };
    Arc::make_mut(&mut draft.blueprint.targets).insert(device.clone(), target);
    let second = second(ground);
    let recent = &mut draft.blueprint.recent;
    // Entries of the future are left from a clock that went back.
    recent.retain(|entry, _| {
        (second.saturating_sub(WINDOW_SECONDS)..=second.saturating_add(WINDOW_SECONDS)).contains(entry)
    });
    *recent.entry(second).or_default() += 1;
    supersede_older(draft, id, device, kind);

    let why = match aim {
        Aim::Forward => format!("wave {}", wave + 1),
        Aim::Back => "it ran that before".to_owned(),
    };
    let again = if attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
    let why = format!("{} {}, {why}{again}", kind_name(kind), digest.short());
    draft.decide(id, Step::Order { device: device.clone(), generation, aim }, why);
    true
}

/// What a device is to run of other kinds: as it was ordered, but for what it could not run.
fn others(draft: &Draft, device: &DeviceId, kind: Kind) -> BTreeSet<Deployable> {
    let Some(order) = draft.blueprint.order(device) else { return BTreeSet::new() };
    let others = order.deployables.iter().filter(|deployable| deployable.kind != kind);
    let kept = others.filter_map(|deployable| {
        let failed =
            draft.blueprint.rollouts.values().filter(|state| state.deployable == *deployable).find_map(|state| {
                let member = state.members.get(device)?;
                let failed = matches!(member.standing, Standing::GaveUp { .. } | Standing::Retry { .. });
                (failed && member.aim == Aim::Forward).then_some(member)
            });
        match failed {
            None => Some(*deployable),
            Some(member) => member.before.map(|digest| Deployable { digest, ..*deployable }),
        }
    });
    kept.collect()
}

/// Older rollouts of the kind have nothing more to do with a device.
pub(super) fn supersede_older(draft: &mut Draft, id: RolloutId, device: &DeviceId, kind: Kind) {
    let older = draft.blueprint.rollouts.range(..id).filter(|(_, state)| {
        let member = state.members.get(device);
        state.deployable.kind == kind && member.is_some_and(|member| member.standing.counts())
    });
    let older: Vec<RolloutId> = older.map(|(older, _)| *older).collect();
    for older in older {
        draft.member_mut(older, device).standing = Standing::Superseded { by: id };
    }
}
