use std::time::Duration;

use proptest::prelude::*;
use revoada_core::{
    Classification, ColorMatrix, ColorRange, ColorSpec, PixelFormat, PlaneLayout, Point, Size, StreamId, Timestamp,
    TrackId,
};

use super::*;
use crate::analyse::{Analyser, Rules};
use crate::config::{
    AnalyticsConfig, AnonymizeMethod, CrossingMode, CrowdConfig, DirectionConfig, LineConfig, RegionConfig, Scope,
};

const FORMATS: [PixelFormat; 5] =
    [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Rgb, PixelFormat::Bgr, PixelFormat::Gray];

const HD_COLOR: ColorSpec = ColorSpec { matrix: ColorMatrix::Bt709, range: ColorRange::Limited };

fn plain(format: PixelFormat, size: Size, value: u8) -> Frame {
    let layout = ImageLayout::packed(format, HD_COLOR, size);
    Frame::still(layout, vec![value; layout.bytes().unwrap()]).unwrap()
}

/// A picture whose every byte differs from its neighbours in a fixed pseudo-random way.
fn busy(format: PixelFormat, size: Size) -> Frame {
    let layout = ImageLayout::packed(format, HD_COLOR, size);
    let mut state = 12345u32;
    let bytes = (0..layout.bytes().unwrap()).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Frame::still(layout, bytes.collect()).unwrap()
}

fn seen(bbox: Rect) -> Prediction {
    Prediction {
        detections: vec![Detection { class: 0, score: 0.9, bbox, ..Detection::default() }],
        ..Default::default()
    }
}

fn nothing() -> DrawConfig {
    DrawConfig {
        boxes: false,
        labels: false,
        scores: false,
        landmarks: false,
        masks: false,
        tracks: false,
        clock: false,
        rules: false,
        anonymize: None,
    }
}

fn hiding(method: AnonymizeMethod, classes: &[&str]) -> DrawConfig {
    let classes = classes.iter().map(|class| class.to_string()).collect();
    DrawConfig { anonymize: Some(AnonymizeConfig { method, classes, margin: 0.0 }), ..nothing() }
}

fn rows_that_differ(a: &Frame, b: &Frame, plane: usize) -> Vec<usize> {
    let (a, b) = (a.view().plane(plane), b.view().plane(plane));
    (0..a.rows).filter(|&y| a.row(y) != b.row(y)).collect()
}

#[test]
fn a_box_is_drawn_in_the_class_color_and_touches_nothing_else() {
    let config = DrawConfig { boxes: true, ..nothing() };
    let size = Size::new(64, 48);
    for format in FORMATS {
        let frame = plain(format, size, 100);
        let drawn = Painter::new(&config, &[]).unwrap().paint(&frame, &seen(Rect::new(8.0, 8.0, 32.0, 24.0)));
        let view = drawn.view();
        let (row, inside) = (view.plane(0).row(8), view.plane(0).row(20));
        let Rgb(r, g, b) = class_color(0);
        match format {
            PixelFormat::Rgb => assert_eq!(row[8 * 3..9 * 3], [r, g, b]),
            PixelFormat::Bgr => assert_eq!(row[8 * 3..9 * 3], [b, g, r]),
            PixelFormat::Gray => assert_eq!(row[8], 148),
            // BT.709, limited: Y = 16 + 219 · 0.6482, U = 128 + 224 · (0.4863 − 0.6482) / 1.8556,
            // V = 128 + 224 · (0.1490 − 0.6482) / 1.5748.
            PixelFormat::Nv12 => assert_eq!((row[8], &view.plane(1).row(4)[8..10]), (158, &[108, 57][..])),
            PixelFormat::I420 => {
                assert_eq!((row[8], view.plane(1).row(4)[4], view.plane(2).row(4)[4]), (158, 108, 57));
            }
        }
        let step = row.len() / size.width;
        assert!(row[..8 * step].iter().chain(&row[40 * step..]).all(|&value| value == 100), "{format:?}");
        assert!(inside[10 * step..38 * step].iter().all(|&value| value == 100), "{format:?}");
        assert_eq!(rows_that_differ(&frame, &drawn, 0), (8..32).collect::<Vec<_>>(), "{format:?}");
        if format.is_yuv() {
            assert_eq!(rows_that_differ(&frame, &drawn, 1), (4..16).collect::<Vec<_>>(), "{format:?}");
        }
    }
}

