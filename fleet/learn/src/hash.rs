//! The SHA-256 of what passes through a reader or a writer.

use std::io::{self, Read, Write};

use revoada_core::Digest;
use sha2::{Digest as _, Sha256};

/// Passes bytes on and remembers their digest.
pub(crate) struct Hashed<T> {
    inner: T,
    hasher: Sha256,
}

impl<T> Hashed<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// The digest of what has passed, and where the rest goes.
    pub(crate) fn finish(self) -> (Digest, T) {
        (Digest::new(self.hasher.finalize().into()), self.inner)
    }
}

impl<T: Read> Hashed<T> {
    pub(crate) fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes)?;
        self.hasher.update(bytes);
        Ok(())
    }
}

impl<T: Write> Hashed<T> {
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}
