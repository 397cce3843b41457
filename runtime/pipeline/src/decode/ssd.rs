//! SSD: boxes with classes and scores, as lists or as a score per class and prior box.

use std::sync::Arc;

use revoada_bundle::manifest::{Activation, BoxFormat};
use revoada_core::{Placement, Prediction, Rect, Size, TensorRef};
use revoada_engine::Readback;

use super::boxes::Common;
use super::outputs::{Row, check_labels, fixed, whole_if};
use super::{DecodeError, Decoder, DecoderContext, activation};

pub(super) const NAME: &str = "ssd";
const EXPECTED: &str =
    "boxes `[N,K,4]` with classes `[N,K]` and scores `[N,K]`, or boxes `[N,K,4]` with scores `[N,K,classes]`";

pub(super) const TF_BOXES: &str = "detection_boxes";

/// Boxes are normalised unless the manifest says otherwise: top, left, bottom, right where the
/// output is called `detection_boxes` (TensorFlow), left, top, right, bottom elsewhere.
///
/// With `background`, class 0 is not a result and the labels start after it, unless there are as
/// many labels as the network has classes, background included.
struct Ssd {
    common: Common,
    form: Form,
    boxes: usize,
    scores: usize,
    format: BoxFormat,
    background: bool,
    labels: usize,
    input: Size,
}

enum Form {
    /// Suppressed in the graph: a class and a score for each box, and how many boxes there are.
    Listed { classes: usize, count: Option<usize> },
    /// A score per class for each prior box; a box may be a result of several classes. `None`: a
    /// softmax is applied unless every number could be a probability already.
    Dense { activation: Option<Activation> },
}

pub(super) fn build(context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
    context.check_roles(NAME, &["boxes", "scores", "classes", "count"])?;
    let rank = |index: &usize, rank: usize| context.outputs[*index].dims.len() == rank;
    let boxes = match context.role(NAME, "boxes", &[TF_BOXES, "boxes", "bboxes"])? {
        Some(boxes) => Some(boxes),
        None => {
            (0..context.outputs.len()).find(|index| rank(index, 3) && fixed(&context.outputs[*index], 2) == Some(4))
        }
    };
    let is_boxes = |index: &usize| rank(index, 3) && fixed(&context.outputs[*index], 2).is_none_or(|width| width == 4);
    let boxes = boxes.filter(is_boxes).ok_or_else(|| context.expected(NAME, EXPECTED))?;
    let scores = match context.role(NAME, "scores", &["detection_scores", "scores"])? {
        Some(scores) => Some(scores),
        None => (0..context.outputs.len()).find(|index| *index != boxes && rank(index, 3)),
    };
    let scores = scores.ok_or_else(|| context.expected(NAME, EXPECTED))?;
    let classes = context.role(NAME, "classes", &["detection_classes", "classes", "labels"])?;

    let form = match classes {
        Some(classes) if rank(&scores, 2) && rank(&classes, 2) => {
            let count = context.role(NAME, "count", &["num_detections", "count"])?;
            Form::Listed { classes, count }
        }
        _ if rank(&scores, 3) => {
            if let Some(classes) = fixed(&context.outputs[scores], 2) {
                check_dense_labels(classes, context.labels, context.manifest.background)?;
            }
            Form::Dense { activation: context.manifest.activation }
        }
        _ => return Err(context.expected(NAME, EXPECTED)),
    };
    let usual_format = if context.outputs[boxes].name.starts_with(TF_BOXES) {
        BoxFormat::YxyxNormalized
    } else {
        BoxFormat::XyxyNormalized
    };
    Ok(Arc::new(Ssd {
        common: Common::new(NAME, context),
        form,
        boxes,
        scores,
        format: context.manifest.box_format.unwrap_or(usual_format),
        background: context.manifest.background,
        labels: context.labels,
        input: context.input,
    }))
}

fn check_dense_labels(classes: usize, labels: usize, background: bool) -> Result<(), DecodeError> {
    if background && labels == classes {
        Ok(())
    } else {
        check_labels(classes - usize::from(background && classes > 0), labels)
    }
}

impl Ssd {
    /// In the network's pixels.
    fn bbox(&self, [a, b, c, d]: [f32; 4]) -> Rect {
        let (left, top, right, bottom) = match self.format {
            BoxFormat::Xyxy | BoxFormat::XyxyNormalized => (a, b, c, d),
            BoxFormat::Yxyx | BoxFormat::YxyxNormalized => (b, a, d, c),
        };
        let (width, height) = match self.format {
            BoxFormat::Xyxy | BoxFormat::Yxyx => (1.0, 1.0),
            BoxFormat::XyxyNormalized | BoxFormat::YxyxNormalized => {
                (self.input.width as f32, self.input.height as f32)
            }
        };
        Rect::new(left * width, top * height, (right - left) * width, (bottom - top) * height)
    }

