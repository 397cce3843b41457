//! What every decoder of boxes does before and after its own arithmetic: threshold, refuse what is
//! not finite, suppress, and take the boxes back to the source picture.

use std::sync::atomic::{AtomicU64, Ordering};

use revoada_core::{Detection, Placement, Point, Prediction, Rect};
use revoada_engine::{Candidate, Candidates};

use super::nms;
use super::{DecodeError, DecoderContext};

/// Scores a little above one are rounding (FP16 keeps three digits); more is not a confidence.
const SCORE_MAX: f32 = 1.001;

/// No picture is this wide; a box beyond it is as broken as an infinite one, and would become one
/// on its way to the source picture.
const COORDINATE_MAX: f32 = 1e9;

/// A decoder's name, limits and counter.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) name: &'static str,
    pub(super) score_min: f32,
    iou_max: f32,
    results_max: usize,
    non_finite: AtomicU64,
}

/// What holds for boxes where the manifest is silent; the YOLO families' own defaults.
pub(crate) const SCORE_MIN: f32 = 0.25;
const IOU_MAX: f32 = 0.45;
const RESULTS_MAX: usize = 300;

impl Common {
    pub(super) fn new(name: &'static str, context: &DecoderContext<'_>) -> Self {
        Self::with_defaults(name, context, SCORE_MIN, RESULTS_MAX)
    }

    pub(super) fn with_defaults(
        name: &'static str,
        context: &DecoderContext<'_>,
        score_min: f32,
        results_max: usize,
    ) -> Self {
        Self {
            name,
            score_min: context.manifest.score_min.unwrap_or(score_min),
            iou_max: context.manifest.nms_iou_max.unwrap_or(IOU_MAX),
            results_max: context.manifest.results_max.unwrap_or(results_max),
            non_finite: AtomicU64::new(0),
        }
    }

    pub(super) fn results_max(&self) -> usize {
        self.results_max
    }

    pub(super) fn non_finite(&self) -> u64 {
        self.non_finite.load(Ordering::Relaxed)
    }

    pub(super) fn count_non_finite(&self, count: u64) {
        if count > 0 {
            self.non_finite.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn unreadable(&self, reason: impl Into<String>) -> DecodeError {
        unreadable(self.name, reason)
    }

    /// Decodes what a device has found; `read` has the score and the box, in the network's pixels, of each.
    pub(super) fn decode_candidates(
        &self,
        candidates: &Candidates,
        placement: &Placement,
        read: impl Fn(&Candidate) -> (f32, Rect),
    ) -> Result<Prediction, DecodeError> {
        let mut found = self.boxes();
        found.skip_non_finites(candidates.non_finite);
        for candidate in &candidates.list {
            let (score, bbox) = read(candidate);
            found.push(candidate.class as u32, score, bbox, candidate.cell);
        }
        found.suppressed(placement, |_| Vec::new())
    }

    pub(super) fn boxes(&self) -> Boxes<'_> {
        Boxes { common: self, found: Vec::new(), non_finite: 0, score_over: None }
    }
}

pub(super) fn unreadable(decoder: &str, reason: impl Into<String>) -> DecodeError {
    DecodeError::Outputs { decoder: decoder.to_owned(), reason: reason.into() }
}

/// The boxes of one picture, in the network's pixels.
pub(super) struct Boxes<'a> {
    common: &'a Common,
    found: Vec<nms::Candidate>,
    non_finite: u64,
    score_over: Option<f32>,
}

impl Boxes<'_> {
    /// Counts a place where the network said nothing finite.
    pub(super) fn skip_non_finite(&mut self) {
        self.skip_non_finites(1);
    }

    pub(super) fn skip_non_finites(&mut self, count: usize) {
        self.non_finite += count as u64;
    }

    /// Takes a box whose score is at least the threshold, below which it does not matter what the box is. An empty box
    /// is no object.
    pub(super) fn push(&mut self, class: u32, score: f32, bbox: Rect, index: usize) {
        let sound = |value: f32| value.abs() <= COORDINATE_MAX;
        if score < self.common.score_min && score.is_finite() {
            return;
        }
        if !score.is_finite() || ![bbox.x, bbox.y, bbox.width, bbox.height].into_iter().all(sound) {
            self.non_finite += 1;
        } else if score > SCORE_MAX {
            self.score_over = Some(score);
        } else if bbox.width > 0.0 && bbox.height > 0.0 {
            self.found.push(nms::Candidate { class, score: score.min(1.0), bbox, index });
        }
    }

    /// Suppresses overlaps and maps what stays to the source picture.
    pub(super) fn suppressed(
        mut self,
        placement: &Placement,
        landmarks: impl Fn(&nms::Candidate) -> Vec<Point>,
    ) -> Result<Prediction, DecodeError> {
        nms::suppress(&mut self.found, self.common.iou_max, self.common.results_max);
        self.finish(placement, landmarks)
    }

    /// For networks that suppress in the graph: sorts, and keeps the best.
    pub(super) fn sorted(mut self, placement: &Placement) -> Result<Prediction, DecodeError> {
        nms::sort(&mut self.found);
        self.found.truncate(self.common.results_max);
        self.finish(placement, |_| Vec::new())
    }

    fn finish(
        self,
        placement: &Placement,
        landmarks: impl Fn(&nms::Candidate) -> Vec<Point>,
    ) -> Result<Prediction, DecodeError> {
        self.common.count_non_finite(self.non_finite);
        if let Some(score) = self.score_over {
            let reason = format!("a score of {score} is no confidence; say `activation` if these are logits");
            return Err(self.common.unreadable(reason));
        }
        let detection = |candidate: &nms::Candidate| Detection {
            class: candidate.class,
            score: candidate.score,
            bbox: placement.rect_to_source(candidate.bbox),
            landmarks: landmarks(candidate).into_iter().map(|point| placement.to_source(point)).collect(),
            ..Detection::default()
        };
        Ok(Prediction { detections: self.found.iter().map(detection).collect(), ..Prediction::default() })
    }
}
