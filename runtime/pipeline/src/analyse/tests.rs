use std::time::Duration;

use proptest::prelude::*;
use revoada_core::{Point, StreamId};

use super::*;
use crate::config::{AnalyticsConfig, CrossingMode, CrowdConfig, DirectionConfig, LineConfig, RegionConfig, Scope};

const SIZE: Size = Size::new(200, 100);

fn scope(name: &str) -> Scope {
    Scope { name: name.into(), ..Scope::default() }
}

fn line(points: [(f32, f32); 2]) -> LineConfig {
    LineConfig {
        scope: scope("line"),
        points: points.map(|(x, y)| Point::new(x, y)),
        direction: None,
        mode: CrossingMode::Loose,
        extended: false,
    }
}

fn region(corners: &[(f32, f32)]) -> RegionConfig {
    let corners = corners.iter().map(|(x, y)| Point::new(*x, *y)).collect();
    RegionConfig { scope: scope("region"), corners, inverse: false, dwell: None, crowd: None }
}

/// `x` from 50 to 100 and `y` from 20 to 80.
fn square() -> RegionConfig {
    region(&[(50.0, 20.0), (100.0, 20.0), (100.0, 80.0), (50.0, 80.0)])
}

fn exact() -> AnalyticsConfig {
    AnalyticsConfig { margin: 0.0, ..AnalyticsConfig::default() }
}

fn of_line(line: LineConfig) -> AnalyticsConfig {
    AnalyticsConfig { lines: vec![line], ..exact() }
}

fn of_region(region: RegionConfig) -> AnalyticsConfig {
    AnalyticsConfig { regions: vec![region], ..exact() }
}

fn analyser(config: &AnalyticsConfig) -> Analyser {
    let labels = ["person", "car"].map(str::to_owned);
    Analyser::new(Rules::of(config, &StreamId::new("a"), &labels).unwrap().unwrap())
}

/// A box of 8 × 20 pixels whose lower edge has its middle at a place.
fn standing(track: u64, (x, y): (f32, f32)) -> Detection {
    let bbox = Rect::new(x - 4.0, y - 20.0, 8.0, 20.0);
    Detection { score: 0.9, bbox, track: Some(TrackId(track)), ..Detection::default() }
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(ms * 1_000_000)
}

/// One object that is at these places, a frame every 100 ms; the events' kinds and the counts at the end.
fn walk(config: &AnalyticsConfig, places: &[(f32, f32)]) -> (Vec<EventKind>, Counts) {
    let mut analyser = analyser(config);
    let mut kinds = Vec::new();
    for (place, ms) in places.iter().zip((0..).step_by(100)) {
        kinds.extend(analyser.update(at(ms), SIZE, &[standing(1, *place)]).events.iter().map(|event| event.kind));
    }
    (kinds, analyser.counts())
}

fn crossings(line: LineConfig, places: &[(f32, f32)]) -> (u64, u64) {
    let total = walk(&of_line(line), places).1.lines[0].total;
    (total.inwards, total.outwards)
}

/// Along y = 50 from x = 50 to x = 150: "in" is downwards.
fn across() -> LineConfig {
    line([(50.0, 50.0), (150.0, 50.0)])
}

