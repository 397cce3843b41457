//! Whether two lists of detections say the same.

use revoada_core::{Detection, Rect};
use serde::{Deserialize, Serialize};

/// Which boxes of two lists belong together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoxMatches {
    /// Index in the reference, index in the candidate, and how much of their union they share.
    pub matched: Vec<(usize, usize, f32)>,
    /// Of the reference, without a partner.
    pub missed: Vec<usize>,
    /// Of the candidate, without a partner.
    pub added: Vec<usize>,
}

/// Pairs boxes of one class that share at least `iou_min` of their union, the closest pairs first; each box
/// has one partner at most.
pub fn match_boxes(reference: &[Detection], candidate: &[Detection], iou_min: f32) -> BoxMatches {
    let mut pairs = Vec::new();
    for (left, one) in reference.iter().enumerate() {
        for (right, other) in candidate.iter().enumerate().filter(|(_, other)| other.class == one.class) {
            let iou = iou(one.bbox, other.bbox);
            if iou >= iou_min && iou > 0.0 {
                pairs.push((left, right, iou));
            }
        }
    }
    pairs.sort_by(|a, b| b.2.total_cmp(&a.2));
    let mut matches = BoxMatches::default();
    let (mut lefts, mut rights) = (vec![false; reference.len()], vec![false; candidate.len()]);
    for (left, right, iou) in pairs {
        if !lefts[left] && !rights[right] {
            (lefts[left], rights[right]) = (true, true);
            matches.matched.push((left, right, iou));
        }
    }
    let alone = |taken: &[bool]| (0..taken.len()).filter(|index| !taken[*index]).collect();
    (matches.missed, matches.added) = (alone(&lefts), alone(&rights));
    matches
}

fn iou(a: Rect, b: Rect) -> f32 {
    let width = (a.right().min(b.right()) - a.x.max(b.x)).max(0.0);
    let height = (a.bottom().min(b.bottom()) - a.y.max(b.y)).max(0.0);
    let shared = width * height;
    let union = a.width * a.height + b.width * b.height - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}

/// Agreement over many pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoxAgreement {
    pub matched: usize,
    pub missed: usize,
    pub added: usize,
    /// Mean share of the union, of matched boxes.
    pub iou_mean: f64,
    /// The largest difference of scores, of matched boxes.
    pub score_difference_max: f64,
}

impl BoxAgreement {
    /// Adds one picture's detections.
    pub fn add(&mut self, reference: &[Detection], candidate: &[Detection], iou_min: f32) {
        let matches = match_boxes(reference, candidate, iou_min);
        for (left, right, iou) in &matches.matched {
            let difference = f64::from((reference[*left].score - candidate[*right].score).abs());
            self.score_difference_max = self.score_difference_max.max(difference);
            self.matched += 1;
            self.iou_mean += (f64::from(*iou) - self.iou_mean) / self.matched as f64;
        }
        self.missed += matches.missed.len();
        self.added += matches.added.len();
    }

    /// Matched boxes as a share of all that either model found; 1 where neither found any.
    pub fn share(&self) -> f64 {
        match self.matched + self.missed + self.added {
            0 => 1.0,
            all => self.matched as f64 / all as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(class: u32, x: f32, score: f32) -> Detection {
        Detection { class, score, bbox: Rect::new(x, 0.0, 10.0, 10.0), ..Detection::default() }
    }

    #[test]
    fn boxes_pair_with_their_closest_of_the_same_class() {
        let reference = [detection(0, 0.0, 0.9), detection(0, 100.0, 0.8), detection(1, 0.0, 0.7)];
        let candidate = [detection(0, 2.0, 0.85), detection(0, 1.0, 0.6), detection(1, 50.0, 0.7)];
        let matches = match_boxes(&reference, &candidate, 0.5);
        assert_eq!(matches.matched.iter().map(|pair| (pair.0, pair.1)).collect::<Vec<_>>(), [(0, 1)]);
        assert!((matches.matched[0].2 - 90.0 / 110.0).abs() < 1e-6);
        assert_eq!((matches.missed, matches.added), (vec![1, 2], vec![0, 2]));

        let mut agreement = BoxAgreement::default();
        agreement.add(&reference, &candidate, 0.5);
        agreement.add(&reference, &reference, 0.5);
        assert_eq!((agreement.matched, agreement.missed, agreement.added), (4, 2, 2));
        assert!((agreement.iou_mean - (3.0 + 90.0 / 110.0) / 4.0).abs() < 1e-6);
        assert!((agreement.score_difference_max - 0.3).abs() < 1e-6);
        assert_eq!(agreement.share(), 0.5);
    }

    #[test]
    fn two_empty_lists_agree_and_boxes_without_area_match_nothing() {
        assert_eq!(BoxAgreement::default().share(), 1.0);
        let flat = Detection { bbox: Rect::new(0.0, 0.0, 0.0, 0.0), ..detection(0, 0.0, 1.0) };
        assert_eq!(match_boxes(std::slice::from_ref(&flat), std::slice::from_ref(&flat), 0.0).matched, []);
    }
}
