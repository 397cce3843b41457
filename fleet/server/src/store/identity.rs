//! Who may say that it is a device.

use std::collections::BTreeSet;

use revoada_core::{Digest, Timestamp};
use revoada_proto::DeviceId;
use serde::{Deserialize, Serialize};

use super::{Actor, Result};

/// A certificate that was issued to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Lower-case hexadecimal digits.
    pub serial: String,
    pub device: DeviceId,
    pub issued_at: Timestamp,
    pub not_after: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// Lets devices enrol that bring its secret, of which nothing but the hash is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// SHA-256 of the secret.
    pub hash: Digest,
    /// What people call it.
    pub name: String,
    pub scope: TokenScope,
    pub uses_left: u32,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Which devices a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenScope {
    Device(DeviceId),
    /// Whose names begin so; the empty text is every device.
    Prefix(String),
}

impl TokenScope {
    pub fn has(&self, device: &DeviceId) -> bool {
        match self {
            Self::Device(one) => one == device,
            Self::Prefix(prefix) => device.as_str().starts_with(prefix),
        }
    }
}

/// What became of the use of a token. Whoever asked is told no more than that it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Granted,
    Unknown,
    Expired,
    UsedUp,
    /// It is for other devices.
    OtherDevice,
}

/// The public key of a device that may enrol without a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredKey {
    /// SHA-256 of the key's SubjectPublicKeyInfo, DER.
    pub spki: Digest,
    pub device: DeviceId,
    pub created_at: Timestamp,
}

/// Certificates, and what they are given for.
pub trait Identity {
    /// Keeps an issued certificate. Refuses a serial that is known.
    fn add_certificate(&self, certificate: &Certificate, by: &Actor, now: Timestamp) -> Result<()>;

    /// By a serial.
    fn certificate(&self, serial: &str) -> Result<Option<Certificate>>;

    /// Of a device, the newest first.
    fn certificates(&self, device: &DeviceId) -> Result<Vec<Certificate>>;

    /// Whether it was known and not revoked before.
    fn revoke_certificate(&self, serial: &str, by: &Actor, now: Timestamp) -> Result<bool>;

    /// Revokes every certificate of a device. How many were not before.
    fn revoke_device(&self, device: &DeviceId, by: &Actor, now: Timestamp) -> Result<usize>;

    /// Every one that is revoked, expired or not.
    fn revoked_serials(&self) -> Result<BTreeSet<String>>;

    /// Forgets certificates that expired before. How many there were.
    fn forget_certificates(&self, expired_before: Timestamp) -> Result<usize>;

    fn add_enrolment_token(&self, token: &EnrolmentToken, by: &Actor, now: Timestamp) -> Result<()>;

    /// Also those that are used up or expired, the newest first.
    fn enrolment_tokens(&self) -> Result<Vec<EnrolmentToken>>;

    /// Whether there was one of this name.
    fn remove_enrolment_token(&self, name: &str, by: &Actor, now: Timestamp) -> Result<bool>;

    /// Takes one use of a token. Of any number of callers at once, as many are granted as it has uses.
    fn take_token(&self, hash: &Digest, device: &DeviceId, now: Timestamp) -> Result<Taken>;

    /// Lets the holder of a key enrol as a device. Refuses a key that is registered.
    fn register_key(&self, spki: &Digest, device: &DeviceId, by: &Actor, now: Timestamp) -> Result<()>;

    /// Whose key it is.
    fn registered_key(&self, spki: &Digest) -> Result<Option<DeviceId>>;

    /// By their devices.
    fn registered_keys(&self) -> Result<Vec<RegisteredKey>>;

    /// Whether it was registered.
    fn remove_key(&self, spki: &Digest, by: &Actor, now: Timestamp) -> Result<bool>;
}
