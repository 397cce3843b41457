//! Pictures that a known lens has bent are made straight. The lens bends by the formula of Brown and Conrady, written
//! here from their papers' terms and not by OpenCV.

#![allow(clippy::unwrap_used, reason = "a test may panic: that is how it fails")]

mod pictures;

use pictures::{Picture, blots, painted};
use revoada_core::{ColorRange, ColorSpec, ImageLayout, ImageView, PixelFormat, Size};
use revoada_vision::{Lens, Undistort, VisionError};

const SIZE: Size = Size::new(640, 360);

fn barrel() -> Lens {
    let distortion = vec![-0.28, 0.07, 0.0006, -0.0004, -0.008];
    Lens { camera_matrix: [420.0, 424.0, 322.5, 177.0], distortion, size: SIZE, alpha: None }
}

/// Where the lens puts what a straight one would show at a place; both count from the picture's corner.
fn bent(lens: &Lens, x: f64, y: f64) -> (f64, f64) {
    let [fx, fy, cx, cy] = lens.camera_matrix.map(f64::from);
    let k = |index: usize| lens.distortion.get(index).copied().unwrap_or(0.0);
    // OpenCV counts from the centre of the first pixel.
    let (x, y) = ((x - 0.5 - cx) / fx, (y - 0.5 - cy) / fy);
    let r2 = x * x + y * y;
    let powers = |a: f64, b: f64, c: f64| 1.0 + a * r2 + b * r2.powi(2) + c * r2.powi(3);
    let radial = powers(k(0), k(1), k(4)) / powers(k(5), k(6), k(7));
    let (p1, p2) = (k(2), k(3));
    let bent_x = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x);
    let bent_y = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y;
    (bent_x * fx + cx + 0.5, bent_y * fy + cy + 0.5)
}

/// The reverse, by Newton's method with slopes that are measured.
fn unbent(lens: &Lens, x: f64, y: f64) -> (f64, f64) {
    let (mut u, mut v) = (x, y);
    for _ in 0..20 {
        let (at, right, down) = (bent(lens, u, v), bent(lens, u + 1e-3, v), bent(lens, u, v + 1e-3));
        let (a, c) = ((right.0 - at.0) / 1e-3, (right.1 - at.1) / 1e-3);
        let (b, d) = ((down.0 - at.0) / 1e-3, (down.1 - at.1) / 1e-3);
        let (off_x, off_y) = (x - at.0, y - at.1);
        let determinant = a * d - b * c;
        u += (d * off_x - b * off_y) / determinant;
        v += (a * off_y - c * off_x) / determinant;
    }
    (u, v)
}

/// Blots for luma and colours, of which chroma has the large ones only.
fn world(plane: usize, channel: usize, x: f64, y: f64) -> f64 {
    let scale = if plane == 0 { 2.0 } else { 4.0 };
    blots((plane * 3 + channel) as u64, x / scale, y / scale)
}

fn straighten(undistort: &Undistort, picture: &Picture) -> Picture {
    let mut pixels = vec![9; 3];
    let layout = undistort.apply(&picture.view(), &mut pixels).unwrap();
    Picture { layout, pixels }
}

/// The mean difference and that of the worst sample, away from the border.
fn difference(a: &Picture, b: &Picture) -> (f64, u8) {
    assert_eq!(a.layout, b.layout);
    let (mut sum, mut count, mut worst) = (0.0, 0.0, 0);
    let planes = a.layout.format.planes(a.layout.size);
    for (index, &(row, rows)) in planes.as_slice().iter().enumerate() {
        for y in rows / 20..rows - rows / 20 {
            let (a, b) = (a.view().plane(index).row(y), b.view().plane(index).row(y));
            for (a, b) in a.iter().zip(b).take(row - row / 20).skip(row / 20) {
                sum += f64::from(a.abs_diff(*b));
                count += 1.0;
                worst = worst.max(a.abs_diff(*b));
            }
        }
    }
    (sum / count, worst)
}

const FORMATS: [PixelFormat; 5] =
    [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Rgb, PixelFormat::Bgr, PixelFormat::Gray];

#[test]
fn a_bent_picture_becomes_the_straight_one() {
    let lenses = [
        barrel(),
        Lens { distortion: vec![0.18, -0.05, 0.001, 0.0005], ..barrel() },
        Lens { distortion: vec![-0.3, 0.1, 0.0, 0.0004, 0.01, 0.02, -0.01, 0.003], ..barrel() },
    ];
    for lens in &lenses {
        let undistort = Undistort::new(lens, SIZE).unwrap();
        for format in FORMATS {
            let straight = painted(format, SIZE, world);
            let through = painted(format, SIZE, |plane, channel, x, y| {
                let (x, y) = unbent(lens, x, y);
                world(plane, channel, x, y)
            });
            let (mean, worst) = difference(&straighten(&undistort, &through), &straight);
            assert!(mean < 1.0 && worst < 16, "{format:?}: {mean} and {worst}");
            let (bent, _) = difference(&through, &straight);
            assert!(bent > 5.0, "{format:?}: the lens hardly bends, {bent}");
        }
    }
}

