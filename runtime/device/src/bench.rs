//! `revoada bench MODEL`: throughput and latency of one model on one backend, as `trtexec` reports
//! them, and without pictures: what is measured is `submit` and `wait`.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::Context;
use hdrhistogram::Histogram;
use revoada_core::{DType, Tensor, TensorSpec, f16};
use revoada_engine::{Engine, Session, Shapes};
use serde::Serialize;

use crate::Global;
use crate::failure::Misuse;
use crate::models::{self, BackendArgs};
use crate::shapes;
use crate::terminal::{ms, progress, say, table};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    revoada bench model.onnx\n  \
    revoada bench model.onnx --batch 1,4,8 --threads 2\n  \
    revoada bench detector.onnx --shape images=1x3x640x640 --sessions 2 --json")]
pub(crate) struct Args {
    /// The ONNX model, or a bundle.
    model: std::path::PathBuf,
    #[command(flatten)]
    backend: BackendArgs,
    /// Batch sizes to measure, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: Vec<u32>,
    /// Sessions of the one engine that run at the same time, each on its own thread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    sessions: u32,
    /// Shape of an input whose dimensions are open, batch included: `images=1x3x640x640`.
    #[arg(long, value_name = "INPUT=DIMS")]
    shape: Vec<String>,
    /// How long to measure each batch size.
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    duration: f64,
    /// How long to run before measuring.
    #[arg(long, default_value_t = 0.5, value_name = "SECONDS")]
    warm_up: f64,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    backend: &'static str,
    backend_version: String,
    threads: Option<usize>,
    sessions: u32,
    load_ms: f64,
    results: Vec<Measured>,
}

/// One batch size.
#[derive(Debug, Serialize)]
struct Measured {
    batch: u32,
    inferences: u64,
    /// Pictures (rows) a second over all sessions.
    throughput_per_s: f64,
    latency_ms: Latency,
}

/// Of one inference of a whole batch.
#[derive(Debug, Serialize)]
struct Latency {
    min: f64,
    mean: f64,
    median: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

pub(crate) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let (duration, warm_up) = (seconds("duration", args.duration)?, seconds("warm-up", args.warm_up)?);
    let shapes = shapes::parse(&args.shape)?;
    let rows = args.batch.iter().copied().max().unwrap_or(1) as usize;
    let started = Instant::now();
    let loaded = models::load(&args.model, &args.backend, rows, args.sessions as usize, global)?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;

    let mut results = Vec::new();
    for &batch in &args.batch {
        results.push(measure(&*loaded.engine, batch, args.sessions, &shapes, warm_up, duration)?);
    }
    let report = Report {
        model: args.model.display().to_string(),
        backend: loaded.backend.name(),
        backend_version: loaded.backend.version()?,
        threads: args.backend.threads(),
        sessions: args.sessions,
        load_ms,
        results,
    };
    if args.json {
        say(&serde_json::to_string_pretty(&report)?)?;
    } else {
        say(&render(&report))?;
    }
    Ok(())
}

fn seconds(option: &str, value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| *duration <= Duration::from_secs(3600))
        .ok_or_else(|| Misuse(format!("`--{option} {value}` is not between 0 and 3600 seconds")).into())
}

fn measure(
    engine: &dyn Engine,
    batch: u32,
    sessions: u32,
    fixed: &BTreeMap<String, Vec<usize>>,
    warm_up: Duration,
    duration: Duration,
) -> anyhow::Result<Measured> {
    let rows = batch as usize;
    let shapes = shapes_for(engine.inputs(), fixed, rows)?;
    let open = |seed| open_filled(engine, &shapes, seed);
    let sessions: Vec<Box<dyn Session>> = (0..u64::from(sessions)).map(open).collect::<anyhow::Result<_>>()?;

    let bar = progress(duration.as_millis() as u64, &format!("batch {batch}"));
    let start = Arc::new(Barrier::new(sessions.len()));
    let runs: Vec<anyhow::Result<(Histogram<u64>, Duration)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .into_iter()
            .enumerate()
            .map(|(index, mut session)| {
                let (start, bar) = (Arc::clone(&start), (index == 0).then_some(&bar));
                scope.spawn(move || {
                    let warmed = run_for(&mut *session, rows, warm_up, None);
                    // Every thread reaches the barrier, also the one that failed.
                    start.wait();
                    warmed?;
                    run_for(&mut *session, rows, duration, bar)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a measuring thread does not panic")).collect()
    });
    bar.finish_and_clear();

    let mut all = empty_histogram();
    let mut throughput = 0.0;
    for run in runs {
        let (latencies, took) = run?;
        throughput += latencies.len() as f64 * f64::from(batch) / took.as_secs_f64();
        all.add(&latencies).context("cannot merge latencies")?;
    }
    let at = |quantile: f64| all.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Measured {
        batch,
        inferences: all.len(),
        throughput_per_s: throughput,
        latency_ms: Latency {
            min: all.min() as f64 / 1e6,
            mean: all.mean() / 1e6,
            median: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            max: all.max() as f64 / 1e6,
        },
    })
}

/// Nanoseconds, three digits, up to an hour.
fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("the bounds are constant and valid")
}

