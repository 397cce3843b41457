//! A folder that a sink fills with files of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::SinkError;

/// Created where only its last part is missing.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Whether it was not there before, and nothing has been finished in it.
    new: bool,
}

impl Folder {
    pub(super) fn open(path: PathBuf) -> Result<Self, SinkError> {
        let opened = match fs::create_dir(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
                check_writable(&path).map(|()| false)
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(new) => Ok(Self { path, new }),
            Err(source) => Err(SinkError::Write { path, source }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder stays, whatever is in it.
    pub(super) fn keep(&mut self) {
        self.new = false;
    }
}

impl Drop for Folder {
    /// A run that failed before its first file leaves no folder.
    fn drop(&mut self) {
        if self.new {
            // One with files in it refuses, and stays.
            drop(fs::remove_dir(&self.path));
        }
    }
}

/// By writing: permissions alone do not tell of a read-only file system.
pub(super) fn check_writable(folder: &Path) -> io::Result<()> {
    let probe = folder.join(".revoada.partial");
    fs::write(&probe, [])?;
    fs::remove_file(probe)
}
