//! Straight pictures from a lens that bends them.

use opencv::boxed_ref::BoxedRef;
use opencv::calib3d::{get_optimal_new_camera_matrix, init_undistort_rectify_map};
use opencv::core::{
    BORDER_CONSTANT, CV_16SC2, Mat, MatTrait, MatTraitConst, Scalar, Size as CvSize, ToInputArray, ToOutputArray,
    no_array,
};
use opencv::imgproc::{INTER_LINEAR, remap};
use revoada_core::{ColorRange, ImageLayout, ImageView, PixelFormat, Size};

use crate::{VisionError, While, plane, stay_on_the_calling_thread};

/// How far the ratio of a picture's sides may lie from that of the calibration: sides are rounded to whole blocks of
/// pixels, and a picture that was cut shows another part of the lens.
const SHAPE_DIFFERENCE_MAX: f64 = 0.01;

/// A lens as OpenCV's `calibrateCamera` describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Lens {
    /// `[fx, fy, cx, cy]`, in pixels of a picture of `size`.
    pub camera_matrix: [f64; 4],
    /// `k1, k2, p1, p2`, then nothing, `k3`, or `k3, k4, k5, k6`.
    pub distortion: Vec<f64>,
    pub size: Size,
    /// From 0, where all that is shown was seen, to 1, where all that was seen is shown; `None` leaves the middle of the
    /// picture at its size.
    pub alpha: Option<f64>,
}

/// Where each pixel of a straight picture is found in the bent one.
#[derive(Debug)]
pub struct Undistort {
    size: Size,
    pixels: Map,
    /// Of chroma at half the width and height.
    chroma: Map,
}

#[derive(Debug)]
struct Map {
    /// Whole places, and fractions of 1/32.
    places: Mat,
    fractions: Mat,
}

impl Undistort {
    /// For pictures of `size`, which must have the shape of those that the lens was calibrated with. Holds 7.5 bytes a
    /// pixel.
    pub fn new(lens: &Lens, size: Size) -> Result<Self, VisionError> {
        stay_on_the_calling_thread()?;
        let calibrated = lens.size;
        let ratio = |size: Size| size.width as f64 / size.height as f64;
        if (ratio(size) / ratio(calibrated) - 1.0).abs() > SHAPE_DIFFERENCE_MAX {
            return Err(VisionError::Shape { calibrated, size });
        }
        let grow = [size.width as f64 / calibrated.width as f64, size.height as f64 / calibrated.height as f64];
        Self::for_camera(lens, scaled(lens.camera_matrix, grow), size).to("map the pixels of a lens")
    }

    fn for_camera(lens: &Lens, camera: [f64; 4], size: Size) -> opencv::Result<Self> {
        let straight = match lens.alpha {
            None => camera,
            Some(alpha) => {
                let size = cv_size(size);
                let distortion = Mat::from_slice(&lens.distortion)?;
                let best =
                    get_optimal_new_camera_matrix(&matrix(camera)?, &distortion, size, alpha, size, None, false)?;
                [*best.at_2d(0, 0)?, *best.at_2d(1, 1)?, *best.at_2d(0, 2)?, *best.at_2d(1, 2)?]
            }
        };
        // A sample of chroma lies in the middle of its four pixels, as staging takes it.
        let half = |camera| scaled(camera, [0.5, 0.5]);
        let chroma = Size::new(size.width.div_ceil(2), size.height.div_ceil(2));
        Ok(Self {
            size,
            pixels: Map::new(&lens.distortion, camera, straight, size)?,
            chroma: Map::new(&lens.distortion, half(camera), half(straight), chroma)?,
        })
    }

    /// Of the pictures that are made straight.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The straight picture into `pixels`, packed. What the lens did not see is black. Panics at a picture of another size
    /// than this was made for.
    pub fn apply(&self, picture: &ImageView<'_>, pixels: &mut Vec<u8>) -> Result<ImageLayout, VisionError> {
        assert_eq!(picture.size(), self.size, "the map is of pictures of one size");
        let ImageLayout { format, color, size, .. } = *picture.layout();
        let layout = ImageLayout::packed(format, color, size);
        pixels.resize(layout.bytes().expect("a view of a picture of this size was made"), 0);
        let black = match (format.is_yuv(), color.range) {
            (true, ColorRange::Limited) => 16.0,
            _ => 0.0,
        };
        let mut left = pixels.as_mut_slice();
        for (index, &(row, rows)) in format.planes(size).as_slice().iter().enumerate() {
            let (channels, map, border) = match (format, index) {
                (PixelFormat::Rgb | PixelFormat::Bgr, _) => (3, &self.pixels, black),
                (_, 0) => (1, &self.pixels, black),
                (PixelFormat::Nv12, _) => (2, &self.chroma, 128.0),
                (..) => (1, &self.chroma, 128.0),
            };
            let (target, rest) = left.split_at_mut(row * rows);
            left = rest;
            let straighten = |plane: &BoxedRef<'_, Mat>| {
                let mut target = Mat::new_rows_cols_with_data_mut(rows as i32, row as i32, target)?;
                map.apply(plane, &mut target.reshape_mut(channels, 0)?, border)
            };
            plane::seen(picture, index, channels, straighten).to("make a picture straight")?;
        }
        Ok(layout)
    }
}

impl Map {
    fn new(distortion: &[f64], camera: [f64; 4], straight: [f64; 4], size: Size) -> opencv::Result<Self> {
        let (mut places, mut fractions) = (Mat::default(), Mat::default());
        let (camera, straight) = (matrix(camera)?, matrix(straight)?);
        let distortion = Mat::from_slice(distortion)?;
        let size = cv_size(size);
        init_undistort_rectify_map(
            &camera,
            &distortion,
            &no_array(),
            &straight,
            size,
            CV_16SC2,
            &mut places,
            &mut fractions,
        )?;
        Ok(Self { places, fractions })
    }

    fn apply(&self, bent: &impl ToInputArray, straight: &mut impl ToOutputArray, border: f64) -> opencv::Result<()> {
        let border = Scalar::all(border);
        remap(bent, straight, &self.places, &self.fractions, INTER_LINEAR, BORDER_CONSTANT, border)
    }
}

/// The camera of a picture that is so much wider and higher. OpenCV's pixels have their centres at whole numbers.
fn scaled([fx, fy, cx, cy]: [f64; 4], [grow_x, grow_y]: [f64; 2]) -> [f64; 4] {
    [fx * grow_x, fy * grow_y, (cx + 0.5) * grow_x - 0.5, (cy + 0.5) * grow_y - 0.5]
}

fn matrix([fx, fy, cx, cy]: [f64; 4]) -> opencv::Result<Mat> {
    Mat::from_slice_2d(&[[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
}

fn cv_size(size: Size) -> CvSize {
    CvSize::new(size.width as i32, size.height as i32)
}
