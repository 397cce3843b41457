//! Removing what nothing refers to.

use std::time::SystemTime;

use futures_util::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt};
use revoada_core::{Digest, Timestamp};

use super::{BlobError, Blobs, Result, blocking, object_path};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub blobs: u64,
    pub bytes: u64,
    /// Uploads that nobody went on with.
    pub uploads: usize,
}

impl Blobs {
    /// Removes blobs that are older than [kept](super::BlobLimits::kept) and that no version, plan or answer refers to,
    /// objects that are none of the store's blobs, and uploads that nobody goes on with. One that somebody is writing is left
    /// for the next time.
    pub async fn collect(&self, now: Timestamp) -> Result<Collected> {
        let kept = self.limits.kept;
        let before =
            Timestamp::from_nanos(now.as_nanos().saturating_sub(u64::try_from(kept.as_nanos()).unwrap_or(u64::MAX)));
        let (store, spool) = (self.store.clone(), self.spool.clone());
        let (unused, uploads) =
            blocking(move || Ok((store.unused_blobs(before)?, spool.remove_stale(kept, now)?))).await?;
        let mut collected = Collected { uploads, ..Collected::default() };
        for blob in unused {
            if self.forget(blob.digest, before).await? {
                collected.blobs += 1;
                collected.bytes += blob.bytes;
            }
        }
        let orphans = self.orphans(before).await?;
        for (digest, bytes) in orphans {
            let Ok(_claim) = self.claim(digest) else { continue };
            if self.size(digest).await?.is_none() {
                self.objects_delete(digest).await?;
                collected.blobs += 1;
                collected.bytes += bytes;
            }
        }
        Ok(collected)
    }

    async fn forget(&self, digest: Digest, before: Timestamp) -> Result<bool> {
        let Ok(_claim) = self.claim(digest) else { return Ok(false) };
        let store = self.store.clone();
        let is_forgotten = blocking(move || Ok(store.remove_unused_blob(&digest, before)?)).await?;
        if is_forgotten {
            self.objects_delete(digest).await?;
        }
        Ok(is_forgotten)
    }

    /// Objects that are left of a crash between the object store and the database.
    async fn orphans(&self, before: Timestamp) -> Result<Vec<(Digest, u64)>> {
        let failed = |source| BlobError::Objects { operation: "list the blobs", source };
        let mut objects = self.objects.list(Some(&"sha256".into()));
        let mut orphans = Vec::new();
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            let Some(digest) = object.location.filename().and_then(|name| name.parse().ok()) else { continue };
            if modified(&object) < before && self.size(digest).await?.is_none() {
                orphans.push((digest, object.size));
            }
        }
        Ok(orphans)
    }

    pub(super) async fn objects_delete(&self, digest: Digest) -> Result<()> {
        match self.objects.delete(&object_path(digest)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(BlobError::Objects { operation: "remove a blob", source }),
        }
    }
}

/// By the clock of who keeps the objects.
fn modified(object: &ObjectMeta) -> Timestamp {
    let since_epoch = SystemTime::from(object.last_modified).duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::ZERO + since_epoch.unwrap_or_default()
}
