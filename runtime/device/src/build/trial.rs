//! Whether a plan answers, on the device that is here, as the model that it was made of does on the processor. It is
//! tried in a process of its own: a plan is code, and so is what runs it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use revoada_builder::Samples;
use revoada_builder::compare::{BoxAgreement, Report, Thresholds, compare_engines};
use revoada_builder::compile::{PrecisionMismatch, check_plan_precision};
use revoada_bundle::golden::{GOLDEN, Golden};
use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::plan::{Plan, PlanAccuracy, PlanFacts, PlanHeader, PlanKey, PlanSpeed};
use revoada_core::{Tensor, TensorSpec};
use revoada_engine::{Backend, BackendChoice, Engine, LoadOptions, ModelFormat, ModelSource, golden_answers, select};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::boxes;
use super::evidence::Evidence;
use crate::Global;
use crate::bench::measure::{Load, measure};
use crate::failure::Refused;
use crate::models;
use crate::terminal::say;

/// The child is this program with a verb that no help names.
pub(crate) const VERB: &str = "try-plan";
/// In which a device reaches its speed, and in which it is measured: long enough for thousands of runs of most networks.
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_millis(500);
/// What to do about a plan of another device.
const BUILD_HERE: &str = "without `--offered` this device builds its own";
/// A request names a few files.
const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// Where a plan that is tried comes from: what is said of its faults depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Built,
    Offered,
}

/// What a plan is held against.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) model: PathBuf,
    /// Where it is not beside the model.
    pub(crate) manifest: Option<PathBuf>,
    /// The pictures on which both are compared; none: noise.
    pub(crate) pictures: Vec<PathBuf>,
    /// The output with a score for each class, of classifiers.
    pub(crate) scores: Option<usize>,
    pub(crate) thresholds: Thresholds,
    /// The golden inputs of the bundle, encoded.
    #[serde(skip)]
    pub(crate) golden: Option<Vec<u8>>,
    /// Whether a plan is refused that does not compute in the graph's precisions.
    pub(crate) precise: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    plan: PathBuf,
    /// What the plan was compiled from.
    converted: PathBuf,
    golden: Option<PathBuf>,
    trial: Trial,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    comparison: Report,
    /// In which way it does not answer the golden inputs as it should.
    golden: Result<(), String>,
    /// Layers whose precision was held against the graph's, or the first that differs.
    precision: Result<usize, PrecisionMismatch>,
    speed: PlanSpeed,
}

impl Trial {
    /// Tries a plan in a child and notes what was found in its facts; one whose answers differ too much, or that does
    /// not compute in the precision of the graph that it was compiled from, is refused.
    pub(super) fn of_plan(
        &self,
        plan: &Plan,
        origin: Origin,
        converted: &OnnxModel,
        facts: PlanFacts,
        global: &Global,
    ) -> anyhow::Result<(PlanFacts, Report)> {
        let outcome = self.outcome(plan, converted, global)?;
        let failures = outcome.comparison.failures(&self.thresholds);
        if !failures.is_empty() {
            let sentences: Vec<String> = failures.iter().map(ToString::to_string).collect();
            return Err(origin.inaccurate(&format!("is not accurate enough: {}", sentences.join("; "))));
        }
        if let Err(fault) = outcome.golden {
            return Err(origin.inaccurate(&format!("answers the golden inputs of its bundle otherwise: {fault}")));
        }
        let precise = match outcome.precision {
            Ok(layers) => Some(layers),
            Err(mismatch) if self.precise => return Err(origin.imprecise(&mismatch)),
            Err(mismatch) => {
                warn!("{mismatch}");
                None
            }
        };
        let Report { samples, outputs, top, boxes } = &outcome.comparison;
        let accuracy = PlanAccuracy {
            samples: *samples,
            cosine_min: outputs.iter().map(|output| output.cosine_min).fold(1.0, f64::min),
            top1: top.map(|top| top.top1),
            boxes: boxes.as_ref().map(BoxAgreement::share),
        };
        let PlanAccuracy { cosine_min, top1, boxes, .. } = accuracy;
        info!(samples, cosine_min, top1, boxes, layers_checked = precise, "the plan answers as the model does");
        let facts = PlanFacts { accuracy: Some(accuracy), speed: Some(outcome.speed), ..facts };
        Ok((facts, outcome.comparison))
    }

