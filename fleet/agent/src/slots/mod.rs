//! Two places on disk for each kind, and the record that says which is active.
//!
//! ```text
//! agent/
//!   state.json                  the state and the active slots; replaced by one rename
//!   model/a/<digest>/           a bundle, whole
//!   model/b/<digest>.partial/   one that is being fetched: whole files, and `<digest>.part` of the next
//!   pipeline/a/<digest>/        `content` and `signature.json`
//!   package/…
//! ```
//!
//! Only the slot that is not active is ever written to, and never while a trial may still need it to go back.

mod disk;
mod filling;
mod record;
mod verified;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use revoada_bundle::bundle::BundleError;
use revoada_bundle::sign::PublicKey;
use revoada_core::Digest;
use revoada_proto::{Generation, Kind};
use thiserror::Error;

pub use disk::{Disk, LocalDisk};
pub use filling::{Filling, Part, PartSource};
pub use verified::{CONTENT, VerifiedSlot, Verifier};

use crate::reconcile::Fault;
use crate::state::{Active, Found, Placed, Slot, State, kind_name};
use record::Record;

const STATE: &str = "state.json";
const KINDS: [Kind; 3] = [Kind::Model, Kind::Pipeline, Kind::Package];
const PARTIAL: &str = ".partial";
const REMOVED: &str = ".removed";
/// A slot holds one thing and one unfinished one; more is not looked at.
const NAMES_MAX: usize = 1024;

/// The slots of a device and their record.
#[derive(Debug)]
pub struct Slots<D> {
    disk: D,
    verifier: Verifier,
    record: Record,
    /// Set while the disk may, after a power cut, hold another record than this one.
    is_unsure: bool,
}

impl<D: Disk> Slots<D> {
    /// Reads what the folder, which must exist, says. What an interrupted fetch or removal has left stays until the next
    /// [`fill`](Self::fill) of its slot, which goes on with it or removes it.
    pub fn open(disk: D, folder: &Path, trusted: Vec<PublicKey>) -> Result<Self, SlotError> {
        let path = folder.join(STATE);
        let record = Record::read(&path)?;
        // Its writer may have been killed before its name was durable. A disk that takes nothing is still read from.
        let is_unsure = disk.sync_folder_of(&path).is_err();
        let verifier = Verifier::new(folder, trusted);
        Ok(Self { disk, verifier, record, is_unsure })
    }

    /// What an agent starts from.
    pub fn found(&self) -> Result<Found, SlotError> {
        let mut found = Found { state: self.record.state.clone(), active: self.active().clone(), ..Found::default() };
        for (kind, slot) in places() {
            let digests = names(&self.place(kind, slot))?.into_iter().filter_map(|name| digest_of(&name));
            // The active one, should a stranger have put another beside it.
            let active = self.active().get(&kind).filter(|placed| placed.slot == slot).map(|placed| placed.digest);
            let known = digests.max_by_key(|digest| Some(*digest) == active);
            found.contents.extend(known.map(|digest| ((kind, slot), digest)));
        }
        Ok(found)
    }

    /// What is active.
    pub fn active(&self) -> &Active {
        &self.record.active
    }

    /// Makes a state durable; what is active stays so. On an error the old one stands.
    pub fn save(&mut self, state: &State) -> Result<(), SlotError> {
        self.write(Record::new(state.clone(), self.record.active.clone()))
    }

    /// Makes a state durable and flips to these slots in one rename. Kinds in `emptied` run nothing from then on, all
    /// others what they ran. On an error everything stands as it was.
    pub fn activate(&mut self, state: &State, slots: &[VerifiedSlot], emptied: &[Kind]) -> Result<(), SlotError> {
        for slot in slots {
            // Whoever filled it may have been killed before its name, and those above, were durable.
            sync_names_above(&self.disk, slot.folder())?;
        }
        let mut active = self.record.active.clone();
        active.retain(|kind, _| !emptied.contains(kind));
        active.extend(slots.iter().map(|slot| (slot.kind(), slot.placed())));
        self.write(Record::new(state.clone(), active))
    }

