//! `[stream.lens]`: how a camera's lens bends its pictures.

use revoada_bundle::strict::Table;
use revoada_core::Size;
use toml_edit::{Array, Item, Table as TomlTable};

use super::{print, read};
use crate::vision;

/// Larger numbers are no focal length, and no coefficient of a lens.
const NUMBER_MAX: f64 = 1e6;

/// A lens as OpenCV's `calibrateCamera` describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct LensConfig {
    /// `[fx, fy, cx, cy]`, in pixels of a picture of `size`.
    pub camera_matrix: [f64; 4],
    /// `k1, k2, p1, p2`, then nothing, `k3`, or `k3, k4, k5, k6`.
    pub distortion: Vec<f64>,
    /// Of the pictures that the lens was calibrated with; the stream's have the same shape.
    pub size: Size,
    /// From 0, where all that is shown was seen, to 1, where all that was seen is shown; `None` leaves the middle of the
    /// picture at its size.
    pub alpha: Option<f64>,
}

pub(super) fn lens(table: &Table<'_>) -> Option<LensConfig> {
    let required = table.required();
    let camera_matrix = required.floats("camera_matrix", -NUMBER_MAX..=NUMBER_MAX);
    let camera_matrix = camera_matrix.and_then(|numbers| match <[f64; 4]>::try_from(numbers) {
        Ok(numbers @ [fx, fy, ..]) if fx > 0.0 && fy > 0.0 => Some(numbers),
        _ => {
            table.problem("camera_matrix", "expected `[fx, fy, cx, cy]`, the first two of them positive");
            None
        }
    });
    let distortion = required.floats("distortion", -NUMBER_MAX..=NUMBER_MAX);
    if let Some(count) = distortion.as_ref().map(Vec::len).filter(|count| ![4, 5, 8].contains(count)) {
        table.problem("distortion", format!("expected 4, 5 or 8 coefficients as OpenCV gives them, got {count}"));
    }
    let (size, alpha) = (read::size(&required, "size"), table.float("alpha", 0.0..=1.0));
    Some(LensConfig { camera_matrix: camera_matrix?, distortion: distortion?, size: size?, alpha })
}

/// Says so where the program can make no picture straight.
pub(super) fn check(stream: &Table<'_>, lens: Option<&LensConfig>) {
    if lens.is_some() && !vision::IS_THERE {
        stream.problem("lens", vision::WITHOUT);
    }
}

pub(super) fn to_table(lens: &LensConfig) -> TomlTable {
    let numbers = |numbers: &[f64]| numbers.iter().copied().collect::<Array>().into();
    let mut out = print::table([
        ("camera_matrix", numbers(&lens.camera_matrix)),
        ("distortion", numbers(&lens.distortion)),
        ("size", print::size(lens.size)),
    ]);
    if let Some(alpha) = lens.alpha {
        out.insert("alpha", Item::Value(alpha.into()));
    }
    out
}
