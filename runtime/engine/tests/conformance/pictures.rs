//! Pictures staged into inputs. Of the pixels only what a single colour can show: how they are
//! resampled is for the tests of staging.

use std::sync::Arc;

use revoada_core::{
    ChannelOrder, ColorSpec, DType, Frame, ImageLayout, ImageTransform, Layout, PixelFormat, Rect, Size,
};
use revoada_engine::{Backend, EngineError, Session, Shapes, Surface};

use crate::models;
use crate::tensors::{load, session};

/// A picture whose left half has one colour and whose right half another.
fn frame(size: Size, left: [u8; 3], right: [u8; 3]) -> Arc<Frame> {
    let pixels = (0..size.width * size.height)
        .flat_map(|index| if index % size.width < size.width / 2 { left } else { right })
        .collect();
    let layout = ImageLayout::packed(PixelFormat::Rgb, ColorSpec::default(), size);
    Arc::new(Frame::still(layout, pixels).unwrap())
}

fn transform(layout: Layout) -> ImageTransform {
    ImageTransform { layout, ..ImageTransform::stretch(Size::new(4, 4)) }
}

fn answer(session: &mut dyn Session, rows: usize) -> Vec<f32> {
    session.submit(rows).expect("the batch runs");
    session.wait().unwrap().tensors[0].as_slice::<f32>().expect("an output of f32").to_vec()
}

pub(crate) fn channels_land_where_the_layout_says(backend: &dyn Backend) {
    let frame = frame(Size::new(8, 6), [10, 20, 30], [10, 20, 30]);
    let surface = backend.import(&frame).unwrap();
    for (model, layout) in [
        (models::channel_means("N,3,4,4", [2, 3]), Layout::Nchw),
        (models::channel_means("N,4,4,3", [1, 2]), Layout::Nhwc),
    ] {
        let mut session = session(backend, &model, 1);
        for (channels, expected) in [(ChannelOrder::Rgb, [10.0, 20.0, 30.0]), (ChannelOrder::Bgr, [30.0, 20.0, 10.0])] {
            let transform = ImageTransform { channels, ..transform(layout) };
            let placement = session.stage(0, 0, &surface, Rect::of(frame.size()), &transform).unwrap();
            assert_eq!(placement.scale(), (2.0, 1.5));
            assert_eq!(answer(&mut *session, 1), expected, "{layout:?} {channels:?}");
        }
    }
}

pub(crate) fn every_picture_type_is_staged(backend: &dyn Backend) {
    let frame = frame(Size::new(4, 4), [200, 100, 50], [200, 100, 50]);
    let surface = backend.import(&frame).unwrap();
    for dtype in [DType::F32, DType::F16, DType::U8] {
        let mut session = session(backend, &models::picture(dtype), 1);
        session.stage(0, 0, &surface, Rect::of(frame.size()), &transform(Layout::Nchw)).unwrap();
        let expected = [[200.0; 16], [100.0; 16], [50.0; 16]].concat();
        assert_eq!(answer(&mut *session, 1), expected, "{dtype}");
    }
}

pub(crate) fn a_staged_picture_is_used_once_and_let_go(backend: &dyn Backend) {
    let first = frame(Size::new(4, 4), [1; 3], [1; 3]);
    let second = frame(Size::new(4, 4), [2; 3], [2; 3]);
    let mut session = session(backend, &models::channel_means("N,3,4,4", [2, 3]), 2);
    let stage = |session: &mut dyn Session, frame: &Arc<Frame>| {
        let surface = backend.import(frame).unwrap();
        session.stage(0, 0, &surface, Rect::of(frame.size()), &transform(Layout::Nchw)).unwrap();
    };
    stage(&mut *session, &first);
    stage(&mut *session, &second);
    assert_eq!(answer(&mut *session, 1), [2.0; 3], "the later record replaces the earlier");
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 1), "no frame is held");
    let again = session.submit(1).unwrap_err();
    assert!(matches!(again, EngineError::Unfilled { row: 0, .. }), "{again}");
    stage(&mut *session, &first);
    assert!(session.submit(2).is_err(), "row 1 was not filled");
    assert_eq!(Arc::strong_count(&first), 1, "nor after a failure");
}

pub(crate) fn crops_of_one_frame_fill_a_batch(backend: &dyn Backend) {
    let frame = frame(Size::new(8, 8), [10; 3], [90; 3]);
    let surface = backend.import(&frame).unwrap();
    let mut session = session(backend, &models::channel_means("N,3,4,4", [2, 3]), 3);
    let regions = [
        Rect::new(4.0, 0.0, 4.0, 8.0),
        Rect::new(0.0, 0.0, 4.0, 4.0),
        // Cut at the picture's border.
        Rect::new(4.0, -8.0, 100.0, 100.0),
    ];
    for (row, region) in regions.into_iter().enumerate().rev() {
        session.stage(0, row, &surface, region, &transform(Layout::Nchw)).unwrap();
    }
    assert_eq!(answer(&mut *session, 3), [90.0, 90.0, 90.0, 10.0, 10.0, 10.0, 90.0, 90.0, 90.0]);
}

pub(crate) fn pictures_that_do_not_fit_are_refused(backend: &dyn Backend) {
    let frame = frame(Size::new(8, 8), [0; 3], [0; 3]);
    let surface: Surface = backend.import(&frame).unwrap();
    let whole = Rect::of(frame.size());
    let engine = load(backend, &models::channel_means("N,3,4,4", [2, 3]));
    let mut session = engine.session(&Shapes::rows(2)).unwrap();
    let mut refused = |row: usize, region: Rect, transform: &ImageTransform| {
        session.stage(0, row, &surface, region, transform).unwrap_err().to_string()
    };
    let fits = transform(Layout::Nchw);
    assert_eq!(refused(2, whole, &fits), "row 2 is outside the batch of 2");
    assert_eq!(
        refused(0, Rect::new(9.0, 0.0, 4.0, 4.0), &fits),
        "a region of 4×4 at (9, 0) does not meet the 8×8 picture"
    );
    assert!(refused(0, Rect::new(f32::NAN, 0.0, 4.0, 4.0), &fits).contains("does not meet"));
    for wrong in [
        transform(Layout::Nhwc),
        ImageTransform { channels: ChannelOrder::Gray, ..fits },
        ImageTransform { size: Size::new(4, 5), ..fits },
    ] {
        let error = refused(0, whole, &wrong);
        let expected = format!("input `{}` cannot take a picture", engine.inputs()[0]);
        assert!(error.starts_with(&expected), "{error}");
    }
    let flat = load(backend, &models::increment("N"));
    let error = flat.session(&Shapes::rows(1)).unwrap().stage(0, 0, &surface, whole, &fits).unwrap_err();
    let expected = format!("input `{}` cannot take a picture: it does not have four dimensions", flat.inputs()[0]);
    assert_eq!(error.to_string(), expected);
}
