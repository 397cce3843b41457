//! How far a converted model's answers are from those of the model it was made of.
//!
//! ```
//! use revoada_builder::compare::{Comparison, Thresholds};
//! use revoada_core::{Tensor, TensorRef};
//!
//! let mut comparison = Comparison::new(&["scores"], Some(0));
//! let reference = Tensor::of(vec![1, 3], vec![0.1f32, 0.7, 0.2])?;
//! let candidate = Tensor::of(vec![1, 3], vec![0.1f32, 0.3, 0.6])?;
//! comparison.add(&[reference.as_ref()], &[candidate.as_ref()])?;
//! let report = comparison.report();
//! assert_eq!(report.top.as_ref().map(|top| top.top1), Some(0.0));
//! let failures = report.failures(&Thresholds { top1_min: Some(0.9), ..Thresholds::default() });
//! assert_eq!(failures.last().unwrap().to_string(), "top-1 agreement is 0.0000, at least 0.9 is asked");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod thresholds;

use std::sync::Arc;

use revoada_bundle::onnx::OnnxModel;
use revoada_core::{Cosine, TensorRef};
use revoada_engine::{Backend, Engine};
use serde::{Deserialize, Serialize};

use crate::BuilderError;
use crate::run::{Runner, Samples, sample};

pub use revoada_core::{BoxAgreement, BoxMatches, match_boxes};
pub use thresholds::{Direction, Failure, Thresholds};

/// Answers of two models to the same inputs, summed up as they come.
#[derive(Clone, Debug)]
pub struct Comparison {
    outputs: Vec<OutputSums>,
    /// The output that holds a score for each class.
    scores: Option<usize>,
    top: TopSums,
    samples: usize,
}

#[derive(Clone, Debug, Default)]
struct OutputSums {
    name: String,
    elements: u64,
    /// Of differences, where both are finite.
    sum_abs: f64,
    max_abs: f64,
    squares_lost: f64,
    squares_whole: f64,
    reference_max_abs: f64,
    cosine_sum: f64,
    cosine_min: f64,
    /// Elements that are finite in the reference alone.
    not_finite: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct TopSums {
    rows: usize,
    top1: usize,
    top5: usize,
}

impl Comparison {
    /// `scores` is the index of the output whose last dimension holds a score for each class, where the
    /// model is a classifier.
    pub fn new(outputs: &[&str], scores: Option<usize>) -> Self {
        let sums = |name: &&str| OutputSums { name: (*name).to_owned(), cosine_min: 1.0, ..OutputSums::default() };
        Self { outputs: outputs.iter().map(sums).collect(), scores, top: TopSums::default(), samples: 0 }
    }

    /// Adds the outputs of one inference of each model, in the order of the names. Refused where they differ
    /// in number or shape, or are not numbers.
    pub fn add(&mut self, reference: &[TensorRef<'_>], candidate: &[TensorRef<'_>]) -> Result<(), BuilderError> {
        let describe = |tensor: Option<&TensorRef<'_>>| match tensor {
            Some(tensor) => format!("{}{:?}", tensor.dtype(), tensor.shape()),
            None => "missing".to_owned(),
        };
        for (index, sums) in self.outputs.iter_mut().enumerate() {
            let pair = (reference.get(index), candidate.get(index));
            let (Some(left), Some(right)) = pair else {
                let (left, right) = (describe(pair.0), describe(pair.1));
                return Err(BuilderError::Outputs { output: sums.name.clone(), left, right });
            };
            if left.shape() != right.shape() {
                let (left, right) = (describe(Some(left)), describe(Some(right)));
                return Err(BuilderError::Outputs { output: sums.name.clone(), left, right });
            }
            let (left, right) = (left.data().to_f64(), right.data().to_f64());
            sums.add(&left, &right);
            if self.scores == Some(index) {
                let classes = reference[index].shape().last().copied().unwrap_or(1).max(1);
                for (left, right) in left.chunks_exact(classes).zip(right.chunks_exact(classes)) {
                    self.top.add(left, right);
                }
            }
        }
        self.samples += 1;
        Ok(())
    }

