//! A slot while it is being filled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use revoada_bundle::bundle::{Bundle, INDEX, INDEX_BYTES_MAX, SIGNATURE};
use revoada_bundle::hash_file;
use revoada_core::Digest;
use revoada_proto::Kind;

use super::verified::{SIGNATURE_BYTES_MAX, read_signature};
use super::{CONTENT, Disk, SlotError, cannot_read, cannot_write, names, sync_names_above, sync_tree};
use crate::state::Placed;

/// A pipeline's configuration is a page of text.
const PIPELINE_BYTES_MAX: u64 = 1 << 20;
/// The program with everything that it brings along.
const PACKAGE_BYTES_MAX: u64 = 4 << 30;
const PART: &str = ".part";

/// What is fetched next: [`next`](Self::next), [`append`](Self::append) its bytes, [`complete`](Self::complete) it, until
/// there is none; then [`finish`](Self::finish). Dropped at any time, or cut off by a power loss, what was fetched is
/// gone on with.
#[derive(Debug)]
pub struct Filling<D> {
    disk: D,
    kind: Kind,
    placed: Placed,
    partial: PathBuf,
}

/// A file that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its path in the slot.
    pub path: String,
    /// What to ask the server for.
    pub source: PartSource,
    /// How many bytes are there already.
    pub offset: u64,
    /// How long it is, where that is known.
    pub bytes: Option<u64>,
    /// More than so many bytes are refused.
    pub bytes_max: u64,
}

/// What a server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartSource {
    /// The bytes that have this digest.
    Blob(Digest),
    /// The signature over this digest.
    SignatureOf(Digest),
}

impl<D: Disk> Filling<D> {
    pub(super) fn new(disk: D, kind: Kind, placed: Placed, partial: PathBuf) -> Self {
        Self { disk, kind, placed, partial }
    }

    /// Which slot is filled, and with what.
    pub fn placed(&self) -> Placed {
        self.placed
    }

    /// The next part that is missing; `None` where everything was fetched.
    pub fn next(&self) -> Result<Option<Part>, SlotError> {
        Ok(self.missing()?.into_iter().next())
    }

    /// Whether the disk has room for what is missing and `reserve` bytes more. A part whose length is not known counts
    /// as `unknown` bytes: what the server says of it.
    pub fn check_room(&self, reserve: u64, unknown: u64) -> Result<(), SlotError> {
        let missing = self.missing()?;
        let left = missing.iter().map(|part| part.bytes.unwrap_or(unknown).saturating_sub(part.offset));
        let needed = left.fold(reserve, u64::saturating_add);
        let free = self.disk.free_bytes(&self.partial).map_err(|source| cannot_read(&self.partial, source))?;
        if free < needed {
            return Err(SlotError::NoRoom { folder: self.partial.clone(), needed, free });
        }
        Ok(())
    }

    /// Adds to a part.
    pub fn append(&self, part: &Part, bytes: &[u8]) -> Result<(), SlotError> {
        let path = self.part_path(part);
        let length = length(&path)?.checked_add(bytes.len() as u64);
        if length.is_none_or(|length| length > part.bytes.unwrap_or(part.bytes_max)) {
            return Err(SlotError::TooLong {
                part: part.path.clone(),
                bytes_max: part.bytes.unwrap_or(part.bytes_max),
            });
        }
        self.disk.append(&path, bytes).map_err(|source| cannot_write(&path, source))
    }

