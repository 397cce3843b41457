//! Plans: serialised engines in an envelope that says what they are, so that TensorRT is only ever given
//! whole plans that were built for this very device.
//!
//! ```text
//! "REVOADA PLAN\n" · u32 header bytes · u32 signature bytes · header (JSON) · signature (JSON) · payload
//! ```
//!
//! Numbers are little-endian. The header holds the payload's digest; the signature, by the device that
//! built the plan, is over the header's.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use prost::bytes::Bytes;
use revoada_core::{Compatibility, DeviceClass, Digest, Mismatch, TensorSpec};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::{Precision, Trust};
use crate::hash::hash;
use crate::sign::{PublicKey, Purpose, SecretKey, Signature};

/// The version of the format that this program writes, and the latest that it reads.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 13] = b"REVOADA PLAN\n";
/// Before the header: the magic bytes and two lengths.
const PREFIX_BYTES: usize = MAGIC.len() + 8;
/// A header is a few kilobytes, the layers of a large network's report included.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// More than the memory that a GPU of this kind has for one engine.
const PLAN_BYTES_MAX: u64 = 8 << 30;

/// Shapes of one input that a plan runs: the smallest, the one it is tuned for, and the largest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeRange {
    pub min: Vec<usize>,
    pub opt: Vec<usize>,
    pub max: Vec<usize>,
}

impl ShapeRange {
    /// One shape and no other.
    pub fn fixed(shape: &[usize]) -> Self {
        Self { min: shape.to_vec(), opt: shape.to_vec(), max: shape.to_vec() }
    }
}

/// By input.
pub type ShapeProfile = BTreeMap<String, ShapeRange>;

/// All that decides what a plan is: the same key is the same plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanKey {
    pub bundle: Digest,
    pub device: DeviceClass,
    pub compatibility: Compatibility,
    pub precision: Precision,
    pub profile: ShapeProfile,
    /// The core of the deep learning accelerator that it runs on; `None` is the GPU.
    pub dla_core: Option<u32>,
    /// The program that built it: `revoada 0.1.0`.
    pub builder: String,
}

impl PlanKey {
    /// What the plan is called by in a cache.
    pub fn digest(&self) -> Digest {
        hash(&serde_json::to_vec(self).expect("a key is plain data with string keys"))
    }
}

/// What a plan says of itself beside its key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanFacts {
    /// As the graph declares them: TensorRT keeps no names of dimensions.
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// How well its answers agree with the model's, if it was built where it runs.
    pub accuracy: Option<PlanAccuracy>,
    /// How fast it was there.
    pub speed: Option<PlanSpeed>,
}

/// The answers of a plan on the device that built it, against those of the model on its processor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanAccuracy {
    pub samples: usize,
    /// The least cosine of any output and sample.
    pub cosine_min: f64,
    /// Of classifiers: how often the best class is the same, as a share.
    pub top1: Option<f64>,
    /// Of detectors: boxes that both find, as a share.
    pub boxes: Option<f64>,
}

/// Of one session with the largest batch, measured by the device that built the plan.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanSpeed {
    pub rows: usize,
    /// Rows of all batches.
    pub throughput_per_s: f64,
    /// Of a batch.
    pub latency_ms_median: f64,
    pub latency_ms_p99: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    key: PlanKey,
    facts: PlanFacts,
    payload_bytes: u64,
    payload_sha256: Digest,
}

/// What a plan says of itself, signed by whom it says. Whether the payload is what it says is not known yet.
#[derive(Clone, Debug)]
pub struct PlanHeader {
    header: Header,
    signer: PublicKey,
}

/// A plan whose payload is what its header says, signed by whom it says.
#[derive(Clone, Debug)]
pub struct Plan {
    head: PlanHeader,
    file: Bytes,
    payload_start: usize,
}

