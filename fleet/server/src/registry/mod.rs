//! How artefacts come into the registry: from a folder, from an upload, from a web server.
//!
//! Nothing is offered that was not verified: whose signature it bears is among the owner's keys, and every byte is what was
//! signed. A bundle's signature is checked before anything else of it is fetched or kept.

mod fetch;
mod upload;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::str;
use std::sync::Arc;

use revoada_bundle::bundle::{Bundle, BundleError, BundleErrorKind, INDEX, Index, Lineage, SIGNATURE, Trust};
use revoada_bundle::sign::{PublicKey, Purpose, Signature};
use revoada_core::{Digest, Timestamp};
use revoada_proto::Kind;
use serde_json::Value;
use thiserror::Error;
use tokio::runtime::Handle;
use url::Url;

use self::upload::upload;
use crate::blobs::{BlobError, Blobs};
use crate::blocking::blocking;
use crate::store::{Actor, Artefact, ArtefactFile, ArtefactVersion, Store, StoreError};

/// Of a pipeline's file: ten times what a long one has.
const PIPELINE_BYTES_MAX: usize = 1 << 20;

/// Of a bundle's reports that the registry shows; a longer one stays in its file.
const REPORT_BYTES_MAX: u64 = 256 << 10;

/// Of one bundle, with the same reason.
const REPORTS_MAX: usize = 16;

/// Longer than any signature.
const SIGNATURE_BYTES_MAX: u64 = 4096;

/// Takes artefacts in.
#[derive(Clone)]
pub struct Importer {
    pub store: Arc<dyn Store>,
    pub blobs: Arc<Blobs>,
    /// The owner's public keys.
    pub trusted: Arc<[PublicKey]>,
}

/// What a person says of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Of the artefact; `None` is the name that a bundle says of itself.
    pub name: Option<String>,
    pub version: String,
    /// Beside the one that a bundle says of itself.
    pub parents: Vec<Digest>,
}