/// Runs at least once, until `duration` is over.
fn run_for(
    session: &mut dyn Session,
    rows: usize,
    duration: Duration,
    bar: Option<&indicatif::ProgressBar>,
) -> anyhow::Result<(Histogram<u64>, Duration)> {
    let mut latencies = empty_histogram();
    let started = Instant::now();
    loop {
        let submitted = Instant::now();
        session.submit(rows)?;
        session.wait()?;
        latencies.saturating_record(submitted.elapsed().as_nanos() as u64);
        let elapsed = started.elapsed();
        if let Some(bar) = bar {
            bar.set_position(elapsed.as_millis() as u64);
        }
        if elapsed >= duration {
            return Ok((latencies, elapsed));
        }
    }
}

/// Declared shapes with the batch in front, except where `--shape` says otherwise.
fn shapes_for(inputs: &[TensorSpec], fixed: &BTreeMap<String, Vec<usize>>, rows: usize) -> anyhow::Result<Shapes> {
    shapes::check_names(inputs, fixed)?;
    let mut shapes = Shapes::rows(rows);
    for input in inputs {
        let shape = match fixed.get(&input.name) {
            Some(shape) => {
                let mut shape = shape.clone();
                // The batch of `--batch` goes over the one in `--shape` where the model leaves it open.
                if input.dims.first().is_some_and(|dim| dim.fixed().is_none()) && !shape.is_empty() {
                    shape[0] = rows;
                }
                shape
            }
            None => declared_shape(input, rows)?,
        };
        shapes = shapes.with(&input.name, &shape);
    }
    Ok(shapes)
}

fn declared_shape(input: &TensorSpec, rows: usize) -> anyhow::Result<Vec<usize>> {
    input
        .dims
        .iter()
        .enumerate()
        .map(|(index, dim)| match dim.fixed() {
            Some(size) => Ok(size),
            None if index == 0 => Ok(rows),
            None => {
                let question: Vec<String> = input.dims.iter().map(ToString::to_string).collect();
                let text = format!(
                    "input `{input}` leaves `{dim}` open; say how large it is with `--shape {}={}`",
                    input.name,
                    question.join("x")
                );
                Err(Misuse(text).into())
            }
        })
        .collect()
}

fn open_filled(engine: &dyn Engine, shapes: &Shapes, seed: u64) -> anyhow::Result<Box<dyn Session>> {
    let mut session = engine.session(shapes)?;
    for (index, input) in engine.inputs().iter().enumerate() {
        session.set_input(index, noise(input.dtype, &shapes.inputs[&input.name], seed)?.as_ref())?;
    }
    Ok(session)
}

/// Values between 0 and 1 (whole bytes for u8, zeros for indices): a network fed with nothing but
/// zeros can be faster than on pictures.
fn noise(dtype: DType, shape: &[usize], seed: u64) -> anyhow::Result<Tensor> {
    let mut tensor = Tensor::zeros(dtype, shape.to_vec())?;
    // Marsaglia's xorshift64: any nonzero start has the full period.
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u8
    };
    if let Some(values) = tensor.as_mut_slice::<f32>() {
        values.fill_with(|| f32::from(next()) / 255.0);
    } else if let Some(values) = tensor.as_mut_slice::<f16>() {
        values.fill_with(|| f16::from_f32(f32::from(next()) / 255.0));
    } else if let Some(values) = tensor.as_mut_slice::<u8>() {
        values.fill_with(next);
    }
    Ok(tensor)
}

fn render(report: &Report) -> String {
    let mut rows =
        vec![["batch", "frames/s", "min", "mean", "median", "p90", "p95", "p99", "max ms"].map(str::to_owned).to_vec()];
    for result in &report.results {
        let latency = &result.latency_ms;
        let mut row = vec![result.batch.to_string(), format!("{:.1}", result.throughput_per_s)];
        let columns = [latency.min, latency.mean, latency.median, latency.p90, latency.p95, latency.p99, latency.max];
        row.extend(columns.map(|value| ms(Duration::from_secs_f64(value / 1e3))));
        rows.push(row);
    }
    format!(
        "{} on {}, {} session(s), loaded in {:.0} ms\n\n{}",
        report.model,
        report.backend_version,
        report.sessions,
        report.load_ms,
        table(&rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use revoada_core::Dim;

    fn picture() -> TensorSpec {
        TensorSpec {
            name: "images".into(),
            dtype: DType::F32,
            dims: vec![Dim::Dynamic("N".into()), Dim::Fixed(3), Dim::Dynamic("H".into()), Dim::Dynamic("W".into())],
        }
    }

    #[test]
    fn an_open_dimension_is_asked_for_by_name() {
        let error = shapes_for(&[picture()], &BTreeMap::new(), 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "input `images f32[N,3,H,W]` leaves `H` open; say how large it is with `--shape images=Nx3xHxW`"
        );
    }

    #[test]
    fn the_batch_of_the_command_line_wins_over_that_of_a_shape() {
        let fixed = shapes::parse(&["images=1x3x64x32".to_owned()]).unwrap();
        let shapes = shapes_for(&[picture()], &fixed, 4).unwrap();
        assert_eq!(shapes.inputs["images"], [4, 3, 64, 32]);
    }
}
