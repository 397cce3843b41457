//! YOLOv5 and v7: anchors, an objectness and a score per class; decoded in the graph or raw.

use std::sync::Arc;

use revoada_bundle::manifest::Activation;
use revoada_core::{Placement, Point, Prediction, Rect, Size, TensorRef, TensorSpec};
use revoada_engine::{CandidateLayout, CandidateQuery, Candidates, Readback};

use super::boxes::{Boxes, Common};
use super::outputs::{Row, candidates_if, check_labels, fixed, whole_if};
use super::{DecodeError, Decoder, DecoderContext, activation};

pub(super) const NAME: &str = "yolo-v5";
const EXPECTED: &str =
    "one output `[N,anchors,5+classes]`, or one head `[N,a,h,w,5+classes]` or `[N,a·(5+classes),h,w]` for each stride";

pub(super) fn build(context: &DecoderContext<'_>) -> Result<Arc<dyn Decoder>, DecodeError> {
    context.check_roles(NAME, &["predictions"])?;
    // v5 exports may carry the raw heads behind the decoded output: the decoded one is preferred.
    match context.only(NAME, "predictions", EXPECTED, |spec| spec.dims.len() == 3) {
        Ok(output) => return Ok(Arc::new(Decoded::build(context, output)?)),
        Err(error) if context.manifest.tensors.contains_key("predictions") => return Err(error),
        Err(_) => {}
    }
    for rank in [5, 4] {
        let heads: Vec<usize> = (0..context.outputs.len()).filter(|i| context.outputs[*i].dims.len() == rank).collect();
        if !heads.is_empty() {
            return Ok(Arc::new(RawHeads::build(context, heads)?));
        }
    }
    Err(context.expected(NAME, EXPECTED))
}

/// Reads one anchor's objectness and classes.
struct Scores {
    sigmoid: bool,
    /// Objectness below it cannot become a result, on the scale of the output.
    threshold: f32,
}

impl Scores {
    fn new(sigmoid: bool, score_min: f32) -> Self {
        Self { sigmoid, threshold: if sigmoid { activation::logit(score_min) } else { score_min } }
    }

    fn activated(&self, raw: f32) -> f32 {
        if self.sigmoid { activation::sigmoid(raw) } else { raw }
    }

    /// Whether an anchor of this objectness is worth a look at its classes.
    fn passes(&self, objectness: f32, found: &mut Boxes<'_>) -> bool {
        if !objectness.is_finite() {
            found.skip_non_finite();
            return false;
        }
        objectness >= self.threshold
    }

    fn product(&self, objectness: f32, class: f32) -> f32 {
        self.activated(objectness) * self.activated(class)
    }
}

/// Centre, width and height in the network's pixels, objectness, scores of the classes.
struct Decoded {
    common: Common,
    output: usize,
    scores: Scores,
    labels: usize,
    /// `None` where the graph leaves more to be done before scores can be compared, or its classes open.
    query: Option<CandidateQuery>,
}

impl Decoded {
    fn build(context: &DecoderContext<'_>, output: usize) -> Result<Self, DecodeError> {
        let channels = fixed(&context.outputs[output], 2);
        if let Some(channels) = channels {
            let classes = channels.checked_sub(5).filter(|classes| *classes > 0);
            context.check_labels(classes.ok_or_else(|| context.expected(NAME, EXPECTED))?)?;
        }
        let sigmoid = context.manifest.activation == Some(Activation::Sigmoid);
        let common = Common::new(NAME, context);
        let query = CandidateQuery { layout: CandidateLayout::Objectness, score_min: common.score_min };
        let query = channels.filter(|_| !sigmoid).map(|_| query);
        Ok(Self { scores: Scores::new(sigmoid, common.score_min), common, output, labels: context.labels, query })
    }
}

impl Decoder for Decoded {
    fn name(&self) -> &str {
        NAME
    }

