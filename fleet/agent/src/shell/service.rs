//! What a device asks of the fleet service by gRPC: a certificate, another one, for plans, and to take one or what a command
//! asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use hyper_util::rt::TokioIo;
use revoada_bundle::sign::PublicKey;
use revoada_core::{DeviceClass, Digest, causes, sentence_of};
use revoada_proto::message;
use revoada_proto::wire::devices_client::DevicesClient;
use revoada_proto::wire::enrolment_client::EnrolmentClient;
use revoada_proto::wire::{
    self, AnswerHeader, PlanHeader, UpdateHeader, upload_answer_request, upload_plan_request, upload_update_request,
};
use revoada_proto::{DeviceId, EnrolmentToken};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::config::Address;
use super::identity::{self, Identity, IdentityError, Tls};
use super::tls::{self, H2, TlsError};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Of an update, with the decision whether it counts.
const UPDATE_TIME_MAX: Duration = Duration::from_secs(600);
/// Of one message of an upload.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Debug, Error)]
pub enum ServiceError {
    #[error("cannot reach the fleet service at {address}: {reason}")]
    Connect { address: Address, reason: String },
    /// It was asked, and said no.
    #[error("the fleet service refused {what}: {reason}")]
    Refused { what: &'static str, reason: String, is_final: bool },
    /// Its answer cannot be what it means.
    #[error("the fleet service's answer has no usable {what}")]
    Answer { what: &'static str },
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl ServiceError {
    /// Whether asking again would do no good.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { is_final: true, .. } | Self::Read { .. })
    }
}

/// Which plans of a bundle there are for one device class.
#[derive(Debug, Default)]
pub(super) struct PlanSearch {
    pub(super) plans: Vec<PlanOffer>,
    /// Whether the service wants the one that this device builds.
    pub(super) build: bool,
}

/// A plan that the service has: a blob.
#[derive(Debug)]
pub(super) struct PlanOffer {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) signed_by: PublicKey,
}

/// A plan's file, and what the service wants to know of it.
#[derive(Debug)]
pub(super) struct BuiltPlan<'a> {
    pub(super) bundle: Digest,
    pub(super) class: &'a DeviceClass,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    /// The median.
    pub(super) latency_ms: Option<f64>,
    pub(super) path: &'a Path,
}

/// Exchanges a token for a certificate. The server is trusted for nothing but having the root that the token names.
pub async fn enrol(server: &Address, token: &EnrolmentToken, device: &DeviceId) -> Result<Identity, ServiceError> {
    let (key, certificate_request) = identity::request(device)?;
    let channel = connect(server, tls::pinned(token.root())?, ANSWER_TIME_MAX).await?;
    let request = wire::EnrolRequest {
        device: device.to_string(),
        token: token.text(),
        certificate_request: certificate_request.into(),
    };
    let answer = EnrolmentClient::new(channel).enrol(request).await.map_err(refused("the enrolment"))?.into_inner();
    let missing = |what| move || ServiceError::Answer { what };
    let authority = tls::root_in(&answer.authority, token.root()).ok_or_else(missing("authority"))?;
    let order_key = answer.order_key.parse().map_err(|_| ServiceError::Answer { what: "order key" })?;
    let tenant = answer.tenant.parse().map_err(|_| ServiceError::Answer { what: "tenant" })?;
    let broker = match answer.broker.strip_prefix(':') {
        Some(port) => {
            Address { port: port.parse().map_err(|_| ServiceError::Answer { what: "broker" })?, ..server.clone() }
        }
        None => answer.broker.parse().map_err(|_| ServiceError::Answer { what: "broker" })?,
    };
    let tls = Tls { key, certificates: answer.certificates, authority };
    let identity = Identity::new(device.clone(), tenant, &broker, order_key, tls);
    // Refused here rather than at every later start.
    tls::mutual(&identity, None)?;
    Ok(identity)
}

