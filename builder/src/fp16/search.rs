//! Which layers must stay f32 for a model's answers to be good.
//!
//! First the samples are run in f32 and in half precision with every value between layers in view: a layer
//! that reads or writes a number beyond f16's range stays f32, whatever the answers say. Where that does not
//! suffice, layers are made half one at a time, and the answers tell how much damage each does alone; then
//! the worst are kept, as few as it takes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use revoada_bundle::onnx::{ElementType, OnnxModel};
use revoada_core::{Tensor, TensorRef};
use revoada_engine::Backend;
use serde::Serialize;

use super::{Fp16, Fp16Options, HALF_MAX, convert};
use crate::BuilderError;
use crate::compare::{Comparison, Failure, Report, Thresholds, compare};
use crate::emulate::emulate;
use crate::observe::observe;
use crate::run::{Runner, Samples, sample};
use crate::typing::moves;

/// Half of the smallest f16: what is smaller becomes zero.
const VANISHES: f32 = 1.0 / 33_554_432.0;

#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// What the mixed model must reach.
    pub thresholds: Thresholds,
    /// The output with a score for each class, of classifiers.
    pub scores: Option<usize>,
    /// What is kept to begin with, and the type of inputs and outputs.
    pub conversion: Fp16Options,
    /// Layers that are tried one at a time; the ones that add most to the error of what they read come first,
    /// the rest stay half.
    pub layers_max: usize,
    /// Samples on which they are tried.
    pub layer_samples_max: usize,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            scores: None,
            conversion: Fp16Options::default(),
            layers_max: 256,
            layer_samples_max: 4,
        }
    }
}

/// What one layer does to the model in half precision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerDamage {
    pub node: String,
    pub op: String,
    /// The largest magnitude, in f32, of what it reads and writes.
    pub largest: f32,
    /// Whether that is beyond f16's range.
    pub overflows: bool,
    /// The share of its answers that vanish in f16 though they are not zero.
    pub vanishing: f64,
    /// What it adds to the error of what it reads, when the whole model is half: the length of the error over
    /// the length of its answer. Infinite where it makes an infinity.
    pub error_added: f64,
    /// The error of the model's worst output when this layer alone is half; `None` where it was not tried.
    pub error_alone: Option<f64>,
    /// Whether it stays f32 in the proposal.
    pub kept: bool,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Search {
    /// The proposal: the model with the fewest layers in f32 that passes, or with all of the damaging layers
    /// in f32 where none passes.
    pub proposal: Fp16,
    /// The proposal against f32.
    pub report: Report,
    /// What the proposal fails; empty where it passes.
    pub failures: Vec<Failure>,
    /// The model with no layer kept but those that the caller named and those whose weights do not fit.
    pub report_all_half: Report,
    pub failures_all_half: Vec<Failure>,
    /// Layers that compute in half precision, or would; the most damaging first.
    pub layers: Vec<LayerDamage>,
}

/// Searches with the answers of f32 and of [`emulate`](crate::emulate())d half precision on `samples`.
pub fn search(
    backend: &dyn Backend,
    model: &OnnxModel,
    samples: &dyn Samples,
    options: &SearchOptions,
) -> Result<Search, BuilderError> {
    let trial = Trial { backend, model, samples, options };
    let all_half = trial.judge(&BTreeSet::new())?;
    let mut layers = trial.look(&all_half.converted)?;

    let mut kept: BTreeSet<String> =
        layers.iter().filter(|layer| layer.overflows).map(|layer| layer.node.clone()).collect();
    let mut best = if kept.is_empty() { all_half.clone() } else { trial.judge(&kept)? };
    if !best.failures.is_empty() {
        trial.try_each(&mut layers, &kept)?;
        best = trial.keep_worst(&layers, &mut kept)?;
    }
    for layer in &mut layers {
        layer.kept = kept.contains(&layer.node);
    }
    layers.sort_by(by_damage);
    let Judged { converted: proposal, report, failures } = best;
    let Judged { report: report_all_half, failures: failures_all_half, .. } = all_half;
    Ok(Search { proposal, report, failures, report_all_half, failures_all_half, layers })
}

/// The most damaging first: what overflows, then what was tried, then what adds to errors.
fn by_damage(a: &LayerDamage, b: &LayerDamage) -> Ordering {
    let alone = |layer: &LayerDamage| layer.error_alone.unwrap_or(-1.0);
    let overflow = b.overflows.cmp(&a.overflows);
    overflow.then(alone(b).total_cmp(&alone(a))).then(b.error_added.total_cmp(&a.error_added))
}

