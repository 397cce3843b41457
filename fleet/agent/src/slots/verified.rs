//! What may be activated.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use revoada_bundle::bundle::{Bundle, INDEX, SIGNATURE, Trust};
use revoada_bundle::hash_file;
use revoada_bundle::sign::{PublicKey, Purpose, Signature};
use revoada_core::Digest;
use revoada_proto::Kind;

use super::{SlotError, cannot_read};
use crate::state::{Placed, Slot, kind_name};

/// The file of a kind that is one file.
pub const CONTENT: &str = "content";
/// A signature is 300 bytes.
pub(super) const SIGNATURE_BYTES_MAX: u64 = 4 << 10;

/// A slot whose every byte was just read and is what a trusted key has signed. The only way to a slot's path, so that
/// nothing unverified is run, and the only thing that [`activate`](super::Slots::activate) takes.
///
/// ```compile_fail,E0308
/// # use revoada_agent::{LocalDisk, Placed, SlotError, Slots, State};
/// fn activate(slots: &mut Slots<LocalDisk>, state: &State, placed: Placed) -> Result<(), SlotError> {
///     slots.activate(state, &[placed], &[])
/// }
/// ```
#[derive(Debug)]
pub struct VerifiedSlot {
    kind: Kind,
    placed: Placed,
    folder: PathBuf,
}

/// Holds slots against their digests and the trusted keys.
#[derive(Clone, Debug)]
pub struct Verifier {
    folder: PathBuf,
    trusted: Vec<PublicKey>,
}

impl Verifier {
    pub(super) fn new(folder: &Path, trusted: Vec<PublicKey>) -> Self {
        Self { folder: folder.to_owned(), trusted }
    }

    /// Reads everything in a slot and holds it against its digest and the trusted keys.
    pub fn verify(&self, kind: Kind, placed: Placed) -> Result<VerifiedSlot, SlotError> {
        let folder = self.place(kind, placed.slot).join(placed.digest.hex());
        VerifiedSlot::verify(kind, placed, folder, &self.trusted)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn place(&self, kind: Kind, slot: Slot) -> PathBuf {
        self.folder.join(kind_name(kind)).join(slot.name())
    }
}

impl VerifiedSlot {
    fn verify(kind: Kind, placed: Placed, folder: PathBuf, trusted: &[PublicKey]) -> Result<Self, SlotError> {
        let changed = |part: &str| SlotError::Changed { part: part.to_owned(), digest: placed.digest };
        if kind == Kind::Model {
            let bundle = Bundle::open(&folder)?.verify(Trust::OneOf(trusted))?;
            return match bundle.digest() == placed.digest {
                true => Ok(Self { kind, placed, folder }),
                false => Err(changed(INDEX)),
            };
        }
        let content = folder.join(CONTENT);
        match hash_file(&content) {
            Ok((digest, _)) if digest == placed.digest => {}
            Ok(_) => return Err(changed(CONTENT)),
            Err(error) => return Err(lost_or_unreadable(&content, error, || changed(CONTENT))),
        }
        let path = folder.join(SIGNATURE);
        let signature = read_signature(&path, kind, placed.digest)
            .map_err(|error| lost_or_unreadable(&path, error, || changed(SIGNATURE)))?;
        let refuse = |reason| SlotError::Signature { folder: folder.clone(), reason };
        let key = signature.map_err(refuse)?.key;
        if !trusted.contains(&key) {
            return Err(refuse(format!("`{key}` is not among the trusted keys")));
        }
        Ok(Self { kind, placed, folder })
    }

    /// What it is one of.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Which slot it is, and what is in it.
    pub fn placed(&self) -> Placed {
        self.placed
    }

    /// A bundle's folder, or one with the file [`CONTENT`].
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn purpose(kind: Kind) -> Purpose {
    match kind {
        Kind::Model => Purpose::Bundle,
        Kind::Pipeline => Purpose::Pipeline,
        Kind::Package => Purpose::Package,
    }
}

/// The signature of a kind and a digest in a file; why it is none, where it does not match.
pub(super) fn read_signature(path: &Path, kind: Kind, digest: Digest) -> io::Result<Result<Signature, String>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SIGNATURE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(match serde_json::from_slice::<Signature>(&bytes) {
        Err(error) => Err(error.to_string()),
        Ok(signature) if !signature.verify(purpose(kind), digest) => Err("it does not match".to_owned()),
        Ok(signature) => Ok(signature),
    })
}

/// What is not there was damaged; what cannot be read may be readable later.
fn lost_or_unreadable(path: &Path, error: io::Error, changed: impl FnOnce() -> SlotError) -> SlotError {
    if error.kind() == io::ErrorKind::NotFound { changed() } else { cannot_read(path, error) }
}