#[test]
fn crossings_have_a_direction_and_ends() {
    let down = [(100.0, 40.0), (100.0, 60.0)];
    let up = [(100.0, 60.0), (100.0, 40.0)];
    let beside = [(20.0, 40.0), (20.0, 60.0)];
    let swapped = LineConfig { points: [Point::new(150.0, 50.0), Point::new(50.0, 50.0)], ..across() };
    let upwards = LineConfig { direction: Some([Point::new(0.0, 9.0), Point::new(1.0, 2.0)]), ..across() };
    let extended = LineConfig { extended: true, ..across() };
    for (line, places, expected) in [
        (across(), &down[..], (1, 0)),
        (across(), &up, (0, 1)),
        (across(), &beside, (0, 0)),
        (swapped, &down, (0, 1)),
        (upwards, &down, (0, 1)),
        (extended.clone(), &beside, (1, 0)),
        (across(), &[(100.0, 40.0), (100.0, 60.0), (100.0, 40.0), (100.0, 60.0)], (2, 1)),
        // Round the end and over the line, and round the end twice.
        (across(), &[(100.0, 40.0), (20.0, 40.0), (20.0, 60.0), (100.0, 60.0), (100.0, 40.0)], (0, 1)),
        (across(), &[(100.0, 40.0), (20.0, 40.0), (20.0, 60.0), (20.0, 40.0), (100.0, 40.0)], (0, 0)),
        // It begins on the line, which is right of it.
        (across(), &[(100.0, 50.0), (100.0, 60.0)], (0, 0)),
        (across(), &[(100.0, 50.0), (100.0, 40.0)], (0, 1)),
    ] {
        assert_eq!(crossings(line.clone(), places), expected, "{places:?} over {line:?}");
    }
}

#[test]
fn trembling_on_the_line_is_counted_once() {
    let trembling = [40.0, 49.7, 50.2, 49.8, 50.4, 49.9, 50.9, 60.0].map(|y| (100.0, y));
    let config = AnalyticsConfig { margin: 0.05, ..of_line(across()) };
    assert_eq!(walk(&config, &trembling).1.lines[0].total, Crossings { inwards: 1, outwards: 0 });
    // Without a margin, each step over the line counts.
    assert_eq!(crossings(across(), &trembling), (3, 2));
    // Whoever stands at the line's end and trembles round it is not counted, on whichever side it ends.
    let round = [(60.0, 40.0), (50.2, 49.9), (50.2, 50.1), (49.8, 50.1), (49.8, 49.9), (50.2, 49.9), (60.0, 40.0)];
    assert_eq!(walk(&config, &round).1.lines[0].total, Crossings::default());
}

#[test]
fn a_mode_asks_for_a_direction() {
    // Downwards at 0°, 45° and 75° to the line's own direction, and back.
    for (right, counted) in [
        (0.0, [CrossingMode::Loose, CrossingMode::Balanced, CrossingMode::Strict].as_slice()),
        (20.0, &[CrossingMode::Loose, CrossingMode::Balanced]),
        (75.0, &[CrossingMode::Loose]),
    ] {
        for mode in [CrossingMode::Loose, CrossingMode::Balanced, CrossingMode::Strict] {
            let line = LineConfig { mode, extended: true, ..across() };
            let (start, end) = ((100.0, 40.0), (100.0 + right, 60.0));
            let expected = u64::from(counted.contains(&mode));
            assert_eq!(crossings(line.clone(), &[start, end]), (expected, 0), "{mode:?} {right}");
            assert_eq!(crossings(line, &[end, start]), (0, expected), "{mode:?} {right}");
        }
    }
    // The way over the latest second counts, and not the last step.
    let line = LineConfig { mode: CrossingMode::Strict, ..across() };
    assert_eq!(crossings(line, &[(100.0, 20.0), (100.0, 48.0), (104.0, 51.0)]), (1, 0));
}

#[test]
fn crossings_are_told_with_their_object_and_counted_by_class() {
    let mut analyser = analyser(&of_line(across()));
    for (ms, y) in [(0, 40.0), (100, 60.0)] {
        let (person, mut car) = (standing(1, (80.0, y)), standing(2, (120.0, 100.0 - y)));
        car.class = 1;
        let analysis = analyser.update(at(ms), SIZE, &[person.clone(), car]);
        if ms == 0 {
            assert_eq!(analysis.events, []);
            continue;
        }
        let [walked, drove] = &analysis.events[..] else { panic!("two cross: {analysis:?}") };
        let count = Crossings { inwards: 1, outwards: 0 };
        let expected = Event {
            rule: "line".into(),
            kind: EventKind::Crossed { crossing: Crossing::In, count },
            track: Some(TrackId(1)),
            class: Some(0),
            bbox: Some(person.bbox),
        };
        assert_eq!(*walked, expected);
        let count = Crossings { inwards: 1, outwards: 1 };
        assert_eq!(
            (drove.track, drove.kind),
            (Some(TrackId(2)), EventKind::Crossed { crossing: Crossing::Out, count })
        );
        let classes = &analysis.counts.lines[0].classes;
        assert_eq!(
            (classes[&0], classes[&1]),
            (Crossings { inwards: 1, outwards: 0 }, Crossings { inwards: 0, outwards: 1 })
        );
        assert_eq!(analysis.marked, [0, 1]);
    }
    let nobody = analyser.update(at(1100), SIZE, &[standing(1, (80.0, 60.0))]);
    assert_eq!(nobody.marked, [0; 0], "the mark fades after a second");
}

