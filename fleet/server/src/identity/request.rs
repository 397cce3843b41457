//! What a device asks to be certified.

use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use revoada_core::Digest;
use rustls::pki_types::CertificateSigningRequestDer;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

/// Far more than a request for one key has.
const BYTES_MAX: usize = 16 << 10;

/// A PKCS #10 request whose signature has been checked: whoever made it has the private key. Nothing else in it counts.
#[derive(Debug)]
pub struct CertificateRequest {
    pub(super) params: CertificateSigningRequestParams,
    key: Digest,
}

/// Why bytes are no request that the authority answers.
#[derive(Debug, Error)]
pub enum RequestError {
    #[error("the certificate request has {bytes} bytes, and may have {BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("the certificate request is damaged, or not signed by its own key")]
    Damaged,
    #[error("the certificate request is for a key that is neither of P-256 nor Ed25519")]
    Key,
}

impl CertificateRequest {
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > BYTES_MAX {
            return Err(RequestError::TooLong { bytes: der.len() });
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Damaged)?;
        if !rest.is_empty() {
            return Err(RequestError::Damaged);
        }
        let key = request.certification_request_info.subject_pki.raw;
        let params = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(|_| RequestError::Damaged)?;
        let is_allowed =
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519].contains(&params.public_key.algorithm());
        // The algorithm was told from the signature's; the key itself has to be of it too.
        if !is_allowed || params.public_key.subject_public_key_info() != key {
            return Err(RequestError::Key);
        }
        Ok(Self { params, key: revoada_bundle::hash(key) })
    }

    /// The SHA-256 of the public key (SubjectPublicKeyInfo, DER): what an operator registers of a key.
    pub fn key(&self) -> Digest {
        self.key
    }
}
