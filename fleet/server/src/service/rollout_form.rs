//! A rollout as people write it: in the REST API, on the command line, in the console.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use revoada_core::Digest;
use revoada_proto::{Deployable, Kind};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::filter::Filter;
use crate::planner::{Gate, Intent, Measure, Percent, Retry, Rollout, Size, Wave};

/// What somebody asks to roll out, to whom, and how carefully.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutForm {
    /// What people call it. At most 200 characters.
    #[serde(default)]
    pub title: String,
    #[schema(value_type = String, example = "model")]
    pub kind: Kind,
    /// Name of a registered model, pipeline or package …
    pub name: String,
    /// … and its version.
    pub version: String,
    /// Which devices: all of them where it is not given. `tag = entrance and version >= 1.2.0`
    #[serde(default = "all")]
    pub filter: String,
    /// One canary, a tenth, everybody, where none are given.
    #[serde(default)]
    pub waves: Vec<WaveForm>,
    /// That no device has given up, where none are given.
    #[serde(default)]
    pub gates: Option<Vec<GateForm>>,
    #[serde(default)]
    pub retry: RetryForm,
}

fn all() -> String {
    "all".to_owned()
}

/// A part of the devices, and what it takes to go on to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WaveForm {
    /// A number of devices or a share, such as `10%`, counted with the waves before.
    #[schema(value_type = String, example = "10%")]
    pub size: SizeText,
    /// Share of them, in percent, that must run it before the wave is complete.
    #[serde(default = "hundred")]
    #[schema(minimum = 0, maximum = 100)]
    pub done_percent: u8,
    /// The wave is complete after so long, if any device runs it: `2h`.
    #[serde(default = "hours_24")]
    #[schema(value_type = String, example = "24h")]
    pub timeout: DurationText,
    /// How long it is watched before the next wave: `30m`.
    #[serde(default = "minutes_10")]
    #[schema(value_type = String, example = "10m")]
    pub soak: DurationText,
}

fn hundred() -> u8 {
    100
}

fn hours_24() -> DurationText {
    DurationText(Duration::from_hours(24))
}

fn minutes_10() -> DurationText {
    DurationText(Duration::from_mins(10))
}

/// A measure, its threshold, and how many devices may miss it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GateForm {
    /// `outcome`: has not given up · `restarts`: at most so many an hour · `fps`, `latency`: at least, at most this share of
    /// before · `agreement`: with the model before, at least · `accuracy`: of a classifier on the device's labelled pictures, at
    /// least · `temperature`: at most so many °C.
    pub measure: MeasureName,
    /// Not for `outcome`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Share of the devices, in percent, that may miss it.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 100)]
    pub breaches_percent_max: u8,
    /// With fewer devices nothing is judged, and no wave passes.
    #[serde(default = "one")]
    #[schema(value_type = u32, minimum = 1)]
    pub samples_min: NonZeroU32,
    /// A device's figures count once they cover so long.
    #[serde(default = "seconds_30")]
    #[schema(value_type = String, example = "30s")]
    pub over_min: DurationText,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn seconds_30() -> DurationText {
    DurationText(Duration::from_secs(30))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MeasureName {
    Outcome,
    Restarts,
    Fps,
    Latency,
    Agreement,
    Accuracy,
    Temperature,
}

/// How often a device that failed is asked again, and after how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryForm {
    #[schema(value_type = u32, minimum = 1)]
    pub attempts_max: NonZeroU32,
    #[schema(value_type = String, example = "1m")]
    pub delay: DurationText,
    #[schema(value_type = String, example = "1h")]
    pub delay_max: DurationText,
}

impl Default for RetryForm {
    fn default() -> Self {
        Self {
            attempts_max: NonZeroU32::MIN.saturating_add(2),
            delay: DurationText(Duration::from_mins(1)),
            delay_max: DurationText(Duration::from_hours(1)),
        }
    }
}

/// A duration, written `90s`, `2h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DurationText(pub Duration);

impl TryFrom<String> for DurationText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        humantime::parse_duration(&text)
            .map(Self)
            .map_err(|error| format!("`{}` is no duration such as `90s` or `2h 30m`: {error}", shortened(&text)))
    }
}

impl From<DurationText> for String {
    fn from(duration: DurationText) -> Self {
        humantime::format_duration(duration.0).to_string()
    }
}

/// A number of devices, or a share of them with `%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SizeText(pub Size);

impl FromStr for SizeText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is no size of a wave such as `5` or `10%`", shortened(text));
        let size = match text.strip_suffix('%') {
            Some(percent) => percent.trim().parse().ok().and_then(Percent::new).map(Size::Share),
            None => text.parse().ok().map(Size::Devices),
        };
        size.map(Self).ok_or_else(wrong)
    }
}