/// The same device with a new key and a new certificate.
pub(super) async fn renew(server: &Address, identity: &Identity) -> Result<Identity, ServiceError> {
    let (key, certificate_request) = identity::request(&identity.device)?;
    let channel = connect(server, tls::mutual(identity, Some(H2))?, ANSWER_TIME_MAX).await?;
    let request = wire::RenewRequest { certificate_request: certificate_request.into() };
    let answer = DevicesClient::new(channel).renew(request).await.map_err(refused("the renewal"))?.into_inner();
    let renewed = identity.renewed(&key, answer.certificates);
    tls::mutual(&renewed, None)?;
    Ok(renewed)
}

/// Which plans of a bundle a device of this class may take.
pub(super) async fn find_plan(
    server: &Address,
    identity: &Identity,
    bundle: Digest,
    class: &DeviceClass,
) -> Result<PlanSearch, ServiceError> {
    let channel = connect(server, tls::mutual(identity, Some(H2))?, ANSWER_TIME_MAX).await?;
    let device_class = message::class_to_json(class);
    let request = wire::FindPlanRequest { bundle: message::to_digest(&bundle), device_class };
    let answer = DevicesClient::new(channel).find_plan(request).await.map_err(refused("the search for plans"))?;
    let wire::FindPlanResponse { plans, build } = answer.into_inner();
    let offer = |plan: wire::PlanOffer| {
        let digest = message::from_digest(&plan.digest).ok()?;
        Some(PlanOffer { digest, bytes: plan.bytes, signed_by: plan.signed_by.parse().ok()? })
    };
    let plans = plans.into_iter().map(offer).collect::<Option<_>>();
    Ok(PlanSearch { plans: plans.ok_or(ServiceError::Answer { what: "plans" })?, build })
}

/// Hands over a plan that was built here, which may take so long.
pub(super) async fn upload_plan(
    server: &Address,
    identity: &Identity,
    plan: BuiltPlan<'_>,
    time_max: Duration,
) -> Result<(), ServiceError> {
    let BuiltPlan { bundle, class, digest, bytes, latency_ms, path } = plan;
    let file = File::open(path).await.map_err(|source| ServiceError::Read { path: path.to_owned(), source })?;
    let channel = connect(server, tls::mutual(identity, Some(H2))?, time_max).await?;
    let header = PlanHeader {
        bundle: message::to_digest(&bundle),
        device_class: message::class_to_json(class),
        digest: message::to_digest(&digest),
        bytes,
        latency_ms,
    };
    let part = |part| wire::UploadPlanRequest { part: Some(part) };
    // A file that cannot be read on is an upload that is too short, which the service refuses.
    let chunks = stream::unfold(file, move |mut file| async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = file.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        chunk.truncate(count);
        Some((part(upload_plan_request::Part::Chunk(chunk.into())), file))
    });
    let parts = stream::iter([part(upload_plan_request::Part::Header(header))]).chain(chunks);
    DevicesClient::new(channel).upload_plan(parts).await.map_err(refused("the plan"))?;
    Ok(())
}

/// Hands over what a command asked for.
pub(super) async fn upload_answer(
    server: &Address,
    identity: &Identity,
    number: u64,
    media_type: &str,
    bytes: Vec<u8>,
) -> Result<(), ServiceError> {
    let channel = connect(server, tls::mutual(identity, Some(H2))?, ANSWER_TIME_MAX).await?;
    let header = AnswerHeader { number, media_type: media_type.to_owned() };
    let part = |part| wire::UploadAnswerRequest { part: Some(part) };
    let mut parts = vec![part(upload_answer_request::Part::Header(header))];
    parts
        .extend(bytes.chunks(CHUNK_BYTES).map(|bytes| part(upload_answer_request::Part::Chunk(bytes.to_vec().into()))));
    DevicesClient::new(channel).upload_answer(stream::iter(parts)).await.map_err(refused("the answer"))?;
    Ok(())
}

/// What a device has learned.
pub(super) struct LearnedUpdate<'a> {
    pub(super) run: u64,
    pub(super) round: u64,
    /// The weights that it began with.
    pub(super) base: Digest,
    pub(super) digest: Digest,
    pub(super) bytes: u64,
    pub(super) examples: u64,
    pub(super) metrics: &'a BTreeMap<String, f64>,
    pub(super) path: &'a Path,
    /// Set once all of it was handed to the connection, and only the answer is missing.
    pub(super) is_sent: &'a Arc<AtomicBool>,
}

