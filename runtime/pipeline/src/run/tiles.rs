//! A frame in parts: where they lie, and how what they show becomes one answer again.

use revoada_core::{Detection, Prediction, Rect, Size};

use crate::config::TilesConfig;

/// A box is cut by its tile where it comes so near to an edge that other tiles go past, in parts of the tile's side.
const CUT: f32 = 0.01;
/// Of a box that its tile cuts, so much lies in another one of the same object.
const CONTAINED_MIN: f32 = 0.5;
/// Boxes of two tiles that overlap more are of one object.
const IOU_MAX: f32 = 0.5;

/// The areas of a frame's tiles, row by row, and the whole picture behind them where it is read as well.
pub(super) fn areas(tiles: &TilesConfig, size: Size) -> Vec<Rect> {
    let side = |count: u32, length: usize| length as f32 / (count as f32 - (count as f32 - 1.0) * tiles.overlap);
    let (width, height) = (side(tiles.columns, size.width), side(tiles.rows, size.height));
    let step = 1.0 - tiles.overlap;
    let mut areas = Vec::with_capacity(tiles.count());
    for row in 0..tiles.rows {
        for column in 0..tiles.columns {
            areas.push(Rect::new(column as f32 * width * step, row as f32 * height * step, width, height));
        }
    }
    if tiles.whole {
        areas.push(Rect::of(size));
    }
    areas
}

/// One answer of those of a frame's tiles, by falling score. Where several have found one object, the best whole box
/// stays, and parts of it go. Boxes of one tile never drop each other: its decoder has let both stay.
///
/// What is no box is that of the last tile, which is the whole picture where that is read.
pub(super) fn merge(areas: &[Rect], size: Size, answers: Vec<Prediction>) -> Prediction {
    struct Found {
        detection: Detection,
        tile: usize,
        cut: bool,
    }
    let mut merged = Prediction::default();
    let mut found = Vec::new();
    for (tile, answer) in answers.into_iter().enumerate() {
        let cut = |detection: &Detection| is_cut(detection.bbox, areas[tile], size);
        found.extend(answer.detections.into_iter().map(|detection| Found { cut: cut(&detection), detection, tile }));
        (merged.classifications, merged.segmentation) = (answer.classifications, answer.segmentation);
    }
    found.sort_by(|a, b| a.cut.cmp(&b.cut).then(b.detection.score.total_cmp(&a.detection.score)));
    let mut kept: Vec<Found> = Vec::with_capacity(found.len());
    for next in found {
        let same = |better: &Found| {
            better.tile != next.tile
                && better.detection.class == next.detection.class
                && match next.cut {
                    true => contained(next.detection.bbox, better.detection.bbox) > CONTAINED_MIN,
                    false => better.detection.bbox.iou(&next.detection.bbox) > IOU_MAX,
                }
        };
        if !kept.iter().any(same) {
            kept.push(next);
        }
    }
    kept.sort_by(|a, b| b.detection.score.total_cmp(&a.detection.score));
    merged.detections = kept.into_iter().map(|found| found.detection).collect();
    merged
}

/// Whether a box ends where its tile does and the picture does not.
fn is_cut(bbox: Rect, tile: Rect, size: Size) -> bool {
    let (x, y) = (tile.width * CUT, tile.height * CUT);
    let inner = |edge: f32, length: usize, near: f32| edge > near && edge < length as f32 - near;
    (inner(tile.x, size.width, x) && bbox.x < tile.x + x)
        || (inner(tile.right(), size.width, x) && bbox.right() > tile.right() - x)
        || (inner(tile.y, size.height, y) && bbox.y < tile.y + y)
        || (inner(tile.bottom(), size.height, y) && bbox.bottom() > tile.bottom() - y)
}