    fn reads(&self, output: usize) -> Readback {
        candidates_if(output == self.output, self.query)
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let row = Row::read(NAME, outputs, self.output, row)?;
        let [_, channels] = row.expect(NAME, "`[anchors,5+classes]`")?;
        let classes = channels.checked_sub(5).filter(|classes| *classes > 0);
        let too_narrow = || self.common.unreadable(format!("expected {EXPECTED}, got {:?} per picture", row.shape));
        check_labels(classes.ok_or_else(too_narrow)?, self.labels)?;

        let mut found = self.common.boxes();
        for (index, anchor) in row.values.chunks_exact(channels).enumerate() {
            if !self.scores.passes(anchor[4], &mut found) {
                continue;
            }
            let Some((class, best)) = activation::best(&anchor[5..]) else {
                found.skip_non_finite();
                continue;
            };
            let bbox = Rect::from_center(Point::new(anchor[0], anchor[1]), anchor[2], anchor[3]);
            found.push(class as u32, self.scores.product(anchor[4], best), bbox, index);
        }
        found.suppressed(placement, |_| Vec::new())
    }

    fn decode_candidates(&self, candidates: &Candidates, placement: &Placement) -> Result<Prediction, DecodeError> {
        self.common.decode_candidates(candidates, placement, |candidate| {
            let [x, y, width, height] = candidate.values;
            (candidate.score, Rect::from_center(Point::new(x, y), width, height))
        })
    }

    fn non_finite(&self) -> u64 {
        self.common.non_finite()
    }
}

/// One output per stride, as the last convolutions leave it, with σ for the sigmoid:
/// `x = (2σ − 0.5 + column) · stride`, `width = (2σ)² · anchor width`. A head's stride is the input's
/// height over its own; anchors are the manifest's, from the smallest stride to the largest.
/// Numbers are logits unless the manifest says `activation = "none"`.
struct RawHeads {
    common: Common,
    outputs: Vec<usize>,
    anchors: Vec<Vec<[f32; 2]>>,
    strides: Vec<u32>,
    scores: Scores,
    labels: usize,
    input: Size,
}

/// One head of one picture.
struct Head<'a> {
    row: Row<'a>,
    columns: usize,
    rows: usize,
    stride: usize,
    /// Numbers per anchor and cell.
    channels: usize,
    /// Whether an anchor's numbers lie side by side (`[a,h,w,5+C]`) or a plane apart.
    channels_last: bool,
}

impl RawHeads {
    fn build(context: &DecoderContext<'_>, outputs: Vec<usize>) -> Result<Self, DecodeError> {
        let manifest = context.manifest;
        let sigmoid = manifest.activation != Some(Activation::None);
        let common = Common::new(NAME, context);
        let decoder = Self {
            scores: Scores::new(sigmoid, common.score_min),
            common,
            anchors: manifest.anchors.clone(),
            strides: manifest.strides.clone(),
            labels: context.labels,
            input: context.input,
            outputs,
        };
        let heads = decoder.outputs.len();
        if decoder.anchors.len() != heads {
            let reason = format!(
                "{heads} raw heads need `anchors` in the manifest: a list of [width, height] in pixels for each, \
                 from the smallest stride; there are {}",
                decoder.anchors.len()
            );
            return Err(decoder.common.unreadable(reason));
        }
        if !decoder.strides.is_empty() && decoder.strides.len() != heads {
            let reason = format!("{heads} raw heads and {} `strides` in the manifest", decoder.strides.len());
            return Err(decoder.common.unreadable(reason));
        }
        // Which anchors belong to a head is known only from its size, so where that is left open
        // the check waits for the first picture.
        let widths = decoder.anchors.iter().map(Vec::len);
        let alike = widths.clone().max() == widths.min();
        for spec in decoder.outputs.iter().map(|index| &context.outputs[*index]).filter(|_| alike) {
            decoder.check_declared(context, spec)?;
        }
        Ok(decoder)
    }

    fn check_declared(&self, context: &DecoderContext<'_>, spec: &TensorSpec) -> Result<(), DecodeError> {
        let anchors = self.anchors[0].len();
        let channels = match spec.dims.len() {
            5 if fixed(spec, 1).is_some_and(|declared| declared != anchors) => None,
            5 => Some(fixed(spec, 4)),
            _ => match fixed(spec, 1) {
                Some(product) if anchors == 0 || product % anchors != 0 => None,
                product => Some(product.map(|product| product / anchors)),
            },
        };
        let mismatch = || {
            let reason = format!("there are {anchors} anchors per head, but an output is `{spec}`");
            self.common.unreadable(reason)
        };
        match channels.ok_or_else(mismatch)? {
            None => Ok(()),
            Some(channels) if channels > 5 => context.check_labels(channels - 5),
            Some(_) => Err(context.expected(NAME, EXPECTED)),
        }
    }

