//! Deployed packages as programs that can be executed.
//!
//! A slot is verified byte for byte and never written to, so its program is executed as a copy beside the slots, which is held
//! against its digest every time.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use revoada_bundle::hash_file;
use revoada_bundle::partial::Partial;
use revoada_core::Digest;
use thiserror::Error;

use crate::{CONTENT, Fault, VerifiedSlot};

#[derive(Debug, Error)]
pub(super) enum ProgramError {
    #[error("cannot copy program `{}`", path.display())]
    Copy {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("program `{}` is not {digest}", path.display())]
    Changed { path: PathBuf, digest: Digest },
}

impl ProgramError {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::Copy { source, .. } if source.kind() == io::ErrorKind::StorageFull => Fault::NoRoom,
            _ => Fault::Passing,
        }
    }
}

/// The programs in a folder, which is created with the first.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    folder: PathBuf,
}

impl Programs {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The copy of a package.
    pub(super) fn executable(&self, package: &VerifiedSlot) -> Result<PathBuf, ProgramError> {
        let digest = package.placed().digest;
        if let Some(path) = self.find(digest) {
            return Ok(path);
        }
        let path = self.path(digest);
        let copy = || -> io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let partial = Partial::create(&path)?;
            fs::copy(package.folder().join(CONTENT), partial.path())?;
            fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o755))?;
            partial.commit().map(drop)
        };
        copy().map_err(|source| ProgramError::Copy { path: path.clone(), source })?;
        self.find(digest).ok_or(ProgramError::Changed { path, digest })
    }

    /// The copy of a package that was executed before, where it is whole.
    pub(super) fn find(&self, digest: Digest) -> Option<PathBuf> {
        let path = self.path(digest);
        hash_file(&path).is_ok_and(|(found, _)| found == digest).then_some(path)
    }

    /// Which package this program is.
    pub(super) fn digest_of(&self, program: &Path) -> Option<Digest> {
        let name = program.strip_prefix(&self.folder).ok()?.to_str()?;
        name.parse().ok().filter(|digest: &Digest| digest.hex() == name)
    }

    /// Removes all but these.
    pub(super) fn keep(&self, digests: &[Digest]) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if !digests.iter().any(|digest| self.path(*digest) == path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }
}
