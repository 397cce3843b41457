//! Tensors in memory that the CPU and the GPU hand to each other.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use half::f16;
use revoada_core::{DType, TensorSlice};

use super::NAME;
use crate::backend::inputs::Store;
use crate::cuda::{CudaContext, CudaError, DeviceSlice, Event, SharedBuffer, Stream};
use crate::{EngineError, Surface};

/// The memory of one input or output. The device has it but while the CPU writes an input or reads an output.
pub(super) struct DeviceTensor {
    buffer: SharedBuffer,
    on_device: bool,
    dtype: DType,
    /// Of inputs.
    upload: Option<Arc<Upload>>,
    /// Whether there was one that nobody has asked for.
    uploaded: Cell<bool>,
    stream: Arc<Stream>,
}

/// When the latest tensor that was set began to move to the device, and was there.
pub(super) struct Upload {
    started: Event,
    ended: Event,
}

impl Upload {
    /// Once the stream has passed it.
    pub(super) fn time(&self) -> Result<Duration, CudaError> {
        self.ended.elapsed_since(&self.started)
    }
}

impl DeviceTensor {
    /// Of zeros, with the device.
    pub(super) fn new(
        context: &Arc<CudaContext>,
        stream: &Arc<Stream>,
        dtype: DType,
        elements: usize,
    ) -> Result<Self, CudaError> {
        let bytes = elements * dtype.size();
        let buffer = SharedBuffer::new(context, bytes)?;
        let (stream, uploaded) = (Arc::clone(stream), Cell::new(false));
        let mut tensor = Self { buffer, on_device: false, dtype, upload: None, uploaded, stream };
        tensor.upload(0..bytes)?;
        Ok(tensor)
    }

    /// Keeps the time of uploads from now on.
    pub(super) fn timed(self, context: &Arc<CudaContext>) -> Result<Self, CudaError> {
        let upload = Upload { started: Event::timed(context)?, ended: Event::timed(context)? };
        Ok(Self { upload: Some(Arc::new(upload)), ..self })
    }

    /// Of the tensor that was set since this was asked before.
    pub(super) fn new_upload(&self) -> Option<Arc<Upload>> {
        self.upload.clone().filter(|_| self.uploaded.take())
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Gives it to the device; the CPU wrote the bytes in `range`.
    pub(super) fn upload(&mut self, range: Range<usize>) -> Result<(), CudaError> {
        if !self.on_device {
            self.buffer.upload(&self.stream, range)?;
            self.on_device = true;
        }
        Ok(())
    }

    /// Gives it to the CPU; the device wrote the bytes in `range`.
    pub(super) fn download(&mut self, range: Range<usize>) -> Result<(), CudaError> {
        if std::mem::take(&mut self.on_device) {
            self.buffer.download(&self.stream, range)?;
        }
        Ok(())
    }

    pub(super) fn is_on_device(&self) -> bool {
        self.on_device
    }

    /// As the device sees it; refused where a failure has left it with the CPU.
    pub(super) fn device(&self) -> Result<DeviceSlice<'_>, EngineError> {
        if !self.on_device {
            let reason = "a tensor was lost by an earlier failure; open another session".to_owned();
            return Err(EngineError::Run { backend: NAME, reason });
        }
        Ok(self.buffer.device())
    }

    /// The first `elements`, once they are back with the CPU.
    pub(super) fn elements(&mut self, elements: usize) -> Result<TensorSlice<'_>, EngineError> {
        typed(self.dtype, &self.buffer.host().map_err(run_error)?[..elements * self.dtype.size()])
    }

    fn write_bytes(&mut self, range: Range<usize>, write: impl FnOnce(&mut [u8])) -> Result<(), CudaError> {
        self.download(0..0)?;
        write(&mut self.buffer.host_mut()?[range]);
        Ok(())
    }

    fn set(&mut self, bytes: &[u8]) -> Result<(), CudaError> {
        self.write_bytes(0..bytes.len(), |target| target.copy_from_slice(bytes))?;
        if let Some(upload) = &self.upload {
            upload.started.record(&self.stream)?;
        }
        self.upload(0..bytes.len())?;
        if let Some(upload) = &self.upload {
            upload.ended.record(&self.stream)?;
            self.uploaded.set(true);
        }
        Ok(())
    }
}

impl Store for DeviceTensor {
    fn reads(surface: &Surface) -> bool {
        matches!(surface, Surface::Cuda(_))
    }

    fn write(&mut self, data: TensorSlice<'_>) -> Result<(), EngineError> {
        let bytes: &[u8] = match data {
            TensorSlice::F32(data) => bytemuck::cast_slice(data),
            TensorSlice::F16(data) => bytemuck::cast_slice(data),
            TensorSlice::U8(data) => data,
            TensorSlice::I8(data) => bytemuck::cast_slice(data),
            TensorSlice::I32(data) => bytemuck::cast_slice(data),
            TensorSlice::I64(data) => bytemuck::cast_slice(data),
            TensorSlice::Bool(data) => bytemuck::cast_slice(data),
        };
        self.set(bytes).map_err(run_error)
    }

    fn zero(&mut self, elements: Range<usize>) -> Result<(), EngineError> {
        let size = self.dtype.size();
        let bytes = elements.start * size..elements.end * size;
        self.write_bytes(bytes.clone(), |target| target.fill(0)).and_then(|()| self.upload(bytes)).map_err(run_error)
    }
}

/// Bytes that are aligned as elements of this type must be.
pub(super) fn typed(dtype: DType, bytes: &[u8]) -> Result<TensorSlice<'_>, EngineError> {
    Ok(match dtype {
        DType::F32 => TensorSlice::F32(cast(bytes)),
        DType::F16 => TensorSlice::F16(cast::<f16>(bytes)),
        DType::U8 => TensorSlice::U8(bytes),
        DType::I8 => TensorSlice::I8(cast(bytes)),
        DType::I32 => TensorSlice::I32(cast(bytes)),
        DType::I64 => TensorSlice::I64(cast(bytes)),
        DType::Bool => TensorSlice::Bool(bytemuck::checked::try_cast_slice(bytes).map_err(|_| {
            let reason = "an output of truths holds something else than 0 and 1".to_owned();
            EngineError::Run { backend: NAME, reason }
        })?),
    })
}

/// CUDA aligns memory further than any element asks.
fn cast<T: bytemuck::AnyBitPattern>(bytes: &[u8]) -> &[T] {
    bytemuck::cast_slice(bytes)
}

fn run_error(error: CudaError) -> EngineError {
    EngineError::Run { backend: NAME, reason: error.to_string() }
}
