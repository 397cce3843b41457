//! One device in use by this process.

use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUresult};

use super::device::{Device, MemoryPolicy};
use super::driver::{Driver, answer};
use super::error::{CudaError, Fault};

/// The device's primary context, which TensorRT and every other user of the CUDA runtime in this process share.
/// What is made in it keeps it alive.
#[derive(Debug)]
pub struct CudaContext {
    driver: &'static Driver,
    device: Device,
    raw_device: CUdevice,
    raw: CUcontext,
    /// The first answer after which nothing can succeed any more.
    lost: OnceLock<Fault>,
}

// SAFETY: the driver's functions may be called from any thread; the handles are only passed to it, and every call
// makes the context current on its own thread first.
unsafe impl Send for CudaContext {}
// SAFETY: as above; the only state of our own is a `OnceLock`.
unsafe impl Sync for CudaContext {}

/// Memory of a device, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    pub free: usize,
    pub total: usize,
}

impl CudaContext {
    /// Opens the device of this number, counted from 0.
    pub fn open(ordinal: usize) -> Result<Arc<Self>, CudaError> {
        let driver = Driver::get()?;
        let count = Device::all()?.len();
        if ordinal >= count {
            let reason = format!("there is no device {ordinal}, only {count} of them");
            return Err(CudaError::Unavailable { reason });
        }
        let (device, raw_device) = Device::query(driver, ordinal)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the driver wrote `raw_device`; the context is released once, in `Drop`.
        let result = unsafe { sys::cuDevicePrimaryCtxRetain(&mut raw, raw_device) };
        answer("cuDevicePrimaryCtxRetain", result)?;
        Ok(Arc::new(Self { driver, device, raw_device, raw, lost: OnceLock::new() }))
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn policy(&self) -> MemoryPolicy {
        self.device.policy()
    }

    pub fn memory(&self) -> Result<MemoryUse, CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes.
        self.call("cuMemGetInfo_v2", || unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) })?;
        Ok(MemoryUse { free, total })
    }

    /// Why nothing can succeed in this process any more; `None` while all is well.
    pub fn lost(&self) -> Option<&Fault> {
        self.lost.get()
    }

    /// Waits for everything that was enqueued on any stream.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: no arguments.
        self.call("cuCtxSynchronize", || unsafe { sys::cuCtxSynchronize() })
    }

    /// Makes the context current on this thread, for libraries that call CUDA by themselves.
    pub(crate) fn make_current(&self) -> Result<(), CudaError> {
        self.call("cuCtxSetCurrent", || CUresult::CUDA_SUCCESS)
    }

    pub(super) fn driver(&self) -> &'static Driver {
        self.driver
    }

    /// Makes the context current on this thread and calls the driver. After an answer that breaks the context no
    /// call reaches the driver any more.
    pub(super) fn call(&self, name: &'static str, function: impl FnOnce() -> CUresult) -> Result<(), CudaError> {
        if let Some(fault) = self.lost.get() {
            return Err(CudaError::ContextLost { fault: fault.clone() });
        }
        // SAFETY: the context is retained as long as `self` is.
        let result = unsafe { sys::cuCtxSetCurrent(self.raw) };
        answer("cuCtxSetCurrent", result).and_then(|()| answer(name, function())).map_err(|error| self.classify(error))
    }

    fn classify(&self, error: CudaError) -> CudaError {
        match error {
            CudaError::Driver { fault } if fault.is_sticky() => {
                CudaError::ContextLost { fault: self.lost.get_or_init(|| fault).clone() }
            }
            other => other,
        }
    }

    /// Calls the driver where nobody can be told of a failure. In a lost context the driver has freed everything
    /// already.
    pub(super) fn release(&self, name: &'static str, function: impl FnOnce() -> CUresult) {
        match self.call(name, function) {
            Ok(()) | Err(CudaError::ContextLost { .. }) => {}
            Err(error) => tracing::warn!(%error, "the GPU did not give something back"),
        }
    }
}

impl Drop for CudaContext {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`; whatever was made in the context holds an `Arc` of it and is gone.
        let result = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.raw_device) };
        if let Err(error) = answer("cuDevicePrimaryCtxRelease_v2", result) {
            tracing::warn!(%error, "the GPU did not give its context back");
        }
    }
}
