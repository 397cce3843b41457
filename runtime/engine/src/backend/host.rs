//! Inputs of backends that read host memory.

use std::ops::Range;
use std::time::Duration;

use revoada_core::{TensorData, TensorError, TensorRef, TensorSlice, TensorSpec};

use super::inputs::{Inputs, Recorded, Store};
use crate::{EngineError, Shapes, StageTarget, Stager, Surface};

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
    pub(super) fn on_host(specs: &[TensorSpec], shapes: &Shapes) -> Result<Self, EngineError> {
        Inputs::new(specs, shapes, |dtype, elements| Ok(TensorData::zeros(dtype, elements)))
    }

    /// `prepare`, with the pictures staged by `stager`.
    pub(super) fn prepare_with(&mut self, stager: &mut Stager, rows: usize) -> Result<Duration, EngineError> {
        self.prepare(rows, |data, row_elements, recorded| {
            recorded.iter().for_each(|picture| stage(stager, data, row_elements, picture));
            Ok(())
        })
    }

    /// The tensors of the latest `prepare`, in the model's order.
    pub(super) fn tensors(&self) -> impl Iterator<Item = Result<(&TensorSpec, TensorRef<'_>), TensorError>> {
        self.filled().map(|(spec, shape, data)| {
            let data = data.as_slice().range(0..shape.iter().product());
            Ok((spec, TensorRef::new(shape, data)?))
        })
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
