//! Staging on the device: all rows of a batch in one launch.

use std::sync::Arc;

use revoada_core::{DType, Fit, ImageTransform, Layout, PixelFormat, Placement, Rect, Size};

use super::context::CudaContext;
use super::error::CudaError;
use super::memory::DeviceSlice;
use super::module::{Grid, Kernel};
use super::nvrtc::KernelSource;
use super::shared::SharedBuffer;
use super::stream::Stream;
use super::surface::CudaSurface;
use crate::stage::{Mix, Window};

pub const STAGE: KernelSource = KernelSource { name: "stage.cu", text: include_str!("stage.cu"), entry: "stage_rows" };

/// One picture on its way into one row of a network's input.
#[derive(Clone, Copy, Debug)]
pub struct StageRow<'a> {
    pub surface: &'a Arc<CudaSurface>,
    /// As [`Placement::new`] made it of the same transform.
    pub placement: Placement,
    pub transform: &'a ImageTransform,
    /// f32, f16 or u8.
    pub dtype: DType,
    /// Exactly `channels * height * width` elements, at a whole number of them from the buffer's start.
    pub target: DeviceSlice<'a>,
}

/// Stages batches; owns the parameters of the one that is under way and holds its surfaces.
#[derive(Debug)]
pub struct CudaStager {
    kernel: Kernel,
    parameters: SharedBuffer,
    rows_max: usize,
    surfaces: Vec<Arc<CudaSurface>>,
}

/// The fields of `StageRow` in `stage.cu`, in its order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct StageParameters {
    planes: [u64; 3],
    target: u64,
    start_x: i64,
    step_x: i64,
    start_y: i64,
    step_y: i64,
    strides: [u32; 3],
    format: u32,
    source_width: u32,
    source_height: u32,
    network_width: u32,
    network_height: u32,
    left: u32,
    top: u32,
    right: u32,
    bottom: u32,
    channels: u32,
    interleaved: u32,
    element: u32,
    matrix: [[f32; 3]; 3],
    offset: [f32; 3],
    lowest: [f32; 3],
    highest: [f32; 3],
    padding: [f32; 3],
}

const ROW_BYTES: usize = size_of::<StageParameters>();
const _: () = assert!(ROW_BYTES == 208, "the size that `stage.cu` asserts");

/// `FRACTION_BITS` of `stage.cu`.
const FRACTION_BITS: i32 = 40;

/// A block is a warp wide, so that its threads write side by side.
const THREADS: [u32; 3] = [32, 8, 1];

/// What the third dimension of a grid can be.
const ROWS_MAX: usize = 65_535;

impl CudaStager {
    /// For batches of up to `rows_max` rows; `kernel` is that of [`STAGE`].
    pub(super) fn new(context: &Arc<CudaContext>, kernel: Kernel, rows_max: usize) -> Result<Self, CudaError> {
        let rows_max = rows_max.min(ROWS_MAX);
        let parameters = SharedBuffer::new(context, rows_max * ROW_BYTES)?;
        Ok(Self { kernel, parameters, rows_max, surfaces: Vec::with_capacity(rows_max) })
    }

    /// Enqueues one launch that stages all rows, padding included, once their surfaces are there. Rows may differ
    /// in everything; what of a placement lies outside the network's input is cut off. Waits for the launch before
    /// it. A region further than 2²² pixels from the picture is taken as just that far.
    ///
    /// Targets are the device's until the stream has come this far.
    pub fn launch(&mut self, stream: &Stream, rows: &[StageRow<'_>]) -> Result<(), CudaError> {
        if rows.len() > self.rows_max {
            return Err(CudaError::Batch { rows: rows.len(), rows_max: self.rows_max });
        }
        self.settle()?;
        let Some(grid) = grid(rows) else { return Ok(()) };
        for ((index, row), bytes) in
            rows.iter().enumerate().zip(self.parameters.host_mut()?.chunks_exact_mut(ROW_BYTES))
        {
            let parameters = StageParameters::new(row).map_err(|reason| CudaError::Row { row: index, reason })?;
            bytes.copy_from_slice(parameters.bytes());
        }
        for row in rows {
            row.surface.await_on(stream)?;
            self.surfaces.push(Arc::clone(row.surface));
        }
        self.parameters.upload(stream, 0..rows.len() * ROW_BYTES)?;
        let pointer = self.parameters.device().pointer();
        // SAFETY: the kernel takes the address of as many `StageRow`s as the grid is deep, which the stream has
        // uploaded. Their surfaces are held until `settle` has waited, and their planes lie inside them (`Frame`
        // checked that); their targets are as long as the kernel writes (`StageParameters::new` checked that), and
        // freeing one waits for the device.
        let launched = unsafe { self.kernel.launch(stream, grid, &pointer) };
        launched.and(self.parameters.download(stream, 0..0))
    }

    /// Waits until the latest launch has run, and lets its surfaces go.
    pub fn settle(&mut self) -> Result<(), CudaError> {
        self.parameters.host()?;
        self.surfaces.clear();
        Ok(())
    }
}

impl Drop for CudaStager {
    fn drop(&mut self) {
        if let Err(error) = self.settle() {
            tracing::debug!(%error, "staging ends with a launch that failed");
        }
    }
}

/// Blocks for the largest of the networks, one layer for each row; `None` where there is nothing to stage.
fn grid(rows: &[StageRow<'_>]) -> Option<Grid> {
    let sides = |row: &StageRow<'_>| [row.transform.size.width, row.transform.size.height];
    let largest = rows.iter().map(sides).reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1])])?;
    if largest.contains(&0) {
        return None;
    }
    // `StageParameters::new` refuses sizes that these casts would cut.
    Some(Grid {
        blocks: [
            largest[0].div_ceil(THREADS[0] as usize) as u32,
            largest[1].div_ceil(THREADS[1] as usize) as u32,
            rows.len() as u32,
        ],
        threads: THREADS,
    })
}

