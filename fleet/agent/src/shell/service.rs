//! What a device asks of the fleet service by gRPC: a certificate, another one, and to take what a command asked for.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use revoada_core::{causes, sentence_of};
use revoada_proto::wire::devices_client::DevicesClient;
use revoada_proto::wire::enrolment_client::EnrolmentClient;
use revoada_proto::wire::{self, AnswerHeader, UploadAnswerRequest, upload_answer_request};
use revoada_proto::{DeviceId, EnrolmentToken};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::config::Address;
use super::identity::{self, Identity, IdentityError, Tls};
use super::tls::{self, H2, TlsError};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Of one message of an upload.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Debug, Error)]
pub enum ServiceError {
    #[error("cannot reach the fleet service at {address}: {reason}")]
    Connect { address: Address, reason: String },
    /// It was asked, and said no.
    #[error("the fleet service refused {what}: {reason}")]
    Refused { what: &'static str, reason: String },
    /// Its answer cannot be what it means.
    #[error("the fleet service's answer has no usable {what}")]
    Answer { what: &'static str },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Exchanges a token for a certificate. The server is trusted for nothing but having the root that the token names.
pub async fn enrol(server: &Address, token: &EnrolmentToken, device: &DeviceId) -> Result<Identity, ServiceError> {
    let (key, certificate_request) = identity::request(device)?;
    let channel = connect(server, tls::pinned(token.root())?).await?;
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
    let channel = connect(server, tls::mutual(identity, Some(H2))?).await?;
    let request = wire::RenewRequest { certificate_request: certificate_request.into() };
    let answer = DevicesClient::new(channel).renew(request).await.map_err(refused("the renewal"))?.into_inner();
    let renewed = identity.renewed(&key, answer.certificates);
    tls::mutual(&renewed, None)?;
    Ok(renewed)
}

/// Hands over what a command asked for.
pub(super) async fn upload_answer(
    server: &Address,
    identity: &Identity,
    number: u64,
    media_type: &str,
    bytes: Vec<u8>,
) -> Result<(), ServiceError> {
    let channel = connect(server, tls::mutual(identity, Some(H2))?).await?;
    let header = AnswerHeader { number, media_type: media_type.to_owned() };
    let part = |part| UploadAnswerRequest { part: Some(part) };
    let mut parts = vec![part(upload_answer_request::Part::Header(header))];
    parts
        .extend(bytes.chunks(CHUNK_BYTES).map(|bytes| part(upload_answer_request::Part::Chunk(bytes.to_vec().into()))));
    let parts = futures_util::stream::iter(parts);
    DevicesClient::new(channel).upload_answer(parts).await.map_err(refused("the answer"))?;
    Ok(())
}

fn refused(what: &'static str) -> impl Fn(tonic::Status) -> ServiceError {
    move |status| ServiceError::Refused { what, reason: format!("{} ({})", status.message(), status.code()) }
}

async fn connect(server: &Address, tls: Arc<ClientConfig>) -> Result<Channel, ServiceError> {
    let cannot = |reason: String| ServiceError::Connect { address: server.clone(), reason };
    // The scheme is of HTTP/2 alone: TLS is in the connector, because tonic's own cannot be told whom to trust.
    let endpoint = Endpoint::from_shared(format!("http://{server}")).map_err(|error| cannot(error.to_string()))?;
    let endpoint = endpoint.connect_timeout(CONNECT_TIME_MAX).timeout(ANSWER_TIME_MAX);
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
