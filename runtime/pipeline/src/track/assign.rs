//! Who belongs to whom: the assignment of least cost.

/// Solves linear assignments and keeps its buffers between them.
///
/// Shortest augmenting paths as in D. F. Crouse, "On implementing 2D rectangular assignment algorithms" (2016), which
/// goes back to Jonker and Volgenant (1987): exact, at most O(rows² · columns). Of several assignments of the same cost
/// it takes one that depends on the costs and their order alone.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    /// The shorter side's items are the rows.
    costs: Vec<f64>,
    row_potentials: Vec<f64>,
    column_potentials: Vec<f64>,
    /// Length of the shortest path to a column, and the row before it.
    distances: Vec<f64>,
    previous: Vec<usize>,
    column_of: Vec<Option<usize>>,
    row_of: Vec<Option<usize>>,
    reached_rows: Vec<bool>,
    reached_columns: Vec<bool>,
    open: Vec<usize>,
    pairs: Vec<(usize, usize)>,
}

impl Assignment {
    /// As many pairs of a row and a column as the shorter side has items, with the least sum of costs, by rising row.
    /// All costs are finite.
    pub(super) fn solve(
        &mut self,
        rows: usize,
        columns: usize,
        cost: impl Fn(usize, usize) -> f64,
    ) -> &[(usize, usize)] {
        let turned = rows > columns;
        let (short, long) = if turned { (columns, rows) } else { (rows, columns) };
        self.costs.clear();
        for row in 0..short {
            self.costs.extend((0..long).map(|column| if turned { cost(column, row) } else { cost(row, column) }));
        }
        self.prepare(short, long);
        for row in 0..short {
            let free = self.shortest_path(row, long);
            self.augment(row, free);
        }
        self.pairs.clear();
        let assigned = self.column_of.iter().enumerate().filter_map(|(row, column)| Some((row, (*column)?)));
        self.pairs.extend(assigned.map(|(row, column)| if turned { (column, row) } else { (row, column) }));
        self.pairs.sort_unstable();
        &self.pairs
    }

    /// Pairs that cost less than `limit`, so that the sum of what they cost and `limit` for whatever stays alone is the
    /// least.
    pub(super) fn solve_below(
        &mut self,
        limit: f64,
        rows: usize,
        columns: usize,
        cost: impl Fn(usize, usize) -> f64,
    ) -> &[(usize, usize)] {
        self.solve(rows, columns, |row, column| (cost(row, column) - limit).min(0.0));
        self.pairs.retain(|&(row, column)| cost(row, column) < limit);
        &self.pairs
    }

    fn prepare(&mut self, rows: usize, columns: usize) {
        fn fill<T: Copy>(buffer: &mut Vec<T>, length: usize, value: T) {
            buffer.clear();
            buffer.resize(length, value);
        }
        fill(&mut self.row_potentials, rows, 0.0);
        fill(&mut self.column_potentials, columns, 0.0);
        fill(&mut self.distances, columns, 0.0);
        fill(&mut self.previous, columns, 0);
        fill(&mut self.column_of, rows, None);
        fill(&mut self.row_of, columns, None);
        fill(&mut self.reached_rows, rows, false);
        fill(&mut self.reached_columns, columns, false);
    }

    /// From a row without a column to the nearest column without a row, along reduced costs; the potentials follow.
    fn shortest_path(&mut self, start: usize, columns: usize) -> usize {
        self.distances.fill(f64::INFINITY);
        self.reached_rows.fill(false);
        self.reached_columns.fill(false);
        self.open.clear();
        self.open.extend(0..columns);
        let (mut row, mut length) = (start, 0.0);
        let free = loop {
            self.reached_rows[row] = true;
            let costs = &self.costs[row * columns..][..columns];
            let base = length - self.row_potentials[row];
            let (mut nearest, mut least) = (0, f64::INFINITY);
            for (position, &column) in self.open.iter().enumerate() {
                let through = base + costs[column] - self.column_potentials[column];
                if through < self.distances[column] {
                    self.distances[column] = through;
                    self.previous[column] = row;
                }
                let distance = self.distances[column];
                if distance < least || (distance == least && self.row_of[column].is_none()) {
                    (nearest, least) = (position, distance);
                }
            }
            length = least;
            let column = self.open.swap_remove(nearest);
            self.reached_columns[column] = true;
            match self.row_of[column] {
                None => break column,
                Some(taken) => row = taken,
            }
        };
        for (row, _) in self.reached_rows.iter().enumerate().filter(|(_, reached)| **reached) {
            // Only the start has no column yet.
            self.row_potentials[row] += length - self.column_of[row].map_or(0.0, |column| self.distances[column]);
        }
        for (column, _) in self.reached_columns.iter().enumerate().filter(|(_, reached)| **reached) {
            self.column_potentials[column] -= length - self.distances[column];
        }
        free
    }

