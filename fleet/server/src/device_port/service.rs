//! What stands behind the device port.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;

use futures_util::stream::BoxStream;
use prost::bytes::Bytes;
use revoada_bundle::sign::{PublicKey, Signature};
use revoada_core::{DeviceClass, Digest};
use revoada_proto::{DeviceId, EnrolmentToken};
use thiserror::Error;

use crate::identity::CertificateRequest;
use crate::tls::Peer;

/// Answers devices. What it is given is checked as far as types can; whether it is *allowed* is the service's to decide.
pub trait DeviceService: Send + Sync + 'static {
    /// A device without a certificate asks for one.
    fn enrol(&self, enrolment: Enrolment) -> impl Future<Output = Result<Enrolled, Refusal>> + Send;

    /// A new certificate in PEM for a device that has one.
    fn renew(&self, peer: Peer, request: CertificateRequest) -> impl Future<Output = Result<String, Refusal>> + Send;

    fn find_plan(
        &self,
        peer: Peer,
        bundle: Digest,
        class: DeviceClass,
    ) -> impl Future<Output = Result<PlanSearch, Refusal>> + Send;

    /// Returns once the plan is stored. The content ends after exactly as many bytes as the plan says, or with an error; its
    /// digest is for the service to check.
    fn upload_plan(
        &self,
        peer: Peer,
        plan: UploadedPlan,
        content: Upload,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Returns once the answer is stored.
    fn upload_answer(
        &self,
        peer: Peer,
        answer: UploadedAnswer,
        content: Upload,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// How many bytes of an update are there, which its device is to go on with.
    fn find_update(&self, peer: Peer, digest: Digest, bytes: u64) -> impl Future<Output = Result<u64, Refusal>> + Send;

    /// Returns once it is decided whether the update counts; for people, why it does not. Its content begins at the offset
    /// that it names.
    fn upload_update(
        &self,
        peer: Peer,
        update: UploadedUpdate,
        content: Upload,
    ) -> impl Future<Output = Result<Result<(), String>, Refusal>> + Send;

    /// The device will send no update in this round.
    fn decline_round(
        &self,
        peer: Peer,
        run: u64,
        round: u64,
        why: String,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Where blobs are. Reads are to be large: what is returned is sent as it is.
pub trait BlobSource: Send + Sync + 'static {
    /// `None` where there is no such blob.
    fn size(&self, digest: &Digest) -> impl Future<Output = Result<Option<u64>, BlobError>> + Send;

    /// The bytes of a range that lies within the blob, in pieces of any size.
    fn read(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> impl Future<Output = Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError>> + Send;

    /// Who vouches for a blob; `None` where there is no such blob, or nobody does.
    fn signature(&self, digest: &Digest) -> impl Future<Output = Result<Option<Signature>, BlobError>> + Send;
}

/// A blob that should be there cannot be read.
#[derive(Debug, Error)]
#[error("cannot read blob `{digest}`")]
pub struct BlobError {
    pub digest: Digest,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

#[derive(Debug)]
pub struct Enrolment {
    pub device: DeviceId,
    /// `None` where the key is to be known already.
    pub token: Option<EnrolmentToken>,
    pub request: CertificateRequest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// PEM, the device's own first.
    pub certificates: String,
    /// The root certificate, PEM.
    pub authority: String,
    pub order_key: PublicKey,
    /// `host:port`; an empty host is the one that was asked.
    pub broker: String,
    /// The first level of topics below the version.
    pub tenant: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSearch {
    pub plans: Vec<PlanOffer>,
    /// The device is to build one and upload it.
    pub build: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOffer {
    /// Of the plan's file, a blob.
    pub digest: Digest,
    pub bytes: u64,
    pub signed_by: PublicKey,
}

#[derive(Clone, Debug, PartialEq)]
pub struct UploadedPlan {
    pub bundle: Digest,
    pub class: DeviceClass,
    /// Of the plan's file.
    pub digest: Digest,
    pub bytes: u64,
    /// The median time of one inference, where it was measured.
    pub latency_ms: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadedAnswer {
    /// Of the command that asked.
    pub command: u64,
    pub media_type: MediaType,
}

#[derive(Clone, Debug, PartialEq)]
pub struct UploadedUpdate {
    pub run: u64,
    pub round: u64,
    /// The weights that were begun with.
    pub base: Digest,
    /// Of the file.
    pub digest: Digest,
    pub bytes: u64,
    /// Where in the file the content begins.
    pub offset: u64,
    pub examples: u64,
    pub metrics: BTreeMap<String, f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaType {
    Jpeg,
    Text,
}

/// What a device uploads, in pieces, within its bound.
pub type Upload = BoxStream<'static, Result<Bytes, UploadError>>;

/// Why an upload ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UploadError {
    #[error("the device broke the upload off")]
    Broken,
    #[error("the upload is longer than it may be, or than it said")]
    TooLong,
    #[error("the upload is shorter than it said")]
    TooShort,
    #[error("the upload has something else where bytes should be")]
    Malformed,
}

/// Why a device does not get what it asks for. The text goes to the device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Not now, and not later: a wrong token, a device that may not.
    #[error("{0}")]
    Denied(String),
    /// What was sent makes no sense, or is not what it was said to be.
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Missing(String),
    /// Somebody was there before.
    #[error("{0}")]
    Taken(String),
    /// A bound of the service; another try, later, may do.
    #[error("{0}")]
    Busy(String),
    /// The service's own trouble, which it has logged.
    #[error("the service has an internal trouble")]
    Internal,
}