    /// How the answers of a plan, however they differ, compare with the model's.
    pub(crate) fn comparison(&self, plan: &Plan, converted: &OnnxModel, global: &Global) -> anyhow::Result<Report> {
        Ok(self.outcome(plan, converted, global)?.comparison)
    }

    fn outcome(&self, plan: &Plan, converted: &OnnxModel, global: &Global) -> anyhow::Result<Outcome> {
        let scratch = tempfile::tempdir().context("cannot create a scratch folder")?;
        let request = Request {
            plan: scratch.path().join("it.plan"),
            converted: scratch.path().join("it.onnx"),
            golden: self.golden.as_ref().map(|_| scratch.path().join(GOLDEN)),
            trial: self.clone(),
        };
        fs::write(&request.plan, plan.bytes()).context("cannot write the plan to try it")?;
        fs::write(&request.converted, converted.encode()).context("cannot write the model to try its plan")?;
        if let (Some(path), Some(bytes)) = (&request.golden, &self.golden) {
            fs::write(path, bytes).context("cannot write the golden inputs to try the plan")?;
        }
        in_child(&request, global)
    }
}

fn in_child(request: &Request, global: &Global) -> anyhow::Result<Outcome> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg(VERB).args(["--log", &global.log]);
    global.pass_libraries(&mut command);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.context("cannot start the process that tries the plan")?;
    // A child that died at once says more by its exit than by a closed pipe.
    drop(child.stdin.take().expect("it is piped").write_all(&serde_json::to_vec(request)?));
    let output = child.wait_with_output().context("cannot wait for the process that tries the plan")?;
    if !output.status.success() {
        bail!("the plan does not run here: the process that tried it ended with {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("cannot read how the plan was tried")
}

impl Origin {
    /// The sentence goes on after the plan.
    fn inaccurate(self, how: &str) -> anyhow::Error {
        let hint = "the converted model is accurate by itself, so it is this TensorRT or GPU that computes it otherwise; \
                    try a higher precision";
        match self {
            Self::Built => refused(hint, format!("the plan that was built {how}")),
            Self::Offered => refused(BUILD_HERE, format!("the plan that was offered {how}")),
        }
    }

    fn imprecise(self, mismatch: &PrecisionMismatch) -> anyhow::Error {
        let hint =
            format!("`--keep '{}'` leaves the layer in the precision that it has in the original", mismatch.layer);
        match self {
            Self::Built => refused(&hint, format!("TensorRT did not take the graph's precisions: {mismatch}")),
            Self::Offered => {
                refused(BUILD_HERE, format!("the plan that was offered computes otherwise than its graph: {mismatch}"))
            }
        }
    }
}

fn refused(hint: &str, sentence: String) -> anyhow::Error {
    anyhow::Error::new(Refused { hint: hint.to_owned() }).context(sentence)
}

/// The hidden verb.
pub(crate) fn run_trial(global: &Global) -> anyhow::Result<()> {
    let mut text = Vec::new();
    std::io::stdin().lock().take(REQUEST_BYTES_MAX).read_to_end(&mut text)?;
    let outcome = run(&serde_json::from_slice(&text)?, global)?;
    Ok(say(&serde_json::to_string(&outcome)?)?)
}

fn run(request: &Request, global: &Global) -> anyhow::Result<Outcome> {
    let Request { plan, converted, golden, trial } = request;
    let model = OnnxModel::read(&trial.model)?;
    let manifest = match &trial.manifest {
        Some(path) => Manifest::load(path)?,
        None => Manifest::beside(&trial.model)?.unwrap_or_default(),
    };
    let evidence = Evidence::of_pictures(&model, &manifest, trial.pictures.clone())?;
    let load = |source: ModelSource<'_>, backend: Arc<dyn Backend>| {
        let engine = backend.load(source, &LoadOptions::default())?;
        anyhow::Ok(boxes::Loaded { backend, engine })
    };
    let original = load(ModelSource::File(&trial.model), models::any_backend(global)?)?;
    let plan_backend = select(&BackendChoice::Auto, &models::all_backends(global), ModelFormat::Plan)?.backend;
    let compiled = load(ModelSource::Plan(plan), plan_backend)?;
    let key = PlanHeader::read(plan)?.key().clone();
    let rows = rows_min(&*compiled.engine, &key);
    let golden = golden.as_ref().map_or(Ok(Ok(())), |golden| answers_golden(&compiled, &manifest, golden, &rows))?;
    let samples = Repeated { one: evidence.evaluation(), rows };
    let mut comparison = compare_engines(&original.engine, &compiled.engine, &samples, trial.scores)?;
    comparison.boxes = boxes::agreement(&original, &compiled, &manifest, evidence.frames());
    let layers = compiled.engine.layers()?.unwrap_or_default();
    let precision = check_plan_precision(&OnnxModel::read(converted)?, &layers)?;
    let speed = speed(&*compiled.engine, &key)?;
    Ok(Outcome { comparison, golden, precision, speed })
}