    pub fn report(&self) -> Report {
        let share = |count: usize| count as f64 / self.top.rows.max(1) as f64;
        Report {
            samples: self.samples,
            outputs: self.outputs.iter().map(|sums| sums.difference(self.samples)).collect(),
            top: self.scores.map(|_| TopAgreement {
                rows: self.top.rows,
                top1: share(self.top.top1),
                top5: share(self.top.top5),
            }),
            boxes: None,
        }
    }
}

impl OutputSums {
    fn add(&mut self, reference: &[f64], candidate: &[f64]) {
        let mut cosine = Cosine::default();
        for (a, b) in reference.iter().zip(candidate) {
            self.elements += 1;
            // What overflows in both is no fault of the conversion.
            if !a.is_finite() {
                continue;
            }
            self.reference_max_abs = self.reference_max_abs.max(a.abs());
            if !b.is_finite() {
                self.not_finite += 1;
                continue;
            }
            let difference = (a - b).abs();
            self.sum_abs += difference;
            self.max_abs = self.max_abs.max(difference);
            self.squares_lost += difference * difference;
            self.squares_whole += a * a;
            cosine.add(*a, *b);
        }
        let cosine = cosine.value();
        self.cosine_sum += cosine;
        self.cosine_min = self.cosine_min.min(cosine);
    }

    fn difference(&self, samples: usize) -> OutputDifference {
        OutputDifference {
            name: self.name.clone(),
            cosine: if samples == 0 { 1.0 } else { self.cosine_sum / samples as f64 },
            cosine_min: self.cosine_min,
            max_abs: self.max_abs,
            mean_abs: self.sum_abs / self.elements.max(1) as f64,
            relative: match self.squares_whole > 0.0 {
                true => (self.squares_lost / self.squares_whole).sqrt(),
                false => self.squares_lost.sqrt(),
            },
            reference_max_abs: self.reference_max_abs,
            not_finite: self.not_finite,
        }
    }
}

impl TopSums {
    fn add(&mut self, reference: &[f64], candidate: &[f64]) {
        self.rows += 1;
        let Some(&best) = top(reference, 1).first() else { return };
        let candidates = top(candidate, 5);
        self.top1 += usize::from(candidates.first() == Some(&best));
        self.top5 += usize::from(candidates.contains(&best));
    }
}

/// Indices of the largest numbers, the largest first; of equal ones the first, and NaN last.
fn top(scores: &[f64], count: usize) -> Vec<usize> {
    let score = |index: &usize| if scores[*index].is_nan() { f64::NEG_INFINITY } else { scores[*index] };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| score(b).total_cmp(&score(a)));
    order.truncate(count);
    order
}

/// What was found; for a report, and for [`Thresholds`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Inferences compared.
    pub samples: usize,
    pub outputs: Vec<OutputDifference>,
    /// Of classifiers.
    pub top: Option<TopAgreement>,
    /// Of detectors, where the caller decoded the answers; see [`match_boxes`].
    pub boxes: Option<BoxAgreement>,
}

/// How one output differs, over all samples. Differences are of elements that are finite in both models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputDifference {
    pub name: String,
    /// The cosine of the angle between the answers to one sample, mean and least.
    pub cosine: f64,
    pub cosine_min: f64,
    pub max_abs: f64,
    pub mean_abs: f64,
    /// The length of the difference over the length of the reference (Euclidean).
    pub relative: f64,
    /// The largest magnitude in the reference, to judge the differences by.
    pub reference_max_abs: f64,
    /// Elements that are infinite or NaN, and finite in the reference.
    pub not_finite: u64,
}

/// How often a classifier's answers agree, as shares of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopAgreement {
    pub rows: usize,
    /// The best class is the same.
    pub top1: f64,
    /// The reference's best class is among the five best.
    pub top5: f64,
}

/// Runs both models on every sample. Outputs are compared by place and named as in `reference`; `scores` is
/// as in [`Comparison::new`].
pub fn compare_engines(
    reference: &Arc<dyn Engine>,
    candidate: &Arc<dyn Engine>,
    samples: &dyn Samples,
    scores: Option<usize>,
) -> Result<Report, BuilderError> {
    compare_runs(Runner::of(Arc::clone(reference)), Runner::of(Arc::clone(candidate)), samples, scores)
}

