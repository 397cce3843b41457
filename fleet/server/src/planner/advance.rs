//! From wave to wave, and to the end.

use std::time::Duration;

use humantime::format_duration;
use revoada_core::Timestamp;

use super::blueprint::{Aim, Member, Phase, RolloutState, Standing};
use super::gate::{GateVerdict, GateView, Judgement, judge};
use super::join::ids;
use super::policy::{Intent, Rollout, RolloutId, Wave};
use super::text::devices;
use super::{Draft, Ground, Step};

/// What changes of a rollout as a whole.
struct Change {
    phase: Phase,
    paused: Option<Timestamp>,
    step: Step,
    why: String,
}

pub(super) fn advance(ground: &Ground<'_>, draft: &mut Draft) {
    for id in ids(draft) {
        let rollout = &ground.policy.rollouts()[&id];
        while let Some(change) = next(ground, rollout, &draft.blueprint.rollouts[&id]) {
            apply(draft, id, change);
        }
    }
}

fn apply(draft: &mut Draft, id: RolloutId, change: Change) {
    let state = draft.state_mut(id);
    state.phase = change.phase;
    state.paused = change.paused;
    match &state.phase {
        Phase::Halted { .. } | Phase::Aborted { .. } => {
            let ended = if change.step == Step::Halt { "halted" } else { "aborted" };
            for member in state.members.values_mut().filter(|member| member.standing == Standing::Waiting) {
                member.standing = Standing::Left { why: format!("the rollout was {ended} before its turn") };
            }
        }
        Phase::Superseded { .. } => state.members.clear(),
        Phase::Running { .. } | Phase::Finished { .. } => {}
    }
    draft.decide(id, change.step, change.why);
}

fn next(ground: &Ground<'_>, rollout: &Rollout, state: &RolloutState) -> Option<Change> {
    let now = ground.now;
    let change = |phase, step, why| Some(Change { phase, paused: state.paused, step, why });
    if let Intent::Abort { rolls_back } = rollout.intent {
        let takes_effect = match state.phase {
            Phase::Running { .. } | Phase::Finished { .. } => true,
            Phase::Aborted { rolls_back: was, .. } => rolls_back && !was,
            Phase::Halted { .. } | Phase::Superseded { .. } => false,
        };
        let then = if rolls_back { "its devices are ordered back" } else { "its devices keep what they have" };
        let phase = Phase::Aborted { since: now, rolls_back };
        return if takes_effect { change(phase, Step::Abort, format!("its operator ended it; {then}")) } else { None };
    }
    if !state.phase.is_live() {
        return None;
    }
    let is_superseded = |standing: &Standing| matches!(standing, Standing::Superseded { .. });
    if !state.members.is_empty() && state.members.values().all(|member| is_superseded(&member.standing)) {
        let why = format!("newer rollouts have each of its {}", devices(state.members.len()));
        return change(Phase::Superseded { since: now }, Step::Supersede, why);
    }

    let &Phase::Running { wave, since, complete } = &state.phase else { return None };
    let is_timed_out = is_timed_out(ground, rollout, state);
    let judgements: Vec<Judgement<'_>> =
        rollout.gates.iter().map(|gate| judge(gate, state, wave, is_timed_out, ground)).collect();
    if let Some(failed) = judgements.iter().find(|judgement| judgement.verdict() == GateVerdict::Fails) {
        let why = format!("wave {} of {}: {}", wave + 1, rollout.waves.len(), failed.why());
        return change(Phase::Halted { since: now, why: why.clone() }, Step::Halt, why);
    }

    match (rollout.intent, state.paused) {
        (Intent::Pause, None) => {
            let (step, why) = (Step::Pause, "its operator wants it to wait".to_owned());
            return Some(Change { phase: state.phase.clone(), paused: Some(now), step, why });
        }
        (Intent::Pause, Some(_)) => return None,
        (Intent::Run, Some(paused)) => {
            let pause = now.since(paused);
            let (since, complete) = (since + pause, complete.map(|complete| complete + pause));
            let why = format!("its operator wants it after {}", format_duration(seconds(pause)));
            let phase = Phase::Running { wave, since, complete };
            return Some(Change { phase, paused: None, step: Step::Resume, why });
        }
        (Intent::Run | Intent::Abort { .. }, _) => {}
    }

    let spec = &rollout.waves[wave];
    let count = Count::of(state, Some(wave));
    match complete {
        None => {
            let why = completion(spec, &count, is_timed_out, Count::up_to(state, wave).reached)?;
            let phase = Phase::Running { wave, since, complete: Some(now) };
            let soak = format_duration(spec.soak);
            change(
                phase,
                Step::Complete,
                format!("wave {} of {}: {why}; soaks for {soak}", wave + 1, rollout.waves.len()),
            )
        }
        // Where a wave has no devices there is nothing to watch.
        Some(complete) if now.since(complete) >= spec.soak || count.all() == 0 => {
            let mut why = format!("wave {} of {} has soaked", wave + 1, rollout.waves.len());
            for judgement in &judgements {
                match judgement.verdict() {
                    GateVerdict::Holds => why.push_str(&format!("; {}", judgement.why())),
                    GateVerdict::Fails | GateVerdict::Open => return None,
                }
            }
            match wave + 1 < rollout.waves.len() {
                true => change(Phase::Running { wave: wave + 1, since: now, complete: None }, Step::Widen, why),
                false => change(Phase::Finished { since: now }, Step::Finish, why),
            }
        }
        Some(_) => None,
    }
}

