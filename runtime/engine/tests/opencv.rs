//! Staging against what people do today: OpenCV's `cvtColor`, `resize` and `blobFromImage`.
//!
//! OpenCV rounds to whole levels after the colour conversion and again after resizing, with factors
//! of its own of three decimals, and clamps before it interpolates; staging does none of it. So the
//! two cannot be equal; the tolerances below say how close they are on a picture like nature's.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use revoada_core::{ColorSpec, Fit, ImageLayout, ImageTransform, ImageView, PixelFormat, Placement, Rect, Size};
use revoada_engine::{StageTarget, Stager};

/// Mean absolute difference, in levels of 0..=255: that of two roundings is a third.
const MEAN_LEVELS_MAX: f64 = 0.4;
/// Of a thousand elements at most one is further away.
const MOST_LEVELS_MAX: f64 = 1.25;
/// No element is further away: one rounding and a little arithmetic.
const ALL_LEVELS_MAX: f64 = 1.0;
/// From YUV, colours that RGB cannot show, beside others, differ by how much of them is cut off
/// before and after they are blended.
const ALL_LEVELS_MAX_YUV: f64 = 24.0;

const SIZE: Size = Size::new(1920, 1080);

#[test]
fn staging_agrees_with_opencv() {
    let Some(python) = python() else {
        eprintln!("skipped: staging against OpenCV: no Python environment, run `cargo xtask setup`");
        return;
    };
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("staging-against-opencv");
    std::fs::create_dir_all(&folder).unwrap();
    let rgb = natural_like(SIZE);
    let mut stager = Stager::new();
    for (format, name) in [
        (PixelFormat::Nv12, "nv12"),
        (PixelFormat::I420, "i420"),
        (PixelFormat::Rgb, "rgb"),
        (PixelFormat::Bgr, "bgr"),
        (PixelFormat::Gray, "gray"),
    ] {
        let layout = ImageLayout::packed(format, ColorSpec::default(), SIZE);
        let bytes = encode(&rgb, &layout);
        let picture = folder.join(name);
        std::fs::write(&picture, &bytes).unwrap();
        for side in [640, 224] {
            for (fit, fit_name) in [(Fit::Stretch, "stretch"), (Fit::letterbox_centered(), "letterbox")] {
                let expected = opencv(&python, &picture, name, side, fit_name);
                let transform = ImageTransform { fit, ..ImageTransform::stretch(Size::new(side, side)) };
                let placement = Placement::new(Rect::of(SIZE), &transform);
                let mut got = vec![0f32; 3 * side * side];
                let image = ImageView::new(layout, &bytes).unwrap();
                stager.stage(&image, &placement, &transform, StageTarget::F32(&mut got));
                let all_levels_max = if format.is_yuv() { ALL_LEVELS_MAX_YUV } else { ALL_LEVELS_MAX };
                compare(&format!("{name} {fit_name} {side}"), &got, &expected, all_levels_max);
            }
        }
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn compare(case: &str, got: &[f32], expected: &[f32], all_levels_max: f64) {
    assert_eq!(got.len(), expected.len(), "{case}");
    let mut differences: Vec<f64> = got.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs())).collect();
    differences.sort_by(f64::total_cmp);
    let mean = differences.iter().sum::<f64>() / differences.len() as f64;
    let at = |share: f64| differences[((differences.len() - 1) as f64 * share) as usize];
    let (p99, most, worst) = (at(0.99), at(0.999), at(1.0));
    println!("{case}: mean {mean:.3}, 99 % {p99:.2}, 99.9 % {most:.2}, worst {worst:.2} levels");
    assert!(mean <= MEAN_LEVELS_MAX, "{case}: mean {mean}");
    assert!(most <= MOST_LEVELS_MAX, "{case}: 99.9 % within {most}");
    assert!(worst <= all_levels_max, "{case}: worst {worst}");
}

fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/venv/bin/python");
    python.exists().then_some(python)
}

