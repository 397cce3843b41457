//! Bundles: a model with everything that is needed to build, run and trust it, in one folder that never
//! changes and is called by its digest.
//!
//! ```text
//! faces.bundle/
//!   bundle.json      the index: what it is, where it comes from, and every other file's digest
//!   signature.json   whose it is: an Ed25519 signature over the digest of bundle.json
//!   model.onnx       the converted graph
//!   model.toml       its manifest: how pictures enter and how answers are read, with the labels
//!   golden.safetensors   a few inputs and what the model answers to them, where the builder wrote them
//!   …                calibration record, reports
//! ```
//!
//! The digest of a bundle is the SHA-256 of its index; the folder may have any name. Nothing in it tells
//! the time, so that building the same again gives the same bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use revoada_core::Digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::golden::{GOLDEN, Golden, GoldenError};
use crate::hash::{hash, hash_file};
use crate::manifest::{Manifest, ManifestError};
use crate::partial::sync_folder_of;
use crate::sign::{PublicKey, Purpose, SecretKey, Signature};

/// The version of the format that this program writes, and the latest that it reads.
pub const VERSION: u32 = 1;
pub const MODEL: &str = "model.onnx";
/// Beside the model and named as everywhere.
pub const MANIFEST: &str = "model.toml";
/// What the bundle is called by the digest of.
pub const INDEX: &str = "bundle.json";
pub const SIGNATURE: &str = "signature.json";

/// Larger than any index: its files are few and their names short.
pub const INDEX_BYTES_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 256;
/// What a manifest or a report may have; a model may have more, and is read by who runs it.
const READ_BYTES_MAX: u64 = 4 << 30;

/// The numbers that a model computes in, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    Fp32,
    Fp16,
    Int8,
}

impl Precision {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }
}

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    pub version: u32,
    pub name: String,
    pub precision: Precision,
    /// The program that made it: `revoada 0.1.0`.
    pub producer: String,
    /// SPDX identifier of the model's licence.
    pub licence: Option<String>,
    pub lineage: Lineage,
    /// By path inside the bundle.
    pub files: BTreeMap<String, FileRecord>,
}

/// What a bundle was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    /// Of the ONNX file that was converted.
    pub source: Option<Digest>,
    /// The bundle that this one replaces, where it was trained or tuned from one.
    pub parent: Option<Digest>,
    /// What was done to the source, in order.
    pub steps: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    pub bytes: u64,
    pub sha256: Digest,
}

impl Index {
    /// Reads an index and refuses paths that leave the bundle.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleErrorKind> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |error: serde_json::Error| BundleErrorKind::Index { reason: error.to_string() };
        let Versioned { version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if version == 0 || version > VERSION {
            return Err(BundleErrorKind::Version { version });
        }
        let index: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        let wrong = |reason: String| Err(BundleErrorKind::Index { reason });
        if index.files.len() > FILES_MAX {
            return wrong(format!("it names {} files, at most {FILES_MAX} are read", index.files.len()));
        }
        if let Some(path) = index.files.keys().find(|path| !is_inside(path)) {
            return wrong(format!("it names a file `{}` outside the bundle", path.escape_debug()));
        }
        if !index.files.contains_key(MODEL) || !index.files.contains_key(MANIFEST) {
            return wrong(format!("it names no `{MODEL}` or no `{MANIFEST}`"));
        }
        Ok(index)
    }
}

/// Whether a path stays inside the bundle and is none of the bundle's own files.
fn is_inside(path: &str) -> bool {
    let plain = |component| matches!(component, Component::Normal(_));
    let rebuilt: PathBuf = Path::new(path).components().filter(|component| plain(*component)).collect();
    !path.is_empty()
        && rebuilt == Path::new(path)
        && rebuilt.to_str() == Some(path)
        && path != INDEX
        && path != SIGNATURE
}

/// A bundle whose index was read; what the index says of the files is not yet known to be true.
#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
    index: Index,
    digest: Digest,
    signature: Option<Signature>,
}