    /// The heads of one picture, smallest stride first.
    fn heads<'a>(&self, outputs: &[TensorRef<'a>], row: usize) -> Result<Vec<Head<'a>>, DecodeError> {
        let mut heads = Vec::with_capacity(self.outputs.len());
        for index in &self.outputs {
            let row = Row::read(NAME, outputs, *index, row)?;
            let (rows, columns, channels_last) = match *row.shape {
                [_, rows, columns, _] => (rows, columns, true),
                [_, rows, columns] => (rows, columns, false),
                _ => return Err(self.common.unreadable(format!("expected {EXPECTED}, got {:?}", row.shape))),
            };
            let stride = self.input.height.checked_div(rows).unwrap_or(0);
            if stride == 0
                || stride.checked_mul(columns) != Some(self.input.width)
                || stride * rows != self.input.height
            {
                let reason = format!("a head of {columns}×{rows} cells is no grid of a {} input", self.input);
                return Err(self.common.unreadable(reason));
            }
            heads.push(Head { row, columns, rows, stride, channels: 0, channels_last });
        }
        heads.sort_by_key(|head| head.stride);
        for (level, head) in heads.iter_mut().enumerate() {
            if self.strides.get(level).is_some_and(|stride| *stride as usize != head.stride) {
                let reason = format!("stride {} in the manifest, {} in the outputs", self.strides[level], head.stride);
                return Err(self.common.unreadable(reason));
            }
            let anchors = self.anchors[level].len();
            head.channels = match *head.row.shape {
                [declared, _, _, channels] if declared == anchors => channels,
                [product, _, _] if anchors > 0 && product % anchors == 0 => product / anchors,
                _ => 0,
            };
            if head.channels <= 5 {
                let reason = format!(
                    "stride {} has {anchors} anchors, but its head is {:?} per picture",
                    head.stride, head.row.shape
                );
                return Err(self.common.unreadable(reason));
            }
            check_labels(head.channels - 5, self.labels)?;
        }
        Ok(heads)
    }

    fn read(&self, head: &Head<'_>, anchors: &[[f32; 2]], first: usize, found: &mut Boxes<'_>) {
        let (cells, values) = (head.rows * head.columns, &head.row.values);
        let stride = head.stride as f32;
        for (anchor, [anchor_width, anchor_height]) in anchors.iter().enumerate() {
            for cell in 0..cells {
                let at = |channel: usize| {
                    if head.channels_last {
                        values[(anchor * cells + cell) * head.channels + channel]
                    } else {
                        values[(anchor * head.channels + channel) * cells + cell]
                    }
                };
                let objectness = at(4);
                if !self.scores.passes(objectness, found) {
                    continue;
                }
                // Few anchors come this far, so the scattered layout does not hurt.
                let mut best = None;
                for class in 0..head.channels - 5 {
                    let score = at(5 + class);
                    if !score.is_nan() && best.is_none_or(|(_, greatest)| score > greatest) {
                        best = Some((class, score));
                    }
                }
                let Some((class, best)) = best else {
                    found.skip_non_finite();
                    continue;
                };
                let [x, y, width, height] = [0, 1, 2, 3].map(|channel| self.scores.activated(at(channel)));
                let center = Point::new(
                    (2.0 * x - 0.5 + (cell % head.columns) as f32) * stride,
                    (2.0 * y - 0.5 + (cell / head.columns) as f32) * stride,
                );
                let bbox = Rect::from_center(
                    center,
                    (2.0 * width).powi(2) * anchor_width,
                    (2.0 * height).powi(2) * anchor_height,
                );
                let score = self.scores.product(objectness, best);
                found.push(class as u32, score, bbox, first + anchor * cells + cell);
            }
        }
    }
}

impl Decoder for RawHeads {
    fn name(&self) -> &str {
        NAME
    }

    fn reads(&self, output: usize) -> Readback {
        whole_if(self.outputs.contains(&output))
    }

    fn decode(&self, outputs: &[TensorRef<'_>], row: usize, placement: &Placement) -> Result<Prediction, DecodeError> {
        let mut found = self.common.boxes();
        let mut first = 0;
        for (head, anchors) in self.heads(outputs, row)?.iter().zip(&self.anchors) {
            self.read(head, anchors, first, &mut found);
            first += anchors.len() * head.rows * head.columns;
        }
        found.suppressed(placement, |_| Vec::new())
    }

    fn non_finite(&self) -> u64 {
        self.common.non_finite()
    }
}
