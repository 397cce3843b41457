//! Semantic segmentation: a class for every cell of a grid.

use std::ops::Range;
use std::sync::Arc;

use revoada_bundle::manifest::Activation;
use revoada_core::{DType, Placement, Prediction, Rect, Segmentation, Size, TensorRef, TensorSpec};
use revoada_engine::Readback;

use super::boxes::Common;
use super::outputs::{Row, fixed, whole_if};
use super::{DecodeError, Decoder, DecoderContext, activation};

pub(super) const NAME: &str = "segmentation";
const EXPECTED: &str = "an output `[N,classes,H,W]`, `[N,H,W,classes]`, `[N,H,W]` or `[N,1,H,W]`";

/// Classes are stored in a byte.
const CLASSES_MAX: usize = 256;

/// The cells whose centre shows the picture, and not the letterbox's padding, each with its best
/// class (the first of equals). A single channel of floats is a foreground: class 1 where its
/// probability reaches `score_min` (0.5 where the manifest is silent), else 0. It goes through a sigmoid unless the manifest says
/// `activation = "none"` or every number could be a probability already. Integers are class ids.
struct SegmentationDecoder {
    common: Common,
    output: usize,
    activation: Option<Activation>,
    ids: bool,
    labels: usize,
    input: Size,
}

pub(super) fn build(context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
    context.check_roles(NAME, &["classes"])?;
    let output = context.only(NAME, "classes", EXPECTED, |spec| matches!(spec.dims.len(), 3 | 4))?;
    let spec = &context.outputs[output];
    let decoder = SegmentationDecoder {
        // One class a cell: there is no list to bound.
        common: Common::with_defaults(NAME, context, 0.5, 0),
        output,
        activation: context.manifest.activation,
        ids: holds_ids(spec),
        labels: context.labels,
        input: context.input,
    };
    let declared: Option<Vec<usize>> = (1..spec.dims.len()).map(|index| fixed(spec, index)).collect();
    if let Some(declared) = declared {
        decoder.grid(&declared)?;
    }
    Ok(Arc::new(decoder))
}

/// Whether the numbers are classes, not scores: integers, or floats without a dimension for classes.
fn holds_ids(spec: &TensorSpec) -> bool {
    !matches!(spec.dtype, DType::F32 | DType::F16) || spec.dims.len() == 3
}

#[derive(Clone, Copy)]
struct Grid {
    width: usize,
    height: usize,
    channels: usize,
    channels_last: bool,
}

impl SegmentationDecoder {
    /// What the dimensions of one picture's output mean.
    fn grid(&self, shape: &[usize]) -> Result<Grid, DecodeError> {
        let grid = match *shape {
            [height, width] => Grid { width, height, channels: 1, channels_last: false },
            // The labels say which is the classes' dimension; without them, it is the last one if
            // that is the smallest.
            [first, second, third] => {
                let last = if self.labels > 0 && (first == self.labels) != (third == self.labels) {
                    third == self.labels
                } else {
                    third < first && third < second
                };
                if last {
                    Grid { width: second, height: first, channels: third, channels_last: true }
                } else {
                    Grid { width: third, height: second, channels: first, channels_last: false }
                }
            }
            _ => return Err(self.common.unreadable(format!("expected {EXPECTED}, got {shape:?} per picture"))),
        };
        let Grid { width, height, channels, .. } = grid;
        if width == 0 || height == 0 || channels == 0 || channels > CLASSES_MAX || (self.ids && channels != 1) {
            let reason = format!("expected {EXPECTED} with at most {CLASSES_MAX} classes, got {shape:?} per picture");
            return Err(self.common.unreadable(reason));
        }
        // One channel is background and foreground; the label of the background may be left out.
        if channels > 1 && self.labels > 0 && self.labels != channels {
            return Err(DecodeError::Labels { classes: channels, labels: self.labels });
        }
        Ok(grid)
    }

