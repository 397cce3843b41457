//! Frames on the device: uploaded once, read by every model.

use std::sync::{Arc, Mutex, PoisonError};

use revoada_core::{Frame, ImageLayout, MemoryKind};

use super::context::CudaContext;
use super::error::CudaError;
use super::memory::DeviceSlice;
use super::shared::SharedBuffer;
use super::stream::{Event, Stream};

/// A frame that kernels can read. Immutable; share it as `Arc<CudaSurface>` and hold it until the device has read
/// it. Its memory goes back to its pool.
#[derive(Debug)]
pub struct CudaSurface {
    layout: ImageLayout,
    /// `None` only while it is being dropped.
    memory: Option<Uploaded>,
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Uploaded {
    buffer: SharedBuffer,
    /// When the device has the pixels.
    ready: Event,
}

/// Imports frames, and keeps the memory of those that are gone for those that come: allocating waits for the
/// device, and page-locking takes longer than a frame lasts.
#[derive(Debug)]
pub struct SurfacePool {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    context: Arc<CudaContext>,
    /// On which pixels move, beside the sessions' streams.
    stream: Stream,
    idle_max: usize,
    idle: Mutex<Vec<Uploaded>>,
}

impl SurfacePool {
    /// Keeps the memory of up to `idle_max` frames that nobody holds; beyond, the oldest is freed.
    pub fn new(context: &Arc<CudaContext>, idle_max: usize) -> Result<Self, CudaError> {
        let stream = Stream::new(context)?;
        let pool = Pool { context: Arc::clone(context), stream, idle_max, idle: Mutex::default() };
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Makes a frame readable to kernels: its pixels are copied into memory that the device reaches, and on a
    /// discrete card from there to the card, which need not be over when this returns.
    pub fn import(&self, frame: &Frame) -> Result<Arc<CudaSurface>, CudaError> {
        if frame.memory_kind() == MemoryKind::NvBufSurface {
            return Err(CudaError::Memory { kind: MemoryKind::NvBufSurface });
        }
        let view = frame.view();
        let layout = *frame.layout();
        let bytes = layout.bytes().expect("a frame's layout was checked when it was made");
        let mut memory = self.pool.take(bytes)?;
        memory.buffer.host_mut()?[..bytes].copy_from_slice(&view.bytes()[..bytes]);
        memory.buffer.upload(&self.pool.stream, 0..bytes)?;
        memory.ready.record(&self.pool.stream)?;
        Ok(Arc::new(CudaSurface { layout, memory: Some(memory), pool: Arc::clone(&self.pool) }))
    }

    /// How many frames' memory is kept.
    pub fn idle(&self) -> usize {
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Pool {
    /// Memory of `bytes`, or more where it was another frame's.
    fn take(&self, bytes: usize) -> Result<Uploaded, CudaError> {
        // No frame takes memory twice its size.
        let fits = |memory: &Uploaded| (bytes..bytes.saturating_mul(2)).contains(&memory.buffer.bytes());
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = idle.iter().position(fits) {
            return Ok(idle.remove(index));
        }
        drop(idle);
        Ok(Uploaded { buffer: SharedBuffer::new(&self.context, bytes)?, ready: Event::new(&self.context)? })
    }

    fn give_back(&self, mut memory: Uploaded) {
        // Whoever read the surface held it until it was read, so that only the upload can still be under way.
        if let Err(error) = memory.buffer.download(&self.stream, 0..0) {
            tracing::debug!(%error, "the memory of a surface is freed");
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(memory);
        let surplus: Vec<_> = if idle.len() > self.idle_max { idle.drain(..1).collect() } else { Vec::new() };
        // Freeing waits for the device; nobody waits for the lock meanwhile.
        drop(idle);
        drop(surplus);
    }
}

impl CudaSurface {
    pub fn layout(&self) -> &ImageLayout {
        &self.layout
    }

    /// How often each pixel was copied: once into memory that the device reaches, once more to a discrete card.
    pub fn copies(&self) -> usize {
        1 + self.memory().buffer.copies()
    }

    /// Its bytes as the device sees them, laid out as [`Self::layout`] says.
    pub(super) fn device(&self) -> DeviceSlice<'_> {
        self.memory().buffer.device()
    }

    /// Lets what `stream` holds next wait until the pixels are there.
    pub(super) fn await_on(&self, stream: &Stream) -> Result<(), CudaError> {
        stream.wait(&self.memory().ready)
    }

    fn memory(&self) -> &Uploaded {
        self.memory.as_ref().expect("it is there until the surface is dropped")
    }
}

impl Drop for CudaSurface {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.give_back(memory);
        }
    }
}
