//! Measures staging on the GPU: batches of frames that are there already, one launch a batch.
//!
//! One JSON line per case on standard output: the device's time of each launch in milliseconds, and the bytes that it
//! moved, which are the pixels of the frames and the tensors that are written. `tests/bench/gpu.py` holds that against the
//! device's own copies. Without a GPU it says so.
//!
//! ```text
//! cargo run --release -p revoada-engine --example stage_cuda -- [repetitions]
//! ```

use std::error::Error;

use revoada_core::{ColorSpec, DType, Fit, Frame, ImageLayout, ImageTransform, PixelFormat, Placement, Rect, Size};
use revoada_engine::cuda::{
    Compiler, CudaContext, Device, Event, Kernels, SharedBuffer, StageRow, Stream, SurfacePool, compiler_candidates,
};

const FRAME: Size = Size::new(1920, 1080);
const SIDE: usize = 640;
const ROWS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    if let Err(error) = Device::all() {
        println!("skipped: staging on a GPU: {error}");
        return Ok(());
    }
    let repetitions: usize = std::env::args().nth(1).map_or(Ok(200), |number| number.parse())?;
    let context = CudaContext::open(0)?;
    let kernels = Kernels::compile(&context, &Compiler::open(&compiler_candidates())?)?;
    for format in [PixelFormat::Nv12, PixelFormat::Rgb] {
        for dtype in [DType::F32, DType::F16] {
            measure(&context, &kernels, format, dtype, repetitions)?;
        }
    }
    Ok(())
}

fn measure(
    context: &std::sync::Arc<CudaContext>,
    kernels: &Kernels,
    format: PixelFormat,
    dtype: DType,
    repetitions: usize,
) -> Result<(), Box<dyn Error>> {
    let (stream, pool, mut stager) = (Stream::new(context)?, SurfacePool::new(context, ROWS)?, kernels.stager(ROWS)?);
    let layout = ImageLayout::packed(format, ColorSpec::default(), FRAME);
    let bytes = layout.bytes().ok_or("a frame has too many bytes")?;
    let pixels: Vec<u8> = (0..bytes).map(|index| ((index * 31) >> 3) as u8).collect();
    let surfaces = (0..ROWS)
        .map(|_| Ok(pool.import(&Frame::still(layout, pixels.clone())?)?))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let transform = ImageTransform {
        fit: Fit::letterbox_centered(),
        scale: [1.0 / 255.0; 3],
        ..ImageTransform::stretch(Size::new(SIDE, SIDE))
    };
    let placement = Placement::new(Rect::of(FRAME), &transform);
    let row_bytes = 3 * SIDE * SIDE * dtype.size();
    let mut target = SharedBuffer::new(context, ROWS * row_bytes)?;
    target.upload(&stream, 0..0)?;

    let (started, ended) = (Event::timed(context)?, Event::timed(context)?);
    let mut times = Vec::with_capacity(repetitions);
    // The first few are not counted: the device has to wake up.
    for repetition in 0..repetitions + 10 {
        let memory = target.device();
        let mut rows = Vec::with_capacity(ROWS);
        for (index, surface) in surfaces.iter().enumerate() {
            let target = memory.slice(index * row_bytes..(index + 1) * row_bytes)?;
            rows.push(StageRow { surface, placement, transform: &transform, dtype, target });
        }
        started.record(&stream)?;
        stager.launch(&stream, &rows)?;
        ended.record(&stream)?;
        stream.synchronize()?;
        if repetition >= 10 {
            times.push(format!("{:.5}", ended.elapsed_since(&started)?.as_secs_f64() * 1e3));
        }
    }
    target.download(&stream, 0..0)?;
    let bytes = ROWS * (pixels.len() + row_bytes);
    println!(
        "{{\"case\": \"{ROWS} × {format:?} {FRAME} to {SIDE}×{SIDE} {dtype}\", \"bytes\": {bytes}, \"ms\": [{}]}}",
        times.join(", ")
    );
    Ok(())
}
