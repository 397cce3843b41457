//! What the reconciler knows, in the words of the fleet.

use std::path::Path;

use revoada_proto::{Blame, Figures, Kind, Level, Progress, Report, SlotContent};

use super::step::Measured;
use super::vitals::{self, Vitals};
use crate::rails;
use crate::state::kind_name;
use crate::{Agent, Failure, Fault, Phase, Refusal, Step};

/// A report. `trouble` is what went wrong last, for people.
pub(super) fn report(sequence: u64, from: &crate::Report, figures: Figures, trouble: Option<&str>) -> Report {
    let progress = progress(from.phase, trouble);
    Report { sequence, generation: from.known, progress, running: from.active.clone(), figures }
}

/// What was measured so far, and what the machine says now. `measured` is of the model that is active.
pub(super) fn figures(vitals: &Vitals, measured: Option<&Measured>) -> Figures {
    Figures {
        over: vitals.over,
        restarts: vitals.restarts,
        fps: vitals.fps,
        latency_ms: vitals.latency_ms,
        agreement: measured.and_then(|measured| measured.agreement),
        accuracy: measured.and_then(|measured| measured.accuracy),
        temperature_c: vitals::temperature_c(Path::new("/")),
        power_w: rails::watts(Path::new("/sys")),
    }
}

pub(super) fn slots(agent: &Agent) -> Vec<SlotContent> {
    let slots = agent.contents().iter().map(|((kind, slot), digest)| SlotContent {
        kind: *kind,
        slot: slot.name().to_owned(),
        digest: *digest,
        is_active: agent.active().get(kind).is_some_and(|placed| placed.slot == *slot && placed.digest == *digest),
    });
    slots.collect()
}

pub(super) fn refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Stale => "its generation is lower than the one that this device knows",
        Refusal::Expired => "it has expired",
    }
}

fn progress(phase: Phase, trouble: Option<&str>) -> Progress {
    let because = |text: String| match trouble {
        Some(trouble) => format!("{text}: {trouble}"),
        None => text,
    };
    let working = |what| Progress::Working { what };
    match phase {
        Phase::Settled => Progress::Done,
        Phase::Working(step, kind) => working(doing(step, kind)),
        Phase::Waiting(fault, kind) => {
            working(because(format!("waits to go on with the {}{}", kind_name(kind), after(fault))))
        }
        Phase::Trial => working("watches whether what it flipped to is healthy".to_owned()),
        Phase::Unsaved => working("waits until the disk takes what is to be remembered".to_owned()),
        Phase::Failed(failure) => Progress::Failed { why: because(why(failure).to_owned()), blame: blame(failure) },
    }
}

pub(super) fn doing(step: Step, kind: Kind) -> String {
    let kind = kind_name(kind);
    match step {
        Step::CheckRoom => format!("looks for room for the {kind}"),
        Step::Fetch => format!("fetches the {kind}"),
        Step::Verify => format!("verifies the {kind}"),
        Step::Preflight => format!("tries the {kind}"),
    }
}

fn after(fault: Fault) -> &'static str {
    match fault {
        Fault::NotFound => ", which the service did not have",
        Fault::Passing => "",
        Fault::NoRoom => ", for which there is no room",
        Fault::Damaged => ", which came damaged",
        Fault::Refused => ", which was refused",
    }
}

pub(super) fn why(failure: Failure) -> &'static str {
    match failure {
        Failure::NotFound => "the service does not have it",
        Failure::Damaged => "what came is not what its digest says",
        Failure::Refused => "it was refused",
        Failure::TimedOut => "its trial did not end",
        Failure::CrashedAtLoad => "rolled back: it crashed before its first frame",
        Failure::CrashLoop => "rolled back: it was started as often as a trial allows",
        Failure::NonFinite => "rolled back: its results are no numbers",
        Failure::Unhealthy => "rolled back: it was not healthy in time",
        Failure::SlotDamaged => "rolled back: its slot was damaged",
    }
}

/// Whether another try of the same may do.
fn blame(failure: Failure) -> Blame {
    match failure {
        Failure::NotFound | Failure::Damaged | Failure::SlotDamaged => Blame::Device,
        Failure::Refused
        | Failure::TimedOut
        | Failure::CrashedAtLoad
        | Failure::CrashLoop
        | Failure::NonFinite
        | Failure::Unhealthy => Blame::Deployable,
    }
}

/// How much a failure matters: somebody has to look at what had been active.
pub(super) fn level(failure: Failure) -> Level {
    if failure.is_rollback() { Level::Error } else { Level::Warn }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_fail_again_is_blamed_on_the_deployable() {
        let failed = |failure| progress(Phase::Failed(failure), Some("exit status: 3"));
        assert_eq!(
            failed(Failure::CrashedAtLoad),
            Progress::Failed {
                why: "rolled back: it crashed before its first frame: exit status: 3".into(),
                blame: Blame::Deployable
            }
        );
        assert!(matches!(failed(Failure::Damaged), Progress::Failed { blame: Blame::Device, .. }));
        assert_eq!(progress(Phase::Settled, Some("old")), Progress::Done);
        assert_eq!(
            progress(Phase::Waiting(Fault::NoRoom, Kind::Model), Some("10 bytes")),
            Progress::Working { what: "waits to go on with the model, for which there is no room: 10 bytes".into() }
        );
    }
}