    fn write(&mut self, record: Record) -> Result<(), SlotError> {
        let (known, older) = (self.record.state.known, record.state.known);
        if older < known {
            return Err(SlotError::Older { known, older });
        }
        let path = self.verifier.folder().join(STATE);
        self.is_unsure = true;
        self.disk.replace(&path, &record.to_bytes()).map_err(|source| cannot_write(&path, source))?;
        (self.record, self.is_unsure) = (record, false);
        Ok(())
    }

    /// Goes on with, or begins, filling a slot that is not active. Whatever else was in it is removed. Who fills must
    /// have stopped before another begins to, and before [`activate`](Self::activate).
    pub fn fill(&mut self, kind: Kind, placed: Placed) -> Result<Filling<D>, SlotError> {
        let Placed { slot, digest } = placed;
        if self.record.state.trial.is_some() {
            return Err(SlotError::OnTrial { kind });
        }
        if self.active().get(&kind).is_some_and(|active| active.slot == slot) {
            return Err(SlotError::Active { kind, slot });
        }
        if self.is_unsure {
            // What the disk holds to be active might be this slot.
            self.write(self.record.clone())?;
        }
        let place = self.place(kind, slot);
        let partial = place.join(digest.hex() + PARTIAL);
        filling::create_folders(&self.disk, self.verifier.folder(), &partial)?;
        let (half_removed, others): (Vec<_>, Vec<_>) =
            names(&place)?.into_iter().map(|name| place.join(name)).partition(|path| is_half_removed(path));
        for path in half_removed {
            self.remove_tree(&path)?;
        }
        for path in others.into_iter().filter(|path| *path != partial) {
            // Under another name first, so that what is half removed is never taken for whole.
            let mut removed = path.clone().into_os_string();
            removed.push(REMOVED);
            let renamed = self.disk.rename(&path, removed.as_ref()).and_then(|()| self.disk.sync_folder_of(&path));
            renamed.map_err(|source| cannot_write(&path, source))?;
            self.remove_tree(removed.as_ref())?;
        }
        Ok(Filling::new(self.disk.clone(), kind, placed, partial))
    }

    /// Reads everything in a slot and holds it against its digest and the trusted keys.
    pub fn verify(&self, kind: Kind, placed: Placed) -> Result<VerifiedSlot, SlotError> {
        self.verifier.verify(kind, placed)
    }

    /// What verifies slots while others are filled.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    fn place(&self, kind: Kind, slot: Slot) -> PathBuf {
        self.verifier.place(kind, slot)
    }

    /// Removes a folder and all in it, or a file.
    fn remove_tree(&self, path: &Path) -> Result<(), SlotError> {
        let kind = fs::symlink_metadata(path).map_err(|source| cannot_read(path, source))?;
        if !kind.is_dir() {
            return self.disk.remove_file(path).map_err(|source| cannot_write(path, source));
        }
        for name in names(path)? {
            self.remove_tree(&path.join(name))?;
        }
        self.disk.remove_folder(path).map_err(|source| cannot_write(path, source))
    }
}

/// Makes the names in a slot's folder, and in the folders in it, durable.
fn sync_tree(disk: &impl Disk, folder: &Path) -> Result<(), SlotError> {
    for name in names(folder)? {
        let path = folder.join(name);
        if path.is_dir() {
            sync_tree(disk, &path)?;
        }
    }
    let inside = folder.join(STATE);
    disk.sync_folder_of(&inside).map_err(|source| cannot_write(folder, source))
}

/// Makes the names of a slot's folder, of the slot and of its kind durable.
fn sync_names_above(disk: &impl Disk, folder: &Path) -> Result<(), SlotError> {
    for path in folder.ancestors().take(3) {
        disk.sync_folder_of(path).map_err(|source| cannot_write(path, source))?;
    }
    Ok(())
}

