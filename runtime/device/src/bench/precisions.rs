//! `--precision fp32,fp16,int8`: what a model gains by each, and what it loses.
//!
//! Each is converted as `revoada build` converts it, but nothing is refused for its answers: they are reported. Where
//! there is a GPU, what is measured is a plan compiled for it, else the converted graph on the CPU, which is another
//! thing, and said so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context, ensure};
use revoada_builder::Keep;
use revoada_builder::clean::Cleaned;
use revoada_builder::compare::{Report as Comparison, Thresholds};
use revoada_builder::convert::{Accuracy, ConvertError, Recipe, convert};
use revoada_builder::int8::Method;
use revoada_bundle::bundle::{Bundle, Precision};
use revoada_bundle::hash;
use revoada_bundle::manifest::Manifest;
use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::plan::PlanAccuracy;
use revoada_core::TensorSpec;
use revoada_engine::{Backend, BackendChoice, LoadOptions, ModelFormat, ModelSource, select};
use serde::Serialize;
use tracing::{info, warn};

use super::inputs::shapes_for;
use super::measure::{Load, Measured, measure};
use super::times::name_of;
use super::{Args, REPORT_VERSION, meter};
use crate::Global;
use crate::build::evidence::Evidence;
use crate::build::plan::{Compiler, PlanArgs, Subject};
use crate::build::steps::Timed;
use crate::build::trial::Trial;
use crate::build::{OPSET_MAX, cleaned, scores};
use crate::failure::Misuse;
use crate::keys;
use crate::models;
use crate::terminal::{say, table};

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
    plan_accuracy: Option<PlanAccuracy>,
    /// Against the first that was measured.
    speed_up: Option<f64>,
    measured: Option<Measured>,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
}

