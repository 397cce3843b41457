//! A file that appears under its name only when it is whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A name beside the target, `.name.partial`, that becomes the target at [`commit`](Self::commit) and
/// is removed when dropped before. What stood under the target's name stays until then.
#[derive(Debug)]
pub struct Partial {
    target: PathBuf,
    partial: PathBuf,
    committed: bool,
}

impl Partial {
    /// Reserves the name by creating an empty file, so that a folder that does not exist or cannot
    /// be written is found before any work is done. Folders are not created: a mistyped path is to
    /// fail, not to grow a tree. Through a symbolic link the file it points to is replaced, not the link.
    pub fn create(target: &Path) -> io::Result<Self> {
        let target = match fs::canonicalize(target) {
            Ok(pointed_to) if target.is_symlink() => pointed_to,
            _ => target.to_path_buf(),
        };
        check_folder(&target)?;
        let name = target
            .file_name()
            .filter(|_| !target.is_dir())
            .ok_or_else(|| io::Error::new(io::ErrorKind::IsADirectory, "this is a folder, not a file"))?;
        let mut partial_name = OsString::from(".");
        partial_name.push(name);
        partial_name.push(".partial");
        let partial = target.with_file_name(partial_name);
        File::create(&partial)?;
        Ok(Self { target, partial, committed: false })
    }

    /// Where to write meanwhile.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Makes what was written durable and gives it its name.
    pub fn commit(mut self) -> io::Result<PathBuf> {
        File::open(&self.partial)?.sync_all()?;
        self.rename()?;
        sync_folder_of(&self.target)?;
        Ok(self.target.clone())
    }

    /// Gives what was written its name without waiting for the disk: for one of very many files, of
    /// which a power cut may take the last.
    pub fn commit_unsynced(mut self) -> io::Result<PathBuf> {
        self.rename()?;
        Ok(self.target.clone())
    }

    fn rename(&mut self) -> io::Result<()> {
        fs::rename(&self.partial, &self.target)?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        if let Err(error) = fs::remove_file(&self.partial)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.partial.display(), %error, "cannot remove a partial file");
        }
    }
}

/// Makes a name that was given or taken away durable: a renamed file is so only once its folder is.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Refuses a path in a folder that does not exist, naming the folder.
pub fn check_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        None => Ok(()),
        Some(folder) => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no folder `{}`", folder.display())))
        }
    }
}

/// Whoever looks at `path` sees the old file or the whole new one, even after a power cut.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = Partial::create(path)?;
    fs::write(partial.path(), bytes)?;
    partial.commit().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_file_stands_until_the_new_one_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.txt");
        fs::write(&target, "old").unwrap();
        let partial = Partial::create(&target).unwrap();
        fs::write(partial.path(), "new").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(partial.commit().unwrap(), target);
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn what_is_not_committed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(Partial::create(&folder.path().join("a.txt")).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_stays_a_link_and_what_it_points_to_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.txt"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"new");
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = replace(&folder.path().join("missing/a.txt"), b"").unwrap_err();
        assert!(error.to_string().contains("there is no folder") && error.to_string().contains("missing"), "{error}");
        let error = replace(folder.path(), b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}
