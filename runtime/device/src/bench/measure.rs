//! One engine under load: sessions on threads of their own that submit and wait, over and over.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use revoada_builder::compile::peak_bytes;
use revoada_engine::{Engine, Timings};
use serde::{Deserialize, Serialize};

use super::inputs::{Filled, shapes_for};
use super::layers::Layers;
use super::power::PowerMeter;
use super::times::{Spread, Times};
use crate::terminal::progress;

/// How an engine is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) batch: u32,
    /// That run at the same time.
    pub(crate) sessions: u32,
    /// Whether inputs are set before each inference, not only before the first.
    pub(crate) transfers: bool,
    /// Of inputs whose dimensions are open.
    pub(crate) shapes: &'a BTreeMap<String, Vec<usize>>,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) percentiles: &'a [f64],
    pub(crate) meter: Option<&'a PowerMeter>,
}

/// What was measured, as `--json` prints it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) batch: u32,
    /// Of whole batches.
    pub(crate) inferences: u64,
    /// From the first submit to the last answer.
    pub(crate) seconds: f64,
    /// Whole batches a second over all sessions, which `trtexec` calls queries.
    pub(crate) inferences_per_s: f64,
    /// Pictures (rows) a second over all sessions.
    pub(crate) throughput_per_s: f64,
    /// Of one inference of a whole batch, as its caller waits for it.
    pub(crate) latency_ms: Spread,
    /// Of backends that run on a device of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<DeviceMeasured>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) power: Option<Power>,
    pub(crate) memory: Memory,
    /// Of a pass of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layers: Option<Layers>,
}

/// By the names that `trtexec` has for them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DeviceMeasured {
    /// The way to the device, the computation and the way back, without what the CPU does in between.
    pub(crate) latency_ms: Spread,
    /// The CPU's time in `submit`.
    pub(crate) enqueue_ms: Spread,
    pub(crate) h2d_ms: Spread,
    pub(crate) compute_ms: Spread,
    pub(crate) d2h_ms: Spread,
    /// Sum over all inferences.
    pub(crate) compute_s: f64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// The most that the process has had resident until the end of the measurement, loading included; `None` where the
    /// system does not tell.
    pub(crate) peak_bytes: Option<u64>,
    /// On a device: what the engine and the sessions took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_bytes: Option<u64>,
}

/// Averages over the measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Power {
    /// What was read.
    pub(crate) source: String,
    pub(crate) watts: f64,
    pub(crate) frames_per_s_per_watt: f64,
}

/// Times of one session, or of all.
#[derive(Default)]
struct Run {
    round_trips: Times,
    device: Option<DeviceTimes>,
    took: Duration,
}

#[derive(Default)]
struct DeviceTimes {
    latency: Times,
    enqueue: Times,
    upload: Times,
    compute: Times,
    download: Times,
}

/// Measures after a warm-up, in which a device has reached its speed and a backend has settled.
pub(crate) fn measure(engine: &dyn Engine, load: &Load<'_>) -> anyhow::Result<Measured> {
    let rows = load.batch as usize;
    let shapes = shapes_for(engine.inputs(), load.shapes, rows)?;
    let open = |seed| Filled::open(engine, &shapes, seed);
    let sessions: Vec<Filled> = (0..u64::from(load.sessions)).map(open).collect::<anyhow::Result<_>>()?;

    let bar = progress(load.duration.as_millis() as u64, &format!("batch {}", load.batch));
    // The threads that measure, and this one, which starts reading the power then.
    let start = Barrier::new(sessions.len() + 1);
    let ((sessions, runs), watts) = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (index, mut session) in sessions.into_iter().enumerate() {
            let (start, bar) = (&start, (index == 0).then_some(&bar));
            threads.push(scope.spawn(move || {
                let warmed = run_for(&mut session, rows, load.transfers, load.warm_up, None);
                // Every thread reaches the barrier, also the one that failed.
                start.wait();
                let run = warmed.and_then(|_| run_for(&mut session, rows, load.transfers, load.duration, bar));
                (session, run)
            }));
        }
        start.wait();
        let sampling = load.meter.map(|meter| meter.start(scope));
        let joined = threads.into_iter().map(|thread| thread.join().expect("a measuring thread does not panic"));
        let ended: (Vec<Filled>, Vec<anyhow::Result<Run>>) = joined.unzip();
        (ended, sampling.and_then(|sampling| sampling.stop()))
    });
    bar.finish_and_clear();

    let (mut all, mut inferences_per_s) = (Run::default(), 0.0);
    for run in runs {
        let run = run?;
        inferences_per_s += run.round_trips.count() as f64 / run.took.as_secs_f64();
        all.add(&run);
    }
    let memory = Memory { peak_bytes: peak_bytes(), device_bytes: engine.device_bytes()?.map(|bytes| bytes as u64) };
    drop(sessions);
    let throughput_per_s = inferences_per_s * f64::from(load.batch);
    let power = load.meter.zip(watts).filter(|(_, watts)| *watts > 0.0).map(|(meter, watts)| Power {
        source: meter.source.clone(),
        watts,
        frames_per_s_per_watt: throughput_per_s / watts,
    });
    Ok(Measured {
        batch: load.batch,
        inferences: all.round_trips.count(),
        seconds: all.took.as_secs_f64(),
        inferences_per_s,
        throughput_per_s,
        latency_ms: all.round_trips.spread(load.percentiles),
        device: all.device.map(|times| times.measured(load.percentiles)),
        power,
        memory,
        layers: None,
    })
}

/// Runs at least once, until `duration` is over.
fn run_for(
    filled: &mut Filled,
    rows: usize,
    transfers: bool,
    duration: Duration,
    bar: Option<&ProgressBar>,
) -> anyhow::Result<Run> {
    let mut run = Run::default();
    let started = Instant::now();
    loop {
        let begun = Instant::now();
        if transfers {
            filled.set()?;
        }
        filled.session.submit(rows)?;
        let timings = filled.session.wait()?.timings;
        run.record(begun.elapsed(), &timings);
        let elapsed = started.elapsed();
        if let Some(bar) = bar {
            bar.set_position(elapsed.as_millis() as u64);
        }
        if elapsed >= duration {
            run.took = elapsed;
            return Ok(run);
        }
    }
}

impl Run {
    fn record(&mut self, round_trip: Duration, timings: &Timings) {
        self.round_trips.record(round_trip);
        if let Some(device) = timings.device {
            let times = self.device.get_or_insert_default();
            times.latency.record(device.upload + timings.inference + device.download);
            times.enqueue.record(device.enqueue);
            times.upload.record(device.upload);
            times.compute.record(timings.inference);
            times.download.record(device.download);
        }
    }

    fn add(&mut self, other: &Self) {
        self.round_trips.add(&other.round_trips);
        self.took = self.took.max(other.took);
        if let Some(other) = &other.device {
            let times = self.device.get_or_insert_default();
            times.latency.add(&other.latency);
            times.enqueue.add(&other.enqueue);
            times.upload.add(&other.upload);
            times.compute.add(&other.compute);
            times.download.add(&other.download);
        }
    }
}

impl DeviceTimes {
    fn measured(&self, percentiles: &[f64]) -> DeviceMeasured {
        DeviceMeasured {
            latency_ms: self.latency.spread(percentiles),
            enqueue_ms: self.enqueue.spread(percentiles),
            h2d_ms: self.upload.spread(percentiles),
            compute_ms: self.compute.spread(percentiles),
            d2h_ms: self.download.spread(percentiles),
            compute_s: self.compute.total().as_secs_f64(),
        }
    }
}
