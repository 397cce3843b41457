//! `--precision fp32,fp16,int8`: what a model gains by each, and what it loses.
//!
//! Each is converted as `revoada build` converts it, but nothing is refused for its answers: they are reported. Where
//! there is a GPU, what is measured is a plan compiled for it, else the converted graph on the CPU, which is another
//! thing, and said so. Each is measured by a process of its own that does nothing else (`revoada bench` once more), so that
//! its peak of memory is its own.

mod render;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use revoada_builder::Keep;
use revoada_builder::clean::Cleaned;
use revoada_builder::compare::{BoxAgreement, Report as Comparison, Thresholds};
use revoada_builder::convert::{Accuracy, ConvertError, Recipe, convert};
use revoada_builder::int8::Method;
use revoada_bundle::bundle::{Bundle, Precision};
use revoada_bundle::hash;
use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::plan::Plan;
use revoada_core::TensorSpec;
use revoada_engine::{Backend, BackendChoice, ModelFormat, ModelSource, select};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::inputs::shapes_for;
use super::measure::{Measured, Memory};
use super::{Args, REPORT_VERSION};
use crate::Global;
use crate::build::evidence::Evidence;
use crate::build::plan::{Compiler, PlanArgs, Subject};
use crate::build::steps::Timed;
use crate::build::trial::Trial;
use crate::build::{OPSET_MAX, boxes, cleaned, scores};
use crate::failure::{Misuse, reported};
use crate::keys;
use crate::models;
use crate::shapes;
use crate::terminal::say;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    model: String,
    /// What ran the models: the backend, and on what.
    measured_on: String,
    /// Whether plans were measured, and not graphs on the CPU.
    plans: bool,
    sessions: u32,
    threads: Option<usize>,
    /// What the answers were compared on.
    compared_on: &'static str,
    /// Why there is no power in the results, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_power: Option<String>,
    precisions: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    precision: Precision,
    model_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_bytes: Option<usize>,
    /// Layers that kept the precision that they had.
    kept: Vec<String>,
    /// The converted graph's answers against the original's.
    comparison: Option<Comparison>,
    /// The plan's.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_comparison: Option<Comparison>,
    /// Against the first that was measured.
    speed_up: Option<f64>,
    measured: Option<Measured>,
    #[serde(skip)]
    no_power: Option<String>,
    /// Why it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

pub(super) fn run(args: &Args, mut shapes: BTreeMap<String, Vec<usize>>, global: &Global) -> anyhow::Result<()> {
    let batch = refuse(args)?;
    let model = OnnxModel::read(&args.model)?;
    let manifest = Manifest::beside(&args.model)?.unwrap_or_default();
    shapes::add_picture(&mut shapes, &model.inputs()?, &manifest.input);
    // An open dimension is asked for before anything is converted.
    let profile = profile(&model, &shapes, batch as usize)?;
    let backend = choose(args, global)?;
    let plans = backend.format() == ModelFormat::Plan;
    let plan_args = PlanArgs::local(profile);
    let compiler = if plans { Compiler::new(&plan_args, global)? } else { None };
    let evidence = Evidence::gather(&model, &manifest, args.calibration.as_deref(), args.evaluation.as_deref())?;
    let scores = scores(&model, &manifest)?;
    let trial = Trial {
        model: args.model.clone(),
        manifest: None,
        pictures: evidence.paths().to_vec(),
        scores,
        thresholds: any_answer(),
        golden: None,
        precise: false,
    };
    let judge = models::any_backend(global)?;
    let workshop = Workshop {
        cleaned: cleaned(&*judge, &model)?,
        judge,
        scores,
        model,
        manifest,
        evidence,
        backend,
        compiler,
        trial,
        shapes,
        args,
        global,
    };

    let mut rows: Vec<Row> = Vec::new();
    for &precision in &args.precision {
        let mut row = workshop.row(precision)?;
        if let Some(failure) = &row.failure {
            warn!("{} is not measured: {failure}", precision.name());
        }
        let throughput = |row: &Row| row.measured.as_ref().map(|measured| measured.throughput_per_s);
        let first = rows.iter().find_map(throughput).or_else(|| throughput(&row));
        row.speed_up = throughput(&row).zip(first).map(|(this, first)| this / first);
        rows.push(row);
    }
    let without = rows.iter().filter(|row| row.measured.is_none()).count();
    let report = Report {
        version: REPORT_VERSION,
        model: args.model.display().to_string(),
        measured_on: workshop.backend.version()?,
        plans,
        sessions: args.sessions,
        threads: args.backend.threads(),
        compared_on: if workshop.evidence.frames().is_empty() { "noise" } else { "pictures" },
        no_power: rows.iter().find_map(|row| row.no_power.clone()),
        precisions: rows,
    };
    match args.json {
        true => say(&serde_json::to_string_pretty(&report)?)?,
        false => say(&render::report(&report, &args.percentiles))?,
    }
    ensure!(without == 0, "{without} of {} precisions could not be measured", report.precisions.len());
    Ok(())
}

