//! To learn, in one round.

use revoada_core::Digest;
use serde::{Deserialize, Serialize};

/// What a device is asked to learn. It may come again.
#[derive(Clone, Debug, PartialEq)]
pub struct Invitation {
    pub run: u64,
    pub round: u64,
    /// The bundle whose features are learned from.
    pub model: Digest,
    /// The weights to begin with: a safetensors file, a blob.
    pub weights: Digest,
    pub weights_bytes: u64,
    /// What there is to be told apart, in the order of the weights.
    pub labels: Vec<String>,
    pub settings: LearnSettings,
}

/// How. What is not said is the program's to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearnSettings {
    /// Of a hidden layer; none where it is not said.
    pub hidden: Option<u32>,
    pub epochs: Option<u32>,
    pub batch: Option<u32>,
    pub rate: Option<f64>,
    pub proximal_mu: Option<f64>,
    /// Classes of which there is little count for more.
    pub balanced: bool,
    /// Share of the examples that is not learned from but judged by.
    pub held_out: Option<f64>,
}
