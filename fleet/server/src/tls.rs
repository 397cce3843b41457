//! How the service's ports are encrypted, and who is at the other end.
//!
//! TLS 1.3 only but for clients that are not ours, with `ring` named in each configuration: there is no default of the process
//! to rely on.

use std::sync::Arc;

use revoada_proto::DeviceId;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{Authority, Serial, ServerIdentity};

/// A device, as its certificate names it. The certificate was issued by the authority and had not ended at the handshake;
/// whether it was revoked is for [`Admission`] to say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub device: DeviceId,
    pub serial: Serial,
}

/// Who may still speak. Asked at every connection and every request and message, so an answer must not wait for anything.
pub trait Admission: Send + Sync + 'static {
    fn admits(&self, device: &DeviceId, serial: &Serial) -> bool;
}

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("cannot prepare to check certificates of devices")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

/// For the broker: nobody gets in without a device's certificate.
pub fn broker_config(authority: &Authority, identity: &ServerIdentity) -> Result<Arc<ServerConfig>, TlsError> {
    config(verifier(authority, false)?, identity, &[])
}

/// For the device port: a device that has no certificate yet comes to get one. HTTP/2 and HTTP/1.1.
pub fn device_port_config(authority: &Authority, identity: &ServerIdentity) -> Result<Arc<ServerConfig>, TlsError> {
    config(verifier(authority, true)?, identity, &[b"h2", b"http/1.1"])
}

/// For clients of Flower's that speak gRPC, which needs HTTP/2.
pub fn flower_config(identity: &ServerIdentity) -> Result<Arc<ServerConfig>, TlsError> {
    anybody(identity, b"h2")
}

/// For SuperNodes of Flower, which speak HTTP/1.1.
pub fn node_config(identity: &ServerIdentity) -> Result<Arc<ServerConfig>, TlsError> {
    anybody(identity, b"http/1.1")
}

/// For clients that have no certificates, and of which old ones speak TLS 1.2.
fn anybody(identity: &ServerIdentity, protocol: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(TlsError::Setup)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

fn verifier(authority: &Authority, may_be_absent: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.root().clone()).map_err(TlsError::Setup)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if may_be_absent {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(TlsError::Verifier)
}

fn config(
    verifier: Arc<dyn ClientCertVerifier>,
    identity: &ServerIdentity,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(TlsError::Setup)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Nothing is resumed, so that every handshake checks the certificate anew.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Who is at the other end; `None` without a certificate, or with one that names no device.
pub(crate) fn peer(connection: &rustls::ServerConnection) -> Option<Peer> {
    let leaf = connection.peer_certificates()?.first()?;
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let mut names = leaf.subject().iter_common_name();
    let device = names.next()?.as_str().ok()?.parse().ok()?;
    let serial = Serial::from_der(leaf.raw_serial())?;
    names.next().is_none().then_some(Peer { device, serial })
}
