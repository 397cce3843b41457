//! What a run is to be, and how far it is.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use revoada_core::{Digest, Timestamp};
use revoada_federated::npy::Element;
use revoada_federated::{Head, Layout, Member, Participant, Recipe, Sample};
use revoada_proto::LearnSettings;
use serde::{Deserialize, Serialize};

use super::task::Config;
use crate::filter::Filter;
use crate::service::RolloutForm;

/// Of one service.
pub const RUNS_MAX: usize = 1000;
/// Of one run.
pub const ROUNDS_MAX: u64 = 10_000;

/// What a run is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPlan {
    pub participants: Participants,
    pub recipe: Recipe,
    pub rounds: u64,
    pub sample: Sample,
    /// Of updates, with which a round does not wait for others; `None` for everybody who was invited.
    pub enough: Option<NonZeroUsize>,
    pub round_time_max: Duration,
    /// From the end of a round to the next.
    pub pause: Duration,
    /// Not before.
    pub starts_at: Option<Timestamp>,
    pub examples_max: u64,
    /// Of an update's difference from the weights that it began with.
    pub norm_max: Option<f64>,
    /// Updates of one participant in one round.
    pub refusals_max: u32,
    /// Rounds in a row that are called off before the run is.
    pub failures_max: u32,
    /// Whether participants say after each round how good the weights are.
    pub evaluates: bool,
    /// The set of the service's labelled pictures by which it judges the weights itself.
    #[serde(default)]
    pub pictures: Option<String>,
    /// What becomes of what devices have learned.
    #[serde(default)]
    pub release: Option<ReleasePlan>,
    /// For the program that learns.
    pub config: Config,
    /// To begin with: a safetensors file; `None` where a participant is to say them.
    pub weights: Option<Digest>,
}

/// What becomes of what was learned, once all rounds are over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasePlan {
    /// The next of the model whose head was learned.
    pub version: String,
    /// By how much it has to be right about more pictures than the model was, 0 to 1.
    pub gain_min: f64,
    /// To whom, and how carefully; without it, it is registered.
    pub rollout: Option<RolloutForm>,
}

/// Who learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Participants {
    /// Clients of Flower, once so many are there.
    Flower {
        clients_min: usize,
        /// What SuperNodes run: a FAB. Without it they are not asked.
        app: Option<AppNote>,
    },
    /// Our devices: the head of a model that they have.
    Devices { filter: Filter, devices_min: usize, head: HeadPlan },
}

/// What devices learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadPlan {
    /// The bundle whose features are learned from.
    pub model: Digest,
    /// What there is to be told apart; what the model tells apart where none are named.
    pub labels: Vec<String>,
    pub settings: LearnSettings,
}

/// A program of Flower's that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppNote {
    pub digest: Digest,
    pub id: String,
    pub version: String,
}

/// What an operator wants of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunIntent {
    Go,
    /// No new round begins.
    Pause,
    /// For good.
    Stop,
}

/// How far a run is: what a service that was killed goes on from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    pub phase: RunPhase,
    /// The round that is under way, or was last; 0 before the first.
    pub round: u64,
    /// `None` before anybody said which to begin with.
    pub weights: Option<HeldWeights>,
    /// What the strategy remembers: a file of [`Memory`](revoada_federated::Memory). `None` before the first round.
    pub memory: Option<Digest>,
    /// Rounds in a row that were called off.
    pub failures: u32,
    /// ε of all rounds so far, where there is privacy.
    pub epsilon: Option<f64>,
    /// Who was refused too often, and is not invited any more.
    pub set_aside: BTreeSet<Participant>,
    /// What became of what was learned, where a release was planned.
    #[serde(default)]
    pub outcome: Option<Outcome>,
}

/// What became of what was learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Outcome {
    /// The share of the pictures that the model was right about.
    pub accuracy_before: Option<f64>,
    /// The share that it is right about with what was learned.
    pub accuracy: Option<f64>,
    /// The version that it became.
    pub digest: Option<Digest>,
    pub rollout: Option<u64>,
    /// Why it became no version, or was not rolled out.
    pub why: Option<String>,
}

impl Outcome {
    pub(super) fn not(why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..Self::default() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum RunPhase {
    /// For the time to begin, for participants, for the next round.
    Waiting {
        /// For people.
        why: String,
    },
    /// A round is under way.
    Learning,
    /// Participants say how good the newest weights are, or the service finds out.
    Evaluating,
    /// All rounds are over, and what was learned is being made a version.
    Releasing,
    Finished,
    Stopped,
    Failed {
        why: String,
    },
}

impl RunPhase {
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Finished | Self::Stopped | Self::Failed { .. })
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Learning => "learning",
            Self::Evaluating => "evaluating",
            Self::Releasing => "releasing",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed { .. } => "failed",
        }
    }
}

impl RunState {
    pub fn new() -> Self {
        Self {
            phase: RunPhase::Waiting { why: "it has just been added".to_owned() },
            round: 0,
            weights: None,
            memory: None,
            failures: 0,
            epsilon: None,
            set_aside: BTreeSet::new(),
            outcome: None,
        }
    }
}

impl Default for RunState {
    fn default() -> Self {
        Self::new()
    }
}

/// Weights that are kept as a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldWeights {
    pub digest: Digest,
    pub bytes: u64,
    pub layout: Layout,
    /// Of each tensor, by NumPy's name.
    pub elements: Vec<ElementName>,
    /// Of a head that devices learn: what it tells apart, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// An [`Element`] by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ElementName(pub Element);

impl From<ElementName> for String {
    fn from(element: ElementName) -> Self {
        element.0.name().to_owned()
    }
}

impl TryFrom<String> for ElementName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let found = Element::ALL.into_iter().find(|element| element.name() == name);
        found.map(Self).ok_or_else(|| format!("`{name}` is no type of number"))
    }
}

/// A round, for people and for a service that goes on with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundRecord {
    pub head: Head,
    pub result: RoundResult,
}

/// What is known of a round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoundResult {
    pub ended: Option<Timestamp>,
    pub invited: usize,
    pub updates: usize,
    pub refused: u64,
    pub examples: u64,
    /// Of all updates, and of the weights that went out.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Of what participants reported after learning, weighted by their examples, by name.
    pub fit: Vec<(String, f64)>,
    /// The same after the weights were made: `loss`, and what else they reported.
    pub evaluation: Vec<(String, f64)>,
    pub evaluated_by: usize,
    /// By the service's own pictures: `accuracy` and `loss`.
    pub judged: Vec<(String, f64)>,
    /// Why it could not tell.
    pub not_judged: Option<String>,
    /// ε of all rounds so far.
    pub epsilon: Option<f64>,
    /// The norm that updates were clipped to.
    pub clipping_norm: Option<f64>,
}

/// A participant in a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRecord {
    pub member: Member,
    #[serde(default)]
    pub result: MemberResult,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemberResult {
    pub bytes: u64,
    /// Of the difference from the weights that it began with.
    pub norm: Option<f64>,
    /// From the invitation to the update.
    pub seconds: Option<f64>,
    pub fit: Vec<(String, f64)>,
    pub evaluation: Vec<(String, f64)>,
}
