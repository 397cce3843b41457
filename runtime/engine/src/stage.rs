//! The one pass from a picture to a network's input, on the CPU.

use half::f16;
use revoada_core::{ImageTransform, ImageView, Placement};

/// One row of an input tensor, `channels * height * width` elements in the transform's layout.
#[derive(Debug)]
pub enum StageTarget<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    U8(&'a mut [u8]),
}

/// Stages `placement.source` of `image` into `target`.
pub fn stage_into(
    _image: &ImageView<'_>,
    _placement: &Placement,
    _transform: &ImageTransform,
    _target: StageTarget<'_>,
) {
}
