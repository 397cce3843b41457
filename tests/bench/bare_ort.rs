//! Inference and nothing else: one staged tensor through ONNX Runtime again and again, as lean as Rust can
//! call it. `bench.py` compares the whole pipeline's processor time with this one's plus decoding's.
//!
//! ```text
//! bare_ort LIBRARY MODEL THREADS COUNT HEIGHT WIDTH
//! ```

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Instant;

use ort::session::Session;
use ort::value::Tensor;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, model, threads, count, height, width] = arguments.as_slice() else {
        return Err("usage: bare_ort LIBRARY MODEL THREADS COUNT HEIGHT WIDTH".into());
    };
    let (threads, count) = (threads.parse::<usize>()?, count.parse::<usize>()?);
    let (height, width) = (height.parse::<usize>()?, width.parse::<usize>()?);

    let environment = ort::init_from(library)?.build()?;
    let mut session = Session::builder(&environment)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        // As the pipeline asks: threads that spin while they wait would be charged for it.
        .with_intra_op_spinning(false)?
        .commit_from_file(model)?;
    let input = session.inputs()[0].name().to_owned();
    // Of a picture's range, and not all alike.
    let pixels: Vec<f32> = (0..3 * height * width).map(|index| (index * 7919 % 256) as f32).collect();
    let tensor = Tensor::from_array(([1, 3, height, width], pixels))?;
    let started = Instant::now();
    for _ in 0..count {
        session.run(ort::inputs![input.as_str() => &tensor])?;
    }
    println!("{{\"frames\": {count}, \"seconds\": {:.6}}}", started.elapsed().as_secs_f64());
    Ok(())
}
