//! Sessions of backends that read host memory: what is filled, run and read back is the same for all
//! of them; how a network runs is the backend's own.

use std::ops::Range;
use std::time::Duration;

use revoada_core::{ImageTransform, Placement, Rect, TensorData, TensorError, TensorRef, TensorSlice, TensorSpec};

use super::inputs::{Inputs, Recorded, Store};
use crate::{EngineError, Outputs, Session, Shapes, StageTarget, Stager, Surface, Timings};

/// Inputs in host memory.
pub(super) type HostInputs = Inputs<TensorData>;

impl Store for TensorData {
    fn reads(surface: &Surface) -> bool {
        matches!(surface, Surface::Host(_))
    }

    fn write(&mut self, data: TensorSlice<'_>) -> Result<(), EngineError> {
        TensorData::write(self, 0, data);
        Ok(())
    }

    fn zero(&mut self, elements: Range<usize>) -> Result<(), EngineError> {
        TensorData::zero(self, elements);
        Ok(())
    }
}

impl HostInputs {
    /// The tensors of the latest `prepare`, in the model's order.
    pub(super) fn tensors(&self) -> impl Iterator<Item = Result<(&TensorSpec, TensorRef<'_>), TensorError>> {
        self.filled().map(|(spec, shape, data)| {
            let data = data.as_slice().range(0..shape.iter().product());
            Ok((spec, TensorRef::new(shape, data)?))
        })
    }
}

/// What runs a network over filled inputs.
pub(super) trait Inference: Send {
    /// What the outputs are read from, until the next inference.
    type Answer: Send;

    /// Also how long the inference itself took. The answer before is given back by then, so that its
    /// memory can be used again.
    fn infer(&mut self, inputs: &HostInputs) -> Result<(Self::Answer, Duration), EngineError>;

    /// The outputs, in the model's order.
    fn tensors<'a>(&'a self, answer: &'a Self::Answer) -> Result<Vec<TensorRef<'a>>, EngineError>;
}

pub(super) struct HostSession<I: Inference> {
    inputs: HostInputs,
    stager: Stager,
    inference: I,
    answer: Option<(I::Answer, Timings)>,
}

impl<I: Inference> HostSession<I> {
    pub(super) fn new(specs: &[TensorSpec], shapes: &Shapes, inference: I) -> Result<Self, EngineError> {
        let inputs = Inputs::new(specs, shapes, |dtype, elements| Ok(TensorData::zeros(dtype, elements)))?;
        Ok(Self { inputs, stager: Stager::new(), inference, answer: None })
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
        let staging = self.inputs.prepare(rows, |data, row_elements, recorded| {
            recorded.iter().for_each(|picture| stage(&mut self.stager, data, row_elements, picture));
            Ok(())
        })?;
        let (answer, inference) = self.inference.infer(&self.inputs)?;
        self.answer = Some((answer, Timings { staging, inference, device: None }));
        Ok(())
    }

    fn wait(&mut self) -> Result<Outputs<'_>, EngineError> {
        let (answer, timings) = self.answer.as_ref().ok_or(EngineError::NothingSubmitted)?;
        Ok(Outputs { tensors: self.inference.tensors(answer)?, timings: *timings })
    }
}

fn stage(stager: &mut Stager, data: &mut TensorData, row_elements: usize, picture: &Recorded) {
    let elements = picture.row * row_elements..(picture.row + 1) * row_elements;
    let target = match data {
        TensorData::F32(data) => StageTarget::F32(&mut data[elements]),
        TensorData::F16(data) => StageTarget::F16(&mut data[elements]),
        TensorData::U8(data) => StageTarget::U8(&mut data[elements]),
        other => unreachable!("pictures are refused by {} inputs", other.as_slice().dtype()),
    };
    let Surface::Host(frame) = &picture.surface else { unreachable!("foreign surfaces are refused") };
    stager.stage(&frame.view(), &picture.placement, &picture.transform, target);
}
