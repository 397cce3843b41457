//! A device port with a service behind it that writes down what it is asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use prost::bytes::Bytes;
use revoada_bundle::sign::{Purpose, SecretKey, Signature};
use revoada_core::{DeviceClass, Digest};
use revoada_fleet::device_port::{
    BlobError, BlobSource, DevicePort, DevicePortLimits, DevicePortOptions, DeviceService, Enrolled, Enrolment,
    PlanOffer, PlanSearch, Refusal, Upload, UploadError, UploadedAnswer, UploadedPlan, UploadedUpdate,
};
use revoada_fleet::identity::CertificateRequest;
use revoada_fleet::tls::{Peer, device_port_config};

use super::world::{SERVER, World, listener};

pub(crate) struct Running {
    pub(crate) port: DevicePort,
    pub(crate) address: SocketAddr,
    pub(crate) service: Arc<Service>,
}

pub(crate) async fn start(world: &World, blobs: Blobs, limits: DevicePortLimits) -> Running {
    let (listener, address) = listener().await;
    let identity = world.authority.issue_server(&[SERVER.to_owned()]).unwrap();
    let service = Arc::new(Service { key: SecretKey::generate().unwrap(), uploads: Mutex::default() });
    let port = DevicePort::start(DevicePortOptions {
        listener,
        tls: device_port_config(&world.authority, &identity).unwrap(),
        admission: Arc::<super::world::Revoked>::clone(&world.revoked),
        service: Arc::clone(&service),
        blobs: Arc::new(blobs),
        limits,
    });
    Running { port, address, service }
}

pub(crate) struct Service {
    pub(crate) key: SecretKey,
    pub(crate) uploads: Mutex<Vec<Uploaded>>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Uploaded {
    Plan(UploadedPlan, Result<Vec<u8>, UploadError>),
    Answer(UploadedAnswer, Result<Vec<u8>, UploadError>),
    Update(UploadedUpdate, Result<Vec<u8>, UploadError>),
}

async fn collect(mut content: Upload) -> Result<Vec<u8>, UploadError> {
    let mut bytes = Vec::new();
    while let Some(piece) = content.next().await {
        bytes.extend(piece?);
    }
    Ok(bytes)
}

impl Service {
    fn keep(&self, uploaded: Uploaded) -> Result<(), Refusal> {
        let is_whole =
            matches!(&uploaded, Uploaded::Plan(_, Ok(_)) | Uploaded::Answer(_, Ok(_)) | Uploaded::Update(_, Ok(_)));
        self.uploads.lock().unwrap().push(uploaded);
        if is_whole { Ok(()) } else { Err(Refusal::Invalid("the upload is not whole".to_owned())) }
    }
}

impl DeviceService for Service {
    async fn enrol(&self, enrolment: Enrolment) -> Result<Enrolled, Refusal> {
        let token = enrolment.token.ok_or_else(|| Refusal::Denied("no token".to_owned()))?;
        Ok(Enrolled {
            certificates: format!("{} {}", enrolment.device, enrolment.request.key()),
            authority: token.root().to_string(),
            order_key: self.key.public(),
            broker: ":8883".to_owned(),
            tenant: "default".to_owned(),
        })
    }

    async fn renew(&self, peer: Peer, request: CertificateRequest) -> Result<String, Refusal> {
        Ok(format!("{} {}", peer.device, request.key()))
    }

    async fn find_plan(&self, peer: Peer, bundle: Digest, _: DeviceClass) -> Result<PlanSearch, Refusal> {
        if peer.device.as_str() == "panics" {
            panic!("what a defect of the service would do");
        }
        let offer = PlanOffer { digest: bundle, bytes: 3, signed_by: self.key.public() };
        Ok(PlanSearch { plans: vec![offer], build: true })
    }

    async fn upload_plan(&self, _: Peer, plan: UploadedPlan, content: Upload) -> Result<(), Refusal> {
        let content = collect(content).await;
        self.keep(Uploaded::Plan(plan, content))
    }

    async fn upload_answer(&self, _: Peer, answer: UploadedAnswer, content: Upload) -> Result<(), Refusal> {
        let content = collect(content).await;
        self.keep(Uploaded::Answer(answer, content))
    }

    async fn find_update(&self, _: Peer, _: Digest, bytes: u64) -> Result<u64, Refusal> {
        Ok(bytes / 2)
    }

    async fn upload_update(
        &self,
        _: Peer,
        update: UploadedUpdate,
        content: Upload,
    ) -> Result<Result<(), String>, Refusal> {
        let content = collect(content).await;
        self.keep(Uploaded::Update(update, content))?;
        Ok(Err("it is late".to_owned()))
    }

    async fn decline_round(&self, _: Peer, _: u64, _: u64, why: String) -> Result<(), Refusal> {
        Err(Refusal::Invalid(why))
    }
}

/// Blobs in memory, in pieces as they are read from a disk.
#[derive(Default)]
pub(crate) struct Blobs {
    blobs: HashMap<Digest, Bytes>,
    signatures: HashMap<Digest, Signature>,
    /// Those that end after as many bytes.
    pub(crate) short: HashMap<Digest, usize>,
}

pub(crate) const PIECE_BYTES: usize = 256 << 10;

impl Blobs {
    pub(crate) fn add(&mut self, blob: impl Into<Bytes>) -> Digest {
        let blob = blob.into();
        let digest = revoada_bundle::hash(&blob);
        self.blobs.insert(digest, blob);
        digest
    }

    pub(crate) fn sign(&mut self, digest: Digest) -> Signature {
        let signature = SecretKey::generate().unwrap().sign(Purpose::Plan, digest);
        self.signatures.insert(digest, signature.clone());
        signature
    }
}

impl BlobSource for Blobs {
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        Ok(self.blobs.get(digest).map(|blob| blob.len() as u64))
    }

    async fn read(
        &self,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        let blob = &self.blobs[digest];
        let end = self.short.get(digest).copied().unwrap_or(usize::MAX).min(range.end as usize);
        let mut rest = blob.slice((range.start as usize).min(end)..end);
        let pieces = std::iter::from_fn(move || {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            (!piece.is_empty()).then_some(Ok(piece))
        });
        Ok(stream::iter(pieces).boxed())
    }

    async fn signature(&self, digest: &Digest) -> Result<Option<Signature>, BlobError> {
        Ok(self.signatures.get(digest).cloned())
    }
}
