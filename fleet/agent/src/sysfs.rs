//! What Linux tells of its devices in small files.

use std::fs;
use std::path::{Path, PathBuf};

/// In a folder, by name; none where it cannot be read.
pub fn folders(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.is_dir());
    paths.sort();
    paths
}

/// Without the end of the line; `None` where it cannot be read.
pub fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// `None` where it cannot be read, or is none.
pub fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}
