//! How the camera moved from one picture to the next, as BoT-SORT finds it by sparse optical flow (N. Aharon et al.,
//! "BoT-SORT: Robust Associations Multi-Pedestrian Tracking", 2022).

use opencv::boxed_ref::BoxedRef;
use opencv::calib3d::{RANSAC, estimate_affine_partial_2d};
use opencv::core::{
    CV_8UC1, Mat, MatTraitConst, Point2f, Rect as CvRect, Scalar, Size as CvSize, ToInputArray, Vector, count_non_zero,
    no_array,
};
use opencv::imgproc::{self, COLOR_BGR2GRAY, COLOR_RGB2GRAY, FILLED, INTER_AREA, LINE_8};
use opencv::video::calc_optical_flow_pyr_lk_def;
use revoada_core::{ImageView, PixelFormat, Rect, Size};

use crate::{VisionError, While, plane, stay_on_the_calling_thread};

/// The longer side of the picture that is looked at, after so many halvings as that takes.
const SIDE_PIXELS_MAX: i32 = 640;
/// Corners that are followed from one picture to the next.
const CORNERS_MAX: i32 = 200;
/// Of a corner against the best one.
const QUALITY_MIN: f64 = 0.01;
/// Between corners, so that one object that is rich in them is not all there is to see.
const APART_PIXELS_MIN: f64 = 8.0;
const BLOCK_PIXELS: i32 = 3;
/// What a corner may lie beside its place for the motion to explain it: OpenCV's own.
const RESIDUAL_PIXELS_MAX: f64 = 3.0;
const DRAWS_MAX: usize = 2000;
const CONFIDENCE: f64 = 0.99;
const REFINEMENTS: usize = 10;
/// Fewer corners agree on a motion by chance.
const AGREEING_MIN: i32 = 10;

/// A map of places in one picture to places in the next, `[[a, b, x], [c, d, y]]`, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    pub matrix: [[f64; 3]; 2],
}

/// Follows one stream's camera from picture to picture.
#[derive(Debug, Default)]
pub struct CameraMotion {
    before: Option<Seen>,
}

/// What is remembered of a picture.
#[derive(Debug)]
struct Seen {
    /// Of the whole picture.
    size: Size,
    shrunk: Mat,
    corners: Vector<Point2f>,
}

impl CameraMotion {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next picture, and tells how the camera shifted, turned and zoomed since the last one. Corners are not
    /// looked for inside of `boxes`, where objects move by themselves. `None` where it is not known: at the first picture
    /// and after one of another size, and where fewer than ten corners, or fewer than half of those that were found
    /// again, agree on a motion.
    pub fn update(
        &mut self,
        picture: &ImageView<'_>,
        boxes: impl IntoIterator<Item = Rect>,
    ) -> Result<Option<Affine>, VisionError> {
        stay_on_the_calling_thread()?;
        let size = picture.size();
        let shrunk = shrunk(picture).to("shrink a picture")?;
        let before = self.before.take().filter(|before| before.size == size);
        let moved = match before {
            Some(before) => before.motion_to(&shrunk).to("follow the camera")?,
            None => None,
        };
        let corners = corners(&shrunk, size, boxes).to("find corners")?;
        self.before = Some(Seen { size, shrunk, corners });
        Ok(moved)
    }
}

/// The picture's brightness, at most so large as is looked at.
fn shrunk(picture: &ImageView<'_>) -> opencv::Result<Mat> {
    let (channels, gray) = match picture.format() {
        PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Gray => (1, None),
        PixelFormat::Rgb => (3, Some(COLOR_RGB2GRAY)),
        PixelFormat::Bgr => (3, Some(COLOR_BGR2GRAY)),
    };
    let looked_at = |plane: &BoxedRef<'_, Mat>| if is_large(plane) { halved(plane) } else { plane.try_clone() };
    let mut shrunk = plane::seen(picture, 0, channels, looked_at)?;
    while is_large(&shrunk) {
        shrunk = halved(&shrunk)?;
    }
    let Some(conversion) = gray else { return Ok(shrunk) };
    let mut brightness = Mat::default();
    imgproc::cvt_color_def(&shrunk, &mut brightness, conversion)?;
    Ok(brightness)
}

fn is_large(picture: &impl MatTraitConst) -> bool {
    picture.cols().max(picture.rows()) > SIDE_PIXELS_MAX
}

