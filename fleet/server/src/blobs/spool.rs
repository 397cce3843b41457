//! Uploads that are not whole: a file each, `<digest>.<bytes>.part`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use revoada_core::{Digest, Timestamp};

use super::{BlobError, Result};

const SUFFIX: &str = ".part";

pub(super) struct Spool {
    folder: PathBuf,
    uploads: Mutex<BTreeMap<Digest, Upload>>,
}

#[derive(Clone, Copy)]
struct Upload {
    /// When it is whole.
    bytes: u64,
    have: u64,
    touched: Timestamp,
}

impl Spool {
    /// Knows the uploads that an earlier process left.
    pub(super) fn open(folder: &Path, now: Timestamp) -> Result<Self> {
        let scan = || {
            fs::create_dir_all(folder)?;
            let mut uploads = BTreeMap::new();
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let have = entry.metadata()?.len();
                match entry.file_name().to_str().and_then(parse_name) {
                    Some((digest, bytes)) if have <= bytes => {
                        uploads.insert(digest, Upload { bytes, have, touched: now });
                    }
                    Some(_) => fs::remove_file(entry.path())?,
                    None => tracing::warn!(path = %entry.path().display(), "a file of the spool is no upload"),
                }
            }
            Ok(uploads)
        };
        let uploads = scan().map_err(|source| BlobError::File { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), uploads: Mutex::new(uploads) })
    }

    fn uploads(&self) -> MutexGuard<'_, BTreeMap<Digest, Upload>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, digest: Digest, bytes: u64) -> PathBuf {
        self.folder.join(format!("{}.{bytes}{SUFFIX}", digest.hex()))
    }

    /// Where an upload goes on. `free` says what of the quota is free beside so many bytes that uploads will have.
    pub(super) fn begin(
        &self,
        digest: Digest,
        bytes: u64,
        uploads_max: usize,
        free: impl FnOnce(u64) -> Result<u64>,
        now: Timestamp,
    ) -> Result<u64> {
        // Held until the place is taken, so that two do not take the same.
        let mut uploads = self.uploads();
        if let Some(upload) = uploads.get_mut(&digest).filter(|upload| upload.bytes == bytes) {
            upload.touched = now;
            return Ok(upload.have);
        }
        if let Some(other) = uploads.remove(&digest) {
            self.remove(digest, other.bytes)?;
        }
        if uploads.len() >= uploads_max {
            return Err(BlobError::TooManyUploads { max: uploads_max });
        }
        let reserved = uploads.values().map(|upload| upload.bytes).fold(0, u64::saturating_add);
        let free = free(reserved)?;
        if bytes > free {
            return Err(BlobError::Full { digest, bytes, free });
        }
        let path = self.path(digest, bytes);
        let cannot_write = |source| BlobError::File { path: path.clone(), source };
        let free = disk_free(&self.folder).map_err(cannot_write)?;
        if bytes > free {
            return Err(BlobError::DiskFull { digest, bytes, free });
        }
        File::create(&path).map_err(cannot_write)?;
        uploads.insert(digest, Upload { bytes, have: 0, touched: now });
        Ok(0)
    }

    /// Whoever appends has claimed the blob.
    pub(super) fn append(&self, digest: Digest, offset: u64, piece: &[u8], now: Timestamp) -> Result<u64> {
        let Upload { bytes, have, .. } = self.upload(digest)?;
        if offset != have {
            return Err(BlobError::Offset { digest, expected: have, got: offset });
        }
        let next = have.saturating_add(piece.len() as u64);
        if next > bytes {
            self.drop_upload(digest)?;
            return Err(BlobError::TooLong { digest, bytes });
        }
        let path = self.path(digest, bytes);
        let written = OpenOptions::new().write(true).open(&path).and_then(|file| file.write_all_at(piece, offset));
        written.map_err(|source| BlobError::File { path, source })?;
        self.uploads().insert(digest, Upload { bytes, have: next, touched: now });
        Ok(next)
    }

    /// How many bytes an upload has that lacks none.
    pub(super) fn whole(&self, digest: Digest) -> Result<u64> {
        let Upload { bytes, have, .. } = self.upload(digest)?;
        match bytes - have {
            0 => Ok(bytes),
            missing => Err(BlobError::Unfinished { digest, missing }),
        }
    }

    /// Up to so many bytes from an offset on; none at the end.
    pub(super) fn read(&self, digest: Digest, offset: u64, bytes_max: usize) -> Result<Vec<u8>> {
        let Upload { bytes, .. } = self.upload(digest)?;
        let path = self.path(digest, bytes);
        let wanted = usize::try_from(bytes.saturating_sub(offset)).unwrap_or(bytes_max).min(bytes_max);
        let mut piece = vec![0; wanted];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut piece, offset));
        read.map_err(|source| BlobError::File { path, source })?;
        Ok(piece)
    }

    /// Drops an upload, if it is there.
    pub(super) fn drop_upload(&self, digest: Digest) -> Result<()> {
        let removed = self.uploads().remove(&digest);
        removed.map_or(Ok(()), |upload| self.remove(digest, upload.bytes))
    }

    /// Drops uploads that nobody has gone on with for so long. How many there were.
    pub(super) fn remove_stale(&self, kept: Duration, now: Timestamp) -> Result<usize> {
        let mut uploads = self.uploads();
        let is_stale = |upload: &Upload| now.since(upload.touched) > kept;
        let stale: Vec<_> = uploads.iter().filter(|(_, upload)| is_stale(upload)).map(|(digest, _)| *digest).collect();
        for digest in &stale {
            if let Some(upload) = uploads.remove(digest) {
                self.remove(*digest, upload.bytes)?;
            }
        }
        Ok(stale.len())
    }

    fn upload(&self, digest: Digest) -> Result<Upload> {
        self.uploads().get(&digest).copied().ok_or(BlobError::NotBegun { digest })
    }

    fn remove(&self, digest: Digest, bytes: u64) -> Result<()> {
        let path = self.path(digest, bytes);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BlobError::File { path, source: error }),
            _ => Ok(()),
        }
    }
}

fn parse_name(name: &str) -> Option<(Digest, u64)> {
    let (hex, bytes) = name.strip_suffix(SUFFIX)?.split_once('.')?;
    Some((hex.parse().ok()?, bytes.parse().ok()?))
}

fn disk_free(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