    /// Holds a part against its digest and makes it durable. One whose bytes are wrong is removed and is missing again.
    /// Whether a signature is from someone trusted, [`verify`](super::Slots::verify) says.
    pub fn complete(&self, part: &Part) -> Result<(), SlotError> {
        let source = self.part_path(part);
        if !source.exists() {
            self.disk.append(&source, &[]).map_err(|error| cannot_write(&source, error))?;
        }
        let (is_right, digest) = match part.source {
            PartSource::Blob(digest) => (hash_file(&source).map(|(found, _)| found == digest), digest),
            PartSource::SignatureOf(digest) => {
                (read_signature(&source, self.kind, digest).map(|it| it.is_ok()), digest)
            }
        };
        if !is_right.map_err(|error| cannot_read(&source, error))? {
            self.disk.remove_file(&source).map_err(|error| cannot_write(&source, error))?;
            return Err(SlotError::Changed { part: part.path.clone(), digest });
        }
        let target = self.partial.join(&part.path);
        create_folders(&self.disk, &self.partial, target.parent().expect("a file in a folder has one"))?;
        let placed = self.disk.sync_file(&source).and_then(|()| self.disk.rename(&source, &target));
        placed.and_then(|()| self.disk.sync_folder_of(&target)).map_err(|error| cannot_write(&target, error))
    }

    /// Gives the slot's folder its name. It is whole then, and has yet to be [verified](super::Slots::verify).
    pub fn finish(self) -> Result<(), SlotError> {
        if let Some(part) = self.next()? {
            return Err(SlotError::Unfinished { part: part.path });
        }
        for name in names(&self.partial)?.into_iter().filter(|name| name.ends_with(PART)) {
            let path = self.partial.join(name);
            self.disk.remove_file(&path).map_err(|source| cannot_write(&path, source))?;
        }
        let target = self.partial.with_file_name(self.placed.digest.hex());
        sync_tree(&self.disk, &self.partial)?;
        self.disk.rename(&self.partial, &target).map_err(|source| cannot_write(&target, source))?;
        sync_names_above(&self.disk, &target)
    }

    /// The parts that are missing and known of: those in a bundle's index are, once the index is there.
    fn missing(&self) -> Result<Vec<Part>, SlotError> {
        let digest = self.placed.digest;
        let (first, bytes_max) = match self.kind {
            Kind::Model => (INDEX, INDEX_BYTES_MAX),
            Kind::Pipeline => (CONTENT, PIPELINE_BYTES_MAX),
            Kind::Package => (CONTENT, PACKAGE_BYTES_MAX),
        };
        let mut parts = vec![
            self.part(first.to_owned(), PartSource::Blob(digest), None, bytes_max)?,
            self.part(SIGNATURE.to_owned(), PartSource::SignatureOf(digest), None, SIGNATURE_BYTES_MAX)?,
        ];
        if self.kind == Kind::Model && self.partial.join(INDEX).is_file() && self.partial.join(SIGNATURE).is_file() {
            for (path, record) in &Bundle::open(&self.partial)?.index().files {
                let source = PartSource::Blob(record.sha256);
                parts.push(self.part(path.clone(), source, Some(record.bytes), record.bytes)?);
            }
        }
        parts.retain(|part| !self.partial.join(&part.path).is_file());
        Ok(parts)
    }

    fn part(&self, path: String, source: PartSource, bytes: Option<u64>, max: u64) -> Result<Part, SlotError> {
        let part = Part { path, source, offset: 0, bytes, bytes_max: max };
        let offset = length(&self.part_path(&part))?;
        Ok(Part { offset, ..part })
    }

    /// Where a part lies until it is complete. There is one signature, and it has no digest to be called by.
    fn part_path(&self, part: &Part) -> PathBuf {
        let name = match part.source {
            PartSource::Blob(digest) => digest.hex(),
            PartSource::SignatureOf(_) => "signature".to_owned(),
        };
        self.partial.join(name + PART)
    }
}

fn length(path: &Path) -> Result<u64, SlotError> {
    match fs::metadata(path) {
        Ok(file) => Ok(file.len()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(cannot_read(path, source)),
    }
}

/// Creates the folders of `path` that are missing below `root`.
pub(super) fn create_folders(disk: &impl Disk, root: &Path, path: &Path) -> Result<(), SlotError> {
    let inside = path.strip_prefix(root).expect("the path lies below the root");
    let mut folder = root.to_owned();
    for name in inside {
        folder.push(name);
        if !folder.is_dir() {
            disk.create_folder(&folder).map_err(|source| cannot_write(&folder, source))?;
        }
    }
    Ok(())
}
