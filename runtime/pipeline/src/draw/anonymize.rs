//! Hiding parts of a picture for good.
//!
//! A region is first reduced to the means of a coarse grid of square cells, in every component
//! (brightness and colour alike). *Mosaic* shows those means; *blur* interpolates between them with
//! a quadratic B-spline, which is the mosaic blurred twice by a box of one cell. Either way the
//! output depends on at most [`CELLS_MAX`]² numbers per component and on nothing else of the
//! region, so that no filter can bring back what they do not hold. A plain blur does not give
//! that: where its kernel is known, much of it can be undone.
//!
//! The whole rectangle is hidden, not an ellipse in it: a box that sits badly then still covers
//! what it should. What this does *not* promise: that a person cannot be told by clothes, gait,
//! place or time, or that a detector finds every face.

use std::ops::Range;

use super::canvas::{Area, Canvas, Component};
use crate::config::AnonymizeMethod;

/// Cells along the longer side of a region. A face of 8 × 8 means has no features left that a
/// person could name; more cells begin to show eyes and mouth.
const CELLS_MAX: usize = 8;

/// The least side of a cell in pixels, so that small regions are hidden too.
const CELL_PIXELS_MIN: usize = 4;

/// Buffers that are kept between regions.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    sums: Vec<u64>,
    /// Means of the grid, row by row.
    means: Vec<f32>,
    /// One row of means, interpolated to the picture row at hand.
    row: Vec<f32>,
}

/// Hides `area`, grown to whole chroma samples where there are such.
pub(super) fn hide(canvas: &mut Canvas<'_>, area: Area, method: AnonymizeMethod, scratch: &mut Scratch) {
    let area = if canvas.is_subsampled() {
        let even = |value: usize, side: usize| value.next_multiple_of(2).min(side);
        Area {
            left: area.left & !1,
            top: area.top & !1,
            right: even(area.right, canvas.size().width),
            bottom: even(area.bottom, canvas.size().height),
        }
    } else {
        area
    };
    // Even, so that half a cell is whole for components of half resolution.
    let cell = area.width().max(area.height()).div_ceil(CELLS_MAX).max(CELL_PIXELS_MIN).next_multiple_of(2);
    for component in canvas.components() {
        if component.half {
            let half = Area {
                left: area.left / 2,
                top: area.top / 2,
                right: area.right.div_ceil(2),
                bottom: area.bottom.div_ceil(2),
            };
            hide_component(canvas.bytes, component, half, cell / 2, method, scratch);
        } else {
            hide_component(canvas.bytes, component, area, cell, method, scratch);
        }
    }
}

/// `area` and `cell` are in samples of the component.
fn hide_component(
    bytes: &mut [u8],
    component: Component,
    area: Area,
    cell: usize,
    method: AnonymizeMethod,
    scratch: &mut Scratch,
) {
    let (columns, rows) = (Cells::of(area.width(), cell), Cells::of(area.height(), cell));
    take_means(bytes, component, area, columns, rows, scratch);
    scratch.row.clear();
    scratch.row.resize(columns.count, 0.0);
    for y in 0..area.height() {
        let row = rows.weights(y, method);
        for (column, value) in scratch.row.iter_mut().enumerate() {
            *value = row.mean(|row| scratch.means[row * columns.count + column]);
        }
        for x in 0..area.width() {
            let value = columns.weights(x, method).mean(|column| scratch.row[column]);
            // A weighted mean of bytes is a byte.
            bytes[component.at(area.left + x, area.top + y)] = (value + 0.5) as u8;
        }
    }
}

fn take_means(bytes: &[u8], component: Component, area: Area, columns: Cells, rows: Cells, scratch: &mut Scratch) {
    scratch.means.clear();
    for row in 0..rows.count {
        let rows = rows.span(row);
        scratch.sums.clear();
        scratch.sums.resize(columns.count, 0);
        for y in rows.clone() {
            for (column, sum) in scratch.sums.iter_mut().enumerate() {
                let samples = columns.span(column).map(|x| bytes[component.at(area.left + x, area.top + y)]);
                *sum += samples.map(u64::from).sum::<u64>();
            }
        }
        let means = scratch.sums.iter().enumerate().map(|(column, &sum)| {
            let count = columns.span(column).len() * rows.len();
            (sum as f64 / count as f64) as f32
        });
        scratch.means.extend(means);
    }
}

/// A length cut into cells. The last one takes what is left over: a thin cell would be the mean of
/// few pixels and so show them.
#[derive(Clone, Copy)]
struct Cells {
    length: usize,
    cell: usize,
    count: usize,
}

impl Cells {
    fn of(length: usize, cell: usize) -> Self {
        Self { length, cell, count: (length / cell).max(1) }
    }

    fn span(&self, index: usize) -> Range<usize> {
        let end = if index + 1 == self.count { self.length } else { (index + 1) * self.cell };
        index * self.cell..end
    }

    /// What each cell gives to the sample at `position`.
    fn weights(&self, position: usize, method: AnonymizeMethod) -> Weights {
        let middle = (position / self.cell).min(self.count - 1);
        let cells = [middle.saturating_sub(1), middle, (middle + 1).min(self.count - 1)];
        let weights = match method {
            AnonymizeMethod::Mosaic => [0.0, 1.0, 0.0],
            AnonymizeMethod::Blur => {
                // From the middle cell's centre, in cells: −0.5..=0.5.
                let t = (((position - middle * self.cell) as f32 + 0.5) / self.cell as f32 - 0.5).min(0.5);
                [0.5 * (0.5 - t) * (0.5 - t), 0.75 - t * t, 0.5 * (0.5 + t) * (0.5 + t)]
            }
        };
        Weights { cells, weights }
    }
}

struct Weights {
    cells: [usize; 3],
    weights: [f32; 3],
}

impl Weights {
    fn mean(&self, value: impl Fn(usize) -> f32) -> f32 {
        self.cells.iter().zip(self.weights).map(|(&cell, weight)| value(cell) * weight).sum()
    }
}