#[test]
fn a_box_past_the_border_shows_its_edges_at_the_border() {
    let config = DrawConfig { boxes: true, ..nothing() };
    let frame = plain(PixelFormat::Gray, Size::new(40, 30), 0);
    let drawn = Painter::new(&config, &[]).unwrap().paint(&frame, &seen(Rect::new(-500.0, -9.0, 9000.0, 20.0)));
    let plane = drawn.view().plane(0);
    assert!(plane.row(0).iter().all(|&value| value == 148));
    assert_eq!((plane.row(5)[0], plane.row(5)[20], plane.row(5)[39]), (148, 0, 148));
    assert_eq!(rows_that_differ(&frame, &drawn, 0), (0..11).collect::<Vec<_>>());
}

#[test]
fn a_pixel_that_shares_its_chroma_moves_it_by_its_share() {
    let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec::default(), Size::new(4, 4));
    let mut bytes = vec![0; layout.bytes().unwrap()];
    let mut canvas = Canvas::new(layout, &mut bytes);
    let white_on_zero = canvas.ink(Rgb::WHITE);
    canvas.fill(Area { left: 1, top: 1, right: 2, bottom: 2 }, white_on_zero, 255);
    assert_eq!((bytes[5], bytes[0]), (235, 0));
    assert_eq!(bytes[16], 32, "a quarter of 128");
}

#[test]
fn text_sits_on_a_plate_above_the_box() {
    let labels = ["face".to_owned()];
    let config = DrawConfig { labels: true, scores: true, ..nothing() };
    let frame = plain(PixelFormat::Rgb, Size::new(200, 100), 0);
    let drawn = Painter::new(&config, &labels).unwrap().paint(&frame, &seen(Rect::new(20.0, 50.0, 80.0, 40.0)));
    let rows = rows_that_differ(&frame, &drawn, 0);
    assert_eq!((rows.first(), rows.last()), (Some(&32), Some(&49)));
    let plate = drawn.view().plane(0).row(33)[21 * 3..][..3].to_vec();
    assert!(plate[1] > 180 && plate[0] < 60, "{plate:?} is the class's green");
    let darkest = (32..50).flat_map(|y| drawn.view().plane(0).row(y)[20 * 3..100 * 3].to_vec()).filter(|&v| v < 8);
    assert!(darkest.count() > 50, "black glyphs stand on the bright plate");
}

#[test]
fn a_track_has_its_number_and_its_colour() {
    let config = DrawConfig { boxes: true, tracks: true, ..nothing() };
    let frame = plain(PixelFormat::Rgb, Size::new(200, 100), 0);
    let corner = |config: &DrawConfig, track: Option<u64>| {
        let mut prediction = seen(Rect::new(20.0, 50.0, 80.0, 40.0));
        prediction.detections[0].track = track.map(TrackId);
        let drawn = Painter::new(config, &[]).unwrap().paint(&frame, &prediction);
        let pixel = &drawn.view().plane(0).row(89)[20 * 3..][..3];
        (Rgb(pixel[0], pixel[1], pixel[2]), rows_that_differ(&frame, &drawn, 0)[0])
    };
    // The plate with the number begins above the box.
    assert_eq!(corner(&config, Some(7)), (track_color(TrackId(7)), 32));
    assert_eq!(corner(&config, None), (class_color(0), 50));
    assert_eq!(corner(&DrawConfig { tracks: false, ..config.clone() }, Some(7)), (class_color(0), 50));
    assert_ne!(track_color(TrackId(7)), track_color(TrackId(8)));
    let numbered = |track| {
        let mut prediction = seen(Rect::new(20.0, 50.0, 80.0, 40.0));
        prediction.detections[0].track = Some(TrackId(track));
        Painter::new(&config, &[]).unwrap().paint(&frame, &prediction).view().bytes().to_vec()
    };
    assert_ne!(numbered(7), numbered(27), "of the same colour, with other numbers");
}

