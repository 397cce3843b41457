//! A picture of each event's frame, as drawn, in a folder of bounded size.
//!
//! Pictures are `<event's id>.event.jpg`. Where they are more than may be, the oldest are deleted, those of earlier
//! runs too; other files in the folder are left alone. A picture that cannot be written is told and goes missing: the
//! event goes on without it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use revoada_bundle::partial::Partial;
use tracing::warn;

use super::output::file_name;
use super::picture::jpeg;
use super::record::EventRecord;
use crate::config::SnapshotsConfig;
use crate::{FrameResult, SinkError};

const JPEG_QUALITY: u8 = 85;
const SUFFIX: &str = ".event.jpg";

#[derive(Debug)]
pub(super) struct Snapshots {
    folder: PathBuf,
    bytes_max: u64,
    /// By age, the oldest first, with their sizes.
    pictures: VecDeque<(PathBuf, u64)>,
    bytes: u64,
    /// That one could not be written was told since one was.
    told: bool,
}

impl Snapshots {
    /// Creates the folder where only its last part is missing, and finds the pictures that are there.
    pub(super) fn open(config: &SnapshotsConfig) -> Result<Self, SinkError> {
        let SnapshotsConfig { folder, mb_max } = config;
        let found = match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => found(folder),
        };
        let found = found.map_err(|source| SinkError::Write { path: folder.clone(), source })?;
        let pictures: VecDeque<_> = found.into_iter().map(|(_, path, bytes)| (path, bytes)).collect();
        let bytes = pictures.iter().map(|(_, bytes)| bytes).sum();
        let mut snapshots =
            Self { folder: folder.clone(), bytes_max: u64::from(*mb_max) * 1_000_000, pictures, bytes, told: false };
        snapshots.make_room(0);
        Ok(snapshots)
    }

    /// Writes the frame's picture for each of its events, and its path into them.
    pub(super) fn keep(&mut self, result: &FrameResult, events: &mut [EventRecord]) {
        if events.is_empty() {
            return;
        }
        let kept = jpeg(&result.picture().view(), JPEG_QUALITY).and_then(|picture| {
            events.iter_mut().try_for_each(|event| {
                let name = file_name(&revoada_core::StreamId::new(&event.id)) + SUFFIX;
                let path = self.folder.join(name);
                self.write(&path, &picture)?;
                event.snapshot = Some(path.display().to_string());
                Ok(())
            })
        });
        match kept {
            Ok(()) => self.told = false,
            Err(error) if !self.told => {
                self.told = true;
                warn!(folder = %self.folder.display(), %error, "events go without pictures");
            }
            Err(_) => {}
        }
    }

    fn write(&mut self, path: &Path, picture: &[u8]) -> io::Result<()> {
        // A file that is played again has the same events again.
        if let Some(index) = self.pictures.iter().position(|(known, _)| known == path) {
            self.bytes -= self.pictures.remove(index).map_or(0, |(_, bytes)| bytes);
        }
        let bytes = picture.len() as u64;
        self.make_room(bytes);
        let partial = Partial::create(path)?;
        fs::write(partial.path(), picture)?;
        partial.commit_unsynced()?;
        self.pictures.push_back((path.to_owned(), bytes));
        self.bytes += bytes;
        Ok(())
    }

    fn make_room(&mut self, bytes: u64) {
        while self.bytes + bytes > self.bytes_max
            && let Some((oldest, freed)) = self.pictures.pop_front()
        {
            self.bytes -= freed;
            match fs::remove_file(&oldest) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(picture = %oldest.display(), %error, "cannot delete an old picture");
                }
                _ => {}
            }
        }
    }
}

/// Pictures of events, by age.
fn found(folder: &Path) -> io::Result<Vec<(SystemTime, PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() && entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            found.push((metadata.modified()?, entry.path(), metadata.len()));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pictures_make_room_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let config = SnapshotsConfig { folder: folder.path().to_owned(), mb_max: 1 };
        fs::write(folder.path().join("holiday.jpg"), [0; 100]).unwrap();
        let mut snapshots = Snapshots { bytes_max: 100, ..Snapshots::open(&config).unwrap() };
        let path = |id: usize| folder.path().join(format!("{id}{SUFFIX}"));
        let kept = || (0..9).filter(|id| path(*id).exists()).collect::<Vec<_>>();
        for id in 0..4 {
            snapshots.write(&path(id), &[1; 30]).unwrap();
        }
        assert_eq!(kept(), [1, 2, 3]);
        // Written again, it is the newest.
        snapshots.write(&path(1), &[1; 35]).unwrap();
        snapshots.write(&path(4), &[1; 30]).unwrap();
        assert_eq!(kept(), [1, 3, 4]);
        assert_eq!(snapshots.bytes, 95);
        // Another run finds what is there.
        let again = Snapshots::open(&config).unwrap();
        assert_eq!((again.pictures.len(), again.bytes), (3, 95));
        snapshots.write(&path(5), &[1; 100]).unwrap();
        assert_eq!(kept(), [5]);
        assert!(folder.path().join("holiday.jpg").exists());
    }
}
