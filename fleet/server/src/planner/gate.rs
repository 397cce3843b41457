//! What must hold for a rollout to go on.

use std::num::NonZeroU32;
use std::time::Duration;

use revoada_proto::{Figures, Report};
use serde::{Deserialize, Serialize};

use super::Ground;
use super::blueprint::{Aim, Member, RolloutState, Standing};

use super::policy::Percent;
use super::text::named;
use super::walk::Walk;

/// A measure, and how many devices may miss it. Devices of the waves so far that were ordered the deployable are judged; one
/// that already had it is not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    pub measure: Measure,
    /// Of the samples. More fail the gate, whatever the other gates say.
    pub breaches_max: Percent,
    /// With fewer nothing is judged and no wave passes. Where the waves so far have fewer devices, all of them; once the
    /// wave's time is up, those that have answered and are not away, and at least one.
    pub samples_min: NonZeroU32,
    /// A device's figures count once they cover so long.
    pub over_min: Duration,
}

/// What is asked of each device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// It has not given up.
    Outcome,
    Restarts {
        per_hour_max: f64,
    },
    /// As a share of the frames a second of before, which must be known.
    Fps {
        of_before_min: f64,
    },
    /// As a share of the latency of before, which must be known.
    Latency {
        of_before_max: f64,
    },
    /// With the model before, 0 to 1.
    Agreement {
        min: f64,
    },
    Temperature {
        celsius_max: f64,
    },
}

impl Measure {
    pub fn name(&self) -> &'static str {
        match self {
            Measure::Outcome => "outcome",
            Measure::Restarts { .. } => "restarts",
            Measure::Fps { .. } => "fps",
            Measure::Latency { .. } => "latency",
            Measure::Agreement { .. } => "agreement",
            Measure::Temperature { .. } => "temperature",
        }
    }

    pub(super) fn has_sound_threshold(&self) -> bool {
        match *self {
            Measure::Outcome => true,
            Measure::Restarts { per_hour_max: threshold }
            | Measure::Fps { of_before_min: threshold }
            | Measure::Latency { of_before_max: threshold }
            | Measure::Agreement { min: threshold }
            | Measure::Temperature { celsius_max: threshold } => threshold.is_finite() && threshold >= 0.0,
        }
    }

    fn breach(&self) -> String {
        match self {
            Measure::Outcome => "gave up".to_owned(),
            Measure::Restarts { per_hour_max } => format!("restart more than {per_hour_max} times an hour"),
            Measure::Fps { of_before_min } => format!("have less than {of_before_min} of their frames a second before"),
            Measure::Latency { of_before_max } => format!("take more than {of_before_max} of their latency before"),
            Measure::Agreement { min } => format!("agree with the model before on less than {min}"),
            Measure::Temperature { celsius_max } => format!("are hotter than {celsius_max} °C"),
        }
    }
}

/// What one device says to a gate.
enum Sample {
    Holds,
    /// With the figure: ``12.0 of 25.0``.
    Breach(String),
}

impl Sample {
    fn new(is_breach: bool, figure: impl FnOnce() -> String) -> Self {
        if is_breach { Self::Breach(figure()) } else { Self::Holds }
    }
}

pub(super) enum Verdict {
    Holds(String),
    Fails(String),
    /// Too few samples.
    Open(String),
}

pub(super) fn judge(
    gate: &Gate,
    state: &RolloutState,
    wave: usize,
    is_timed_out: bool,
    ground: &Ground<'_>,
) -> Verdict {
    let (mut reports, mut inventory) = (Walk::new(&ground.observations.reports), Walk::new(&ground.inventory.devices));
    let had_it = |member: &Member| member.asked.is_none() && member.standing.is_reached();
    let (mut changed, mut judged, mut samples, mut breaches) = (0, 0, 0, Vec::new());
    for (device, member) in state.members.iter().filter(|(_, member)| member.wave <= wave) {
        if !member.standing.counts() || had_it(member) {
            continue;
        }
        let has_answered = matches!(member.standing, Standing::Reached { .. } | Standing::GaveUp { .. });
        changed += 1;
        judged += usize::from(!is_timed_out || (has_answered && ground.has_been_seen(inventory.at(device))));
        if let Some(sample) = sample(gate, member, || reports.at(device)) {
            samples += 1;
            if let Sample::Breach(figure) = sample {
                breaches.push((device, figure));
            }
        }
    }
    let floor = changed.min(1);
    let samples_min = usize::try_from(gate.samples_min.get()).unwrap_or(usize::MAX).min(judged.max(floor));
    let name = gate.measure.name();
    if samples < samples_min {
        return Verdict::Open(format!("gate `{name}` has {samples} of {samples_min} samples"));
    }
    let fails = gate.breaches_max.is_exceeded_by(breaches.len(), samples);
    let figures = breaches.iter().map(|(device, figure)| format!("{device} {figure}"));
    let who = if breaches.is_empty() { String::new() } else { format!(": {}", named(figures)) };
    let text = format!(
        "gate `{name}`: {} of {samples} devices {}, at most {} may{who}",
        breaches.len(),
        gate.measure.breach(),
        gate.breaches_max
    );
    if fails { Verdict::Fails(text) } else { Verdict::Holds(text) }
}

/// `None` where nothing can be said yet.
fn sample<'a>(gate: &Gate, member: &Member, report: impl FnOnce() -> Option<&'a Report>) -> Option<Sample> {
    let asked = member.asked.filter(|_| member.aim == Aim::Forward)?;
    if gate.measure == Measure::Outcome {
        return match &member.standing {
            Standing::Reached { .. } => Some(Sample::Holds),
            Standing::GaveUp { why } => Some(Sample::Breach(format!("({why})"))),
            _ => None,
        };
    }
    let is_reached = member.standing.is_reached();
    let report = report().filter(|report| is_reached && report.generation >= asked.generation)?;
    let figures = &report.figures;
    if figures.over < gate.over_min || figures.over.is_zero() {
        return None;
    }
    let before = |figure: fn(&Figures) -> Option<f64>| {
        member.figures_before.as_deref().and_then(figure).filter(|before| before.is_finite() && *before > 0.0)
    };
    let finite = |figure: Option<f64>| figure.filter(|figure| figure.is_finite());
    Some(match gate.measure {
        Measure::Outcome => return None,
        Measure::Restarts { per_hour_max } => {
            let per_hour = f64::from(figures.restarts) / (figures.over.as_secs_f64() / 3600.0);
            Sample::new(per_hour > per_hour_max, || format!("{per_hour:.1}"))
        }
        Measure::Fps { of_before_min } => {
            let (now, before) = (finite(figures.fps)?, before(|before| before.fps)?);
            Sample::new(now < before * of_before_min, || format!("{now:.1} of {before:.1}"))
        }
        Measure::Latency { of_before_max } => {
            let (now, before) = (finite(figures.latency_ms)?, before(|before| before.latency_ms)?);
            Sample::new(now > before * of_before_max, || format!("{now:.1} ms, before {before:.1} ms"))
        }
        Measure::Agreement { min } => {
            let agreement = finite(figures.agreement)?;
            Sample::new(agreement < min, || format!("{agreement:.3}"))
        }
        Measure::Temperature { celsius_max } => {
            let celsius = finite(figures.temperature_c)?;
            Sample::new(celsius > celsius_max, || format!("{celsius:.1} °C"))
        }
    })
}
