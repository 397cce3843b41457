//! Knows whether a made thing is still what its inputs would make.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::workspace::Workspace;

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hexadecimal(hasher));
        }
        hasher.update(&buffer[..count]);
    }
}

/// The SHA-256 of all files below a folder: that of the lines `sha256sum` would print for them, in the order of their
/// paths' bytes.
pub(crate) fn sha256_of_folder(folder: &Path) -> io::Result<String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(inside)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("the walk began there").to_string_lossy().into_owned();
                files.insert(name, sha256(&path)?);
            }
        }
    }
    let mut hasher = Sha256::new();
    for (name, hash) in files {
        hasher.update(format!("{hash}  {name}\n"));
    }
    Ok(hexadecimal(hasher))
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes beside and renames, so that a reader sees the old file or the new one.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let beside = path.with_added_extension("part");
    let write = || {
        fs::create_dir_all(path.parent().expect("a file of the cache has a folder"))?;
        fs::write(&beside, text)?;
        fs::rename(&beside, path)
    };
    write().with_context(|| format!("cannot write `{}`", path.display()))
}

/// Removes a folder that may not be there.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Something made from files of the repository and of the cache.
pub(crate) struct Made<'a> {
    pub(crate) name: &'a str,
    pub(crate) inputs: &'a [PathBuf],
    pub(crate) outputs: &'a [PathBuf],
}

impl Made<'_> {
    /// Calls `make` unless the outputs are those that it left behind when it last ran on these inputs.
    pub(crate) fn ensure(&self, workspace: &Workspace, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let stamp = workspace.cached(&format!("stamps/{}", self.name));
        if fs::read_to_string(&stamp).is_ok_and(|text| self.describe().is_ok_and(|now| now == text)) {
            return Ok(());
        }
        make()?;
        let made = self.describe().with_context(|| format!("cannot read what `{}` is made from or into", self.name))?;
        replace(&stamp, &made)
    }

    /// Forgets that it was made.
    pub(crate) fn forget(workspace: &Workspace, name: &str) -> Result<()> {
        let stamp = workspace.cached(&format!("stamps/{name}"));
        match fs::remove_file(&stamp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove `{}`", stamp.display()))
            }
            _ => Ok(()),
        }
    }

    fn describe(&self) -> io::Result<String> {
        let line = |path: &PathBuf| {
            // The name without its folder, so that the stamp holds after the checkout has moved.
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            Ok(format!("{} {name}\n", sha256(path)?))
        };
        self.inputs.iter().chain(self.outputs).map(line).collect()
    }
}