    fn listed(
        &self,
        boxes: &[[f32; 4]],
        scores: &Row<'_>,
        classes: &Row<'_>,
        count: Option<&Row<'_>>,
        placement: &Placement,
    ) -> Result<Prediction, DecodeError> {
        if scores.values.len() != boxes.len() || classes.values.len() != boxes.len() {
            let reason = format!(
                "{} boxes, {} scores and {} classes per picture do not belong together",
                boxes.len(),
                scores.values.len(),
                classes.values.len()
            );
            return Err(self.common.unreadable(reason));
        }
        // A float-to-integer cast saturates, and NaN becomes 0.
        let count = match count {
            None => boxes.len(),
            Some(count) => count.values.first().map_or(0, |count| *count as usize).min(boxes.len()),
        };
        let mut found = self.common.boxes();
        for (index, corners) in boxes.iter().enumerate().take(count) {
            let class = classes.values[index];
            if !class.is_finite() {
                found.skip_non_finite();
                continue;
            }
            // Padding of the list is marked by negative classes.
            let class = class.round() - f32::from(u8::from(self.background));
            if class >= 0.0 {
                found.push(class as u32, scores.values[index], self.bbox(*corners), index);
            }
        }
        found.sorted(placement)
    }

    fn dense(
        &self,
        boxes: &[[f32; 4]],
        scores: Row<'_>,
        activation: Option<Activation>,
        placement: &Placement,
    ) -> Result<Prediction, DecodeError> {
        let [priors, classes] = scores.expect(NAME, "scores `[K,classes]`")?;
        if priors != boxes.len() || classes == 0 {
            let reason =
                format!("{} boxes and scores {:?} per picture do not belong together", boxes.len(), scores.shape);
            return Err(self.common.unreadable(reason));
        }
        check_dense_labels(classes, self.labels, self.background)?;
        let (first, shift) = match self.background {
            false => (0, 0),
            true if self.labels == classes => (1, 0),
            true => (1, 1),
        };
        let activation = activation.unwrap_or_else(|| {
            if activation::are_probabilities(&scores.values) { Activation::None } else { Activation::Softmax }
        });
        let mut found = self.common.boxes();
        let mut activated = vec![0f32; classes];
        for (index, (raw, corners)) in scores.values.chunks_exact(classes).zip(boxes).enumerate() {
            let scores = match activation {
                Activation::None => raw,
                Activation::Sigmoid => {
                    activated.iter_mut().zip(raw).for_each(|(to, from)| *to = activation::sigmoid(*from));
                    &activated
                }
                Activation::Softmax => {
                    activated.copy_from_slice(raw);
                    activation::softmax(&mut activated);
                    &activated
                }
            };
            for (class, score) in scores.iter().enumerate().skip(first) {
                if !score.is_finite() {
                    found.skip_non_finite();
                } else if *score >= self.common.score_min {
                    found.push((class - shift) as u32, *score, self.bbox(*corners), index);
                }
            }
        }
        found.suppressed(placement, |_| Vec::new())
    }
}

impl Decoder for Ssd {
    fn name(&self) -> &str {
        NAME
    }

    fn reads(&self, output: usize) -> Readback {
        let listed = match self.form {
            Form::Listed { classes, count } => output == classes || count == Some(output),
            Form::Dense { .. } => false,
        };
        whole_if(listed || output == self.boxes || output == self.scores)
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let boxes = Row::read(NAME, outputs, self.boxes, row)?;
        let [_, 4] = boxes.expect(NAME, "boxes `[K,4]`")? else {
            return Err(self.common.unreadable(format!("expected boxes `[K,4]` per picture, got {:?}", boxes.shape)));
        };
        let (listed, _) = boxes.values.as_chunks::<4>();
        let scores = Row::read(NAME, outputs, self.scores, row)?;
        match self.form {
            Form::Listed { classes, count } => {
                let classes = Row::read(NAME, outputs, classes, row)?;
                let count = count.map(|count| Row::read(NAME, outputs, count, row)).transpose()?;
                self.listed(listed, &scores, &classes, count.as_ref(), placement)
            }
            Form::Dense { activation } => self.dense(listed, scores, activation, placement),
        }
    }

    fn non_finite(&self) -> u64 {
        self.common.non_finite()
    }
}
