//! The pipeline as the agent knows it.

use revoada_core::Timestamp;

use super::policy::{Policy, Retry};
use super::words::{Health, RunId};
use crate::state::Active;

#[derive(Debug, Default)]
pub(super) struct Supervision {
    /// What runs.
    pub(super) run: Option<(RunId, Active)>,
    /// Set while the next start of a trial is noted in its state.
    pub(super) counted: bool,
    /// When the trial's pipeline was first started, since the agent began.
    pub(super) trial_began: Option<Timestamp>,
    /// Set once a trial's pipeline was healthy for long enough.
    pub(super) proven: bool,
    pub(super) restart: Retry,
    healthy_since: Option<Timestamp>,
    heard_at: Option<Timestamp>,
}

impl Supervision {
    pub(super) fn is(&self, run: RunId) -> bool {
        self.run.as_ref().is_some_and(|(id, _)| *id == run)
    }

    /// Whether something else is to be run now.
    pub(super) fn wants_start(&self, active: &Active, now: Timestamp) -> bool {
        let runs = self.run.as_ref().is_some_and(|(_, runs)| runs == active);
        !active.is_empty() && !runs && self.restart.is_due(now)
    }

    pub(super) fn started(&mut self, id: RunId, active: Active, on_trial: bool, now: Timestamp) {
        self.run = Some((id, active));
        self.counted = false;
        self.trial_began = on_trial.then(|| self.trial_began.unwrap_or(now));
        self.unhealthy();
    }

    /// Something else is active: it starts at once, and with a clean record.
    pub(super) fn flipped(&mut self, counted: bool) {
        self.counted = counted;
        self.trial_began = None;
        self.restart.succeeded();
        self.unhealthy();
    }

    pub(super) fn ended(&mut self) {
        self.run = None;
        self.unhealthy();
    }

    /// Whether the pipeline has by now been healthy for long enough.
    pub(super) fn heard(&mut self, health: Health, policy: &Policy, now: Timestamp) -> bool {
        let is_healthy = health.frames > 0 && policy.fps_min.is_none_or(|fps_min| health.frames_per_second >= fps_min);
        if !is_healthy {
            self.unhealthy();
            return false;
        }
        let heard_at = self.heard_at.replace(now);
        if heard_at.is_some_and(|heard_at| now.since(heard_at) > policy.health_silence_max) {
            self.healthy_since = None;
        }
        now.since(*self.healthy_since.get_or_insert(now)) >= policy.healthy_for
    }

    fn unhealthy(&mut self) {
        (self.healthy_since, self.heard_at, self.proven) = (None, None, false);
    }
}
