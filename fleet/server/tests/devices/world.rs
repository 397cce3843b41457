//! An authority, the devices that it knows, and a way to wait.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use revoada_fleet::identity::{Authority, CertificateRequest, Serial, VALIDITY};
use revoada_fleet::tls::Admission;
use revoada_proto::DeviceId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const SERVER: &str = "fleet.test";

pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) revoked: Arc<Revoked>,
    _folder: TempDir,
}

#[derive(Default)]
pub(crate) struct Revoked(Mutex<HashSet<Serial>>);

impl Revoked {
    pub(crate) fn add(&self, serial: Serial) {
        self.0.lock().unwrap().insert(serial);
    }
}

impl Admission for Revoked {
    fn admits(&self, _: &DeviceId, serial: &Serial) -> bool {
        !self.0.lock().unwrap().contains(serial)
    }
}

/// What a device shows.
pub(crate) struct Credentials {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) serial: Option<Serial>,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path()).unwrap();
        Self { authority, revoked: Arc::default(), _folder: folder }
    }

    pub(crate) fn device(&self, name: &str) -> Credentials {
        self.device_at(name, SystemTime::now(), VALIDITY)
    }

    pub(crate) fn device_at(&self, name: &str, now: SystemTime, validity: Duration) -> Credentials {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateRequest::from_der(&request_for(&key)).unwrap();
        let issued = self.authority.issue_device(&request, &name.parse().unwrap(), now, validity).unwrap();
        let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
        Credentials { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(), serial: Some(issued.serial) }
    }

    /// A certificate of the same content from nobody that counts.
    pub(crate) fn self_signed(name: &str) -> Credentials {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        Credentials { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(), serial: None }
    }

    /// How a device that has the authority's root connects.
    pub(crate) fn client(&self, credentials: Option<&Credentials>, protocol: Option<&str>) -> Arc<ClientConfig> {
        self.client_at(credentials, protocol, UnixTime::now())
    }

    pub(crate) fn client_at(
        &self,
        credentials: Option<&Credentials>,
        protocol: Option<&str>,
        now: UnixTime,
    ) -> Arc<ClientConfig> {
        self.config(credentials, protocol, now, rustls::DEFAULT_VERSIONS)
    }

    pub(crate) fn client_speaking(
        &self,
        credentials: Option<&Credentials>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        self.config(credentials, None, UnixTime::now(), versions)
    }

    fn config(
        &self,
        credentials: Option<&Credentials>,
        protocol: Option<&str>,
        now: UnixTime,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.root().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(Stopped(now)))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match credentials {
            Some(shown) => builder.with_client_auth_cert(shown.chain.clone(), shown.key.clone_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = protocol.into_iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

pub(crate) fn request_for(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "somebody-else");
    params.serialize_request(key).unwrap().der().to_vec()
}

/// A clock that stands still.
#[derive(Debug)]
struct Stopped(UnixTime);

impl TimeProvider for Stopped {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(crate) async fn connect(config: &Arc<ClientConfig>, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::clone(config)).connect(SERVER.try_into().unwrap(), stream).await
}

/// The time of a test is bounded, so that what hangs fails.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes far too long")
}

pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Trusts whoever shows a certain root, as a device does that enrols.
#[derive(Debug)]
pub(crate) struct Pinned(pub(crate) revoada_core::Digest);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = intermediates.iter().find(|certificate| revoada_bundle::hash(certificate) == self.0);
        let root = root.ok_or(rustls::Error::General("another root".to_owned()))?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap()
            .verify_server_cert(end_entity, &[], name, ocsp, now)
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
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
