//! SORT's way to match: by overlap, all boxes at once.

use super::assign::Assignment;
use super::bounds::Bounds;

/// Matches boxes by the largest sum of overlaps, and keeps its buffers.
#[derive(Debug, Default)]
pub(super) struct Overlaps {
    /// Rows × columns.
    overlaps: Vec<f64>,
    /// The overlaps with their bonuses.
    gains: Vec<f64>,
    /// Whether a column has an overlap above the threshold already.
    above: Vec<bool>,
    assignment: Assignment,
    pairs: Vec<(usize, usize)>,
}

impl Overlaps {
    /// Pairs of a row and a column that overlap by at least `iou_min`, out of the assignment with the largest sum of
    /// overlaps and bonuses, which `add_bonuses` adds to those of a row. Where no box overlaps two others by more than
    /// `iou_min`, whatever does so is a pair, and the bonuses and overlaps below it have no say.
    pub(super) fn pairs(
        &mut self,
        rows: &[Bounds],
        columns: &[Bounds],
        iou_min: f64,
        add_bonuses: impl Fn(usize, &mut [f64]),
    ) -> &[(usize, usize)] {
        self.measure(rows, columns);
        if !self.pair_plainly(columns.len(), iou_min) {
            self.pair_best(rows.len(), columns.len(), iou_min, add_bonuses);
        }
        &self.pairs
    }

    /// The same without a bonus and without the exception.
    pub(super) fn best_pairs(&mut self, rows: &[Bounds], columns: &[Bounds], iou_min: f64) -> &[(usize, usize)] {
        self.measure(rows, columns);
        if self.overlaps.iter().any(|overlap| *overlap > iou_min) {
            self.pair_best(rows.len(), columns.len(), iou_min, |_, _| ());
        }
        &self.pairs
    }

    fn measure(&mut self, rows: &[Bounds], columns: &[Bounds]) {
        self.pairs.clear();
        self.overlaps.clear();
        for row in rows {
            self.overlaps.extend(columns.iter().map(|column| row.iou(column, 0.0)));
        }
    }

    fn pair_best(&mut self, rows: usize, columns: usize, iou_min: f64, add_bonuses: impl Fn(usize, &mut [f64])) {
        let Self { overlaps, gains, assignment, pairs, .. } = self;
        gains.clone_from(overlaps);
        gains.chunks_exact_mut(columns.max(1)).enumerate().for_each(|(row, gains)| add_bonuses(row, gains));
        let assigned = assignment.solve(rows, columns, |row, column| -gains[row * columns + column]);
        pairs.clear();
        pairs.extend(assigned.iter().filter(|&&(row, column)| overlaps[row * columns + column] >= iou_min));
    }

    /// Whether some boxes overlap, and none overlaps two; they are the pairs then.
    fn pair_plainly(&mut self, columns: usize, iou_min: f64) -> bool {
        self.above.clear();
        self.above.resize(columns, false);
        for (row, overlaps) in self.overlaps.chunks_exact(columns.max(1)).enumerate() {
            let mut above = overlaps.iter().enumerate().filter(|(_, overlap)| **overlap > iou_min);
            let Some((column, _)) = above.next() else { continue };
            if above.next().is_some() || std::mem::replace(&mut self.above[column], true) {
                return false;
            }
            self.pairs.push((row, column));
        }
        !self.pairs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boxes of 10×10 at these x.
    fn boxes<const N: usize>(left: [f64; N]) -> [Bounds; N] {
        left.map(|left| Bounds { left, top: 0.0, right: left + 10.0, bottom: 10.0 })
    }

    #[test]
    fn without_a_conflict_what_is_below_the_threshold_has_no_say() {
        let (rows, columns) = (boxes([0.0, 17.0]), boxes([5.0, -8.5]));
        let none = |_: usize, _: &mut [f64]| ();
        // 5/15 between the first two; the sum of the other way round would be larger: 1.5/18.5 and … nothing.
        assert_eq!(Overlaps::default().pairs(&rows, &columns, 0.3, none), [(0, 0)]);
    }

    #[test]
    fn the_largest_sum_wins_and_what_overlaps_too_little_is_no_pair() {
        // The first row overlaps both columns; the second overlaps only the first column.
        let (rows, columns) = (boxes([0.0, -3.0]), boxes([-1.0, 4.0]));
        let none = |_: usize, _: &mut [f64]| ();
        assert_eq!(Overlaps::default().pairs(&rows, &columns, 0.3, none), [(0, 1), (1, 0)]);
        // 6/14 and 8/12 together are more than 9/11 and 3/17, but 6/14 is below this threshold.
        assert_eq!(Overlaps::default().pairs(&rows, &columns, 0.5, none), [(1, 0)]);
    }

    #[test]
    fn a_bonus_decides_between_equal_overlaps() {
        let (rows, columns) = (boxes([0.0, 0.0]), boxes([1.0, -1.0]));
        let mut overlaps = Overlaps::default();
        let crossed = |row: usize, gains: &mut [f64]| gains[1 - row] += 0.1;
        let straight = |row: usize, gains: &mut [f64]| gains[row] += 0.1;
        assert_eq!(overlaps.pairs(&rows, &columns, 0.3, crossed), [(0, 1), (1, 0)]);
        assert_eq!(overlaps.pairs(&rows, &columns, 0.3, straight), [(0, 0), (1, 1)]);
    }
}
