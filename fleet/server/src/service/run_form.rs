//! A run of learning as people write it: in the REST API, on the command line, in the console.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use revoada_core::Digest;
use revoada_federated::{Clipping, Optimiser, Privacy, Recipe, RecipeError, Robust, Sample, Strategy};
use revoada_proto::message::LABELS_MAX;
use revoada_proto::{Kind, LearnSettings};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use super::{DurationText, GateForm, RetryForm, RolloutForm, RolloutFormError, WaveForm};
use crate::FilterError;
use crate::api::Time;
use crate::learning::{AppNote, Config, HeadPlan, Participants, ROUNDS_MAX, ReleasePlan, RunPlan, Value};
use crate::registry::check_names;

/// What is to be learned, by whom, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunForm {
    /// What people call it. At most 128 bytes.
    pub title: String,
    /// A round begins once so many participants are there.
    #[schema(value_type = usize, minimum = 1)]
    pub participants_min: NonZeroUsize,
    /// Our devices learn the head of a model; clients of Flower do where it is not given.
    pub devices: Option<DevicesForm>,
    /// What SuperNodes of Flower run: a program that `flwr build` packed, uploaded as a blob. Without it they are not asked.
    pub app: Option<AppForm>,
    #[schema(minimum = 1, maximum = 10_000)]
    pub rounds: u64,
    pub strategy: StrategyForm,
    /// Without it, what is made of updates may tell of single participants.
    pub privacy: Option<PrivacyForm>,
    /// Who is invited of those that are there: `all`, a number, or a share such as `10%`.
    #[schema(value_type = String, example = "all")]
    pub sample: SampleText,
    /// With fewer updates a round is called off.
    #[schema(value_type = usize, minimum = 1)]
    pub quorum: NonZeroUsize,
    /// With so many updates a round does not wait for others.
    #[schema(value_type = Option<usize>, minimum = 1)]
    pub enough: Option<NonZeroUsize>,
    /// A round takes no longer: `10m`.
    #[schema(value_type = String, example = "10m")]
    pub round_timeout: DurationText,
    /// From a round to the next: `1h`.
    #[schema(value_type = String, example = "0s")]
    pub pause: DurationText,
    /// It begins at once where nothing is said.
    pub starts_at: Option<Time>,
    /// An update that says that it was learned from more is refused.
    pub examples_max: u64,
    /// An update that differs from the weights by more (Euclidean norm) is refused.
    pub norm_max: Option<f64>,
    /// Whose updates are refused so often in a round is not invited any more.
    #[schema(minimum = 1)]
    pub refusals_max: u32,
    /// The run fails once so many rounds in a row are called off.
    #[schema(minimum = 1)]
    pub failures_max: u32,
    /// Ask participants after each round how good the new weights are.
    pub evaluate: bool,
    /// Judge the weights after each round by the service's own set of labelled pictures of this name. Of devices.
    pub pictures: Option<String>,
    /// Register and roll out what was learned once the run has ended, if it is right about more of these pictures.
    pub release: Option<ReleaseForm>,
    /// For the programs that learn, by name: booleans, numbers, texts.
    #[schema(value_type = Object)]
    pub config: BTreeMap<String, ConfigValue>,
    /// The weights to begin with: a safetensors file of F32 tensors, uploaded as a blob. A client is asked where there is none.
    #[schema(value_type = Option<String>)]
    pub weights: Option<Digest>,
}

/// Which devices learn, and what. How they learn is said in `config`: `hidden`, `epochs`, `batch`, `rate`, `balanced`,
/// `held_out`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DevicesForm {
    /// Name of a registered model: a classifier …
    pub model: String,
    /// … and its version.
    pub version: String,
    /// Which devices: all of them where it is not given.
    #[serde(default = "all")]
    pub filter: String,
    /// What there is to be told apart: what the model tells apart where none are named.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// What becomes of what was learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseForm {
    /// What people call it: a version of the model whose head devices learn.
    pub version: String,
    /// By how much more of the pictures it has to be right about, 0 to 1.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    pub gain_min: f64,
    /// To whom, and how carefully. Without it, it is registered and not rolled out.
    #[serde(default)]
    pub rollout: Option<ReleaseRolloutForm>,
}

