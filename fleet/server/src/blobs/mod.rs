//! Blobs: bytes that are called by their SHA-256, written once and never changed.
//!
//! They lie in an object store, a local folder by default; the [`Store`] knows which there are. An upload is spooled in a
//! local folder, where it can be resumed, until it is whole and hashes to its name; only then it becomes a blob. All of them
//! together stay within a quota.

mod collect;
mod read;
mod spool;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use prost::bytes::Bytes;
use revoada_core::{Digest, Timestamp};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

pub use self::collect::Collected;
use self::spool::Spool;
use crate::store::{Store, StoreError};

/// Read and written at once.
const PIECE_BYTES: usize = 1 << 20;

/// To an object store in one part: its smallest is 5 MiB.
const PART_BYTES: usize = 8 << 20;

/// Parts that are under way at once.
const PARTS_MAX: usize = 4;

/// How much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobLimits {
    /// All blobs and uploads together. At the bound uploads are refused.
    pub quota_bytes: u64,
    /// One blob.
    pub blob_bytes_max: u64,
    /// Uploads that are begun. At the bound new ones are refused.
    pub uploads_max: usize,
    /// How long an upload waits to be resumed, and a blob that nothing refers to for what does.
    pub kept: Duration,
}

/// The blobs of a service. One process has them.
pub struct Blobs {
    objects: Arc<dyn ObjectStore>,
    store: Arc<dyn Store>,
    spool: Arc<Spool>,
    limits: BlobLimits,
    /// What somebody is writing or removing.
    claims: Arc<Mutex<BTreeSet<Digest>>>,
}

/// What [`Blobs::begin`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The blob is there, and nothing is to be uploaded.
    Whole,
    /// So many bytes are there; the next piece begins here.
    At(u64),
}