impl StageParameters {
    fn new(row: &StageRow<'_>) -> Result<Self, String> {
        let StageRow { surface, placement, transform, dtype, target } = row;
        let element = match dtype {
            DType::F32 => 0,
            DType::F16 => 1,
            DType::U8 => 2,
            other => return Err(format!("{other} is no type for pictures")),
        };
        let Size { width, height } = transform.size;
        const SIDE_MAX: usize = 1 << 15;
        if width > SIDE_MAX || height > SIDE_MAX {
            return Err(format!("an input of {} is larger than {SIDE_MAX} pixels a side", transform.size));
        }
        let expected = transform.channels.channels() * width * height * dtype.size();
        if target.bytes() != expected || target.pointer() % dtype.size() as u64 != 0 {
            return Err(format!("the target is not {expected} bytes of {dtype}"));
        }

        let layout = surface.layout();
        let window = Window::new(placement, transform.size);
        let mix = Mix::new(layout.format, layout.color, transform);
        let fill = match transform.fit {
            Fit::Letterbox { fill, .. } => fill,
            Fit::Stretch | Fit::CenterCrop => 0.0,
        };
        let base = surface.device().pointer();
        let Rect { x, y, width: across, height: down } = placement.source;
        let (start_x, step_x) = positions((x, across), (placement.target.x, placement.target.width));
        let (start_y, step_y) = positions((y, down), (placement.target.y, placement.target.height));
        // A frame's sides and strides, and the sides of the network, are far smaller than `u32`.
        Ok(Self {
            planes: layout.planes.map(|plane| base + plane.offset as u64),
            target: target.pointer(),
            start_x,
            step_x,
            start_y,
            step_y,
            strides: stride_numbers(layout)?,
            format: match layout.format {
                PixelFormat::Nv12 => 0,
                PixelFormat::I420 => 1,
                PixelFormat::Rgb => 2,
                PixelFormat::Bgr => 3,
                PixelFormat::Gray => 4,
            },
            source_width: layout.size.width as u32,
            source_height: layout.size.height as u32,
            network_width: width as u32,
            network_height: height as u32,
            left: window.columns().start as u32,
            top: window.rows().start as u32,
            right: window.columns().end as u32,
            bottom: window.rows().end as u32,
            channels: transform.channels.channels() as u32,
            interleaved: u32::from(transform.layout == Layout::Nhwc),
            element,
            matrix: mix.matrix,
            offset: mix.offset,
            lowest: mix.lowest,
            highest: mix.highest,
            padding: std::array::from_fn(|channel| {
                let (mean, scale) = (f64::from(transform.mean[channel]), f64::from(transform.scale[channel]));
                ((f64::from(fill) - mean) * scale) as f32
            }),
        })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the struct has no padding: its fields are 208 bytes together, as is the whole.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), ROW_BYTES) }
    }
}

fn stride_numbers(layout: &revoada_core::ImageLayout) -> Result<[u32; 3], String> {
    let mut strides = [0; 3];
    for (stride, plane) in strides.iter_mut().zip(&layout.planes) {
        *stride = u32::try_from(plane.stride).map_err(|_| format!("rows {} bytes apart are too far", plane.stride))?;
    }
    Ok(strides)
}

/// Where the centre of network pixel 0 lies along one axis of the source, and the distance to the next; of
/// stretches given as start and length. Casts saturate, so that a region without a number in it has a place too.
fn positions(source: (f32, f32), target: (f32, f32)) -> (i64, i64) {
    let one = f64::from(FRACTION_BITS).exp2();
    let step = f64::from(source.1) / f64::from(target.1);
    let start = (0.5 - f64::from(target.0)) * step + f64::from(source.0) - 0.5;
    let limit = f64::from(1 << 22);
    let fixed = |pixels: f64| (pixels.clamp(-limit, limit) * one).round() as i64;
    (fixed(start), fixed(step))
}