/// Whether the plan answers the golden inputs as it should; if not, the fault.
fn answers_golden(
    compiled: &boxes::Loaded,
    manifest: &Manifest,
    golden: &Path,
    rows: &[usize],
) -> anyhow::Result<Result<(), String>> {
    let golden = Golden::parse(&fs::read(golden)?)?;
    let boxes::Loaded { backend, engine } = compiled;
    let answers = golden_answers(&**backend, &**engine, &manifest.input, &golden.inputs, rows)?;
    Ok(golden.judge(engine.outputs(), &answers).map_err(|fault| fault.to_string()))
}

/// Samples of one row, each repeated until it is a batch that the plan runs.
struct Repeated<'a> {
    one: &'a dyn Samples,
    /// The least rows of each input.
    rows: Vec<usize>,
}

impl Samples for Repeated<'_> {
    fn count(&self) -> usize {
        self.one.count()
    }

    fn sample(&self, index: usize) -> Result<Cow<'_, [Tensor]>, Box<dyn Error + Send + Sync>> {
        let tensors = self.one.sample(index)?;
        let repeated = tensors.iter().zip(&self.rows).map(|(tensor, rows)| tensor.repeated_to(*rows));
        Ok(Cow::Owned(repeated.collect()))
    }
}

/// The least rows of each input that the plan runs.
fn rows_min(engine: &dyn Engine, key: &PlanKey) -> Vec<usize> {
    let least = |spec: &TensorSpec| key.profile.get(&spec.name).and_then(|range| range.min.first()).copied();
    engine.inputs().iter().map(|spec| least(spec).unwrap_or(1)).collect()
}

/// How fast the plan is in its largest shapes.
fn speed(engine: &dyn Engine, key: &PlanKey) -> anyhow::Result<PlanSpeed> {
    let shapes: BTreeMap<String, Vec<usize>> =
        key.profile.iter().map(|(input, range)| (input.clone(), range.max.clone())).collect();
    let rows = shapes.values().filter_map(|shape| shape.first()).copied().max().unwrap_or(1);
    let load = Load {
        batch: u32::try_from(rows).context("the plan's batch is too large")?,
        sessions: 1,
        transfers: true,
        shapes: &shapes,
        warm_up: WARM_UP,
        duration: MEASURED,
        percentiles: &[99.0],
        meter: None,
    };
    let measured = measure(engine, &load)?;
    Ok(PlanSpeed {
        rows,
        throughput_per_s: measured.throughput_per_s,
        latency_ms_median: measured.latency_ms.median,
        latency_ms_p99: measured.latency_ms.percentiles.values().copied().next().unwrap_or(measured.latency_ms.max),
    })
}
