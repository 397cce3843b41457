//! Motions of a camera that are known are found again.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod pictures;

use pictures::{Picture, blots, covers, painted};
use revoada_core::{ColorSpec, ImageLayout, ImageView, PixelFormat, PlaneLayout, Rect, Size};
use revoada_vision::{Affine, CameraMotion};

const HD: Size = Size::new(1280, 720);

/// A turn in degrees and a zoom about the middle of the picture, and a shift.
fn motion(size: Size, degrees: f64, zoom: f64, shift: [f64; 2]) -> Affine {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (a, c) = (zoom * cos, zoom * sin);
    let [x, y] = [size.width as f64 / 2.0, size.height as f64 / 2.0];
    Affine { matrix: [[a, -c, x - a * x + c * y + shift[0]], [c, a, y - c * x - a * y + shift[1]]] }
}

fn apply(map: &Affine, x: f64, y: f64) -> (f64, f64) {
    let [[a, b, shift_x], [c, d, shift_y]] = map.matrix;
    (a * x + b * y + shift_x, c * x + d * y + shift_y)
}

fn inverse(map: &Affine) -> Affine {
    let [[a, b, x], [c, d, y]] = map.matrix;
    let determinant = a * d - b * c;
    let [a, b, c, d] = [d, -b, -c, a].map(|value| value / determinant);
    Affine { matrix: [[a, b, -a * x - b * y], [c, d, -c * x - d * y]] }
}

/// The world as it is seen after the camera has moved.
fn seen(format: PixelFormat, size: Size, moved: &Affine) -> Picture {
    let back = inverse(moved);
    painted(format, size, |plane, channel, x, y| {
        let (x, y) = apply(&back, x, y);
        if plane == 0 { blots(channel as u64, x, y) } else { 128.0 }
    })
}

/// What the camera is found to have done, and how far that is off at the worst corner, in pixels.
fn off(found: &Affine, moved: &Affine, size: Size) -> f64 {
    let (width, height) = (size.width as f64, size.height as f64);
    let corners = [(0.0, 0.0), (width, 0.0), (0.0, height), (width, height)];
    let distances = corners.map(|(x, y)| {
        let (found, moved) = (apply(found, x, y), apply(moved, x, y));
        (found.0 - moved.0).hypot(found.1 - moved.1)
    });
    distances.into_iter().fold(0.0, f64::max)
}

fn still(size: Size) -> Affine {
    motion(size, 0.0, 1.0, [0.0, 0.0])
}

#[test]
fn a_shift_a_turn_and_a_zoom_are_found() {
    let cases = [
        (HD, 0.0, 1.0, [0.0, 0.0]),
        (HD, 0.0, 1.0, [31.0, -12.5]),
        (HD, 3.0, 1.0, [0.0, 0.0]),
        (HD, 0.0, 1.06, [0.0, 0.0]),
        (HD, -2.0, 0.95, [17.0, 9.0]),
        (Size::new(333, 251), 2.0, 1.03, [-6.0, 4.0]),
        (Size::new(1920, 1080), 1.0, 1.0, [60.0, 20.0]),
    ];
    for (size, degrees, zoom, shift) in cases {
        for format in [PixelFormat::Nv12, PixelFormat::Rgb] {
            let moved = motion(size, degrees, zoom, shift);
            let mut camera = CameraMotion::new();
            assert_eq!(camera.update(&seen(format, size, &still(size)).view(), []).unwrap(), None);
            let found = camera.update(&seen(format, size, &moved).view(), []).unwrap().unwrap();
            let off = off(&found, &moved, size);
            assert!(off < 1.0, "{format:?} {size}, {degrees}°, {zoom}, {shift:?}: {found:?} is {off} pixels off");
        }
    }
}

/// A crowd that covers most of the picture and walks to the left, while the camera pans after it.
#[test]
fn what_moves_by_itself_is_left_out() {
    let moved = motion(HD, 0.0, 1.0, [7.0, 0.0]);
    let walk = -9.0;
    let crowd: Vec<Rect> = (0..3).map(|column| Rect::new(60.0 + 420.0 * column as f32, 40.0, 280.0, 640.0)).collect();
    let picture = |shift: f64, walked: f64| {
        painted(PixelFormat::Gray, HD, |_, _, x, y| match crowd.iter().any(|member| covers(*member, x - walked, y)) {
            true => blots(7, x - walked, y),
            false => blots(0, x - shift, y),
        })
    };
    let (before, after) = (picture(0.0, 0.0), picture(7.0, walk));
    let walked = crowd.iter().map(|member| Rect { x: member.x + walk as f32, ..*member });

    let mut camera = CameraMotion::new();
    camera.update(&before.view(), crowd.iter().copied()).unwrap();
    let found = camera.update(&after.view(), walked).unwrap().unwrap();
    assert!(off(&found, &moved, HD) < 1.0, "{found:?}");

    // Without their boxes the crowd is what the world is taken for.
    let mut camera = CameraMotion::new();
    camera.update(&before.view(), []).unwrap();
    let mistaken = camera.update(&after.view(), []).unwrap();
    assert!(mistaken.is_none_or(|found| off(&found, &moved, HD) > 8.0), "{mistaken:?}");
}

