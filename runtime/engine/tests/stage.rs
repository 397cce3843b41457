//! Staging against its definition, over everything that it accepts.

#![allow(clippy::unwrap_used)]

use half::f16;
use proptest::prelude::*;
use revoada_core::{
    Anchor, ChannelOrder, ColorMatrix, ColorRange, ColorSpec, Fit, ImageLayout, ImageTransform, ImageView, Layout,
    PixelFormat, Placement, PlaneLayout, Rect, Size,
};
use revoada_engine::{StageTarget, Stager, stage_reference};

/// How far single precision may be from the definition, in levels of 0..=255.
const TOLERANCE_LEVELS: f64 = 1.0 / 255.0;

const FORMATS: [PixelFormat; 5] =
    [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Rgb, PixelFormat::Bgr, PixelFormat::Gray];

#[derive(Clone, Debug)]
struct Picture {
    layout: ImageLayout,
    bytes: Vec<u8>,
}

impl Picture {
    fn view(&self) -> ImageView<'_> {
        ImageView::new(self.layout, &self.bytes).unwrap()
    }
}

/// Noise, so that every wrong pixel shows, in planes with gaps after rows and before planes.
fn noise(format: PixelFormat, color: ColorSpec, size: Size, gap: usize, seed: u32) -> Picture {
    let mut planes = [PlaneLayout::default(); 3];
    let mut end = 0;
    for (plane, &(row, rows)) in planes.iter_mut().zip(format.planes(size).as_slice()) {
        *plane = PlaneLayout { offset: end + gap, stride: row + gap };
        // The last row ends with its pixels, so that reading on would be out of bounds.
        end = plane.offset + (rows - 1) * plane.stride + row;
    }
    let mut state = seed | 1;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    Picture { layout: ImageLayout { format, color, size, planes }, bytes: bytes.take(end).collect() }
}

fn pictures() -> impl Strategy<Value = Picture> {
    let color =
        (prop_oneof![Just(ColorMatrix::Bt601), Just(ColorMatrix::Bt709)], any::<bool>()).prop_map(|(matrix, full)| {
            ColorSpec { matrix, range: if full { ColorRange::Full } else { ColorRange::Limited } }
        });
    (prop::sample::select(&FORMATS[..]), color, 1usize..80, 1usize..60, 0usize..9, any::<u32>())
        .prop_map(|(format, color, width, height, gap, seed)| noise(format, color, Size::new(width, height), gap, seed))
}

fn transforms() -> impl Strategy<Value = ImageTransform> {
    let fit = prop_oneof![
        Just(Fit::Stretch),
        Just(Fit::CenterCrop),
        (any::<bool>(), 0f32..255.0).prop_map(|(centred, fill)| Fit::Letterbox {
            anchor: if centred { Anchor::Center } else { Anchor::TopLeft },
            fill
        }),
    ];
    (
        (1usize..70, 1usize..50),
        prop_oneof![Just(Layout::Nchw), Just(Layout::Nhwc)],
        prop_oneof![Just(ChannelOrder::Rgb), Just(ChannelOrder::Bgr), Just(ChannelOrder::Gray)],
        fit,
        prop_oneof![Just([0.0; 3]), prop::array::uniform3(0f32..255.0)],
        prop_oneof![Just([1.0; 3]), prop::array::uniform3(0.001f32..2.0), Just([-0.5, 1.0 / 255.0, 0.0])],
    )
        .prop_map(|((width, height), layout, channels, fit, mean, scale)| ImageTransform {
            size: Size::new(width, height),
            layout,
            channels,
            fit,
            mean,
            scale,
        })
}

/// The whole picture, or a part of it that may cross its borders, as fractions of its size.
fn regions() -> impl Strategy<Value = Rect> {
    prop_oneof![
        Just(Rect::new(0.0, 0.0, 1.0, 1.0)),
        (-0.5f32..1.0, -0.5f32..1.0, 0.01f32..1.5, 0.01f32..1.5).prop_map(|(x, y, w, h)| Rect::new(x, y, w, h)),
    ]
}

fn region_of(picture: &Picture, fraction: Rect, whole_pixels: bool) -> Rect {
    let (width, height) = (picture.layout.size.width as f32, picture.layout.size.height as f32);
    let region = Rect::new(fraction.x * width, fraction.y * height, fraction.width * width, fraction.height * height);
    if !whole_pixels {
        return region;
    }
    Rect::new(region.x.round(), region.y.round(), region.width.ceil(), region.height.ceil())
}

