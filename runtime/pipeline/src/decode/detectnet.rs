//! DetectNet_v2 (TrafficCamNet, PeopleNet, DashCamNet): a grid with the coverage of each class and a box of each cell.
//!
//! A cell's box is four distances to its sides, in units of 35 pixels, from the cell's centre: DeepStream's default parser
//! of boxes, and `NvDsInferParseCustomResnet`.

use std::sync::Arc;

use revoada_core::{Placement, Point, Prediction, Rect, Size, TensorRef, TensorSpec};
use revoada_engine::Readback;

use super::boxes::Common;
use super::outputs::{Row, fixed, whole_if};
use super::{DecodeError, Decoder, DecoderContext};

pub(super) const NAME: &str = "detectnet";
const EXPECTED: &str = "coverage `[N,classes,h,w]` and boxes `[N,4·classes,h,w]`";

/// What the network's distances are divided by in training.
const BOX_NORM: f32 = 35.0;

/// The threshold of DeepStream.
const SCORE_MIN: f32 = 0.2;
const RESULTS_MAX: usize = 300;

struct DetectNet {
    common: Common,
    coverage: usize,
    boxes: usize,
    input: Size,
}

pub(super) fn build(context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
    context.check_roles(NAME, &["coverage", "boxes"])?;
    let named = |role, usual| context.role(NAME, role, usual);
    let coverage = named("coverage", &["output_cov/Sigmoid:0", "output_cov/Sigmoid", "conv2d_cov/Sigmoid"])?;
    let boxes = named("boxes", &["output_bbox/BiasAdd:0", "output_bbox/BiasAdd", "conv2d_bbox"])?;
    let (coverage, boxes) = match (coverage, boxes) {
        (Some(coverage), Some(boxes)) => (coverage, boxes),
        _ => by_channels(context.outputs).ok_or_else(|| context.expected(NAME, EXPECTED))?,
    };
    if let Some(classes) = fixed(&context.outputs[coverage], 1) {
        context.check_labels(classes)?;
    }
    let common = Common::with_defaults(NAME, context, SCORE_MIN, RESULTS_MAX);
    Ok(Arc::new(DetectNet { common, coverage, boxes, input: context.input }))
}

/// Coverage and boxes among two outputs of one grid: the boxes have four times the channels.
pub(super) fn by_channels(outputs: &[TensorSpec]) -> Option<(usize, usize)> {
    let [a, b] = outputs else { return None };
    let grids = [a, b].map(|spec| (spec.dims.len() == 4).then(|| (fixed(spec, 2), fixed(spec, 3))));
    if grids[0].is_none() || grids[0] != grids[1] {
        return None;
    }
    let (a, b) = (fixed(a, 1)?, fixed(b, 1)?);
    match (a, b) {
        _ if b == 4 * a => Some((0, 1)),
        _ if a == 4 * b => Some((1, 0)),
        _ => None,
    }
}

impl Decoder for DetectNet {
    fn name(&self) -> &str {
        NAME
    }

    fn reads(&self, output: usize) -> Readback {
        whole_if(output == self.coverage || output == self.boxes)
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let coverage = Row::read(NAME, outputs, self.coverage, row)?;
        let boxes = Row::read(NAME, outputs, self.boxes, row)?;
        let [classes, rows, columns] = coverage.expect(NAME, "coverage `[classes,h,w]`")?;
        if boxes.expect(NAME, "boxes `[4·classes,h,w]`")? != [4 * classes, rows, columns] {
            let reason =
                format!("coverage {:?} and boxes {:?} per picture do not belong together", coverage.shape, boxes.shape);
            return Err(self.common.unreadable(reason));
        }
        let mut found = self.common.boxes();
        let cells = rows * columns;
        if cells == 0 {
            return found.suppressed(placement, |_| Vec::new());
        }
        // A grid that does not divide the picture is one of rounded-up strides.
        let stride_x = self.input.width.div_ceil(columns) as f32;
        let stride_y = self.input.height.div_ceil(rows) as f32;
        for (place, score) in coverage.values.iter().enumerate() {
            let (class, cell) = (place / cells, place % cells);
            let distance = |side: usize| boxes.values[(4 * class + side) * cells + cell] * BOX_NORM;
            let x = (cell % columns) as f32 * stride_x + 0.5;
            let y = (cell / columns) as f32 * stride_y + 0.5;
            let corner = Point::new(x - distance(0), y - distance(1));
            let size = (distance(2) + distance(0), distance(3) + distance(1));
            found.push(class as u32, *score, Rect::new(corner.x, corner.y, size.0, size.1), place);
        }
        found.suppressed(placement, |_| Vec::new())
    }

    fn non_finite(&self) -> u64 {
        self.common.non_finite()
    }
}
