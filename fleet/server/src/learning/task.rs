//! What a participant is asked, and what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use prost::bytes::Bytes;
use revoada_core::Digest;
use revoada_federated::npy::{self, Element};
use revoada_federated::{Contribution, Participant, Weights};
use serde::{Deserialize, Serialize};

/// A run of rounds. Numbers are given once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a participant is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// One of our devices.
    Device,
    /// A client of Flower on a stream of `FlowerService/Join`, gone with it.
    Join,
    /// A SuperNode of Flower, which comes back under its name.
    Node,
}

impl Door {
    /// By the participant's name: no device has a slash in its own.
    pub fn of(participant: &Participant) -> Self {
        match participant.0.split_once('/') {
            Some(("join", _)) => Self::Join,
            Some(_) => Self::Node,
            None => Self::Device,
        }
    }

    /// A word for labels of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Join => "join",
            Self::Node => "node",
        }
    }

    /// Whether who came through it can come again and go on.
    pub fn is_lasting(self) -> bool {
        self != Self::Join
    }
}

/// What a participant is asked.
#[derive(Clone, Debug)]
pub struct Task {
    /// Rises with every task of the service, over restarts too.
    pub number: u64,
    pub run: RunId,
    /// From 1; 0 before the first.
    pub round: u64,
    pub work: Work,
}

#[derive(Clone, Debug)]
pub enum Work {
    /// To say which weights to begin with.
    Parameters { config: Config },
    /// To learn from these weights on.
    Fit { weights: Arc<Sheet>, config: Config },
    /// To say how good these weights are.
    Evaluate { weights: Arc<Sheet>, config: Config },
    /// To go: the run is over.
    Leave,
}

/// Small things for the program that learns, by name.
pub type Config = BTreeMap<String, Value>;
/// Small things that the program says, by name.
pub type Metrics = BTreeMap<String, Value>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Bool(bool),
    Integer(i64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Value {
    /// Where it is a number.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            _ => None,
        }
    }
}

/// Weights that many are given: made into bytes once for all of them.
#[derive(Debug)]
pub struct Sheet {
    weights: Weights,
    /// Of each tensor, as whoever brought the first weights had them.
    elements: Vec<Element>,
    /// The program that SuperNodes run.
    app: Option<Arc<App>>,
    arrays: OnceLock<Vec<Bytes>>,
}

/// A program of Flower's, as `flwr build` packs it (a FAB).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// `publisher/name`.
    pub id: String,
    pub version: String,
    /// SHA-256 of the content.
    pub digest: Digest,
    pub content: Bytes,
}

impl Sheet {
    /// `elements` has one for each tensor of the weights.
    pub fn new(weights: Weights, elements: Vec<Element>, app: Option<Arc<App>>) -> Self {
        assert_eq!(weights.layout().tensors().len(), elements.len(), "each tensor has a type");
        Self { weights, elements, app, arrays: OnceLock::new() }
    }

    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    pub fn app(&self) -> Option<&Arc<App>> {
        self.app.as_ref()
    }

    /// Name, element and shape of each tensor.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Element, &[usize])> {
        let tensors = self.weights.layout().tensors().iter().zip(&self.elements);
        tensors.map(|((name, shape), element)| (name.as_str(), *element, shape.as_slice()))
    }

    /// Each tensor as NumPy saves it.
    pub fn arrays(&self) -> &[Bytes] {
        self.arrays.get_or_init(|| {
            let tensors = self.weights.tensors().zip(&self.elements);
            tensors.map(|((_, shape, values), element)| npy::write(*element, shape, values).into()).collect()
        })
    }
}

/// A tensor that a participant sent, not yet looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Where the protocol has names; else the place counts.
    pub name: Option<String>,
    /// As NumPy saves it.
    pub array: Bytes,
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Parameters(Vec<Tensor>),
    Fit {
        tensors: Vec<Tensor>,
        reported: Reported,
    },
    /// From weights of which its device says which they were.
    Learned {
        base: Digest,
        content: Contribution<'static>,
        reported: Reported,
    },
    Evaluate {
        loss: Option<f64>,
        reported: Reported,
    },
    /// It cannot, or does not want to; why, for people.
    Failed(String),
}

/// What a participant says of its own work.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    pub examples: u64,
    pub metrics: Metrics,
}
