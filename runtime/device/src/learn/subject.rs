//! The model that learns, its classes, and the pictures that it learns from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use revoada_bundle::bundle::{Bundle, Trust};
use revoada_bundle::manifest::{Manifest, read_labels};
use revoada_bundle::onnx::{OnnxModel, Split};
use revoada_core::Digest;
use revoada_engine::{BackendChoice, LoadOptions, ModelFormat, select};
use revoada_learn::{Backbone, Extracted, HeadShape, Labelled, Pause, ROWS, Settings, Wanted, labelled};
use revoada_pipeline::media;
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::Global;
use crate::failure::{Misuse, reported};
use crate::models::{self, BackendArgs};
use crate::rebuild::build_here;

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
        let key = Backbone::key(&subject.split.backbone, &subject.manifest.input);
        let wanted = Wanted {
            folder: &self.data,
            pictures: &subject.found.pictures,
            key,
            features: subject.split.head.inputs(),
        };
        let read = |path: &Path| media::load_picture(path).map_err(|error| error.to_string());
        let extracted = wanted.examples(|| self.backbone(subject, key, global), &read, pause)?;
        for (path, reason) in &extracted.failed {
            warn!(path = %path.display(), reason, "a picture is passed over");
        }
        info!(pictures = extracted.examples.len(), computed = extracted.computed, "features");
        anyhow::ensure!(!extracted.examples.is_empty(), "none of the pictures can be read");
        Ok(extracted)
    }
}

impl SubjectArgs {
    /// By a plan where there is TensorRT, else by what runs ONNX models.
    fn backbone(&self, subject: &Subject, key: Digest, global: &Global) -> anyhow::Result<Backbone> {
        let (split, input) = (&subject.split, &subject.manifest.input);
        if models::runs_plans(&self.backend, global) {
            match self.planned(subject, key, global) {
                Ok(backbone) => return Ok(backbone),
                Err(error) if self.backend.choice() == BackendChoice::Auto => {
                    warn!(error = format!("{error:#}"), "there is no plan of the model without its head");
                }
                Err(error) => return Err(error.context("there is no plan of the model without its head")),
            }
        }
        let selected = select(&self.backend.choice(), &models::all_backends(global), ModelFormat::Onnx)?;
        info!("{}", selected.reason);
        let options = LoadOptions { threads: self.backend.threads(), ..LoadOptions::default() };
        Ok(Backbone::load(&split.backbone, split.head.inputs(), input, selected.backend, &options)?)
    }

    /// The plan lies in the cache of plans, and the bundle that it is of beside that: both are made once.
    fn planned(&self, subject: &Subject, key: Digest, global: &Global) -> anyhow::Result<Backbone> {
        let (split, input) = (&subject.split, &subject.manifest.input);
        let cache = crate::build::plan_cache_folder().context("there is no folder for plans")?;
        let folder = cache.with_file_name("backbones");
        fs::create_dir_all(&folder).with_context(|| format!("cannot use `{}`", folder.display()))?;
        let bundle = folder.join(format!("{}.bundle", key.short()));
        let opened = match Bundle::is_at(&bundle) {
            true => Some(models::load_own(&bundle, &self.backend, ROWS, global)?).filter(|it| it.no_plan.is_none()),
            false => None,
        };
        let opened = match opened {
            Some(opened) => opened,
            None => {
                info!("building a plan of the model without its head");
                build(subject, &bundle, global)?;
                models::load_own(&bundle, &self.backend, ROWS, global)?
            }
        };
        if let Some(why) = opened.no_plan {
            anyhow::bail!(why);
        }
        Ok(Backbone::of_engine(split.head.inputs(), input, opened.backend, opened.engine)?)
    }
}

/// A bundle of the model without its head and a plan for this device, or only the plan where there is the bundle: in a
/// process of its own, as every build.
fn build(subject: &Subject, bundle: &Path, global: &Global) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("cannot create a folder")?;
    let mut command = match Bundle::is_at(bundle) {
        true => build_here(bundle, ROWS, scratch.path(), global)?,
        false => {
            let model = scratch.path().join("backbone.onnx");
            let manifest = Manifest { input: subject.manifest.input.clone(), ..Manifest::default() };
            fs::write(&model, subject.split.backbone.encode()).context("cannot write the model without its head")?;
            fs::write(model.with_extension("toml"), manifest.to_toml()).context("cannot write its manifest")?;
            let mut command = build_here(&model, ROWS, scratch.path(), global)?;
            command.arg("--output").arg(bundle);
            command
        }
    };
    let ended = command.stdin(Stdio::null()).output().context("cannot start the build")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let reason = said.lines().filter_map(reported).next_back().map_or_else(|| ended.status.to_string(), str::to_owned);
    anyhow::ensure!(ended.status.success(), reason);
    Ok(())
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
