//! Events until the service has them.
//!
//! One file each, so that what is receipted is gone without rewriting anything. They are not forced to the disk, which would
//! wear flash out for little: a restart of the agent loses none, a power cut may lose the last seconds'.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use revoada_bundle::partial::Partial;
use revoada_proto::Event;
use revoada_proto::message::{decode_event, encode_event};
use thiserror::Error;
use tracing::warn;

/// Each takes a block of the disk, however short it is.
const EVENTS_MAX: usize = 4096;

#[derive(Debug, Error)]
#[error("cannot {what} `{}`", path.display())]
pub struct SpoolError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The events that the service does not have, oldest first. At its bound it drops the oldest and counts them in the next.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    bytes_max: u64,
    bytes: u64,
    events: BTreeMap<u64, Vec<u8>>,
}

impl Spool {
    /// What is in the folder, which is created where it is missing. A file that is no event is removed.
    pub(super) fn open(folder: &Path, bytes_max: u64) -> Result<Self, SpoolError> {
        let fail = |what| move |source| SpoolError { what, path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(fail("create"))?;
        let mut spool = Self { folder: folder.to_owned(), bytes_max, bytes: 0, events: BTreeMap::new() };
        for entry in fs::read_dir(folder).map_err(fail("read"))? {
            let path = entry.map_err(fail("read"))?.path();
            match fs::read(&path).ok().and_then(|bytes| Some((decode_event(&bytes).ok()?.sequence, bytes))) {
                Some((sequence, bytes)) if spool.path(sequence) == path => {
                    spool.bytes += bytes.len() as u64;
                    spool.events.insert(sequence, bytes);
                }
                _ => {
                    warn!(path = %path.display(), "removing what is no event");
                    fs::remove_file(&path).map_err(|source| SpoolError { what: "remove", path, source })?;
                }
            }
        }
        spool.make_room(0)?;
        Ok(spool)
    }

    /// Adds an event, which is newer than all others.
    pub(super) fn push(&mut self, event: &Event) -> Result<(), SpoolError> {
        let bytes = encode_event(event);
        let lost = self.make_room(bytes.len() as u64)?;
        match lost {
            0 => self.write(event.sequence, bytes),
            // It is the only one that is left to say it.
            lost => self.write(event.sequence, encode_event(&Event { lost: event.lost + lost, ..event.clone() })),
        }
    }

    /// The service has it.
    pub(super) fn remove(&mut self, sequence: u64) -> Result<(), SpoolError> {
        let Some(bytes) = self.events.remove(&sequence) else { return Ok(()) };
        self.bytes -= bytes.len() as u64;
        let path = self.path(sequence);
        fs::remove_file(&path).map_err(|source| SpoolError { what: "remove", path, source })
    }

    /// Encoded events by their number, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.events.iter().map(|(sequence, bytes)| (*sequence, bytes.as_slice()))
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Drops the oldest until there is room, and counts them in the next; how many, where there is none.
    fn make_room(&mut self, bytes: u64) -> Result<u64, SpoolError> {
        let mut lost = 0;
        while self.bytes + bytes > self.bytes_max || self.events.len() >= EVENTS_MAX {
            let Some((&sequence, oldest)) = self.events.first_key_value() else { break };
            lost += 1 + decode_event(oldest).map_or(0, |event| event.lost);
            self.remove(sequence)?;
        }
        let Some((&sequence, next)) = self.events.first_key_value().filter(|_| lost > 0) else { return Ok(lost) };
        if let Ok(event) = decode_event(next) {
            self.write(sequence, encode_event(&Event { lost: event.lost + lost, ..event }))?;
        }
        Ok(0)
    }

    fn write(&mut self, sequence: u64, bytes: Vec<u8>) -> Result<(), SpoolError> {
        let path = self.path(sequence);
        let write = || -> io::Result<()> {
            let partial = Partial::create(&path)?;
            fs::write(partial.path(), &bytes)?;
            partial.commit_unsynced().map(drop)
        };
        write().map_err(|source| SpoolError { what: "write", path, source })?;
        self.bytes += bytes.len() as u64;
        self.bytes -= self.events.insert(sequence, bytes).map_or(0, |before| before.len() as u64);
        Ok(())
    }

    fn path(&self, sequence: u64) -> PathBuf {
        self.folder.join(format!("{sequence:016x}"))
    }
}

#[cfg(test)]
mod tests {
    use revoada_proto::Level;

    use super::*;

    fn event(sequence: u64) -> Event {
        let (name, text) = ("crashed".to_owned(), "x".repeat(100));
        Event { sequence, at_ms: 0, level: Level::Warn, name, text, result: None, lost: 0 }
    }

    fn sequences(spool: &Spool) -> Vec<u64> {
        spool.iter().map(|(sequence, _)| sequence).collect()
    }

    #[test]
    fn events_survive_a_restart_until_they_are_receipted() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 10_000).unwrap();
        for sequence in [1, 2, 300] {
            spool.push(&event(sequence)).unwrap();
        }
        spool.remove(2).unwrap();
        fs::write(folder.path().join("stray"), "x").unwrap();
        let spool = Spool::open(folder.path(), 10_000).unwrap();
        assert_eq!(sequences(&spool), [1, 300]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn at_the_bound_the_oldest_are_dropped_and_counted_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 500).unwrap();
        for sequence in 1..=20 {
            spool.push(&event(sequence)).unwrap();
        }
        let spool = Spool::open(folder.path(), 500).unwrap();
        let kept = sequences(&spool);
        assert_eq!(kept.last(), Some(&20));
        let lost: u64 = spool.iter().map(|(_, bytes)| decode_event(bytes).unwrap().lost).sum();
        assert_eq!(lost + kept.len() as u64, 20);
        assert!(spool.bytes <= 500 + 10);

        let spool = Spool::open(folder.path(), 100).unwrap();
        assert!(spool.iter().next().is_none(), "a smaller bound holds for what was kept before");
    }
}
