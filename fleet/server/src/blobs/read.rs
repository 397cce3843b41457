//! Reading blobs.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use futures_util::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetResultPayload};
use prost::bytes::{Bytes, BytesMut};
use revoada_core::Digest;

use super::{BlobError, Blobs, PIECE_BYTES, Result, blocking, object_path};

impl Blobs {
    /// The bytes of a range, in pieces. Empty ranges, and those that end after the blob, are refused.
    pub async fn read(&self, digest: Digest, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let bytes = self.size(digest).await?.ok_or(BlobError::Missing { digest })?;
        let Range { start, end } = range;
        if bytes == 0 && range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        if start >= end || end > bytes {
            return Err(BlobError::Range { digest, bytes, start, end });
        }
        let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        let found = self.objects.get_opts(&object_path(digest), options).await.map_err(|source| match source {
            object_store::Error::NotFound { .. } => BlobError::Missing { digest },
            source => BlobError::Objects { operation: "read a blob", source },
        })?;
        Ok(match found.payload {
            GetResultPayload::File(file, path) => pieces(file, path, found.range).boxed(),
            GetResultPayload::Stream(pieces) => {
                pieces.map_err(|source| BlobError::Objects { operation: "read a blob", source }).boxed()
            }
        })
    }

    /// All of a blob that has no more than so many bytes.
    pub async fn read_whole(&self, digest: Digest, bytes_max: usize) -> Result<Bytes> {
        let bytes = self.size(digest).await?.ok_or(BlobError::Missing { digest })?;
        if bytes > bytes_max as u64 {
            return Err(BlobError::TooLarge { digest, bytes, max: bytes_max as u64 });
        }
        let mut pieces = self.read(digest, 0..bytes).await?;
        let mut whole = BytesMut::new();
        while let Some(piece) = pieces.try_next().await? {
            whole.extend_from_slice(&piece);
        }
        let whole = whole.freeze();
        match revoada_bundle::hash(&whole) == digest {
            true => Ok(whole),
            false => Err(BlobError::Changed { digest }),
        }
    }
}

/// Larger ones than the object store's own.
fn pieces(file: File, path: PathBuf, range: Range<u64>) -> impl Stream<Item = Result<Bytes>> {
    stream::try_unfold((file, range.start), move |(file, offset)| {
        let path = path.clone();
        blocking(move || {
            let left = usize::try_from(range.end - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            if left == 0 {
                return Ok(None);
            }
            let mut piece = BytesMut::zeroed(left);
            let read = file.read_exact_at(&mut piece, offset);
            read.map_err(|source| BlobError::File { path, source })?;
            Ok(Some((piece.freeze(), (file, offset + left as u64))))
        })
    })
}
