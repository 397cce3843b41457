//! What holds for every tracker, whatever it is shown.

use proptest::prelude::*;
use revoada_core::{Detection, Rect, TrackId};
use revoada_pipeline::config::{OcSortConfig, TrackerAlgorithm, TrackerConfig};
use revoada_pipeline::track::{Step, Tracker, Warp};

const OC_SORT_WITH_WEAK: TrackerConfig = TrackerConfig {
    algorithm: TrackerAlgorithm::OcSort(OcSortConfig { score_low: Some(0.1), ..OcSortConfig::STANDARD }),
    ..TrackerConfig::OC_SORT
};
const ALL: [TrackerConfig; 4] =
    [TrackerConfig::SORT, TrackerConfig::BYTE_TRACK, TrackerConfig::OC_SORT, OC_SORT_WITH_WEAK];

/// Objects that cross the picture again and again, with misses, false alarms and trembling boxes. The same scene comes
/// back after `period` frames.
fn scene(seed: u64, objects: usize, period: usize) -> Vec<Vec<Detection>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let paths: Vec<_> = (0..objects)
        .map(|_| {
            let (x, y) = (random.f32() * 1900.0, random.f32() * 1000.0);
            let (dx, dy) = (random.f32() * 12.0 - 6.0, random.f32() * 6.0 - 3.0);
            (x, y, dx, dy, 20.0 + random.f32() * 60.0, random.usize(..period), random.u32(..2))
        })
        .collect();
    let mut frame = |number: usize| {
        let mut found = Vec::new();
        for &(x, y, dx, dy, width, begins, class) in &paths {
            let age = ((number + period - begins) % period) as f32;
            if age > period as f32 * 0.7 || random.f32() < 0.1 {
                continue;
            }
            let mut tremble = || random.f32() * 4.0 - 2.0;
            let bbox = Rect::new(x + age * dx + tremble(), y + age * dy + tremble(), width + tremble(), width * 2.0);
            found.push(Detection { class, score: 0.3 + random.f32() * 0.7, bbox, ..Detection::default() });
        }
        for _ in 0..random.usize(..4) {
            let bbox = Rect::new(random.f32() * 1900.0, random.f32() * 1000.0, 40.0, 80.0);
            found.push(Detection { class: 0, score: random.f32(), bbox, ..Detection::default() });
        }
        found
    };
    (0..period).map(&mut frame).collect()
}

/// Tracks a sequence; the detections come back with their tracks.
fn track(config: &TrackerConfig, frames: &[Vec<Detection>]) -> Vec<Vec<Detection>> {
    let mut tracker = Tracker::new(config, 0);
    let mut out = frames.to_vec();
    out.iter_mut().for_each(|found| tracker.update(found, &Step::default()));
    out
}

fn ids(frames: &[Vec<Detection>]) -> Vec<Vec<Option<TrackId>>> {
    frames.iter().map(|found| found.iter().map(|detection| detection.track).collect()).collect()
}

#[test]
fn nothing_is_allocated_once_the_scene_was_seen() {
    let frames = scene(1, 60, 120);
    let shift = Warp { matrix: [[1.0, 0.0, 0.5], [0.0, 1.0, -0.5]] };
    for config in ALL {
        let mut tracker = Tracker::new(&config, 0);
        let mut seen = frames.clone();
        let mut play = |tracker: &mut Tracker, warp| {
            seen.iter_mut().for_each(|found| tracker.update(found, &Step { frames: 1, warp }));
        };
        (0..3).for_each(|_| play(&mut tracker, None));
        let measured = allocation_counter::measure(|| play(&mut tracker, None));
        assert_eq!(measured.count_total, 0, "{config:?}");
        play(&mut tracker, Some(shift));
        assert!(tracker.last_id() > 60, "{} tracks come and go", tracker.last_id());
    }
}

#[test]
fn the_same_sequence_gives_the_same_tracks() {
    let frames = scene(2, 30, 100);
    for config in ALL {
        assert_eq!(track(&config, &frames), track(&config, &frames));
    }
}

