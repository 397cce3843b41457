//! Compiled kernels on the device.

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUfunction, CUmodule};

use super::context::CudaContext;
use super::error::CudaError;
use super::nvrtc::Image;
use super::stream::Stream;

/// A loaded image.
#[derive(Debug)]
pub(super) struct Module {
    context: Arc<CudaContext>,
    raw: CUmodule,
}

// SAFETY: the driver's functions may be called from any thread with any module.
unsafe impl Send for Module {}
// SAFETY: as above; a module has no state of ours.
unsafe impl Sync for Module {}

impl Module {
    pub(super) fn load(context: &Arc<CudaContext>, image: &Image) -> Result<Arc<Self>, CudaError> {
        let mut raw = std::ptr::null_mut();
        let bytes = image.terminated();
        // SAFETY: the image is whole, since NVRTC made it, and ends with a zero where it is text.
        context.call("cuModuleLoadData", || unsafe { sys::cuModuleLoadData(&mut raw, bytes.as_ptr().cast()) })?;
        Ok(Arc::new(Self { context: Arc::clone(context), raw }))
    }

    pub(super) fn kernel(self: &Arc<Self>, name: &str) -> Result<Kernel, CudaError> {
        let mut raw = std::ptr::null_mut();
        let name = CString::new(name).expect("kernels have C++ names");
        let function = &mut raw;
        // SAFETY: the module is alive, and so is the name during the call.
        let get = || unsafe { sys::cuModuleGetFunction(function, self.raw, name.as_ptr()) };
        self.context.call("cuModuleGetFunction", get)?;
        Ok(Kernel { module: Arc::clone(self), raw })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: made in `load`; kernels hold an `Arc` of the module. The driver finishes what still runs.
        self.context.release("cuModuleUnload", || unsafe { sys::cuModuleUnload(self.raw) });
    }
}

/// A function of a module.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    module: Arc<Module>,
    raw: CUfunction,
}

// SAFETY: the driver's functions may be called from any thread with any function.
unsafe impl Send for Kernel {}
// SAFETY: as above; a kernel has no state of ours.
unsafe impl Sync for Kernel {}

/// Blocks in each direction, and threads of a block in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) blocks: [u32; 3],
    pub(super) threads: [u32; 3],
}

impl Kernel {
    /// Enqueues one run with one parameter.
    ///
    /// # Safety
    /// `P` is the kernel's only parameter, and every address in it is good for what the kernel does until it has
    /// run.
    pub(super) unsafe fn launch<P>(&self, stream: &Stream, grid: Grid, parameter: &P) -> Result<(), CudaError> {
        let mut parameters = [std::ptr::from_ref(parameter).cast_mut().cast::<c_void>()];
        let ([blocks_x, blocks_y, blocks_z], [x, y, z]) = (grid.blocks, grid.threads);
        // SAFETY: the caller vouches for the parameter, which the driver copies during the call; function and
        // stream are alive.
        self.module.context.call("cuLaunchKernel", || unsafe {
            sys::cuLaunchKernel(
                self.raw,
                blocks_x,
                blocks_y,
                blocks_z,
                x,
                y,
                z,
                0,
                stream.raw(),
                parameters.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        })
    }
}
