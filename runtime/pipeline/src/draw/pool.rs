//! Memory of frames that were made here, used again.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use revoada_core::FrameMemory;

/// As many as are on their way through the sinks at once; further ones are given back to the
/// allocator.
const FREE_BUFFERS_MAX: usize = 8;

type Free = Mutex<Vec<Vec<u8>>>;

/// Buffers come back when the frame that holds them is dropped.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    free: Arc<Free>,
}

impl BufferPool {
    /// An empty buffer with room for `bytes`.
    pub(crate) fn take(&self, bytes: usize) -> Vec<u8> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        // A buffer far too large belongs to a stream of another size; it waits for its like.
        if let Some(index) = free.iter().position(|buffer| (bytes..=bytes * 2).contains(&buffer.capacity())) {
            let mut buffer = free.swap_remove(index);
            buffer.clear();
            return buffer;
        }
        // A full pool without a match holds sizes that are no longer asked for.
        if free.len() == FREE_BUFFERS_MAX {
            free.remove(0);
        }
        Vec::with_capacity(bytes)
    }

    pub(crate) fn memory(&self, buffer: Vec<u8>) -> FrameMemory {
        Box::new(Pooled { buffer, home: Arc::downgrade(&self.free) })
    }
}

struct Pooled {
    buffer: Vec<u8>,
    home: Weak<Free>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut free = home.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < FREE_BUFFERS_MAX {
            free.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_frame_gives_its_memory_back() {
        let pool = BufferPool::default();
        let mut buffer = pool.take(100);
        buffer.resize(100, 7);
        let address = buffer.as_ptr();
        drop(pool.memory(buffer));
        let again = pool.take(90);
        assert_eq!(again.as_ptr(), address);
        assert!(again.is_empty());
    }

    #[test]
    fn the_pool_is_bounded_and_forgets_sizes_of_the_past() {
        let pool = BufferPool::default();
        let frames: Vec<_> = (0..20).map(|_| pool.memory(vec![0; 10])).collect();
        drop(frames);
        assert_eq!(pool.free.lock().unwrap().len(), FREE_BUFFERS_MAX);
        for _ in 0..FREE_BUFFERS_MAX {
            let buffer = pool.take(1000);
            drop(pool.memory(buffer));
        }
        assert!(pool.free.lock().unwrap().iter().any(|buffer| buffer.capacity() >= 1000));
    }
}