/// A rollout of what was learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseRolloutForm {
    /// Which devices: those that were asked to learn, where it is not given.
    pub filter: Option<String>,
    /// One canary, a tenth, everybody, where none are given.
    pub waves: Vec<WaveForm>,
    /// That no device has given up, where none are given.
    pub gates: Option<Vec<GateForm>>,
    pub retry: RetryForm,
}

fn all() -> String {
    "all".to_owned()
}

/// A packed program of Flower's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppForm {
    /// SHA-256 of the file.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// `publisher/name`, as in its pyproject.toml.
    pub id: String,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ConfigValue {
    Bool(bool),
    Integer(i64),
    Double(f64),
    Text(String),
}

impl Default for RunForm {
    fn default() -> Self {
        let two = NonZeroUsize::MIN.saturating_add(1);
        Self {
            title: String::new(),
            participants_min: two,
            devices: None,
            app: None,
            rounds: 3,
            strategy: StrategyForm::default(),
            privacy: None,
            sample: SampleText(Sample::All),
            quorum: two,
            enough: None,
            round_timeout: DurationText(Duration::from_mins(10)),
            pause: DurationText(Duration::ZERO),
            starts_at: None,
            examples_max: 1 << 32,
            norm_max: None,
            refusals_max: 3,
            failures_max: 3,
            evaluate: true,
            pictures: None,
            release: None,
            config: BTreeMap::new(),
            weights: None,
        }
    }
}

/// By the names, and with the defaults, that Flower has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "name", deny_unknown_fields)]
pub enum StrategyForm {
    FedAvg {},
    /// The proximal term is added by the programs that learn: they find `proximal-mu` in their configuration.
    FedProx {
        #[serde(default)]
        proximal_mu: f64,
    },
    FedAvgM {
        #[serde(default = "one")]
        server_learning_rate: f64,
        #[serde(default)]
        server_momentum: f64,
    },
    FedAdam {
        #[serde(default = "tenth")]
        eta: f64,
        #[serde(default = "nine_tenths")]
        beta_1: f64,
        #[serde(default = "ninety_nine_hundredths")]
        beta_2: f64,
        #[serde(default = "thousandth")]
        tau: f64,
    },
    FedAdagrad {
        #[serde(default = "tenth")]
        eta: f64,
        #[serde(default = "thousandth")]
        tau: f64,
    },
    FedYogi {
        #[serde(default = "hundredth")]
        eta: f64,
        #[serde(default = "nine_tenths")]
        beta_1: f64,
        #[serde(default = "ninety_nine_hundredths")]
        beta_2: f64,
        #[serde(default = "thousandth")]
        tau: f64,
    },
    FedMedian {},
    FedTrimmedAvg {
        #[serde(default = "fifth")]
        beta: f64,
    },
    Krum {
        #[serde(default)]
        num_malicious_nodes: usize,
    },
    MultiKrum {
        #[serde(default)]
        num_malicious_nodes: usize,
        num_nodes_to_select: usize,
    },
}

const fn one() -> f64 {
    1.0
}
const fn tenth() -> f64 {
    0.1
}
const fn hundredth() -> f64 {
    0.01
}
const fn thousandth() -> f64 {
    1e-3
}
const fn nine_tenths() -> f64 {
    0.9
}
const fn ninety_nine_hundredths() -> f64 {
    0.99
}
const fn fifth() -> f64 {
    0.2
}

impl Default for StrategyForm {
    fn default() -> Self {
        Self::FedAvg {}
    }
}