/// Brings an update, or what is missing of it there. Whether it counts; for people, why not.
pub(super) async fn upload_update(
    server: &Address,
    identity: &Identity,
    update: LearnedUpdate<'_>,
) -> Result<Result<(), String>, ServiceError> {
    let LearnedUpdate { run, round, base, digest, bytes, examples, metrics, path, is_sent } = update;
    let mut file = File::open(path).await.map_err(|source| ServiceError::Read { path: path.to_owned(), source })?;
    let channel = connect(server, tls::mutual(identity, Some(H2))?, UPDATE_TIME_MAX).await?;
    let mut client = DevicesClient::new(channel);
    let find = wire::FindUpdateRequest { digest: message::to_digest(&digest), bytes };
    let offset = client.find_update(find).await.map_err(refused("the update"))?.into_inner().offset.min(bytes);
    let moved = file.seek(std::io::SeekFrom::Start(offset)).await;
    moved.map_err(|source| ServiceError::Read { path: path.to_owned(), source })?;
    let header = UpdateHeader {
        run,
        round,
        base: message::to_digest(&base),
        digest: message::to_digest(&digest),
        bytes,
        offset,
        examples,
        metrics: metrics.iter().map(|(name, value)| (name.clone(), *value)).collect(),
    };
    let part = |part| wire::UploadUpdateRequest { part: Some(part) };
    // A file that cannot be read on is an upload that is too short, which the service refuses.
    let chunks = stream::unfold((file, Arc::clone(is_sent)), move |(mut file, is_sent)| async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        let Some(count) = file.read(&mut chunk).await.ok().filter(|count| *count > 0) else {
            is_sent.store(true, Ordering::SeqCst);
            return None;
        };
        chunk.truncate(count);
        Some((part(upload_update_request::Part::Chunk(chunk.into())), (file, is_sent)))
    });
    let parts = stream::iter([part(upload_update_request::Part::Header(header))]).chain(chunks);
    let answer = client.upload_update(parts).await.map_err(refused("the update"))?.into_inner();
    Ok(if answer.counts { Ok(()) } else { Err(answer.why) })
}

/// Says that no update will come in a round of a run.
pub(super) async fn decline_round(
    server: &Address,
    identity: &Identity,
    (run, round): (u64, u64),
    why: String,
) -> Result<(), ServiceError> {
    let channel = connect(server, tls::mutual(identity, Some(H2))?, ANSWER_TIME_MAX).await?;
    let declined = DevicesClient::new(channel).decline_round(wire::DeclineRoundRequest { run, round, why }).await;
    declined.map_err(refused("to be told that no update will come"))?;
    Ok(())
}

fn refused(what: &'static str) -> impl Fn(tonic::Status) -> ServiceError {
    move |status| {
        use tonic::Code::{FailedPrecondition, InvalidArgument, NotFound, PermissionDenied};
        let is_final = matches!(status.code(), FailedPrecondition | InvalidArgument | NotFound | PermissionDenied);
        ServiceError::Refused { what, reason: format!("{} ({})", status.message(), status.code()), is_final }
    }
}

/// Each answer may take so long.
async fn connect(server: &Address, tls: Arc<ClientConfig>, answer_time_max: Duration) -> Result<Channel, ServiceError> {
    let cannot = |reason: String| ServiceError::Connect { address: server.clone(), reason };
    // The scheme is of HTTP/2 alone: TLS is in the connector, because tonic's own cannot be told whom to trust.
    let endpoint = Endpoint::from_shared(format!("http://{server}")).map_err(|error| cannot(error.to_string()))?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIME_MAX).timeout(answer_time_max);
    let address = server.clone();
    let connector = tower::service_fn(move |_| {
        let (address, connector) = (address.clone(), TlsConnector::from(Arc::clone(&tls)));
        async move {
            let name = ServerName::try_from(address.host.clone()).map_err(std::io::Error::other)?;
            let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| cannot(sentence_of(causes(&error))))
}