    /// Every row on the path takes the column behind it.
    fn augment(&mut self, start: usize, free: usize) {
        let mut column = free;
        loop {
            let row = self.previous[column];
            self.row_of[column] = Some(row);
            let before = self.column_of[row].replace(column);
            match before {
                Some(left) if row != start => column = left,
                _ => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tries every injection of the shorter side.
    fn least(rows: usize, columns: usize, cost: &dyn Fn(usize, usize) -> f64) -> f64 {
        fn search(row: usize, rows: usize, taken: &mut Vec<bool>, cost: &dyn Fn(usize, usize) -> f64) -> f64 {
            if row == rows {
                return 0.0;
            }
            let mut best = f64::INFINITY;
            for column in 0..taken.len() {
                if !std::mem::replace(&mut taken[column], true) {
                    best = best.min(cost(row, column) + search(row + 1, rows, taken, cost));
                    taken[column] = false;
                }
            }
            best
        }
        match rows <= columns {
            true => search(0, rows, &mut vec![false; columns], cost),
            false => search(0, columns, &mut vec![false; rows], &|row, column| cost(column, row)),
        }
    }

    fn matrices() -> impl Strategy<Value = (usize, usize, Vec<f64>)> {
        (0usize..7, 0usize..7).prop_flat_map(|(rows, columns)| {
            // Eighths have many ties and exact sums.
            let costs =
                proptest::collection::vec((-16i32..16).prop_map(|eighths| f64::from(eighths) / 8.0), rows * columns);
            (Just(rows), Just(columns), costs)
        })
    }

    proptest! {
        #[test]
        fn no_assignment_costs_less((rows, columns, costs) in matrices()) {
            let cost = |row: usize, column: usize| costs[row * columns + column];
            let mut assignment = Assignment::default();
            let pairs = assignment.solve(rows, columns, cost).to_vec();
            prop_assert_eq!(pairs.len(), rows.min(columns));
            let mut taken: Vec<_> = pairs.iter().map(|pair| pair.1).collect();
            taken.sort_unstable();
            taken.dedup();
            prop_assert_eq!(taken.len(), pairs.len());
            prop_assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0));
            let sum: f64 = pairs.iter().map(|&(row, column)| cost(row, column)).sum();
            prop_assert_eq!(sum, least(rows, columns, &cost));
        }

        #[test]
        fn a_limit_is_what_it_costs_to_stay_alone((rows, columns, costs) in matrices(), limit in -8i32..16) {
            let limit = f64::from(limit) / 8.0;
            let cost = |row: usize, column: usize| costs[row * columns + column];
            let mut assignment = Assignment::default();
            let pairs = assignment.solve_below(limit, rows, columns, cost).to_vec();
            prop_assert!(pairs.iter().all(|&(row, column)| cost(row, column) < limit));
            // The square matrix of all rows and columns, in which each may also go to a partner of its own.
            let side = rows + columns;
            let extended = |row: usize, column: usize| match (row < rows, column < columns) {
                (true, true) => cost(row, column),
                (false, false) => 0.0,
                _ => limit / 2.0,
            };
            let mut whole = Assignment::default();
            let expected: f64 = whole.solve(side, side, extended).iter().map(|&(row, column)| extended(row, column)).sum();
            let alone = (side - 2 * pairs.len()) as f64 * limit / 2.0;
            let sum: f64 = pairs.iter().map(|&(row, column)| cost(row, column)).sum::<f64>() + alone;
            prop_assert_eq!(sum, expected);
        }
    }

    #[test]
    fn two_hundred_of_each_are_assigned() {
        let base = |row: usize, column: usize| ((row * 31 + column * 17) % 97) as f64;
        let cost = |row: usize, column: usize| base(row, column) - if row == column { 200.0 } else { 0.0 };
        let mut assignment = Assignment::default();
        let pairs = assignment.solve(200, 200, cost);
        assert!(pairs.iter().all(|(row, column)| row == column));
    }
}
