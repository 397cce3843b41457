//! How a virtual device comes in: its certificate, its TLS, and what it fetches.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use rcgen::{CertificateParams, KeyPair};
use revoada_bundle::hash;
use revoada_bundle::sign::PublicKey;
use revoada_core::Digest;
use revoada_proto::message::to_digest;
use revoada_proto::wire::devices_client::DevicesClient;
use revoada_proto::wire::enrolment_client::EnrolmentClient;
use revoada_proto::wire::upload_update_request::Part;
use revoada_proto::wire::{EnrolRequest, UpdateHeader, UploadUpdateRequest};
use revoada_proto::{DeviceId, EnrolmentToken};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::SimulateError;
use super::lesson::Lesson;

/// How long one question to the service may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// At most so many times, a second and more together.
const TRIES_MAX: u32 = 100;
/// How long an update may take, with the decision whether it counts.
const VERDICT_MAX: Duration = Duration::from_secs(300);
/// Of one message of an upload.
const CHUNK_BYTES: usize = 64 << 10;
/// Of what is fetched at once.
const PIECE_BYTES_MAX: u64 = 64 << 10;

/// A port of a service: where it is, and what it is called in its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Place {
    async fn connect(&self, tls: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        TlsConnector::from(Arc::clone(tls)).connect(name, stream).await
    }

    /// A connection for gRPC, made once something is asked.
    fn channel(&self, tls: Arc<ClientConfig>, time_max: Duration) -> Channel {
        let at = self.clone();
        let connector = tower::service_fn(move |_| {
            let (tls, at) = (Arc::clone(&tls), at.clone());
            async move { at.connect(&tls).await.map(TokioIo::new) }
        });
        Endpoint::from_static("https://devices").timeout(time_max).connect_with_connector_lazy(connector)
    }
}

/// What a device has once it is enrolled.
#[derive(Clone)]
pub(super) struct Identity {
    /// With its certificate and key.
    pub(super) tls: Arc<ClientConfig>,
    pub(super) order_key: PublicKey,
    pub(super) broker: Place,
}

/// Enrols devices, one connection for all of them.
#[derive(Clone)]
pub(super) struct Enroller {
    client: EnrolmentClient<Channel>,
    token: String,
    place: Place,
}

impl Enroller {
    pub(super) fn new(place: Place, token: &EnrolmentToken) -> Result<Self, SimulateError> {
        let tls = builder(Arc::new(Pinned(token.root())))?.with_no_client_auth();
        let tls = Arc::new(for_grpc(tls));
        Ok(Self { client: EnrolmentClient::new(place.channel(tls, ANSWER_MAX)), token: token.text(), place })
    }

    /// Makes a key and has it certified; a service that is busy is asked again.
    pub(super) async fn enrol(&self, device: &DeviceId, trust: &Trust) -> Result<Identity, SimulateError> {
        let failed = |source| SimulateError::Enrol { device: device.clone(), source };
        let internal = |error: rcgen::Error| failed(Status::internal(error.to_string()));
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(internal)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(internal)?;
        let request = EnrolRequest {
            device: device.to_string(),
            token: self.token.clone(),
            certificate_request: request.der().to_vec().into(),
        };
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            match self.client.clone().enrol(request.clone()).await {
                Ok(answer) => break answer.into_inner(),
                Err(status)
                    if tries < TRIES_MAX && matches!(status.code(), Code::ResourceExhausted | Code::Unavailable) =>
                {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                Err(status) => return Err(failed(status)),
            }
        };
        let pem = |_| failed(Status::internal("what was answered is no PEM"));
        let chain = CertificateDer::pem_slice_iter(answer.certificates.as_bytes()).collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut tls = builder(trust.verifier(&answer.authority)?)?.with_client_auth_cert(chain.map_err(pem)?, key)?;
        // Each connection is made anew, so that nothing of the last need be kept.
        tls.resumption = Resumption::disabled();
        let order_key = answer.order_key.parse().map_err(|_| failed(Status::internal("no key signs the orders")))?;
        let (host, port) = answer.broker.rsplit_once(':').unwrap_or_default();
        let host = if host.is_empty() { self.place.host.clone() } else { host.to_owned() };
        let port = port.parse().map_err(|_| failed(Status::internal("the broker has no port")))?;
        Ok(Identity { tls: Arc::new(tls), order_key, broker: Place { host, port } })
    }
}

fn for_grpc(mut tls: ClientConfig) -> ClientConfig {
    tls.alpn_protocols = vec![b"h2".to_vec()];
    tls
}