/// The same for models, which are loaded here.
pub fn compare(
    backend: &dyn Backend,
    reference: &OnnxModel,
    candidate: &OnnxModel,
    samples: &dyn Samples,
    scores: Option<usize>,
) -> Result<Report, BuilderError> {
    compare_runs(Runner::load(backend, reference)?, Runner::load(backend, candidate)?, samples, scores)
}

fn compare_runs(
    mut left: Runner,
    mut right: Runner,
    samples: &dyn Samples,
    scores: Option<usize>,
) -> Result<Report, BuilderError> {
    if samples.count() == 0 {
        return Err(BuilderError::NoSamples);
    }
    let names: Vec<String> = left.outputs().iter().map(|spec| spec.name.clone()).collect();
    if let Some(output) = scores.filter(|index| *index >= names.len()) {
        return Err(BuilderError::NoSuchOutput { output, count: names.len() });
    }
    let mut comparison = Comparison::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), scores);
    for index in 0..samples.count() {
        let inputs = sample(samples, index)?;
        comparison.add(&left.run(index, &inputs)?, &right.run(index, &inputs)?)?;
    }
    Ok(comparison.report())
}

#[cfg(test)]
mod tests {
    use revoada_core::Tensor;

    use super::*;

    fn compared(reference: &[f32], candidate: &[f32]) -> Report {
        let tensor = |numbers: &[f32]| Tensor::of(vec![1, numbers.len()], numbers.to_vec()).unwrap();
        let mut comparison = Comparison::new(&["y"], Some(0));
        comparison.add(&[tensor(reference).as_ref()], &[tensor(candidate).as_ref()]).unwrap();
        comparison.report()
    }

    #[test]
    fn differences_are_what_their_names_say() {
        let output = compared(&[3.0, 4.0, 0.0], &[3.0, 4.0, 1.0]).outputs.remove(0);
        assert!((output.cosine - 5.0 / 26f64.sqrt()).abs() < 1e-12);
        assert_eq!((output.max_abs, output.mean_abs), (1.0, 1.0 / 3.0));
        assert_eq!((output.relative, output.reference_max_abs), (0.2, 4.0));
        let same = compared(&[0.0, 0.0], &[0.0, 0.0]).outputs.remove(0);
        assert_eq!((same.cosine, same.relative), (1.0, 0.0));
        assert_eq!(compared(&[0.0, 0.0], &[0.0, 1.0]).outputs[0].cosine, 0.0);
    }

    #[test]
    fn an_infinity_is_counted_unless_the_reference_has_one() {
        let output = compared(&[1.0, 2.0, f32::NAN], &[1.0, f32::INFINITY, f32::NAN]).outputs.remove(0);
        assert_eq!(output.not_finite, 1);
        assert_eq!(output.max_abs, 0.0);
    }

    #[test]
    fn top_classes_agree_by_rank() {
        let reference = [0.0, 1.0, 2.0, 3.0, 4.0, 9.0];
        let top = |candidate: &[f32]| compared(&reference, candidate).top.map(|top| (top.top1, top.top5));
        assert_eq!(top(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]), Some((1.0, 1.0)));
        assert_eq!(top(&[1.0, 2.0, 3.0, 4.0, 5.0, 1.5]), Some((0.0, 1.0)));
        assert_eq!(top(&[1.0, 2.0, 3.0, 4.0, 5.0, 0.0]), Some((0.0, 0.0)));
        assert_eq!(top(&[f32::NAN; 6]), Some((0.0, 0.0)));
    }

    #[test]
    fn answers_of_different_shapes_are_refused() {
        let (a, b) = (Tensor::of(vec![1, 2], vec![0f32; 2]).unwrap(), Tensor::of(vec![2], vec![0f32; 2]).unwrap());
        let error = Comparison::new(&["y"], None).add(&[a.as_ref()], &[b.as_ref()]).unwrap_err();
        assert_eq!(error.to_string(), "output `y` is f32[1, 2] in one model and f32[2] in the other");
    }
}