/// A conversion and what came of it.
#[derive(Clone)]
struct Judged {
    converted: Fp16,
    report: Report,
    failures: Vec<Failure>,
}

struct Trial<'a> {
    backend: &'a dyn Backend,
    model: &'a OnnxModel,
    samples: &'a dyn Samples,
    options: &'a SearchOptions,
}

impl Trial<'_> {
    fn convert(&self, kept: &BTreeSet<String>) -> Result<Fp16, BuilderError> {
        let mut conversion = self.options.conversion.clone();
        conversion.keep.nodes.extend(kept.iter().cloned());
        Ok(convert(self.model, &conversion)?)
    }

    fn judge(&self, kept: &BTreeSet<String>) -> Result<Judged, BuilderError> {
        let converted = self.convert(kept)?;
        let emulated = emulate(&converted.model)?;
        let report = compare(self.backend, self.model, &emulated, self.samples, self.options.scores)?;
        let failures = report.failures(&self.options.thresholds);
        Ok(Judged { converted, report, failures })
    }

    /// Every layer that would be half, with what its values look like.
    fn look(&self, all_half: &Fp16) -> Result<Vec<LayerDamage>, BuilderError> {
        let mut graph = self.model.edit()?;
        graph.sort()?;
        let types = graph.types();
        let emulated = emulate(&all_half.model)?;
        let rewritten = emulated.edit()?;
        let there = rewritten.types();
        let is_float = |name: &String| types.get(name) == Some(&ElementType::FLOAT);
        // What is made inside a nested graph is not in view, nor is a constant.
        let made = graph.nodes().iter().flat_map(|node| &node.output);
        let inputs: Vec<String> = graph.inputs().iter().map(|info| info.name().to_owned()).collect();
        let values: Vec<String> = inputs
            .iter()
            .chain(made)
            .filter(|name| is_float(name) && there.get(*name) == Some(&ElementType::FLOAT))
            .cloned()
            .collect();
        let mut sums = vec![ValueSums::default(); values.len()];
        observe(self.backend, &[self.model, &emulated], &values, self.samples, &mut |value, tensors| {
            if let [reference, half] = tensors {
                sums[value].add(reference, half);
            }
        })?;
        let sums: HashMap<&str, ValueSums> = values.iter().map(String::as_str).zip(sums).collect();
        let kept: BTreeSet<&str> = all_half.report.kept.iter().map(|kept| kept.node.as_str()).collect();
        let layer = |node: &revoada_bundle::onnx::proto::NodeProto| {
            let of = |names: &[String]| -> Vec<ValueSums> {
                names.iter().filter_map(|name| sums.get(name.as_str()).copied()).collect()
            };
            let (read, written) = (of(&node.input), of(&node.output));
            let label = node.label();
            if written.is_empty() && read.is_empty() || kept.contains(label.as_str()) {
                return None;
            }
            let largest = read.iter().chain(&written).fold(0f32, |largest, sums| largest.max(sums.largest));
            let error = |list: &[ValueSums]| list.iter().fold(0f64, |worst, sums| worst.max(sums.error()));
            Some(LayerDamage {
                node: label,
                op: node.op_type().to_owned(),
                largest,
                overflows: largest > HALF_MAX,
                vanishing: written.iter().fold(0f64, |worst, sums| worst.max(sums.vanishing())),
                error_added: added(error(&read), error(&written)),
                error_alone: None,
                kept: false,
            })
        };
        Ok(graph.nodes().iter().filter_map(layer).collect())
    }

    /// Makes layers half one at a time; `kept` ones are not tried.
    fn try_each(&self, layers: &mut [LayerDamage], kept: &BTreeSet<String>) -> Result<(), BuilderError> {
        let count = self.samples.count().min(self.options.layer_samples_max.max(1));
        let mut runner = Runner::load(self.backend, self.model)?;
        let mut reference = Vec::with_capacity(count);
        for index in 0..count {
            let outputs = runner.run(index, &sample(self.samples, index)?)?;
            reference.push(outputs.iter().map(TensorRef::to_owned).collect::<Vec<Tensor>>());
        }
        let names: Vec<String> = runner.outputs().iter().map(|spec| spec.name.clone()).collect();
        let movers = self.movers()?;
        let all: BTreeSet<String> = layers.iter().map(|layer| layer.node.clone()).collect();
        let mut order: Vec<usize> = (0..layers.len()).collect();
        order.retain(|index| !kept.contains(&layers[*index].node) && !movers.contains(&layers[*index].node));
        order.sort_by(|a, b| layers[*b].error_added.total_cmp(&layers[*a].error_added));
        order.truncate(self.options.layers_max);
        for index in order {
            let mut others = all.clone();
            others.remove(&layers[index].node);
            let emulated = emulate(&self.convert(&others)?.model)?;
            let mut runner = Runner::load(self.backend, &emulated)?;
            let mut comparison = Comparison::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), None);
            for (index, reference) in reference.iter().enumerate() {
                let reference: Vec<TensorRef<'_>> = reference.iter().map(Tensor::as_ref).collect();
                comparison.add(&reference, &runner.run(index, &sample(self.samples, index)?)?)?;
            }
            layers[index].error_alone = Some(worst(&comparison.report()));
        }
        Ok(())
    }

    /// Layers that only move numbers do no damage of their own.
    fn movers(&self) -> Result<BTreeSet<String>, BuilderError> {
        let graph = self.model.edit()?;
        Ok(graph.nodes().iter().filter(|node| moves(node)).map(|node| node.label()).collect())
    }

    /// Keeps the fewest of the most damaging layers with which the model passes, all that were tried where it
    /// never does. More layers in f32 are taken to be no worse, so that the number can be found by halving.
    fn keep_worst(&self, layers: &[LayerDamage], kept: &mut BTreeSet<String>) -> Result<Judged, BuilderError> {
        let mut tried: Vec<&LayerDamage> = layers.iter().filter(|layer| layer.error_alone.is_some()).collect();
        tried.sort_by(|a, b| by_damage(a, b));
        let forced = kept.clone();
        let with = |count: usize| -> BTreeSet<String> {
            let worst = tried[..count].iter().map(|layer| layer.node.clone());
            forced.iter().cloned().chain(worst).collect()
        };
        let mut judged: BTreeMap<usize, Judged> = BTreeMap::new();
        // Few layers suffice as a rule, so their number grows from below.
        let mut passes = 1.min(tried.len());
        loop {
            let attempt = self.judge(&with(passes))?;
            let passed = attempt.failures.is_empty();
            judged.insert(passes, attempt);
            if passed || passes == tried.len() {
                break;
            }
            passes = (2 * passes).min(tried.len());
        }
        let passed = |judged: &BTreeMap<usize, Judged>, count| judged[&count].failures.is_empty();
        if passed(&judged, passes) {
            let mut fails = judged.keys().copied().filter(|count| *count < passes).max().unwrap_or(0);
            while passes - fails > 1 {
                let middle = fails + (passes - fails) / 2;
                judged.insert(middle, self.judge(&with(middle))?);
                if passed(&judged, middle) { passes = middle } else { fails = middle }
            }
        }
        *kept = with(passes);
        Ok(judged.remove(&passes).expect("each number was judged before it was chosen"))
    }
}

