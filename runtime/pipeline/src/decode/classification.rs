//! Classifiers: one score per class.

use std::sync::Arc;

use revoada_bundle::manifest::Activation;
use revoada_core::{Classification, Placement, Prediction, TensorRef, TensorSpec};
use revoada_engine::Readback;

use super::boxes::Common;
use super::outputs::{Row, check_labels, whole_if};
use super::{DecodeError, Decoder, DecoderContext, activation};

pub(super) const NAME: &str = "classification";
const EXPECTED: &str = "scores `[N,classes]`";
const RESULTS_MAX: usize = 5;

/// The best classes by falling score: `results_max` of them, however unsure they are, unless the
/// manifest names a `score_min`.
///
/// Where the manifest does not say whether a softmax is still to be applied, the values do: they
/// are logits unless they are non-negative and sum to one.
pub(super) struct ClassificationDecoder {
    common: Common,
    output: usize,
    activation: Option<Activation>,
    labels: usize,
}

pub(super) fn build(context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
    context.check_roles(NAME, &["scores"])?;
    let output = context.only(NAME, "scores", EXPECTED, is_row_of_scores)?;
    let sizes = context.outputs[output].dims[1..].iter().map(|dim| dim.fixed());
    if let Some(classes) = sizes.product::<Option<usize>>() {
        context.check_labels(classes)?;
    }
    Ok(Arc::new(ClassificationDecoder {
        common: Common::with_defaults(NAME, context, 0.0, RESULTS_MAX),
        output,
        activation: context.manifest.activation,
        labels: context.labels,
    }))
}

/// `[N,C]`, `[N,C,1,1]`, `[N,1,1,C]`: at most one dimension beside the batch is not 1.
fn is_row_of_scores(spec: &TensorSpec) -> bool {
    spec.dims.len() >= 2 && spec.dims[1..].iter().filter(|dim| dim.fixed() != Some(1)).count() <= 1
}

impl Decoder for ClassificationDecoder {
    fn name(&self) -> &str {
        NAME
    }

    fn reads(&self, output: usize) -> Readback {
        whole_if(output == self.output)
    }

    fn finds_boxes(&self) -> bool {
        false
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, _: &Placement) -> Result<Prediction, DecodeError> {
        let row = Row::read(NAME, outputs, self.output, row)?;
        if row.shape.iter().filter(|size| **size != 1).count() > 1 {
            return Err(self.common.unreadable(format!("expected {EXPECTED}, got {:?} per picture", row.shape)));
        }
        check_labels(row.values.len(), self.labels)?;
        let mut scores = row.values.into_owned();
        match self.activation {
            Some(Activation::None) => {}
            Some(Activation::Sigmoid) => scores.iter_mut().for_each(|score| *score = activation::sigmoid(*score)),
            Some(Activation::Softmax) => activation::softmax(&mut scores),
            None if activation::is_distribution(&scores) => {}
            None => activation::softmax(&mut scores),
        }
        let mut found: Vec<Classification> = Vec::new();
        let mut non_finite = 0;
        for (class, score) in (0u32..).zip(scores) {
            if !score.is_finite() {
                non_finite += 1;
            } else if score >= self.common.score_min {
                found.push(Classification { class, score });
            }
        }
        self.common.count_non_finite(non_finite);
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(self.common.results_max());
        Ok(Prediction { classifications: found, ..Prediction::default() })
    }

    fn non_finite(&self) -> u64 {
        self.common.non_finite()
    }
}