fn check(stager: &mut Stager, picture: &Picture, placement: &Placement, transform: &ImageTransform) {
    let image = picture.view();
    let expected = stage_reference(&image, placement, transform);
    let count = transform.channels.channels();
    let scale_at = |index: usize| {
        let channel = match transform.layout {
            Layout::Nchw => index / (transform.size.width * transform.size.height),
            Layout::Nhwc => index % count,
        };
        f64::from(transform.scale[channel].abs())
    };

    let mut single = vec![f32::NAN; expected.len()];
    stager.stage(&image, placement, transform, StageTarget::F32(&mut single));
    for (index, (got, expected)) in single.iter().zip(&expected).enumerate() {
        let allowed = TOLERANCE_LEVELS * scale_at(index) + f64::EPSILON;
        assert!((f64::from(*got) - expected).abs() <= allowed, "element {index}: {got}, not {expected}");
    }

    let mut half = vec![f16::NAN; expected.len()];
    stager.stage(&image, placement, transform, StageTarget::F16(&mut half));
    for (index, (got, expected)) in half.iter().zip(&expected).enumerate() {
        // Half a unit in the last place of eleven bits, on top of the tolerance.
        let allowed = TOLERANCE_LEVELS * scale_at(index) + expected.abs() / 2048.0 + 1e-7;
        assert!((f64::from(got.to_f32()) - expected).abs() <= allowed, "element {index}: {got}, not {expected}");
    }

    let mut byte = vec![0u8; expected.len()];
    stager.stage(&image, placement, transform, StageTarget::U8(&mut byte));
    for (index, (got, expected)) in byte.iter().zip(&expected).enumerate() {
        let expected = expected.clamp(0.0, 255.0);
        let allowed = 0.5 + TOLERANCE_LEVELS * scale_at(index);
        assert!((f64::from(*got) - expected).abs() <= allowed, "element {index}: {got}, not {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn staging_equals_its_definition(
        picture in pictures(),
        transform in transforms(),
        fraction in regions(),
        whole_pixels in any::<bool>(),
    ) {
        let placement = Placement::new(region_of(&picture, fraction, whole_pixels), &transform);
        check(&mut Stager::new(), &picture, &placement, &transform);
    }

    /// Tables and rows kept from one picture never show in the next.
    #[test]
    fn a_used_stager_stages_like_a_new_one(
        jobs in prop::collection::vec((pictures(), transforms(), regions()), 2..6),
    ) {
        let mut stager = Stager::new();
        for (picture, transform, fraction) in jobs {
            let placement = Placement::new(region_of(&picture, fraction, false), &transform);
            check(&mut stager, &picture, &placement, &transform);
        }
    }
}

/// The ratios that cameras and networks make, which random sizes never meet.
#[test]
fn whole_number_ratios_equal_the_definition() {
    let mut stager = Stager::new();
    for format in FORMATS {
        for (numerator, denominator) in [(1, 1), (2, 1), (3, 1), (3, 2), (4, 1), (5, 1), (1, 2), (1, 3), (27, 16)] {
            for odd in [0, 1] {
                let network = Size::new(16 * denominator + odd, 16 * denominator);
                let size = Size::new(network.width * numerator / denominator, 16 * numerator);
                let picture = noise(format, ColorSpec::default(), size, 3, 7);
                let transform = ImageTransform::stretch(network);
                let placement = Placement::new(Rect::of(size), &transform);
                check(&mut stager, &picture, &placement, &transform);
            }
        }
    }
}

/// BT.709-6 and BT.601-7 define these bytes for the primaries; a level is lost to rounding them.
#[test]
fn colour_bars_come_back_as_the_primaries() {
    let bars = [
        (ColorMatrix::Bt709, ColorRange::Limited, [63, 102, 240], [255.0, 0.0, 0.0]),
        (ColorMatrix::Bt709, ColorRange::Limited, [173, 42, 26], [0.0, 255.0, 0.0]),
        (ColorMatrix::Bt709, ColorRange::Limited, [32, 240, 118], [0.0, 0.0, 255.0]),
        (ColorMatrix::Bt601, ColorRange::Limited, [81, 90, 240], [255.0, 0.0, 0.0]),
        (ColorMatrix::Bt601, ColorRange::Limited, [145, 54, 34], [0.0, 255.0, 0.0]),
        (ColorMatrix::Bt601, ColorRange::Limited, [41, 240, 110], [0.0, 0.0, 255.0]),
        (ColorMatrix::Bt601, ColorRange::Full, [76, 85, 255], [255.0, 0.0, 0.0]),
        (ColorMatrix::Bt601, ColorRange::Full, [255, 128, 128], [255.0, 255.0, 255.0]),
        (ColorMatrix::Bt709, ColorRange::Limited, [235, 128, 128], [255.0, 255.0, 255.0]),
        (ColorMatrix::Bt709, ColorRange::Limited, [16, 128, 128], [0.0, 0.0, 0.0]),
    ];
    for (matrix, range, [y, u, v], expected) in bars {
        let layout = ImageLayout::packed(PixelFormat::I420, ColorSpec { matrix, range }, Size::new(2, 2));
        let bytes = [y, y, y, y, u, v];
        let transform = ImageTransform::stretch(Size::new(1, 1));
        let placement = Placement::new(Rect::new(0.0, 0.0, 2.0, 2.0), &transform);
        let mut target = [0f32; 3];
        let image = ImageView::new(layout, &bytes).unwrap();
        Stager::new().stage(&image, &placement, &transform, StageTarget::F32(&mut target));
        for (got, expected) in target.iter().zip(expected) {
            assert!((got - expected).abs() <= 2.0, "{matrix:?} {range:?} {y} {u} {v}: {target:?}");
        }
    }
}

#[test]
fn a_region_without_numbers_in_it_stays_inside_the_picture() {
    let picture = noise(PixelFormat::Nv12, ColorSpec::default(), Size::new(9, 7), 0, 1);
    let transform = ImageTransform::stretch(Size::new(5, 5));
    let mut target = [0f32; 75];
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -3.0] {
        for region in [Rect::new(bad, 0.0, 4.0, 4.0), Rect::new(0.0, bad, 4.0, 4.0), Rect::new(1.0, 1.0, bad, bad)] {
            let placement = Placement { source: region, target: Rect::new(0.0, 0.0, 5.0, 5.0) };
            Stager::new().stage(&picture.view(), &placement, &transform, StageTarget::F32(&mut target));
            assert!(target.iter().all(|value| (0.0..=255.0).contains(value)), "{region:?}");
            let placement = Placement { source: Rect::new(0.0, 0.0, 9.0, 7.0), target: region };
            Stager::new().stage(&picture.view(), &placement, &transform, StageTarget::F32(&mut target));
        }
    }
}

