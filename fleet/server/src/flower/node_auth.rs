//! Who a SuperNode is: it has a key, and signs the time of each request with it.
//!
//! A signature says nothing of the request itself: whoever overhears one over plain HTTP has the node's place for as long as
//! its time stamp is fresh. Only TLS keeps them from it.

use std::fmt;
use std::time::{Duration, SystemTime};

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use revoada_core::Digest;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{SubjectPublicKeyInfoDer, alg_id};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// How old a time stamp may be.
const AGE_MAX: Duration = Duration::from_secs(305);
/// How far ahead of ours a node's clock may be.
const AHEAD_MAX: Duration = Duration::from_secs(5);
/// Of the header, before it is looked at.
const TIMESTAMP_BYTES_MAX: usize = 64;

#[derive(Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    #[error("the header `{0}` is missing")]
    Missing(&'static str),
    #[error("the header `{0}` cannot be read")]
    Malformed(&'static str),
    #[error("the public key is none on the curve P-256 or P-384")]
    Key,
    #[error("the time stamp is too old or ahead of its time: see that both clocks are right")]
    Stale,
    #[error("the signature is wrong")]
    Signature,
}

/// A node's public key: an `ecPublicKey` on P-256 or P-384, as DER.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeKey(Vec<u8>);

#[derive(Clone, Copy)]
enum Curve {
    P256,
    P384,
}

const PRIME256V1: &str = "1.2.840.10045.3.1.7";
const SECP384R1: &str = "1.3.132.0.34";
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";

impl NodeKey {
    pub fn from_der(der: &[u8]) -> Result<Self, AuthError> {
        let key = Self(der.to_vec());
        key.parts().ok_or(AuthError::Key)?;
        Ok(key)
    }

    /// As nodes send it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, AuthError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| AuthError::Key)?;
        Self::from_der(&der)
    }

    /// As `ssh-keygen` writes a public key: `ecdsa-sha2-nistp384 AAAA… comment`.
    pub fn from_openssh(line: &str) -> Result<Self, AuthError> {
        // Each field of the blob has its length before it.
        fn field<'a>(blob: &mut &'a [u8]) -> Option<&'a [u8]> {
            let (length, rest) = blob.split_first_chunk::<4>()?;
            let (field, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            *blob = rest;
            Some(field)
        }
        let parse = || {
            let mut words = line.split_whitespace();
            let (name, blob) = (words.next()?, STANDARD.decode(words.next()?).ok()?);
            let mut blob = blob.as_slice();
            let (inner, curve, point) = (field(&mut blob)?, field(&mut blob)?, field(&mut blob)?);
            let id = match curve {
                b"nistp256" => alg_id::ECDSA_P256,
                b"nistp384" => alg_id::ECDSA_P384,
                _ => return None,
            };
            (inner == name.as_bytes() && blob.is_empty()).then(|| Self::of_point(id.as_ref(), point))?
        };
        parse().ok_or(AuthError::Key)
    }

    /// The DER around a point; all lengths of these two curves fit a byte.
    fn of_point(id: &[u8], point: &[u8]) -> Option<Self> {
        let short = |length: usize| u8::try_from(length).ok().filter(|length| *length < 128);
        let mut inner = vec![0x30, short(id.len())?];
        inner.extend_from_slice(id);
        inner.extend_from_slice(&[0x03, short(point.len() + 1)?, 0]);
        inner.extend_from_slice(point);
        let mut der = vec![0x30, short(inner.len())?];
        der.extend_from_slice(&inner);
        Self::from_der(&der).ok()
    }

    pub fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// The curve and the point on it.
    fn parts(&self) -> Option<(Curve, Vec<u8>)> {
        let (rest, key) = SubjectPublicKeyInfo::from_der(&self.0).ok()?;
        let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let (curve, length) = match curve.to_id_string().as_str() {
            PRIME256V1 => (Curve::P256, 65),
            SECP384R1 => (Curve::P384, 97),
            _ => return None,
        };
        let point = key.subject_public_key.data;
        let is_sound = rest.is_empty()
            && key.algorithm.algorithm.to_id_string() == EC_PUBLIC_KEY
            && point.len() == length
            && point[0] == 4;
        is_sound.then(|| (curve, point.into_owned()))
    }

    /// Whether its owner has signed this: ECDSA with SHA-256, on either curve.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let Some((curve, point)) = self.parts() else { return false };
        let curve = match curve {
            Curve::P256 => alg_id::ECDSA_P256,
            Curve::P384 => alg_id::ECDSA_P384,
        };
        let known = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
        let algorithm = known
            .iter()
            .find(|known| known.public_key_alg_id() == curve && known.signature_alg_id() == alg_id::ECDSA_SHA256)
            .expect("ring knows ECDSA with SHA-256 on both curves");
        algorithm.verify_signature(&point, message, signature).is_ok()
    }
}