fn opencv(python: &Path, picture: &Path, format: &str, side: usize, fit: &str) -> Vec<f32> {
    let tensor = picture.with_extension("tensor");
    let status = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/opencv/stage.py"))
        .arg(picture)
        .arg(format)
        .args([SIZE.width, SIZE.height, side].map(|n| n.to_string()))
        .arg(fit)
        .arg(&tensor)
        .status()
        .unwrap();
    assert!(status.success());
    let bytes = std::fs::read(&tensor).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// What cameras see, made by arithmetic: soft light, textures of many sizes whose strength falls with
/// their fineness, hard edges between coloured objects, a little noise.
fn natural_like(size: Size) -> Vec<[f64; 3]> {
    let mut state = 12_345u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    let waves: Vec<_> = (0..24)
        .map(|octave| {
            let frequency = 0.004 * 1.25f64.powi(octave);
            let angle = random() * std::f64::consts::TAU;
            (frequency * angle.cos(), frequency * angle.sin(), random() * 6.3, 0.12 / (1.0 + frequency * 40.0))
        })
        .collect();
    let objects: Vec<_> = (0..40)
        .map(|_| {
            let (x, y) = (random() * size.width as f64, random() * size.height as f64);
            (x, y, 20.0 + random() * 160.0, [random(), random(), random()])
        })
        .collect();
    let mut pixels = Vec::with_capacity(size.width * size.height);
    for y in 0..size.height {
        for x in 0..size.width {
            let (x, y) = (x as f64, y as f64);
            let texture: f64 =
                waves.iter().map(|(a, b, phase, strength)| strength * (a * x + b * y + phase).sin()).sum();
            let object = objects.iter().rev().find(|(cx, cy, radius, _)| (x - cx).hypot(y - cy) < *radius);
            let color = object.map_or([0.55, 0.5, 0.4 + 0.2 * y / size.height as f64], |(.., color)| *color);
            let noise = (random() - 0.5) * 0.02;
            pixels.push(color.map(|c| (0.1 + 0.8 * c + 0.6 * texture + noise).clamp(0.0, 1.0)));
        }
    }
    pixels
}

/// BT.601, limited range, chroma averaged over 2×2 pixels: as cameras and video encoders do it.
fn encode(rgb: &[[f64; 3]], layout: &ImageLayout) -> Vec<u8> {
    let level = |value: f64| value.round().clamp(0.0, 255.0) as u8;
    let luma = |[r, g, b]: [f64; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
    let Size { width, height } = layout.size;
    match layout.format {
        PixelFormat::Rgb => rgb.iter().flat_map(|pixel| pixel.map(|c| level(255.0 * c))).collect(),
        PixelFormat::Bgr => rgb.iter().flat_map(|[r, g, b]| [*b, *g, *r].map(|c| level(255.0 * c))).collect(),
        PixelFormat::Gray => rgb.iter().map(|pixel| level(255.0 * luma(*pixel))).collect(),
        PixelFormat::Nv12 | PixelFormat::I420 => {
            let mut bytes: Vec<u8> = rgb.iter().map(|pixel| level(16.0 + 219.0 * luma(*pixel))).collect();
            let (mut u, mut v) = (Vec::new(), Vec::new());
            for y in (0..height).step_by(2) {
                for x in (0..width).step_by(2) {
                    let block = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(dx, dy)| rgb[(y + dy) * width + x + dx]);
                    let mean: [f64; 3] = std::array::from_fn(|c| block.iter().map(|pixel| pixel[c]).sum::<f64>() / 4.0);
                    u.push(level(128.0 + 224.0 * 0.5 * (mean[2] - luma(mean)) / (1.0 - 0.114)));
                    v.push(level(128.0 + 224.0 * 0.5 * (mean[0] - luma(mean)) / (1.0 - 0.299)));
                }
            }
            if layout.format == PixelFormat::Nv12 {
                bytes.extend(u.iter().zip(&v).flat_map(|(u, v)| [*u, *v]));
            } else {
                bytes.extend(u);
                bytes.extend(v);
            }
            bytes
        }
    }
}
