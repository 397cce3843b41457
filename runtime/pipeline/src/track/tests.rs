use revoada_core::Rect;

use super::*;
use crate::config::{OcSortConfig, SortConfig};

fn found(class: u32, score: f32, x: f32, y: f32) -> Detection {
    Detection { class, score, bbox: Rect::new(x, y, 40.0, 80.0), ..Detection::default() }
}

/// The tracks of a frame's detections.
fn update(tracker: &mut Tracker, mut detections: Vec<Detection>) -> Vec<Option<u64>> {
    tracker.update(&mut detections, &Step::default());
    detections.iter().map(|detection| Some(detection.track?.0)).collect()
}

const ALL: [TrackerConfig; 3] = [TrackerConfig::SORT, TrackerConfig::BYTE_TRACK, TrackerConfig::OC_SORT];

#[test]
fn one_object_is_one_track() {
    for config in ALL {
        let mut tracker = Tracker::new(&config, 0);
        for frame in 0..20 {
            let tracks = update(&mut tracker, vec![found(0, 0.9, 10.0 + 5.0 * frame as f32, 20.0)]);
            // OC-SORT and SORT are sure of everything in the first frames; ByteTrack in the very first.
            assert_eq!(tracks, [Some(1)], "{config:?} in frame {frame}");
        }
    }
}

#[test]
fn what_appears_later_is_tracked_once_it_is_sure() {
    // Frames in which it was seen until it has a track, after the first frames of the stream.
    for (config, frames) in [(TrackerConfig::SORT, 4), (TrackerConfig::BYTE_TRACK, 2), (TrackerConfig::OC_SORT, 4)] {
        let mut tracker = Tracker::new(&config, 0);
        (0..10).for_each(|_| drop(update(&mut tracker, Vec::new())));
        let seen = (1..).find(|_| update(&mut tracker, vec![found(0, 0.9, 10.0, 20.0)]) == [Some(1)]);
        assert_eq!(seen, Some(frames), "{config:?}");
    }
}

#[test]
fn frames_without_detections_age_tracks() {
    // Missing for so long it still comes back as what it was, and one frame longer not. ByteTrack looks for what is lost
    // for too long once more.
    for (config, gap) in [(TrackerConfig::SORT, 1), (TrackerConfig::BYTE_TRACK, 31), (TrackerConfig::OC_SORT, 30)] {
        for (gap, same) in [(gap, true), (gap + 1, false)] {
            let mut tracker = Tracker::new(&config, 0);
            let seen = || vec![found(0, 0.9, 10.0, 20.0)];
            (0..5).for_each(|_| drop(update(&mut tracker, seen())));
            (0..gap).for_each(|_| drop(update(&mut tracker, Vec::new())));
            let tracks: Vec<_> = (0..5).flat_map(|_| update(&mut tracker, seen()).into_iter().flatten()).collect();
            assert_eq!(tracks.last(), Some(&if same { 1 } else { 2 }), "{config:?} after {gap} frames");
        }
    }
}

#[test]
fn a_weak_detection_goes_on_with_a_track_and_begins_none() {
    let mut tracker = Tracker::new(&TrackerConfig::BYTE_TRACK, 0);
    assert_eq!(update(&mut tracker, vec![found(0, 0.9, 10.0, 20.0), found(0, 0.3, 300.0, 20.0)]), [Some(1), None]);
    for _ in 0..50 {
        assert_eq!(update(&mut tracker, vec![found(0, 0.2, 10.0, 20.0), found(0, 0.3, 300.0, 20.0)]), [Some(1), None]);
    }
    assert_eq!(update(&mut tracker, vec![found(0, 0.05, 10.0, 20.0)]), [None]);
    // OC-SORT does so where it is asked to.
    for (score_low, expected) in [(None, None), (Some(0.1), Some(1))] {
        let algorithm = TrackerAlgorithm::OcSort(OcSortConfig { score_low, ..OcSortConfig::STANDARD });
        let mut tracker = Tracker::new(&TrackerConfig { algorithm, ..TrackerConfig::OC_SORT }, 0);
        (0..5).for_each(|_| drop(update(&mut tracker, vec![found(0, 0.9, 10.0, 20.0)])));
        assert_eq!(update(&mut tracker, vec![found(0, 0.2, 10.0, 20.0)]), [expected]);
    }
}

#[test]
fn a_track_keeps_its_class_unless_classes_do_not_matter() {
    for config in ALL {
        let seen = |across_classes: bool| {
            let mut tracker = Tracker::new(&TrackerConfig { across_classes, ..config }, 0);
            let frames = (0..20).map(|frame| update(&mut tracker, vec![found(frame / 10, 0.9, 10.0, 20.0)])[0]);
            let tracks: Vec<_> = frames.flatten().collect();
            (tracks[0], tracks[tracks.len() - 1])
        };
        assert_eq!(seen(false), (1, 2), "{config:?}");
        assert_eq!(seen(true), (1, 1), "{config:?}");
    }
}

