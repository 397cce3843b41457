//! Planes of our pictures as OpenCV sees them.

use opencv::boxed_ref::BoxedRef;
use opencv::core::{Mat, MatTraitConst, Rect};
use revoada_core::ImageView;

/// Shows `see` a plane as a matrix of `channels`, without a copy unless the memory ends with the plane's last pixel though
/// its rows are padded.
pub(crate) fn seen<T>(
    picture: &ImageView<'_>,
    index: usize,
    channels: i32,
    see: impl FnOnce(&BoxedRef<'_, Mat>) -> opencv::Result<T>,
) -> opencv::Result<T> {
    let plane = picture.plane(index);
    let (row, rows) = (plane.row as i32, plane.rows as i32);
    let bytes = &picture.bytes()[picture.layout().planes[index].offset..];
    let Some(bytes) = bytes.get(..plane.stride * plane.rows) else {
        let packed: Vec<u8> = (0..plane.rows).flat_map(|y| plane.row(y)).copied().collect();
        return see(&Mat::new_rows_cols_with_data(rows, row, &packed)?.reshape(channels, 0)?);
    };
    let padded = Mat::new_rows_cols_with_data(rows, plane.stride as i32, bytes)?;
    let samples = Mat::roi(&padded, Rect::new(0, 0, row, rows))?;
    see(&samples.reshape(channels, 0)?)
}
