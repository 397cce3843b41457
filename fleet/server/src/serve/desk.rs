//! Answers devices on their port.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::TryStreamExt;
use revoada_bundle::hash;
use revoada_bundle::plan::Plan;
use revoada_bundle::sign::PublicKey;
use revoada_core::{DeviceClass, Digest, Timestamp};
use revoada_federated::{Contribution, Participant, from_safetensors};
use revoada_proto::DeviceId;
use revoada_proto::topic::TENANT;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::blobs::{Begun, Blobs};
use crate::device_port::{
    DeviceService, Enrolled, Enrolment, MediaType, PlanOffer, PlanSearch, Refusal, Upload, UploadedAnswer,
    UploadedPlan, UploadedUpdate,
};
use crate::identity::{Authority, CertificateRequest};
use crate::learning::{Board, Reply, Reported, RunId, Value};
use crate::service::{Fleet, chain, now, wall};
use crate::store::{Actor, Answer, Certificate, PlanRecord};
use crate::tls::Peer;

use super::shelf::{self, refusal};

/// It is held in memory while it is checked.
pub(super) const PLAN_BYTES_MAX: usize = 1 << 30;
/// Of a head; it is held in memory while it is checked.
pub(super) const UPDATE_BYTES_MAX: usize = 256 << 20;

/// What devices ask of the service.
pub(super) struct Desk {
    pub(super) fleet: Arc<Fleet>,
    pub(super) blobs: Arc<Blobs>,
    pub(super) board: Arc<Board>,
    pub(super) authority: Authority,
    pub(super) order_key: PublicKey,
    /// Of a device's certificate.
    pub(super) validity: Duration,
    pub(super) broker_port: u16,
}

/// What is not the device's fault is logged, and not told.
fn internal(error: impl std::error::Error + 'static) -> Refusal {
    error!(error = %chain(&error), "cannot answer a device");
    Refusal::Internal
}

/// Runs what blocks, and has its refusal.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    spawn_blocking(work).await.map_err(internal)?
}

impl DeviceService for Desk {
    async fn enrol(&self, enrolment: Enrolment) -> Result<Enrolled, Refusal> {
        let Enrolment { device, token, request } = enrolment;
        let denied = || Refusal::Denied(format!("`{device}` may not enrol with that"));
        let (fleet, id, key) = (Arc::clone(&self.fleet), device.clone(), request.key());
        let root = self.authority.fingerprint();
        let is_let_in = blocking(move || match token {
            Some(token) if token.root() != root => Ok(false),
            Some(token) => fleet.take_enrolment_token(&hash(token.secret()), &id).map_err(internal),
            None => Ok(fleet.store().registered_key(&key).map_err(internal)?.as_ref() == Some(&id)),
        });
        if !is_let_in.await? {
            warn!(%device, "an enrolment was refused");
            return Err(denied());
        }
        let certificates = self.issue(device.clone(), &request, Fleet::enrol).await?;
        info!(%device, "enrolled");
        Ok(Enrolled {
            certificates,
            authority: self.authority.root_pem().to_owned(),
            order_key: self.order_key,
            broker: format!(":{}", self.broker_port),
            tenant: TENANT.to_owned(),
        })
    }

    async fn renew(&self, peer: Peer, request: CertificateRequest) -> Result<String, Refusal> {
        let certificates = self.issue(peer.device.clone(), &request, Fleet::renew).await?;
        info!(device = %peer.device, "renewed its certificate");
        Ok(certificates)
    }

    async fn find_plan(&self, peer: Peer, bundle: Digest, class: DeviceClass) -> Result<PlanSearch, Refusal> {
        let fleet = Arc::clone(&self.fleet);
        blocking(move || {
            let plans = fleet.store().plans(&bundle, &class).map_err(internal)?;
            let record = fleet.store().device(&peer.device).map_err(internal)?;
            let build = plans.is_empty() && record.is_some_and(|record| record.is_builder);
            let plans = plans
                .into_iter()
                .map(|plan| PlanOffer { digest: plan.digest, bytes: plan.bytes, signed_by: plan.signer })
                .collect();
            Ok(PlanSearch { plans, build })
        })
        .await
    }

    async fn upload_plan(&self, peer: Peer, plan: UploadedPlan, content: Upload) -> Result<(), Refusal> {
        let (fleet, device, bundle) = (Arc::clone(&self.fleet), peer.device.clone(), plan.bundle);
        blocking(move || {
            let record = fleet.store().device(&device).map_err(internal)?;
            if !record.is_some_and(|record| record.is_builder) {
                return Err(Refusal::Denied(format!("`{device}` is no builder")));
            }
            let known = fleet.store().version(&bundle).map_err(internal)?;
            known.map(drop).ok_or_else(|| Refusal::Missing(format!("no bundle `{bundle}` is registered")))
        })
        .await?;
        let (digest, bytes) = (plan.digest, plan.bytes);
        shelf::keep(&self.blobs, digest, bytes, content).await?;
        let content = self.blobs.read_whole(digest, PLAN_BYTES_MAX).await.map_err(|error| refusal(&error))?;
        let fleet = Arc::clone(&self.fleet);
        blocking(move || {
            let read = Plan::parse(content).map_err(|error| Refusal::Invalid(error.to_string()))?;
            if read.key().bundle != plan.bundle || read.key().device != plan.class {
                return Err(Refusal::Invalid("the plan is of another bundle or device class".to_owned()));
            }
            let now = now();
            let record = PlanRecord {
                bundle: plan.bundle,
                class: plan.class,
                digest,
                bytes,
                builder: peer.device,
                signer: read.signer(),
                latency_ms: plan.latency_ms,
                created_at: now,
            };
            fleet.add_plan(&record).map(drop).map_err(internal)
        })
        .await
    }

