//! The way from a model to its converted self, gate included: clean, rewrite, compare.

use revoada_bundle::bundle::Precision;
use revoada_bundle::onnx::OnnxModel;
use revoada_engine::Backend;
use serde::Serialize;
use thiserror::Error;

use crate::clean::{CleanReport, Cleaned};
use crate::compare::{Failure, Report, Thresholds, compare};
use crate::fp16::{self, Fp16, Fp16Options};
use crate::int8::{self, Calibration, Int8, Int8Options, Method};
use crate::search::{LayerDamage, Search, SearchOptions};
use crate::{BuilderError, Keep, Samples, emulate, mixed_nodes};

/// What a converted model is to be.
pub struct Recipe<'a> {
    pub precision: Precision,
    /// Layers that keep the precision that they have.
    pub keep: Keep,
    /// Takes the mixed model where the one asked for fails and the mixed one passes.
    pub mixed: bool,
    pub thresholds: Thresholds,
    /// The output with a score for each class, of classifiers.
    pub scores: Option<usize>,
    pub method: Method,
    /// For INT8.
    pub calibration: Option<&'a dyn Samples>,
    /// On what the converted model is compared with the original.
    pub evaluation: &'a dyn Samples,
    /// Of the compiler.
    pub opset_max: i64,
}

/// A model that passed its gate.
#[derive(Clone, Debug)]
pub struct Converted {
    pub model: OnnxModel,
    pub accuracy: Accuracy,
    /// Of INT8.
    pub calibration: Option<Calibration>,
}

/// How good a converted model is, and what it took: the accuracy report of a bundle.
#[derive(Clone, Debug, Serialize)]
pub struct Accuracy {
    pub version: u32,
    pub precision: Precision,
    pub thresholds: Thresholds,
    /// The converted model against the original.
    pub comparison: Report,
    pub failures: Vec<Failure>,
    pub clean: CleanReport,
    /// Nodes that compute in lower precision than they did.
    pub lowered_nodes: usize,
    /// Layers that kept their precision, so that the answers are good or because there was no other way.
    pub kept: Vec<String>,
    /// Layers by the damage that they do; empty where the first try passed.
    pub layers: Vec<LayerDamage>,
}

/// The version of [`Accuracy`] as it is written.
pub const ACCURACY_VERSION: u32 = 1;

/// What is told while a model is converted.
pub trait Steps {
    fn step(&self, what: &str);
}

impl Steps for () {
    fn step(&self, _: &str) {}
}

#[derive(Debug, Error)]
pub enum ConvertError {
    #[error("INT8 needs pictures to calibrate with")]
    NoCalibration,
    /// The gate.
    #[error("the {} model is not accurate enough: {}", .0.accuracy.precision.name(), sentences(&.0.accuracy.failures))]
    Refused(Box<Refusal>),
    /// A bug of the conversion, caught before a compiler trips over it.
    #[error("the converted graph mixes precisions at node `{node}`")]
    Mixed { node: String },
    #[error(transparent)]
    Builder(#[from] BuilderError),
}

/// A model that did not pass, and what would.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub accuracy: Accuracy,
    /// Layers to be kept for the model to pass; `None` where keeping layers does not suffice.
    pub proposal: Option<Vec<String>>,
}