/// What cannot be, before any work; the one batch size.
fn refuse(args: &Args) -> anyhow::Result<u32> {
    let path = args.model.display();
    let &[batch] = args.batch.as_slice() else {
        return Err(Misuse("`--precision` compares one batch size; give one with `--batch`".to_owned()).into());
    };
    if Bundle::is_at(&args.model) || ModelSource::of(&args.model).format() == ModelFormat::Plan {
        let text = format!("`--precision` converts an ONNX model, which `{path}` is not any more");
        return Err(Misuse(text).into());
    }
    if args.precision.contains(&Precision::Int8) && args.calibration.is_none() {
        let text = "INT8 needs pictures to calibrate with: give a folder with `--calibration`";
        return Err(Misuse(text.to_owned()).into());
    }
    Ok(batch)
}

/// What runs the models: TensorRT where there is a GPU, unless a backend of the CPU was asked for.
fn choose(args: &Args, global: &Global) -> anyhow::Result<Arc<dyn Backend>> {
    let (all, choice) = (models::all_backends(global), args.backend.choice());
    let asked_for = |name: &str| matches!(&choice, BackendChoice::Named(named) if named == name);
    if choice == BackendChoice::Auto || asked_for("tensorrt") {
        match device(&choice, &all, global) {
            Ok(device) => return Ok(device),
            Err(reason) if choice == BackendChoice::Auto => {
                warn!("there is no GPU to measure plans on, the CPU runs the converted graphs: {reason:#}");
            }
            Err(reason) => return Err(reason),
        }
    }
    let selected = select(&choice, &all, ModelFormat::Onnx)?;
    info!("{}", selected.reason);
    Ok(selected.backend)
}

fn device(choice: &BackendChoice, all: &[Arc<dyn Backend>], global: &Global) -> anyhow::Result<Arc<dyn Backend>> {
    let backend = select(choice, all, ModelFormat::Plan)?.backend;
    let library = crate::tensorrt::library(global)?;
    ensure!(library.can_build(), "`{}` builds no plans", library.path().display());
    Ok(backend)
}

impl Row {
    /// Of the output that lost most.
    fn cosine_min(&self) -> Option<f64> {
        Some(self.compared()?.outputs.iter().map(|output| output.cosine_min).fold(1.0, f64::min))
    }

    fn top1(&self) -> Option<f64> {
        Some(self.compared()?.top?.top1)
    }

    fn boxes(&self) -> Option<BoxAgreement> {
        self.compared()?.boxes
    }

    fn memory(&self) -> Option<&Memory> {
        self.measured.as_ref().map(|measured| &measured.memory)
    }

    fn compared(&self) -> Option<&Comparison> {
        self.plan_comparison.as_ref().or(self.comparison.as_ref())
    }
}

/// What every precision is made and measured with.
struct Workshop<'a> {
    model: OnnxModel,
    manifest: Manifest,
    /// Runs the models whose answers are compared.
    judge: Arc<dyn Backend>,
    cleaned: Cleaned,
    scores: Option<usize>,
    evidence: Evidence,
    /// Runs what is measured.
    backend: Arc<dyn Backend>,
    /// Where that runs plans.
    compiler: Option<Compiler<'a>>,
    /// What a plan is held against, which is refused for no difference.
    trial: Trial,
    /// As far as they are given, batch included.
    shapes: BTreeMap<String, Vec<usize>>,
    args: &'a Args,
    global: &'a Global,
}

/// What is read of the report of the process that measured.
#[derive(Deserialize)]
struct Told {
    no_power: Option<String>,
    results: Vec<Measured>,
}

