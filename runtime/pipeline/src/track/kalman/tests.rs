use super::*;

/// The textbook's filter with whole matrices: what the papers write, and what the filters above are to equal.
struct Dense<const N: usize> {
    state: [f64; N],
    covariance: [[f64; N]; N],
}

fn product<const A: usize, const B: usize, const C: usize>(left: [[f64; B]; A], right: [[f64; C]; B]) -> [[f64; C]; A] {
    let mut out = [[0.0; C]; A];
    for (row, values) in out.iter_mut().enumerate() {
        for (column, value) in values.iter_mut().enumerate() {
            *value = (0..B).map(|inner| left[row][inner] * right[inner][column]).sum();
        }
    }
    out
}

fn turned<const A: usize, const B: usize>(matrix: [[f64; B]; A]) -> [[f64; A]; B] {
    std::array::from_fn(|row| std::array::from_fn(|column| matrix[column][row]))
}

fn sum<const A: usize, const B: usize>(left: [[f64; B]; A], right: [[f64; B]; A]) -> [[f64; B]; A] {
    std::array::from_fn(|row| std::array::from_fn(|column| left[row][column] + right[row][column]))
}

fn diagonal<const N: usize>(values: [f64; N]) -> [[f64; N]; N] {
    std::array::from_fn(|row| std::array::from_fn(|column| if row == column { values[row] } else { 0.0 }))
}

/// By Gauss and Jordan, with pivots.
fn inverse<const N: usize>(mut matrix: [[f64; N]; N]) -> [[f64; N]; N] {
    let mut out = diagonal([1.0; N]);
    for column in 0..N {
        let pivot = (column..N).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs())).unwrap();
        matrix.swap(column, pivot);
        out.swap(column, pivot);
        let factor = matrix[column][column];
        for inner in 0..N {
            matrix[column][inner] /= factor;
            out[column][inner] /= factor;
        }
        for row in (0..N).filter(|row| *row != column) {
            let factor = matrix[row][column];
            for inner in 0..N {
                matrix[row][inner] -= factor * matrix[column][inner];
                out[row][inner] -= factor * out[column][inner];
            }
        }
    }
    out
}

impl<const N: usize> Dense<N> {
    /// Coordinates come first, then the speeds of as many of them as there are.
    fn motion() -> [[f64; N]; N] {
        let mut motion = diagonal([1.0; N]);
        for speed in 4..N {
            motion[speed - 4][speed] = 1.0;
        }
        motion
    }

    fn predict(&mut self, noise: [f64; N]) {
        let motion = Self::motion();
        self.state = turned(product(motion, turned([self.state])))[0];
        self.covariance = sum(product(product(motion, self.covariance), turned(motion)), diagonal(noise));
    }

    fn update(&mut self, measured: [f64; 4], noise: [f64; 4]) {
        let observe: [[f64; N]; 4] =
            std::array::from_fn(|row| std::array::from_fn(|column| if row == column { 1.0 } else { 0.0 }));
        let crossed = product(self.covariance, turned(observe));
        let total = sum(product(observe, crossed), diagonal(noise));
        let gain = product(crossed, inverse(total));
        let innovation: [f64; 4] = std::array::from_fn(|row| measured[row] - self.state[row]);
        let correction = turned(product(gain, turned([innovation])))[0];
        self.state = std::array::from_fn(|row| self.state[row] + correction[row]);
        // Joseph's form.
        let minus = product(gain, observe).map(|row| row.map(|value| -value));
        let kept = sum(diagonal([1.0; N]), minus);
        let noise = product(product(gain, diagonal(noise)), turned(gain));
        self.covariance = sum(product(product(kept, self.covariance), turned(kept)), noise);
    }
}

/// Covariances that a coordinate's filter holds, at their place in the matrix.
fn assert_equal<const N: usize>(dense: &Dense<N>, coordinates: &[(usize, Moving)]) {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-9 * (1.0 + a.abs());
    for &(at, coordinate) in coordinates {
        let Moving { value, speed, variance, covariance, speed_variance } = coordinate;
        let ours = [value, speed, variance, covariance, speed_variance];
        let (dense_at, speed_at) = (&dense.covariance[at], &dense.covariance[at + 4]);
        let theirs = [dense.state[at], dense.state[at + 4], dense_at[at], dense_at[at + 4], speed_at[at + 4]];
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            assert!(near(theirs, ours), "coordinate {at}: {ours} for {theirs}");
        }
    }
}

