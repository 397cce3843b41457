//! The operations by which slots change a disk.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use revoada_bundle::partial;

/// Everything that [`Slots`](super::Slots) ever does to a disk; it reads past this. Tests interrupt each operation.
///
/// Nothing is durable but by [`sync_file`](Self::sync_file), [`sync_folder_of`](Self::sync_folder_of) and
/// [`replace`](Self::replace).
pub trait Disk: Clone + Send + Sync {
    /// Bytes that may still be written to the disk of a folder.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
    /// Creates one folder, whose parent is there.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Adds to the end of a file, which is created where it is missing.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's bytes durable.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Makes the names beside `path`, and its own, durable.
    fn sync_folder_of(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or a folder another name on the same disk.
    fn rename(&self, source: &Path, target: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
    /// Exchanges a file's bytes, durably: after a power cut it has the old ones or the new ones.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
}

/// The disk that the system has mounted.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(folder)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        OpenOptions::new().create(true).append(true).open(path)?.write_all(bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        partial::sync_folder_of(path)
    }

    fn rename(&self, source: &Path, target: &Path) -> io::Result<()> {
        fs::rename(source, target)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        partial::replace(path, bytes)
    }
}
