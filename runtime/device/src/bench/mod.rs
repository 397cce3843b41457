//! `revoada bench MODEL`: throughput and latency of one model on one backend, as `trtexec` reports
//! them, and without pictures: what is measured is `submit` and `wait`. With `--precision` a model is
//! converted first, and what it gains is held beside what it loses.

mod inputs;
mod layers;
pub(crate) mod measure;
pub(crate) mod power;
mod precisions;
mod render;
mod times;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use revoada_bundle::bundle::Precision;
use revoada_bundle::manifest::Manifest;
use revoada_engine::ModelFormat;
use serde::Serialize;
use tracing::debug;

use self::measure::{Load, Measured, measure};
use self::power::PowerMeter;
use crate::Global;
use crate::failure::Misuse;
use crate::models::{self, BackendArgs};
use crate::shapes;
use crate::tensorrt;
use crate::terminal::say;

/// Where Linux shows its devices.
const SYSTEM: &str = "/sys";
/// Of what `--json` prints: raised where a field changes its meaning or goes away.
const REPORT_VERSION: u32 = 2;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada bench model.onnx\n  \
    revoada bench model.onnx --batch 1,4,8 --threads 2\n  \
    revoada bench detector.onnx --shape images=1x3x640x640 --sessions 2 --json\n  \
    revoada bench model.plan --layers\n  \
    revoada bench model.onnx --precision fp32,fp16,int8 --calibration photographs/")]
pub(crate) struct Args {
    /// The ONNX model, a bundle, or a plan.
    model: PathBuf,
    #[command(flatten)]
    backend: BackendArgs,
    /// Batch sizes to measure, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: Vec<u32>,
    /// Sessions of the one engine that run at the same time, each on its own thread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    sessions: u32,
    /// Shape of an input whose dimensions are open, batch included: `images=1x3x640x640`; the manifest's size where it is
    /// not given.
    #[arg(long, value_name = "INPUT=DIMS")]
    shape: Vec<String>,
    /// How long to measure each batch size.
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    duration: f64,
    /// How long to run before measuring.
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    warm_up: f64,
    /// Percentiles of the times.
    #[arg(long, value_delimiter = ',', default_value = "90,95,99", value_name = "PERCENT", value_parser = times::parse_percentile)]
    percentiles: Vec<f64>,
    /// Measure each layer of a plan as well, in a pass of its own.
    #[arg(long)]
    layers: bool,
    /// Leave the inputs of a plan where they are, in place of copying them before each inference.
    #[arg(long)]
    no_transfers: bool,
    /// Convert the ONNX model to each of these first (fp32, fp16, int8), and compare.
    #[arg(long, value_delimiter = ',', value_parser = parse_precision, conflicts_with_all = ["layers", "no_transfers"])]
    precision: Vec<Precision>,
    /// A folder of pictures from which the ranges of INT8 are learnt; half of them when there is no
    /// `--evaluation`.
    #[arg(long, value_name = "FOLDER", requires = "precision")]
    calibration: Option<PathBuf>,
    /// A folder of other pictures, on which the answers are compared with the original's.
    #[arg(long, value_name = "FOLDER", requires = "precision")]
    evaluation: Option<PathBuf>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

fn parse_precision(text: &str) -> Result<Precision, String> {
    let known = [Precision::Fp32, Precision::Fp16, Precision::Int8];
    known.into_iter().find(|known| known.name() == text).ok_or_else(|| "expected fp32, fp16 or int8".to_owned())
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    model: String,
    backend: &'static str,
    backend_version: String,
    threads: Option<usize>,
    sessions: u32,
    /// Whether inputs were set before each inference.
    transfers: bool,
    load_ms: f64,
    /// Why there is no power in the results, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_power: Option<String>,
    results: Vec<Measured>,
}

pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let (duration, warm_up) = (seconds("duration", args.duration)?, seconds("warm-up", args.warm_up)?);
    let mut shapes = shapes::parse(&args.shape)?;
    if !args.precision.is_empty() {
        return precisions::run(args, shapes, global);
    }
    let rows = args.batch.iter().copied().max().unwrap_or(1) as usize;
    let started = Instant::now();
    let loaded = models::load(&args.model, &args.backend, rows, args.sessions as usize, global)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    // What runs of a bundle is known only now.
    let format = loaded.backend.format();
    if format != ModelFormat::Plan {
        refuse_without_plan(args)?;
    }
    let manifest = match &loaded.bundle {
        Some(bundle) => Some(bundle.manifest()?),
        None => Manifest::beside(&args.model)?,
    };
    if let Some(manifest) = manifest {
        shapes::add_picture(&mut shapes, loaded.engine.inputs(), &manifest.input);
    }
    let meter = meter(format).inspect_err(|reason| debug!("the power is not measured: {reason}"));

    let transfers = format == ModelFormat::Plan && !args.no_transfers;
    let load = Load {
        batch: 1,
        sessions: args.sessions,
        transfers,
        shapes: &shapes,
        warm_up,
        duration,
        percentiles: &args.percentiles,
        meter: meter.as_ref().ok(),
    };
    let mut results = Vec::new();
    for &batch in &args.batch {
        let load = Load { batch, ..load };
        let mut measured = measure(&*loaded.engine, &load)?;
        if args.layers {
            measured.layers = layers::time_layers(&*loaded.engine, &load)?;
        }
        results.push(measured);
    }
    let report = Report {
        version: REPORT_VERSION,
        model: args.model.display().to_string(),
        backend: loaded.backend.name(),
        backend_version: loaded.backend.version()?,
        threads: args.backend.threads(),
        sessions: args.sessions,
        transfers,
        load_ms,
        no_power: meter.err(),
        results,
    };
    match args.json {
        true => say(&serde_json::to_string_pretty(&report)?)?,
        false => say(&render::report(&report, &args.percentiles))?,
    }
    Ok(())
}

/// Options that would have no effect.
fn refuse_without_plan(args: &Args) -> anyhow::Result<()> {
    let why = match (args.layers, args.no_transfers) {
        (true, _) => {
            "`--layers` needs a plan; the layers of an ONNX model are known once `revoada build` has compiled it"
        }
        (_, true) => "`--no-transfers` needs a plan; the CPU computes where its inputs are",
        _ => return Ok(()),
    };
    Err(Misuse(why.to_owned()).into())
}

/// What measures the power of whoever computes; the error continues a sentence.
fn meter(format: ModelFormat) -> Result<PowerMeter, String> {
    let system = Path::new(SYSTEM);
    match (PowerMeter::of_board(system), format) {
        (Some(board), _) => Ok(board),
        (None, ModelFormat::Onnx) => PowerMeter::of_processor(system),
        (None, ModelFormat::Plan) => {
            let card = tensorrt::device().and_then(|device| Ok(PowerMeter::of_card(&device)?));
            card.map_err(|error| format!("the board has no INA3221 monitor as Jetsons have, and {error:#}"))
        }
    }
}

fn seconds(option: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| *duration <= Duration::from_secs(3600))
        .ok_or_else(|| Misuse(format!("`--{option} {value}` is not between 0 and 3600 seconds")).into())
}