#[test]
fn where_there_is_nothing_to_hold_on_to_nothing_is_told() {
    let flat = painted(PixelFormat::Nv12, HD, |_, _, _, _| 128.0);
    let world = seen(PixelFormat::Nv12, HD, &still(HD));
    let other = painted(PixelFormat::Nv12, HD, |plane, _, x, y| if plane == 0 { blots(9, x, y) } else { 128.0 });
    let small = seen(PixelFormat::Nv12, Size::new(640, 360), &still(HD));
    let tiny = seen(PixelFormat::Nv12, Size::new(2, 2), &still(HD));
    let cases = [
        ("flat", &flat, &flat, None),
        ("the light went off", &world, &flat, None),
        ("another scene", &world, &other, None),
        ("another size", &world, &small, None),
        ("hardly a picture", &tiny, &tiny, None),
        ("covered by a box", &world, &world, Some(Rect::new(-50.0, -50.0, 2000.0, 2000.0))),
    ];
    for (name, before, after, hidden) in cases {
        let mut camera = CameraMotion::new();
        camera.update(&before.view(), hidden).unwrap();
        assert_eq!(camera.update(&after.view(), hidden).unwrap(), None, "{name}");
    }
}

#[test]
fn boxes_that_are_no_boxes_hide_nothing() {
    let wrong = [
        Rect::new(f32::NAN, 0.0, 100.0, 100.0),
        Rect::new(0.0, 0.0, f32::NAN, f32::INFINITY),
        Rect::new(1e30, -1e30, 10.0, 10.0),
        Rect::new(100.0, 100.0, -50.0, -50.0),
        Rect::new(1279.9, 719.9, 100.0, 100.0),
    ];
    let world = seen(PixelFormat::Gray, HD, &still(HD));
    let mut camera = CameraMotion::new();
    camera.update(&world.view(), wrong).unwrap();
    let found = camera.update(&world.view(), wrong).unwrap().unwrap();
    assert!(off(&found, &still(HD), HD) < 0.1, "{found:?}");
}

#[test]
fn the_same_pictures_give_the_same_bits() {
    let pictures: Vec<Picture> =
        (0..4).map(|step| seen(PixelFormat::Nv12, HD, &motion(HD, f64::from(step), 1.01, [7.0, 3.0]))).collect();
    let follow = || {
        let mut camera = CameraMotion::new();
        pictures.iter().map(|picture| camera.update(&picture.view(), []).unwrap()).collect::<Vec<_>>()
    };
    let bits = |found: Vec<Option<Affine>>| -> Vec<u64> {
        found.iter().flatten().flat_map(|found| found.matrix).flatten().map(f64::to_bits).collect()
    };
    let first = bits(follow());
    assert_eq!(first.len(), 18);
    assert_eq!(bits(follow()), first);
    let threads: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| bits(follow()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(threads.iter().all(|bits| *bits == first));
}

#[test]
fn rows_may_be_padded_and_memory_may_end_with_the_last_pixel() {
    let size = Size::new(331, 201);
    let packed = seen(PixelFormat::Rgb, size, &still(size));
    let follow = |layout: ImageLayout, pixels: &[u8]| {
        let mut camera = CameraMotion::new();
        let view = ImageView::new(layout, pixels).unwrap();
        camera.update(&view, []).unwrap();
        camera.update(&view, []).unwrap()
    };
    let expected = follow(packed.layout, &packed.pixels);
    assert!(expected.is_some());
    let stride = 1024;
    let mut padded = vec![77; 5];
    for row in packed.pixels.chunks(3 * size.width) {
        padded.extend(row);
        padded.resize(padded.len() + stride - row.len(), 200);
    }
    let mut layout = ImageLayout::packed(PixelFormat::Rgb, ColorSpec::default(), size);
    layout.planes[0] = PlaneLayout { offset: 5, stride };
    assert_eq!(follow(layout, &padded), expected);
    assert_eq!(follow(layout, &padded[..layout.bytes().unwrap()]), expected);
}
