//! YOLOv8, v9 and v11: anchor-free, decoded in the graph, not suppressed.

use std::sync::Arc;

use revoada_bundle::manifest::Activation;
use revoada_core::{Placement, Point, Prediction, Rect, Size, TensorRef};
use revoada_engine::{Candidate, CandidateLayout, CandidateQuery, Candidates, Readback};

use super::boxes::{Boxes, Common};
use super::outputs::{Row, candidates_if, check_labels, fixed};
use super::{DecodeError, Decoder, DecoderContext, activation};

pub(super) const NAME: &str = "yolo-v8";
const EXPECTED: &str = "an output `[N,4+classes,cells]` or `[N,cells,4+classes]`";

/// Cells looked at together, so that the running best of each stays in the nearest cache.
const BLOCK: usize = 512;

/// Centre, width and height in the network's pixels, then a score per class. A cell speaks for its
/// best class only. Scores are taken as they are unless the manifest asks for a sigmoid.
pub(super) struct YoloV8 {
    common: Common,
    output: usize,
    sigmoid: bool,
    /// On the scale of the output: a logit where the sigmoid is ours.
    threshold: f32,
    labels: usize,
    input: Size,
    /// `None` where the shape of the output is not known before it is there.
    query: Option<CandidateQuery>,
}

pub(super) fn build(context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
    context.check_roles(NAME, &["predictions"])?;
    let output = context.only(NAME, "predictions", EXPECTED, |spec| spec.dims.len() == 3)?;
    let spec = &context.outputs[output];
    let shape = fixed(spec, 1).zip(fixed(spec, 2));
    let shape = shape.map(|(first, second)| Shape::of(first, second, context.labels, context.input));
    if let Some(shape) = &shape {
        context.check_labels(shape.classes.ok_or_else(|| context.expected(NAME, EXPECTED))?)?;
    }
    let sigmoid = context.manifest.activation == Some(Activation::Sigmoid);
    let common = Common::new(NAME, context);
    let threshold = if sigmoid { activation::logit(common.score_min) } else { common.score_min };
    let query = shape.map(|shape| {
        let layout = if shape.channels_first { CandidateLayout::ChannelsFirst } else { CandidateLayout::CellsFirst };
        CandidateQuery { layout, score_min: threshold }
    });
    Ok(Arc::new(YoloV8 { query, threshold, common, output, sigmoid, labels: context.labels, input: context.input }))
}

/// Which of the two dimensions is which.
struct Shape {
    /// `None` where there is no room for a class.
    classes: Option<usize>,
    cells: usize,
    channels_first: bool,
}

impl Shape {
    /// The labels decide, then the number of cells of the input, then the larger dimension.
    fn of(first: usize, second: usize, labels: usize, input: Size) -> Self {
        let channels = labels.saturating_add(4);
        let cells = cells(input, &[8, 16, 32]);
        let channels_first = if labels > 0 && (first == channels) != (second == channels) {
            first == channels
        } else if (first == cells) != (second == cells) {
            second == cells
        } else {
            first <= second
        };
        let (channels, cells) = if channels_first { (first, second) } else { (second, first) };
        Self { classes: channels.checked_sub(4).filter(|classes| *classes > 0), cells, channels_first }
    }
}

/// How many cells the grids of these strides have together.
pub(super) fn cells(input: Size, strides: &[usize]) -> usize {
    strides.iter().map(|stride| (input.width / stride).saturating_mul(input.height / stride)).sum()
}

impl Decoder for YoloV8 {
    fn name(&self) -> &str {
        NAME
    }

    fn reads(&self, output: usize) -> Readback {
        candidates_if(output == self.output, self.query)
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let row = Row::read(NAME, outputs, self.output, row)?;
        let [first, second] = row.expect(NAME, EXPECTED)?;
        let shape = Shape::of(first, second, self.labels, self.input);
        let Some(classes) = shape.classes else {
            return Err(self.common.unreadable(format!("expected {EXPECTED}, got {:?} per picture", row.shape)));
        };
        check_labels(classes, self.labels)?;
        let mut found = self.common.boxes();
        if shape.channels_first {
            self.read_channels_first(&row.values, classes, shape.cells, &mut found);
        } else {
            self.read_cells_first(&row.values, classes, &mut found);
        }
        found.suppressed(placement, |_| Vec::new())
    }

    fn decode_candidates(&self, candidates: &Candidates, placement: &Placement) -> Result<Prediction, DecodeError> {
        let read = |candidate: &Candidate| self.read(candidate.score, candidate.values);
        self.common.decode_candidates(candidates, placement, read)
    }

    fn non_finite(&self) -> u64 {
        self.common.non_finite()
    }
}

impl YoloV8 {
    fn read_channels_first(&self, values: &[f32], classes: usize, cells: usize, found: &mut Boxes<'_>) {
        let channel = |index: usize| &values[index * cells..(index + 1) * cells];
        let mut best = [f32::NEG_INFINITY; BLOCK];
        for start in (0..cells).step_by(BLOCK) {
            let end = (start + BLOCK).min(cells);
            let best = &mut best[..end - start];
            best.fill(f32::NEG_INFINITY);
            for class in 0..classes {
                for (best, score) in best.iter_mut().zip(&channel(4 + class)[start..end]) {
                    *best = if *score > *best { *score } else { *best };
                }
            }
            for (cell, best) in (start..end).zip(&*best) {
                if *best == f32::NEG_INFINITY {
                    found.skip_non_finite();
                } else if *best >= self.threshold {
                    // Only the few cells above the threshold are asked which class it was.
                    let class = (0..classes).find(|class| channel(4 + class)[cell] == *best);
                    let [x, y, width, height] = [0, 1, 2, 3].map(|index| channel(index)[cell]);
                    self.push(found, class, *best, [x, y, width, height], cell);
                }
            }
        }
    }

    fn read_cells_first(&self, values: &[f32], classes: usize, found: &mut Boxes<'_>) {
        for (index, cell) in values.chunks_exact(4 + classes).enumerate() {
            match activation::best(&cell[4..]) {
                None => found.skip_non_finite(),
                Some((_, f32::NEG_INFINITY)) => found.skip_non_finite(),
                Some((class, best)) if best >= self.threshold => {
                    self.push(found, Some(class), best, [cell[0], cell[1], cell[2], cell[3]], index);
                }
                Some(_) => {}
            }
        }
    }

    fn push(&self, found: &mut Boxes<'_>, class: Option<usize>, best: f32, xywh: [f32; 4], index: usize) {
        let (score, bbox) = self.read(best, xywh);
        let class = class.expect("the best score is one of the cell's") as u32;
        found.push(class, score, bbox, index);
    }

    /// A cell's score and box.
    fn read(&self, best: f32, [x, y, width, height]: [f32; 4]) -> (f32, Rect) {
        let score = if self.sigmoid { activation::sigmoid(best) } else { best };
        (score, Rect::from_center(Point::new(x, y), width, height))
    }
}