/// Why a blob was not read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BlobError {
    #[error("there is no blob `{digest}`")]
    Missing { digest: Digest },
    #[error("the upload of `{digest}` was not begun, or was dropped since")]
    NotBegun { digest: Digest },
    #[error("blob `{digest}` is being written or removed; try again")]
    Busy { digest: Digest },
    #[error("blob `{digest}` has {bytes} bytes, and may have {max}")]
    TooLarge { digest: Digest, bytes: u64, max: u64 },
    #[error("blob `{digest}` of {bytes} bytes does not fit: {free} of the quota are free")]
    Full { digest: Digest, bytes: u64, free: u64 },
    #[error("blob `{digest}` of {bytes} bytes does not fit on the disk, where {free} are free")]
    DiskFull { digest: Digest, bytes: u64, free: u64 },
    #[error("{max} uploads are under way, and no more may be")]
    TooManyUploads { max: usize },
    #[error("the upload of `{digest}` goes on at byte {expected}, not {got}")]
    Offset { digest: Digest, expected: u64, got: u64 },
    #[error("the upload of `{digest}` has more than the {bytes} bytes that were said")]
    TooLong { digest: Digest, bytes: u64 },
    #[error("the upload of `{digest}` lacks {missing} bytes")]
    Unfinished { digest: Digest, missing: u64 },
    #[error("what was uploaded as `{digest}` is something else, and was dropped")]
    Changed { digest: Digest },
    #[error("blob `{digest}` of {bytes} bytes has no bytes {start} to {end}")]
    Range { digest: Digest, bytes: u64, start: u64, end: u64 },
    #[error("cannot read or write `{path}`")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {operation}")]
    Objects {
        operation: &'static str,
        #[source]
        source: object_store::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Result<T> = std::result::Result<T, BlobError>;

impl Blobs {
    /// In a local folder that is there: `objects/` and `spool/` below it.
    pub fn open(folder: &Path, store: Arc<dyn Store>, limits: BlobLimits, now: Timestamp) -> Result<Self> {
        let objects = folder.join("objects");
        let cannot_write = |path: &PathBuf| {
            let path = path.clone();
            move |source| BlobError::File { path, source }
        };
        fs::create_dir_all(&objects).map_err(cannot_write(&objects))?;
        remove_staged(&objects).map_err(cannot_write(&objects))?;
        let local = LocalFileSystem::new_with_prefix(&objects)
            .map_err(|source| BlobError::Objects { operation: "open the folder of blobs", source })?;
        Self::with_objects(Arc::new(local.with_fsync(true)), &folder.join("spool"), store, limits, now)
    }

    /// In any object store; uploads wait in a local folder.
    pub fn with_objects(
        objects: Arc<dyn ObjectStore>,
        spool: &Path,
        store: Arc<dyn Store>,
        limits: BlobLimits,
        now: Timestamp,
    ) -> Result<Self> {
        let spool = Arc::new(Spool::open(spool, now)?);
        Ok(Self { objects, store, spool, limits, claims: Arc::default() })
    }

    /// Begins to upload a blob of so many bytes, or resumes it.
    pub async fn begin(&self, digest: Digest, bytes: u64, now: Timestamp) -> Result<Begun> {
        let BlobLimits { quota_bytes, blob_bytes_max, uploads_max, kept } = self.limits;
        if bytes > blob_bytes_max {
            return Err(BlobError::TooLarge { digest, bytes, max: blob_bytes_max });
        }
        let claim = self.claim(digest)?;
        let (store, spool) = (self.store.clone(), self.spool.clone());
        blocking(move || {
            let _claim = claim;
            if let Some(known) = store.blob(&digest)? {
                // It is wanted again, so it is as young as a new one.
                store.add_blob(&digest, known.bytes, now)?;
                return Ok(Begun::Whole);
            }
            spool.remove_stale(kept, now)?;
            let free = |reserved: u64| Ok(quota_bytes.saturating_sub(store.blob_bytes()?.saturating_add(reserved)));
            spool.begin(digest, bytes, uploads_max, free, now).map(Begun::At)
        })
        .await
    }

    /// Adds a piece to an upload where it goes on. Where the next one begins.
    pub async fn append(&self, digest: Digest, offset: u64, piece: Bytes, now: Timestamp) -> Result<u64> {
        let (claim, spool) = (self.claim(digest)?, self.spool.clone());
        blocking(move || {
            let _claim = claim;
            spool.append(digest, offset, &piece, now)
        })
        .await
    }

    /// Makes a blob of an upload that is whole. One that hashes differently is dropped. Done again, it is done.
    pub async fn complete(&self, digest: Digest, now: Timestamp) -> Result<()> {
        let claim = Arc::new(self.claim(digest)?);
        let store = self.store.clone();
        if blocking(move || Ok(store.blob(&digest)?)).await?.is_some() {
            return Ok(());
        }
        let bytes = self.spool.whole(digest)?;
        if self.publish(digest, &claim).await? != digest {
            self.spool.drop_upload(digest)?;
            return Err(BlobError::Changed { digest });
        }
        let (store, spool) = (self.store.clone(), self.spool.clone());
        blocking(move || {
            let _claim = claim;
            store.add_blob(&digest, bytes, now)?;
            spool.drop_upload(digest)
        })
        .await
    }

    /// Takes an upload that is whole and is to become no blob: its content, which hashes to its name. It is dropped either way.
    pub async fn take(&self, digest: Digest, bytes_max: usize) -> Result<Bytes> {
        let (claim, spool) = (self.claim(digest)?, self.spool.clone());
        blocking(move || {
            let _claim = claim;
            let bytes = spool.whole(digest)?;
            if bytes > bytes_max as u64 {
                return Err(BlobError::TooLarge { digest, bytes, max: bytes_max as u64 });
            }
            let content = spool.read(digest, 0, bytes_max)?;
            spool.drop_upload(digest)?;
            match revoada_bundle::hash(&content) == digest {
                true => Ok(content.into()),
                false => Err(BlobError::Changed { digest }),
            }
        })
        .await
    }

    /// Keeps something small.
    pub async fn put(&self, bytes: Bytes, now: Timestamp) -> Result<Digest> {
        let digest = revoada_bundle::hash(&bytes);
        if let Begun::At(offset) = self.begin(digest, bytes.len() as u64, now).await? {
            let left = usize::try_from(offset).map_or(Bytes::new(), |offset| bytes.slice(offset.min(bytes.len())..));
            self.append(digest, offset, left, now).await?;
            self.complete(digest, now).await?;
        }
        Ok(digest)
    }

    /// How many bytes a blob has; `None` where there is none.
    pub async fn size(&self, digest: Digest) -> Result<Option<u64>> {
        let store = self.store.clone();
        blocking(move || Ok(store.blob(&digest)?.map(|blob| blob.bytes))).await
    }

    /// Writes a spooled upload to the object store, and says what it hashes to. Nothing is there before all of it is.
    async fn publish(&self, digest: Digest, claim: &Arc<Claim>) -> Result<Digest> {
        let failed = |source| BlobError::Objects { operation: "write a blob", source };
        let upload = self.objects.put_multipart(&object_path(digest)).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut hasher = Sha256::new();
        let mut offset = 0;
        loop {
            let (spool, claim) = (self.spool.clone(), claim.clone());
            let piece = blocking(move || {
                let _claim = claim;
                spool.read(digest, offset, PIECE_BYTES)
            });
            let piece = match piece.await {
                Ok(piece) => piece,
                Err(error) => {
                    upload.abort().await.map_err(failed)?;
                    return Err(error);
                }
            };
            if piece.is_empty() {
                break;
            }
            hasher.update(&piece);
            offset += piece.len() as u64;
            upload.wait_for_capacity(PARTS_MAX).await.map_err(failed)?;
            upload.put(piece.into());
        }
        let found = Digest::new(hasher.finalize().into());
        let done = if found == digest { upload.finish().await.map(drop) } else { upload.abort().await };
        done.map_err(failed)?;
        Ok(found)
    }

    fn claim(&self, digest: Digest) -> Result<Claim> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        match claims.insert(digest) {
            true => Ok(Claim { claims: self.claims.clone(), digest }),
            false => Err(BlobError::Busy { digest }),
        }
    }
}

/// The right to write or remove a blob, until it is dropped.
struct Claim {
    claims: Arc<Mutex<BTreeSet<Digest>>>,
    digest: Digest,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}

/// Folders of 256 keep each of them short.
fn object_path(digest: Digest) -> object_store::path::Path {
    let hex = digest.hex();
    format!("sha256/{}/{hex}", &hex[..2]).into()
}

/// Removes what an earlier process was writing when it was killed: `<digest>#<number>`, which lists do not show.
fn remove_staged(objects: &Path) -> io::Result<()> {
    let hashed = objects.join("sha256");
    if !hashed.is_dir() {
        return Ok(());
    }
    for folder in fs::read_dir(hashed)? {
        for file in fs::read_dir(folder?.path())? {
            let file = file?;
            if file.file_name().to_string_lossy().contains('#') {
                fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}

/// Work that waits for a disk, on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = crate::blocking::blocking(work).await;
    done.map_err(|source| BlobError::File { path: PathBuf::new(), source })?
}
