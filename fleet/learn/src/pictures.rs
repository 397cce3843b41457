//! Labelled pictures in a folder, as sets for image classification commonly lie: `FOLDER/LABEL/picture.jpg`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Of one folder that are looked at at all.
const FILES_MAX: usize = 200_000;
const EXTENSIONS: [&str; 5] = ["jpg", "jpeg", "png", "bmp", "webp"];

/// A file, and the class that its folder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub class: u32,
    pub path: PathBuf,
}

/// What a folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labelled {
    /// By label and name.
    pub pictures: Vec<Picture>,
    /// Labels that the model does not know, and how many pictures have them; those are passed over.
    pub unknown: BTreeMap<String, usize>,
}

#[derive(Debug, Error)]
pub enum PicturesError {
    #[error("cannot read the labelled pictures in `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("there are more than {FILES_MAX} files in `{}`", folder.display())]
    TooMany { folder: PathBuf },
    #[error("there are pictures of `{label}`, and two classes have this label")]
    Twice { label: String },
    #[error("there are no labels")]
    NoLabels,
}

/// Finds the pictures below a folder. The class of a label is its place in `labels`. Hidden folders are passed over, as is what
/// has no picture's name.
pub fn labelled(folder: &Path, labels: &[String]) -> Result<Labelled, PicturesError> {
    if labels.is_empty() {
        return Err(PicturesError::NoLabels);
    }
    // Common lists have a word for two things, which harms nobody unless pictures are called by it.
    let mut classes: BTreeMap<&str, Option<u32>> = BTreeMap::new();
    for (class, label) in (0_u32..).zip(labels) {
        classes.entry(label).and_modify(|class| *class = None).or_insert(Some(class));
    }
    let mut found = Labelled::default();
    let mut twice = None;
    each(folder, |label, path| match classes.get(label) {
        Some(Some(class)) => found.pictures.push(Picture { class: *class, path }),
        Some(None) => twice = Some(label.to_owned()),
        None => *found.unknown.entry(label.to_owned()).or_default() += 1,
    })?;
    match twice {
        Some(label) => Err(PicturesError::Twice { label }),
        None => Ok(found),
    }
}

/// Hands each picture with its label to `take`.
pub(crate) fn each(folder: &Path, mut take: impl FnMut(&str, PathBuf)) -> Result<(), PicturesError> {
    let mut files = 0;
    let mut names = |below: &Path| names(below, folder, &mut files);
    for label in names(folder)? {
        let below = folder.join(&label);
        if is_hidden(&label) || !below.is_dir() {
            continue;
        }
        for name in names(&below)? {
            let path = below.join(&name);
            let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
            if !is_hidden(&name)
                && extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known))
            {
                take(&label.to_string_lossy(), path);
            }
        }
    }
    Ok(())
}

fn is_hidden(name: &OsString) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// What a folder holds, in order. `files` is how many were found so far.
fn names(below: &Path, folder: &Path, files: &mut usize) -> Result<Vec<OsString>, PicturesError> {
    let cannot_read = |source| PicturesError::Read { path: below.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(below).map_err(cannot_read)? {
        *files += 1;
        if *files > FILES_MAX {
            return Err(PicturesError::TooMany { folder: folder.to_owned() });
        }
        names.push(entry.map_err(cannot_read)?.file_name());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|label| (*label).to_owned()).collect()
    }

    #[test]
    fn pictures_have_the_class_of_their_folder() {
        let set = tempfile::tempdir().unwrap();
        for path in ["b/2.PNG", "b/.1.jpg", "b/notes.txt", "a c/x.webp", ".hidden/y.png", "z.png", "d/1.jpg", "d/2.jpg"]
        {
            let path = set.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = labelled(set.path(), &labels(&["b", "unseen", "a c"])).unwrap();
        let expected = [(2, "a c/x.webp"), (0, "b/2.PNG")];
        let pictures: Vec<(u32, PathBuf)> = found.pictures.into_iter().map(|found| (found.class, found.path)).collect();
        assert_eq!(pictures, expected.map(|(class, path)| (class, set.path().join(path))));
        assert_eq!(found.unknown, BTreeMap::from([("d".to_owned(), 2)]));
    }

    #[test]
    fn pictures_of_a_label_that_two_classes_have_are_refused() {
        let set = tempfile::tempdir().unwrap();
        let twice = labels(&["crane", "a", "crane"]);
        fs::create_dir(set.path().join("a")).unwrap();
        fs::write(set.path().join("a/1.png"), "").unwrap();
        assert_eq!(labelled(set.path(), &twice).unwrap().pictures.len(), 1);
        fs::create_dir(set.path().join("crane")).unwrap();
        fs::write(set.path().join("crane/1.png"), "").unwrap();
        assert!(matches!(labelled(set.path(), &twice), Err(PicturesError::Twice { .. })));
        assert!(matches!(labelled(set.path(), &[]), Err(PicturesError::NoLabels)));
        let missing = labelled(&set.path().join("missing"), &labels(&["a"]));
        assert!(matches!(missing, Err(PicturesError::Read { .. })));
    }
}
