//! How long each layer of a plan takes.
//!
//! TensorRT's profiler slows a run down, and a run that it looks at cannot be replayed as a whole. So this is a pass
//! of its own after the measurement: its figures say where the time goes, not how fast the plan is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use revoada_engine::{Engine, Layer, LayerTime};
use serde::{Deserialize, Serialize};

use super::inputs::{Filled, shapes_for};
use super::measure::Load;

/// Enough for a median, whatever a run takes.
const RUNS_MIN: usize = 10;
/// More would not change the picture.
const RUNS_MAX: usize = 100;
/// Beyond the fewest runs.
const TIME_MAX: Duration = Duration::from_secs(2);

/// Of one pass.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Layers {
    pub(crate) runs: usize,
    /// Of a whole run, layer by layer.
    pub(crate) mean_ms: f64,
    /// In the order in which they run.
    pub(crate) layers: Vec<MeasuredLayer>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MeasuredLayer {
    pub(crate) name: String,
    /// What runs it, where TensorRT tells.
    pub(crate) kind: Option<String>,
    /// The types of what goes in and comes out, each once.
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) mean_ms: f64,
    pub(crate) median_ms: f64,
    /// Of the whole run's time, 0 to 1.
    pub(crate) share: f64,
}

/// `None` where the backend does not know layers.
pub(crate) fn time_layers(engine: &dyn Engine, load: &Load<'_>) -> anyhow::Result<Option<Layers>> {
    let rows = load.batch as usize;
    let mut filled = Filled::open(engine, &shapes_for(engine.inputs(), load.shapes, rows)?, 0)?;
    // The first run prepares.
    if filled.session.time_layers(rows)?.is_none() {
        return Ok(None);
    }
    let mut seen = Seen::default();
    let started = Instant::now();
    while seen.runs < RUNS_MIN || (seen.runs < RUNS_MAX && started.elapsed() < TIME_MAX) {
        seen.add(filled.session.time_layers(rows)?.unwrap_or_default());
    }
    Ok(Some(seen.layers(&engine.layers()?.unwrap_or_default())))
}

/// The times of each layer, by name.
#[derive(Default)]
struct Seen {
    runs: usize,
    /// In the order in which they were seen first.
    names: Vec<String>,
    times: BTreeMap<String, Vec<Duration>>,
}

impl Seen {
    fn add(&mut self, run: Vec<LayerTime>) {
        // What one run does several times counts as one.
        let mut sums: BTreeMap<String, Duration> = BTreeMap::new();
        for LayerTime { name, time } in run {
            if !self.times.contains_key(&name) {
                self.names.push(name.clone());
                self.times.insert(name.clone(), Vec::new());
            }
            *sums.entry(name).or_default() += time;
        }
        for (name, time) in sums {
            self.times.entry(name).or_default().push(time);
        }
        self.runs += 1;
    }

    fn layers(mut self, known: &[Layer]) -> Layers {
        let runs = self.runs.max(1) as f64;
        let total: Duration = self.times.values().flatten().sum();
        let known: BTreeMap<&str, &Layer> = known.iter().map(|layer| (layer.name.as_str(), layer)).collect();
        let mut measured = Vec::new();
        for name in self.names {
            let mut times = self.times.remove(&name).unwrap_or_default();
            times.sort();
            let sum: Duration = times.iter().sum();
            let layer = known.get(name.as_str());
            measured.push(MeasuredLayer {
                kind: layer.and_then(|layer| layer.kind.clone()),
                inputs: layer.map(|layer| types(&layer.inputs)).unwrap_or_default(),
                outputs: layer.map(|layer| types(&layer.outputs)).unwrap_or_default(),
                mean_ms: sum.as_secs_f64() * 1e3 / runs,
                median_ms: times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3),
                share: sum.as_nanos() as f64 / total.as_nanos().max(1) as f64,
                name,
            });
        }
        Layers { runs: self.runs, mean_ms: total.as_secs_f64() * 1e3 / runs, layers: measured }
    }
}

/// Each once, in TensorRT's words where those name no type.
fn types(tensors: &[revoada_tensorrt::InspectedTensor]) -> Vec<String> {
    let mut types = Vec::new();
    for tensor in tensors {
        let name = match tensor.data_type {
            revoada_tensorrt::DataType::Other => tensor.format.clone(),
            known => known.to_string(),
        };
        if !types.contains(&name) {
            types.push(name);
        }
    }
    types
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_runs_twice_is_one_and_shares_add_up() {
        let ms = |name: &str, ms| LayerTime { name: name.to_owned(), time: Duration::from_millis(ms) };
        let mut seen = Seen::default();
        for slow in [1, 3, 2] {
            seen.add(vec![ms("first", 1), ms("conv", slow), ms("conv", 2)]);
        }
        let layers = seen.layers(&[]);
        assert_eq!((layers.runs, layers.mean_ms), (3, 5.0));
        let told: Vec<_> =
            layers.layers.iter().map(|layer| (layer.name.as_str(), layer.mean_ms, layer.median_ms)).collect();
        assert_eq!(told, [("first", 1.0, 1.0), ("conv", 4.0, 4.0)]);
        assert!((layers.layers.iter().map(|layer| layer.share).sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
