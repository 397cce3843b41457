//! What a loaded model answers to golden inputs.

use revoada_bundle::golden::GoldenInputs;
use revoada_bundle::manifest::InputManifest;
use revoada_core::{Rect, Tensor};

use crate::{Backend, Engine, EngineError, Shapes, picture_input};

/// Runs every case, its pictures staged as at run time, each input repeated until it is the batch of that many rows that
/// the engine runs: for each case all outputs.
pub fn golden_answers(
    backend: &dyn Backend,
    engine: &dyn Engine,
    manifest: &InputManifest,
    inputs: &GoldenInputs,
    rows: &[usize],
) -> Result<Vec<Vec<Tensor>>, EngineError> {
    let rows_of = |input: usize| rows.get(input).copied().unwrap_or(1).max(1);
    match inputs {
        GoldenInputs::Pictures(frames) => {
            let picture = picture_input(engine.inputs(), manifest)?;
            let rows = rows_of(picture.index);
            let mut session = engine.session(&picture.shapes(rows))?;
            let answer = |frame| {
                let surface = backend.import(frame)?;
                for row in 0..rows {
                    let region = Rect::of(surface.size());
                    session.stage(picture.index, row, &surface, region, &picture.transform)?;
                }
                session.submit(rows)?;
                Ok(session.wait()?.to_owned())
            };
            frames.iter().map(answer).collect()
        }
        GoldenInputs::Tensors(cases) => {
            let answer = |tensors: &Vec<Tensor>| {
                let repeated: Vec<Tensor> =
                    tensors.iter().enumerate().map(|(index, tensor)| tensor.repeated_to(rows_of(index))).collect();
                let shapes = Shapes::of(engine.inputs(), &repeated);
                let mut session = engine.session(&shapes)?;
                for (index, tensor) in repeated.iter().enumerate() {
                    session.set_input(index, tensor.as_ref())?;
                }
                session.submit(shapes.rows_max)?;
                Ok(session.wait()?.to_owned())
            };
            cases.iter().map(answer).collect()
        }
    }
}