pub(super) fn run(args: &Args, global: &Global, load: &Load<'_>) -> anyhow::Result<()> {
    let batch = refuse(args)?;
    let model = OnnxModel::read(&args.model)?;
    let manifest = Manifest::beside(&args.model)?.unwrap_or_default();
    // An open dimension is asked for before anything is converted.
    let profile = profile(&model, load.shapes, batch as usize)?;
    let backend = choose(args, global)?;
    let plans = backend.format() == ModelFormat::Plan;
    let plan_args = PlanArgs::local(profile);
    let compiler = if plans { Compiler::new(&plan_args, global)? } else { None };
    let power = meter(backend.format());
    let load = Load { batch, transfers: plans, meter: power.as_ref().ok(), ..*load };
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
        load,
        options: LoadOptions {
            threads: args.backend.threads(),
            concurrent_max: args.sessions as usize,
            ..LoadOptions::default()
        },
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
        no_power: power.as_ref().err().cloned(),
        precisions: rows,
    };
    match args.json {
        true => say(&serde_json::to_string_pretty(&report)?)?,
        false => say(&render(&report, &args.percentiles))?,
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
    /// Of the output that lost most, in what was measured.
    fn cosine_min(&self) -> Option<f64> {
        let of_graph = |found: &Comparison| found.outputs.iter().map(|output| output.cosine_min).fold(1.0, f64::min);
        let of_plan = self.plan_accuracy.as_ref().map(|plan| plan.cosine_min);
        of_plan.or_else(|| self.comparison.as_ref().map(of_graph))
    }

    fn top1(&self) -> Option<f64> {
        let of_plan = self.plan_accuracy.as_ref().and_then(|plan| plan.top1);
        of_plan.or_else(|| Some(self.comparison.as_ref()?.top?.top1))
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
    load: Load<'a>,
    options: LoadOptions,
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
            plan_accuracy: None,
            speed_up: None,
            measured: None,
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
        let converted = convert(&*self.judge, &self.model, &self.cleaned, &recipe, &Timed::default());
        match converted {
            Ok(converted) => {
                accuracy(&mut row, converted.accuracy);
                row.model_bytes = Some(converted.model.encode().len());
                if let Err(error) = self.measure(&converted.model, &mut row) {
                    row.failure = Some(format!("{error:#}"));
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

    fn measure(&self, model: &OnnxModel, row: &mut Row) -> anyhow::Result<()> {
        let engine = match &self.compiler {
            Some(compiler) => {
                let folder = tempfile::tempdir().context("cannot create a folder for the plan")?;
                let path = folder.path().join("model.plan");
                let bundle = hash(&model.encode());
                let (manifest, precision, trial) = (&self.manifest, row.precision, self.trial.clone());
                let subject = Subject { model, manifest, bundle, precision, trial };
                let built = compiler.plan(&subject, &keys::owner(None)?, &path)?;
                (row.plan_bytes, row.plan_accuracy) = (Some(built.bytes), built.accuracy);
                self.backend.load(ModelSource::Plan(&path), &self.options)?
            }
            None => self.backend.load(ModelSource::Bytes(&model.encode()), &self.options)?,
        };
        row.measured = Some(measure(&*engine, &self.load)?);
        Ok(())
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
        let words = |shape: &[usize]| shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        let measured = &shapes.inputs[&spec.name];
        let mut least = measured.clone();
        if spec.dims[0].fixed().is_none() {
            least[0] = 1;
        }
        let measured = words(measured);
        format!("{}={}:{measured}:{measured}", spec.name, words(&least))
    };
    Ok(open.map(text).collect())
}

/// What a column shows of a row; a dash where there is nothing.
type Figure = Box<dyn Fn(&Row) -> Option<String>>;

fn render(report: &Report, percentiles: &[f64]) -> String {
    let rows = &report.precisions;
    // A column that nobody has a figure for is left out.
    let has = |figure: fn(&Row) -> bool| rows.iter().any(figure);
    let plans = has(|row| row.plan_bytes.is_some());
    let top = has(|row| row.top1().is_some());
    let power = has(|row| row.measured.as_ref().is_some_and(|measured| measured.power.is_some()));

    let mut columns: Vec<(String, Figure)> = Vec::new();
    let mut column = |name: &str, figure: Figure| columns.push((name.to_owned(), figure));
    let mib = |bytes: usize| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    column("precision", Box::new(|row| Some(row.precision.name().to_owned())));
    column("model MiB", Box::new(move |row| row.model_bytes.map(mib)));
    if plans {
        column("plan MiB", Box::new(move |row| row.plan_bytes.map(mib)));
    }
    let measured =
        |figure: fn(&Measured) -> String| -> Figure { Box::new(move |row| row.measured.as_ref().map(figure)) };
    column("frames/s", measured(|measured| format!("{:.1}", measured.throughput_per_s)));
    column("median ms", measured(|measured| format!("{:.2}", measured.latency_ms.median)));
    for percent in percentiles {
        let name = name_of(*percent);
        let figure = name.clone();
        column(
            &format!("{name} ms"),
            Box::new(move |row| Some(format!("{:.2}", row.measured.as_ref()?.latency_ms.percentiles[&figure]))),
        );
    }
    column("speed-up", Box::new(|row| row.speed_up.map(|ratio| format!("{ratio:.2}"))));
    column("cosine min", Box::new(|row| Some(format!("{:.5}", row.cosine_min()?))));
    if top {
        column("top-1", Box::new(|row| Some(format!("{:.1} %", row.top1()? * 100.0))));
    }
    if power {
        let watts = |figure: fn(&super::measure::Power) -> f64| -> Figure {
            Box::new(move |row| Some(format!("{:.2}", figure(row.measured.as_ref()?.power.as_ref()?))))
        };
        column("W", watts(|power| power.watts));
        column("frames/s/W", watts(|power| power.frames_per_s_per_watt));
    }

    let mut lines = vec![columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()];
    for row in rows {
        lines.push(columns.iter().map(|(_, figure)| figure(row).unwrap_or_else(|| "–".to_owned())).collect());
    }
    format!(
        "{} on {}, {} session(s)\n\n{}\n{}",
        report.model,
        report.measured_on,
        report.sessions,
        table(&lines),
        notes(report)
    )
}

fn notes(report: &Report) -> String {
    let mut text = String::new();
    for row in &report.precisions {
        let name = row.precision.name();
        if let Some(failure) = &row.failure {
            let _ = writeln!(text, "{name} was not measured: {failure}");
        }
        if row.precision != Precision::Fp32 && !row.kept.is_empty() {
            let _ = writeln!(text, "{name} keeps {} layer(s) as they are: {}", row.kept.len(), some_of(&row.kept));
        }
    }
    let samples = report.precisions.iter().filter_map(|row| row.comparison.as_ref()).map(|found| found.samples).max();
    let _ = writeln!(
        text,
        "Answers are compared with the original's on {} {}{}.",
        samples.unwrap_or(0),
        if report.compared_on == "noise" { "samples of noise, which says little" } else { "pictures" },
        if report.plans { ", by the plan itself" } else { "" }
    );
    if !report.plans {
        let cpu = "Measured on the CPU, which is often slower at FP16 and INT8 than at FP32: it says nothing of a GPU.";
        let _ = writeln!(text, "{cpu}");
    }
    match &report.no_power {
        Some(reason) => {
            let _ = writeln!(text, "Power is not shown: {reason}.");
        }
        None => {
            let power = report.precisions.iter().find_map(|row| row.measured.as_ref()?.power.as_ref());
            let source = power.map_or("nothing, it could not be read any more", |power| &power.source);
            let _ = writeln!(text, "Power is that of {source}.");
        }
    }
    text
}

/// The first few names.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
