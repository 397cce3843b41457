//! Erases what a device has of pictures. Flash memory may keep the bytes of erased files until it writes over them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use revoada_bundle::partial::sync_folder_of;
use thiserror::Error;

use crate::cache::derived_folder;
use crate::pictures::{self, PicturesError};

/// Files below the folder of what was made of pictures; more are somebody else's.
const FILES_MAX: usize = 10_000;

/// What is to be erased. What was made of pictures always is, since that of one cannot be told from that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erase<'a> {
    /// And no picture.
    Derived,
    /// And the pictures of one label.
    Label(&'a str),
    /// And all pictures.
    Pictures,
}

/// What is there no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Features, weights and updates.
    pub derived: usize,
    pub pictures: usize,
    pub bytes: u64,
}

#[derive(Debug, Error)]
pub enum ForgetError {
    #[error("cannot erase `{}`", path.display())]
    Erase {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there are more than {FILES_MAX} files in `{}`", folder.display())]
    TooMany { folder: PathBuf },
    #[error(transparent)]
    Pictures(#[from] PicturesError),
}

/// Erases everything that was made of the pictures in a folder: their features, and the weights and updates that lie with
/// those. Where pictures are erased, too, so are the folders of labels that are empty then. What is erased before an error stays
/// erased; links are erased and not followed. A label of which there is no picture is none to forget, and no error.
pub fn forget(folder: &Path, what: Erase<'_>) -> Result<Forgotten, ForgetError> {
    let mut forgotten = Forgotten::default();
    let derived = derived_folder(folder);
    let is_folder = fs::symlink_metadata(&derived).is_ok_and(|metadata| metadata.is_dir());
    if is_folder {
        let cannot_erase = |source| ForgetError::Erase { path: derived.clone(), source };
        for entry in fs::read_dir(&derived).map_err(cannot_erase)? {
            if forgotten.derived >= FILES_MAX {
                return Err(ForgetError::TooMany { folder: derived });
            }
            forgotten.bytes += erase(&entry.map_err(cannot_erase)?.path())?;
            forgotten.derived += 1;
        }
        fs::remove_dir(&derived).map_err(cannot_erase)?;
        sync_folder_of(&derived).map_err(cannot_erase)?;
    } else if fs::symlink_metadata(&derived).is_ok() {
        forgotten.bytes += erase(&derived)?;
        forgotten.derived += 1;
    }
    if what != Erase::Derived {
        let is_wanted = |label: &str| !matches!(what, Erase::Label(wanted) if wanted != label);
        let mut found = Vec::new();
        pictures::each(folder, |label, path| found.extend(is_wanted(label).then_some(path)))?;
        for path in &found {
            forgotten.bytes += erase(path)?;
            forgotten.pictures += 1;
        }
        let mut labels: Vec<&Path> = found.iter().filter_map(|path| path.parent()).collect();
        labels.dedup();
        for label in labels {
            let cannot_erase = |source| ForgetError::Erase { path: label.to_owned(), source };
            sync_folder_of(&label.join("picture")).map_err(cannot_erase)?;
            match fs::remove_dir(label) {
                // Something else lies there, which was not asked about.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                // A label may be a link to a folder.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
                other => other.map_err(cannot_erase)?,
            }
        }
    }
    Ok(forgotten)
}

/// Removes a file and returns how large it was.
fn erase(path: &Path) -> Result<u64, ForgetError> {
    let cannot_erase = |source| ForgetError::Erase { path: path.to_owned(), source };
    let bytes = fs::symlink_metadata(path).map_err(cannot_erase)?.len();
    fs::remove_file(path).map_err(cannot_erase)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_of_pictures_goes_and_they_stay_unless_they_are_to_go() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "four").unwrap();
        };
        for path in ["a/1.png", "a/2.jpg", "b/1.png", "b/notes.txt", "notes.txt"] {
            write(path);
        }
        assert_eq!(forget(folder.path(), Erase::Derived).unwrap(), Forgotten::default());
        write(".revoada-learn/features");
        write(".revoada-learn/update.safetensors");
        let derived = forget(folder.path(), Erase::Derived).unwrap();
        assert_eq!(derived, Forgotten { derived: 2, pictures: 0, bytes: 8 });
        assert!(!folder.path().join(".revoada-learn").exists() && folder.path().join("a/1.png").exists());
        write(".revoada-learn/features");
        let label = forget(folder.path(), Erase::Label("b")).unwrap();
        assert_eq!(label, Forgotten { derived: 1, pictures: 1, bytes: 8 });
        assert_eq!(forget(folder.path(), Erase::Label("c")).unwrap(), Forgotten::default());
        let all = forget(folder.path(), Erase::Pictures).unwrap();
        assert_eq!(all, Forgotten { derived: 0, pictures: 2, bytes: 8 });
        assert!(!folder.path().join("a").exists());
        assert!(folder.path().join("b/notes.txt").exists() && folder.path().join("notes.txt").exists());
    }

    #[test]
    fn a_link_is_not_followed() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = other.path().join("kept.png");
        fs::write(&kept, "kept").unwrap();
        std::os::unix::fs::symlink(other.path(), folder.path().join(".revoada-learn")).unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        std::os::unix::fs::symlink(&kept, folder.path().join("a/1.png")).unwrap();
        let forgotten = forget(folder.path(), Erase::Pictures).unwrap();
        assert_eq!((forgotten.derived, forgotten.pictures), (1, 1));
        assert!(kept.exists());
    }
}