/// For people: enough of its digest to tell keys apart.
impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", Digest::new(Sha256::digest(&self.0).into()).short())
    }
}

/// Whose request this is, by its headers.
pub fn authenticate(headers: &HeaderMap, now: SystemTime) -> Result<NodeKey, AuthError> {
    let text = |name: &'static str| {
        let value = headers.get(name).ok_or(AuthError::Missing(name))?;
        value.to_str().map_err(|_| AuthError::Malformed(name))
    };
    let bytes = |name| STANDARD.decode(text(name)?).map_err(|_| AuthError::Malformed(name));
    let timestamp = text("flwr-timestamp")?;
    let at = parse_timestamp(timestamp).ok_or(AuthError::Malformed("flwr-timestamp"))?;
    let is_fresh = match now.duration_since(at) {
        Ok(age) => age < AGE_MAX,
        Err(ahead) => ahead.duration() < AHEAD_MAX,
    };
    if !is_fresh {
        return Err(AuthError::Stale);
    }
    let key = NodeKey::from_pem(&bytes("flwr-public-key")?)?;
    let signature = bytes("flwr-signature")?;
    key.has_signed(timestamp.as_bytes(), &signature).then_some(key).ok_or(AuthError::Signature)
}

/// As ISO 8601 has it, with an offset: `2026-01-31T10:00:00.123456+00:00`.
fn parse_timestamp(text: &str) -> Option<SystemTime> {
    if text.len() > TIMESTAMP_BYTES_MAX || !text.is_ascii() {
        return None;
    }
    if let Some(time) = text.strip_suffix('Z') {
        return humantime::parse_rfc3339_weak(time).ok();
    }
    let (time, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (sign, offset) = offset.split_at(1);
    let (hours, minutes) = offset.split_once(':')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.len() == 2 && text.as_bytes()[0] != b'+');
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    if hours > 23 || minutes > 59 || time.ends_with('Z') {
        return None;
    }
    let (time, offset) = (humantime::parse_rfc3339_weak(time).ok()?, Duration::from_secs((hours * 60 + minutes) * 60));
    match sign {
        "+" => time.checked_sub(offset),
        "-" => time.checked_add(offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{KeyPair, PublicKeyData, SigningKey};

    use super::*;

    fn headers(key: &KeyPair, timestamp: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut insert = |name, value: &str| drop(headers.insert(name, value.parse().unwrap()));
        insert("flwr-timestamp", timestamp);
        insert("flwr-public-key", &STANDARD.encode(key.public_key_pem()));
        insert("flwr-signature", &STANDARD.encode(key.sign(timestamp.as_bytes()).unwrap()));
        headers
    }

    fn key() -> KeyPair {
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
    }

    #[test]
    fn a_signature_counts_while_its_time_is_fresh() {
        let key = key();
        let headers = headers(&key, "2026-01-31T10:00:00.250000+00:00");
        let at = |millis| humantime::parse_rfc3339("2026-01-31T10:00:00Z").unwrap() + Duration::from_millis(millis);
        let known = NodeKey::from_der(&key.subject_public_key_info()).unwrap();
        assert_eq!(authenticate(&headers, at(250)), Ok(known.clone()));
        assert_eq!(authenticate(&headers, at(305_249)), Ok(known.clone()));
        assert_eq!(authenticate(&headers, at(305_250)), Err(AuthError::Stale));
        assert_eq!(authenticate(&headers, at(0) - Duration::from_millis(4749)), Ok(known));
        assert_eq!(authenticate(&headers, at(0) - Duration::from_millis(4750)), Err(AuthError::Stale));
    }

    #[test]
    fn nobody_speaks_with_anothers_key() {
        let now = humantime::parse_rfc3339("2026-01-31T10:00:00Z").unwrap();
        let (mine, theirs) = (key(), key());
        let mut sent = headers(&mine, "2026-01-31T10:00:00+00:00");
        sent.insert("flwr-public-key", STANDARD.encode(theirs.public_key_pem()).parse().unwrap());
        assert_eq!(authenticate(&sent, now), Err(AuthError::Signature));
        let mut sent = headers(&mine, "2026-01-31T10:00:00+00:00");
        sent.insert("flwr-timestamp", "2026-01-31T10:00:01+00:00".parse().unwrap());
        assert_eq!(authenticate(&sent, now), Err(AuthError::Signature));
        sent.remove("flwr-signature");
        assert_eq!(authenticate(&sent, now), Err(AuthError::Missing("flwr-signature")));
        sent.insert("flwr-public-key", "??".parse().unwrap());
        assert_eq!(authenticate(&sent, now), Err(AuthError::Malformed("flwr-public-key")));
    }

    #[test]
    fn times_are_read_with_their_offset() {
        let utc = |text: &str| humantime::parse_rfc3339(text).ok();
        for (text, meant) in [
            ("2026-01-31T10:00:00+00:00", utc("2026-01-31T10:00:00Z")),
            ("2026-01-31T10:00:00.5Z", utc("2026-01-31T10:00:00.5Z")),
            ("2026-01-31T10:00:00+02:30", utc("2026-01-31T07:30:00Z")),
            ("2026-01-31T10:00:00-01:00", utc("2026-01-31T11:00:00Z")),
            ("2026-01-31T10:00:00", None),
            ("2026-01-31T10:00:00Z+01:00", None),
            ("2026-01-31T10:00:00++1:00", None),
            ("+00:00", None),
            ("", None),
        ] {
            assert_eq!(parse_timestamp(text), meant, "{text}");
        }
    }

    #[test]
    fn a_key_of_openssh_is_the_same_key() {
        // The same key, written by Python's `cryptography` in both ways.
        let line = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBJrJwL80IfxPvM45W1YLrYjjhXF9ntt2dWkQcchtKiJ3NMXK9Ac5Sd9pV/hk4YhwBrKTVymCE+8Wc1bY9wpIq3qz6GIFCncw2LP8ATOW6zrteeoTRGJKR+gkbmLstI7rCA== somebody@somewhere";
        let pem = b"-----BEGIN PUBLIC KEY-----\n\
            MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEmsnAvzQh/E+8zjlbVgutiOOFcX2e23Z1\n\
            aRBxyG0qInc0xcr0BzlJ32lX+GThiHAGspNXKYIT7xZzVtj3CkirerPoYgUKdzDY\n\
            s/wBM5brOu156hNEYkpH6CRuYuy0jusI\n\
            -----END PUBLIC KEY-----\n";
        assert_eq!(NodeKey::from_openssh(line), NodeKey::from_pem(pem));
        assert!(NodeKey::from_openssh(line).is_ok());
        assert_eq!(NodeKey::from_openssh("ecdsa-sha2-nistp256 AAAA"), Err(AuthError::Key));
        assert_eq!(NodeKey::from_openssh(&line.replace("nistp384 ", "nistp256 ")), Err(AuthError::Key));
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert_eq!(NodeKey::from_der(&other.subject_public_key_info()), Err(AuthError::Key));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            parse_timestamp(&text);
            drop(NodeKey::from_openssh(&format!("{text} {}", STANDARD.encode(&bytes))));
            drop(NodeKey::from_der(&bytes));
            drop(NodeKey::from_pem(text.as_bytes()));
        }
    }
}
