//! The driver's library: opened once, checked for what we call, its answers made into errors.
//!
//! cudarc looks symbols up when they are first called and panics where one is missing, so all of them are looked
//! for here. Its enum of answers is that of CUDA 13; those of newer drivers only come from functions that are newer
//! too. Two functions differ between CUDA 10 and 13 and are looked up by ourselves.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::ptr;
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUevent, CUgraph, CUgraphExec, CUgraphNode, CUresult};

use super::error::{CudaError, Fault, OUT_OF_MEMORY};

/// Every function that is called through cudarc, but for those in [`GRAPHS`].
const REQUIRED: &[&str] = &[
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAllocManaged",
    "cuMemAlloc_v2",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemHostGetDevicePointer_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamAttachMemAsync",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

/// CUDA graphs as they are since CUDA 10.1.
const GRAPHS: &[&str] =
    &["cuGraphDestroy", "cuGraphExecDestroy", "cuGraphLaunch", "cuStreamBeginCapture_v2", "cuStreamEndCapture"];

type ElapsedTime = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> CUresult;
type InstantiateWithFlags = unsafe extern "C" fn(*mut CUgraphExec, CUgraph, c_ulonglong) -> CUresult;
type InstantiateWithLog =
    unsafe extern "C" fn(*mut CUgraphExec, CUgraph, *mut CUgraphNode, *mut c_char, usize) -> CUresult;

/// The opened library.
#[derive(Debug)]
pub(super) struct Driver {
    /// Of CUDA, 12020 for 12.2.
    version: c_int,
    elapsed_time: ElapsedTime,
    /// `None` where the driver has no graphs.
    instantiate: Option<Instantiate>,
}

/// How a driver makes captured graphs ready to launch.
#[derive(Clone, Copy, Debug)]
pub(super) enum Instantiate {
    /// From CUDA 11.4.
    WithFlags(InstantiateWithFlags),
    /// Before.
    WithLog(InstantiateWithLog),
}

impl Driver {
    /// The process's driver, initialised; the first answer is kept, whichever it is.
    pub(super) fn get() -> Result<&'static Self, CudaError> {
        static DRIVER: OnceLock<Result<Driver, String>> = OnceLock::new();
        let unavailable = |reason: &String| CudaError::Unavailable { reason: reason.clone() };
        DRIVER.get_or_init(Self::open).as_ref().map_err(unavailable)
    }

    fn open() -> Result<Self, String> {
        // SAFETY: opening a library runs its initialisers; NVIDIA's driver and the emulator have none that ask for
        // anything of their caller.
        if !unsafe { sys::is_culib_present() } {
            return Err("there is no NVIDIA driver (`libcuda.so.1` cannot be opened)".to_owned());
        }
        if let Some(missing) = REQUIRED.iter().find(|name| symbol(name).is_none()) {
            return Err(format!("the NVIDIA driver lacks `{missing}`; it is older than CUDA 10.2"));
        }
        let elapsed_time = symbol("cuEventElapsedTime").ok_or("the NVIDIA driver lacks `cuEventElapsedTime`")?;
        // SAFETY: the symbol is NVIDIA's function of this name, whose signature has not changed since CUDA 2.
        let elapsed_time = unsafe { std::mem::transmute::<*mut c_void, ElapsedTime>(elapsed_time) };
        let instantiate = if GRAPHS.iter().all(|name| symbol(name).is_some()) { instantiate() } else { None };

        let said = |call, result| answer(call, result).map_err(|error| error.to_string());
        // SAFETY: no arguments but the flags, which must be 0.
        said("cuInit", unsafe { sys::cuInit(0) })?;
        let mut version = 0;
        // SAFETY: writes one integer.
        said("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) })?;
        Ok(Self { version, elapsed_time, instantiate })
    }

    /// Of CUDA, as major and minor.
    pub(super) fn version(&self) -> (u32, u32) {
        let version = self.version.unsigned_abs();
        (version / 1000, version % 1000 / 10)
    }

    /// `None` where the driver has no graphs.
    pub(super) fn instantiate(&self) -> Option<Instantiate> {
        self.instantiate
    }

    /// Milliseconds between two events.
    ///
    /// # Safety
    /// As `cuEventElapsedTime`: both events are alive and of the current context.
    pub(super) unsafe fn elapsed_time(&self, milliseconds: &mut f32, start: CUevent, end: CUevent) -> CUresult {
        // SAFETY: the caller keeps the contract; the result goes into a float of ours.
        unsafe { (self.elapsed_time)(milliseconds, start, end) }
    }
}

impl Instantiate {
    /// Makes a captured graph ready to launch.
    ///
    /// # Safety
    /// As `cuGraphInstantiate`: the graph is alive.
    pub(super) unsafe fn call(self, graph: CUgraph, exec: &mut CUgraphExec) -> CUresult {
        match self {
            // SAFETY: the caller keeps the contract; 0 asks for nothing special.
            Self::WithFlags(function) => unsafe { function(exec, graph, 0) },
            // SAFETY: the caller keeps the contract; node and log are optional.
            Self::WithLog(function) => unsafe { function(exec, graph, ptr::null_mut(), ptr::null_mut(), 0) },
        }
    }
}

fn instantiate() -> Option<Instantiate> {
    if let Some(function) = symbol("cuGraphInstantiateWithFlags") {
        // SAFETY: the symbol is NVIDIA's function of this name, which has one signature.
        return Some(Instantiate::WithFlags(unsafe {
            std::mem::transmute::<*mut c_void, InstantiateWithFlags>(function)
        }));
    }
    let function = symbol("cuGraphInstantiate")?;
    // SAFETY: drivers without `…WithFlags` are older than 11.4, and there this name takes five arguments.
    Some(Instantiate::WithLog(unsafe { std::mem::transmute::<*mut c_void, InstantiateWithLog>(function) }))
}

fn symbol(name: &str) -> Option<*mut c_void> {
    // SAFETY: `Driver::open` has seen that the library can be opened. The symbol is only looked up, as a pointer.
    let found = unsafe { sys::culib().get::<*mut c_void>(name.as_bytes()) };
    found.ok().map(|symbol| *symbol).filter(|pointer| !pointer.is_null())
}

/// Makes the answer to `call` a result; losing the context is the context's to notice.
pub(super) fn answer(call: &'static str, result: CUresult) -> Result<(), CudaError> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let code = result as c_uint;
    if code == OUT_OF_MEMORY {
        return Err(CudaError::OutOfMemory { call, bytes: None });
    }
    let mut name = ptr::null();
    let mut text = ptr::null();
    // SAFETY: the driver writes a pointer to a string of its own, or null for a code that it does not know.
    unsafe {
        let _ = sys::cuGetErrorName(result, &mut name);
        let _ = sys::cuGetErrorString(result, &mut text);
    }
    let fault = Fault { call, code, name: owned(name, "an unknown error"), text: owned(text, "no description") };
    Err(CudaError::Driver { fault })
}

fn owned(text: *const c_char, missing: &str) -> String {
    if text.is_null() {
        return missing.to_owned();
    }
    // SAFETY: not null, and the driver's strings end with a zero and live as long as it does.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// cudarc panics where a function that is called does not exist.
    #[test]
    fn every_function_that_is_called_is_looked_for_first() {
        let sources = [
            include_str!("context.rs"),
            include_str!("device.rs"),
            include_str!("driver.rs"),
            include_str!("memory.rs"),
            include_str!("module.rs"),
            include_str!("shared.rs"),
            include_str!("stream.rs"),
        ];
        let mut called: Vec<&str> = sources
            .iter()
            .flat_map(|source| source.split("sys::cu").skip(1))
            .filter_map(|rest| rest.split_once('('))
            .map(|(name, _)| name)
            .filter(|name| name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_'))
            .filter(|name| name.starts_with(char::is_uppercase))
            .collect();
        called.sort_unstable();
        called.dedup();
        let mut looked_for: Vec<&str> = REQUIRED.iter().chain(GRAPHS).map(|name| &name[2..]).collect();
        looked_for.sort_unstable();
        assert_eq!(called, looked_for);
    }
}