    async fn upload_answer(&self, peer: Peer, answer: UploadedAnswer, content: Upload) -> Result<(), Refusal> {
        let (fleet, device, number) = (Arc::clone(&self.fleet), peer.device.clone(), answer.command);
        blocking(move || match fleet.store().command(&device, number).map_err(internal)? {
            Some(command) if command.answer.is_none() => Ok(()),
            Some(_) => Err(Refusal::Taken(format!("command {number} is answered"))),
            None => Err(Refusal::Missing(format!("`{device}` was not asked for {number}"))),
        })
        .await?;
        let pieces: Vec<_> = content.try_collect().await.map_err(|error| Refusal::Invalid(error.to_string()))?;
        let bytes = pieces.concat();
        let digest = self.blobs.put(bytes.into(), now()).await.map_err(|error| refusal(&error))?;
        let media_type = match answer.media_type {
            MediaType::Jpeg => "image/jpeg",
            MediaType::Text => "text/plain",
        };
        let answer = Answer { digest, media_type: media_type.to_owned() };
        let fleet = Arc::clone(&self.fleet);
        blocking(move || match fleet.store().answer_command(&peer.device, number, &answer).map_err(internal)? {
            true => Ok(()),
            false => Err(Refusal::Taken(format!("command {number} is answered"))),
        })
        .await
    }

    async fn find_update(&self, _: Peer, digest: Digest, bytes: u64) -> Result<u64, Refusal> {
        match self.blobs.begin(digest, bytes, now()).await.map_err(|error| refusal(&error))? {
            Begun::Whole => Ok(bytes),
            Begun::At(offset) => Ok(offset),
        }
    }

    async fn upload_update(
        &self,
        peer: Peer,
        update: UploadedUpdate,
        content: Upload,
    ) -> Result<Result<(), String>, Refusal> {
        let from = (update.bytes, update.offset);
        let file = match shelf::receive(&self.blobs, update.digest, from, content).await? {
            // It has learned nothing, and brings the weights that it was given.
            true => self.blobs.read_whole(update.digest, UPDATE_BYTES_MAX).await,
            false => self.blobs.take(update.digest, UPDATE_BYTES_MAX).await,
        };
        let reply = self.learned(&update, &file.map_err(|error| refusal(&error))?)?;
        let participant = Participant(peer.device.to_string());
        Ok(self.board.say(participant, RunId(update.run), update.round, reply).await)
    }

    async fn decline_round(&self, peer: Peer, run: u64, round: u64, why: String) -> Result<(), Refusal> {
        let participant = Participant(peer.device.to_string());
        // A round that is over needs nobody to decline it.
        drop(self.board.say(participant, RunId(run), round, Reply::Failed(why)).await);
        Ok(())
    }
}

impl Desk {
    /// What a device has uploaded whole, as what it learned. The file is not kept: what counts is spooled with its round.
    fn learned(&self, update: &UploadedUpdate, file: &[u8]) -> Result<Reply, Refusal> {
        let held = self.fleet.weights_of(RunId(update.run)).map_err(internal)?;
        let held = held.ok_or_else(|| Refusal::Missing(format!("run {} is not under way", update.run)))?;
        let weights = from_safetensors(file, Some(&Arc::new(held.layout)));
        let weights = weights.map_err(|error| Refusal::Invalid(chain(&error)))?;
        let metrics = update.metrics.iter().map(|(name, value)| (name.clone(), Value::Double(*value))).collect();
        let reported = Reported { examples: update.examples, metrics };
        Ok(Reply::Learned { base: update.base, content: Contribution::Full(weights), reported })
    }
}

/// What becomes of an issued certificate: [`Fleet::enrol`] or [`Fleet::renew`].
type Keep = fn(&Fleet, &Certificate, &Actor) -> crate::service::Result<()>;

impl Desk {
    async fn issue(&self, device: DeviceId, request: &CertificateRequest, keep: Keep) -> Result<String, Refusal> {
        let now = now();
        let issued = self.authority.issue_device(request, &device, wall(now), self.validity).map_err(internal)?;
        let certificate = Certificate {
            serial: issued.serial.to_string(),
            device: device.clone(),
            issued_at: now,
            not_after: Timestamp::ZERO + issued.not_after.duration_since(UNIX_EPOCH).unwrap_or_default(),
            revoked_at: None,
        };
        let fleet = Arc::clone(&self.fleet);
        blocking(move || keep(&fleet, &certificate, &Actor::Service).map_err(internal)).await?;
        Ok(issued.certificate)
    }
}