#[test]
fn numbers_count_up_stay_with_their_class_and_are_in_a_frame_once() {
    for config in ALL {
        let frames = scene(3, 40, 150);
        let mut tracker = Tracker::new(&config, 0);
        let (mut last, mut known) = (0, std::collections::BTreeMap::new());
        for (number, found) in frames.iter().cycle().take(600).enumerate() {
            let mut found = found.clone();
            tracker.update(&mut found, &Step::default());
            let mut here: Vec<_> = found.iter().filter_map(|found| Some((found.track?, found.class))).collect();
            here.sort_unstable();
            assert!(here.windows(2).all(|two| two[0].0 < two[1].0), "a track twice in frame {number}");
            for (TrackId(id), class) in here {
                match known.insert(id, class) {
                    Some(before) => assert_eq!(before, class),
                    None => {
                        assert_eq!(id, last + 1);
                        last = id;
                    }
                }
            }
        }
        assert_eq!(tracker.last_id(), last);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_detections_does_not_matter(seed in 0u64..1000) {
        let frames = scene(seed, 25, 60);
        let mut random = fastrand::Rng::with_seed(seed);
        let orders: Vec<Vec<usize>> = frames
            .iter()
            .map(|found| {
                let mut order: Vec<usize> = (0..found.len()).collect();
                random.shuffle(&mut order);
                order
            })
            .collect();
        let shuffled: Vec<Vec<Detection>> = frames
            .iter()
            .zip(&orders)
            .map(|(found, order)| order.iter().map(|&index| found[index].clone()).collect())
            .collect();
        for config in ALL {
            let (plain, mixed) = (ids(&track(&config, &frames)), ids(&track(&config, &shuffled)));
            // Numbers are given in order, so they may be others; the same boxes share them.
            let (mut forth, mut back) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
            for ((plain, mixed), order) in plain.iter().zip(&mixed).zip(&orders) {
                for (position, &index) in order.iter().enumerate() {
                    prop_assert_eq!(plain[index].is_some(), mixed[position].is_some());
                    if let (Some(one), Some(other)) = (plain[index], mixed[position]) {
                        prop_assert_eq!(*forth.entry(one).or_insert(other), other);
                        prop_assert_eq!(*back.entry(other).or_insert(one), one);
                    }
                }
            }
        }
    }

    #[test]
    fn a_shifted_sequence_has_the_same_tracks(seed in 0u64..1000, x in -4000i32..4000, y in -4000i32..4000) {
        // On whole 16ths of pixels, so that a shift rounds nothing.
        let grid = |value: f32| (value * 16.0).round() / 16.0;
        let mut frames = scene(seed, 25, 60);
        for bbox in frames.iter_mut().flatten().map(|found| &mut found.bbox) {
            *bbox = Rect::new(grid(bbox.x), grid(bbox.y), grid(bbox.width), grid(bbox.height));
        }
        let mut shifted = frames.clone();
        for bbox in shifted.iter_mut().flatten().map(|found| &mut found.bbox) {
            (bbox.x, bbox.y) = (bbox.x + x as f32, bbox.y + y as f32);
        }
        for config in ALL {
            let (here, there) = (track(&config, &frames), track(&config, &shifted));
            prop_assert_eq!(ids(&here), ids(&there));
            for (here, there) in here.iter().flatten().zip(there.iter().flatten()) {
                let (dx, dy) = (there.bbox.x - here.bbox.x - x as f32, there.bbox.y - here.bbox.y - y as f32);
                prop_assert!(dx.abs() < 0.01 && dy.abs() < 0.01);
            }
        }
    }

    #[test]
    fn no_box_is_too_strange(
        frames in prop::collection::vec(
            prop::collection::vec((any::<[f32; 4]>(), any::<f32>(), 0u32..3), 0..6),
            1..12,
        ),
        steps in prop::collection::vec((any::<u32>(), prop::option::of(any::<[[f32; 3]; 2]>())), 12),
        across_classes: bool,
    ) {
        for config in ALL {
            let mut tracker = Tracker::new(&TrackerConfig { across_classes, ..config }, 0);
            for (found, (frames, warp)) in frames.iter().zip(&steps) {
                let warp = warp.map(|matrix| Warp { matrix: matrix.map(|row| row.map(f64::from)) });
                let mut found: Vec<_> = found
                    .iter()
                    .map(|&([x, y, width, height], score, class)| {
                        Detection { class, score, bbox: Rect::new(x, y, width, height), ..Detection::default() }
                    })
                    .collect();
                tracker.update(&mut found, &Step { frames: *frames, warp });
                for detection in found.iter().filter(|detection| detection.track.is_some()) {
                    let Rect { x, y, width, height } = detection.bbox;
                    prop_assert!([x, y, width, height].iter().all(|side| side.is_finite()), "{:?}", detection);
                }
            }
        }
    }
}
