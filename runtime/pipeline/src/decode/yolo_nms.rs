//! YOLO networks that suppress in the graph: what they give is already a short list.

use std::sync::Arc;

use revoada_core::{Placement, Prediction, Rect, TensorRef, TensorSpec};
use revoada_engine::Readback;

use super::boxes::{Boxes, Common};
use super::outputs::{Row, fixed, floats, tensor, whole_if};
use super::{DecodeError, Decoder, DecoderContext};

pub(super) const NAME: &str = "yolo-nms";
const EXPECTED: &str = "an output `[N,K,6]` (left, top, right, bottom, score, class), an output `[K,7]` (row, left, top, \
     right, bottom, class, score), or the outputs `num_dets`, `det_boxes`, `det_scores`, `det_classes`";

const ROLES: [&str; 5] = ["predictions", "count", "boxes", "scores", "classes"];

/// Sorted and cut to the best `results_max`, but not suppressed again: the network has done it, or
/// was trained not to need it (v10). A manifest that says `nms_iou_max` wants it done: of networks that list every cell.
struct YoloNms {
    common: Common,
    suppress: bool,
    form: Form,
}

enum Form {
    /// `[N,K,6]`: left, top, right, bottom, score, class; the rest of K is filled with scores of 0.
    List(usize),
    /// `[K,7]`: row of the batch, left, top, right, bottom, class, score.
    Flat(usize),
    /// TensorRT's EfficientNMS plugin.
    Plugin { count: usize, boxes: usize, scores: usize, classes: usize },
}

pub(super) fn build(context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
    context.check_roles(NAME, &ROLES)?;
    let suppress = context.manifest.nms_iou_max.is_some();
    Ok(Arc::new(YoloNms { common: Common::new(NAME, context), suppress, form: form(context)? }))
}

fn form(context: &DecoderContext<'_>) -> Result<Form, DecodeError> {
    let parts = [
        context.role(NAME, "count", &["num_dets", "num_detections"])?,
        context.role(NAME, "boxes", &["det_boxes", "detection_boxes"])?,
        context.role(NAME, "scores", &["det_scores", "detection_scores"])?,
        context.role(NAME, "classes", &["det_classes", "detection_classes"])?,
    ];
    if let [Some(count), Some(boxes), Some(scores), Some(classes)] = parts {
        return Ok(Form::Plugin { count, boxes, scores, classes });
    }
    let width = |rank: usize, index: usize, width: usize| {
        move |spec: &TensorSpec| spec.dims.len() == rank && fixed(spec, index).is_none_or(|declared| declared == width)
    };
    if let Ok(output) = context.only(NAME, "predictions", EXPECTED, width(3, 2, 6)) {
        return Ok(Form::List(output));
    }
    context.only(NAME, "predictions", EXPECTED, width(2, 1, 7)).map(Form::Flat)
}

fn corners(values: &[f32]) -> Rect {
    // Not `from_corners`: a box whose right is left of its left is no box.
    Rect::new(values[0], values[1], values[2] - values[0], values[3] - values[1])
}

/// Class numbers come as floats; unused entries are marked by a negative one.
fn class(value: f32) -> Option<u32> {
    (value.is_finite() && value >= 0.0).then_some(value.round() as u32)
}

impl YoloNms {
    fn list(&self, row: &Row<'_>, found: &mut Boxes<'_>) -> Result<(), DecodeError> {
        let [_, 6] = row.expect(NAME, "`[K,6]`")? else {
            return Err(self.common.unreadable(format!("expected `[K,6]` per picture, got {:?}", row.shape)));
        };
        for (index, values) in row.values.chunks_exact(6).enumerate() {
            self.push(found, values[5], values[4], corners(values), index);
        }
        Ok(())
    }

    fn flat(&self, tensor: TensorRef<'_>, row: usize, found: &mut Boxes<'_>) -> Result<(), DecodeError> {
        let [_, 7] = *tensor.shape() else {
            return Err(self.common.unreadable(format!("expected `[K,7]`, got {:?}", tensor.shape())));
        };
        let values = floats(tensor.data(), 0..tensor.data().len());
        let of_row = values.chunks_exact(7).enumerate().filter(|(_, values)| values[0] == row as f32);
        for (index, values) in of_row {
            self.push(found, values[5], values[6], corners(&values[1..]), index);
        }
        Ok(())
    }

    fn push(&self, found: &mut Boxes<'_>, class_value: f32, score: f32, bbox: Rect, index: usize) {
        if let Some(class) = class(class_value) {
            found.push(class, score, bbox, index);
        } else if !class_value.is_finite() {
            found.skip_non_finite();
        }
    }
}

impl Decoder for YoloNms {
    fn name(&self) -> &str {
        NAME
    }

    fn reads(&self, output: usize) -> Readback {
        whole_if(match self.form {
            Form::List(list) | Form::Flat(list) => output == list,
            Form::Plugin { count, boxes, scores, classes } => [count, boxes, scores, classes].contains(&output),
        })
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let mut found = self.common.boxes();
        match self.form {
            Form::List(output) => self.list(&Row::read(NAME, outputs, output, row)?, &mut found)?,
            Form::Flat(output) => self.flat(tensor(NAME, outputs, output)?, row, &mut found)?,
            Form::Plugin { count, boxes, scores, classes } => {
                let [count, boxes, scores, classes] = [
                    Row::read(NAME, outputs, count, row)?,
                    Row::read(NAME, outputs, boxes, row)?,
                    Row::read(NAME, outputs, scores, row)?,
                    Row::read(NAME, outputs, classes, row)?,
                ];
                let (listed, rest) = boxes.values.as_chunks::<4>();
                if !rest.is_empty() || scores.values.len() != listed.len() || classes.values.len() != listed.len() {
                    let reason = format!(
                        "boxes {:?}, scores {:?} and classes {:?} per picture do not belong together",
                        boxes.shape, scores.shape, classes.shape
                    );
                    return Err(self.common.unreadable(reason));
                }
                let Some(count) = count.values.first() else {
                    return Err(self.common.unreadable("the number of detections is an empty tensor"));
                };
                // A float-to-integer cast saturates, and NaN becomes 0.
                for (index, values) in listed.iter().enumerate().take(*count as usize) {
                    self.push(&mut found, classes.values[index], scores.values[index], corners(values), index);
                }
            }
        }
        match self.suppress {
            true => found.suppressed(placement, |_| Vec::new()),
            false => found.sorted(placement),
        }
    }

    fn non_finite(&self) -> u64 {
        self.common.non_finite()
    }
}

#[cfg(test)]
mod tests {
    use revoada_core::Point;

    use super::*;

    #[test]
    fn a_box_inside_out_is_empty() {
        assert!(corners(&[10.0, 10.0, 4.0, 20.0]).width < 0.0);
        assert_eq!(Rect::from_corners(Point::new(1.0, 2.0), Point::new(4.0, 6.0)), corners(&[1.0, 2.0, 4.0, 6.0]));
    }
}
