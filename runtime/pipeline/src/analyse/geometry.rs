//! Segments and polygons. `y` grows downwards, so that right and left are those of somebody who walks over the picture.

use revoada_core::Point;

/// A place or a displacement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Vector {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

impl Vector {
    pub(crate) const fn new(x: f64, y: f64) -> Self {
        Self { x, y }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self::new(self.x - other.x, self.y - other.y)
    }

    pub(crate) fn times(self, scale: Self) -> Self {
        Self::new(self.x * scale.x, self.y * scale.y)
    }

    pub(crate) fn dot(self, other: Self) -> f64 {
        self.x * other.x + self.y * other.y
    }

    /// Positive where `other` points to the right of `self`.
    pub(crate) fn cross(self, other: Self) -> f64 {
        self.x * other.y - self.y * other.x
    }

    pub(crate) fn length(self) -> f64 {
        self.x.hypot(self.y)
    }

    /// To the right of it, equally long.
    pub(crate) fn right(self) -> Self {
        Self::new(-self.y, self.x)
    }

    /// In 0..=π; π where either has no length, so that what does not move goes nowhere.
    pub(crate) fn angle_to(self, other: Self) -> f64 {
        if self.length() == 0.0 || other.length() == 0.0 {
            return std::f64::consts::PI;
        }
        self.cross(other).abs().atan2(self.dot(other))
    }
}

impl From<Point> for Vector {
    fn from(point: Point) -> Self {
        Self::new(point.x.into(), point.y.into())
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Segment {
    pub(crate) from: Vector,
    pub(crate) to: Vector,
}

impl Segment {
    pub(crate) fn new(from: impl Into<Vector>, to: impl Into<Vector>) -> Self {
        Self { from: from.into(), to: to.into() }
    }

    pub(crate) fn along(&self) -> Vector {
        self.to.minus(self.from)
    }

    /// How far right of the endless line through both ends a point lies; negative on its left.
    pub(crate) fn right_by(&self, point: Vector) -> f64 {
        self.along().cross(point.minus(self.from)) / self.along().length()
    }

    /// Where between its ends (0 to 1) a step crosses the endless line, and whether to its right; `None` where both
    /// ends of the step lie on one side. A point on the line counts as right of it, so that of two steps that meet
    /// there, one crosses.
    pub(crate) fn crossed_by(&self, step: Segment) -> Option<(f64, bool)> {
        let (before, after) = (self.right_by(step.from), self.right_by(step.to));
        if (before >= 0.0) == (after >= 0.0) {
            return None;
        }
        let part = before / (before - after);
        let along = step.along();
        let place = Vector::new(step.from.x + along.x * part, step.from.y + along.y * part);
        let length = self.along().length();
        Some((self.along().dot(place.minus(self.from)) / (length * length), after >= 0.0))
    }

    /// Whether both have a point in common, ends included.
    fn touches(&self, other: &Self) -> bool {
        let sides = |line: &Self, segment: &Self| {
            [segment.from, segment.to].map(|point| line.along().cross(point.minus(line.from)))
        };
        let (ours, theirs) = (sides(other, self), sides(self, other));
        let apart = |[a, b]: [f64; 2]| a * b > 0.0;
        if apart(ours) || apart(theirs) {
            return false;
        }
        // On one line, they touch where their extents do.
        let overlap = |a: (f64, f64), b: (f64, f64)| a.0.max(a.1) >= b.0.min(b.1) && b.0.max(b.1) >= a.0.min(a.1);
        overlap((self.from.x, self.to.x), (other.from.x, other.to.x))
            && overlap((self.from.y, self.to.y), (other.from.y, other.to.y))
    }

    fn distance_to(&self, point: Vector) -> f64 {
        let (along, offset) = (self.along(), point.minus(self.from));
        let square = along.dot(along);
        let part = if square > 0.0 { (along.dot(offset) / square).clamp(0.0, 1.0) } else { 0.0 };
        offset.minus(Vector::new(along.x * part, along.y * part)).length()
    }
}

/// What is wrong with the corners of a polygon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The corner stands where the one before it does.
    Repeated(usize),
    /// The edges that begin at these corners touch.
    Crossing(usize, usize),
}

/// A closed outline without crossings, concave or not, in either order of its corners.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Polygon {
    corners: Vec<Vector>,
}