#[test]
fn a_character_the_font_lacks_becomes_a_question_mark() {
    let config = DrawConfig { labels: true, ..nothing() };
    let frame = plain(PixelFormat::Gray, Size::new(200, 100), 50);
    let paint = |label: &str| {
        let mut painter = Painter::new(&config, &[label.to_owned()]).unwrap();
        painter.paint(&frame, &seen(Rect::new(20.0, 50.0, 80.0, 40.0))).view().bytes().to_vec()
    };
    assert_eq!(paint("顔\n"), paint("??"));
    assert_ne!(paint("顔\n"), paint("!!"));
}

#[test]
fn what_is_hidden_depends_on_nothing_but_a_few_means() {
    let size = Size::new(96, 96);
    for method in [AnonymizeMethod::Blur, AnonymizeMethod::Mosaic] {
        for format in FORMATS {
            let frame = busy(format, size);
            let mut painter = Painter::new(&hiding(method, &[]), &[]).unwrap();
            let drawn = painter.paint(&frame, &seen(Rect::new(16.0, 16.0, 64.0, 64.0)));
            // Swapping two pixels of one cell changes no mean, and so nothing of the result. Cells
            // are 8 pixels wide.
            let mut bytes = frame.view().bytes().to_vec();
            let plane = frame.view().plane(0);
            let step = plane.row / size.width;
            for component in 0..step {
                bytes.swap(plane.stride * 17 + 17 * step + component, plane.stride * 20 + 22 * step + component);
            }
            let swapped = Frame::still(*frame.layout(), bytes).unwrap();
            assert_ne!(swapped.view().bytes(), frame.view().bytes());
            let again = painter.paint(&swapped, &seen(Rect::new(16.0, 16.0, 64.0, 64.0)));
            assert_eq!(drawn.view().bytes(), again.view().bytes(), "{format:?} {method:?}");
            // Nothing of the noise is left inside, and all of it outside.
            let row = drawn.view().plane(0).row(40).to_vec();
            let steps = (20 * step..76 * step - step).map(|x| row[x].abs_diff(row[x + step])).max();
            assert!(method == AnonymizeMethod::Mosaic || steps < Some(20), "{format:?} {steps:?}");
            assert_eq!(rows_that_differ(&frame, &drawn, 0), (16..80).collect::<Vec<_>>());
            assert_eq!(row[..16 * step], frame.view().plane(0).row(40)[..16 * step]);
            assert_eq!(row[80 * step..], frame.view().plane(0).row(40)[80 * step..]);
        }
    }
}

#[test]
fn mosaic_shows_the_means_of_its_cells() {
    let layout = ImageLayout::packed(PixelFormat::Gray, ColorSpec::default(), Size::new(8, 8));
    let frame = Frame::still(layout, (0..64).map(|index| if index % 2 == 0 { 10 } else { 31 }).collect()).unwrap();
    let mut painter = Painter::new(&hiding(AnonymizeMethod::Mosaic, &[]), &[]).unwrap();
    let drawn = painter.paint(&frame, &seen(Rect::new(0.0, 0.0, 8.0, 8.0)));
    assert!(drawn.view().bytes().iter().all(|&value| value == 21), "20.5 rounds up");
}

#[test]
fn the_margin_hides_hair_and_chin_too() {
    let frame = busy(PixelFormat::Gray, Size::new(100, 100));
    let mut config = hiding(AnonymizeMethod::Blur, &[]);
    config.anonymize.as_mut().unwrap().margin = 0.25;
    let drawn = Painter::new(&config, &[]).unwrap().paint(&frame, &seen(Rect::new(40.0, 40.0, 20.0, 20.0)));
    assert_eq!(rows_that_differ(&frame, &drawn, 0), (35..65).collect::<Vec<_>>());
}

#[test]
fn a_hidden_face_shows_no_landmarks() {
    let landmarks = DrawConfig { landmarks: true, ..nothing() };
    let hidden = DrawConfig { landmarks: true, ..hiding(AnonymizeMethod::Blur, &[]) };
    let frame = plain(PixelFormat::Rgb, Size::new(64, 64), 90);
    let mut prediction = seen(Rect::new(4.0, 4.0, 40.0, 40.0));
    prediction.detections[0].landmarks = vec![Point::new(20.0, 20.0)];
    let paint = |config| Painter::new(config, &[]).unwrap().paint(&frame, &prediction);
    assert_ne!(paint(&landmarks).view().bytes(), frame.view().bytes());
    assert_eq!(paint(&hidden).view().bytes(), frame.view().bytes(), "a plain picture blurred is itself");
}

