//! CenterFace: a heat map of faces with their size, offset and five landmarks, at stride 4.

use std::sync::Arc;

use revoada_core::{Placement, Point, Prediction, Rect, Size, TensorRef};
use revoada_engine::Readback;

use super::boxes::Common;
use super::outputs::{Row, fixed, whole_if};
use super::{DecodeError, Decoder, DecoderContext};

pub(super) const NAME: &str = "centerface";
const STRIDE: usize = 4;

/// Role, name in the published model, channels.
pub(super) const PARTS: [(&str, &str, usize); 4] =
    [("heatmap", "537", 1), ("size", "538", 2), ("offset", "539", 2), ("landmarks", "540", 10)];

/// A cell of the heat map above the threshold is a face around
/// `(column + offset + 0.5) · 4`, `exp(size) · 4` wide; landmarks are fractions of its box. Pairs
/// come as y, x. Every face has class 0.
struct CenterFace {
    common: Common,
    heatmap: usize,
    size: usize,
    offset: usize,
    landmarks: usize,
    input: Size,
}

pub(super) fn build(context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
    context.check_roles(NAME, &PARTS.map(|(role, ..)| role))?;
    let mut found = [0; 4];
    for (index, (role, usual, channels)) in PARTS.into_iter().enumerate() {
        // Size and offset look alike, so where the names are of no help their order decides.
        let taken = &found[..index];
        let suits = |index: &usize| {
            let spec = &context.outputs[*index];
            !taken.contains(index) && spec.dims.len() == 4 && fixed(spec, 1).is_none_or(|found| found == channels)
        };
        let named = context.role(NAME, role, &[usual])?;
        let output = named.or_else(|| (0..context.outputs.len()).find(|index| suits(index)));
        let expected = || {
            let parts = PARTS.map(|(role, _, channels)| format!("{role} `[N,{channels},h,w]`")).join(", ");
            context.expected(NAME, &parts)
        };
        found[index] = output.filter(suits).ok_or_else(expected)?;
    }
    context.check_labels(1)?;
    let [heatmap, size, offset, landmarks] = found;
    Ok(Arc::new(CenterFace {
        common: Common::new(NAME, context),
        heatmap,
        size,
        offset,
        landmarks,
        input: context.input,
    }))
}

impl Decoder for CenterFace {
    fn name(&self) -> &str {
        NAME
    }

    fn reads(&self, output: usize) -> Readback {
        whole_if([self.heatmap, self.size, self.offset, self.landmarks].contains(&output))
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let [heatmap, size, offset, landmarks] = [
            Row::read(NAME, outputs, self.heatmap, row)?,
            Row::read(NAME, outputs, self.size, row)?,
            Row::read(NAME, outputs, self.offset, row)?,
            Row::read(NAME, outputs, self.landmarks, row)?,
        ];
        let (rows, columns) = (self.input.height / STRIDE, self.input.width / STRIDE);
        for (part, (role, _, channels)) in [&heatmap, &size, &offset, &landmarks].into_iter().zip(PARTS) {
            if part.shape != [channels, rows, columns] {
                let reason =
                    format!("{role} shall be {:?} per picture, got {:?}", [channels, rows, columns], part.shape);
                return Err(self.common.unreadable(reason));
            }
        }
        let cells = rows * columns;
        let pair = |part: &Row<'_>, cell: usize, pair: usize| {
            (part.values[2 * pair * cells + cell], part.values[(2 * pair + 1) * cells + cell])
        };
        let stride = STRIDE as f32;

        let mut found = self.common.boxes();
        for (cell, score) in heatmap.values.iter().enumerate() {
            if !score.is_finite() {
                found.skip_non_finite();
                continue;
            }
            if *score < self.common.score_min {
                continue;
            }
            let (log_height, log_width) = pair(&size, cell, 0);
            let (offset_y, offset_x) = pair(&offset, cell, 0);
            let center = Point::new(
                ((cell % columns) as f32 + offset_x + 0.5) * stride,
                ((cell / columns) as f32 + offset_y + 0.5) * stride,
            );
            found.push(0, *score, Rect::from_center(center, log_width.exp() * stride, log_height.exp() * stride), cell);
        }
        found.suppressed(placement, |face| {
            let point = |index| {
                let (y, x) = pair(&landmarks, face.index, index);
                Point::new(face.bbox.x + x * face.bbox.width, face.bbox.y + y * face.bbox.height)
            };
            (0..5).map(point).collect()
        })
    }

    fn non_finite(&self) -> u64 {
        self.common.non_finite()
    }
}