#[test]
fn a_rule_looks_at_its_streams_and_classes_only() {
    let mut config = of_line(LineConfig {
        scope: Scope { classes: vec!["car".into()], streams: vec![StreamId::new("a")], ..scope("line") },
        ..across()
    });
    let down = [(100.0, 40.0), (100.0, 60.0)];
    assert_eq!(walk(&config, &down).1.lines[0].total, Crossings::default(), "a person is no car");
    assert_eq!(Rules::of(&config, &StreamId::new("b"), &["car".into()]), Ok(None));
    config.lines[0].scope.classes = vec!["persn".into()];
    let error = |labels: &[String]| Rules::of(&config, &StreamId::new("a"), labels).unwrap_err().to_string();
    assert_eq!(
        error(&["car".into(), "person".into()]),
        "`line` looks at class `persn`: the model has no such label, the nearest is `person`"
    );
    assert_eq!(
        error(&[]),
        "`line` looks at class `persn`: the model has no labels; leave the classes out to look at all"
    );
}

#[test]
fn what_is_not_tracked_crosses_nothing_and_what_is_nowhere_is_left_out() {
    let mut analyser = analyser(&AnalyticsConfig { regions: vec![square()], ..of_line(across()) });
    for (ms, y) in [(0, 40.0), (100, 60.0)] {
        let untracked = Detection { track: None, ..standing(1, (80.0, y)) };
        let mut nowhere = standing(2, (80.0, y));
        nowhere.bbox.x = f32::NAN;
        let analysis = analyser.update(at(ms), SIZE, &[nowhere, untracked]);
        assert_eq!((&analysis.events[..], analysis.counts.regions[0].objects), (&[][..], 1));
    }
}

#[test]
fn a_visit_is_told_at_its_beginning_at_its_limit_and_at_its_end() {
    let config = of_region(RegionConfig { dwell: Some(Duration::from_millis(300)), ..square() });
    let (outside, inside) = ((20.0, 50.0), (70.0, 50.0));
    let (kinds, counts) = walk(&config, &[outside, inside, inside, inside, inside, inside, outside, inside]);
    let stayed = Duration::from_millis;
    assert_eq!(
        kinds,
        [
            EventKind::Entered,
            EventKind::Dwelt { stayed: stayed(300) },
            EventKind::Left { stayed: stayed(500), is_lost: false },
            EventKind::Entered
        ]
    );
    assert_eq!(counts.regions[0], RegionCount { objects: 1, entered: 2, left: 1, dwelt: 1, is_crowded: false });
}

#[test]
fn an_inverse_region_is_all_but_the_polygon() {
    let config = of_region(RegionConfig { inverse: true, ..square() });
    let (kinds, _) = walk(&config, &[(70.0, 50.0), (20.0, 50.0), (70.0, 50.0)]);
    let stayed = Duration::from_millis(100);
    assert_eq!(kinds, [EventKind::Entered, EventKind::Left { stayed, is_lost: false }]);
}

