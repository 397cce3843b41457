//! Non-maximum suppression, for the standard decoders and for a user's own.

use revoada_core::Rect;

/// A box that may become a detection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub class: u32,
    pub score: f32,
    pub bbox: Rect,
    /// Which anchor or cell it comes from, for whatever else the network says about it.
    pub index: usize,
}

/// Greedy suppression per class, as DeepStream's `cluster-mode=2` does it: a stable sort by falling
/// score; then each box stays where its IoU with every box of its class that stays is at most
/// `iou_max`; then the first `results_max` stay (of all classes together: a picture's results are
/// one list). Equal scores keep the order they came in.
///
/// The order is total, so a box's fate depends only on better ones, and the search stops at the
/// `results_max`th that stays: the same answer as cutting the list afterwards, with at most
/// `candidates × results_max` comparisons.
pub fn suppress(candidates: &mut Vec<Candidate>, iou_max: f32, results_max: usize) {
    sort(candidates);
    let mut kept = 0;
    for next in 0..candidates.len() {
        if kept == results_max {
            break;
        }
        let candidate = candidates[next];
        let overlaps =
            |better: &Candidate| better.class == candidate.class && better.bbox.iou(&candidate.bbox) > iou_max;
        if !candidates[..kept].iter().any(overlaps) {
            candidates[kept] = candidate;
            kept += 1;
        }
    }
    candidates.truncate(kept);
}

/// By falling score; stable.
pub(super) fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(class: u32, score: f32, x: f32) -> Candidate {
        Candidate { class, score, bbox: Rect::new(x, 0.0, 10.0, 10.0), index: 0 }
    }

    fn suppressed(mut candidates: Vec<Candidate>, iou_max: f32, results_max: usize) -> Vec<Candidate> {
        suppress(&mut candidates, iou_max, results_max);
        candidates
    }

    #[test]
    fn an_overlap_of_exactly_the_threshold_stays() {
        // Shifted by 5 of 10: 50 shared of 150.
        let boxes = vec![candidate(0, 0.9, 0.0), candidate(0, 0.8, 5.0)];
        assert_eq!(suppressed(boxes.clone(), 50.0 / 150.0, 10).len(), 2);
        assert_eq!(suppressed(boxes, 0.33, 10).len(), 1);
    }

    #[test]
    fn a_suppressed_box_suppresses_nothing() {
        let boxes = vec![candidate(0, 0.9, 0.0), candidate(0, 0.8, 4.0), candidate(0, 0.7, 8.0)];
        let kept = suppressed(boxes.clone(), 0.3, 10);
        assert_eq!(kept, vec![boxes[0], boxes[2]]);
    }

    #[test]
    fn classes_do_not_suppress_each_other_and_equal_scores_keep_their_order() {
        let boxes = vec![candidate(1, 0.5, 0.0), candidate(0, 0.5, 0.0), candidate(2, 0.6, 0.0)];
        assert_eq!(suppressed(boxes.clone(), 0.3, 10), vec![boxes[2], boxes[0], boxes[1]]);
        assert_eq!(suppressed(boxes.clone(), 0.3, 1), vec![boxes[2]]);
        assert_eq!(suppressed(boxes, 0.3, 0), vec![]);
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        // Scores from a small set, so that ties are common.
        let one = (0u32..3, 0u8..12, 0f32..60.0, 0f32..60.0, 0.5f32..30.0, 0.5f32..30.0);
        prop::collection::vec(one, 0..60).prop_map(|boxes| {
            let candidate = |(index, (class, score, x, y, width, height))| Candidate {
                class,
                score: f32::from(score) / 12.0,
                bbox: Rect::new(x, y, width, height),
                index,
            };
            boxes.into_iter().enumerate().map(candidate).collect()
        })
    }

    /// The definition, word for word: sort, filter a whole class at a time, merge, cut.
    fn by_definition(mut candidates: Vec<Candidate>, iou_max: f32, results_max: usize) -> Vec<Candidate> {
        sort(&mut candidates);
        let mut kept: Vec<Candidate> = Vec::new();
        for class in 0..3 {
            let mut of_class: Vec<Candidate> = Vec::new();
            for candidate in candidates.iter().filter(|candidate| candidate.class == class) {
                if of_class.iter().all(|better| better.bbox.iou(&candidate.bbox) <= iou_max) {
                    of_class.push(*candidate);
                }
            }
            kept.extend(of_class);
        }
        kept.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
        kept.truncate(results_max);
        kept
    }

    proptest! {
        #[test]
        fn what_stays_is_what_the_definition_says(
            candidates in candidates(), iou_max in 0f32..1.0, results_max in 0usize..40,
        ) {
            let kept = suppressed(candidates.clone(), iou_max, results_max);
            prop_assert_eq!(&kept, &by_definition(candidates, iou_max, results_max));
        }

        #[test]
        fn what_stays_is_a_sorted_subset_without_overlaps_and_stays_again(
            candidates in candidates(), iou_max in 0f32..1.0, results_max in 0usize..40,
        ) {
            let kept = suppressed(candidates.clone(), iou_max, results_max);
            prop_assert!(kept.len() <= results_max);
            prop_assert!(kept.iter().all(|candidate| candidates.contains(candidate)));
            prop_assert!(kept.is_sorted_by(|a, b| a.score >= b.score));
            for (index, a) in kept.iter().enumerate() {
                for b in kept[..index].iter().filter(|b| b.class == a.class) {
                    prop_assert!(a.bbox.iou(&b.bbox) <= iou_max);
                }
            }
            prop_assert_eq!(&suppressed(kept.clone(), iou_max, results_max), &kept);
        }
    }
}