#[test]
fn classes_are_tracked_as_if_each_were_alone() {
    for config in ALL {
        let mut random = fastrand::Rng::with_seed(3);
        let mut together = Tracker::new(&config, 0);
        let mut alone = [Tracker::new(&config, 0), Tracker::new(&config, 0)];
        for frame in 0..100 {
            let place = |n: usize| found((n % 2) as u32, 0.9, 30.0 * n as f32 + 2.0 * frame as f32, 50.0);
            let detections: Vec<_> = (0..8).map(place).filter(|_| random.f32() < 0.8).collect();
            let mut all = detections.clone();
            together.update(&mut all, &Step::default());
            for (class, alone) in (0..).zip(&mut alone) {
                let of = |detections: &[Detection]| {
                    detections.iter().filter(|found| found.class == class).cloned().collect::<Vec<_>>()
                };
                let mut own = of(&detections);
                alone.update(&mut own, &Step::default());
                for (own, all) in own.iter().zip(of(&all)) {
                    assert_eq!((own.track.is_some(), own.bbox), (all.track.is_some(), all.bbox));
                }
            }
        }
    }
}

#[test]
fn ids_go_on_after_a_reset_and_from_where_they_are_told_to() {
    for config in ALL {
        let mut tracker = Tracker::new(&config, 41);
        assert_eq!(update(&mut tracker, vec![found(0, 0.9, 10.0, 20.0)]), [Some(42)]);
        tracker.reset();
        assert_eq!(update(&mut tracker, vec![found(0, 0.9, 10.0, 20.0)]), [Some(43)]);
        assert_eq!(tracker.last_id(), 43);
    }
}

#[test]
fn objects_move_on_through_frames_that_were_lost() {
    for config in ALL {
        let mut tracker = Tracker::new(&config, 0);
        let at = |frame: u32| found(0, 0.9, 10.0 + 8.0 * frame as f32, 20.0);
        (0..20).for_each(|frame| drop(update(&mut tracker, vec![at(frame)])));
        // 12 frames further it overlaps nothing of where it was.
        let mut later = [at(31)];
        tracker.update(&mut later, &Step { frames: 12, ..Step::default() });
        assert_eq!(later[0].track, Some(TrackId(1)), "{config:?}");
    }
}

#[test]
fn a_warp_moves_what_is_remembered() {
    let warp = Warp { matrix: [[1.0, 0.0, 200.0], [0.0, 1.0, -50.0]] };
    for config in ALL {
        for (warp, expected) in [(Some(warp), Some(TrackId(1))), (None, None)] {
            let mut tracker = Tracker::new(&config, 0);
            (0..10).for_each(|_| drop(update(&mut tracker, vec![found(0, 0.9, 10.0, 100.0)])));
            let mut moved = [found(0, 0.9, 210.0, 50.0)];
            tracker.update(&mut moved, &Step { warp, ..Step::default() });
            assert_eq!(moved[0].track, expected, "{config:?}");
        }
    }
}

#[test]
fn boxes_are_smoothed_where_that_is_asked_for() {
    for (config, smooths) in ALL.into_iter().zip([true, true, false]) {
        let mut trackers = [true, false].map(|smooth| Tracker::new(&TrackerConfig { smooth, ..config }, 0));
        let mut moved = [false; 2];
        for frame in 0..10 {
            let seen = found(0, 0.9, 10.0 + (frame % 2) as f32, 20.0);
            for (tracker, moved) in trackers.iter_mut().zip(&mut moved) {
                let mut detections = [seen.clone()];
                tracker.update(&mut detections, &Step::default());
                let difference = detections[0].bbox.x - seen.bbox.x;
                assert!(difference.abs() < 1.0);
                *moved |= difference.abs() > 0.1;
            }
        }
        assert_eq!(moved, [smooths, false], "{config:?}");
    }
}

#[test]
fn an_occluded_object_that_turned_is_found_where_it_was_last_seen() {
    // To the right, hidden, and back at the place where it went out of sight: SORT expects it further on.
    let sort = SortConfig { lost_frames_max: 30, ..SortConfig::STANDARD };
    let sort = TrackerConfig { algorithm: TrackerAlgorithm::Sort(sort), ..TrackerConfig::SORT };
    for (config, expected) in [(sort, None), (TrackerConfig::OC_SORT, Some(1))] {
        let mut tracker = Tracker::new(&config, 0);
        (0..10).for_each(|frame| drop(update(&mut tracker, vec![found(0, 0.9, 10.0 + 8.0 * frame as f32, 20.0)])));
        (0..8).for_each(|_| drop(update(&mut tracker, Vec::new())));
        let mut back = (0..2).map(|_| update(&mut tracker, vec![found(0, 0.9, 82.0, 20.0)])[0]);
        // A hit after a gap is not a third in a row; what is found again is told after two more.
        assert_eq!((back.next(), back.next()), (Some(None), Some(None)));
        assert_eq!(update(&mut tracker, vec![found(0, 0.9, 82.0, 20.0)]), [expected], "{config:?}");
    }
}