/// Where each row of a picture is dark.
fn dark_line(picture: &Picture) -> Vec<f64> {
    let plane = picture.view().plane(0);
    let place = |y: usize| {
        let weights = plane.row(y).iter().map(|level| 255.0 - f64::from(*level));
        let (sum, moment) = weights
            .enumerate()
            .fold((0.0, 0.0), |(sum, moment), (x, weight)| (sum + weight, moment + weight * (x as f64 + 0.5)));
        moment / sum
    };
    (plane.rows / 10..plane.rows - plane.rows / 10).map(place).collect()
}

fn spread(places: &[f64]) -> f64 {
    let bound = |far: fn(f64, f64) -> f64| places.iter().copied().reduce(far).unwrap();
    bound(f64::max) - bound(f64::min)
}

#[test]
fn lines_become_straight() {
    let lens = barrel();
    let undistort = Undistort::new(&lens, SIZE).unwrap();
    // At another size than that of the calibration, too.
    for (size, scale) in [(SIZE, 1.0), (Size::new(1280, 720), 2.0)] {
        let undistort = if scale == 1.0 { &undistort } else { &Undistort::new(&lens, size).unwrap() };
        let through = painted(PixelFormat::Gray, size, |_, _, x, y| {
            let (x, _) = unbent(&lens, x / scale, y / scale);
            255.0 - 255.0 * (-((x - 90.0) / 4.0).powi(2)).exp()
        });
        let bent = spread(&dark_line(&through));
        assert!(bent > 4.0 * scale, "{size}: the lens hardly bends, {bent}");
        let straight = spread(&dark_line(&straighten(undistort, &through)));
        assert!(straight < 0.5 * scale, "{size}: {straight}");
    }
}

#[test]
fn a_lens_that_does_not_bend_changes_nothing() {
    for size in [SIZE, Size::new(1280, 720), Size::new(321, 181)] {
        let lens = Lens { distortion: vec![0.0; 4], ..barrel() };
        let undistort = Undistort::new(&lens, size).unwrap();
        assert_eq!(undistort.size(), size);
        for format in FORMATS {
            let picture = painted(format, size, world);
            let straight = straighten(&undistort, &picture);
            assert_eq!(straight.layout, picture.layout);
            assert!(straight.pixels == picture.pixels, "{format:?} {size}");
        }
    }
}

/// Against pincushion distortion the straight picture's corners lie outside of what was seen.
#[test]
fn what_was_not_seen_is_black_and_alpha_leaves_it_out() {
    let lens = Lens { distortion: vec![0.3, 0.0, 0.0, 0.0], ..barrel() };
    let corner = |alpha, color: ColorSpec| {
        let undistort = Undistort::new(&Lens { alpha, ..lens.clone() }, SIZE).unwrap();
        let mut layout = ImageLayout::packed(PixelFormat::Nv12, color, SIZE);
        layout.color = color;
        let white = vec![200; layout.bytes().unwrap()];
        let mut pixels = Vec::new();
        undistort.apply(&ImageView::new(layout, &white).unwrap(), &mut pixels).unwrap();
        let straight = ImageView::new(layout, &pixels).unwrap();
        [straight.plane(0).row(0)[0], straight.plane(1).row(0)[0]]
    };
    let full = ColorSpec { range: ColorRange::Full, ..ColorSpec::default() };
    assert_eq!(corner(None, ColorSpec::default()), [16, 128]);
    assert_eq!(corner(None, full), [0, 128]);
    assert_eq!(corner(Some(1.0), full), [0, 128]);
    assert_eq!(corner(Some(0.0), full), [200, 200]);
}

#[test]
fn a_picture_of_another_shape_is_refused() {
    for size in [Size::new(640, 480), Size::new(360, 640)] {
        let error = Undistort::new(&barrel(), size).unwrap_err();
        assert!(matches!(error, VisionError::Shape { .. }));
        let expected = format!("the lens was calibrated at 640×360, a picture of {size} has another shape");
        assert_eq!(error.to_string(), expected);
    }
    // 848 × 480 is what cameras call 16 : 9.
    assert!(Undistort::new(&barrel(), Size::new(848, 480)).is_ok());
}
