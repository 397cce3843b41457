//! Staging against its definition, over everything that it accepts.

#![allow(clippy::unwrap_used)]

mod stage_cases;

use half::f16;
use proptest::prelude::*;
use revoada_core::{
    ColorMatrix, ColorRange, ColorSpec, Fit, ImageLayout, ImageTransform, ImageView, Layout, PixelFormat, Placement,
    Rect, Size,
};
use revoada_engine::{StageTarget, Stager};
use stage_cases::{
    BAD_NUMBERS, FORMATS, Picture, noise, pictures, region_of, regions, transforms, whole_number_ratios,
};

fn check(stager: &mut Stager, picture: &Picture, placement: &Placement, transform: &ImageTransform) {
    let stage = |picture: &Picture, placement: &Placement, transform: &ImageTransform, target: StageTarget<'_>| {
        stager.stage(&picture.view(), placement, transform, target);
    };
    stage_cases::check(stage, picture, placement, transform);
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
    for (picture, transform) in whole_number_ratios() {
        let placement = Placement::new(Rect::of(picture.layout.size), &transform);
        check(&mut stager, &picture, &placement, &transform);
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
    for bad in BAD_NUMBERS {
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