/// Who must have signed.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Anybody or nobody: that nothing was damaged is all that is asked.
    Anybody,
    OneOf(&'a [PublicKey]),
}

/// Where what belongs to a bundle and is no part of it lies: `a.plan` beside `a.bundle`.
pub fn beside(bundle: &Path, extension: &str) -> PathBuf {
    match bundle.extension() {
        Some(known) if known == "bundle" => bundle.with_extension(extension),
        _ => {
            let mut name = bundle.as_os_str().to_owned();
            name.push(".");
            name.push(extension);
            name.into()
        }
    }
}

impl Bundle {
    /// Whether a folder claims to be a bundle.
    pub fn is_at(folder: &Path) -> bool {
        folder.join(INDEX).is_file()
    }

    pub fn open(folder: &Path) -> Result<Self, BundleError> {
        let fail = |kind| BundleError { folder: folder.to_owned(), kind };
        let read = |name: &str| {
            read_bounded(&folder.join(name), INDEX_BYTES_MAX)
                .map_err(|source| fail(BundleErrorKind::Read { file: name.to_owned(), source }))
        };
        if !Self::is_at(folder) {
            return Err(fail(BundleErrorKind::NotABundle));
        }
        let bytes = read(INDEX)?;
        let index = Index::parse(&bytes).map_err(fail)?;
        let signature = if folder.join(SIGNATURE).exists() {
            let signature = serde_json::from_slice(&read(SIGNATURE)?);
            Some(signature.map_err(|error| fail(BundleErrorKind::Signature { reason: error.to_string() }))?)
        } else {
            None
        };
        Ok(Self { folder: folder.to_owned(), index, digest: hash(&bytes), signature })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What the bundle is called by.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Who claims to have signed; whether that is so, [`verify`](Self::verify) says.
    pub fn signer(&self) -> Option<PublicKey> {
        self.signature.as_ref().map(|signature| signature.key)
    }

    /// Reads every file and holds it against the index, finds files that the index does not know, and
    /// checks who signed. Only what comes out of this is run.
    pub fn verify(self, trust: Trust<'_>) -> Result<VerifiedBundle, BundleError> {
        let fail = |kind| Err(BundleError { folder: self.folder.clone(), kind });
        match (&self.signature, trust) {
            (None, Trust::Anybody) => {}
            (None, Trust::OneOf(_)) => return fail(BundleErrorKind::Unsigned),
            (Some(signature), _) if !signature.verify(Purpose::Bundle, self.digest) => {
                return fail(BundleErrorKind::Signature { reason: "it does not match".to_owned() });
            }
            (Some(signature), Trust::OneOf(keys)) if !keys.contains(&signature.key) => {
                return fail(BundleErrorKind::Stranger { key: signature.key });
            }
            (Some(_), _) => {}
        }
        let mut found = BTreeSet::new();
        if let Err(source) = list(&self.folder, Path::new(""), &mut found) {
            return fail(BundleErrorKind::Read { file: ".".to_owned(), source });
        }
        if let Some(stranger) = found.iter().find(|file| !self.knows(file)) {
            return fail(BundleErrorKind::Unknown { file: stranger.clone() });
        }
        for (file, record) in &self.index.files {
            if !found.contains(file) {
                return fail(BundleErrorKind::Missing { file: file.clone() });
            }
            match hash_file(&self.folder.join(file)) {
                Err(source) => return fail(BundleErrorKind::Read { file: file.clone(), source }),
                Ok((sha256, bytes)) if (FileRecord { sha256, bytes }) != *record => {
                    return fail(BundleErrorKind::Changed { file: file.clone() });
                }
                Ok(_) => {}
            }
        }
        Ok(VerifiedBundle(self))
    }

    fn knows(&self, file: &str) -> bool {
        file == INDEX || file == SIGNATURE || self.index.files.contains_key(file)
    }
}

/// Files below `folder`, by their path in it. What is neither a file nor a folder is listed too, and is
/// then unknown to every index: a link is no part of a bundle.
fn list(folder: &Path, inside: &Path, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder.join(inside))? {
        let entry = entry?;
        let path = inside.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(folder, &path, found)?;
        } else {
            let name = path.to_string_lossy();
            found.insert(if kind.is_file() { name.into_owned() } else { format!("{name} (no plain file)") });
        }
        if found.len() > FILES_MAX + 2 {
            return Err(io::Error::other(format!("it has more than {FILES_MAX} files")));
        }
    }
    Ok(())
}

