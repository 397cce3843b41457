//! Whether a plan answers, on the device that is here, as the model that it was made of does on the processor. It is
//! tried in a process of its own: a plan is code, and so is what runs it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail};
use revoada_builder::compare::{BoxAgreement, Failure, Report, Thresholds, compare_engines};
use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::plan::PlanAccuracy;
use revoada_engine::{Backend, BackendChoice, LoadOptions, ModelFormat, ModelSource, select};
use serde::{Deserialize, Serialize};
use tracing::info;

use super::boxes;
use super::evidence::Evidence;
use crate::Global;
use crate::failure::Refused;
use crate::models;
use crate::terminal::say;

/// The child is this program with a verb that no help names.
pub(crate) const VERB: &str = "try-plan";
/// A request names a few files.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// What a plan is held against.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) model: PathBuf,
    /// Where it is not beside the model.
    pub(crate) manifest: Option<PathBuf>,
    pub(crate) calibration: Option<PathBuf>,
    pub(crate) evaluation: Option<PathBuf>,
    /// The output with a score for each class, of classifiers.
    pub(crate) scores: Option<usize>,
    pub(crate) thresholds: Thresholds,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    plan: PathBuf,
    trial: Trial,
}

impl Trial {
    /// Tries the plan at `path` in a child; a plan whose answers differ too much is refused.
    pub(super) fn of_plan(&self, path: &Path, global: &Global) -> anyhow::Result<PlanAccuracy> {
        let request = serde_json::to_vec(&Request { plan: path.to_owned(), trial: self.clone() })?;
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command.arg(VERB).args(["--log", &global.log]);
        for (flag, value) in [("--tensorrt", &global.tensorrt), ("--onnxruntime", &global.onnxruntime)] {
            command.args(value.as_ref().map(|value| [flag.as_ref(), value.as_os_str()]).into_iter().flatten());
        }
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.context("cannot start the process that tries the plan")?;
        // A child that died at once says more by its exit than by a closed pipe.
        drop(child.stdin.take().expect("it is piped").write_all(&request));
        let output = child.wait_with_output().context("cannot wait for the process that tries the plan")?;
        if !output.status.success() {
            bail!("the plan that was built does not run here: the process that tried it ended with {}", output.status);
        }
        let report: Report = serde_json::from_slice(&output.stdout).context("cannot read how the plan was tried")?;
        let failures = report.failures(&self.thresholds);
        if !failures.is_empty() {
            return Err(refused(&failures));
        }
        let accuracy = PlanAccuracy {
            samples: report.samples,
            cosine_min: report.outputs.iter().map(|output| output.cosine_min).fold(1.0, f64::min),
            top1: report.top.map(|top| top.top1),
            boxes: report.boxes.as_ref().map(BoxAgreement::share),
        };
        let PlanAccuracy { samples, cosine_min, top1, boxes } = accuracy;
        info!(samples, cosine_min, top1, boxes, "the plan answers as the model does");
        Ok(accuracy)
    }
}

fn refused(failures: &[Failure]) -> anyhow::Error {
    let sentences: Vec<String> = failures.iter().map(ToString::to_string).collect();
    let hint = "the converted model is accurate by itself, so it is this TensorRT or GPU that computes it otherwise; \
                try a higher precision";
    anyhow::Error::new(Refused { hint: hint.to_owned() })
        .context(format!("the plan that was built is not accurate enough: {}", sentences.join("; ")))
}

/// The hidden verb.
pub(crate) fn run_trial(global: &Global) -> anyhow::Result<()> {
    let mut text = Vec::new();
    std::io::stdin().lock().take(REQUEST_BYTES_MAX).read_to_end(&mut text)?;
    let Request { plan, trial } = serde_json::from_slice(&text)?;
    let report = compare(&plan, &trial, global)?;
    Ok(say(&serde_json::to_string(&report)?)?)
}

fn compare(plan: &Path, trial: &Trial, global: &Global) -> anyhow::Result<Report> {
    let model = OnnxModel::read(&trial.model)?;
    let manifest = match &trial.manifest {
        Some(path) => Manifest::load(path)?,
        None => Manifest::beside(&trial.model)?.unwrap_or_default(),
    };
    let evidence = Evidence::gather(&model, &manifest, trial.calibration.as_deref(), trial.evaluation.as_deref())?;
    let load = |source: ModelSource<'_>, backend: Arc<dyn Backend>| {
        let engine = backend.load(source, &LoadOptions::default())?;
        anyhow::Ok(boxes::Loaded { backend, engine })
    };
    let original = load(ModelSource::File(&trial.model), models::any_backend(global)?)?;
    let plan_backend = select(&BackendChoice::Auto, &models::all_backends(global), ModelFormat::Plan)?.backend;
    let compiled = load(ModelSource::Plan(plan), plan_backend)?;
    let mut report = compare_engines(&original.engine, &compiled.engine, evidence.evaluation(), trial.scores)?;
    report.boxes = boxes::agreement(&original, &compiled, &manifest, evidence.frames());
    Ok(report)
}
