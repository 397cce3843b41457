//! Which decoder reads these outputs, from their names and shapes alone.
//!
//! A guess is made where the shapes leave one sensible reading, and says what it was made from;
//! where several are left, the manifest has to speak.

use revoada_core::{DType, TensorSpec};

use super::outputs::fixed;
use super::yolo_v8::cells;
use super::{
    DecoderContext, centerface, classification, detectnet, segmentation, ssd, yolo_nms, yolo_v5, yolo_v8, yolo_x,
};

/// Lists longer than this are anchors, not results of a suppression in the graph.
const RESULTS_MAX: usize = 1000;

/// A decoder's name and the reason for it, as the second half of a sentence.
pub(super) fn guess(context: &DecoderContext<'_>) -> Option<(&'static str, String)> {
    by_names(context).or_else(|| by_several(context)).or_else(|| match context.outputs {
        [only] => by_shape(only, context),
        // YOLOv5 exports carry the raw heads behind the decoded output.
        [first, rest @ ..] if first.dims.len() == 3 && rest.iter().all(|spec| spec.dims.len() > 3) => {
            by_shape(first, context)
        }
        _ => None,
    })
}

fn by_names(context: &DecoderContext<'_>) -> Option<(&'static str, String)> {
    let has = |name: &str| context.outputs.iter().any(|spec| spec.name == name);
    if ["num_dets", "det_boxes", "det_scores", "det_classes"].iter().all(|name| has(name)) {
        return Some((
            yolo_nms::NAME,
            "the outputs are called `num_dets`, `det_boxes`, `det_scores`, `det_classes`".into(),
        ));
    }
    if [ssd::TF_BOXES, "detection_classes", "detection_scores"].iter().all(|name| has(name)) {
        let reason = "the outputs are called `detection_boxes`, `detection_classes`, `detection_scores`";
        return Some((ssd::NAME, reason.into()));
    }
    if has("boxes") && has("scores") && context.outputs.len() <= 3 {
        return Some((ssd::NAME, "the outputs are called `boxes` and `scores`".into()));
    }
    None
}

fn by_several(context: &DecoderContext<'_>) -> Option<(&'static str, String)> {
    let outputs = context.outputs;
    let shapes = || outputs.iter().map(|spec| format!("`{spec}`")).collect::<Vec<_>>().join(", ");
    let all_of_rank = |rank: usize| outputs.iter().all(|spec| spec.dims.len() == rank);

    if outputs.len() == 4 && all_of_rank(4) {
        let channels: Vec<_> = outputs.iter().map(|spec| fixed(spec, 1)).collect();
        let mut sorted = channels.clone();
        sorted.sort_unstable();
        if sorted == [1, 2, 2, 10].map(Some) {
            let reason = format!("{} look like heat map, size, offset and five landmarks", shapes());
            return Some((centerface::NAME, reason));
        }
    }
    if detectnet::by_channels(outputs).is_some() {
        return Some((detectnet::NAME, format!("{} look like a grid of coverage and of boxes", shapes())));
    }
    if let [a, b] = outputs
        && all_of_rank(3)
        && (fixed(a, 1) == fixed(b, 1))
        && (fixed(a, 2) == Some(4)) != (fixed(b, 2) == Some(4))
    {
        return Some((ssd::NAME, format!("{} look like boxes and their scores per class", shapes())));
    }
    let is_head = |spec: &TensorSpec| {
        spec.dims.len() == 5
            && fixed(spec, 4).is_some_and(|channels| channels > 5)
            && fixed(spec, 2).is_some_and(|rows| {
                rows > 0 && context.input.height.is_multiple_of(rows) && rows < context.input.height
            })
    };
    if (2..=4).contains(&outputs.len()) && outputs.iter().all(is_head) {
        return Some((yolo_v5::NAME, format!("{} look like raw heads with anchors", shapes())));
    }
    None
}

fn by_shape(spec: &TensorSpec, context: &DecoderContext<'_>) -> Option<(&'static str, String)> {
    let floats = matches!(spec.dtype, DType::F32 | DType::F16);
    match spec.dims.len() {
        3 if !floats => Some((segmentation::NAME, format!("output `{spec}` holds whole numbers in a grid"))),
        3 => yolo(spec, context),
        4 if scores_only(spec) => classifier(spec),
        4 => Some((segmentation::NAME, format!("output `{spec}` is a grid with channels"))),
        2 => classifier(spec),
        _ => None,
    }
}

fn classifier(spec: &TensorSpec) -> Option<(&'static str, String)> {
    Some((classification::NAME, format!("output `{spec}` is one row of numbers per picture")))
}

/// `[N,C,1,1]` or `[N,1,1,C]`.
fn scores_only(spec: &TensorSpec) -> bool {
    (1..4).filter(|index| fixed(spec, *index) == Some(1)).count() >= 2
}

/// One output of rank 3: its number of boxes tells the family, because each has its own number of
/// boxes per cell of the usual strides.
fn yolo(spec: &TensorSpec, context: &DecoderContext<'_>) -> Option<(&'static str, String)> {
    let (first, second) = (fixed(spec, 1), fixed(spec, 2));
    let input = context.input;
    let classes = |channels: Option<usize>, others: usize| {
        let found = channels.and_then(|channels| channels.checked_sub(others));
        found.is_some_and(|classes| classes > 0 && (context.labels == 0 || context.labels == classes))
    };
    // As many rows as the grid has cells, or anchors, are no list of boxes, however few they are.
    let is_grid = [&[8, 16, 32][..], &[8, 16, 32, 64]]
        .iter()
        .map(|strides| cells(input, strides))
        .any(|cells| cells > 0 && (first == Some(cells) || first == Some(3 * cells)));
    if second == Some(6) && !is_grid && first.is_some_and(|boxes| boxes <= RESULTS_MAX) {
        return Some((yolo_nms::NAME, format!("output `{spec}` is a short list of boxes with score and class")));
    }
    for strides in [&[8, 16, 32][..], &[8, 16, 32, 64]] {
        let cells = Some(cells(input, strides)).filter(|cells| *cells > 0);
        let strides = strides.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        if second == cells && classes(first, 4) {
            return Some((
                yolo_v8::NAME,
                format!("output `{spec}` has one column per cell of strides {strides} at {input}"),
            ));
        }
        if first == cells.map(|cells| 3 * cells) && classes(second, 5) {
            return Some((
                yolo_v5::NAME,
                format!("output `{spec}` has three rows per cell of strides {strides} at {input}"),
            ));
        }
        if first == cells {
            // v8's transpose and YOLOX differ by one channel, which only the labels can tell.
            if context.labels > 0 && classes(second, 4) {
                let reason = format!("output `{spec}` has one row per cell and four numbers beside the labels' scores");
                return Some((yolo_v8::NAME, reason));
            }
            if classes(second, 5) {
                return Some((
                    yolo_x::NAME,
                    format!("output `{spec}` has one row per cell of strides {strides} at {input}"),
                ));
            }
        }
    }
    // The number of cells is open: many columns and few rows are v8's layout alone.
    match (first, second) {
        (Some(_), None) if classes(first, 4) => {
            Some((yolo_v8::NAME, format!("output `{spec}` has its channels before its boxes")))
        }
        _ => None,
    }
}