/// Why nothing was taken in.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("the bundle {0}")]
    Index(BundleErrorKind),
    #[error("`{digest}` is signed by `{key}`, which is not among the owner's keys")]
    Stranger { digest: Digest, key: PublicKey },
    #[error("the signature of `{digest}` does not match")]
    Signature { digest: Digest },
    #[error("`{file}` was not uploaded, or has not {bytes} bytes")]
    Lacks { file: String, bytes: u64 },
    #[error("the pipeline is no TOML: {reason}")]
    Pipeline { reason: String },
    #[error("a pipeline or a package is to be given a name")]
    Unnamed,
    #[error("`{url}` is no URL of a bundle: {reason}")]
    Url { url: String, reason: String },
    #[error("cannot fetch `{url}`")]
    Fetch {
        url: Url,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("cannot fetch `{url}`: the server answers {status}")]
    Answer { url: Url, status: u16 },
    #[error("cannot read `{what}`")]
    Read {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Result<T> = std::result::Result<T, ImportError>;

/// What an artefact and a version of it may be called, or why one may not be called so.
pub fn check_names(name: &str, version: &str) -> std::result::Result<(), String> {
    for (what, text) in [("name", name), ("version", version)] {
        let is_right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
        if !(1..=64).contains(&text.len()) || !text.chars().all(is_right) {
            return Err(format!("a {what} has 1 to 64 letters, digits, `-`, `_`, `.` and `+`"));
        }
    }
    Ok(())
}

impl Importer {
    /// A bundle in a folder of this machine.
    pub async fn folder(&self, folder: &Path, import: Import, by: Actor, now: Timestamp) -> Result<ArtefactVersion> {
        let folder = folder.to_owned();
        self.work(move |importer, handle| {
            let verified = Bundle::open(&folder)?.verify(Trust::OneOf(&importer.trusted))?;
            let read = |name: &str, bytes_max| read_bounded(&folder.join(name), bytes_max);
            let signed = importer.signed(
                read(INDEX, revoada_bundle::bundle::INDEX_BYTES_MAX)?,
                &read(SIGNATURE, SIGNATURE_BYTES_MAX)?,
            )?;
            if signed.digest != verified.digest() {
                return Err(ImportError::Signature { digest: signed.digest });
            }
            for (name, record) in &signed.index.files {
                let path = folder.join(name);
                let open = |offset| open_at(&path, offset);
                upload(&importer.blobs, handle, (record.sha256, record.bytes), open, now)?;
            }
            importer.add_bundle(handle, signed, import, by, now)
        })
        .await
    }

    /// A bundle whose index and files were uploaded as blobs.
    pub async fn uploaded(
        &self,
        index: Digest,
        signature: Signature,
        import: Import,
        by: Actor,
        now: Timestamp,
    ) -> Result<ArtefactVersion> {
        self.work(move |importer, handle| {
            let bytes_max = usize::try_from(revoada_bundle::bundle::INDEX_BYTES_MAX).unwrap_or(usize::MAX);
            let bytes = handle.block_on(importer.blobs.read_whole(index, bytes_max))?;
            let signed = importer.checked(bytes.to_vec(), signature)?;
            importer.add_bundle(handle, signed, import, by, now)
        })
        .await
    }

    /// A bundle whose files lie below a URL of HTTP or HTTPS, as in its folder.
    pub async fn url(&self, base: &str, import: Import, by: Actor, now: Timestamp) -> Result<ArtefactVersion> {
        let site = fetch::Site::new(base)?;
        self.work(move |importer, handle| {
            let index = site.read(INDEX, revoada_bundle::bundle::INDEX_BYTES_MAX)?;
            let signed = importer.signed(index, &site.read(SIGNATURE, SIGNATURE_BYTES_MAX)?)?;
            for (name, record) in &signed.index.files {
                let open = |offset| site.open(name, offset);
                upload(&importer.blobs, handle, (record.sha256, record.bytes), open, now)?;
            }
            importer.add_bundle(handle, signed, import, by, now)
        })
        .await
    }

    /// A pipeline or a package in a file of this machine.
    pub async fn file(
        &self,
        kind: FileKind,
        path: &Path,
        signature: Signature,
        import: Import,
        by: Actor,
        now: Timestamp,
    ) -> Result<ArtefactVersion> {
        let path: PathBuf = path.to_owned();
        self.work(move |importer, handle| {
            let cannot_read = |source| ImportError::Read { what: path.display().to_string(), source };
            let (digest, bytes) = revoada_bundle::hash_file(&path).map_err(cannot_read)?;
            importer.check_signature(kind.purpose(), digest, &signature)?;
            upload(&importer.blobs, handle, (digest, bytes), |offset| open_at(&path, offset), now)?;
            importer.add_file(handle, kind, digest, signature, import, by, now)
        })
        .await
    }

    /// A pipeline or a package that was uploaded as a blob.
    pub async fn uploaded_file(
        &self,
        kind: FileKind,
        digest: Digest,
        signature: Signature,
        import: Import,
        by: Actor,
        now: Timestamp,
    ) -> Result<ArtefactVersion> {
        self.work(move |importer, handle| importer.add_file(handle, kind, digest, signature, import, by, now)).await
    }

    /// Work that waits for disks and networks, on a thread that may. It goes on where nobody waits for it any more.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self, &Handle) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (importer, handle) = (self.clone(), Handle::current());
        let done = blocking(move || work(&importer, &handle)).await;
        done.map_err(|source| ImportError::Read { what: "the artefact".into(), source })?
    }

    fn signed(&self, index: Vec<u8>, signature: &[u8]) -> Result<Signed> {
        let digest = revoada_bundle::hash(&index);
        let signature = serde_json::from_slice(signature).map_err(|_| ImportError::Signature { digest })?;
        self.checked(index, signature)
    }

    fn checked(&self, bytes: Vec<u8>, signature: Signature) -> Result<Signed> {
        let digest = revoada_bundle::hash(&bytes);
        self.check_signature(Purpose::Bundle, digest, &signature)?;
        let index = Index::parse(&bytes).map_err(ImportError::Index)?;
        Ok(Signed { digest, bytes, index, signature })
    }

    fn check_signature(&self, purpose: Purpose, digest: Digest, signature: &Signature) -> Result<()> {
        if !self.trusted.contains(&signature.key) {
            return Err(ImportError::Stranger { digest, key: signature.key });
        }
        match signature.verify(purpose, digest) {
            true => Ok(()),
            false => Err(ImportError::Signature { digest }),
        }
    }

    /// All of its files are blobs, or nothing is added.
    fn add_bundle(
        &self,
        handle: &Handle,
        signed: Signed,
        import: Import,
        by: Actor,
        now: Timestamp,
    ) -> Result<ArtefactVersion> {
        let Signed { digest, bytes, index, signature } = signed;
        let index_bytes = bytes.len() as u64;
        upload(&self.blobs, handle, (digest, index_bytes), |offset| Ok(after(bytes, offset)), now)?;
        for (name, record) in &index.files {
            self.check_blob(name, record.sha256, record.bytes)?;
        }
        let parents = index.lineage.parent.into_iter().chain(import.parents).collect();
        let files = index
            .files
            .iter()
            .map(|(name, record)| (name.clone(), ArtefactFile { digest: record.sha256, bytes: record.bytes }));
        let sum = index.files.values().map(|record| record.bytes).fold(index_bytes, u64::saturating_add);
        let version = ArtefactVersion {
            digest,
            kind: Kind::Model,
            name: import.name.unwrap_or_else(|| index.name.clone()),
            version: import.version,
            parents,
            reports: self.reports(handle, &index)?,
            bytes: sum,
            files: files.collect(),
            signer: signature.key,
            created_at: now,
            created_by: by,
            lineage: index.lineage,
        };
        self.add(version, &signature, index.licence, now)
    }

    #[allow(clippy::too_many_arguments, reason = "each of them is another thing that is said of a version")]
    fn add_file(
        &self,
        handle: &Handle,
        kind: FileKind,
        digest: Digest,
        signature: Signature,
        import: Import,
        by: Actor,
        now: Timestamp,
    ) -> Result<ArtefactVersion> {
        self.check_signature(kind.purpose(), digest, &signature)?;
        let bytes = match handle.block_on(self.blobs.size(digest))? {
            Some(bytes) => bytes,
            None => return Err(BlobError::Missing { digest }.into()),
        };
        if kind == FileKind::Pipeline {
            let text = handle.block_on(self.blobs.read_whole(digest, PIPELINE_BYTES_MAX))?;
            check_pipeline(&text)?;
        }
        let version = ArtefactVersion {
            digest,
            kind: kind.kind(),
            name: import.name.ok_or(ImportError::Unnamed)?,
            version: import.version,
            parents: import.parents,
            lineage: Lineage::default(),
            reports: BTreeMap::new(),
            bytes,
            files: BTreeMap::new(),
            signer: signature.key,
            created_at: now,
            created_by: by,
        };
        self.add(version, &signature, None, now)
    }

    /// With its artefact, where this is the first version of it. The version that is there, where it was added before.
    fn add(
        &self,
        version: ArtefactVersion,
        signature: &Signature,
        licence: Option<String>,
        now: Timestamp,
    ) -> Result<ArtefactVersion> {
        if self.store.artefact(version.kind, &version.name)?.is_none() {
            let artefact = Artefact {
                kind: version.kind,
                name: version.name.clone(),
                labels: Default::default(),
                description: String::new(),
                licence,
                created_at: now,
            };
            self.store.put_artefact(&artefact, &version.created_by, now)?;
        }
        if self.store.add_version(&version, signature, now)? {
            return Ok(version);
        }
        Ok(self.store.version(&version.digest)?.unwrap_or(version))
    }

    fn check_blob(&self, name: &str, digest: Digest, bytes: u64) -> Result<()> {
        match self.store.blob(&digest)? {
            Some(blob) if blob.bytes == bytes => Ok(()),
            _ => Err(ImportError::Lacks { file: name.to_owned(), bytes }),
        }
    }

    /// What lies in `reports/`, as far as it is short JSON.
    fn reports(&self, handle: &Handle, index: &Index) -> Result<BTreeMap<String, Value>> {
        let mut reports = BTreeMap::new();
        for (path, record) in &index.files {
            let name = path.strip_prefix("reports/").and_then(|name| name.strip_suffix(".json"));
            let Some(name) = name.filter(|_| record.bytes <= REPORT_BYTES_MAX && reports.len() < REPORTS_MAX) else {
                continue;
            };
            let bytes_max = usize::try_from(REPORT_BYTES_MAX).unwrap_or(usize::MAX);
            let text = handle.block_on(self.blobs.read_whole(record.sha256, bytes_max))?;
            if let Ok(report) = serde_json::from_slice(&text) {
                reports.insert(name.to_owned(), report);
            }
        }
        Ok(reports)
    }
}

