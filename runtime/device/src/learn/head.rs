//! Where the weights of a head come from, and where they go.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use revoada_bundle::onnx::Linear;
use revoada_federated::{Weights, from_safetensors};
use revoada_learn::{HeadShape, weights_of};

use crate::failure::Misuse;

/// A head of a hundred million numbers is no small one.
const WEIGHTS_BYTES_MAX: u64 = 400 << 20;

/// What `--weights` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Drawn from the seed.
    Nothing,
    /// Those of the model's last layer.
    Model,
    File(PathBuf),
}

impl FromStr for Origin {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::Nothing,
            "model" => Self::Model,
            path => Self::File(path.into()),
        })
    }
}

impl Origin {
    /// Weights for a model with the given head and so many classes.
    pub(super) fn weights(
        &self,
        head: &Linear,
        classes: usize,
        hidden: Option<usize>,
        seed: u64,
    ) -> anyhow::Result<Weights> {
        let weights = match self {
            Self::Nothing => HeadShape { features: head.inputs(), hidden, classes }.seeded(seed)?,
            Self::Model => weights_of(head)?,
            Self::File(path) => read(path)?,
        };
        let shape = HeadShape::of(weights.layout())?;
        if hidden.is_some() && shape.hidden != hidden {
            return Err(
                Misuse("the weights that are given decide about hidden numbers, not `--hidden`".to_owned()).into()
            );
        }
        let (given, features) = (shape.features, head.inputs());
        anyhow::ensure!(given == features, "the weights are for {given} features, and the model has {features}");
        let given = shape.classes;
        anyhow::ensure!(given == classes, "the weights are for {given} classes, and there are {classes} labels");
        Ok(weights)
    }
}

/// Reads the weights of a head, in the order of its layout.
pub(super) fn read(path: &Path) -> anyhow::Result<Weights> {
    let context = || format!("cannot read weights `{}`", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(context)?;
    file.take(WEIGHTS_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(context)?;
    anyhow::ensure!(bytes.len() as u64 <= WEIGHTS_BYTES_MAX, "`{}` is larger than any head", path.display());
    let weights = from_safetensors(&bytes, None).with_context(context)?;
    let layout = HeadShape::of(weights.layout()).and_then(|shape| shape.layout()).with_context(context)?;
    let weights = from_safetensors(&bytes, Some(&layout)).with_context(context)?;
    if let Some((name, ..)) = weights.tensors().find(|(.., values)| !values.iter().all(|value| value.is_finite())) {
        anyhow::bail!("tensor `{name}` of `{}` has a value that is no number", path.display());
    }
    Ok(weights)
}
