//! A blob out of what can be read from any byte on.

use std::io::Read;

use prost::bytes::Bytes;
use revoada_core::{Digest, Timestamp};
use tokio::runtime::Handle;

use super::{ImportError, Result};
use crate::blobs::{Begun, Blobs};

const PIECE_BYTES: u64 = 1 << 20;

/// Goes on where an earlier try ended. What breaks off stays for the next one.
pub(super) fn upload(
    blobs: &Blobs,
    handle: &Handle,
    (digest, bytes): (Digest, u64),
    open: impl FnOnce(u64) -> Result<Box<dyn Read>>,
    now: Timestamp,
) -> Result<()> {
    let Begun::At(mut offset) = handle.block_on(blobs.begin(digest, bytes, now))? else { return Ok(()) };
    // One byte more shows what is longer than it is said to be.
    let mut reader = open(offset)?.take((bytes - offset).saturating_add(1));
    loop {
        let mut piece = Vec::new();
        let read = reader.by_ref().take(PIECE_BYTES).read_to_end(&mut piece);
        if !piece.is_empty() {
            offset = handle.block_on(blobs.append(digest, offset, Bytes::from(piece), now))?;
        }
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(source) => return Err(ImportError::Read { what: digest.to_string(), source }),
        }
    }
    handle.block_on(blobs.complete(digest, now))?;
    Ok(())
}