    fn classes(
        &self,
        values: &[f32],
        grid: Grid,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Result<Vec<u8>, DecodeError> {
        let line = |row: usize| &values[row * grid.width + columns.start..row * grid.width + columns.end];
        if self.ids {
            let ids = rows.flat_map(line).map(|id| self.id(*id));
            return ids.collect();
        }
        if grid.channels == 1 {
            let threshold = match self.activation {
                Some(Activation::None) => self.common.score_min,
                Some(_) => activation::logit(self.common.score_min),
                None if activation::are_probabilities(values) => self.common.score_min,
                None => activation::logit(self.common.score_min),
            };
            return Ok(rows.flat_map(line).map(|value| u8::from(*value >= threshold)).collect());
        }
        let width = columns.len();
        let mut classes = Vec::with_capacity(rows.len() * width);
        // Two rows of the same width instead of pairs, so that the comparison is vectorised.
        let (mut best, mut of) = (vec![0f32; width], vec![0u32; width]);
        let mut broken = 0;
        for row in rows {
            best.fill(f32::NEG_INFINITY);
            of.fill(0);
            if grid.channels_last {
                let start = (row * grid.width + columns.start) * grid.channels;
                let cells = values[start..start + width * grid.channels].chunks_exact(grid.channels);
                for ((best, of), cell) in best.iter_mut().zip(&mut of).zip(cells) {
                    if let Some((class, score)) = activation::best(cell) {
                        (*best, *of) = (score, class as u32);
                    }
                }
            } else {
                for channel in 0..grid.channels {
                    let start = (channel * grid.height + row) * grid.width;
                    let scores = &values[start + columns.start..start + columns.end];
                    for ((best, of), score) in best.iter_mut().zip(&mut of).zip(scores) {
                        let better = *score > *best;
                        *of = if better { channel as u32 } else { *of };
                        *best = if better { *score } else { *best };
                    }
                }
            }
            broken += best.iter().filter(|score| !score.is_finite()).count() as u64;
            classes.extend(of.iter().map(|class| *class as u8));
        }
        self.common.count_non_finite(broken);
        Ok(classes)
    }

    fn id(&self, value: f32) -> Result<u8, DecodeError> {
        let id = value.round();
        if (0.0..CLASSES_MAX as f32).contains(&id) {
            Ok(id as u8)
        } else {
            Err(self.common.unreadable(format!("{value} is no class id below {CLASSES_MAX}")))
        }
    }
}

/// The cells, of `cells` that cover `length` pixels, whose centre lies between `from` and `to`; at
/// least one.
fn covered(cells: usize, length: usize, from: f32, to: f32) -> Range<usize> {
    let per_pixel = cells as f64 / length.max(1) as f64;
    let cell = |pixel: f32| (f64::from(pixel) * per_pixel - 0.5).ceil().max(0.0) as usize;
    let start = cell(from).min(cells - 1);
    start..cell(to).clamp(start + 1, cells)
}

impl Decoder for SegmentationDecoder {
    fn name(&self) -> &str {
        NAME
    }

    fn reads(&self, output: usize) -> Readback {
        whole_if(output == self.output)
    }

    fn finds_boxes(&self) -> bool {
        false
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let row = Row::read(NAME, outputs, self.output, row)?;
        let grid = self.grid(row.shape)?;
        let target = placement.target;
        let columns = covered(grid.width, self.input.width, target.x, target.right());
        let rows = covered(grid.height, self.input.height, target.y, target.bottom());
        let classes = self.classes(&row.values, grid, rows.clone(), columns.clone())?;
        let cell_width = self.input.width as f32 / grid.width as f32;
        let cell_height = self.input.height as f32 / grid.height as f32;
        let seen = Rect::new(
            columns.start as f32 * cell_width,
            rows.start as f32 * cell_height,
            columns.len() as f32 * cell_width,
            rows.len() as f32 * cell_height,
        );
        let segmentation =
            Segmentation { width: columns.len(), height: rows.len(), classes, area: placement.rect_to_source(seen) };
        Ok(Prediction { segmentation: Some(segmentation), ..Prediction::default() })
    }

    fn non_finite(&self) -> u64 {
        self.common.non_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_padding_are_left_out() {
        // 80 cells over 640 pixels; the picture lies between 140 and 500.
        assert_eq!(covered(80, 640, 140.0, 500.0), 17..62);
        assert_eq!(covered(80, 640, 0.0, 640.0), 0..80);
        // A sliver that no centre falls into still has its cell.
        assert_eq!(covered(80, 640, 1.0, 2.0), 0..1);
        assert_eq!(covered(80, 640, 639.5, 640.0), 79..80);
        assert_eq!(covered(1, 640, f32::NAN, f32::NAN), 0..1);
    }
}