/// All formats, fits, layouts and element types again, once every buffer has its size.
#[test]
fn a_warm_stager_does_not_allocate() {
    let mut stager = Stager::new();
    let network = Size::new(64, 48);
    let mut single = vec![0f32; 3 * 64 * 48];
    let mut half = vec![f16::ZERO; 3 * 64 * 48];
    let mut byte = vec![0u8; 3 * 64 * 48];
    let pictures = FORMATS.map(|format| noise(format, ColorSpec::default(), Size::new(131, 97), 5, 3));
    let mut pass = || {
        for picture in &pictures {
            for fit in [Fit::Stretch, Fit::CenterCrop, Fit::letterbox_centered()] {
                for layout in [Layout::Nchw, Layout::Nhwc] {
                    let transform = ImageTransform { fit, layout, ..ImageTransform::stretch(network) };
                    let placement = Placement::new(Rect::of(picture.layout.size), &transform);
                    let image = picture.view();
                    stager.stage(&image, &placement, &transform, StageTarget::F32(&mut single));
                    stager.stage(&image, &placement, &transform, StageTarget::F16(&mut half));
                    stager.stage(&image, &placement, &transform, StageTarget::U8(&mut byte));
                }
            }
        }
    };
    pass();
    let counted = allocation_counter::measure(pass);
    assert_eq!(counted.count_total, 0);
}

#[test]
#[should_panic(expected = "a target for 4×4 has another number of elements")]
fn a_target_of_another_length_is_refused() {
    let picture = noise(PixelFormat::Gray, ColorSpec::default(), Size::new(4, 4), 0, 1);
    let transform = ImageTransform::stretch(Size::new(4, 4));
    let placement = Placement::new(Rect::new(0.0, 0.0, 4.0, 4.0), &transform);
    Stager::new().stage(&picture.view(), &placement, &transform, StageTarget::U8(&mut [0; 47]));
}