#[test]
fn only_chosen_classes_are_hidden() {
    let labels = ["face".to_owned(), "plate".to_owned()];
    let mut painter = Painter::new(&hiding(AnonymizeMethod::Blur, &["plate"]), &labels).unwrap();
    let mut prediction = seen(Rect::new(4.0, 4.0, 30.0, 30.0));
    assert!(!painter.draws_on(&prediction));
    let frame = busy(PixelFormat::Nv12, Size::new(64, 64));
    assert_eq!(painter.paint(&frame, &prediction).view().bytes(), frame.view().bytes());
    prediction.detections[0].class = 1;
    assert!(painter.draws_on(&prediction));
    assert_ne!(painter.paint(&frame, &prediction).view().bytes(), frame.view().bytes());
}

#[test]
fn a_class_that_is_no_label_is_refused_with_the_nearest() {
    let labels = ["person".to_owned(), "face".to_owned()];
    let error = Painter::new(&hiding(AnonymizeMethod::Blur, &["faces"]), &labels).unwrap_err();
    assert_eq!(error.to_string(), "cannot anonymize class `faces`: the model has no such label, the nearest is `face`");
    let error = Painter::new(&hiding(AnonymizeMethod::Blur, &["face"]), &[]).unwrap_err();
    assert!(matches!(error, DrawError::NoLabels { .. }));
}

#[test]
fn masks_tint_their_pixels_and_leave_the_background_clear() {
    let labels = ["background".to_owned(), "road".to_owned()];
    let config = DrawConfig { masks: true, ..nothing() };
    let frame = plain(PixelFormat::Rgb, Size::new(8, 8), 0);
    let segmentation =
        Segmentation { width: 2, height: 2, classes: vec![0, 1, 255, 0], area: Rect::new(0.0, 0.0, 8.0, 8.0) };
    let prediction = Prediction { segmentation: Some(segmentation), ..Default::default() };
    let drawn = Painter::new(&config, &labels).unwrap().paint(&frame, &prediction);
    let Rgb(r, g, b) = class_color(1);
    let tinted = [r, g, b].map(|value| ((u32::from(value) * u32::from(MASK_ALPHA) + 127) / 255) as u8);
    let row = drawn.view().plane(0).row(1);
    assert_eq!((&row[3 * 3..4 * 3], &row[4 * 3..5 * 3]), (&[0, 0, 0][..], &tinted[..]));
    assert!(drawn.view().plane(0).row(6).iter().all(|&value| value == 0));
}

#[test]
fn gaps_between_rows_are_not_copied() {
    let mut layout = ImageLayout::packed(PixelFormat::Nv12, ColorSpec::default(), Size::new(5, 3));
    layout.planes =
        [PlaneLayout { offset: 2, stride: 16 }, PlaneLayout { offset: 64, stride: 32 }, PlaneLayout::default()];
    let mut bytes = vec![255; 200];
    for (offset, length) in [(2, 5), (18, 5), (34, 5), (64, 6), (96, 6)] {
        bytes[offset..offset + length].fill(7);
    }
    let frame = Frame::new(
        StreamId::new("door"),
        41,
        Timestamp::from_nanos(5),
        Timestamp::from_nanos(6),
        layout,
        MemoryKind::Host,
        Box::new(bytes),
    )
    .unwrap();
    let mut painter = Painter::new(&nothing(), &[]).unwrap();
    let drawn = painter.paint(&frame, &Prediction::default());
    assert_eq!(drawn.view().bytes(), [7; 27]);
    assert_eq!(
        (drawn.stream.as_str(), drawn.sequence, drawn.pts, drawn.captured),
        ("door", 41, frame.pts, frame.captured)
    );
}

