//! What must hold for a rollout to go on.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use revoada_proto::{DeviceId, Figures, Report};
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
    /// Of a classifier, on the device's labelled pictures, 0 to 1.
    Accuracy {
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
            Measure::Accuracy { .. } => "accuracy",
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
            | Measure::Accuracy { min: threshold }
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
            Measure::Accuracy { min } => format!("name less than {min} of their labelled pictures rightly"),
            Measure::Temperature { celsius_max } => format!("are hotter than {celsius_max} °C"),
        }
    }
}

/// What a gate sees of its devices.
#[derive(Clone, Debug, PartialEq)]
pub struct GateView {
    pub verdict: GateVerdict,
    /// Devices that have a figure.
    pub samples: usize,
    /// Devices that must have one before anything is judged.
    pub samples_min: usize,
    /// Of those that have a figure, how many miss the gate.
    pub breaches: usize,
    /// The device that is the furthest from holding, and its figure for people: ``12.0 of 25.0``.
    pub worst: Option<(DeviceId, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateVerdict {
    Holds,
    Fails,
    /// Too few samples.
    Open,
}

/// What one device says to a gate.
#[derive(Clone, Copy)]
struct Sample<'a> {
    is_breach: bool,
    figure: Figure<'a>,
}

/// What a device is judged by.
#[derive(Clone, Copy)]
enum Figure<'a> {
    Done,
    GaveUp { why: &'a str },
    RestartsPerHour(f64),
    Fps { now: f64, before: f64 },
    LatencyMs { now: f64, before: f64 },
    Share(f64),
    Celsius(f64),
}

impl Figure<'_> {
    /// The higher of two figures of one measure is the worse one.
    fn badness(self) -> f64 {
        match self {
            Figure::Done => 0.0,
            Figure::GaveUp { .. } => 1.0,
            Figure::RestartsPerHour(figure) | Figure::Celsius(figure) => figure,
            Figure::Fps { now, before } => -now / before,
            Figure::LatencyMs { now, before } => now / before,
            Figure::Share(share) => -share,
        }
    }
}

impl fmt::Display for Figure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figure::Done => f.write_str("done"),
            Figure::GaveUp { why } => write!(f, "({why})"),
            Figure::RestartsPerHour(per_hour) => write!(f, "{per_hour:.1}"),
            Figure::Fps { now, before } => write!(f, "{now:.1} of {before:.1}"),
            Figure::LatencyMs { now, before } => write!(f, "{now:.1} ms, before {before:.1} ms"),
            Figure::Share(share) => write!(f, "{share:.3}"),
            Figure::Celsius(celsius) => write!(f, "{celsius:.1} °C"),
        }
    }
}

/// All that devices say to a gate.
pub(super) struct Judgement<'a> {
    gate: &'a Gate,
    samples: usize,
    samples_min: usize,
    breaches: Vec<(&'a DeviceId, Figure<'a>)>,
    worst: Option<(&'a DeviceId, Figure<'a>)>,
}

pub(super) fn judge<'a>(
    gate: &'a Gate,
    state: &'a RolloutState,
    wave: usize,
    is_timed_out: bool,
    ground: &Ground<'_>,
) -> Judgement<'a> {
    let (mut reports, mut inventory) = (Walk::new(&ground.observations.reports), Walk::new(&ground.inventory.devices));
    let had_it = |member: &Member| member.asked.is_none() && member.standing.is_reached();
    let (mut changed, mut judged, mut samples, mut breaches) = (0, 0, 0, Vec::new());
    let mut worst: Option<(&DeviceId, Figure<'_>)> = None;
    for (device, member) in state.members.iter().filter(|(_, member)| member.wave <= wave) {
        if !member.standing.counts() || had_it(member) {
            continue;
        }
        let has_answered = matches!(member.standing, Standing::Reached { .. } | Standing::GaveUp { .. });
        changed += 1;
        judged += usize::from(!is_timed_out || (has_answered && ground.has_been_seen(inventory.at(device))));
        if let Some(Sample { is_breach, figure }) = sample(gate, member, || reports.at(device)) {
            samples += 1;
            if is_breach {
                breaches.push((device, figure));
            }
            if worst.is_none_or(|(_, worst)| figure.badness() > worst.badness()) {
                worst = Some((device, figure));
            }
        }
    }
    let floor = changed.min(1);
    let samples_min = usize::try_from(gate.samples_min.get()).unwrap_or(usize::MAX).min(judged.max(floor));
    Judgement { gate, samples, samples_min, breaches, worst }
}

impl Judgement<'_> {
    pub(super) fn verdict(&self) -> GateVerdict {
        if self.samples < self.samples_min {
            GateVerdict::Open
        } else if self.gate.breaches_max.is_exceeded_by(self.breaches.len(), self.samples) {
            GateVerdict::Fails
        } else {
            GateVerdict::Holds
        }
    }

    /// Why it is so, in a sentence.
    pub(super) fn why(&self) -> String {
        let (name, samples) = (self.gate.measure.name(), self.samples);
        if self.verdict() == GateVerdict::Open {
            return format!("gate `{name}` has {samples} of {} samples", self.samples_min);
        }
        let figures = self.breaches.iter().map(|(device, figure)| format!("{device} {figure}"));
        let who = if self.breaches.is_empty() { String::new() } else { format!(": {}", named(figures)) };
        format!(
            "gate `{name}`: {} of {samples} devices {}, at most {} may{who}",
            self.breaches.len(),
            self.gate.measure.breach(),
            self.gate.breaches_max
        )
    }

    pub(super) fn view(&self) -> GateView {
        GateView {
            verdict: self.verdict(),
            samples: self.samples,
            samples_min: self.samples_min,
            breaches: self.breaches.len(),
            worst: self.worst.map(|(device, figure)| (device.clone(), figure.to_string())),
        }
    }
}

/// `None` where nothing can be said yet.
fn sample<'a, 'r>(gate: &Gate, member: &'a Member, report: impl FnOnce() -> Option<&'r Report>) -> Option<Sample<'a>> {
    let asked = member.asked.filter(|_| member.aim == Aim::Forward)?;
    if gate.measure == Measure::Outcome {
        return match &member.standing {
            Standing::Reached { .. } => Some(Sample { is_breach: false, figure: Figure::Done }),
            Standing::GaveUp { why } => Some(Sample { is_breach: true, figure: Figure::GaveUp { why } }),
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
    let (is_breach, figure) = match gate.measure {
        Measure::Outcome => return None,
        Measure::Restarts { per_hour_max } => {
            let per_hour = f64::from(figures.restarts) / (figures.over.as_secs_f64() / 3600.0);
            (per_hour > per_hour_max, Figure::RestartsPerHour(per_hour))
        }
        Measure::Fps { of_before_min } => {
            let (now, before) = (finite(figures.fps)?, before(|before| before.fps)?);
            (now < before * of_before_min, Figure::Fps { now, before })
        }
        Measure::Latency { of_before_max } => {
            let (now, before) = (finite(figures.latency_ms)?, before(|before| before.latency_ms)?);
            (now > before * of_before_max, Figure::LatencyMs { now, before })
        }
        Measure::Agreement { min } => {
            let agreement = finite(figures.agreement)?;
            (agreement < min, Figure::Share(agreement))
        }
        Measure::Accuracy { min } => {
            let accuracy = finite(figures.accuracy)?;
            (accuracy < min, Figure::Share(accuracy))
        }
        Measure::Temperature { celsius_max } => {
            let celsius = finite(figures.temperature_c)?;
            (celsius > celsius_max, Figure::Celsius(celsius))
        }
    };
    Some(Sample { is_breach, figure })
}
