//! The session of every backend: inputs are filled in the same way everywhere; how a network runs over them is
//! the backend's own ([`Inference`]).

use revoada_core::{ImageTransform, Placement, Rect, TensorRef};

use super::inputs::{Inputs, Store};
use crate::{EngineError, LayerTime, Outputs, Readback, Session, Surface};

/// What runs a network over inputs.
pub(super) trait Inference: Send {
    /// Where inputs lie.
    type Memory: Store;

    /// See [`Session::read_back`].
    fn read_back(&mut self, wanted: &[Readback]) -> Result<(), EngineError> {
        let _ = wanted;
        Ok(())
    }

    /// Prepares the inputs and runs `rows` rows; the answer before is not asked for any more.
    fn submit(&mut self, inputs: &mut Inputs<Self::Memory>, rows: usize) -> Result<(), EngineError>;

    /// The answers to the latest `submit`, which did not fail.
    fn wait(&mut self) -> Result<Outputs<'_>, EngineError>;

    /// See [`Session::time_layers`].
    fn time_layers(
        &mut self,
        inputs: &mut Inputs<Self::Memory>,
        rows: usize,
    ) -> Result<Option<Vec<LayerTime>>, EngineError> {
        let _ = (inputs, rows);
        Ok(None)
    }
}

/// Fields are dropped in this order: an inference may still read its inputs.
pub(super) struct InferenceSession<I: Inference> {
    inference: I,
    inputs: Inputs<I::Memory>,
    submitted: bool,
}

impl<I: Inference> InferenceSession<I> {
    pub(super) fn new(inputs: Inputs<I::Memory>, inference: I) -> Self {
        Self { inference, inputs, submitted: false }
    }
}

impl<I: Inference> Session for InferenceSession<I> {
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

    fn read_back(&mut self, wanted: &[Readback]) -> Result<(), EngineError> {
        self.submitted = false;
        self.inference.read_back(wanted)
    }

    fn submit(&mut self, rows: usize) -> Result<(), EngineError> {
        self.submitted = false;
        self.inference.submit(&mut self.inputs, rows)?;
        self.submitted = true;
        Ok(())
    }

    fn wait(&mut self) -> Result<Outputs<'_>, EngineError> {
        if !self.submitted {
            return Err(EngineError::NothingSubmitted);
        }
        self.inference.wait()
    }

    fn time_layers(&mut self, rows: usize) -> Result<Option<Vec<LayerTime>>, EngineError> {
        let submitted = std::mem::take(&mut self.submitted);
        let layers = self.inference.time_layers(&mut self.inputs, rows)?;
        self.submitted = submitted && layers.is_none();
        Ok(layers)
    }
}
