//! Where things lie.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout that this program was built from.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = here.canonicalize().with_context(|| format!("cannot find the workspace at `{}`", here.display()))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A file of the repository.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A fetched or made file.
    pub(crate) fn cached(&self, path: &str) -> PathBuf {
        self.root.join(".cache").join(path)
    }
}