/// Which part of a box lies in another.
fn contained(part: Rect, whole: Rect) -> f32 {
    let area = part.area();
    if area > 0.0 { part.intersection(&whole).area() / area } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: Size = Size::new(1000, 600);
    const TILES: TilesConfig = TilesConfig { columns: 3, rows: 2, overlap: 0.2, whole: true };

    fn detection(bbox: Rect, score: f32) -> Detection {
        Detection { bbox, score, ..Detection::default() }
    }

    fn merged(detections: &[(usize, Detection)]) -> Vec<Detection> {
        let areas = areas(&TILES, SIZE);
        let mut answers = vec![Prediction::default(); areas.len()];
        for (tile, detection) in detections {
            answers[*tile].detections.push(detection.clone());
        }
        merge(&areas, SIZE, answers).detections
    }

    #[test]
    fn tiles_cover_the_picture_and_share_what_they_shall() {
        let areas = areas(&TILES, SIZE);
        assert_eq!(areas.len(), 7);
        let close = |a: f32, b: f32| (a - b).abs() < 0.01;
        assert!(close(areas[0].x, 0.0) && close(areas[2].right(), 1000.0) && close(areas[5].bottom(), 600.0));
        assert!(close(areas[0].right() - areas[1].x, areas[0].width * 0.2));
        assert!(close(areas[0].bottom() - areas[3].y, areas[0].height * 0.2));
        assert_eq!(areas[6], Rect::new(0.0, 0.0, 1000.0, 600.0));
    }

    #[test]
    fn of_an_object_in_two_tiles_the_better_box_stays() {
        let (bbox, moved) = (Rect::new(330.0, 100.0, 30.0, 40.0), Rect::new(331.0, 101.0, 30.0, 40.0));
        assert_eq!(merged(&[(0, detection(bbox, 0.7)), (1, detection(moved, 0.9))]), [detection(moved, 0.9)]);
    }

    /// The first tile ends at 384: what is cut there is a part, however sure its tile is.
    #[test]
    fn a_part_gives_way_to_the_whole() {
        let (part, whole) = (Rect::new(340.0, 100.0, 44.0, 80.0), Rect::new(340.0, 100.0, 120.0, 80.0));
        let kept = merged(&[(0, detection(part, 0.95)), (1, detection(whole, 0.6))]);
        assert_eq!(kept, [detection(whole, 0.6)]);
        assert_eq!(merged(&[(0, detection(part, 0.95))]).len(), 1, "it is all that there is");
    }

    #[test]
    fn a_small_object_before_a_large_one_stays() {
        let (large, small) = (Rect::new(100.0, 50.0, 700.0, 500.0), Rect::new(120.0, 80.0, 40.0, 60.0));
        assert_eq!(merged(&[(6, detection(large, 0.9)), (0, detection(small, 0.5))]).len(), 2);
    }

    #[test]
    fn other_classes_and_boxes_of_one_tile_stay() {
        let bbox = Rect::new(10.0, 10.0, 50.0, 50.0);
        let other = Detection { class: 1, ..detection(bbox, 0.5) };
        assert_eq!(merged(&[(0, detection(bbox, 0.9)), (6, other)]).len(), 2);
        assert_eq!(merged(&[(0, detection(bbox, 0.9)), (0, detection(bbox, 0.8))]).len(), 2);
    }

    proptest! {
        /// An object that is whole in at least one tile is found exactly once, wherever it lies.
        #[test]
        fn every_object_is_found_once(x in 0f32..930.0, y in 0f32..530.0, columns in 1u32..5, rows in 2u32..5) {
            let tiles = TilesConfig { columns, rows, overlap: 0.3, whole: true };
            let (areas, object) = (areas(&tiles, SIZE), Rect::new(x, y, 40.0, 40.0));
            let answers = areas.iter().map(|tile| {
                let (left, top) = (object.x.max(tile.x), object.y.max(tile.y));
                let (right, bottom) = (object.right().min(tile.right()), object.bottom().min(tile.bottom()));
                let seen = right - left > 4.0 && bottom - top > 4.0;
                let bbox = Rect::new(left, top, right - left, bottom - top);
                let detections = if seen { vec![detection(bbox, 0.5 + bbox.width * bbox.height / 4000.0)] } else { vec![] };
                Prediction { detections, ..Prediction::default() }
            });
            let merged = merge(&areas, SIZE, answers.collect());
            prop_assert_eq!(merged.detections.len(), 1, "{:?}", merged.detections);
            prop_assert!(merged.detections[0].bbox.iou(&object) > 0.99);
        }
    }
}