/// Whether the present wave has had its time. It stands still while the rollout is paused.
fn is_timed_out(ground: &Ground<'_>, rollout: &Rollout, state: &RolloutState) -> bool {
    let Phase::Running { wave, since, .. } = state.phase else { return false };
    state.paused.unwrap_or(ground.now).since(since) >= rollout.waves[wave].timeout
}

/// Why a wave is complete, where it is.
fn completion(wave: &Wave, count: &Count, is_timed_out: bool, reached_so_far: usize) -> Option<String> {
    let all = count.all();
    if reached_so_far == 0 {
        return None;
    }
    let text = format!("{} of {} done", count.reached, devices(all));
    if count.reached >= wave.done.of(all) {
        Some(text)
    } else if count.reached + count.gave_up == all {
        Some(format!("{text}, the others gave up"))
    } else if is_timed_out {
        Some(format!("{text} in its {}; the others follow when they can", format_duration(wave.timeout)))
    } else {
        None
    }
}

/// Devices by how far they are.
#[derive(Default)]
struct Count {
    waiting: usize,
    ordered: usize,
    away: usize,
    reached: usize,
    retry: usize,
    gave_up: usize,
    superseded: usize,
    left: usize,
}

impl Count {
    /// Of one wave, or of all.
    fn of(state: &RolloutState, wave: Option<usize>) -> Self {
        Self::among(state, |member| wave.is_none_or(|wave| wave == member))
    }

    fn up_to(state: &RolloutState, wave: usize) -> Self {
        Self::among(state, |member| member <= wave)
    }

    fn among(state: &RolloutState, is_counted: impl Fn(usize) -> bool) -> Self {
        let mut count = Self::default();
        for member in state.members.values().filter(|member| is_counted(member.wave)) {
            *match member.standing {
                Standing::Waiting => &mut count.waiting,
                Standing::Ordered { .. } => &mut count.ordered,
                Standing::Away => &mut count.away,
                Standing::Reached { .. } => &mut count.reached,
                Standing::Retry { .. } => &mut count.retry,
                Standing::GaveUp { .. } => &mut count.gave_up,
                Standing::Superseded { .. } => &mut count.superseded,
                Standing::Left { .. } => &mut count.left,
            } += 1;
        }
        count
    }

    /// Those that the rollout still has to do with.
    fn all(&self) -> usize {
        self.waiting + self.ordered + self.away + self.reached + self.retry + self.gave_up
    }
}

/// How far a rollout is, and what it waits for.
pub(super) fn status(ground: &Ground<'_>, rollout: &Rollout, state: &RolloutState) -> String {
    let mut text = match &state.phase {
        Phase::Running { wave, .. } => format!("wave {} of {}", wave + 1, rollout.waves.len()),
        Phase::Finished { .. } => "finished".to_owned(),
        Phase::Halted { .. } => "halted".to_owned(),
        Phase::Aborted { .. } => "aborted".to_owned(),
        Phase::Superseded { .. } => return "superseded".to_owned(),
    };
    if state.paused.is_some() {
        text.push_str(", paused");
    }
    let wave = match state.phase {
        Phase::Running { wave, .. } => Some(wave),
        _ => None,
    };
    let count = Count::of(state, wave);
    if state.phase.rolls_back() {
        let goes_back = state.members.values().filter(|member| member.asked.is_some() && member.standing.counts());
        let is_back = |member: &&Member| member.aim == Aim::Back && member.standing.is_reached();
        let back = goes_back.clone().filter(is_back).count();
        text.push_str(&format!(": {back} of {} back", devices(goes_back.count())));
    } else {
        text.push_str(&format!(": {} of {} done", count.reached, devices(count.all())));
    }
    for (number, what) in [
        (count.waiting, "waiting"),
        (count.ordered, "in flight"),
        (count.away, "away with an order"),
        (count.retry, "to be tried again"),
        (count.gave_up, "gave up"),
        (count.superseded, "of newer rollouts"),
        (count.left, "left as they are"),
    ] {
        if number > 0 {
            text.push_str(&format!(", {number} {what}"));
        }
    }
    if let Phase::Running { wave, complete, .. } = state.phase {
        let is_timed_out = is_timed_out(ground, rollout, state);
        if let Some(complete) = complete {
            let left = rollout.waves[wave].soak.saturating_sub(state.paused.unwrap_or(ground.now).since(complete));
            if !left.is_zero() {
                text.push_str(&format!("; soaks for {}", format_duration(seconds(left))));
            }
        } else if is_timed_out {
            text.push_str("; its time is up, and nothing is done yet");
        }
        for gate in &rollout.gates {
            let judgement = judge(gate, state, wave, is_timed_out, ground);
            if judgement.verdict() == GateVerdict::Open {
                text.push_str(&format!("; {}", judgement.why()));
            }
        }
    }
    text
}

/// What each gate sees, in the rollout's order; nothing where gates are not watched.
pub(super) fn gates(ground: &Ground<'_>, rollout: &Rollout, state: &RolloutState) -> Vec<GateView> {
    let Phase::Running { wave, .. } = state.phase else { return Vec::new() };
    let is_timed_out = is_timed_out(ground, rollout, state);
    rollout.gates.iter().map(|gate| judge(gate, state, wave, is_timed_out, ground).view()).collect()
}

fn seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
