//! A service in a folder of its own, and ways to ask it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use revoada_bundle::hash;
use revoada_bundle::sign::{SecretKey, TrustedKeys};
use revoada_core::Digest;
use revoada_fleet::serve::Service;
use revoada_fleet::settings::Settings;
use revoada_proto::EnrolmentToken;
use revoada_proto::wire::EnrolRequest;
use revoada_proto::wire::enrolment_client::EnrolmentClient;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::world::{Pinned, SERVER, connect, request_for, within};

pub(crate) struct Siege {
    pub(crate) service: Service,
    pub(crate) owner: SecretKey,
    pub(crate) admin: String,
    _folder: TempDir,
}

/// An answer over REST.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Siege {
    pub(crate) async fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let owner = SecretKey::generate().unwrap();
        let mut settings = Settings::in_folder(folder.path());
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        (settings.mqtt, settings.devices, settings.operators.address) = (local, local, local);
        settings.names = vec![SERVER.to_owned()];
        settings.trusted = vec![TrustedKeys::Key(owner.public())];
        let service = Service::start(&settings).await.unwrap();
        let admin = std::fs::read_to_string(&service.admin_token).unwrap().trim().to_owned();
        Self { service, owner, admin, _folder: folder }
    }

    /// Asks as the administrator.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value) -> Answer {
        self.ask_as(&self.admin, method, path, body).await
    }

    pub(crate) async fn ask_as(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let authorization = format!("Bearer {token}");
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        self.request(method, path, &headers, body).await
    }

    pub(crate) async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let url = format!("http://{}{path}", self.service.addresses.operators);
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).unwrap();
        let asked = tokio::task::spawn_blocking(move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false);
            // Of a service that is slow to say no, a client that does not wait hears nothing but that the pipe is broken.
            let agent: ureq::Agent = config.timeout_await_100(Some(Duration::from_secs(30))).build().into();
            let mut answer = agent.run(request).unwrap();
            let text = answer.body_mut().read_to_string().unwrap();
            Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), text }
        });
        within(asked).await.unwrap()
    }

    pub(crate) async fn token(&self, form: Value) -> String {
        let told = self.ask("POST", "/api/v1/enrolment-tokens", form).await.expect(201).json();
        told["token"].as_str().unwrap().to_owned()
    }

    /// A token's holder asks for a certificate in a device's name; with it, how it then connects.
    pub(crate) async fn enrol(&self, device: &str, token: &str) -> Result<Arc<ClientConfig>, Status> {
        let root = token.parse::<EnrolmentToken>().unwrap().root();
        let mut client = EnrolmentClient::new(self.channel(stranger(root)).await);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let request = EnrolRequest {
            device: device.to_owned(),
            token: token.to_owned(),
            certificate_request: request_for(&key).into(),
        };
        let enrolled = within(client.enrol(request)).await?.into_inner();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(enrolled.authority.as_bytes()).unwrap()).unwrap();
        let chain = CertificateDer::pem_slice_iter(enrolled.certificates.as_bytes()).collect::<Result<_, _>>().unwrap();
        Ok(client_of(&roots, chain, &key))
    }

    /// Enrols with a token for this device alone.
    pub(crate) async fn device(&self, device: &str) -> Arc<ClientConfig> {
        let token = self.token(json!({ "name": device, "device": device })).await;
        self.enrol(device, &token).await.unwrap()
    }

    /// gRPC on the device port.
    pub(crate) async fn channel(&self, tls: Arc<ClientConfig>) -> Channel {
        let address = self.service.addresses.devices;
        let mut tls = ClientConfig::clone(&tls);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tls = Arc::new(tls);
        let connector = tower::service_fn(move |_| {
            let tls = Arc::clone(&tls);
            async move { connect(&tls, address).await.map(TokioIo::new) }
        });
        within(Endpoint::from_static("https://fleet.test").connect_with_connector(connector)).await.unwrap()
    }

    /// Uploads bytes under a name, which need not be theirs; the answer to its completion.
    pub(crate) async fn upload(&self, digest: Digest, content: &[u8]) -> Answer {
        let form = json!({ "digest": digest, "bytes": content.len() });
        self.ask("POST", "/api/v1/blobs", form).await.expect(200);
        let authorization = format!("Bearer {}", self.admin);
        let path = format!("/api/v1/blobs/{digest}?offset=0");
        self.request("PATCH", &path, &[("authorization", &authorization)], content.to_vec()).await.expect(200);
        self.ask("POST", &format!("/api/v1/blobs/{digest}/complete"), Value::Null).await
    }

    pub(crate) async fn keep(&self, content: &[u8]) -> Digest {
        let digest = hash(content);
        self.upload(digest, content).await.expect(204);
        digest
    }
}

fn stranger(root: Digest) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.dangerous().with_custom_certificate_verifier(Arc::new(Pinned(root))).with_no_client_auth())
}

fn client_of(roots: &RootCertStore, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    Arc::new(builder.with_root_certificates(roots.clone()).with_client_auth_cert(chain, key).unwrap())
}