#[test]
fn trembling_on_an_outline_neither_enters_nor_leaves() {
    let config = AnalyticsConfig { margin: 0.05, ..of_region(square()) };
    let trembling = [60.0, 50.2, 49.8, 50.3, 49.7, 60.0].map(|x| (x, 50.0));
    assert_eq!(walk(&config, &trembling).0, [EventKind::Entered]);
    assert_eq!(walk(&of_region(square()), &trembling).0.len(), 5);
}

#[test]
fn a_track_that_is_gone_has_left_when_it_was_seen_last() {
    let config = AnalyticsConfig { forget: Duration::from_secs(2), ..of_region(square()) };
    let mut analyser = analyser(&config);
    let somebody = standing(7, (70.0, 50.0));
    for ms in [0, 500] {
        assert_eq!(analyser.update(at(ms), SIZE, std::slice::from_ref(&somebody)).counts.regions[0].objects, 1);
    }
    let unseen = analyser.update(at(2500), SIZE, &[]);
    assert_eq!((&unseen.events[..], unseen.counts.regions[0].objects), (&[][..], 0));
    let gone = analyser.update(at(2501), SIZE, &[]);
    let expected = Event {
        rule: "region".into(),
        kind: EventKind::Left { stayed: Duration::from_millis(500), is_lost: true },
        track: Some(TrackId(7)),
        class: Some(0),
        bbox: Some(somebody.bbox),
    };
    assert_eq!(gone.events, [expected]);
    assert_eq!((gone.counts.regions[0].entered, gone.counts.regions[0].left), (1, 1));
}

#[test]
fn a_crowd_is_told_once_when_it_lasts_and_once_when_it_has_gone() {
    let crowd = CrowdConfig { objects_max: 1, after: Duration::from_secs(2) };
    let mut analyser = analyser(&of_region(RegionConfig { crowd: Some(crowd), ..square() }));
    let mut told = Vec::new();
    // Objects in the region by half seconds.
    let objects = [1, 2, 2, 1, 2, 2, 2, 2, 1, 2, 1, 1, 1, 2, 2];
    for (count, ms) in objects.into_iter().zip((0..).step_by(500)) {
        let people: Vec<_> = (0..count).map(|n| standing(n, (60.0 + n as f32 * 10.0, 50.0))).collect();
        let analysis = analyser.update(at(ms), SIZE, &people);
        assert_eq!(analysis.counts.regions[0].objects, count);
        assert_eq!(analysis.marked.len(), if analysis.counts.regions[0].is_crowded { people.len() } else { 0 });
        told.extend(analysis.events.into_iter().filter(|event| event.track.is_none()).map(|event| (ms, event.kind)));
    }
    let lasted = Duration::from_millis;
    assert_eq!(
        told,
        [
            // The gap at 1.5 s is shorter than a second, and those who came at 0.5 s were too many from then on.
            (2500, EventKind::CrowdBegan { objects: 2, lasted: lasted(2000) }),
            (5500, EventKind::CrowdEnded { objects: 1, lasted: lasted(4000) }),
        ]
    );
}

#[test]
fn a_direction_is_told_when_it_is_taken() {
    let direction = DirectionConfig {
        scope: scope("right"),
        points: [Point::new(0.0, 0.0), Point::new(10.0, 0.0)],
        angle_deg: 30.0,
    };
    let config = AnalyticsConfig { directions: vec![direction], ..exact() };
    let path = |step: (f32, f32)| {
        (0..15u8).map(|n| (90.0 + step.0 * f32::from(n), 50.0 + step.1 * f32::from(n))).collect::<Vec<_>>()
    };
    for (step, told) in [
        ((3.0, 0.0), 1),
        ((3.0, 1.5), 1),
        ((3.0, 2.0), 0),
        ((-3.0, 0.0), 0),
        ((0.0, 3.0), 0),
        // 1.5 pixels a second are less than a fifth of the box's height.
        ((0.15, 0.0), 0),
    ] {
        let (kinds, counts) = walk(&config, &path(step));
        assert_eq!(kinds, vec![EventKind::Took; told], "{step:?}");
        assert_eq!((counts.directions[0].taken, counts.directions[0].objects), (told as u64, told as u64), "{step:?}");
    }
    // Standing still is no turn; going back and forth is.
    let halting: Vec<_> =
        [0, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 20, 30].map(|x| (x as f32, 50.0)).into();
    assert_eq!(walk(&config, &halting).0.len(), 1);
    let turning: Vec<_> =
        (0..60i16).map(|n| (if (15..40).contains(&n) { 30 - n } else { n % 40 } as f32 * 3.0, 50.0)).collect();
    assert_eq!(walk(&config, &turning).0.len(), 2);
}