impl Workshop<'_> {
    fn row(&self, precision: Precision) -> anyhow::Result<Row> {
        info!("{}", precision.name());
        let mut row = Row {
            precision,
            model_bytes: None,
            plan_bytes: None,
            kept: Vec::new(),
            comparison: None,
            plan_comparison: None,
            speed_up: None,
            measured: None,
            no_power: None,
            failure: None,
        };
        let recipe = Recipe {
            precision,
            keep: Keep::default(),
            // What overflows stays as it is.
            mixed: true,
            thresholds: any_answer(),
            scores: self.scores,
            method: Method::default(),
            calibration: self.evidence.calibration(),
            evaluation: self.evidence.evaluation(),
            opset_max: OPSET_MAX,
        };
        let accuracy = |row: &mut Row, accuracy: Accuracy| {
            row.kept = accuracy.kept;
            row.comparison = Some(accuracy.comparison);
        };
        let (model, manifest) = (&self.model, &self.manifest);
        let converted = convert(&*self.judge, model, &self.cleaned, &recipe, &Timed::default())
            .and_then(|converted| boxes::judge(None, model, manifest, &self.judge, &self.evidence, converted));
        match converted {
            Ok(converted) => {
                accuracy(&mut row, converted.accuracy);
                row.model_bytes = Some(converted.model.encode().len());
                match self.measure(&converted.model, &mut row) {
                    Ok(told) => (row.measured, row.no_power) = (told.results.into_iter().next(), told.no_power),
                    Err(error) => row.failure = Some(format!("{error:#}")),
                }
            }
            Err(ConvertError::Refused(refusal)) => {
                row.failure = Some(ConvertError::Refused(refusal.clone()).to_string());
                accuracy(&mut row, refusal.accuracy);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot convert the model to {}", precision.name()));
            }
        }
        Ok(row)
    }

    fn measure(&self, model: &OnnxModel, row: &mut Row) -> anyhow::Result<Told> {
        let folder = tempfile::tempdir().context("cannot create a folder for the model")?;
        let Some(compiler) = &self.compiler else {
            let path = folder.path().join("model.onnx");
            fs::write(&path, model.encode()).context("cannot write the model")?;
            return self.in_child(&path);
        };
        let path = folder.path().join("model.plan");
        let bundle = hash(&model.encode());
        let (manifest, precision, trial) = (&self.manifest, row.precision, self.trial.clone());
        let subject = Subject { model, manifest, bundle, precision, trial };
        let built = compiler.plan(&subject, &keys::owner(None)?, &path)?;
        row.plan_bytes = Some(built.bytes);
        row.plan_comparison = Some(match built.comparison {
            Some(comparison) => comparison,
            // One of the cache was compared with whatever there was then.
            None => self.trial.comparison(&Plan::read(&path)?, model, self.global)?,
        });
        self.in_child(&path)
    }

    /// Measures what lies at `path`.
    fn in_child(&self, path: &Path) -> anyhow::Result<Told> {
        let Args { batch, sessions, duration, warm_up, percentiles, .. } = self.args;
        let percentiles: Vec<String> = percentiles.iter().map(ToString::to_string).collect();
        let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
        command.arg("bench").arg(path).args(["--json", "--log", &self.global.log, "--backend", self.backend.name()]);
        command.args(["--batch", &batch[0].to_string(), "--sessions", &sessions.to_string()]);
        command.args(["--duration", &duration.to_string(), "--warm-up", &warm_up.to_string()]);
        command.args(["--percentiles", &percentiles.join(",")]);
        for (input, shape) in &self.shapes {
            command.args(["--shape", &format!("{input}={}", shapes::text(shape))]);
        }
        if let Some(threads) = self.args.backend.threads() {
            command.args(["--threads", &threads.to_string()]);
        }
        self.global.pass_libraries(&mut command);
        let output = command.stdin(Stdio::null()).output().context("cannot start the process that measures")?;
        let mut reason = None;
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            match reported(line) {
                Some(said) => reason = Some(said.to_owned()),
                None => eprintln!("{line}"),
            }
        }
        if !output.status.success() {
            bail!(reason.unwrap_or_else(|| format!("the process that measures ended with {}", output.status)));
        }
        serde_json::from_slice(&output.stdout).context("cannot read what was measured")
    }
}

/// Nothing is refused but infinities.
fn any_answer() -> Thresholds {
    Thresholds { cosine_min: None, ..Thresholds::default() }
}

/// The shapes that are measured, of inputs that leave some open, as `--profile` takes them. A batch of one runs too: a
/// plan is tried with it.
fn profile(model: &OnnxModel, shapes: &BTreeMap<String, Vec<usize>>, rows: usize) -> anyhow::Result<Vec<String>> {
    let inputs = model.inputs()?;
    let shapes = shapes_for(&inputs, shapes, rows)?;
    let open = inputs.iter().filter(|spec| spec.dims.iter().any(|dim| dim.fixed().is_none()));
    let text = |spec: &TensorSpec| {
        let measured = &shapes.inputs[&spec.name];
        let mut least = measured.clone();
        if spec.dims[0].fixed().is_none() {
            least[0] = 1;
        }
        let measured = shapes::text(measured);
        format!("{}={}:{measured}:{measured}", spec.name, shapes::text(&least))
    };
    Ok(open.map(text).collect())
}