#[test]
fn a_picture_with_nothing_to_draw_needs_no_copy() {
    let painter = Painter::new(&DrawConfig::default(), &[]).unwrap();
    assert!(!painter.draws_on(&Prediction::default()));
    assert!(Painter::new(&DrawConfig { clock: true, ..nothing() }, &[]).unwrap().draws_on(&Prediction::default()));
}

#[test]
fn a_steady_stream_draws_into_the_same_memory_again() {
    let frame = plain(PixelFormat::Nv12, Size::new(64, 48), 9);
    let mut painter = Painter::new(&DrawConfig::default(), &[]).unwrap();
    let prediction = seen(Rect::new(3.0, 3.0, 20.0, 20.0));
    let first = painter.paint(&frame, &prediction).view().bytes().as_ptr();
    assert_eq!(painter.paint(&frame, &prediction).view().bytes().as_ptr(), first);
}

fn any_length() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -50.0f32..150.0,
        1 => prop::num::f32::ANY,
        1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0, 1e9]),
    ]
}

fn any_rect() -> impl Strategy<Value = Rect> {
    [any_length(), any_length(), any_length(), any_length()].prop_map(|[x, y, w, h]| Rect::new(x, y, w, h))
}

proptest! {
    #[test]
    fn no_prediction_makes_the_painter_panic(
        size in (1usize..90, 1usize..70),
        format in prop::sample::select(FORMATS.to_vec()),
        boxes in prop::collection::vec((any_rect(), any::<u32>(), any_length(), any_length()), 0..4),
        grid in (0usize..5, 0usize..5, any_rect()),
        guesses in prop::collection::vec((any::<u32>(), any_length()), 0..7),
        mosaic in any::<bool>(),
        margin in any_length(),
    ) {
        let size = Size::new(size.0, size.1);
        let method = if mosaic { AnonymizeMethod::Mosaic } else { AnonymizeMethod::Blur };
        let config = DrawConfig {
            clock: true,
            anonymize: Some(AnonymizeConfig { method, classes: vec![], margin }),
            ..DrawConfig::default()
        };
        let detections = boxes.into_iter().map(|(bbox, class, score, x)| Detection {
            class: class % 40, score, bbox, landmarks: vec![Point::new(x, score)], ..Detection::default()
        });
        let prediction = Prediction {
            detections: detections.collect(),
            classifications: guesses.into_iter().map(|(class, score)| Classification { class, score }).collect(),
            segmentation: Some(Segmentation {
                width: grid.0, height: grid.1, classes: vec![1; 12], area: grid.2,
            }),
        };
        let frame = busy(format, size);
        let drawn = Painter::new(&config, &["a label of some length".to_owned()]).unwrap().paint(&frame, &prediction);
        prop_assert_eq!(drawn.size(), size);
    }

    #[test]
    fn every_pixel_of_a_hidden_box_is_hidden(
        size in (1usize..60, 1usize..60),
        bbox in any_rect(),
        format in prop::sample::select(FORMATS.to_vec()),
    ) {
        // In a picture of two alternating values nothing that was averaged keeps either of them.
        let size = Size::new(size.0, size.1);
        let Some(area) = Area::covering(bbox, size).filter(|area| area.width() > 1 && area.height() > 1) else {
            return Ok(());
        };
        let layout = ImageLayout::packed(format, HD_COLOR, size);
        let row = layout.format.planes(size).as_slice()[0].0;
        let step = row / size.width;
        let bytes = (0..layout.bytes().unwrap())
            .map(|index| if (index / row + index % row / step).is_multiple_of(2) { 0 } else { 200 });
        let frame = Frame::still(layout, bytes.collect()).unwrap();
        let drawn = Painter::new(&hiding(AnonymizeMethod::Blur, &[]), &[]).unwrap().paint(&frame, &seen(bbox));
        for y in area.top..area.bottom {
            let row = drawn.view().plane(0).row(y);
            for x in area.left..area.right {
                let value = row[x * step];
                prop_assert!(value > 0 && value < 200, "pixel {x},{y} is {value}");
            }
        }
    }
}