/// A walk of a box, with every fourth frame missing.
fn walk() -> impl Iterator<Item = Option<Bounds>> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut place = [100.0, 200.0, 40.0, 90.0];
    (0..80).map(move |frame| {
        place.iter_mut().for_each(|value| *value += random.f64() * 6.0 - 2.5);
        (frame % 4 != 3).then(|| Bounds::around(place[0], place[1], place[2], place[3]))
    })
}

#[test]
fn the_filter_of_sort_is_the_dense_one() {
    let first = AreaBox { x: 90.0, y: 190.0, area: 3600.0, ratio: 0.4 };
    let mut ours = AreaMotion::new(first);
    let mut dense = Dense {
        state: [first.x, first.y, first.area, first.ratio, 0.0, 0.0, 0.0],
        covariance: diagonal([10.0, 10.0, 10.0, 10.0, 1e4, 1e4, 1e4]),
    };
    for seen in walk() {
        ours.predict();
        dense.predict([1.0, 1.0, 1.0, 1.0, 0.01, 0.01, 0.0001]);
        if let Some(measured) = seen.map(|seen| AreaBox::of(&seen)) {
            ours.update(measured);
            dense.update([measured.x, measured.y, measured.area, measured.ratio], [1.0, 1.0, 10.0, 10.0]);
        }
        assert_equal(&dense, &[(0, ours.x), (1, ours.y), (2, ours.area)]);
        assert!((dense.state[3] - ours.ratio).abs() < 1e-9);
        assert!((dense.covariance[3][3] - ours.ratio_variance).abs() < 1e-9);
    }
}

#[test]
fn the_filter_of_bytetrack_is_the_dense_one() {
    let first = Bounds::around(90.0, 190.0, 40.0, 90.0);
    let mut ours = HeightMotion::new(&first);
    let square = |value: f64| value * value;
    let (place, speed) = (square(2.0 / 20.0 * 90.0), square(10.0 / 160.0 * 90.0));
    let mut dense = Dense {
        state: [90.0, 190.0, 40.0 / 90.0, 90.0, 0.0, 0.0, 0.0, 0.0],
        covariance: diagonal([place, place, 1e-4, place, speed, speed, 1e-10, speed]),
    };
    for seen in walk() {
        let height = dense.state[3];
        let (place, speed) = (square(height / 20.0), square(height / 160.0));
        ours.predict();
        dense.predict([place, place, 1e-4, place, speed, speed, 1e-10, speed]);
        if let Some(seen) = seen {
            let (x, y) = seen.center();
            let noise = square(dense.state[3] / 20.0);
            ours.update(&seen);
            dense.update([x, y, seen.width() / seen.height(), seen.height()], [noise, noise, 1e-2, noise]);
        }
        assert_equal(&dense, &[(0, ours.x), (1, ours.y), (2, ours.ratio), (3, ours.height)]);
    }
}

#[test]
fn an_area_does_not_shrink_to_nothing() {
    let mut motion = AreaMotion::new(AreaBox { x: 0.0, y: 0.0, area: 1000.0, ratio: 1.0 });
    for area in [1000.0, 500.0, 100.0, 10.0] {
        motion.predict();
        motion.update(AreaBox { x: 0.0, y: 0.0, area, ratio: 1.0 });
    }
    assert!(motion.area.speed < -10.0);
    for _ in 0..100 {
        motion.predict();
        assert!(motion.bounds().is_finite());
    }
}

#[test]
fn a_warp_takes_a_filter_to_where_it_would_be_had_it_seen_everything_there() {
    // A turn, a zoom and a shift.
    let (sine, cosine) = (0.1f64.sin() * 1.2, 0.1f64.cos() * 1.2);
    let warp = Warp { matrix: [[cosine, -sine, 30.0], [sine, cosine, -20.0]] };
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for seen in walk().flatten() {
        here.push(seen);
        there.push(seen.warped(&warp));
    }
    let follow = |seen: &[Bounds]| {
        let mut motion = HeightMotion::new(&seen[0]);
        for seen in &seen[1..] {
            motion.predict();
            motion.update(seen);
        }
        motion
    };
    let mut warped = follow(&here);
    warped.warp(&warp);
    let expected = follow(&there);
    let near = |a: f64, b: f64| (a - b).abs() < 1e-6 * (1.0 + b.abs());
    for (ours, theirs) in [(warped.x, expected.x), (warped.y, expected.y), (warped.height, expected.height)] {
        assert!(near(ours.value, theirs.value) && near(ours.speed, theirs.speed), "{ours:?} for {theirs:?}");
        assert!(near(ours.variance, theirs.variance) && near(ours.covariance, theirs.covariance));
        assert!(near(ours.speed_variance, theirs.speed_variance));
    }
}