impl PlanHeader {
    /// Reads no more of the file than its beginning, so that many plans are looked through quickly.
    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let read = || {
            let cannot_read = |source| PlanErrorKind::Read { source };
            let mut file = File::open(path).map_err(cannot_read)?;
            let bytes = file.metadata().map_err(cannot_read)?.len();
            let mut start = Vec::new();
            file.by_ref().take(PREFIX_BYTES as u64).read_to_end(&mut start).map_err(cannot_read)?;
            let payload_start = payload_start(&start)?;
            file.take((payload_start - PREFIX_BYTES) as u64).read_to_end(&mut start).map_err(cannot_read)?;
            let header = Self::parse(&start, payload_start)?;
            match header.payload_bytes_missing(bytes.saturating_sub(payload_start as u64)) {
                0 => Ok(header),
                missing => Err(PlanErrorKind::Truncated { missing: Some(missing) }),
            }
        };
        read().map_err(|kind| PlanError { path: Some(path.to_owned()), kind })
    }

    fn parse(file: &[u8], payload_start: usize) -> Result<Self, PlanErrorKind> {
        let signature_start = PREFIX_BYTES + length(file, MAGIC.len())?;
        let cut = |range: Range<usize>| file.get(range).ok_or(PlanErrorKind::Truncated { missing: None });
        let header_text = cut(PREFIX_BYTES..signature_start)?;
        let signature_text = cut(signature_start..payload_start)?;
        let header = parse_header(header_text)?;
        let signature: Signature = serde_json::from_slice(signature_text)
            .map_err(|error| PlanErrorKind::Header { reason: error.to_string() })?;
        if !signature.verify(Purpose::Plan, hash(header_text)) {
            return Err(PlanErrorKind::Signature);
        }
        Ok(Self { header, signer: signature.key })
    }

    fn payload_bytes_missing(&self, payload_bytes: u64) -> u64 {
        self.header.payload_bytes.saturating_sub(payload_bytes)
    }

    pub fn key(&self) -> &PlanKey {
        &self.header.key
    }

    pub fn facts(&self) -> &PlanFacts {
        &self.header.facts
    }

    /// Who built it.
    pub fn signer(&self) -> PublicKey {
        self.signer
    }

    /// Whether its signer is trusted.
    pub fn check_signer(&self, trust: Trust<'_>) -> Result<(), PlanErrorKind> {
        match trust {
            Trust::OneOf(keys) if !keys.contains(&self.signer) => Err(PlanErrorKind::Stranger { key: self.signer }),
            _ => Ok(()),
        }
    }

    /// Whether it may and can be run here.
    pub fn check(&self, trust: Trust<'_>, device: &DeviceClass) -> Result<(), PlanErrorKind> {
        self.check_signer(trust)?;
        let PlanKey { device: built_for, compatibility, .. } = self.key();
        built_for.check(*compatibility, device).map_err(PlanErrorKind::Device)
    }
}

impl Plan {
    /// Puts what TensorRT serialised into an envelope. What is given away is not copied.
    pub fn seal(key: PlanKey, facts: PlanFacts, payload: impl Into<Vec<u8>>, signer: &SecretKey) -> Self {
        let mut file = payload.into();
        let (payload_bytes, payload_sha256) = (file.len() as u64, hash(&file));
        let header = Header { version: VERSION, key, facts, payload_bytes, payload_sha256 };
        let header_text = serde_json::to_vec(&header).expect("a header is plain data with string keys");
        let signature = signer.sign(Purpose::Plan, hash(&header_text));
        let signature_text = serde_json::to_vec(&signature).expect("a signature is two strings");
        let length = |text: &[u8]| u32::try_from(text.len()).expect("headers are short").to_le_bytes();
        let start = [&MAGIC[..], &length(&header_text), &length(&signature_text), &header_text, &signature_text];
        let start = start.concat();
        let payload_start = start.len();
        file.reserve_exact(payload_start);
        file.splice(0..0, start);
        Self { head: PlanHeader { header, signer: signer.public() }, file: file.into(), payload_start }
    }

    /// Whether a file begins like a plan.
    pub fn is_at(path: &Path) -> bool {
        let mut start = [0; MAGIC.len()];
        File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok_and(|()| start == *MAGIC)
    }