impl Polygon {
    /// Of at least three corners; the last is joined to the first.
    pub(crate) fn new(corners: &[Point]) -> Self {
        Self { corners: corners.iter().map(|corner| Vector::from(*corner)).collect() }
    }

    fn edges(&self) -> impl Iterator<Item = Segment> + '_ {
        let ends = self.corners.iter().cycle().skip(1);
        self.corners.iter().zip(ends).map(|(from, to)| Segment { from: *from, to: *to })
    }

    /// Whether the outline is one that has an inside.
    pub(crate) fn check(&self) -> Result<(), Malformed> {
        let edges: Vec<Segment> = self.edges().collect();
        if let Some(index) = edges.iter().position(|edge| edge.along().length() == 0.0) {
            return Err(Malformed::Repeated((index + 1) % edges.len()));
        }
        for (index, edge) in edges.iter().enumerate() {
            for (other_index, other) in edges.iter().enumerate().skip(index + 1) {
                let crossing = if other_index == index + 1 {
                    folds_back(edge, other)
                } else if index == 0 && other_index == edges.len() - 1 {
                    folds_back(other, edge)
                } else {
                    edge.touches(other)
                };
                if crossing {
                    return Err(Malformed::Crossing(index, other_index));
                }
            }
        }
        Ok(())
    }

    /// By the even-odd rule: a ray to the right meets the outline an odd number of times.
    pub(crate) fn contains(&self, point: Vector) -> bool {
        let met = |edge: &Segment| {
            let Segment { from, to } = *edge;
            // An edge has its upper end and not its lower one, so that a corner is met once.
            (from.y > point.y) != (to.y > point.y)
                && point.x < from.x + (to.x - from.x) * (point.y - from.y) / (to.y - from.y)
        };
        self.edges().filter(met).count() % 2 == 1
    }

    /// From the point to the nearest of the outline.
    pub(crate) fn distance_to_outline(&self, point: Vector) -> f64 {
        self.edges().map(|edge| edge.distance_to(point)).fold(f64::INFINITY, f64::min)
    }
}

