//! How long decoding takes, for YOLOv8 with 80 classes and 8,400 cells: a crowd of 300 objects, each
//! answered by several cells, as f32 and f16, on one thread.
//!
//!     cargo run --release --package revoada-pipeline --example decode_bench

use std::hint::black_box;
use std::time::{Duration, Instant};

use revoada_bundle::manifest::OutputManifest;
use revoada_core::{Dim, ImageTransform, Placement, Rect, Size, Tensor, TensorSpec, f16};
use revoada_pipeline::decode::{DecoderContext, Decoders};

const CLASSES: usize = 80;
const CELLS: usize = 8400;
const OBJECTS: usize = 300;
const CELLS_PER_OBJECT: usize = 8;
const REPEATS: usize = 400;

/// Small scores everywhere, and objects on a grid.
fn output() -> Vec<f32> {
    let mut values = vec![0f32; (4 + CLASSES) * CELLS];
    let mut state = 1u32;
    for value in &mut values[4 * CELLS..] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = (state >> 8) as f32 / (1 << 24) as f32 * 0.05;
    }
    for cell in 0..OBJECTS * CELLS_PER_OBJECT {
        let (object, shift) = (cell / CELLS_PER_OBJECT, cell % CELLS_PER_OBJECT);
        let at = |channel: usize| channel * CELLS + cell * 3;
        values[at(0)] = 16.0 + (object % 20) as f32 * 32.0 + shift as f32;
        values[at(1)] = 16.0 + (object / 20) as f32 * 40.0;
        (values[at(2)], values[at(3)]) = (28.0, 36.0);
        values[at(4 + object % CLASSES)] = 0.5 + 0.05 * shift as f32;
    }
    values
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let input = Size::new(640, 640);
    let placement = Placement::new(Rect::new(0.0, 0.0, 1920.0, 1080.0), &ImageTransform::stretch(input));
    let shape = vec![1, 4 + CLASSES, CELLS];
    let values = output();
    let halves: Vec<f16> = values.iter().map(|value| f16::from_f32(*value)).collect();
    for tensor in [Tensor::of(shape.clone(), values)?, Tensor::of(shape, halves)?] {
        let dims = tensor.shape().iter().map(|size| Dim::Fixed(*size)).collect();
        let spec = TensorSpec { name: "output0".into(), dtype: tensor.dtype(), dims };
        let manifest = OutputManifest { decoder: Some("yolo-v8".into()), ..OutputManifest::default() };
        let context = DecoderContext { outputs: &[spec], manifest: &manifest, labels: CLASSES, input };
        let decoder = Decoders::standard().build(&context)?.decoder;
        let mut found = 0;
        let mut times: Vec<Duration> = Vec::with_capacity(REPEATS);
        for _ in 0..REPEATS {
            let start = Instant::now();
            found = black_box(decoder.decode(black_box(&[tensor.as_ref()]), 0, &placement)?).detections.len();
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let (median, p99) = (times[REPEATS / 2], times[REPEATS * 99 / 100]);
        println!("{}: {found} objects, median {median:?}, p99 {p99:?}", tensor.dtype());
    }
    Ok(())
}
