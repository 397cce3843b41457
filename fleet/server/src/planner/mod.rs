//! What every device is to run next.
//!
//! [`plan`] is a function: the same policy, inventory, observations, blueprint and time give the same next blueprint, and
//! planned again with that and nothing new, there is nothing to change. It may be called after every report or once a
//! minute; only the moments at which waves, time-outs and retries are noticed differ.
//!
//! A *rollout* brings one deployable to all devices of a filter, in *waves*. Its devices are drawn by a hash, those that are
//! there first, when it begins; one that matches later joins the last wave. *Gates* are watched while it runs; one that fails
//! halts it, and each of its devices is ordered back to what ran before. A newer rollout of the same kind takes devices that
//! both match: the older one gives them no order any more, and watches and takes back what it did until the newer one has
//! ordered them. What a newer rollout took it does not give back when it ends.
//!
//! A device is ordered one thing at a time, and a rollback at once. Times are by the service's clock; where that goes back,
//! clocks of waves and time-outs stand still.
//!
//! ```
//! use std::num::NonZeroU32;
//! use std::time::Duration;
//!
//! use revoada_core::{Digest, Timestamp};
//! use revoada_fleet::planner::{
//!     Blueprint, Intent, Limits, Observations, Percent, Policy, Retry, Rollout, RolloutId, Size, Wave, plan,
//! };
//! use revoada_fleet::{Device, Filter, Inventory};
//! use revoada_proto::{Deployable, Generation, Kind};
//!
//! let minutes = Duration::from_mins;
//! let limits = Limits {
//!     in_flight_max: NonZeroU32::new(100).unwrap(),
//!     orders_per_minute_max: NonZeroU32::new(1000).unwrap(),
//!     away_after: minutes(10),
//!     answer_timeout: minutes(60),
//! };
//! let all = Wave { size: Size::Share(Percent::ALL), done: Percent::ALL, timeout: minutes(600), soak: minutes(30) };
//! let mut policy = Policy::new(limits, 7);
//! policy.add(RolloutId(1), Rollout {
//!     deployable: Deployable { kind: Kind::Model, digest: Digest::new([1; 32]) },
//!     filter: Filter::ALL,
//!     waves: vec![Wave { size: Size::Devices(1), ..all.clone() }, all],
//!     gates: Vec::new(),
//!     retry: Retry { attempts_max: NonZeroU32::MIN, delay: minutes(1), delay_max: minutes(1) },
//!     intent: Intent::Run,
//! })?;
//! let device = Device { seen: Some(Timestamp::ZERO), ..Device::default() };
//! let inventory = Inventory { devices: [("gate-7".parse()?, device)].into() };
//!
//! let planned = plan(&policy, &inventory, &Observations::default(), &Blueprint::default(), Timestamp::ZERO);
//! let next = planned.blueprint.unwrap();
//! assert_eq!((next.number, next.parent), (1, Some(0)));
//! assert_eq!(next.order(&"gate-7".parse()?).unwrap().generation, Generation(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod advance;
mod blueprint;
mod gate;
mod join;
mod observations;
mod orders;
mod policy;
mod settle;
mod spread;
mod text;
mod walk;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use revoada_core::Timestamp;
use revoada_proto::{DeviceId, Generation};

use crate::inventory::{Device, Inventory};

pub use blueprint::{Aim, Asked, Blueprint, Member, Phase, RolloutState, Standing, Target};
pub use gate::{Gate, GateVerdict, GateView, Measure};
pub(crate) use join::kind_name;
pub use observations::Observations;
pub use policy::{
    GATES_MAX, Intent, Limits, Percent, PercentError, Policy, PolicyError, ROLLOUTS_MAX, Retry, Rollout, RolloutId,
    Size, WAVES_MAX, Wave,
};

/// What [`plan`] says. Printed, it is what a person reviews.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// `None` where nothing is to change.
    pub blueprint: Option<Blueprint>,
    /// Why it differs from its parent, in the order in which it was decided.
    pub decisions: Vec<Decision>,
    /// How far each rollout that has begun is, and what it waits for.
    pub status: BTreeMap<RolloutId, String>,
    pub deferred: Deferred,
}

/// Orders that are due and wait for room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deferred {
    pub by_in_flight: u64,
    pub by_orders_per_minute: u64,
}

/// One thing that was decided, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub rollout: RolloutId,
    pub step: Step,
    /// For people: what it is about, with figures and devices.
    pub why: String,
}

/// What was decided of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Start,
    /// It has new devices.
    Join,
    Order {
        device: DeviceId,
        generation: Generation,
        aim: Aim,
    },
    /// Devices have reached their aim.
    Reach,
    /// A device has failed, and is tried again or gave up.
    Fail {
        device: DeviceId,
    },
    /// Some devices belong to newer rollouts.
    Yield,
    /// A wave is complete and soaks.
    Complete,
    /// The next wave begins.
    Widen,
    Pause,
    Resume,
    Finish,
    Halt,
    Abort,
    Supersede,
    /// It is not wanted any more, and nothing of it is kept.
    Forget,
}

