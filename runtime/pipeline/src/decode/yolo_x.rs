//! YOLOX as its exporter writes it: offsets and log sizes relative to the grid.

use std::sync::Arc;

use revoada_bundle::manifest::Activation;
use revoada_core::{Placement, Point, Prediction, Rect, Size, TensorRef};
use revoada_engine::{CandidateLayout, CandidateQuery, Candidates, Readback};

use super::boxes::Common;
use super::outputs::{Row, candidates_if, check_labels, fixed};
use super::yolo_v8::cells;
use super::{DecodeError, Decoder, DecoderContext, activation};

pub(super) const NAME: &str = "yolo-x";
const EXPECTED: &str = "an output `[N,cells,5+classes]`";

/// The grids of all strides one after another, each row by row: `(x + column) · stride`,
/// `exp(width) · stride`; score is objectness times the best class. Strides are 8, 16 and 32 unless
/// the manifest names others. A YOLOX exported with `--decode_in_inference` has the outputs of
/// `yolo-v5`.
pub(super) struct YoloX {
    common: Common,
    output: usize,
    strides: Vec<usize>,
    sigmoid: bool,
    labels: usize,
    input: Size,
    /// `None` where a sigmoid is still to be applied, or the output's shape is open.
    query: Option<CandidateQuery>,
}

pub(super) fn build(context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
    context.check_roles(NAME, &["predictions"])?;
    let output = context.only(NAME, "predictions", EXPECTED, |spec| spec.dims.len() == 3)?;
    let strides: Vec<usize> = match context.manifest.strides.as_slice() {
        [] => vec![8, 16, 32],
        strides => strides.iter().map(|stride| *stride as usize).collect(),
    };
    let common = Common::new(NAME, context);
    let sigmoid = context.manifest.activation == Some(Activation::Sigmoid);
    let shape = fixed(&context.outputs[output], 1).zip(fixed(&context.outputs[output], 2));
    let query = CandidateQuery { layout: CandidateLayout::Objectness, score_min: common.score_min };
    let decoder = YoloX {
        query: shape.filter(|_| !sigmoid).map(|_| query),
        common,
        output,
        sigmoid,
        labels: context.labels,
        input: context.input,
        strides,
    };
    if decoder.strides.contains(&0) {
        return Err(decoder.common.unreadable("a stride of 0 is no stride"));
    }
    if let Some(cells) = fixed(&context.outputs[output], 1) {
        decoder.check_cells(cells)?;
    }
    if let Some(channels) = fixed(&context.outputs[output], 2) {
        let classes = channels.checked_sub(5).filter(|classes| *classes > 0);
        context.check_labels(classes.ok_or_else(|| context.expected(NAME, EXPECTED))?)?;
    }
    Ok(Arc::new(decoder))
}

impl YoloX {
    fn check_cells(&self, found: usize) -> Result<(), DecodeError> {
        let expected = cells(self.input, &self.strides);
        if found == expected {
            return Ok(());
        }
        let strides = self.strides.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let reason = format!("strides {strides} have {expected} cells at {}, the output has {found}", self.input);
        Err(self.common.unreadable(reason))
    }

    /// In the order of the output.
    fn grids(&self) -> impl Iterator<Item = Grid> {
        self.strides.iter().scan(0, |next, stride| {
            let (columns, rows) = (self.input.width / stride, self.input.height / stride);
            let grid = Grid { start: *next, columns, rows, stride: *stride as f32 };
            *next += columns * rows;
            Some(grid)
        })
    }

    fn score(&self, raw: f32) -> f32 {
        if self.sigmoid { activation::sigmoid(raw) } else { raw }
    }
}

/// The cells of one stride.
struct Grid {
    /// The first one's place in the output.
    start: usize,
    columns: usize,
    rows: usize,
    stride: f32,
}

/// `cell` counts in its grid.
fn bbox([x, y, width, height]: [f32; 4], cell: usize, columns: usize, stride: f32) -> Rect {
    let center = Point::new((x + (cell % columns) as f32) * stride, (y + (cell / columns) as f32) * stride);
    Rect::from_center(center, width.exp() * stride, height.exp() * stride)
}

impl Decoder for YoloX {
    fn name(&self) -> &str {
        NAME
    }

    fn reads(&self, output: usize) -> Readback {
        candidates_if(output == self.output, self.query)
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let row = Row::read(NAME, outputs, self.output, row)?;
        let [found, channels] = row.expect(NAME, EXPECTED)?;
        self.check_cells(found)?;
        let classes = channels.checked_sub(5).filter(|classes| *classes > 0);
        let too_narrow = || self.common.unreadable(format!("expected {EXPECTED}, got {:?} per picture", row.shape));
        check_labels(classes.ok_or_else(too_narrow)?, self.labels)?;

        let mut candidates = self.common.boxes();
        for Grid { start, columns, rows, stride } in self.grids() {
            let grid = &row.values[start * channels..(start + columns * rows) * channels];
            for (cell, values) in grid.chunks_exact(channels).enumerate() {
                let objectness = self.score(values[4]);
                if !objectness.is_finite() {
                    candidates.skip_non_finite();
                    continue;
                }
                // No class can lift the product above the objectness.
                if objectness < self.common.score_min {
                    continue;
                }
                let Some((class, best)) = activation::best(&values[5..]) else {
                    candidates.skip_non_finite();
                    continue;
                };
                let bbox = bbox([values[0], values[1], values[2], values[3]], cell, columns, stride);
                candidates.push(class as u32, objectness * self.score(best), bbox, start + cell);
            }
        }
        candidates.suppressed(placement, |_| Vec::new())
    }

    fn decode_candidates(&self, candidates: &Candidates, placement: &Placement) -> Result<Prediction, DecodeError> {
        self.common.decode_candidates(candidates, placement, |candidate| {
            let grid = self.grids().take_while(|grid| grid.start <= candidate.cell).last();
            let Grid { start, columns, stride, .. } = grid.expect("the first grid starts with cell 0");
            (candidate.score, bbox(candidate.values, candidate.cell - start, columns, stride))
        })
    }

    fn non_finite(&self) -> u64 {
        self.common.non_finite()
    }
}