/// What is one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Pipeline,
    Package,
}

impl FileKind {
    pub fn kind(self) -> Kind {
        match self {
            Self::Pipeline => Kind::Pipeline,
            Self::Package => Kind::Package,
        }
    }

    fn purpose(self) -> Purpose {
        match self {
            Self::Pipeline => Purpose::Pipeline,
            Self::Package => Purpose::Package,
        }
    }
}

/// An index that one of the owner's keys has signed.
struct Signed {
    digest: Digest,
    bytes: Vec<u8>,
    index: Index,
    signature: Signature,
}

/// What a pipeline means, only a device knows; that it is TOML at all is seen here.
fn check_pipeline(bytes: &[u8]) -> Result<()> {
    let text = str::from_utf8(bytes).map_err(|error| ImportError::Pipeline { reason: error.to_string() })?;
    match text.parse::<toml_edit::DocumentMut>() {
        Ok(_) => Ok(()),
        Err(error) => Err(ImportError::Pipeline { reason: error.message().to_owned() }),
    }
}

fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes));
    read.map_err(|source| ImportError::Read { what: path.display().to_string(), source })?;
    Ok(bytes)
}

fn open_at(path: &Path, offset: u64) -> Result<Box<dyn Read>> {
    let open = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file) as Box<dyn Read>)
    };
    open().map_err(|source| ImportError::Read { what: path.display().to_string(), source })
}

fn after(bytes: Vec<u8>, offset: u64) -> Box<dyn Read> {
    let mut bytes = io::Cursor::new(bytes);
    bytes.set_position(offset);
    Box::new(bytes)
}