/// Whether the second of two edges that meet runs back over the first.
fn folds_back(first: &Segment, second: &Segment) -> bool {
    first.along().cross(second.along()) == 0.0 && first.along().dot(second.along()) < 0.0
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    use super::*;

    fn polygon(corners: &[(f32, f32)]) -> Polygon {
        Polygon::new(&corners.iter().map(|(x, y)| Point::new(*x, *y)).collect::<Vec<_>>())
    }

    /// Corners around the origin, one in each sector, so that the outline is concave as often as not and the inside
    /// is the union of the triangles between the origin and each edge.
    fn star() -> impl Strategy<Value = Vec<Vector>> {
        prop::collection::vec((0.05..0.95f64, 1.0..100.0f64), 3..12).prop_map(|sectors| {
            let count = sectors.len() as f64;
            let corner = |(index, (place, radius)): (usize, &(f64, f64))| {
                let angle = (index as f64 + place) / count * TAU;
                Vector::new(radius * angle.cos(), radius * angle.sin())
            };
            sectors.iter().enumerate().map(corner).collect()
        })
    }

    fn in_triangle(corners: [Vector; 3], point: Vector) -> bool {
        let [a, b, c] = corners;
        let turns = [(a, b), (b, c), (c, a)].map(|(from, to)| to.minus(from).cross(point.minus(from)));
        turns.iter().all(|turn| *turn > 0.0) || turns.iter().all(|turn| *turn < 0.0)
    }

    proptest! {
        #[test]
        fn a_point_is_inside_where_one_of_the_triangles_holds_it(
            corners in star(),
            point in (-110.0..110.0f64, -110.0..110.0f64),
            reversed: bool,
        ) {
            let point = Vector::new(point.0, point.1);
            let edges = corners.iter().zip(corners.iter().cycle().skip(1));
            // A sector of more than half a turn has the origin outside of its triangle.
            prop_assume!(edges.clone().all(|(a, b)| a.cross(*b) > 0.0));
            // On the seam between two triangles both deny it; on the outline either answer is right.
            prop_assume!(corners.iter().all(|corner| corner.cross(point).abs() > 1e-6));
            let expected = edges.into_iter().any(|(a, b)| in_triangle([Vector::default(), *a, *b], point));
            let mut polygon = Polygon { corners: corners.clone() };
            prop_assume!(polygon.distance_to_outline(point) > 1e-6);
            prop_assert_eq!(polygon.check(), Ok(()));
            if reversed {
                polygon.corners.reverse();
            }
            prop_assert_eq!(polygon.contains(point), expected);
        }

        #[test]
        fn the_distance_to_the_outline_is_that_of_the_nearest_of_its_points(corners in star(), x in -110.0..110.0f64) {
            let (polygon, point) = (Polygon { corners }, Vector::new(x, 7.0));
            let places = polygon.edges().flat_map(|edge| (0..=1000).map(move |part| {
                let (along, part) = (edge.along(), f64::from(part) / 1000.0);
                Vector::new(edge.from.x + along.x * part, edge.from.y + along.y * part)
            }));
            let nearest = places.map(|place| place.minus(point).length()).fold(f64::INFINITY, f64::min);
            prop_assert!((polygon.distance_to_outline(point) - nearest).abs() < 0.2);
        }
    }

    #[test]
    fn outlines_without_an_inside_are_told() {
        let square = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)];
        let concave = [(0.0, 0.0), (10.0, 0.0), (5.0, 5.0), (10.0, 10.0), (0.0, 10.0)];
        let bow_tie = [(0.0, 0.0), (10.0, 10.0), (10.0, 0.0), (0.0, 10.0)];
        let spike = [(0.0, 0.0), (10.0, 0.0), (5.0, 0.0), (5.0, 5.0)];
        let touching = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (5.0, 0.0), (0.0, 10.0)];
        let repeated = [(0.0, 0.0), (10.0, 0.0), (10.0, 0.0), (0.0, 10.0)];
        let closed = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 0.0)];
        let flat = [(0.0, 0.0), (5.0, 5.0), (10.0, 10.0)];
        for (corners, expected) in [
            (&square[..], Ok(())),
            (&concave, Ok(())),
            (&bow_tie, Err(Malformed::Crossing(0, 2))),
            (&spike, Err(Malformed::Crossing(0, 1))),
            (&touching, Err(Malformed::Crossing(0, 2))),
            (&repeated, Err(Malformed::Repeated(2))),
            (&closed, Err(Malformed::Repeated(0))),
            (&flat, Err(Malformed::Crossing(0, 2))),
        ] {
            assert_eq!(polygon(corners).check(), expected, "{corners:?}");
        }
    }

    #[test]
    fn right_is_right_of_whoever_walks_along() {
        // To the right of the picture: its lower half lies on the right hand.
        let line = Segment::new(Point::new(0.0, 5.0), Point::new(10.0, 5.0));
        assert_eq!(line.right_by(Vector::new(3.0, 7.0)), 2.0);
        assert_eq!(line.right_by(Vector::new(30.0, 1.0)), -4.0);
        assert_eq!(line.along().right(), Vector::new(0.0, 10.0));
        let step = |from: (f64, f64), to: (f64, f64)| Segment {
            from: Vector::new(from.0, from.1),
            to: Vector::new(to.0, to.1),
        };
        assert_eq!(line.crossed_by(step((5.0, 0.0), (5.0, 10.0))), Some((0.5, true)));
        assert_eq!(line.crossed_by(step((20.0, 10.0), (20.0, 0.0))), Some((2.0, false)));
        assert_eq!(line.crossed_by(step((5.0, 0.0), (5.0, 4.0))), None);
        // Onto the line and on: once.
        assert_eq!(line.crossed_by(step((5.0, 0.0), (5.0, 5.0))), Some((0.5, true)));
        assert_eq!(line.crossed_by(step((5.0, 5.0), (5.0, 9.0))), None);
    }
}
