//! `revoada learn merge`

use std::path::PathBuf;

use anyhow::Context;
use revoada_bundle::manifest::{Manifest, read_labels};
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::partial::replace;
use revoada_learn::{HeadShape, layers};

use super::head;
use crate::failure::Misuse;
use crate::models;
use crate::terminal::say;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The classifier that was learned for: a bundle, or an ONNX model.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The trained weights.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Where to write the new ONNX model; its manifest is written beside it.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Names of the classes, one a line, in place of the manifest's.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// The output that has the classes, where the model has several.
    #[arg(long, value_name = "OUTPUT")]
    answer: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let path = models::model_file(&args.model)?;
    let weights = head::read(&args.weights)?;
    let classes = HeadShape::of(weights.layout())?.classes;
    let manifest = Manifest::beside(&path)?;
    let labels = match &args.labels {
        Some(path) => read_labels(path)?,
        None => manifest.as_ref().map(|manifest| manifest.labels.clone()).unwrap_or_default(),
    };
    if !labels.is_empty() && labels.len() != classes {
        let count = labels.len();
        let reason = format!("the weights are for {classes} classes, and {count} are named; name them with `--labels`");
        return Err(Misuse(reason).into());
    }
    let merged = OnnxModel::read(&path)?.merge_head(args.answer.as_deref(), &layers(&weights)?)?;
    let write = |path: &PathBuf, bytes: &[u8]| {
        replace(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
        say(&format!("wrote {}", path.display())).map_err(anyhow::Error::from)
    };
    if manifest.is_some() || !labels.is_empty() {
        let manifest = Manifest { labels, ..manifest.unwrap_or_default() };
        write(&Manifest::path_beside(&args.output), manifest.to_toml().as_bytes())?;
    }
    write(&args.output, &merged.encode())
}
