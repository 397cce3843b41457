//! TLS to the fleet service from a device whose clock nobody has set.
//!
//! A Jetson without a battery wakes decades in the past, and has to reach the service before it can learn the time. So the
//! validity times of the service's certificates are not looked at; everything else is: the chain to the one root that the
//! device trusts, the name, and the proof that the server has the key. That nobody goes on with a stolen key of the service
//! for longer is what the root's owner has to see to.

use std::sync::Arc;
use std::time::Duration;

use revoada_bundle::hash;
use revoada_core::Digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use thiserror::Error as ThisError;

use super::identity::Identity;

/// HTTP/2, which gRPC speaks.
pub(super) const H2: &[u8] = b"h2";
/// What blobs are fetched by.
pub(super) const HTTP1: &[u8] = b"http/1.1";

#[derive(Debug, ThisError)]
pub enum TlsError {
    #[error("cannot read the {what} of this device")]
    Pem {
        what: &'static str,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("cannot use this device's key and certificates")]
    Rustls(#[from] Error),
    #[error("cannot use the authority of this device")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// For a device that has no certificate yet: trusts the server whose chain ends at the root with this SHA-256.
pub(super) fn pinned(root: Digest) -> Result<Arc<ClientConfig>, TlsError> {
    let config = builder(Roots::Pinned(root))?.with_no_client_auth();
    Ok(with_protocol(config, Some(H2)))
}

/// For an enrolled device.
pub(super) fn mutual(identity: &Identity, protocol: Option<&[u8]>) -> Result<Arc<ClientConfig>, TlsError> {
    let pem = |what| move |source| TlsError::Pem { what, source };
    let root = CertificateDer::from_pem_slice(identity.authority.as_bytes()).map_err(pem("authority"))?;
    let chain = CertificateDer::pem_slice_iter(identity.certificates.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(pem("certificates"))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem().as_bytes()).map_err(pem("key"))?;
    let config = builder(Roots::Known(verifier(root)?))?.with_client_auth_cert(chain, key)?;
    Ok(with_protocol(config, protocol))
}

/// The certificate in PEM whose SHA-256 this is, alone and as PEM again; `None` where there is none.
pub(super) fn root_in(pem: &str, root: Digest) -> Option<String> {
    let is_root = |part: &&str| {
        CertificateDer::from_pem_slice(part.as_bytes()).is_ok_and(|certificate| hash(certificate.as_ref()) == root)
    };
    pem.split_inclusive("-----END CERTIFICATE-----").find(is_root).map(|part| format!("{}\n", part.trim()))
}

fn with_protocol(mut config: ClientConfig, protocol: Option<&[u8]>) -> Arc<ClientConfig> {
    config.alpn_protocols = protocol.into_iter().map(<[u8]>::to_vec).collect();
    Arc::new(config)
}

fn builder(roots: Roots) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Timeless { roots })))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn verifier(root: CertificateDer<'_>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(root.into_owned())?;
    Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()?)
}

#[derive(Debug)]
enum Roots {
    Known(Arc<WebPkiServerVerifier>),
    /// The server has to send it.
    Pinned(Digest),
}

/// Checks what webpki checks, as of a moment at which the server's certificates are valid.
#[derive(Debug)]
struct Timeless {
    roots: Roots,
}

impl ServerCertVerifier for Timeless {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = match &self.roots {
            Roots::Known(verifier) => Arc::clone(verifier),
            Roots::Pinned(digest) => {
                let root = intermediates.iter().find(|certificate| hash(certificate.as_ref()) == *digest);
                let root = root.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
                verifier(root.clone()).map_err(|error| Error::General(error.to_string()))?
            }
        };
        let moment = begin_of_validity(std::iter::once(end_entity).chain(intermediates))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, moment)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

impl Timeless {
    fn algorithms(&self) -> rustls::crypto::WebPkiSupportedAlgorithms {
        provider().signature_verification_algorithms
    }
}

/// The first moment at which all of these are valid, if there is one.
fn begin_of_validity<'c>(chain: impl Iterator<Item = &'c CertificateDer<'c>>) -> Result<UnixTime, Error> {
    let mut begin = 0;
    for certificate in chain {
        let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate.as_ref()).map_err(bad)?;
        begin = begin.max(u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0));
    }
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(begin)))
}