#[test]
fn a_changed_rule_begins_anew_and_the_others_go_on() {
    let config = AnalyticsConfig { regions: vec![square()], ..of_line(across()) };
    let mut analyser = analyser(&config);
    analyser.update(at(0), SIZE, &[standing(1, (80.0, 40.0))]);
    analyser.update(at(100), SIZE, &[standing(1, (80.0, 60.0))]);
    let mut changed = config.clone();
    changed.regions[0].inverse = true;
    changed.lines.insert(0, LineConfig { scope: scope("new"), ..across() });
    let rules = |config| Rules::of(config, &StreamId::new("a"), &[]).unwrap().unwrap();
    analyser.change(rules(&changed));
    let counts = analyser.counts();
    let inwards: Vec<u64> = counts.lines.iter().map(|line| line.total.inwards).collect();
    assert_eq!((inwards, counts.regions[0]), (vec![0, 1], RegionCount::default()));
    let back = analyser.update(at(200), SIZE, &[standing(1, (80.0, 40.0))]);
    let lines: Vec<u64> = back.counts.lines.iter().map(|line| line.total.outwards).collect();
    assert_eq!(lines, [0, 1], "the line that stayed knows where the track was");
}

fn places() -> impl Strategy<Value = Vec<(f32, f32)>> {
    prop::collection::vec((1.0..199.0f32, 1.0..99.0f32), 1..60)
}

/// Of the path over the segment, by the turns of its corners: to the right, to the left.
fn signed_crossings([from, to]: [(f32, f32); 2], places: &[(f32, f32)]) -> (u64, u64) {
    let turn = |a: (f32, f32), b: (f32, f32), c: (f32, f32)| {
        let [a, b, c] = [a, b, c].map(|(x, y)| (f64::from(x), f64::from(y)));
        (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0)
    };
    let mut crossings = (0, 0);
    for step in places.windows(2) {
        let meets = turn(step[0], step[1], from) * turn(step[0], step[1], to) < 0.0;
        match (turn(from, to, step[0]), turn(from, to, step[1])) {
            (before, after) if meets && before < 0.0 && after > 0.0 => crossings.0 += 1,
            (before, after) if meets && before > 0.0 && after < 0.0 => crossings.1 += 1,
            _ => {}
        }
    }
    crossings
}