fn sentences(failures: &[Failure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Converts what [`clean`](crate::clean::clean) made of a model and holds its answers against the original's. The search for layers to blame, which runs
/// the model very often, begins only where it fails.
pub fn convert(
    backend: &dyn Backend,
    original: &OnnxModel,
    cleaned: &Cleaned,
    recipe: &Recipe<'_>,
    steps: &dyn Steps,
) -> Result<Converted, ConvertError> {
    let work = Work { backend, original, cleaned: &cleaned.model, clean: cleaned.report.clone(), recipe, steps };
    match recipe.precision {
        Precision::Fp32 => work.judge(Attempt::unchanged(&cleaned.model), None),
        Precision::Fp16 => work.half(),
        Precision::Int8 => work.quantised(),
    }
}

struct Work<'a> {
    backend: &'a dyn Backend,
    original: &'a OnnxModel,
    cleaned: &'a OnnxModel,
    clean: CleanReport,
    recipe: &'a Recipe<'a>,
    steps: &'a dyn Steps,
}

/// A graph in the precision asked for, and what was kept out of it.
struct Attempt {
    model: OnnxModel,
    lowered_nodes: usize,
    kept: Vec<String>,
}

impl Attempt {
    fn unchanged(model: &OnnxModel) -> Self {
        Self { model: model.clone(), lowered_nodes: 0, kept: Vec::new() }
    }

    fn half(converted: Fp16) -> Self {
        let kept = converted.report.kept.into_iter().map(|node| node.node).collect();
        Self { model: converted.model, lowered_nodes: converted.report.half_nodes, kept }
    }

    /// What is not INT8 becomes f16: a device is fast at both.
    fn quantised(converted: Int8, half: &Fp16Options) -> Result<Self, BuilderError> {
        let Int8 { model, report } = converted;
        Ok(Self { model: fp16::convert(&model, half)?.model, lowered_nodes: report.nodes.len(), kept: report.kept })
    }
}

impl Work<'_> {
    fn half_options(&self) -> Fp16Options {
        Fp16Options { keep: self.recipe.keep.clone(), opset_max: self.recipe.opset_max, ..Fp16Options::default() }
    }

    fn search_options(&self) -> SearchOptions {
        let Recipe { thresholds, scores, .. } = self.recipe;
        SearchOptions { thresholds: thresholds.clone(), scores: *scores, ..SearchOptions::default() }
    }

    fn half(&self) -> Result<Converted, ConvertError> {
        self.steps.step("rewrite the graph to FP16");
        let options = self.half_options();
        let attempt = Attempt::half(fp16::convert(self.cleaned, &options).map_err(BuilderError::from)?);
        let refusal = match self.judge(attempt, None) {
            Err(ConvertError::Refused(refusal)) => refusal,
            other => return other,
        };
        self.steps.step("search for the layers to blame");
        let evaluation = self.recipe.evaluation;
        let search = fp16::search(self.backend, self.cleaned, evaluation, &options, &self.search_options())?;
        self.propose(*refusal, search, None, |found| Ok(Attempt::half(found)))
    }

    fn quantised(&self) -> Result<Converted, ConvertError> {
        let samples = self.recipe.calibration.ok_or(ConvertError::NoCalibration)?;
        self.steps.step("calibrate the ranges of activations");
        let calibration = int8::calibrate(self.backend, self.cleaned, samples, self.recipe.method)?;
        self.steps.step("rewrite the graph to INT8");
        let options = Int8Options { keep: self.recipe.keep.clone(), ..Int8Options::default() };
        let half = self.half_options();
        let attempt = Attempt::quantised(int8::quantize(self.cleaned, &calibration, &options)?, &half)?;
        let refusal = match self.judge(attempt, Some(&calibration)) {
            Err(ConvertError::Refused(refusal)) => refusal,
            other => return other,
        };
        self.steps.step("search for the layers to blame");
        let (evaluation, search) = (self.recipe.evaluation, self.search_options());
        let search = int8::search(self.backend, self.cleaned, evaluation, &calibration, &options, &search)?;
        self.propose(*refusal, search, Some(&calibration), |found| Attempt::quantised(found, &half))
    }

    /// Takes or offers what the search found, after it has passed the same gate.
    fn propose<C>(
        &self,
        refusal: Refusal,
        search: Search<C>,
        calibration: Option<&Calibration>,
        attempt: impl FnOnce(C) -> Result<Attempt, BuilderError>,
    ) -> Result<Converted, ConvertError> {
        let passes = search.failures.is_empty();
        let kept = search.layers.iter().filter(|layer| layer.kept).map(|layer| layer.node.clone()).collect();
        let judged = match passes {
            true => self.judge(attempt(search.proposal)?, calibration).ok(),
            false => None,
        };
        match judged {
            Some(mut converted) if self.recipe.mixed => {
                converted.accuracy.layers = search.layers;
                Ok(converted)
            }
            judged => {
                let accuracy = Accuracy { layers: search.layers, ..refusal.accuracy };
                let proposal = judged.map(|_| kept);
                Err(ConvertError::Refused(Box::new(Refusal { accuracy, proposal })))
            }
        }
    }

    /// The gate: the attempt's answers, as the device would compute them, against the original's.
    fn judge(&self, attempt: Attempt, calibration: Option<&Calibration>) -> Result<Converted, ConvertError> {
        self.steps.step("compare with the original");
        let Attempt { model, lowered_nodes, kept } = attempt;
        let graph = model.edit().map_err(BuilderError::from)?;
        if let Some(mixed) = mixed_nodes(&graph).into_iter().next() {
            return Err(ConvertError::Mixed { node: mixed.node });
        }
        let Recipe { evaluation, scores, thresholds, precision, .. } = self.recipe;
        let emulated = emulate(&model).map_err(BuilderError::from)?;
        let comparison = compare(self.backend, self.original, &emulated, *evaluation, *scores)?;
        let failures = comparison.failures(thresholds);
        let passed = failures.is_empty();
        let accuracy = Accuracy {
            version: ACCURACY_VERSION,
            precision: *precision,
            thresholds: thresholds.clone(),
            comparison,
            failures,
            clean: self.clean.clone(),
            lowered_nodes,
            kept,
            layers: Vec::new(),
        };
        match passed {
            true => Ok(Converted { model, accuracy, calibration: calibration.cloned() }),
            false => Err(ConvertError::Refused(Box::new(Refusal { accuracy, proposal: None }))),
        }
    }
}
