//! What can be deployed, the plans of it, and the blobs that hold both.

use std::collections::{BTreeMap, BTreeSet};

use revoada_bundle::bundle::Lineage;
use revoada_bundle::sign::{PublicKey, Signature};
use revoada_core::{DeviceClass, Digest, Timestamp};
use revoada_proto::{DeviceId, Kind};
use serde_json::Value;

use super::{Actor, Result};

/// Of one bundle and device class; the oldest go.
pub const PLANS_MAX: usize = 8;

/// A model, a pipeline or a package, of which there are versions. Named by its kind and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artefact {
    pub kind: Kind,
    pub name: String,
    /// Words by which people find it.
    pub labels: BTreeSet<String>,
    pub description: String,
    /// SPDX identifier.
    pub licence: Option<String>,
    pub created_at: Timestamp,
}

/// One version of an artefact, which never changes. Only what was verified is one.
#[derive(Clone, Debug, PartialEq)]
pub struct ArtefactVersion {
    /// What it is deployed by: of a bundle's index, a pipeline's file, a package's program.
    pub digest: Digest,
    pub kind: Kind,
    pub name: String,
    /// As people call it; one of an artefact has it.
    pub version: String,
    /// What it was trained, tuned or averaged from.
    pub parents: Vec<Digest>,
    pub lineage: Lineage,
    /// By name: `accuracy`, `speed`, …
    pub reports: BTreeMap<String, Value>,
    /// Of the file with the digest and of all others.
    pub bytes: u64,
    /// The other files of it by path; none but for models.
    pub files: BTreeMap<String, ArtefactFile>,
    pub signer: PublicKey,
    pub created_at: Timestamp,
    pub created_by: Actor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArtefactFile {
    pub digest: Digest,
    pub bytes: u64,
}

/// A plan that a device built for the others of its class.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRecord {
    pub bundle: Digest,
    pub class: DeviceClass,
    /// Of the plan's file.
    pub digest: Digest,
    pub bytes: u64,
    /// Who built it.
    pub builder: DeviceId,
    pub signer: PublicKey,
    /// The median time of one inference, where it was measured.
    pub latency_ms: Option<f64>,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    pub digest: Digest,
    pub bytes: u64,
    pub created_at: Timestamp,
}

/// Artefacts, plans and blobs.
pub trait Registry {
    /// Adds an artefact, or changes what is said of it; when it was created stays.
    fn put_artefact(&self, artefact: &Artefact, by: &Actor, now: Timestamp) -> Result<()>;

    /// By kind and name.
    fn artefacts(&self) -> Result<Vec<Artefact>>;

    fn artefact(&self, kind: Kind, name: &str) -> Result<Option<Artefact>>;

    /// Whether it was there. Refused while it has versions.
    fn remove_artefact(&self, kind: Kind, name: &str, by: &Actor, now: Timestamp) -> Result<bool>;

    /// Adds a version of an artefact that is there, whose blobs are there. Whether it is new; another digest of the same
    /// version text is refused.
    fn add_version(&self, version: &ArtefactVersion, signature: &Signature, now: Timestamp) -> Result<bool>;

    /// Of an artefact, the newest first.
    fn versions(&self, kind: Kind, name: &str) -> Result<Vec<ArtefactVersion>>;

    fn version(&self, digest: &Digest) -> Result<Option<ArtefactVersion>>;

    /// Whether it was there. Its plans go too. Refused while a rollout or a device's order names it.
    fn remove_version(&self, digest: &Digest, by: &Actor, now: Timestamp) -> Result<bool>;

    /// Of a version, by its digest.
    fn signature(&self, digest: &Digest) -> Result<Option<Signature>>;

    /// Keeps a plan whose blob is there, of a version that is there. Whether it is new. Of one bundle and device class the
    /// newest [`PLANS_MAX`] are kept.
    fn add_plan(&self, plan: &PlanRecord, now: Timestamp) -> Result<bool>;

    /// Plans of a bundle that were built on devices of this very class, the newest first.
    fn plans(&self, bundle: &Digest, class: &DeviceClass) -> Result<Vec<PlanRecord>>;

    /// Of every class.
    fn plans_of(&self, bundle: &Digest) -> Result<Vec<PlanRecord>>;

    /// Whether it was there.
    fn remove_plan(&self, digest: &Digest, by: &Actor, now: Timestamp) -> Result<bool>;

    /// Notes that a blob lies whole in its place. One that is known stays as it is but for its time.
    fn add_blob(&self, digest: &Digest, bytes: u64, now: Timestamp) -> Result<()>;

    fn blob(&self, digest: &Digest) -> Result<Option<BlobRecord>>;

    /// How many bytes all blobs have.
    fn blob_bytes(&self) -> Result<u64>;

    /// Every blob that nothing refers to and that is older: no version, plan or answer.
    fn unused_blobs(&self, created_before: Timestamp) -> Result<Vec<BlobRecord>>;

    /// Forgets a blob if it is still unused and older. Whether it did.
    fn remove_unused_blob(&self, digest: &Digest, created_before: Timestamp) -> Result<bool>;
}