/// With a line from (10, 24) to (50, 24).
fn analysis(prediction: &Prediction) -> Analysis {
    let scope = |name: &str| Scope { name: name.to_owned(), ..Scope::default() };
    let config = AnalyticsConfig {
        lines: vec![LineConfig {
            scope: scope("door"),
            points: [Point::new(10.0, 24.0), Point::new(50.0, 24.0)],
            direction: None,
            mode: CrossingMode::Loose,
            extended: false,
        }],
        ..AnalyticsConfig::default()
    };
    Analyser::new(Rules::of(&config, &StreamId::new("a"), &[]).unwrap().unwrap()).update(
        Timestamp::ZERO,
        Size::new(320, 240),
        &prediction.detections,
    )
}

#[test]
fn rules_are_drawn_where_they_are_and_only_where_they_are_asked_for() {
    let size = Size::new(320, 240);
    let config = DrawConfig { rules: true, ..nothing() };
    for format in FORMATS {
        let frame = plain(format, size, 100);
        let (prediction, none) = (Prediction::default(), nothing());
        let analysis = analysis(&prediction);
        let paint = |config, analysis| Painter::new(config, &[]).unwrap().paint_analysed(&frame, &prediction, analysis);
        let drawn = paint(&config, Some(&analysis));
        let rows = rows_that_differ(&frame, &drawn, 0);
        assert!(rows.contains(&24) && rows.iter().all(|y| *y < 80), "{format:?}: {rows:?}");
        assert_eq!(paint(&config, None).view().bytes(), frame.view().bytes());
        assert_eq!(paint(&none, Some(&analysis)).view().bytes(), frame.view().bytes());
    }
}

#[test]
fn what_a_rule_tells_of_is_framed() {
    let frame = plain(PixelFormat::Rgb, Size::new(320, 240), 100);
    let prediction = seen(Rect::new(150.0, 150.0, 40.0, 60.0));
    let mut analysis = analysis(&prediction);
    let config = DrawConfig { rules: true, ..nothing() };
    let row = |analysis: &Analysis| {
        let drawn = Painter::new(&config, &[]).unwrap().paint_analysed(&frame, &prediction, Some(analysis));
        drawn.view().plane(0).row(180)[..].to_vec()
    };
    assert_eq!(row(&analysis), frame.view().plane(0).row(180));
    analysis.marked = vec![0, 7];
    assert_ne!(row(&analysis), frame.view().plane(0).row(180), "an index past the end marks nothing");
}

proptest! {
    /// Rules may lie anywhere and pictures be of any size.
    #[test]
    fn no_rule_is_drawn_past_the_picture(
        points in prop::collection::vec((-32768.0..32768f32, -32768.0..32768f32), 4),
        near in prop::collection::vec((-20.0..80f32, -20.0..80f32), 4),
        size in (1..70usize, 1..70usize),
        extended: bool,
        format in prop::sample::select(FORMATS.to_vec()),
    ) {
        let scope = |name: &str| Scope { name: name.to_owned(), ..Scope::default() };
        let size = Size::new(size.0 * 2, size.1 * 2);
        let frame = plain(format, size, 100);
        for points in [points, near] {
            let corners: Vec<_> = points.iter().map(|(x, y)| Point::new(*x, *y)).collect();
            let arrow = [corners[0], corners[1]];
            prop_assume!(arrow[0] != arrow[1]);
            let mode = CrossingMode::Loose;
            let config = AnalyticsConfig {
                lines: vec![LineConfig { scope: scope("a"), points: arrow, direction: None, mode, extended }],
                regions: vec![RegionConfig {
                    scope: scope("b"),
                    corners,
                    inverse: false,
                    dwell: None,
                    crowd: Some(CrowdConfig { objects_max: 0, after: Duration::ZERO }),
                }],
                directions: vec![DirectionConfig { scope: scope("c"), points: arrow, angle_deg: 45.0 }],
                ..AnalyticsConfig::default()
            };
            let mut analysis = Analyser::new(Rules::of(&config, &StreamId::new("a"), &[]).unwrap().unwrap())
                .update(Timestamp::ZERO, size, &[]);
            analysis.counts.regions[0].is_crowded = true;
            let mut painter = Painter::new(&DrawConfig { rules: true, ..nothing() }, &[]).unwrap();
            prop_assert_eq!(painter.paint_analysed(&frame, &Prediction::default(), Some(&analysis)).size(), size);
        }
    }
}
