//! Blobs, as devices fetch and bring them.

use std::ops::Range;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use prost::bytes::{Bytes, BytesMut};
use revoada_bundle::sign::Signature;
use revoada_core::Digest;

use crate::blobs::{Begun, BlobError, Blobs};
use crate::device_port::{self, BlobSource, Refusal, UploadError};
use crate::service::{Fleet, now};

/// Written at once of what comes in smaller pieces.
const PIECE_BYTES: usize = 1 << 20;

/// The registry's blobs and signatures.
pub(super) struct Shelf {
    pub(super) fleet: Arc<Fleet>,
    pub(super) blobs: Arc<Blobs>,
}

fn unread(digest: Digest, source: impl std::error::Error + Send + Sync + 'static) -> device_port::BlobError {
    device_port::BlobError { digest, source: Box::new(source) }
}

impl BlobSource for Shelf {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, device_port::BlobError> {
        self.blobs.size(*digest).await.map_err(|error| unread(*digest, error))
    }

    async fn read(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, device_port::BlobError>>, device_port::BlobError> {
        let digest = *digest;
        let pieces = self.blobs.read(digest, range).await.map_err(|error| unread(digest, error))?;
        Ok(pieces.map_err(move |error| unread(digest, error)).boxed())
    }

    async fn signature(&self, digest: &Digest) -> Result<Option<Signature>, device_port::BlobError> {
        let (fleet, digest) = (Arc::clone(&self.fleet), *digest);
        let found = tokio::task::spawn_blocking(move || fleet.store().signature(&digest)).await;
        found.map_err(|error| unread(digest, error))?.map_err(|error| unread(digest, error))
    }
}

/// Keeps what a device uploads. One that breaks off may be resumed by uploading it again from its start.
pub(super) async fn keep(
    blobs: &Blobs,
    digest: Digest,
    bytes: u64,
    content: impl Stream<Item = Result<Bytes, UploadError>> + Unpin,
) -> Result<(), Refusal> {
    match receive(blobs, digest, (bytes, 0), content).await? {
        true => Ok(()),
        false => blobs.complete(digest, now()).await.map_err(|error| refusal(&error)),
    }
}

/// Receives content that begins at an offset, before which nothing may be missing. Whether it is a blob already, of which nothing
/// was received.
pub(super) async fn receive(
    blobs: &Blobs,
    digest: Digest,
    (bytes, from): (u64, u64),
    content: impl Stream<Item = Result<Bytes, UploadError>> + Unpin,
) -> Result<bool, Refusal> {
    let Begun::At(known) = blobs.begin(digest, bytes, now()).await.map_err(|error| refusal(&error))? else {
        return Ok(true);
    };
    let skip = known.checked_sub(from).ok_or_else(|| Refusal::Busy(format!("the upload goes on at byte {known}")))?;
    let (mut content, mut gathered, mut skip, mut offset) = (content, BytesMut::new(), skip, known);
    loop {
        let piece = content.next().await.transpose().map_err(|error| Refusal::Invalid(error.to_string()))?;
        let is_last = piece.is_none();
        if let Some(mut piece) = piece {
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            drop(piece.split_to(known));
            skip -= known as u64;
            gathered.extend_from_slice(&piece);
        }
        if gathered.len() >= PIECE_BYTES || (is_last && !gathered.is_empty()) {
            let piece = gathered.split().freeze();
            offset = blobs.append(digest, offset, piece, now()).await.map_err(|error| refusal(&error))?;
        }
        if is_last {
            return Ok(false);
        }
    }
}

pub(super) fn refusal(error: &BlobError) -> Refusal {
    let text = error.to_string();
    match error {
        BlobError::Missing { .. } => Refusal::Missing(text),
        BlobError::TooLarge { .. }
        | BlobError::TooLong { .. }
        | BlobError::Unfinished { .. }
        | BlobError::Changed { .. }
        | BlobError::Range { .. } => Refusal::Invalid(text),
        BlobError::Full { .. }
        | BlobError::DiskFull { .. }
        | BlobError::TooManyUploads { .. }
        | BlobError::Busy { .. }
        | BlobError::NotBegun { .. }
        | BlobError::Offset { .. } => Refusal::Busy(text),
        error => {
            tracing::error!(error = %crate::service::chain(error), "cannot keep what a device uploads");
            Refusal::Internal
        }
    }
}