/// The next blueprint, if there is to be another, and why. What it costs grows with the devices of the rollouts that are not
/// superseded; a rollout in which nothing changes is not copied.
pub fn plan(
    policy: &Policy,
    inventory: &Inventory,
    observations: &Observations,
    current: &Blueprint,
    now: Timestamp,
) -> Planned {
    let ground = Ground { policy, inventory, observations, now };
    let mut draft =
        Draft { blueprint: current.clone(), decisions: Vec::new(), deferred: Deferred::default(), has_changed: false };
    join::forget(&ground, &mut draft);
    let mut is_changed = draft.has_changed;
    // Each standing and each phase moves on only, while the time stands still: there is a last pass.
    loop {
        draft.has_changed = false;
        join::join(&ground, &mut draft);
        settle::settle(&ground, &mut draft);
        advance::advance(&ground, &mut draft);
        orders::order(&ground, &mut draft);
        if !draft.has_changed {
            break;
        }
        is_changed = true;
    }
    let status = draft.blueprint.rollouts.iter().filter_map(|(id, state)| {
        ground.policy.rollouts().get(id).map(|rollout| (*id, advance::status(&ground, rollout, state)))
    });
    Planned {
        status: status.collect(),
        deferred: draft.deferred,
        decisions: draft.decisions,
        blueprint: is_changed.then(|| Blueprint {
            number: current.number.saturating_add(1),
            parent: Some(current.number),
            ..draft.blueprint
        }),
    }
}

/// What each gate of a rollout sees of its devices, in the order of its gates; nothing where they are not watched, since it
/// has not begun or no wave is in progress.
pub fn view_gates(
    policy: &Policy,
    inventory: &Inventory,
    observations: &Observations,
    current: &Blueprint,
    id: RolloutId,
    now: Timestamp,
) -> Vec<GateView> {
    let ground = Ground { policy, inventory, observations, now };
    match (policy.rollouts().get(&id), current.rollouts.get(&id)) {
        (Some(rollout), Some(state)) => advance::gates(&ground, rollout, state),
        _ => Vec::new(),
    }
}

/// What is given.
struct Ground<'a> {
    policy: &'a Policy,
    inventory: &'a Inventory,
    observations: &'a Observations,
    now: Timestamp,
}

/// What is being made of it.
struct Draft {
    blueprint: Blueprint,
    decisions: Vec<Decision>,
    deferred: Deferred,
    /// Since the pass began.
    has_changed: bool,
}

impl Ground<'_> {
    /// Whether a device is there, so that it can be asked something.
    fn is_there(&self, device: &DeviceId) -> bool {
        self.has_been_seen(self.inventory.devices.get(device))
    }

    fn has_been_seen(&self, device: Option<&Device>) -> bool {
        let seen = device.and_then(|device| device.seen);
        seen.is_some_and(|seen| self.now.since(seen) <= self.policy.limits.away_after)
    }
}

impl Draft {
    /// For a change: what is shared with the parent is copied.
    fn state_mut(&mut self, id: RolloutId) -> &mut RolloutState {
        self.has_changed = true;
        Arc::make_mut(self.blueprint.rollouts.get_mut(&id).expect("only rollouts that have begun are changed"))
    }

    fn member_mut(&mut self, id: RolloutId, device: &DeviceId) -> &mut Member {
        self.state_mut(id).members.get_mut(device).expect("only members of a rollout are changed")
    }

    fn decide(&mut self, rollout: RolloutId, step: Step, why: impl Into<String>) {
        self.decisions.push(Decision { rollout, step, why: why.into() });
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rollout {} ", self.rollout)?;
        match &self.step {
            Step::Start => f.write_str("starts")?,
            Step::Join => f.write_str("gains devices")?,
            Step::Order { device, generation, aim } => write!(f, "orders {device} {aim}, generation {generation}")?,
            Step::Reach => f.write_str("is done on devices")?,
            Step::Fail { device } => write!(f, "fails on {device}")?,
            Step::Yield => f.write_str("yields devices")?,
            Step::Complete => f.write_str("completes a wave")?,
            Step::Widen => f.write_str("begins a wave")?,
            Step::Pause => f.write_str("pauses")?,
            Step::Resume => f.write_str("goes on")?,
            Step::Finish => f.write_str("finishes")?,
            Step::Halt => f.write_str("halts")?,
            Step::Abort => f.write_str("is aborted")?,
            Step::Supersede => f.write_str("is superseded")?,
            Step::Forget => f.write_str("is forgotten")?,
        }
        write!(f, ": {}", self.why)
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.blueprint {
            Some(Blueprint { number, parent: Some(parent), .. }) => writeln!(f, "blueprint {number}, after {parent}")?,
            Some(Blueprint { number, parent: None, .. }) => writeln!(f, "blueprint {number}")?,
            None => writeln!(f, "no change")?,
        }
        for decision in &self.decisions {
            writeln!(f, "  {decision}")?;
        }
        for (id, status) in &self.status {
            writeln!(f, "  = rollout {id}: {status}")?;
        }
        let Deferred { by_in_flight, by_orders_per_minute } = self.deferred;
        if self.deferred != Deferred::default() {
            writeln!(
                f,
                "  = deferred: {by_in_flight} by devices in flight, {by_orders_per_minute} by orders a minute"
            )?;
        }
        Ok(())
    }
}
