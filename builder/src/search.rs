//! Which layers must keep their precision for a model's answers to be good.
//!
//! First the samples are run in f32 and in low precision with every value between layers in view: a layer that
//! reads or writes a number beyond f16's range does not become f16, whatever the answers say. Where that does
//! not suffice, layers are converted one at a time, and the answers tell how much damage each does alone; then
//! the worst are kept, as few as it takes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use revoada_bundle::onnx::proto::NodeProto;
use revoada_bundle::onnx::{ElementType, OnnxModel};
use revoada_core::{Tensor, TensorRef};
use revoada_engine::Backend;
use serde::Serialize;

use crate::BuilderError;
use crate::compare::{Comparison, Failure, OutputDifference, Report, Thresholds, compare};
use crate::emulate::emulate;
use crate::observe::observe;
use crate::run::{Runner, Samples, sample};
use crate::typing::moves;

#[derive(Clone, Debug, PartialEq)]
pub struct SearchOptions {
    /// What the mixed model must reach.
    pub thresholds: Thresholds,
    /// The output with a score for each class, of classifiers.
    pub scores: Option<usize>,
    /// Layers that are tried one at a time; the ones that add most to the error of what they read come first,
    /// the rest are converted.
    pub layers_max: usize,
    /// Samples on which they are tried.
    pub layer_samples_max: usize,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { thresholds: Thresholds::default(), scores: None, layers_max: 256, layer_samples_max: 4 }
    }
}

/// What one layer does to the model in low precision.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerDamage {
    pub node: String,
    pub op: String,
    /// The largest magnitude, in f32, of what it reads and writes.
    pub largest: f32,
    /// Whether that is beyond the range of the precision.
    pub overflows: bool,
    /// The share of its answers that are zero, and are not in f32.
    pub vanishing: f64,
    /// What it adds to the error of what it reads, when the whole model is converted: the length of the error
    /// over the length of its answer. Infinite where it makes an infinity.
    pub error_added: f64,
    /// The error of the model's worst output when this layer alone is converted; `None` where it was not
    /// tried.
    pub error_alone: Option<f64>,
    /// Whether it keeps its precision in the proposal.
    pub kept: bool,
}

/// What a search found, for conversions to `C`.
#[derive(Clone, Debug)]
pub struct Search<C> {
    /// The proposal: the model with the fewest layers kept that passes, or with all of the damaging layers
    /// kept where none passes.
    pub proposal: C,
    /// The proposal against the model that it was made of.
    pub report: Report,
    /// What the proposal fails; empty where it passes.
    pub failures: Vec<Failure>,
    /// The same of the model with no layer kept but those that the caller named and those that cannot be
    /// converted.
    pub report_all: Report,
    pub failures_all: Vec<Failure>,
    /// Layers that are converted, or would be; the most damaging first.
    pub layers: Vec<LayerDamage>,
}

/// A precision that a model can be converted to, layer by layer.
pub(crate) trait Conversion {
    type Converted: Clone;

    /// The model with everything converted but the nodes of these labels, and what the caller keeps.
    fn convert(&self, kept: &BTreeSet<String>) -> Result<Self::Converted, BuilderError>;

    fn model(converted: &Self::Converted) -> &OnnxModel;

    /// Whether a node, by its label, is among those that were converted.
    fn is_converted(converted: &Self::Converted, node: &NodeProto) -> bool;

    /// The largest magnitude of the precision, where it has one.
    fn largest(&self) -> Option<f32>;
}

/// Searches with the answers of f32 and of [`emulate`](emulate())d low precision on `samples`.
pub(crate) fn search<C: Conversion>(
    backend: &dyn Backend,
    model: &OnnxModel,
    samples: &dyn Samples,
    conversion: &C,
    options: &SearchOptions,
) -> Result<Search<C::Converted>, BuilderError> {
    // Emulated, the reference may have nodes that the model has not.
    let labels = model.edit()?.nodes().iter().map(NodeProto::label).collect();
    let trial = Trial { backend, reference: emulate(model)?, labels, samples, conversion, options };
    let all = trial.judge(&BTreeSet::new())?;
    let mut layers = trial.look(&all.converted)?;

    let mut kept: BTreeSet<String> =
        layers.iter().filter(|layer| layer.overflows).map(|layer| layer.node.clone()).collect();
    let mut best = if kept.is_empty() { all.clone() } else { trial.judge(&kept)? };
    if !best.failures.is_empty() {
        trial.try_each(&mut layers, &kept)?;
        best = trial.keep_worst(&layers, &mut kept)?;
    }
    for layer in &mut layers {
        layer.kept = kept.contains(&layer.node);
    }
    layers.sort_by(by_damage);
    let Judged { converted: proposal, report, failures } = best;
    let Judged { report: report_all, failures: failures_all, .. } = all;
    Ok(Search { proposal, report, failures, report_all, failures_all, layers })
}

/// The most damaging first: what overflows, then what was tried, then what adds to errors.
fn by_damage(a: &LayerDamage, b: &LayerDamage) -> Ordering {
    let alone = |layer: &LayerDamage| layer.error_alone.unwrap_or(-1.0);
    let overflow = b.overflows.cmp(&a.overflows);
    overflow.then(alone(b).total_cmp(&alone(a))).then(b.error_added.total_cmp(&a.error_added))
}

/// A conversion and what came of it.
#[derive(Clone)]
struct Judged<C> {
    converted: C,
    report: Report,
    failures: Vec<Failure>,
}

