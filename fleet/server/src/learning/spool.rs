//! Updates of a round that is under way, a file each: bare little-endian numbers in the order of the layout.
//!
//! They outlive the process and not a loss of power: what is not there any more, or not as it was, is asked for again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use revoada_core::Digest;
use revoada_federated::{Contribution, Participant, ReadError, UpdateReader, Weights};

use super::task::RunId;

/// A folder of one round.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
}

impl Spool {
    pub(super) fn open(learning: &Path, run: RunId, round: u64) -> io::Result<Self> {
        let folder = learning.join(run.to_string()).join(round.to_string());
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// What is left of a run.
    pub(super) fn remove_run(learning: &Path, run: RunId) -> io::Result<()> {
        remove(&learning.join(run.to_string()))
    }

    /// Once the round is over.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove(&self.folder)
    }

    /// Names may hold anything.
    fn path(&self, participant: &Participant, update: Digest, kind: &str) -> PathBuf {
        let who = revoada_bundle::hash(participant.0.as_bytes()).hex();
        self.folder.join(format!("{}-{}.{kind}", &who[..32], update.hex()))
    }

    /// Puts an update there, whole or not at all.
    pub(super) fn put(&self, participant: &Participant, update: Digest, content: &Contribution<'_>) -> io::Result<()> {
        let path = self.path(participant, update, kind(content));
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial)?;
        content.each_piece(|bytes| file.write_all(bytes))?;
        fs::rename(&partial, &path)
    }

    /// An update as it was put there; `None` where it is not, or has another length.
    pub(super) fn get(
        &self,
        participant: &Participant,
        update: Digest,
        global: &Weights,
    ) -> Option<Contribution<'static>> {
        [DELTA, FULL].into_iter().find_map(|kind| {
            let mut bytes = Vec::new();
            File::open(self.path(participant, update, kind)).ok()?.read_to_end(&mut bytes).ok()?;
            let numbers = bytes.chunks_exact(size_of::<f32>());
            let values = numbers.map(|bytes| f32::from_le_bytes(bytes.try_into().expect("a chunk has four bytes")));
            let weights = Weights::new(global.layout().clone(), values.collect()).ok()?;
            Some(if kind == DELTA { Contribution::Delta(weights) } else { Contribution::Full(weights) })
        })
    }

    /// Whether it is there, and as long as it has to be.
    pub(super) fn has(&self, participant: &Participant, update: Digest, global: &Weights) -> bool {
        self.find(participant, update, global).is_some()
    }

    fn find(&self, participant: &Participant, update: Digest, global: &Weights) -> Option<(PathBuf, bool)> {
        [DELTA, FULL].into_iter().find_map(|kind| {
            let path = self.path(participant, update, kind);
            let length = size_of_val(global.values()) as u64;
            (fs::metadata(&path).ok()?.len() == length).then_some((path, kind == DELTA))
        })
    }

    /// These updates, to be read some numbers at a time; or whose is not there.
    pub(super) fn reader<'a>(
        &self,
        global: &'a Weights,
        updates: &BTreeMap<Participant, (Digest, u64)>,
    ) -> Result<Files<'a>, Participant> {
        let open = |(participant, (update, examples)): (&Participant, &(Digest, u64))| {
            let (path, is_delta) = self.find(participant, *update, global).ok_or_else(|| participant.clone())?;
            Ok(Update { path, is_delta, examples: *examples })
        };
        Ok(Files { global, updates: updates.iter().map(open).collect::<Result<_, _>>()? })
    }
}

const DELTA: &str = "delta";
const FULL: &str = "full";

fn kind(content: &Contribution<'_>) -> &'static str {
    if content.is_delta() { DELTA } else { FULL }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Updates in files. They are opened for each read: there may be more of them than a process may have open.
#[derive(Debug)]
pub(super) struct Files<'a> {
    global: &'a Weights,
    updates: Vec<Update>,
}

#[derive(Debug)]
struct Update {
    path: PathBuf,
    is_delta: bool,
    examples: u64,
}

impl UpdateReader for Files<'_> {
    fn count(&self) -> usize {
        self.updates.len()
    }

    fn examples(&self, update: usize) -> u64 {
        self.updates[update].examples
    }

    fn read(&self, update: usize, from: usize, values: &mut [f32]) -> Result<(), ReadError> {
        let Update { path, is_delta, .. } = &self.updates[update];
        let mut bytes = vec![0; size_of_val(values)];
        File::open(path)?.read_exact_at(&mut bytes, (from * size_of::<f32>()) as u64)?;
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(size_of::<f32>())) {
            *value = f32::from_le_bytes(bytes.try_into()?);
        }
        if *is_delta {
            let global = &self.global.values()[from..from + values.len()];
            values.iter_mut().zip(global).for_each(|(value, global)| *value += global);
        }
        Ok(())
    }
}
