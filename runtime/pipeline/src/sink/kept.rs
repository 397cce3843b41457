//! Files of a sink's own in a folder, of which the oldest go where they are too many.
//!
//! What is kept together under one name, such as a film and what stands about it, is one item and goes together. Other
//! files in the folder are left alone.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tracing::warn;

/// Items by age, the oldest first; those of earlier runs too.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    /// What follows an item's name in the names of its files. They tell the sink's files from others.
    suffixes: &'static [&'static str],
    bytes_max: u64,
    items: VecDeque<Item>,
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    written: SystemTime,
    name: String,
    bytes: u64,
}

impl Kept {
    /// Finds what is there. Nothing is deleted yet.
    pub(super) fn open(folder: &Path, suffixes: &'static [&'static str], bytes_max: u64) -> io::Result<Self> {
        let mut found: BTreeMap<String, (SystemTime, u64)> = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            let Some(name) = suffixes.iter().find_map(|suffix| file.strip_suffix(suffix)) else { continue };
            let metadata = entry.metadata()?;
            // Those whose names begin so are not whole yet.
            if metadata.is_file() && !name.starts_with('.') {
                let written = metadata.modified()?;
                let (latest, bytes) = found.entry(name.to_owned()).or_insert((written, 0));
                (*latest, *bytes) = ((*latest).max(written), *bytes + metadata.len());
            }
        }
        let items = found.into_iter().map(|(name, (written, bytes))| Item { written, name, bytes });
        let mut items: Vec<_> = items.collect();
        items.sort();
        let bytes = items.iter().map(|item| item.bytes).sum();
        Ok(Self { folder: folder.to_owned(), suffixes, bytes_max, items: items.into(), bytes })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Counts an item whose files were written, as the newest; one that was written again is counted once.
    pub(super) fn add(&mut self, name: &str) -> io::Result<()> {
        self.forget(name);
        let mut item = Item { written: SystemTime::UNIX_EPOCH, name: name.to_owned(), bytes: 0 };
        for suffix in self.suffixes {
            match fs::metadata(self.folder.join(format!("{name}{suffix}"))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                metadata => {
                    let metadata = metadata?;
                    (item.written, item.bytes) = (metadata.modified()?.max(item.written), item.bytes + metadata.len());
                }
            }
        }
        self.bytes += item.bytes;
        self.items.push_back(item);
        Ok(())
    }

    /// An item is written anew: what it was does not count.
    pub(super) fn forget(&mut self, name: &str) {
        if let Some(index) = self.items.iter().position(|item| item.name == name) {
            self.bytes -= self.items.remove(index).map_or(0, |item| item.bytes);
        }
    }

    /// Deletes the oldest until `bytes` more fit; returns how many items that were.
    pub(super) fn make_room(&mut self, bytes: u64) -> u64 {
        let mut deleted = 0;
        while self.bytes.saturating_add(bytes) > self.bytes_max && self.delete_oldest() {
            deleted += 1;
        }
        deleted
    }

    /// Deletes what was written before `earliest`; returns how many items that were.
    pub(super) fn expire(&mut self, earliest: SystemTime) -> u64 {
        let mut deleted = 0;
        while self.items.front().is_some_and(|item| item.written < earliest) && self.delete_oldest() {
            deleted += 1;
        }
        deleted
    }

    fn delete_oldest(&mut self) -> bool {
        let Some(Item { name, bytes, .. }) = self.items.pop_front() else { return false };
        self.bytes -= bytes;
        for suffix in self.suffixes {
            let path = self.folder.join(format!("{name}{suffix}"));
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(file = %path.display(), %error, "cannot delete an old file");
                }
                _ => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SUFFIXES: &[&str] = &[".film", ".about"];

    fn write(kept: &mut Kept, name: &str, bytes: usize, second: u64) -> u64 {
        let deleted = kept.make_room(bytes as u64 + 10);
        fs::write(kept.folder.join(format!("{name}.film")), vec![1; bytes]).unwrap();
        fs::write(kept.folder.join(format!("{name}.about")), [1; 10]).unwrap();
        for suffix in SUFFIXES {
            let file = fs::File::options().write(true).open(kept.folder.join(format!("{name}{suffix}"))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        }
        kept.add(name).unwrap();
        deleted
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_go_with_all_their_files_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        for other in ["holiday.jpg", "film", ".c.film"] {
            fs::write(folder.path().join(other), [0; 500]).unwrap();
        }
        let mut kept = Kept::open(folder.path(), SUFFIXES, 100).unwrap();
        assert_eq!(
            [write(&mut kept, "a", 30, 1), write(&mut kept, "b", 30, 2), write(&mut kept, "c", 30, 3)],
            [0, 0, 1]
        );
        assert_eq!(names(folder.path()), [".c.film", "b.about", "b.film", "c.about", "c.film", "film", "holiday.jpg"]);
        // Another run finds what is there.
        let mut again = Kept::open(folder.path(), SUFFIXES, 100).unwrap();
        assert_eq!((again.items.len(), again.bytes), (2, 80));
        // Where the items alone are too large, the newest is all that is left.
        assert_eq!(write(&mut again, "d", 90, 4), 2);
        assert_eq!(names(folder.path()), [".c.film", "d.about", "d.film", "film", "holiday.jpg"]);
    }

    #[test]
    fn what_is_too_old_goes_however_little_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(folder.path(), SUFFIXES, 1000).unwrap();
        assert!((1..=4).all(|second| write(&mut kept, &second.to_string(), 1, second) == 0));
        assert_eq!(kept.expire(SystemTime::UNIX_EPOCH + Duration::from_secs(3)), 2);
        assert_eq!(names(folder.path()), ["3.about", "3.film", "4.about", "4.film"]);
        assert_eq!(kept.bytes, 22);
    }

    #[test]
    fn an_item_that_is_written_again_is_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(folder.path(), SUFFIXES, 100).unwrap();
        assert!((1..=2).all(|second| write(&mut kept, &second.to_string(), 30, second) == 0));
        kept.forget("1");
        assert_eq!(write(&mut kept, "1", 20, 3), 0);
        assert_eq!((kept.bytes, write(&mut kept, "3", 40, 4)), (70, 1));
        assert_eq!(names(folder.path()), ["1.about", "1.film", "3.about", "3.film"]);
    }
}
