//! The services of gRPC: from messages to words, and back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream;
use prost::bytes::Bytes;
use revoada_core::DeviceClass;
use revoada_proto::message;
use revoada_proto::message::TEXT_BYTES_MAX;
use revoada_proto::wire::devices_server::Devices;
use revoada_proto::wire::enrolment_server::Enrolment;
use revoada_proto::wire::{self, upload_answer_request, upload_plan_request, upload_update_request};
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, Streaming};

use super::service::{
    self, DeviceService, MediaType, Refusal, Upload, UploadError, UploadedAnswer, UploadedPlan, UploadedUpdate,
};
use crate::bucket::Bucket;
use crate::identity::CertificateRequest;
use crate::tls::Peer;

pub(super) struct Grpc<S> {
    pub(super) service: Arc<S>,
    pub(super) plan_bytes_max: u64,
    pub(super) answer_bytes_max: u64,
    pub(super) update_bytes_max: u64,
    /// How long the next piece of an upload may take.
    pub(super) idle_max: Duration,
    /// Of what anybody may ask, it is what costs most.
    pub(super) enrolments: Mutex<Bucket>,
}

/// Of an update.
const METRICS_MAX: usize = 64;

impl<S> Grpc<S> {
    fn check_update(&self, bytes: u64) -> Result<(), Status> {
        match bytes {
            0 => Err(invalid("an update has bytes")),
            bytes if bytes > self.update_bytes_max => {
                Err(Status::resource_exhausted(format!("an update may have {} bytes", self.update_bytes_max)))
            }
            _ => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl<S: DeviceService> Enrolment for Grpc<S> {
    async fn enrol(&self, request: Request<wire::EnrolRequest>) -> Result<Response<wire::EnrolResponse>, Status> {
        if !self.enrolments.lock().unwrap_or_else(PoisonError::into_inner).try_take(Instant::now()) {
            return Err(Status::resource_exhausted("too many devices enrol at once"));
        }
        let request = request.into_inner();
        let token = match request.token.as_str() {
            "" => None,
            text => Some(text.parse().map_err(invalid)?),
        };
        let enrolment = service::Enrolment {
            device: request.device.parse().map_err(invalid)?,
            token,
            request: CertificateRequest::from_der(&request.certificate_request).map_err(invalid)?,
        };
        let enrolled = self.service.enrol(enrolment).await?;
        Ok(Response::new(wire::EnrolResponse {
            certificates: enrolled.certificates,
            authority: enrolled.authority,
            order_key: enrolled.order_key.to_string(),
            broker: enrolled.broker,
            tenant: enrolled.tenant,
        }))
    }
}

#[tonic::async_trait]
impl<S: DeviceService> Devices for Grpc<S> {
    async fn renew(&self, request: Request<wire::RenewRequest>) -> Result<Response<wire::RenewResponse>, Status> {
        let peer = peer(&request)?;
        let request = CertificateRequest::from_der(&request.get_ref().certificate_request).map_err(invalid)?;
        let certificates = self.service.renew(peer, request).await?;
        Ok(Response::new(wire::RenewResponse { certificates }))
    }

    async fn find_plan(
        &self,
        request: Request<wire::FindPlanRequest>,
    ) -> Result<Response<wire::FindPlanResponse>, Status> {
        let peer = peer(&request)?;
        let request = request.into_inner();
        let bundle = message::from_digest(&request.bundle).map_err(invalid)?;
        let found = self.service.find_plan(peer, bundle, class(&request.device_class)?).await?;
        let plans = found.plans.iter().map(|plan| wire::PlanOffer {
            digest: message::to_digest(&plan.digest),
            bytes: plan.bytes,
            signed_by: plan.signed_by.to_string(),
        });
        Ok(Response::new(wire::FindPlanResponse { plans: plans.collect(), build: found.build }))
    }

    async fn upload_plan(
        &self,
        request: Request<Streaming<wire::UploadPlanRequest>>,
    ) -> Result<Response<wire::UploadPlanResponse>, Status> {
        let peer = peer(&request)?;
        let mut parts = request.into_inner();
        let Some(upload_plan_request::Part::Header(header)) = first(&mut parts, self.idle_max).await?.part else {
            return Err(invalid("the first part of an upload is its header"));
        };
        let plan = UploadedPlan {
            bundle: message::from_digest(&header.bundle).map_err(invalid)?,
            class: class(&header.device_class)?,
            digest: message::from_digest(&header.digest).map_err(invalid)?,
            bytes: header.bytes,
            latency_ms: header.latency_ms.filter(|latency| latency.is_finite() && *latency >= 0.0),
        };
        if plan.bytes > self.plan_bytes_max {
            return Err(Status::resource_exhausted(format!("a plan may have {} bytes", self.plan_bytes_max)));
        }
        let content =
            upload(parts, plan.bytes, plan.bytes, self.idle_max, |part: wire::UploadPlanRequest| match part.part {
                Some(upload_plan_request::Part::Chunk(chunk)) => Some(chunk),
                _ => None,
            });
        self.service.upload_plan(peer, plan, content).await?;
        Ok(Response::new(wire::UploadPlanResponse {}))
    }

    async fn upload_answer(
        &self,
        request: Request<Streaming<wire::UploadAnswerRequest>>,
    ) -> Result<Response<wire::UploadAnswerResponse>, Status> {
        let peer = peer(&request)?;
        let mut parts = request.into_inner();
        let Some(upload_answer_request::Part::Header(header)) = first(&mut parts, self.idle_max).await?.part else {
            return Err(invalid("the first part of an upload is its header"));
        };
        let media_type = match header.media_type.as_str() {
            "image/jpeg" => MediaType::Jpeg,
            "text/plain" => MediaType::Text,
            _ => return Err(invalid("an answer is `image/jpeg` or `text/plain`")),
        };
        let content =
            upload(parts, 0, self.answer_bytes_max, self.idle_max, |part: wire::UploadAnswerRequest| match part.part {
                Some(upload_answer_request::Part::Chunk(chunk)) => Some(chunk),
                _ => None,
            });
        self.service.upload_answer(peer, UploadedAnswer { command: header.number, media_type }, content).await?;
        Ok(Response::new(wire::UploadAnswerResponse {}))
    }

    async fn find_update(
        &self,
        request: Request<wire::FindUpdateRequest>,
    ) -> Result<Response<wire::FindUpdateResponse>, Status> {
        let peer = peer(&request)?;
        let request = request.into_inner();
        self.check_update(request.bytes)?;
        let digest = message::from_digest(&request.digest).map_err(invalid)?;
        let offset = self.service.find_update(peer, digest, request.bytes).await?;
        Ok(Response::new(wire::FindUpdateResponse { offset }))
    }

    async fn upload_update(
        &self,
        request: Request<Streaming<wire::UploadUpdateRequest>>,
    ) -> Result<Response<wire::UploadUpdateResponse>, Status> {
        let peer = peer(&request)?;
        let mut parts = request.into_inner();
        let Some(upload_update_request::Part::Header(header)) = first(&mut parts, self.idle_max).await?.part else {
            return Err(invalid("the first part of an upload is its header"));
        };
        self.check_update(header.bytes)?;
        if header.metrics.len() > METRICS_MAX {
            return Err(invalid(format!("an update has at most {METRICS_MAX} metrics")));
        }
        let left = header.bytes.checked_sub(header.offset);
        let left = left.ok_or_else(|| invalid("the upload begins after the end of its file"))?;
        let update = UploadedUpdate {
            run: header.run,
            round: header.round,
            base: message::from_digest(&header.base).map_err(invalid)?,
            digest: message::from_digest(&header.digest).map_err(invalid)?,
            bytes: header.bytes,
            offset: header.offset,
            examples: header.examples,
            metrics: header.metrics.into_iter().collect(),
        };
        let content = upload(parts, left, left, self.idle_max, |part: wire::UploadUpdateRequest| match part.part {
            Some(upload_update_request::Part::Chunk(chunk)) => Some(chunk),
            _ => None,
        });
        let verdict = self.service.upload_update(peer, update, content).await?;
        let why = verdict.err();
        Ok(Response::new(wire::UploadUpdateResponse { counts: why.is_none(), why: why.unwrap_or_default() }))
    }

    async fn decline_round(
        &self,
        request: Request<wire::DeclineRoundRequest>,
    ) -> Result<Response<wire::DeclineRoundResponse>, Status> {
        let peer = peer(&request)?;
        let wire::DeclineRoundRequest { run, round, mut why } = request.into_inner();
        why.truncate(why.floor_char_boundary(TEXT_BYTES_MAX));
        self.service.decline_round(peer, run, round, why).await?;
        Ok(Response::new(wire::DeclineRoundResponse {}))
    }
}

/// The port lets no request to these services pass without one.
fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::unauthenticated("a device's certificate is needed"))
}

fn class(text: &str) -> Result<DeviceClass, Status> {
    let class = message::class_from_json(text).map_err(invalid)?;
    class.ok_or_else(|| invalid("a device class is needed"))
}

fn invalid(error: impl ToString) -> Status {
    Status::invalid_argument(error.to_string())
}

async fn first<T>(parts: &mut Streaming<T>, time: Duration) -> Result<T, Status> {
    let part =
        timeout(time, parts.message()).await.map_err(|_| Status::deadline_exceeded("the upload did not begin"))?;
    part?.ok_or_else(|| invalid("the upload is empty"))
}

/// The pieces of an upload of so many bytes; after an error there is nothing more.
fn upload<T: Send + 'static>(
    parts: Streaming<T>,
    bytes_min: u64,
    bytes_max: u64,
    time: Duration,
    chunk: fn(T) -> Option<Bytes>,
) -> Upload {
    let begun = (parts, 0_u64);
    Box::pin(stream::try_unfold(begun, move |(mut parts, before)| async move {
        match timeout(time, parts.message()).await {
            Err(_) | Ok(Err(_)) => Err(UploadError::Broken),
            Ok(Ok(None)) if before < bytes_min => Err(UploadError::TooShort),
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(part))) => {
                let chunk = chunk(part).ok_or(UploadError::Malformed)?;
                let bytes = before.saturating_add(chunk.len() as u64);
                if bytes > bytes_max { Err(UploadError::TooLong) } else { Ok(Some((chunk, (parts, bytes)))) }
            }
        }
    }))
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Denied(_) => Self::permission_denied(text),
            Refusal::Invalid(_) => Self::invalid_argument(text),
            Refusal::Missing(_) => Self::not_found(text),
            Refusal::Taken(_) => Self::already_exists(text),
            Refusal::Busy(_) => Self::resource_exhausted(text),
            Refusal::Internal => Self::internal(text),
        }
    }
}