/// In halves OpenCV is quickest by far.
fn halved(picture: &(impl MatTraitConst + ToInputArray)) -> opencv::Result<Mat> {
    let half = CvSize::new((picture.cols() / 2).max(1), (picture.rows() / 2).max(1));
    let mut halved = Mat::default();
    imgproc::resize(picture, &mut halved, half, 0.0, 0.0, INTER_AREA)?;
    Ok(halved)
}

/// Places of `shrunk` that can be found again, outside of boxes of the whole picture.
fn corners(shrunk: &Mat, size: Size, boxes: impl IntoIterator<Item = Rect>) -> opencv::Result<Vector<Point2f>> {
    let mut mask = Mat::new_size_with_default(shrunk.size()?, CV_8UC1, Scalar::all(255.0))?;
    let [grow_x, grow_y] = growth(shrunk, size);
    for hidden in boxes {
        if ![hidden.x, hidden.y, hidden.width, hidden.height].iter().all(|side| side.is_finite()) {
            continue;
        }
        let hidden = hidden.clamped_to(size);
        let (left, top) = ((f64::from(hidden.x) / grow_x).floor(), (f64::from(hidden.y) / grow_y).floor());
        let (right, bottom) = (f64::from(hidden.right()) / grow_x, f64::from(hidden.bottom()) / grow_y);
        let hidden = CvRect::new(left as i32, top as i32, (right.ceil() - left) as i32, (bottom.ceil() - top) as i32);
        imgproc::rectangle(&mut mask, hidden, Scalar::all(0.0), FILLED, LINE_8, 0)?;
    }
    let mut corners = Vector::new();
    imgproc::good_features_to_track(
        shrunk,
        &mut corners,
        CORNERS_MAX,
        QUALITY_MIN,
        APART_PIXELS_MIN,
        &mask,
        BLOCK_PIXELS,
        false,
        0.0,
    )?;
    Ok(corners)
}

impl Seen {
    fn motion_to(&self, next: &Mat) -> opencv::Result<Option<Affine>> {
        if (self.corners.len() as i32) < AGREEING_MIN {
            return Ok(None);
        }
        let (mut found, mut status) = (Vector::<Point2f>::new(), Vector::<u8>::new());
        calc_optical_flow_pyr_lk_def(&self.shrunk, next, &self.corners, &mut found, &mut status, &mut no_array())?;
        let pairs = self.corners.iter().zip(&found).zip(&status).filter(|(_, status)| *status == 1);
        let (from, to): (Vector<Point2f>, Vector<Point2f>) = pairs.map(|(pair, _)| pair).unzip();
        if (from.len() as i32) < AGREEING_MIN {
            return Ok(None);
        }
        let mut agree = Mat::default();
        let map = estimate_affine_partial_2d(
            &from,
            &to,
            &mut agree,
            RANSAC,
            RESIDUAL_PIXELS_MAX,
            DRAWS_MAX,
            CONFIDENCE,
            REFINEMENTS,
        )?;
        if map.empty() {
            return Ok(None);
        }
        let agreeing = count_non_zero(&agree)?;
        if agreeing < AGREEING_MIN || 2 * agreeing < from.len() as i32 {
            return Ok(None);
        }
        let row = |index| -> opencv::Result<[f64; 3]> {
            Ok([*map.at_2d(index, 0)?, *map.at_2d(index, 1)?, *map.at_2d(index, 2)?])
        };
        let map = Affine { matrix: [row(0)?, row(1)?] };
        Ok(Some(map.grown(growth(&self.shrunk, self.size)))
            .filter(|map| map.matrix.iter().flatten().all(|x| x.is_finite())))
    }
}

/// How much wider and higher the whole picture is.
fn growth(shrunk: &Mat, size: Size) -> [f64; 2] {
    [size.width as f64 / f64::from(shrunk.cols()), size.height as f64 / f64::from(shrunk.rows())]
}

impl Affine {
    /// The same motion in a picture that is larger; from OpenCV's places, where a pixel's centre has whole numbers, to
    /// ours, where they end in a half.
    fn grown(self, [grow_x, grow_y]: [f64; 2]) -> Self {
        let [[a, b, x], [c, d, y]] = self.matrix;
        let x = x + 0.5 - 0.5 * (a + b);
        let y = y + 0.5 - 0.5 * (c + d);
        Self { matrix: [[a, b * grow_x / grow_y, x * grow_x], [c * grow_y / grow_x, d, y * grow_y]] }
    }
}
