//! How far the fetching, verifying and trying of one order has come. Lost at a restart, and then done again.

use std::collections::BTreeMap;
use std::time::Duration;

use revoada_core::Timestamp;
use revoada_proto::Kind;

use super::policy::{Policy, Retry};
use super::words::{Fault, Step, StepId};
use crate::state::{Active, Contents, Failure, Placed, Slot, State};

#[derive(Debug, Default)]
pub(super) struct Deployment {
    /// The last step that each kind has passed.
    pub(super) passed: BTreeMap<Kind, Step>,
    pub(super) current: Option<Current>,
    pub(super) retry: Retry,
    /// What the last step failed of, until one is done.
    pub(super) fault: Option<Fault>,
    not_found: u32,
    damaged: u32,
    timeouts: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub(super) id: StepId,
    pub(super) step: Step,
    pub(super) kind: Kind,
    pub(super) placed: Placed,
    pub(super) deadline: Timestamp,
}

/// What is to be done next so that what is desired becomes active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is.
    Nothing,
    Step(Step, Kind, Placed),
    /// Flip.
    Ready,
}

impl Deployment {
    pub(super) fn next(&self, state: &State, active: &Active, contents: &Contents) -> Next {
        let mut next = Next::Nothing;
        for (kind, placed) in wanted(state, active, contents) {
            let is_there = contents.get(&(kind, placed.slot)) == Some(&placed.digest);
            let step = match self.passed.get(&kind) {
                None if is_there => Step::Verify,
                None => Step::CheckRoom,
                Some(Step::CheckRoom) => Step::Fetch,
                Some(Step::Fetch) => Step::Verify,
                Some(Step::Verify) => Step::Preflight,
                Some(Step::Preflight) => {
                    next = Next::Ready;
                    continue;
                }
            };
            return Next::Step(step, kind, placed);
        }
        next
    }

    /// Notes that a step is done.
    pub(super) fn passed(&mut self, current: Current) {
        self.passed.insert(current.kind, current.step);
        self.retry.succeeded();
        self.fault = None;
    }

    /// Notes why a step of a kind failed; the order is given up where that was once too often.
    pub(super) fn failed(&mut self, kind: Kind, fault: Fault, policy: &Policy) -> Result<(), Failure> {
        self.fault = Some(fault);
        match fault {
            Fault::Passing | Fault::NoRoom => Ok(()),
            Fault::Refused => Err(Failure::Refused),
            Fault::NotFound => count(&mut self.not_found, policy.not_found_max, Failure::NotFound),
            Fault::Damaged => {
                self.passed.remove(&kind);
                count(&mut self.damaged, policy.damaged_max, Failure::Damaged)
            }
        }
    }

    /// Notes that a step ran out of time. Fetching may do so for ever, as long as there is no network.
    pub(super) fn timed_out(&mut self, step: Step, policy: &Policy) -> Result<(), Failure> {
        self.fault = Some(Fault::Passing);
        match step {
            Step::CheckRoom | Step::Fetch => Ok(()),
            Step::Verify | Step::Preflight => count(&mut self.timeouts, policy.timeouts_max, Failure::TimedOut),
        }
    }

    /// Begins to count anew and goes on, for an order that wants the same.
    pub(super) fn renewed(&mut self) {
        (self.not_found, self.damaged, self.timeouts) = (0, 0, 0);
        self.retry.hurry();
    }
}

fn count(failures: &mut u32, max: u32, failure: Failure) -> Result<(), Failure> {
    *failures += 1;
    if *failures >= max { Err(failure) } else { Ok(()) }
}

/// What is desired and not active, and the slot that it belongs into.
pub(super) fn wanted(state: &State, active: &Active, contents: &Contents) -> Vec<(Kind, Placed)> {
    let missing = state.desired.iter().filter(|(kind, digest)| active.get(kind).map(|p| &p.digest) != Some(digest));
    let place = |kind: Kind, digest| match active.get(&kind) {
        Some(placed) => placed.slot.other(),
        None if contents.get(&(kind, Slot::B)) == Some(digest) => Slot::B,
        None => Slot::A,
    };
    missing.map(|(kind, digest)| (*kind, Placed { slot: place(*kind, digest), digest: *digest })).collect()
}

/// How long a step may take, or be silent.
pub(super) fn time_max(step: Step, policy: &Policy) -> Duration {
    match step {
        Step::CheckRoom | Step::Fetch => policy.fetch_silence_max,
        Step::Verify => policy.verify_time_max,
        Step::Preflight => policy.preflight_time_max,
    }
}