/// A bundle whose files are those of its index, signed by whom the caller trusts.
#[derive(Clone, Debug)]
pub struct VerifiedBundle(Bundle);

impl VerifiedBundle {
    pub fn index(&self) -> &Index {
        &self.0.index
    }

    pub fn digest(&self) -> Digest {
        self.0.digest
    }

    pub fn signer(&self) -> Option<PublicKey> {
        self.0.signer()
    }

    /// The converted graph.
    pub fn model_path(&self) -> PathBuf {
        self.0.folder.join(MODEL)
    }

    pub fn manifest(&self) -> Result<Manifest, ManifestError> {
        Manifest::load(&self.0.folder.join(MANIFEST))
    }

    /// What the model answers to a few inputs; `None` where the bundle does not say.
    pub fn golden(&self) -> Result<Option<Golden>, BundleError> {
        if !self.index().files.contains_key(GOLDEN) {
            return Ok(None);
        }
        let read = Golden::parse(&self.read(GOLDEN)?);
        read.map(Some)
            .map_err(|source| BundleError { folder: self.0.folder.clone(), kind: BundleErrorKind::Golden { source } })
    }

    /// A file's bytes, held against the index once more: nothing else is ever handed out.
    pub fn read(&self, file: &str) -> Result<Vec<u8>, BundleError> {
        let fail = |kind| BundleError { folder: self.0.folder.clone(), kind };
        let missing = || fail(BundleErrorKind::Missing { file: file.to_owned() });
        let record = self.0.index.files.get(file).ok_or_else(missing)?;
        let bytes = read_bounded(&self.0.folder.join(file), READ_BYTES_MAX)
            .map_err(|source| fail(BundleErrorKind::Read { file: file.to_owned(), source }))?;
        match hash(&bytes) == record.sha256 {
            true => Ok(bytes),
            false => Err(fail(BundleErrorKind::Changed { file: file.to_owned() })),
        }
    }
}

fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        false => Ok(bytes),
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {bytes_max} bytes"))),
    }
}

/// A bundle in the making: a folder beside the target, that becomes it when it is published and is
/// removed when dropped before.
#[derive(Debug)]
pub struct BundleWriter {
    target: PathBuf,
    partial: PathBuf,
    files: BTreeMap<String, FileRecord>,
    published: bool,
}

/// A bundle that is whole and signed, and not yet in its place.
#[derive(Debug)]
pub struct SealedBundle {
    writer: BundleWriter,
    digest: Digest,
}

impl BundleWriter {
    /// Begins a bundle at `target`, which must not be there yet; the folder that it will lie in must.
    pub fn create(target: &Path) -> Result<Self, BundleError> {
        let fail = |kind| BundleError { folder: target.to_owned(), kind };
        let write = |source| fail(BundleErrorKind::Write { source });
        if target.symlink_metadata().is_ok() {
            return Err(fail(BundleErrorKind::Exists));
        }
        crate::partial::check_folder(target).map_err(write)?;
        let name = target.file_name().ok_or_else(|| write(io::ErrorKind::InvalidInput.into()))?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A name of its own for each writer, so that two that make the same bundle do not meet.
        let prefix = format!(".{}.", name.to_string_lossy());
        let partial = tempfile::Builder::new().prefix(&prefix).suffix(".partial").tempdir_in(parent).map_err(write)?;
        Ok(Self { target: target.to_owned(), partial: partial.keep(), files: BTreeMap::new(), published: false })
    }