/// Fetches a blob by ranges: what its name says.
pub(super) async fn fetch(place: &Place, identity: &Identity, digest: Digest) -> io::Result<Vec<u8>> {
    let mut tls = ClientConfig::clone(&identity.tls);
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = Arc::new(tls);
    let (mut content, mut size) = (Vec::new(), u64::MAX);
    while (content.len() as u64) < size {
        let start = content.len() as u64;
        let range = start..start + PIECE_BYTES_MAX;
        let piece = timeout(ANSWER_MAX, fetch_range(place, &tls, digest, range)).await??;
        content.extend(piece.0);
        size = piece.1;
    }
    if hash(&content) == digest { Ok(content) } else { Err(io::Error::other("the blob is something else")) }
}

/// A file that a device has learned.
#[derive(Clone)]
pub(super) struct LearnedFile {
    pub(super) lesson: Lesson,
    /// The weights that it began with.
    pub(super) base: Digest,
    pub(super) file: Bytes,
    pub(super) examples: u64,
}

/// Brings a file that was learned, or only some bytes of it: whether it counts, or why not.
pub(super) async fn bring(
    place: &Place,
    identity: &Identity,
    learned: LearnedFile,
    bytes: usize,
) -> Result<Result<(), String>, Status> {
    let LearnedFile { lesson, base, file, examples } = learned;
    let header = UpdateHeader {
        run: lesson.run,
        round: lesson.round,
        base: to_digest(&base),
        digest: to_digest(&hash(&file)),
        bytes: file.len() as u64,
        offset: 0,
        examples,
        metrics: Default::default(),
    };
    let chunks: Vec<Part> = file[..bytes].chunks(CHUNK_BYTES).map(|chunk| Part::Chunk(file.slice_ref(chunk))).collect();
    let parts = [Part::Header(header)].into_iter().chain(chunks);
    let parts = stream::iter(parts.map(|part| UploadUpdateRequest { part: Some(part) }));
    let channel = place.channel(Arc::new(for_grpc(ClientConfig::clone(&identity.tls))), VERDICT_MAX);
    let answer = DevicesClient::new(channel).upload_update(parts).await?.into_inner();
    Ok(if answer.counts { Ok(()) } else { Err(answer.why) })
}

/// The bytes of a range, and how many there are in all.
async fn fetch_range(
    place: &Place,
    tls: &Arc<ClientConfig>,
    digest: Digest,
    range: std::ops::Range<u64>,
) -> io::Result<(Vec<u8>, u64)> {
    let mut stream = place.connect(tls).await?;
    let request = format!(
        "GET /v1/blobs/{digest} HTTP/1.1\r\nHost: {}\r\nRange: bytes={}-{}\r\nConnection: close\r\n\r\n",
        place.host,
        range.start,
        range.end - 1
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(2 * PIECE_BYTES_MAX).read_to_end(&mut answer).await?;
    let unreadable = || io::Error::other("the answer is no part of a blob");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(unreadable)?;
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let size = head.lines().find_map(|line| line.strip_prefix("content-range: ")?.rsplit_once('/'));
    let size = size.and_then(|(_, size)| size.trim().parse().ok()).ok_or_else(unreadable)?;
    let content = answer.split_off(end + 4);
    if content.is_empty() { Err(unreadable()) } else { Ok((content, size)) }
}

/// Who checks the service's certificates, shared by all devices.
#[derive(Debug, Default)]
pub(super) struct Trust(std::sync::OnceLock<Arc<WebPkiServerVerifier>>);

impl Trust {
    fn verifier(&self, authority: &str) -> Result<Arc<WebPkiServerVerifier>, SimulateError> {
        if let Some(verifier) = self.0.get() {
            return Ok(Arc::clone(verifier));
        }
        let root = CertificateDer::from_pem_slice(authority.as_bytes());
        let made = verifier(root.map_err(|_| rustls::Error::General("the authority is no PEM".to_owned()))?)?;
        Ok(Arc::clone(self.0.get_or_init(|| made)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn verifier(root: CertificateDer<'_>) -> Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(root.into_owned())?;
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    built.map_err(|error| rustls::Error::General(error.to_string()))
}

fn builder(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

/// Trusts whoever shows a certain root, as a device does that has no more than its token.
#[derive(Debug)]
struct Pinned(Digest);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = intermediates.iter().find(|certificate| hash(certificate) == self.0);
        let root = root.ok_or_else(|| rustls::Error::General("another root".to_owned()))?;
        verifier(root.clone())?.verify_server_cert(end_entity, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &provider().signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