fn places() -> impl Iterator<Item = (Kind, Slot)> {
    KINDS.into_iter().flat_map(|kind| Slot::ALL.map(|slot| (kind, slot)))
}

fn is_half_removed(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(REMOVED.as_bytes())
}

/// The digest that a folder's name is, in the one way that we write it.
fn digest_of(name: &str) -> Option<Digest> {
    name.parse().ok().filter(|digest: &Digest| digest.hex() == name)
}

/// What lies in a folder, sorted; nothing where there is none. Names that are not text are not ours and are left out.
fn names(folder: &Path) -> Result<Vec<String>, SlotError> {
    let entries = match fs::read_dir(folder) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|source| cannot_read(folder, source))?,
    };
    let mut names = Vec::new();
    for entry in entries.take(NAMES_MAX) {
        let name = entry.map_err(|source| cannot_read(folder, source))?.file_name();
        names.extend(name.into_string());
    }
    names.sort();
    Ok(names)
}

fn cannot_read(path: &Path, source: io::Error) -> SlotError {
    SlotError::Read { path: path.to_owned(), source }
}

fn cannot_write(path: &Path, source: io::Error) -> SlotError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SlotError::Full { path: path.to_owned() },
        _ => SlotError::Write { path: path.to_owned(), source },
    }
}

/// Why a slot could not be read, filled, trusted or made active. What is active is then as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SlotError {
    /// The record is damaged, or of a later version.
    #[error("the agent's state `{path}` cannot be used: {reason}")]
    State { path: PathBuf, reason: String },
    /// The state to be saved knows less than the disk.
    #[error("generation {older} is older than {known}, which this device knows")]
    Older { known: Generation, older: Generation },
    /// Both slots are in use until the trial is over.
    #[error("a {} cannot be fetched while a trial may go back to the one that its slot holds", kind_name(*.kind))]
    OnTrial { kind: Kind },
    /// What is active is not written to.
    #[error("slot {slot} cannot be filled with another {}: it is active", kind_name(*.kind))]
    Active { kind: Kind, slot: Slot },
    /// A file or folder that should be there cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The disk refuses a change, for another reason than that it is full.
    #[error("cannot write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The disk became full while it was written to.
    #[error("cannot write `{path}`: the disk is full")]
    Full { path: PathBuf },
    /// The disk has too little room for what is to be fetched.
    #[error("`{folder}` has room for {free} bytes, and {needed} are needed")]
    NoRoom { folder: PathBuf, needed: u64, free: u64 },
    /// More came than there should be.
    #[error("`{part}` is longer than its {bytes_max} bytes")]
    TooLong { part: String, bytes_max: u64 },
    /// What came, or what lies there, is something else.
    #[error("the bytes of `{part}` are not those of {digest}")]
    Changed { part: String, digest: Digest },
    /// A slot was to be finished too early.
    #[error("`{part}` has not been fetched")]
    Unfinished { part: String },
    /// Nobody who is trusted has signed it.
    #[error("`{folder}` has a signature that cannot be trusted: {reason}")]
    Signature { folder: PathBuf, reason: String },
    /// What is wrong with a bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl SlotError {
    /// What an agent makes of it.
    pub fn fault(&self) -> Fault {
        use revoada_bundle::bundle::BundleErrorKind as Kind;
        match self {
            Self::Full { .. } | Self::NoRoom { .. } => Fault::NoRoom,
            Self::TooLong { .. } | Self::Changed { .. } | Self::Unfinished { .. } => Fault::Damaged,
            Self::Signature { .. } => Fault::Refused,
            Self::Bundle(error) => match &error.kind {
                Kind::NotABundle | Kind::Missing { .. } | Kind::Unknown { .. } | Kind::Changed { .. } => Fault::Damaged,
                Kind::Read { .. } => Fault::Passing,
                _ => Fault::Refused,
            },
            Self::State { .. }
            | Self::Older { .. }
            | Self::OnTrial { .. }
            | Self::Active { .. }
            | Self::Read { .. }
            | Self::Write { .. } => Fault::Passing,
        }
    }
}
