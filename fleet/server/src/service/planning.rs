//! From policy and reports to orders.

use std::time::Duration;

use revoada_core::Timestamp;
use revoada_proto::{Channel, DeviceId, Dispatch, Topic};
use tracing::{error, info};

use super::{Change, Fleet, Result, now, wall};
use crate::planner::{self, Blueprint, Planned, RolloutId, Step};

/// While nothing happens, so often the clock alone may change the plan: soaks, time-outs, retries.
const PLAN_EVERY: Duration = Duration::from_secs(1);

/// What one planning came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing,
    /// There is a new blueprint, with so many orders.
    Planned {
        orders: usize,
    },
    /// Somebody else stored another blueprint meanwhile; it is planned again from that.
    Lost,
}

/// How far a rollout is, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct RolloutProgress {
    pub devices: usize,
    pub waiting: usize,
    pub in_flight: usize,
    pub reached: usize,
    pub gave_up: usize,
    pub away: usize,
    /// Ordered back, and there.
    pub back: usize,
    /// Of newer rollouts, or left as they are.
    pub other: usize,
}

impl Fleet {
    /// Makes the next blueprint, stores it, and sends its orders. What a killed service had stored and not sent is sent when
    /// the device reports that it is behind.
    pub fn plan(&self) -> Result<Outcome> {
        let now = now();
        let (current, planned) = {
            let live = self.live();
            let planned = planner::plan(&live.policy.policy, &live.inventory, &live.observations, &live.blueprint, now);
            (live.blueprint.clone(), planned)
        };
        let Planned { blueprint, decisions, status, deferred } = planned;
        let Some(next) = blueprint else {
            self.note(status, deferred);
            return Ok(Outcome::Nothing);
        };
        if !self.store.swap_blueprint(&current, &next)? {
            self.count(|counts| counts.plans_lost += 1);
            let stored = self.store.blueprint()?;
            self.live_mut().blueprint = stored;
            self.wake();
            return Ok(Outcome::Lost);
        }
        self.live_mut().blueprint = next;
        self.note(status, deferred);
        self.count(|counts| counts.plans += 1);

        let mut ordered = Vec::new();
        let mut rollouts: Vec<RolloutId> = decisions.iter().map(|decision| decision.rollout).collect();
        for decision in decisions {
            match decision.step {
                Step::Order { device, .. } => ordered.push(device),
                Step::Reach | Step::Join | Step::Fail { .. } => {}
                step => info!(rollout = %decision.rollout, ?step, "{}", decision.why),
            }
        }
        ordered.sort();
        ordered.dedup();
        self.send_orders(&ordered, now);
        rollouts.sort();
        rollouts.dedup();
        rollouts.into_iter().for_each(|rollout| self.announce(Change::Rollout { rollout: rollout.0 }));
        Ok(Outcome::Planned { orders: ordered.len() })
    }

    /// Plans whenever something happens, and at least each second, until `is_over` says so.
    pub fn keep_planning(&self, is_over: impl Fn() -> bool) {
        while !is_over() {
            self.wait(PLAN_EVERY);
            if let Err(error) = self.plan() {
                error!(error = %super::chain(&error), "cannot plan");
            }
        }
    }

    fn note(&self, status: std::collections::BTreeMap<RolloutId, String>, deferred: planner::Deferred) {
        let mut live = self.live_mut();
        (live.status, live.deferred) = (status, deferred);
    }

    /// Sends the newest order to each of these devices that is connected and not known to have it.
    pub(super) fn send_orders(&self, devices: &[DeviceId], now: Timestamp) {
        let due: Vec<_> = {
            let live = self.live();
            let connected = devices.iter().filter(|device| live.connected.contains_key(*device));
            let due = connected.filter_map(|device| {
                let order = live.blueprint.order(device)?;
                let known = live.observations.of(device).map(|report| report.generation);
                (known < Some(order.generation)).then(|| (device.clone(), order.clone()))
            });
            due.collect()
        };
        self.count(|counts| counts.orders_sent += due.len() as u64);
        for (device, content) in due {
            let expires_at = Some(wall(now + self.validity.orders));
            let order = Dispatch { device: device.clone(), content, issued_at: wall(now), expires_at };
            self.post.post(&Topic::new(device, Channel::Desired), self.orders.sign_order(&order).encode());
        }
    }
}

impl RolloutProgress {
    pub(super) fn of(blueprint: &Blueprint, id: RolloutId) -> Self {
        use planner::{Aim, Standing};
        let mut progress = Self::default();
        let Some(state) = blueprint.rollouts.get(&id) else { return progress };
        for member in state.members.values() {
            progress.devices += 1;
            let count = match (&member.standing, member.aim) {
                (Standing::Waiting | Standing::Retry { .. }, _) => &mut progress.waiting,
                (Standing::Ordered { .. }, _) => &mut progress.in_flight,
                (Standing::Away, _) => &mut progress.away,
                (Standing::Reached { .. }, Aim::Forward) => &mut progress.reached,
                (Standing::Reached { .. }, Aim::Back) => &mut progress.back,
                (Standing::GaveUp { .. }, _) => &mut progress.gave_up,
                (Standing::Superseded { .. } | Standing::Left { .. }, _) => &mut progress.other,
            };
            *count += 1;
        }
        progress
    }
}