impl StrategyForm {
    fn strategy(self) -> Strategy {
        match self {
            Self::FedAvg {} | Self::FedProx { .. } => Strategy::Mean(Optimiser::Average),
            Self::FedAvgM { server_learning_rate: rate, server_momentum: momentum } => {
                Strategy::Mean(Optimiser::Momentum { rate, momentum })
            }
            Self::FedAdam { eta: rate, beta_1: beta1, beta_2: beta2, tau } => {
                Strategy::Mean(Optimiser::Adam { rate, beta1, beta2, tau })
            }
            Self::FedAdagrad { eta: rate, tau } => Strategy::Mean(Optimiser::Adagrad { rate, tau }),
            Self::FedYogi { eta: rate, beta_1: beta1, beta_2: beta2, tau } => {
                Strategy::Mean(Optimiser::Yogi { rate, beta1, beta2, tau })
            }
            Self::FedMedian {} => Strategy::Robust(Robust::Median),
            Self::FedTrimmedAvg { beta: share } => Strategy::Robust(Robust::TrimmedMean { share }),
            Self::Krum { num_malicious_nodes: liars } => Strategy::Robust(Robust::Krum { liars }),
            Self::MultiKrum { num_malicious_nodes: liars, num_nodes_to_select: keep } => {
                Strategy::Robust(Robust::MultiKrum { liars, keep })
            }
        }
    }
}

/// Central differential privacy.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivacyForm {
    /// Updates are clipped to this norm …
    pub clipping_norm: f64,
    /// … which follows this quantile of their norms, where it is given.
    #[serde(default)]
    pub target_quantile: Option<f64>,
    /// How fast it follows.
    #[serde(default = "fifth")]
    pub norm_learning_rate: f64,
    /// Standard deviation of the noise, as a multiple of the clipping norm.
    pub noise_multiplier: f64,
    /// At which ε is reported.
    pub delta: f64,
}

impl From<PrivacyForm> for Privacy {
    fn from(form: PrivacyForm) -> Self {
        let norm = form.clipping_norm;
        let clipping = match form.target_quantile {
            Some(quantile) => Clipping::Adaptive { norm, quantile, rate: form.norm_learning_rate },
            None => Clipping::Fixed { norm },
        };
        Self { clipping, noise: form.noise_multiplier, delta: form.delta }
    }
}

/// `all`, `10`, `10%`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SampleText(pub Sample);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not `all`, a number of participants, or a share such as `10%`")]
pub struct SampleTextError(String);

impl FromStr for SampleText {
    type Err = SampleTextError;

    fn from_str(text: &str) -> Result<Self, SampleTextError> {
        let wrong = || SampleTextError(text.to_owned());
        Ok(Self(match text.trim().strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
                if !(percent > 0.0 && percent <= 100.0) {
                    return Err(wrong());
                }
                Sample::Share(percent / 100.0)
            }
            None if text.trim() == "all" => Sample::All,
            None => Sample::Count(text.trim().parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?),
        }))
    }
}

impl fmt::Display for SampleText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Sample::All => f.write_str("all"),
            Sample::Count(count) => write!(f, "{count}"),
            Sample::Share(share) => write!(f, "{}%", (share * 1e6).round() / 1e4),
        }
    }
}

impl TryFrom<String> for SampleText {
    type Error = SampleTextError;

    fn try_from(text: String) -> Result<Self, SampleTextError> {
        text.parse()
    }
}

impl From<SampleText> for String {
    fn from(text: SampleText) -> Self {
        text.to_string()
    }
}