fn added(before: f64, after: f64) -> f64 {
    match (before.is_finite(), after.is_finite()) {
        (true, true) => (after - before).max(0.0),
        (true, false) => f64::INFINITY,
        (false, _) => 0.0,
    }
}

fn worst(report: &Report) -> f64 {
    let error = |output: &crate::compare::OutputDifference| match output.not_finite {
        0 => output.relative,
        _ => f64::INFINITY,
    };
    report.outputs.iter().map(error).fold(0.0, f64::max)
}

/// One value in f32 and in half precision, over all samples.
#[derive(Clone, Copy, Debug, Default)]
struct ValueSums {
    largest: f32,
    elements: u64,
    vanishing: u64,
    not_finite: u64,
    lost: f64,
    whole: f64,
}

impl ValueSums {
    fn add(&mut self, reference: &TensorRef<'_>, half: &TensorRef<'_>) {
        let (Some(reference), Some(half)) = (reference.as_slice::<f32>(), half.as_slice::<f32>()) else { return };
        for (a, b) in reference.iter().zip(half).filter(|(a, _)| a.is_finite()) {
            self.largest = self.largest.max(a.abs());
            self.elements += 1;
            self.vanishing += u64::from(*a != 0.0 && a.abs() < VANISHES);
            if b.is_finite() {
                self.lost += f64::from(a - b).powi(2);
                self.whole += f64::from(*a).powi(2);
            } else {
                self.not_finite += 1;
            }
        }
    }

    fn error(&self) -> f64 {
        match () {
            () if self.not_finite > 0 => f64::INFINITY,
            () if self.whole > 0.0 => (self.lost / self.whole).sqrt(),
            () => self.lost.sqrt(),
        }
    }

    fn vanishing(&self) -> f64 {
        self.vanishing as f64 / self.elements.max(1) as f64
    }
}