    pub fn read(path: &Path) -> Result<Self, PlanError> {
        let fail = |kind| PlanError { path: Some(path.to_owned()), kind };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|source| fail(PlanErrorKind::Read { source }))?;
        let read = file.take(PLAN_BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|source| fail(PlanErrorKind::Read { source }))?;
        Self::open(bytes.into()).map_err(fail)
    }

    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, PlanError> {
        Self::open(bytes.into()).map_err(|kind| PlanError { path: None, kind })
    }

    fn open(file: Bytes) -> Result<Self, PlanErrorKind> {
        let payload_start = payload_start(&file)?;
        let head = PlanHeader::parse(&file, payload_start)?;
        let payload = &file[payload_start..];
        match head.payload_bytes_missing(payload.len() as u64) {
            0 => {}
            missing => return Err(PlanErrorKind::Truncated { missing: Some(missing) }),
        }
        if payload.len() as u64 > head.header.payload_bytes || hash(payload) != head.header.payload_sha256 {
            return Err(PlanErrorKind::Changed);
        }
        Ok(Self { head, file, payload_start })
    }

    pub fn header(&self) -> &PlanHeader {
        &self.head
    }

    pub fn key(&self) -> &PlanKey {
        self.head.key()
    }

    pub fn facts(&self) -> &PlanFacts {
        self.head.facts()
    }

    /// Who built it.
    pub fn signer(&self) -> PublicKey {
        self.head.signer()
    }

    /// Whether its signer is trusted.
    pub fn check_signer(&self, trust: Trust<'_>) -> Result<(), PlanError> {
        self.head.check_signer(trust).map_err(|kind| PlanError { path: None, kind })
    }

    /// Whether it may and can be run here.
    pub fn check(&self, trust: Trust<'_>, device: &DeviceClass) -> Result<(), PlanError> {
        self.head.check(trust, device).map_err(|kind| PlanError { path: None, kind })
    }

    /// What TensorRT reads.
    pub fn payload(&self) -> &[u8] {
        &self.file[self.payload_start..]
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.file
    }
}

/// Where the payload begins, by the first bytes of a file.
fn payload_start(file: &[u8]) -> Result<usize, PlanErrorKind> {
    if !file.starts_with(MAGIC) {
        // A file cut inside the magic bytes is a cut plan all the same, an empty one is nothing.
        let cut = !file.is_empty() && MAGIC.starts_with(file);
        return Err(if cut { PlanErrorKind::Truncated { missing: None } } else { PlanErrorKind::NotAPlan });
    }
    Ok(PREFIX_BYTES + length(file, MAGIC.len())? + length(file, MAGIC.len() + 4)?)
}

fn length(file: &[u8], at: usize) -> Result<usize, PlanErrorKind> {
    let bytes = file.get(at..at + 4).ok_or(PlanErrorKind::Truncated { missing: None })?;
    let length = u32::from_le_bytes(bytes.try_into().expect("four bytes are four bytes")) as usize;
    match length > HEADER_BYTES_MAX {
        true => Err(PlanErrorKind::Header { reason: "it is too long".into() }),
        false => Ok(length),
    }
}

fn parse_header(text: &[u8]) -> Result<Header, PlanErrorKind> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let damaged = |error: serde_json::Error| PlanErrorKind::Header { reason: error.to_string() };
    let Versioned { version } = serde_json::from_slice(text).map_err(damaged)?;
    if version == 0 || version > VERSION {
        return Err(PlanErrorKind::Version { version });
    }
    serde_json::from_slice(text).map_err(damaged)
}

/// Why a plan could not be read or may not run.
#[derive(Debug)]
pub struct PlanError {
    /// `None` for a plan in memory.
    pub path: Option<PathBuf>,
    pub kind: PlanErrorKind,
}

impl PlanError {
    /// Whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(&self.kind, PlanErrorKind::Read { source } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// ``plan `a.plan` is truncated``
impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "plan `{}` {}", path.display(), self.kind),
            None => write!(f, "the plan {}", self.kind),
        }
    }
}

impl Error for PlanError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.kind.source()
    }
}

/// What is wrong with a plan; reads on after its name.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanErrorKind {
    #[error("cannot be read")]
    Read {
        #[source]
        source: io::Error,
    },
    #[error("is no plan of revoada; a bare TensorRT engine does not say what it was built for, so build it here")]
    NotAPlan,
    #[error("was written in version {version} of the format; this program reads up to {VERSION}")]
    Version { version: u32 },
    #[error("is truncated{}", missing.map(|bytes| format!(": {bytes} bytes are missing")).unwrap_or_default())]
    Truncated { missing: Option<u64> },
    #[error("has a header that cannot be used: {reason}")]
    Header { reason: String },
    #[error("was changed after it was built")]
    Changed,
    #[error("has a signature that does not match")]
    Signature,
    #[error("is signed by `{key}`, which is not among the trusted keys")]
    Stranger { key: PublicKey },
    #[error("was {0}")]
    Device(Mismatch),
}