/// Why a form makes no run.
#[derive(Debug, Error)]
pub enum RunFormError {
    #[error("`{field}` is {found}, and has to be {expected}")]
    Number { field: &'static str, found: String, expected: String },
    #[error("the app's id `{0}` is not like `publisher/name`")]
    AppId(String),
    #[error("a sample of {sample} is smaller than the quorum of {quorum}")]
    Sample { sample: usize, quorum: usize },
    #[error("devices run `revoada learn`, and no app")]
    Both,
    #[error("the label `{0}` is empty, one too many, or named twice")]
    Label(String),
    #[error("`config.{name}` has to be {expected}, for devices")]
    Setting { name: String, expected: String },
    #[error("clients of Flower have weights of their own, which the service neither judges nor releases")]
    NotOfDevices,
    #[error("a release needs `pictures` that say whether it is better")]
    Unjudged,
    #[error("the release cannot be called so: {0}")]
    Version(String),
    #[error("the rollout of what was learned: {0}")]
    Rollout(#[from] RolloutFormError),
    #[error("the filter cannot be read: {0}")]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Recipe(#[from] RecipeError),
}

const CONFIG_MAX: usize = 100;
const ROUND_TIME_MAX: Duration = Duration::from_hours(30 * 24);

impl RunForm {
    /// `model` is the version that `devices` names.
    pub fn read(&self, model: Option<Digest>) -> Result<RunPlan, RunFormError> {
        let within = |field, found: u64, from: u64, to: u64| {
            let expected = || format!("{from} to {to}");
            let wrong = || RunFormError::Number { field, found: found.to_string(), expected: expected() };
            if (from..=to).contains(&found) { Ok(()) } else { Err(wrong()) }
        };
        within("rounds", self.rounds, 1, ROUNDS_MAX)?;
        within("examples_max", self.examples_max, 1, u64::MAX)?;
        within("refusals_max", self.refusals_max.into(), 1, 1000)?;
        within("failures_max", self.failures_max.into(), 1, ROUNDS_MAX)?;
        within("config", self.config.len() as u64, 0, CONFIG_MAX as u64)?;
        let above_zero = |number: f64| number > 0.0 && number.is_finite();
        if let Some(norm) = self.norm_max.filter(|norm| !above_zero(*norm)) {
            let expected = "above zero".to_owned();
            return Err(RunFormError::Number { field: "norm_max", found: norm.to_string(), expected });
        }
        let (DurationText(round_time_max), DurationText(pause)) = (self.round_timeout, self.pause);
        within("round_timeout", round_time_max.as_secs(), 1, ROUND_TIME_MAX.as_secs())?;
        within("pause", pause.as_secs(), 0, ROUND_TIME_MAX.as_secs())?;
        if let Sample::Count(sample) = self.sample.0
            && sample < self.quorum.get()
        {
            return Err(RunFormError::Sample { sample, quorum: self.quorum.get() });
        }
        if let Some(app) = &self.app
            && !matches!(app.id.split_once('/'), Some((publisher, name)) if !publisher.is_empty() && !name.is_empty())
        {
            return Err(RunFormError::AppId(app.id.clone()));
        }
        let recipe = Recipe {
            strategy: self.strategy.strategy(),
            privacy: self.privacy.map(Privacy::from),
            quorum: self.quorum,
        };
        recipe.check()?;
        if let Some(enough) = self.enough {
            within("enough", enough.get() as u64, self.quorum.get() as u64, u64::MAX)?;
        }
        Ok(RunPlan {
            participants: self.participants(model)?,
            recipe,
            rounds: self.rounds,
            sample: self.sample.0,
            enough: self.enough,
            round_time_max,
            pause,
            starts_at: self.starts_at.map(|at| at.0),
            examples_max: self.examples_max,
            norm_max: self.norm_max,
            refusals_max: self.refusals_max,
            failures_max: self.failures_max,
            evaluates: self.evaluate,
            pictures: self.pictures.clone(),
            release: self.release()?,
            config: self.config(),
            weights: self.weights,
        })
    }

    /// A rollout is written with the name of the model, which is not known here, once there is a version.
    fn release(&self) -> Result<Option<ReleasePlan>, RunFormError> {
        if self.devices.is_none() && (self.pictures.is_some() || self.release.is_some()) {
            return Err(RunFormError::NotOfDevices);
        }
        let (Some(form), Some(devices)) = (&self.release, &self.devices) else { return Ok(None) };
        if self.pictures.is_none() {
            return Err(RunFormError::Unjudged);
        }
        check_names(&devices.model, &form.version).map_err(RunFormError::Version)?;
        if !(0.0..=1.0).contains(&form.gain_min) {
            let (found, expected) = (form.gain_min.to_string(), "0 to 1".to_owned());
            return Err(RunFormError::Number { field: "gain_min", found, expected });
        }
        let rollout = form.rollout.as_ref().map(|steps| RolloutForm {
            title: String::new(),
            kind: Kind::Model,
            name: devices.model.clone(),
            version: form.version.clone(),
            filter: steps.filter.clone().unwrap_or_else(|| devices.filter.clone()),
            waves: steps.waves.clone(),
            gates: steps.gates.clone(),
            retry: steps.retry.clone(),
        });
        if let Some(rollout) = &rollout {
            rollout.read(Digest::new([0; 32]))?;
        }
        Ok(Some(ReleasePlan { version: form.version.clone(), gain_min: form.gain_min, rollout }))
    }

    fn participants(&self, model: Option<Digest>) -> Result<Participants, RunFormError> {
        let least = self.participants_min.get();
        let (Some(devices), Some(model)) = (&self.devices, model) else {
            let app = self.app.clone().map(|AppForm { digest, id, version }| AppNote { digest, id, version });
            return Ok(Participants::Flower { clients_min: least, app });
        };
        if self.app.is_some() {
            return Err(RunFormError::Both);
        }
        let mut labels = BTreeSet::new();
        if let Some(label) = devices.labels.iter().find(|label| label.is_empty() || !labels.insert(*label)) {
            return Err(RunFormError::Label(label.clone()));
        }
        if devices.labels.len() > LABELS_MAX {
            return Err(RunFormError::Label(format!("{} of them", devices.labels.len())));
        }
        let head = HeadPlan { model, labels: devices.labels.clone(), settings: self.head_settings()? };
        Ok(Participants::Devices { filter: devices.filter.parse()?, devices_min: least, head })
    }

    fn head_settings(&self) -> Result<LearnSettings, RunFormError> {
        let mut settings = LearnSettings::default();
        for (name, value) in &self.config {
            let wrong = |expected: &str| RunFormError::Setting { name: name.clone(), expected: expected.to_owned() };
            let count = || match value {
                ConfigValue::Integer(number) => u32::try_from(*number).ok().filter(|number| *number > 0),
                _ => None,
            };
            let number = || match value {
                ConfigValue::Integer(number) => Some(*number as f64),
                ConfigValue::Double(number) => Some(*number),
                _ => None,
            };
            let counted = || count().ok_or_else(|| wrong("a whole number above zero"));
            let above_zero = || number().filter(|it| *it > 0.0 && it.is_finite()).ok_or_else(|| wrong("above zero"));
            match name.as_str() {
                "hidden" => settings.hidden = Some(counted()?),
                "epochs" => settings.epochs = Some(counted()?),
                "batch" => settings.batch = Some(counted()?),
                "rate" => settings.rate = Some(above_zero()?),
                "held_out" => {
                    let share = number().filter(|share| (0.0..1.0).contains(share));
                    settings.held_out = Some(share.ok_or_else(|| wrong("at least 0 and below 1"))?);
                }
                "balanced" => match value {
                    ConfigValue::Bool(balanced) => settings.balanced = *balanced,
                    _ => return Err(wrong("`true` or `false`")),
                },
                _ => return Err(wrong("one of `hidden`, `epochs`, `batch`, `rate`, `balanced`, `held_out`")),
            }
        }
        if let StrategyForm::FedProx { proximal_mu } = self.strategy {
            settings.proximal_mu = Some(proximal_mu);
        }
        Ok(settings)
    }

    fn config(&self) -> Config {
        let value = |value: &ConfigValue| match value {
            ConfigValue::Bool(value) => Value::Bool(*value),
            ConfigValue::Integer(number) => Value::Integer(*number),
            ConfigValue::Double(number) => Value::Double(*number),
            ConfigValue::Text(text) => Value::Text(text.clone()),
        };
        let mut config: Config = self.config.iter().map(|(name, of)| (name.clone(), value(of))).collect();
        if let StrategyForm::FedProx { proximal_mu } = self.strategy {
            // The older and the newer interface of Flower name it differently.
            for name in ["proximal-mu", "proximal_mu"] {
                config.insert(name.to_owned(), Value::Double(proximal_mu));
            }
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn read(form: Json) -> Result<RunPlan, String> {
        let form: RunForm = serde_json::from_value(form).map_err(|error| error.to_string())?;
        form.read(None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_short_form_averages() {
        let plan = read(json!({})).unwrap();
        assert_eq!(plan.recipe.strategy, Strategy::Mean(Optimiser::Average));
        assert_eq!((plan.rounds, plan.sample, plan.recipe.quorum.get()), (3, Sample::All, 2));
    }

    #[test]
    fn strategies_are_written_as_flower_names_them() {
        let strategy = |form: Json| read(json!({ "strategy": form, "quorum": 5 })).unwrap().recipe.strategy;
        assert_eq!(
            strategy(json!({ "name": "FedAdam", "eta": 0.5 })),
            Strategy::Mean(Optimiser::Adam { rate: 0.5, beta1: 0.9, beta2: 0.99, tau: 1e-3 })
        );
        assert_eq!(
            strategy(json!({ "name": "Krum", "num_malicious_nodes": 1 })),
            Strategy::Robust(Robust::Krum { liars: 1 })
        );
        let plan = read(json!({ "strategy": { "name": "FedProx", "proximal_mu": 0.1 } })).unwrap();
        assert_eq!(plan.config["proximal-mu"], Value::Double(0.1));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (form, said) in [
            (json!({ "rounds": 0 }), "`rounds` is 0, and has to be 1 to 10000"),
            (json!({ "round": 3 }), "unknown field `round`"),
            (json!({ "strategy": { "name": "FedBest" } }), "unknown variant `FedBest`"),
            (json!({ "strategy": { "name": "FedAvg", "eta": 1 } }), "unknown field `eta`"),
            (json!({ "strategy": { "name": "Krum", "num_malicious_nodes": 1 } }), "needs a quorum of 5"),
            (json!({ "sample": "lots" }), "`lots` is not `all`"),
            (json!({ "sample": "1" }), "a sample of 1 is smaller than the quorum of 2"),
            (json!({ "enough": 1 }), "`enough` is 1"),
            (json!({ "norm_max": 0.0 }), "`norm_max` is 0"),
            (
                json!({ "strategy": { "name": "FedMedian" },
                        "privacy": { "clipping_norm": 1, "noise_multiplier": 1, "delta": 1e-5 } }),
                "noise promises nothing with FedMedian",
            ),
        ] {
            let refusal = read(form).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }

    #[test]
    fn what_is_better_is_released_with_the_care_that_is_asked_for() {
        let form = |release: Json, pictures: Json| {
            let form = json!({
                "devices": { "model": "digits", "version": "1", "filter": "tag = door" },
                "pictures": pictures, "release": release,
            });
            let form: RunForm = serde_json::from_value(form).map_err(|error| error.to_string())?;
            form.read(Some(Digest::new([1; 32]))).map_err(|error| error.to_string())
        };
        let rollout = json!({ "waves": [{ "size": "1" }], "gates": [{ "measure": "accuracy", "threshold": 0.9 }] });
        let plan = form(json!({ "version": "2", "rollout": rollout }), json!("digits")).unwrap().release.unwrap();
        let rollout = plan.rollout.unwrap();
        assert_eq!((rollout.name.as_str(), rollout.version.as_str()), ("digits", "2"));
        assert_eq!((rollout.filter.as_str(), rollout.waves.len()), ("tag = door", 1));
        for (release, pictures, said) in [
            (json!({ "version": "2" }), json!(null), "a release needs `pictures`"),
            (json!({ "version": "2/3" }), json!("digits"), "a version has 1 to 64 letters"),
            (json!({ "version": "2", "gain_min": 2 }), json!("digits"), "`gain_min` is 2"),
            (
                json!({ "version": "2", "rollout": { "gates": [{ "measure": "fps" }] } }),
                json!("digits"),
                "needs a `threshold`",
            ),
        ] {
            let refusal = form(release, pictures).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
        let refusal = read(json!({ "pictures": "digits" })).unwrap_err();
        assert!(refusal.contains("neither judges nor releases"), "{refusal}");
    }

    #[test]
    fn samples_are_read_as_they_are_written() {
        for text in ["all", "12", "10%", "12.5%"] {
            assert_eq!(text.parse::<SampleText>().unwrap().to_string(), text);
        }
        for text in ["", "0", "-3", "0%", "101%", "NaN%"] {
            assert!(text.parse::<SampleText>().is_err(), "{text}");
        }
    }
}
