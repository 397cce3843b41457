//! Memory that the CPU and the device hand to each other.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys;

use super::context::CudaContext;
use super::device::MemoryPolicy;
use super::error::CudaError;
use super::memory::{DeviceBuffer, DeviceSlice, ManagedBuffer, PinnedBuffer, Side, check_range, device_slice};
use super::stream::{Event, Stream};

/// Bytes for both sides, by the context's [`MemoryPolicy`]: two buffers with copies between them, or one that both
/// see. Whoever has them is part of its state:
///
/// - the CPU has them at first and may read and write;
/// - [`Self::upload`] gives them to the device, in the order of a stream;
/// - [`Self::download`] gives them back, in the order of a stream: the CPU has them once the stream got there, which
///   [`Self::host`] and [`Self::host_mut`] wait for.
///
/// Bytes are zero at first.
#[derive(Debug)]
pub struct SharedBuffer {
    memory: Memory,
    bytes: usize,
    owner: Owner,
    returned: Event,
    context: Arc<CudaContext>,
}

#[derive(Debug)]
enum Memory {
    Copied { host: PinnedBuffer, device: DeviceBuffer },
    Mapped(PinnedBuffer),
    Managed(ManagedBuffer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Host,
    Device,
    /// The CPU's, once `returned` is reached.
    Returning,
    /// Giving it back failed half way.
    Stranded,
}

impl SharedBuffer {
    pub fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, CudaError> {
        let memory = match context.policy() {
            MemoryPolicy::Copied => {
                Memory::Copied { host: PinnedBuffer::new(context, bytes)?, device: DeviceBuffer::new(context, bytes)? }
            }
            MemoryPolicy::Mapped => Memory::Mapped(PinnedBuffer::new(context, bytes)?),
            MemoryPolicy::Managed => Memory::Managed(ManagedBuffer::new(context, bytes)?),
        };
        let returned = Event::new(context)?;
        Ok(Self { memory, bytes, owner: Owner::Host, returned, context: Arc::clone(context) })
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How often a byte is copied on its way to the device, after it was written here.
    pub fn copies(&self) -> usize {
        usize::from(matches!(self.memory, Memory::Copied { .. }))
    }

    /// Gives the bytes to the device; those in `range` are what the CPU wrote.
    ///
    /// # Panics
    /// Where the device has them already.
    pub fn upload(&mut self, stream: &Stream, range: Range<usize>) -> Result<(), CudaError> {
        check_range(&range, self.bytes)?;
        assert_ne!(self.owner, Owner::Device, "the device has the buffer already");
        match &self.memory {
            Memory::Copied { host, device } if !range.is_empty() => {
                let target = device.device().slice(range.clone())?.pointer();
                // SAFETY: the range lies in both buffers. The CPU does not write the pinned one before `returned`,
                // and dropping `self` waits for it.
                self.context.call("cuMemcpyHtoDAsync_v2", || unsafe {
                    sys::cuMemcpyHtoDAsync_v2(target, host.host.add(range.start).cast(), range.len(), stream.raw())
                })?;
            }
            Memory::Managed(memory) if !self.context.device().memory.concurrent_managed => {
                memory.attach(stream, Side::Device)?;
            }
            _ => {}
        }
        self.owner = Owner::Device;
        Ok(())
    }

    /// Gives the bytes back to the CPU, after everything that the stream holds now; those in `range` are what the
    /// device wrote. Where that fails, [`Self::host`] waits for everything, and what the device wrote may be lost.
    ///
    /// # Panics
    /// Where the device does not have them.
    pub fn download(&mut self, stream: &Stream, range: Range<usize>) -> Result<(), CudaError> {
        check_range(&range, self.bytes)?;
        assert_eq!(self.owner, Owner::Device, "the device does not have the buffer");
        self.owner = Owner::Stranded;
        self.give_back(stream, range)?;
        self.returned.record(stream)?;
        self.owner = Owner::Returning;
        Ok(())
    }

    fn give_back(&self, stream: &Stream, range: Range<usize>) -> Result<(), CudaError> {
        match &self.memory {
            Memory::Copied { host, device } if !range.is_empty() => {
                let source = device.device().slice(range.clone())?.pointer();
                // SAFETY: the range lies in both buffers. The CPU does not touch the pinned one before `returned`,
                // and dropping `self` waits for it.
                self.context.call("cuMemcpyDtoHAsync_v2", || unsafe {
                    sys::cuMemcpyDtoHAsync_v2(host.host.add(range.start).cast(), source, range.len(), stream.raw())
                })
            }
            Memory::Managed(memory) if !self.context.device().memory.concurrent_managed => {
                memory.attach(stream, Side::Host)
            }
            _ => Ok(()),
        }
    }

    /// The bytes as the CPU sees them; waits until they are back.
    ///
    /// # Panics
    /// Where the device has them.
    pub fn host(&mut self) -> Result<&[u8], CudaError> {
        self.host_mut().map(|bytes| &*bytes)
    }

    /// As [`Self::host`], to write.
    ///
    /// # Panics
    /// Where the device has them.
    pub fn host_mut(&mut self) -> Result<&mut [u8], CudaError> {
        assert_ne!(self.owner, Owner::Device, "the device has the buffer");
        match self.owner {
            Owner::Returning => self.returned.synchronize()?,
            Owner::Stranded => self.rescue()?,
            Owner::Host | Owner::Device => {}
        }
        self.owner = Owner::Host;
        // SAFETY: the memory is alive, initialised and `bytes` long; the device has given it back, and `&mut self`
        // keeps everybody else away until the slice is gone.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.host_pointer(), self.bytes) })
    }

    /// The bytes as the device sees them, for work on the stream that they were uploaded on and will be downloaded on,
    /// or one that waits for the first and that the second waits for.
    ///
    /// # Panics
    /// Where the device does not have them.
    pub fn device(&self) -> DeviceSlice<'_> {
        assert_eq!(self.owner, Owner::Device, "the device does not have the buffer");
        device_slice(self.address(), self.bytes)
    }

    /// Where the bytes lie for the device, whoever has them; it never changes.
    pub fn address(&self) -> u64 {
        match &self.memory {
            Memory::Copied { device, .. } => device.device().pointer(),
            Memory::Mapped(memory) => memory.pointer,
            Memory::Managed(memory) => memory.pointer,
        }
    }

    /// Takes the bytes back by waiting for everything.
    fn rescue(&self) -> Result<(), CudaError> {
        let stream = Stream::new(&self.context)?;
        self.context.synchronize()?;
        self.give_back(&stream, 0..0)?;
        stream.synchronize()
    }

    fn host_pointer(&self) -> *mut u8 {
        match &self.memory {
            Memory::Copied { host, .. } => host.host,
            Memory::Mapped(memory) => memory.host,
            Memory::Managed(memory) => memory.host(),
        }
    }
}

impl Drop for SharedBuffer {
    fn drop(&mut self) {
        // Unlike memory of the device, what the CPU sees may be freed under work that is still running.
        let waited = match self.owner {
            Owner::Host => return,
            Owner::Returning => self.returned.synchronize(),
            Owner::Device | Owner::Stranded => self.context.synchronize(),
        };
        if let Err(error) = waited {
            tracing::debug!(%error, "a buffer is given back though its last work failed");
        }
    }
}
