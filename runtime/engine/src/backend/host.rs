//! Sessions of backends that read host memory: what is filled, run and read back is the same for all
//! of them; how a network runs is the backend's own.

use std::time::Duration;

use revoada_core::{ImageTransform, Placement, Rect, TensorRef};

use super::inputs::Inputs;
use crate::{EngineError, Outputs, Session, Surface, Timings};

/// What runs a network over filled inputs.
pub(super) trait Inference: Send {
    /// What the outputs are read from, until the next inference.
    type Answer: Send;

    /// Also how long the inference itself took. The answer before is given back by then, so that its
    /// memory can be used again.
    fn infer(&mut self, inputs: &Inputs) -> Result<(Self::Answer, Duration), EngineError>;

    /// The outputs, in the model's order.
    fn tensors<'a>(&'a self, answer: &'a Self::Answer) -> Result<Vec<TensorRef<'a>>, EngineError>;
}

pub(super) struct HostSession<I: Inference> {
    inputs: Inputs,
    inference: I,
    answer: Option<(I::Answer, Timings)>,
}

impl<I: Inference> HostSession<I> {
    pub(super) fn new(inputs: Inputs, inference: I) -> Self {
        Self { inputs, inference, answer: None }
    }
}

impl<I: Inference> Session for HostSession<I> {
    fn stage(
        &mut self,
        input: usize,
        row: usize,
        surface: &Surface,
        region: Rect,
        transform: &ImageTransform,
    ) -> Result<Placement, EngineError> {
        self.inputs.stage(input, row, surface, region, transform)
    }

    fn set_input(&mut self, input: usize, tensor: TensorRef<'_>) -> Result<(), EngineError> {
        self.inputs.set(input, tensor)
    }

    fn submit(&mut self, rows: usize) -> Result<(), EngineError> {
        self.answer = None;
        let staging = self.inputs.prepare(rows)?;
        let (answer, inference) = self.inference.infer(&self.inputs)?;
        self.answer = Some((answer, Timings { staging, inference }));
        Ok(())
    }

    fn wait(&mut self) -> Result<Outputs<'_>, EngineError> {
        let (answer, timings) = self.answer.as_ref().ok_or(EngineError::NothingSubmitted)?;
        Ok(Outputs { tensors: self.inference.tensors(answer)?, timings: *timings })
    }
}
