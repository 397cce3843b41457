//! A picture of each event's frame, as drawn, in a folder of bounded size.
//!
//! Pictures are `<event's id>.event.jpg`. Where they are more than may be, the oldest are deleted, those of earlier
//! runs too; other files in the folder are left alone. A picture that cannot be written is told and goes missing: the
//! event goes on without it.

use std::fs;
use std::io;

use revoada_bundle::partial::Partial;
use tracing::warn;

use super::kept::Kept;
use super::output::file_name;
use super::picture::jpeg;
use super::record::EventRecord;
use crate::config::SnapshotsConfig;
use crate::{FrameResult, SinkError};

const JPEG_QUALITY: u8 = 85;
const SUFFIX: &str = ".event.jpg";

#[derive(Debug)]
pub(super) struct Snapshots {
    kept: Kept,
    /// That one could not be written was told since one was.
    told: bool,
}

impl Snapshots {
    /// Creates the folder where only its last part is missing, and finds the pictures that are there.
    pub(super) fn open(config: &SnapshotsConfig) -> Result<Self, SinkError> {
        let SnapshotsConfig { folder, mb_max } = config;
        let kept = match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Kept::open(folder, &[SUFFIX], u64::from(*mb_max) * 1_000_000),
        };
        let mut kept = kept.map_err(|source| SinkError::Write { path: folder.clone(), source })?;
        kept.make_room(0);
        Ok(Self { kept, told: false })
    }

    /// Writes the frame's picture for each of its events, and its path into them.
    pub(super) fn keep(&mut self, result: &FrameResult, events: &mut [EventRecord]) {
        if events.is_empty() {
            return;
        }
        let kept = jpeg(&result.picture().view(), JPEG_QUALITY).and_then(|picture| {
            events.iter_mut().try_for_each(|event| {
                event.snapshot = Some(self.write(&event.id, &picture)?);
                Ok(())
            })
        });
        match kept {
            Ok(()) => self.told = false,
            Err(error) if !self.told => {
                self.told = true;
                warn!(folder = %self.kept.folder().display(), %error, "events go without pictures");
            }
            Err(_) => {}
        }
    }

    fn write(&mut self, id: &str, picture: &[u8]) -> io::Result<String> {
        let name = file_name(&revoada_core::StreamId::new(id));
        let path = self.kept.folder().join(format!("{name}{SUFFIX}"));
        // A file that is played again has the same events again.
        self.kept.forget(&name);
        self.kept.make_room(picture.len() as u64);
        let partial = Partial::create(&path)?;
        fs::write(partial.path(), picture)?;
        partial.commit_unsynced()?;
        self.kept.add(&name)?;
        Ok(path.display().to_string())
    }
}