proptest! {
    #[test]
    fn without_a_margin_the_counts_are_the_signed_crossings_of_the_path(
        places in places(),
        points in [(1.0..199.0f32, 1.0..99.0f32), (1.0..199.0f32, 1.0..99.0f32)],
    ) {
        prop_assume!(points[0] != points[1]);
        // The box is put around the place and its anchor computed again: both may differ by what `f32` rounds.
        let places: Vec<_> = places.into_iter().map(|(x, y)| (x.round(), y.round())).collect();
        prop_assert_eq!(crossings(line(points), &places), signed_crossings(points, &places));
    }

    /// Whatever the margin, the counts alternate, and their balance is the side on which the object was clear at last.
    #[test]
    fn crossings_of_an_endless_line_alternate(places in places(), margin in 0.0..1.0f32) {
        let config = AnalyticsConfig { margin, ..of_line(LineConfig { extended: true, ..across() }) };
        let (kinds, counts) = walk(&config, &places);
        let ways: Vec<_> = kinds.iter().map(|kind| match kind {
            EventKind::Crossed { crossing, .. } => *crossing,
            other => panic!("{other:?}"),
        }).collect();
        prop_assert!(ways.windows(2).all(|pair| pair[0] != pair[1]));
        let began = places[0].1 >= 50.0;
        let clear = places.iter().rev().find(|(_, y)| (y - 50.0).abs() >= margin * 20.0 + 1e-4);
        if let Some(clear) = clear && places.iter().all(|(_, y)| ((y - 50.0).abs() - margin * 20.0).abs() > 1e-4) {
            let expected = i64::from(clear.1 >= 50.0) - i64::from(began);
            prop_assert_eq!(counts.lines[0].total.inwards as i64 - counts.lines[0].total.outwards as i64, expected);
        }
    }

    /// Pictures of any size, even one that changes, with points of a reference picture: the same events and counts.
    #[test]
    fn events_do_not_depend_on_the_size_of_the_picture(
        places in places(),
        scales in prop::collection::vec((0..5i32, 0..5i32), 60),
    ) {
        let reference = |name: &str| Scope { reference: Some(SIZE), ..scope(name) };
        let direction = DirectionConfig {
            scope: reference("down"),
            points: [Point::new(0.0, 0.0), Point::new(0.0, 10.0)],
            angle_deg: 45.0,
        };
        let dwell = Some(Duration::from_millis(200));
        let config = AnalyticsConfig {
            lines: vec![LineConfig { scope: reference("line"), mode: CrossingMode::Balanced, ..across() }],
            regions: vec![RegionConfig { scope: reference("region"), dwell, ..square() }],
            directions: vec![direction],
            ..AnalyticsConfig::default()
        };
        let (mut plain, mut scaled) = (analyser(&config), analyser(&config));
        for ((place, scale), ms) in places.iter().zip(&scales).zip((0..).step_by(100)) {
            let seen = standing(1, *place);
            // Powers of two, each side by its own, lose nothing.
            let (x, y) = (1u16 << scale.0, 1u16 << scale.1);
            let size = Size::new(SIZE.width * usize::from(x), SIZE.height * usize::from(y));
            let (x, y) = (f32::from(x), f32::from(y));
            let mut grown = seen.clone();
            grown.bbox = Rect::new(seen.bbox.x * x, seen.bbox.y * y, seen.bbox.width * x, seen.bbox.height * y);
            let (expected, got) = (plain.update(at(ms), SIZE, &[seen]), scaled.update(at(ms), size, &[grown]));
            let kinds = |analysis: &Analysis| analysis.events.iter().map(|event| event.kind).collect::<Vec<_>>();
            prop_assert_eq!(kinds(&expected), kinds(&got));
            prop_assert_eq!(expected.counts, got.counts);
        }
    }

    /// Whatever the detections: no panic, each visit ends once, and nobody is counted out who was not in.
    #[test]
    fn whoever_left_had_entered(
        frames in prop::collection::vec(
            prop::collection::vec((0..5u64, -50.0..250.0f32, -50.0..150.0f32), 0..6), 1..40
        ),
        gap_ms in 1..3000u64,
    ) {
        let config = AnalyticsConfig { forget: Duration::from_secs(2), ..of_region(square()) };
        let mut analyser = analyser(&config);
        let mut inside = std::collections::BTreeSet::new();
        for (frame, ms) in frames.iter().zip((0..).step_by(gap_ms as usize)) {
            let seen: std::collections::BTreeMap<_, _> = frame.iter().map(|(track, x, y)| (*track, (*x, *y))).collect();
            let seen: Vec<_> = seen.into_iter().map(|(track, place)| standing(track, place)).collect();
            for event in analyser.update(at(ms), SIZE, &seen).events {
                match event.kind {
                    EventKind::Entered => prop_assert!(inside.insert(event.track)),
                    EventKind::Left { .. } => prop_assert!(inside.remove(&event.track)),
                    other => panic!("{other:?}"),
                }
            }
        }
        let count = analyser.counts().regions[0];
        prop_assert_eq!(count.entered - count.left, inside.len() as u64);
    }
}
