//! Measures staging on one thread, beside copying as many bytes on the same machine.
//!
//! One JSON line per case on standard output: all repetitions in milliseconds, and the bytes moved:
//! the source rows that are read and the tensor that is written. `tests/bench/stage_opencv.py` runs
//! this and OpenCV in turn and prints both.
//!
//! ```text
//! cargo run --release -p revoada-engine --example stage_bench -- [repetitions [case]]
//! ```

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Instant;

use half::f16;
use revoada_core::{
    ColorSpec, DType, Fit, ImageLayout, ImageTransform, ImageView, Layout, PixelFormat, Placement, Rect, Size,
};
use revoada_engine::{StageTarget, Stager};

struct Case {
    name: &'static str,
    format: PixelFormat,
    size: Size,
    region: Option<Rect>,
    transform: ImageTransform,
    dtype: DType,
}

const FULL_HD: Size = Size::new(1920, 1080);
const HD: Size = Size::new(1280, 720);

fn cases() -> Vec<Case> {
    let network = |side: usize, fit: Fit| ImageTransform {
        fit,
        scale: [1.0 / 255.0; 3],
        ..ImageTransform::stretch(Size::new(side, side))
    };
    let letterbox = Fit::letterbox_centered();
    let case = |name, format, size, transform| Case { name, format, size, region: None, transform, dtype: DType::F32 };
    let (nv12, rgb) = (PixelFormat::Nv12, PixelFormat::Rgb);
    vec![
        case("nv12-1080p-stretch-640-f32", nv12, FULL_HD, network(640, Fit::Stretch)),
        case("nv12-1080p-letterbox-640-f32", nv12, FULL_HD, network(640, letterbox)),
        case("nv12-1080p-stretch-224-f32", nv12, FULL_HD, network(224, Fit::Stretch)),
        case("nv12-720p-letterbox-640-f32", nv12, HD, network(640, letterbox)),
        case("rgb-1080p-stretch-640-f32", rgb, FULL_HD, network(640, Fit::Stretch)),
        Case { dtype: DType::F16, ..case("nv12-1080p-stretch-640-f16", nv12, FULL_HD, network(640, Fit::Stretch)) },
        Case {
            dtype: DType::U8,
            ..case(
                "nv12-1080p-stretch-640-u8-nhwc",
                nv12,
                FULL_HD,
                ImageTransform { layout: Layout::Nhwc, ..ImageTransform::stretch(Size::new(640, 640)) },
            )
        },
        Case {
            region: Some(Rect::new(801.5, 300.25, 240.0, 320.0)),
            ..case("nv12-1080p-region-224-f32", nv12, FULL_HD, network(224, Fit::Stretch))
        },
    ]
}

fn main() {
    let repetitions: usize = std::env::args().nth(1).map_or(100, |n| n.parse().expect("repetitions is a number"));
    let wanted = std::env::args().nth(2).unwrap_or_default();
    for case in cases().into_iter().filter(|case| case.name.contains(&wanted)) {
        let layout = ImageLayout::packed(case.format, ColorSpec::default(), case.size);
        let bytes = gradient(&layout);
        let image = ImageView::new(layout, &bytes).expect("the picture was made for its layout");
        let placement = Placement::new(case.region.unwrap_or(Rect::of(case.size)), &case.transform);
        let elements = 3 * case.transform.size.width * case.transform.size.height;
        let moved = bytes_read(&image, &placement) + elements * case.dtype.size();

        let mut stager = Stager::new();
        let (mut single, mut half, mut byte) = (vec![0f32; elements], vec![f16::ZERO; elements], vec![0u8; elements]);
        let mut stage = || {
            let target = match case.dtype {
                DType::F16 => StageTarget::F16(&mut half),
                DType::U8 => StageTarget::U8(&mut byte),
                _ => StageTarget::F32(&mut single),
            };
            stager.stage(black_box(&image), &placement, &case.transform, target);
        };
        // A copy reads and writes, so half the bytes moved make as much traffic.
        let source = vec![1u8; moved / 2];
        let mut target = vec![0u8; moved / 2];
        let mut copy = || target.copy_from_slice(black_box(&source));

        let (mut stage_ms, mut copy_ms) = (Vec::new(), Vec::new());
        for _ in 0..repetitions {
            stage_ms.push(measure(&mut stage));
            copy_ms.push(measure(&mut copy));
        }
        println!(r#"{{"case":"{}","stage_ms":{stage_ms:?},"copy_ms":{copy_ms:?},"bytes_moved":{moved}}}"#, case.name);
        eprintln!("{}", summary(case.name, &mut stage_ms, &mut copy_ms, moved));
    }
}

fn measure(work: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

fn summary(name: &str, stage_ms: &mut [f64], copy_ms: &mut [f64], moved: usize) -> String {
    let median = |times: &mut [f64]| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (stage_ms, copy_ms) = (median(stage_ms), median(copy_ms));
    let rate = |ms: f64| moved as f64 / ms / 1e6;
    format!(
        "{name:32} {stage_ms:6.3} ms  {:5.1} GB/s  (copying: {copy_ms:6.3} ms, {:5.1} GB/s)",
        rate(stage_ms),
        rate(copy_ms)
    )
}

/// Something with slopes in both directions and all values in it.
fn gradient(layout: &ImageLayout) -> Vec<u8> {
    let len = layout.bytes().expect("the cases are small");
    (0..len).map(|i| (i % layout.size.width / 5 + i / layout.size.width / 3) as u8).collect()
}

/// Whole rows that hold at least one pixel that is read, in all planes.
fn bytes_read(image: &ImageView<'_>, placement: &Placement) -> usize {
    let Size { height, width } = image.size();
    let (source, target) = (placement.source, placement.target);
    let step = f64::from(source.height) / f64::from(target.height);
    let mut luma_rows = BTreeSet::new();
    for y in 0..target.height as usize {
        let position = ((y as f64 + 0.5) * step + f64::from(source.y) - 0.5).clamp(0.0, (height - 1) as f64);
        luma_rows.extend([position.floor() as usize, position.ceil() as usize]);
    }
    let chroma_rows: BTreeSet<_> = luma_rows.iter().map(|row| row / 2).collect();
    let columns = (source.width.ceil() as usize).min(width);
    match image.format() {
        PixelFormat::Nv12 | PixelFormat::I420 => luma_rows.len() * columns + chroma_rows.len() * columns,
        PixelFormat::Rgb | PixelFormat::Bgr => luma_rows.len() * columns * 3,
        PixelFormat::Gray => luma_rows.len() * columns,
    }
}
