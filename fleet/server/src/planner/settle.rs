//! What became of orders.

use std::sync::Arc;
use std::time::Duration;

use humantime::format_duration;
use revoada_core::Digest;
use revoada_proto::{Blame, DeviceId, Order, Progress, Report};

use super::blueprint::{Aim, Member, RolloutState, Standing};
use super::join::ids;

use super::orders::supersede_older;
use super::policy::{Rollout, RolloutId};
use super::spread::delay;
use super::text::{named, said};
use super::walk::Walk;
use super::{Draft, Ground, Step};

pub(super) fn settle(ground: &Ground<'_>, draft: &mut Draft) {
    for id in ids(draft) {
        let (rollout, state) = (&ground.policy.rollouts()[&id], Arc::clone(&draft.blueprint.rollouts[&id]));
        let mut reports = Walk::new(&ground.observations.reports);
        let mut inventory = Walk::new(&ground.inventory.devices);
        let mut targets = Walk::new(&draft.blueprint.targets);
        let settled: Vec<(DeviceId, Standing)> = state
            .members
            .iter()
            .filter_map(|(device, member)| {
                if !member.standing.counts() {
                    return None;
                }
                let known = Known {
                    report: reports.at(device),
                    order: targets.at(device).map(|target| &target.order),
                    is_there: ground.has_been_seen(inventory.at(device)),
                };
                let standing = next(ground, (id, rollout), &state, device, member, known)?;
                Some((device.clone(), standing))
            })
            .collect();
        if settled.is_empty() {
            continue;
        }
        let reached: Vec<_> = settled
            .iter()
            .filter(|(_, standing)| standing.is_reached())
            .map(|(device, _)| device.to_string())
            .collect();
        if !reached.is_empty() {
            draft.decide(id, Step::Reach, named(reached.into_iter()));
        }
        let had_it =
            settled.iter().filter(|(device, standing)| standing.is_reached() && state.members[device].asked.is_none());
        let had_it: Vec<DeviceId> = had_it.map(|(device, _)| device.clone()).collect();
        for device in had_it {
            supersede_older(draft, id, &device, state.deployable.kind);
        }
        // Before it is changed, or it would be copied.
        drop(state);
        let state = draft.state_mut(id);
        let mut failed = Vec::new();
        for (device, standing) in settled {
            match &standing {
                Standing::Retry { at, why } => {
                    let after = format_duration(whole_seconds(at.since(ground.now)));
                    failed.push((device.clone(), format!("{why}; again after {after}")));
                }
                Standing::GaveUp { why } => failed.push((device.clone(), format!("{why}; gave up"))),
                _ => {}
            }
            let member = state.members.get_mut(&device).expect("it was read from there");
            member.standing = standing;
        }
        for (device, why) in failed {
            draft.decide(id, Step::Fail { device }, why);
        }
    }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// What is known of a device.
struct Known<'a> {
    report: Option<&'a Report>,
    order: Option<&'a Order>,
    is_there: bool,
}

/// The next standing of a member, where there is one.
fn next(
    ground: &Ground<'_>,
    (id, rollout): (RolloutId, &Rollout),
    state: &RolloutState,
    device: &DeviceId,
    member: &Member,
    Known { report, order, is_there }: Known<'_>,
) -> Option<Standing> {
    let now = ground.now;
    let kind = state.deployable.kind;
    let runs = |report: &Report, digest: Digest| report.running.get(&kind) == Some(&digest);
    let ordered = order.and_then(|order| order.of(kind));
    let Some(asked) = member.asked else {
        // It has it already, and nothing that is under way changes that.
        let digest = state.deployable.digest;
        let has_it = report.is_some_and(|report| runs(report, digest)) && ordered.is_none_or(|other| other == digest);
        return match member.standing {
            Standing::Waiting if has_it && state.phase.is_live() => Some(Standing::Reached { since: now }),
            Standing::Reached { .. } if !has_it && state.phase.is_live() => Some(Standing::Waiting),
            _ => None,
        };
    };

    let failure = |why: String, blame: Blame| {
        let is_final = match member.aim {
            Aim::Forward => blame == Blame::Deployable || !state.phase.is_live(),
            Aim::Back => false,
        };
        if is_final || member.attempts >= rollout.retry.attempts_max.get() {
            return Standing::GaveUp { why };
        }
        let delay = delay(ground.policy.seed, &rollout.retry, id, device, member.attempts);
        Standing::Retry { at: now + delay, why }
    };

    let is_asked = matches!(member.standing, Standing::Ordered { .. } | Standing::Away);
    if let Some(report) = report.filter(|report| report.generation >= asked.generation) {
        let is_of_it = report.generation == asked.generation;
        // What came after it is of another kind, may be under way, and leaves out what had failed.
        let is_named = ordered == Some(asked.digest);
        if runs(report, asked.digest) && is_named && (!is_of_it || report.progress == Progress::Done) {
            return (!member.standing.is_reached()).then_some(Standing::Reached { since: now });
        }
        if let Progress::Failed { why, blame } = &report.progress
            && is_of_it
            && (is_asked || member.standing.is_reached())
        {
            return Some(failure(said(why), *blame));
        }
    }
    // It was set up anew, and has lost what it had: the order stands.
    let has_lost_it = report.is_some_and(|report| report.generation < asked.generation && !runs(report, asked.digest));
    if member.standing.is_reached() && has_lost_it {
        return Some(if is_there { Standing::Ordered { since: now } } else { Standing::Away });
    }
    let limit = ground.policy.limits.answer_timeout;
    match (&member.standing, is_there) {
        (Standing::Ordered { .. }, false) => Some(Standing::Away),
        (Standing::Away, true) => Some(Standing::Ordered { since: now }),
        (Standing::Ordered { since }, true) if now.since(*since) >= limit => {
            Some(failure(format!("no answer within {}", format_duration(limit)), Blame::Device))
        }
        (Standing::Retry { why, .. }, _) if member.aim == Aim::Forward && !state.phase.is_live() => {
            Some(Standing::GaveUp { why: why.clone() })
        }
        _ => None,
    }
}