impl TryFrom<String> for SizeText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SizeText> for String {
    fn from(size: SizeText) -> Self {
        size.to_string()
    }
}

impl fmt::Display for SizeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Size::Devices(devices) => devices.fmt(f),
            Size::Share(percent) => write!(f, "{}%", percent.get()),
        }
    }
}

/// So that an answer is never longer than what was asked.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

const TITLE_CHARS_MAX: usize = 200;

/// Why a rollout cannot be wanted, for who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RolloutFormError {
    #[error("the title has more than {TITLE_CHARS_MAX} characters")]
    Title,
    #[error("the filter cannot be read: {0}")]
    Filter(String),
    #[error("`{field}` is more than 100 percent")]
    Percent { field: &'static str },
    #[error("gate `{gate}` needs a `threshold`")]
    NoThreshold { gate: &'static str },
    #[error("gate `outcome` has no `threshold`")]
    Threshold,
}

impl RolloutForm {
    /// What the planner is to want of what the form's name and version were found to be.
    pub fn read(&self, digest: Digest) -> Result<Rollout, RolloutFormError> {
        if self.title.chars().count() > TITLE_CHARS_MAX {
            return Err(RolloutFormError::Title);
        }
        let filter: Filter =
            self.filter.parse().map_err(|error: crate::FilterError| RolloutFormError::Filter(error.to_string()))?;
        let waves = match self.waves.as_slice() {
            [] => default_waves(),
            waves => waves.iter().map(WaveForm::read).collect::<Result<_, _>>()?,
        };
        let gates = match &self.gates {
            None => vec![Gate {
                measure: Measure::Outcome,
                breaches_max: Percent::ZERO,
                samples_min: NonZeroU32::MIN,
                over_min: Duration::ZERO,
            }],
            Some(gates) => gates.iter().map(GateForm::read).collect::<Result<_, _>>()?,
        };
        let retry = Retry {
            attempts_max: self.retry.attempts_max,
            delay: self.retry.delay.0,
            delay_max: self.retry.delay_max.0,
        };
        let deployable = Deployable { kind: self.kind, digest };
        Ok(Rollout { deployable, filter, waves, gates, retry, intent: Intent::Run })
    }
}

fn default_waves() -> Vec<Wave> {
    let sizes =
        [Size::Devices(1), Size::Share(Percent::new(10).expect("10 is a percentage")), Size::Share(Percent::ALL)];
    let wave = |size| Wave { size, done: Percent::ALL, timeout: hours_24().0, soak: minutes_10().0 };
    sizes.map(wave).into()
}

impl WaveForm {
    fn read(&self) -> Result<Wave, RolloutFormError> {
        let done = Percent::new(self.done_percent).ok_or(RolloutFormError::Percent { field: "done_percent" })?;
        Ok(Wave { size: self.size.0, done, timeout: self.timeout.0, soak: self.soak.0 })
    }
}

impl GateForm {
    fn read(&self) -> Result<Gate, RolloutFormError> {
        let threshold = |gate| self.threshold.ok_or(RolloutFormError::NoThreshold { gate });
        let measure = match self.measure {
            MeasureName::Outcome if self.threshold.is_some() => return Err(RolloutFormError::Threshold),
            MeasureName::Outcome => Measure::Outcome,
            MeasureName::Restarts => Measure::Restarts { per_hour_max: threshold("restarts")? },
            MeasureName::Fps => Measure::Fps { of_before_min: threshold("fps")? },
            MeasureName::Latency => Measure::Latency { of_before_max: threshold("latency")? },
            MeasureName::Agreement => Measure::Agreement { min: threshold("agreement")? },
            MeasureName::Accuracy => Measure::Accuracy { min: threshold("accuracy")? },
            MeasureName::Temperature => Measure::Temperature { celsius_max: threshold("temperature")? },
        };
        let breaches_max = Percent::new(self.breaches_percent_max)
            .ok_or(RolloutFormError::Percent { field: "breaches_percent_max" })?;
        Ok(Gate { measure, breaches_max, samples_min: self.samples_min, over_min: self.over_min.0 })
    }
}

impl From<&Wave> for WaveForm {
    fn from(wave: &Wave) -> Self {
        Self {
            size: SizeText(wave.size),
            done_percent: wave.done.get(),
            timeout: DurationText(wave.timeout),
            soak: DurationText(wave.soak),
        }
    }
}

impl From<&Gate> for GateForm {
    fn from(gate: &Gate) -> Self {
        let (measure, threshold) = match gate.measure {
            Measure::Outcome => (MeasureName::Outcome, None),
            Measure::Restarts { per_hour_max } => (MeasureName::Restarts, Some(per_hour_max)),
            Measure::Fps { of_before_min } => (MeasureName::Fps, Some(of_before_min)),
            Measure::Latency { of_before_max } => (MeasureName::Latency, Some(of_before_max)),
            Measure::Agreement { min } => (MeasureName::Agreement, Some(min)),
            Measure::Accuracy { min } => (MeasureName::Accuracy, Some(min)),
            Measure::Temperature { celsius_max } => (MeasureName::Temperature, Some(celsius_max)),
        };
        Self {
            measure,
            threshold,
            breaches_percent_max: gate.breaches_max.get(),
            samples_min: gate.samples_min,
            over_min: DurationText(gate.over_min),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn form(change: impl FnOnce(&mut Value)) -> Result<Rollout, String> {
        let mut form = json!({ "kind": "model", "name": "faces", "version": "2" });
        change(&mut form);
        let form: RolloutForm = serde_json::from_value(form).map_err(|error| error.to_string())?;
        form.read(Digest::new([1; 32])).map_err(|error| error.to_string())
    }

    #[test]
    fn a_short_form_is_a_careful_rollout() {
        let rollout = form(|_| {}).unwrap();
        let sizes: Vec<Size> = rollout.waves.iter().map(|wave| wave.size).collect();
        assert_eq!(sizes, [Size::Devices(1), Size::Share(Percent::new(10).unwrap()), Size::Share(Percent::ALL)]);
        assert_eq!(rollout.gates[0].measure, Measure::Outcome);
        assert_eq!(rollout.filter, Filter::ALL);
    }

    #[test]
    fn what_is_written_is_what_is_wanted() {
        let rollout = form(|form| {
            form["filter"] = "tag = entrance".into();
            form["waves"] = json!([
                { "size": "3", "done_percent": 90, "timeout": "2h", "soak": "1m 30s" },
                { "size": "100%" },
            ]);
            form["gates"] =
                json!([{ "measure": "fps", "threshold": 0.9, "breaches_percent_max": 5, "samples_min": 3 }]);
        })
        .unwrap();
        assert_eq!(rollout.waves[0].size, Size::Devices(3));
        assert_eq!(rollout.waves[0].soak, Duration::from_secs(90));
        assert_eq!(rollout.gates[0].measure, Measure::Fps { of_before_min: 0.9 });
        assert_eq!(rollout.gates[0].breaches_max, Percent::new(5).unwrap());
    }

    #[test]
    fn what_is_wanted_is_written_as_it_was_read() {
        let form: RolloutForm = serde_json::from_value(json!({
            "kind": "model", "name": "faces", "version": "2",
            "waves": [{ "size": "3", "done_percent": 90, "timeout": "2h", "soak": "1m 30s" }, { "size": "100%" }],
            "gates": [{ "measure": "latency", "threshold": 1.5, "over_min": "45s" }, { "measure": "outcome" }],
        }))
        .unwrap();
        let rollout = form.read(Digest::new([1; 32])).unwrap();
        assert_eq!(rollout.waves.iter().map(WaveForm::from).collect::<Vec<_>>(), form.waves);
        assert_eq!(Some(rollout.gates.iter().map(GateForm::from).collect::<Vec<_>>()), form.gates);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let refused = |change: fn(&mut Value)| form(change).unwrap_err();
        for (text, said) in [
            (refused(|form| form["waves"] = json!([{ "size": "101%" }])), "no size of a wave"),
            (refused(|form| form["waves"] = json!([{ "size": "-1" }])), "no size of a wave"),
            (refused(|form| form["waves"] = json!([{ "size": "1", "soak": "soon" }])), "no duration"),
            (refused(|form| form["waves"] = json!([{ "size": "1", "sok": "1s" }])), "unknown field `sok`"),
            (refused(|form| form["waves"] = json!([{ "size": "1", "done_percent": 101 }])), "`done_percent`"),
            (refused(|form| form["filter"] = "tag =".into()), "the filter cannot be read"),
            (refused(|form| form["gates"] = json!([{ "measure": "fps" }])), "gate `fps` needs a `threshold`"),
            (refused(|form| form["gates"] = json!([{ "measure": "outcome", "threshold": 1 }])), "has no `threshold`"),
            (refused(|form| form["gates"] = json!([{ "measure": "luck" }])), "unknown variant `luck`"),
            (refused(|form| form["title"] = "a".repeat(201).into()), "the title"),
        ] {
            assert!(text.contains(said), "{text}");
        }
    }
}