struct Trial<'a, C> {
    backend: &'a dyn Backend,
    /// In f32 throughout, for the backend's sake.
    reference: OnnxModel,
    /// Of the model's nodes.
    labels: BTreeSet<String>,
    samples: &'a dyn Samples,
    conversion: &'a C,
    options: &'a SearchOptions,
}

impl<C: Conversion> Trial<'_, C> {
    fn judge(&self, kept: &BTreeSet<String>) -> Result<Judged<C::Converted>, BuilderError> {
        let converted = self.conversion.convert(kept)?;
        let emulated = emulate(C::model(&converted))?;
        let report = compare(self.backend, &self.reference, &emulated, self.samples, self.options.scores)?;
        let failures = report.failures(&self.options.thresholds);
        Ok(Judged { converted, report, failures })
    }

    /// Every layer that would be converted, with what its values look like.
    fn look(&self, all: &C::Converted) -> Result<Vec<LayerDamage>, BuilderError> {
        let graph = self.reference.edit()?;
        let types = graph.types();
        let emulated = emulate(C::model(all))?;
        let there = emulated.edit()?.types();
        // What is made inside a nested graph is not in view, nor is a constant.
        let is_float =
            |name: &&String| [&types, &there].iter().all(|types| types.get(*name) == Some(&ElementType::FLOAT));
        let made = graph.nodes().iter().flat_map(|node| &node.output);
        let inputs: Vec<String> = graph.inputs().iter().map(|info| info.name().to_owned()).collect();
        let values: Vec<String> = inputs.iter().chain(made).filter(is_float).cloned().collect();
        let mut sums = vec![ValueSums::default(); values.len()];
        observe(self.backend, &[&self.reference, &emulated], &values, self.samples, &mut |value, tensors| {
            if let [reference, converted] = tensors {
                sums[value].add(reference, converted);
            }
        })?;
        let sums: HashMap<&str, ValueSums> = values.iter().map(String::as_str).zip(sums).collect();
        let layer = |node: &NodeProto| {
            let of = |names: &[String]| -> Vec<ValueSums> {
                names.iter().filter_map(|name| sums.get(name.as_str()).copied()).collect()
            };
            let (read, written) = (of(&node.input), of(&node.output));
            let seen = !(written.is_empty() && read.is_empty());
            if !seen || !self.labels.contains(&node.label()) || !C::is_converted(all, node) {
                return None;
            }
            let largest = read.iter().chain(&written).fold(0f32, |largest, sums| largest.max(sums.largest));
            let error = |list: &[ValueSums]| list.iter().fold(0f64, |worst, sums| worst.max(sums.error()));
            Some(LayerDamage {
                node: node.label(),
                op: node.op_type().to_owned(),
                largest,
                overflows: self.conversion.largest().is_some_and(|bound| largest > bound),
                vanishing: written.iter().fold(0f64, |worst, sums| worst.max(sums.vanishing())),
                error_added: added(error(&read), error(&written)),
                error_alone: None,
                kept: false,
            })
        };
        Ok(graph.nodes().iter().filter_map(layer).collect())
    }

    /// Converts layers one at a time; `kept` ones are not tried.
    fn try_each(&self, layers: &mut [LayerDamage], kept: &BTreeSet<String>) -> Result<(), BuilderError> {
        let count = self.samples.count().min(self.options.layer_samples_max.max(1));
        let mut runner = Runner::load(self.backend, &self.reference)?;
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
            let emulated = emulate(C::model(&self.conversion.convert(&others)?))?;
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
        let graph = self.reference.edit()?;
        Ok(graph.nodes().iter().filter(|node| moves(node)).map(|node| node.label()).collect())
    }

    /// Keeps the fewest of the most damaging layers with which the model passes, all that were tried where it
    /// never does. More layers kept are taken to be no worse, so that the number can be found by halving.
    fn keep_worst(
        &self,
        layers: &[LayerDamage],
        kept: &mut BTreeSet<String>,
    ) -> Result<Judged<C::Converted>, BuilderError> {
        let mut tried: Vec<&LayerDamage> = layers.iter().filter(|layer| layer.error_alone.is_some()).collect();
        tried.sort_by(|a, b| by_damage(a, b));
        let forced = kept.clone();
        let with = |count: usize| -> BTreeSet<String> {
            let worst = tried[..count].iter().map(|layer| layer.node.clone());
            forced.iter().cloned().chain(worst).collect()
        };
        let mut judged: BTreeMap<usize, Judged<C::Converted>> = BTreeMap::new();
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
        let passed = |judged: &BTreeMap<usize, Judged<C::Converted>>, count| judged[&count].failures.is_empty();
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
    let error = |output: &OutputDifference| match output.not_finite {
        0 => output.relative,
        _ => f64::INFINITY,
    };
    report.outputs.iter().map(error).fold(0.0, f64::max)
}

/// One value in f32 and in low precision, over all samples.
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
    fn add(&mut self, reference: &TensorRef<'_>, converted: &TensorRef<'_>) {
        let (Some(reference), Some(converted)) = (reference.as_slice::<f32>(), converted.as_slice::<f32>()) else {
            return;
        };
        for (a, b) in reference.iter().zip(converted).filter(|(a, _)| a.is_finite()) {
            self.largest = self.largest.max(a.abs());
            self.elements += 1;
            self.vanishing += u64::from(*a != 0.0 && *b == 0.0);
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
