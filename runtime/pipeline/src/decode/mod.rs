//! From a network's outputs to what it found.

use revoada_bundle::manifest::OutputManifest;
use revoada_core::{Placement, Prediction, TensorRef, TensorSpec};
use thiserror::Error;

/// Reads one row of a network's outputs. Built once per model by a factory that looks at the
/// declared outputs; shared by threads.
pub trait Decoder: Send + Sync {
    /// As in the manifest.
    fn name(&self) -> &str;

    /// What picture `row` of the batch shows, in the coordinates of its source picture.
    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError>;
}

/// Why outputs cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error("there is no decoder `{name}`; choose one of {known}")]
    Unknown { name: String, known: String },
    #[error("decoder `{decoder}` cannot read these outputs: {reason}")]
    Outputs { decoder: String, reason: String },
    #[error("cannot guess a decoder from the outputs ({outputs}); name one in the manifest, as `[output] decoder = …`")]
    NoGuess { outputs: String },
    #[error("the model has {classes} classes but there are {labels} labels")]
    Labels { classes: usize, labels: usize },
}

/// What a decoder is built from.
#[derive(Clone, Debug)]
pub struct DecoderContext<'a> {
    pub outputs: &'a [TensorSpec],
    pub manifest: &'a OutputManifest,
    /// How many labels there are; 0 where there are none.
    pub labels: usize,
    /// Width and height of the network's input.
    pub input: revoada_core::Size,
}