    pub fn add(&mut self, file: &str, bytes: &[u8]) -> Result<(), BundleError> {
        assert!(is_inside(file), "`{file}` is a path inside the bundle");
        let path = self.partial.join(file);
        let folder = path.parent().expect("a file in a folder has one");
        fs::create_dir_all(folder).and_then(|()| write_synced(&path, bytes)).map_err(|source| self.cannot(source))?;
        self.files.insert(file.to_owned(), FileRecord { bytes: bytes.len() as u64, sha256: hash(bytes) });
        Ok(())
    }

    /// Writes the index, with the digests of what was added, and signs it.
    pub fn seal(mut self, index: Index, key: Option<&SecretKey>) -> Result<SealedBundle, BundleError> {
        let index = Index { version: VERSION, files: std::mem::take(&mut self.files), ..index };
        let text = |value: Result<String, serde_json::Error>| value.expect("plain data with string keys") + "\n";
        let bytes = text(serde_json::to_string_pretty(&index));
        Index::parse(bytes.as_bytes()).map_err(|kind| BundleError { folder: self.target.clone(), kind })?;
        let digest = hash(bytes.as_bytes());
        let written = write_synced(&self.partial.join(INDEX), bytes.as_bytes()).and_then(|()| match key {
            Some(key) => {
                let signature = text(serde_json::to_string_pretty(&key.sign(Purpose::Bundle, digest)));
                write_synced(&self.partial.join(SIGNATURE), signature.as_bytes())
            }
            None => Ok(()),
        });
        written.map_err(|source| self.cannot(source))?;
        Ok(SealedBundle { writer: self, digest })
    }

    fn put_in_place(&self) -> io::Result<()> {
        File::open(&self.partial)?.sync_all()?;
        // Refuses where another writer has put a bundle meanwhile: a folder with files is not replaced.
        fs::rename(&self.partial, &self.target)?;
        sync_folder_of(&self.target)
    }

    fn cannot(&self, source: io::Error) -> BundleError {
        BundleError { folder: self.target.clone(), kind: BundleErrorKind::Write { source } }
    }
}

impl SealedBundle {
    /// What the bundle will be called by.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Gives the folder its name.
    pub fn publish(mut self) -> Result<Bundle, BundleError> {
        self.writer.put_in_place().map_err(|source| self.writer.cannot(source))?;
        self.writer.published = true;
        Bundle::open(&self.writer.target)
    }
}

impl Drop for BundleWriter {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_dir_all(&self.partial)
        {
            tracing::warn!(path = %self.partial.display(), %error, "cannot remove an unfinished bundle");
        }
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Why a bundle could not be read, trusted or written.
#[derive(Debug)]
pub struct BundleError {
    pub folder: PathBuf,
    pub kind: BundleErrorKind,
}

/// ``bundle `faces.bundle` lacks the file …``
impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bundle `{}` {}", self.folder.display(), self.kind)
    }
}

impl Error for BundleError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

/// What is wrong with a bundle; reads on after its folder.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BundleErrorKind {
    #[error("is no bundle: it has no `{INDEX}`")]
    NotABundle,
    #[error("has a file `{file}` that cannot be read")]
    Read {
        file: String,
        #[source]
        source: io::Error,
    },
    #[error("was written in version {version} of the format; this program reads up to {VERSION}")]
    Version { version: u32 },
    #[error("has an index that cannot be used: {reason}")]
    Index { reason: String },
    #[error("has no signature, and only signed ones are trusted")]
    Unsigned,
    #[error("has a signature that cannot be trusted: {reason}")]
    Signature { reason: String },
    #[error("is signed by `{key}`, which is not among the trusted keys")]
    Stranger { key: PublicKey },
    #[error("lacks the file `{file}` of its index")]
    Missing { file: String },
    #[error("has a file `{file}` that its index does not know")]
    Unknown { file: String },
    #[error("has a file `{file}` that was changed after the bundle was made")]
    Changed { file: String },
    #[error("has golden inputs that cannot be used")]
    Golden {
        #[source]
        source: GoldenError,
    },
    #[error("is there already; a bundle never changes, so choose another name")]
    Exists,
    #[error("cannot be written")]
    Write {
        #[source]
        source: io::Error,
    },
}
