//! What staging is tried on, and how exact it must be: the same for the CPU and the GPU.

use half::f16;
use proptest::prelude::*;
use revoada_core::{
    Anchor, ChannelOrder, ColorMatrix, ColorRange, ColorSpec, Fit, ImageLayout, ImageTransform, ImageView, Layout,
    PixelFormat, Placement, PlaneLayout, Rect, Size,
};
use revoada_engine::{StageTarget, stage_reference};

/// How far single precision may be from the definition, in levels of 0..=255.
const TOLERANCE_LEVELS: f64 = 1.0 / 255.0;

pub(crate) const FORMATS: [PixelFormat; 5] =
    [PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Rgb, PixelFormat::Bgr, PixelFormat::Gray];

#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pub(crate) layout: ImageLayout,
    pub(crate) bytes: Vec<u8>,
}

impl Picture {
    pub(crate) fn view(&self) -> ImageView<'_> {
        ImageView::new(self.layout, &self.bytes).unwrap()
    }
}

/// Noise, so that every wrong pixel shows, in planes with gaps after rows and before planes.
pub(crate) fn noise(format: PixelFormat, color: ColorSpec, size: Size, gap: usize, seed: u32) -> Picture {
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

pub(crate) fn pictures() -> impl Strategy<Value = Picture> {
    let color =
        (prop_oneof![Just(ColorMatrix::Bt601), Just(ColorMatrix::Bt709)], any::<bool>()).prop_map(|(matrix, full)| {
            ColorSpec { matrix, range: if full { ColorRange::Full } else { ColorRange::Limited } }
        });
    (prop::sample::select(&FORMATS[..]), color, 1usize..80, 1usize..60, 0usize..9, any::<u32>())
        .prop_map(|(format, color, width, height, gap, seed)| noise(format, color, Size::new(width, height), gap, seed))
}

pub(crate) fn transforms() -> impl Strategy<Value = ImageTransform> {
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
pub(crate) fn regions() -> impl Strategy<Value = Rect> {
    prop_oneof![
        Just(Rect::new(0.0, 0.0, 1.0, 1.0)),
        (-0.5f32..1.0, -0.5f32..1.0, 0.01f32..1.5, 0.01f32..1.5).prop_map(|(x, y, w, h)| Rect::new(x, y, w, h)),
    ]
}

pub(crate) fn region_of(picture: &Picture, fraction: Rect, whole_pixels: bool) -> Rect {
    let (width, height) = (picture.layout.size.width as f32, picture.layout.size.height as f32);
    let region = Rect::new(fraction.x * width, fraction.y * height, fraction.width * width, fraction.height * height);
    if !whole_pixels {
        return region;
    }
    Rect::new(region.x.round(), region.y.round(), region.width.ceil(), region.height.ceil())
}

/// Holds what `stage` makes of a picture against the definition, for each element type.
pub(crate) fn check(
    mut stage: impl FnMut(&Picture, &Placement, &ImageTransform, StageTarget<'_>),
    picture: &Picture,
    placement: &Placement,
    transform: &ImageTransform,
) {
    let expected = stage_reference(&picture.view(), placement, transform);
    let count = transform.channels.channels();
    let scale_at = |index: usize| {
        let channel = match transform.layout {
            Layout::Nchw => index / (transform.size.width * transform.size.height),
            Layout::Nhwc => index % count,
        };
        f64::from(transform.scale[channel].abs())
    };

    let mut single = vec![f32::NAN; expected.len()];
    stage(picture, placement, transform, StageTarget::F32(&mut single));
    for (index, (got, expected)) in single.iter().zip(&expected).enumerate() {
        let allowed = TOLERANCE_LEVELS * scale_at(index) + f64::EPSILON;
        assert!((f64::from(*got) - expected).abs() <= allowed, "element {index}: {got}, not {expected}");
    }

    let mut half = vec![f16::NAN; expected.len()];
    stage(picture, placement, transform, StageTarget::F16(&mut half));
    for (index, (got, expected)) in half.iter().zip(&expected).enumerate() {
        // Half a unit in the last place of eleven bits, on top of the tolerance.
        let allowed = TOLERANCE_LEVELS * scale_at(index) + expected.abs() / 2048.0 + 1e-7;
        assert!((f64::from(got.to_f32()) - expected).abs() <= allowed, "element {index}: {got}, not {expected}");
    }

    let mut byte = vec![0u8; expected.len()];
    stage(picture, placement, transform, StageTarget::U8(&mut byte));
    for (index, (got, expected)) in byte.iter().zip(&expected).enumerate() {
        let expected = expected.clamp(0.0, 255.0);
        let allowed = 0.5 + TOLERANCE_LEVELS * scale_at(index);
        assert!((f64::from(*got) - expected).abs() <= allowed, "element {index}: {got}, not {expected}");
    }
}

/// The ratios that cameras and networks make, which random sizes never meet.
pub(crate) fn whole_number_ratios() -> impl Iterator<Item = (Picture, ImageTransform)> {
    const RATIOS: [(usize, usize); 9] = [(1, 1), (2, 1), (3, 1), (3, 2), (4, 1), (5, 1), (1, 2), (1, 3), (27, 16)];
    let ratios = FORMATS.into_iter().flat_map(|format| RATIOS.map(|ratio| (format, ratio)));
    ratios.flat_map(|(format, (numerator, denominator))| {
        [0, 1].map(|odd| {
            let network = Size::new(16 * denominator + odd, 16 * denominator);
            let size = Size::new(network.width * numerator / denominator, 16 * numerator);
            (noise(format, ColorSpec::default(), size, 3, 7), ImageTransform::stretch(network))
        })
    })
}

/// Numbers that no region should have.
pub(crate) const BAD_NUMBERS: [f32; 7] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -3.0];
