//! Memory of the driver: an owner for each kind.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUmemAttach_flags};

use super::context::CudaContext;
use super::error::CudaError;
use super::stream::Stream;

/// A part of some memory that the device reads or writes, borrowed from its owner.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSlice<'a> {
    pointer: u64,
    bytes: usize,
    owner: PhantomData<&'a ()>,
}

impl<'a> DeviceSlice<'a> {
    fn new(pointer: u64, bytes: usize) -> Self {
        Self { pointer, bytes, owner: PhantomData }
    }

    /// The address as the device sees it.
    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn slice(&self, range: Range<usize>) -> Result<DeviceSlice<'a>, CudaError> {
        check_range(&range, self.bytes)?;
        Ok(Self::new(self.pointer + range.start as u64, range.len()))
    }
}

pub(super) fn check_range(range: &Range<usize>, bytes: usize) -> Result<(), CudaError> {
    if range.start > range.end || range.end > bytes {
        return Err(CudaError::Range { start: range.start, end: range.end, bytes });
    }
    Ok(())
}

/// Says how much was asked for.
fn sized(error: CudaError, bytes: usize) -> CudaError {
    match error {
        CudaError::OutOfMemory { call, .. } => CudaError::OutOfMemory { call, bytes: Some(bytes) },
        other => other,
    }
}

/// Memory of the device. What it holds at first is undefined.
#[derive(Debug)]
pub struct DeviceBuffer {
    context: Arc<CudaContext>,
    pointer: u64,
    bytes: usize,
}

impl DeviceBuffer {
    /// At least one byte is allocated, since the driver refuses none.
    pub fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, CudaError> {
        let mut pointer = 0;
        context
            // SAFETY: writes an address, which is freed once, in `Drop`.
            .call("cuMemAlloc_v2", || unsafe { sys::cuMemAlloc_v2(&mut pointer, bytes.max(1)) })
            .map_err(|error| sized(error, bytes))?;
        Ok(Self { context: Arc::clone(context), pointer, bytes })
    }

    pub fn device(&self) -> DeviceSlice<'_> {
        DeviceSlice::new(self.pointer, self.bytes)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets every byte, in the order of the stream.
    pub fn fill(&self, stream: &Stream, byte: u8) -> Result<(), CudaError> {
        let (pointer, bytes) = (self.pointer, self.bytes);
        // SAFETY: the range is this buffer, and freeing it waits for the stream.
        self.context.call("cuMemsetD8Async", || unsafe { sys::cuMemsetD8Async(pointer, byte, bytes, stream.raw()) })
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; the driver finishes work that uses the memory before it is gone.
        self.context.release("cuMemFree_v2", || unsafe { sys::cuMemFree_v2(self.pointer) });
    }
}

/// Page-locked memory of the CPU, mapped into the device.
#[derive(Debug)]
pub(super) struct PinnedBuffer {
    context: Arc<CudaContext>,
    pub(super) host: *mut u8,
    pub(super) pointer: u64,
}

impl PinnedBuffer {
    pub(super) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, CudaError> {
        let mut host = std::ptr::null_mut();
        let flags = sys::CU_MEMHOSTALLOC_DEVICEMAP | sys::CU_MEMHOSTALLOC_PORTABLE;
        context
            // SAFETY: writes an address, which is freed once, in `Drop`.
            .call("cuMemHostAlloc", || unsafe { sys::cuMemHostAlloc(&mut host, bytes.max(1), flags) })
            .map_err(|error| sized(error, bytes))?;
        let mut buffer = Self { context: Arc::clone(context), host: host.cast(), pointer: 0 };
        if context.device().memory.maps_host {
            let pointer = &mut buffer.pointer;
            // SAFETY: `host` was allocated above, mapped.
            context.call("cuMemHostGetDevicePointer_v2", || unsafe {
                sys::cuMemHostGetDevicePointer_v2(pointer, host, 0)
            })?;
        }
        // SAFETY: the memory is ours and at least that long. Rust reads initialised bytes only.
        unsafe { buffer.host.write_bytes(0, bytes) };
        Ok(buffer)
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; its owner waits for the device before it drops it.
        self.context.release("cuMemFreeHost", || unsafe { sys::cuMemFreeHost(self.host.cast()) });
    }
}

/// Memory that the driver keeps readable to whichever side has it.
#[derive(Debug)]
pub(super) struct ManagedBuffer {
    context: Arc<CudaContext>,
    pub(super) pointer: u64,
}

/// Who may touch managed memory on a device where the two sides must not do so at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Host,
    Device,
}

impl ManagedBuffer {
    /// The CPU has it first.
    pub(super) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, CudaError> {
        let mut pointer = 0;
        let flags = CUmemAttach_flags::CU_MEM_ATTACH_HOST as u32;
        context
            // SAFETY: writes an address, which is freed once, in `Drop`.
            .call("cuMemAllocManaged", || unsafe { sys::cuMemAllocManaged(&mut pointer, bytes.max(1), flags) })
            .map_err(|error| sized(error, bytes))?;
        let buffer = Self { context: Arc::clone(context), pointer };
        // SAFETY: the memory is ours, at least that long, and attached to the host.
        unsafe { buffer.host().write_bytes(0, bytes) };
        Ok(buffer)
    }

    /// Managed memory has one address for both sides.
    pub(super) fn host(&self) -> *mut u8 {
        self.pointer as *mut u8
    }

    /// Hands it over, in the order of the stream.
    pub(super) fn attach(&self, stream: &Stream, side: Side) -> Result<(), CudaError> {
        let flags = match side {
            Side::Host => CUmemAttach_flags::CU_MEM_ATTACH_HOST,
            Side::Device => CUmemAttach_flags::CU_MEM_ATTACH_GLOBAL,
        } as u32;
        // SAFETY: the memory is managed and alive; 0 stands for all of it.
        self.context.call("cuStreamAttachMemAsync", || unsafe {
            sys::cuStreamAttachMemAsync(stream.raw(), self.pointer, 0, flags)
        })
    }
}

impl Drop for ManagedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; its owner waits for the device before it drops it.
        self.context.release("cuMemFree_v2", || unsafe { sys::cuMemFree_v2(self.pointer) });
    }
}

/// Lends device addresses; only owners of memory make them.
pub(super) fn device_slice<'a>(pointer: u64, bytes: usize) -> DeviceSlice<'a> {
    DeviceSlice::new(pointer, bytes)
}

// SAFETY: the address is the process's, not the thread's; owners hand out slices by their own rules.
unsafe impl Send for PinnedBuffer {}
// SAFETY: as above, and a shared reference gives no access to the bytes.
unsafe impl Sync for PinnedBuffer {}
