//! The model that learns, its classes, and the pictures that it learns from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use revoada_bundle::bundle::{Bundle, Trust};
use revoada_bundle::manifest::{Manifest, read_labels};
use revoada_bundle::onnx::{OnnxModel, Split};
use revoada_engine::{LoadOptions, ModelFormat, select};
use revoada_learn::{Backbone, Extracted, HeadShape, Labelled, Pause, Settings, labelled};
use revoada_pipeline::media;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::Global;
use crate::failure::Misuse;
use crate::models::{self, BackendArgs};

/// What `train` and `evaluate` take.
#[derive(Debug, clap::Args)]
pub(super) struct SubjectArgs {
    /// The classifier: a bundle, or an ONNX model with its manifest beside it (`model.toml`).
    #[arg(value_name = "MODEL")]
    pub(super) model: PathBuf,
    /// The folder of labelled pictures, FOLDER/LABEL/picture.jpg; features of them are kept in it.
    #[arg(long, value_name = "FOLDER")]
    pub(super) data: PathBuf,
    /// Names of the classes, one a line, in place of the manifest's.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// The output that has the classes, where the model has several.
    #[arg(long, value_name = "OUTPUT")]
    answer: Option<String>,
    #[command(flatten)]
    backend: BackendArgs,
    /// The most memory that features and training may take, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    memory_max: u64,
}

/// The model in two parts, and the pictures for it.
pub(super) struct Subject {
    pub(super) split: Split,
    pub(super) labels: Vec<String>,
    pub(super) found: Labelled,
    manifest: Manifest,
}

impl SubjectArgs {
    pub(super) fn memory_bytes_max(&self) -> u64 {
        self.memory_max << 20
    }

    pub(super) fn open(&self) -> anyhow::Result<Subject> {
        let path = match Bundle::is_at(&self.model) {
            true => {
                let trusted = self.backend.trusted()?;
                Bundle::open(&self.model)?.verify(trusted.as_deref().map_or(Trust::Anybody, Trust::OneOf))?.model_path()
            }
            false => self.model.clone(),
        };
        let split = OnnxModel::read(&path)?.split_head(self.answer.as_deref())?;
        let manifest = Manifest::beside(&path)?.unwrap_or_default();
        let labels = labels(&self.model, self.labels.as_deref(), &manifest)?;
        let found = labelled(&self.data, &labels)?;
        for (label, pictures) in &found.unknown {
            warn!(label, pictures, "the model does not know this label, its pictures are passed over");
        }
        anyhow::ensure!(
            !found.pictures.is_empty(),
            "there is no picture in a folder of a known label below `{}`",
            self.data.display()
        );
        Ok(Subject { split, labels, found, manifest })
    }

    /// The features of the pictures, where a training on them fits into memory.
    pub(super) fn extract(
        &self,
        subject: &Subject,
        shape: &HeadShape,
        settings: &Settings,
        global: &Global,
        pause: &mut dyn FnMut() -> Pause,
    ) -> anyhow::Result<Extracted> {
        settings.check_memory(shape, subject.found.pictures.len())?;
        let selected = select(&self.backend.choice(), &models::all_backends(global), ModelFormat::Onnx)?;
        if selected.backend.format() != ModelFormat::Onnx {
            let name = selected.backend.name();
            return Err(Misuse(format!("`{name}` runs plans, and there is none of a model without its head")).into());
        }
        info!("{}", selected.reason);
        let options = LoadOptions { threads: self.backend.threads(), ..LoadOptions::default() };
        let backbone = Backbone::load(
            &subject.split.backbone,
            subject.split.head.inputs(),
            &subject.manifest.input,
            Arc::clone(&selected.backend),
            &options,
        )?;
        let read = |path: &Path| media::load_picture(path).map_err(|error| error.to_string());
        let extracted = backbone.examples(&self.data, &subject.found.pictures, &read, pause)?;
        for (path, reason) in &extracted.failed {
            warn!(path = %path.display(), reason, "a picture is passed over");
        }
        info!(pictures = extracted.examples.len(), computed = extracted.computed, "features");
        anyhow::ensure!(!extracted.examples.is_empty(), "none of the pictures can be read");
        Ok(extracted)
    }
}

/// The model's classes: those of a file, else the manifest's.
pub(super) fn labels(model: &Path, file: Option<&Path>, manifest: &Manifest) -> anyhow::Result<Vec<String>> {
    let labels = match file {
        Some(path) => read_labels(path).with_context(|| format!("cannot use `--labels {}`", path.display()))?,
        None => manifest.labels.clone(),
    };
    match labels.is_empty() {
        true => {
            Err(Misuse(format!("`{}` does not name its classes; name them with `--labels`", model.display())).into())
        }
        false => Ok(labels),
    }
}

/// What both verbs print of the pictures.
pub(super) fn pictures_json(subject: &Subject, extracted: &Extracted) -> Value {
    let failed = extracted.failed.iter().map(|(path, reason)| json!({ "path": path, "reason": reason }));
    json!({
        "used": extracted.examples.len(),
        "computed": extracted.computed,
        "failed": failed.collect::<Vec<_>>(),
        "unknown_labels": subject.found.unknown,
    })
}
