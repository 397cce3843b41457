//! Who this device is to the fleet service: one file, so that a key and its certificate are never of two enrolments.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use revoada_bundle::partial::Partial;
use revoada_bundle::sign::PublicKey;
use revoada_proto::DeviceId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::config::Address;

const VERSION: u32 = 1;
/// A key, a chain of certificates and a few names.
const BYTES_MAX: u64 = 256 << 10;

/// What enrolment gave to a device, with the key that it made for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    version: u32,
    pub device: DeviceId,
    /// The first level of topics below the version.
    pub tenant: DeviceId,
    /// PEM; the device's own certificate first.
    pub certificates: String,
    /// PEM of the one root that the service's certificates are held against.
    pub authority: String,
    /// Signs orders and commands.
    pub order_key: PublicKey,
    /// The MQTT broker.
    broker: String,
    /// PKCS #8, PEM.
    key: String,
}

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("this device is not enrolled: there is no `{}`", path.display())]
    Missing { path: PathBuf },
    #[error("cannot read identity `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("identity `{}` cannot be used: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot write identity `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
}

impl Identity {
    pub(super) fn new(device: DeviceId, tenant: DeviceId, broker: &Address, order_key: PublicKey, tls: Tls) -> Self {
        let Tls { key, certificates, authority } = tls;
        let broker = broker.to_string();
        Self { version: VERSION, device, tenant, certificates, authority, order_key, broker, key: key.serialize_pem() }
    }

    /// The same device with a new key and certificate.
    pub(super) fn renewed(&self, key: &KeyPair, certificates: String) -> Self {
        Self { key: key.serialize_pem(), certificates, ..self.clone() }
    }

    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let mut bytes = Vec::new();
        match File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Missing { path: path.to_owned() });
            }
            Err(source) => return Err(IdentityError::Read { path: path.to_owned(), source }),
        }
        let damaged = |reason: String| IdentityError::Damaged { path: path.to_owned(), reason };
        let identity: Self = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if identity.version != VERSION {
            return Err(damaged(format!("it is of version {}, and this program reads {VERSION}", identity.version)));
        }
        identity.broker.parse::<Address>().map_err(|error| damaged(error.to_string()))?;
        Ok(identity)
    }

    /// Replaces the file, which only its owner reads, by one rename.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let save = || -> io::Result<()> {
            let partial = Partial::create(path)?;
            fs::set_permissions(partial.path(), fs::Permissions::from_mode(0o600))?;
            let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
            text.push(b'\n');
            fs::write(partial.path(), text)?;
            partial.commit().map(drop)
        };
        save().map_err(|source| IdentityError::Write { path: path.to_owned(), source })
    }

    /// Where the broker listens.
    pub fn broker(&self) -> Address {
        self.broker.parse().expect("what is loaded or enrolled has an address")
    }

    pub(super) fn key_pem(&self) -> &str {
        &self.key
    }
}

/// Without the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, key ***)", self.device)
    }
}

/// What TLS needs of an identity.
pub(super) struct Tls {
    pub(super) key: KeyPair,
    pub(super) certificates: String,
    pub(super) authority: String,
}

/// A new P-256 key, and the request (PKCS #10, DER) for a certificate for it.
pub(super) fn request(device: &DeviceId) -> Result<(KeyPair, Vec<u8>), IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, device.as_str());
    let request = params.serialize_request(&key).map_err(IdentityError::Key)?;
    Ok((key, request.der().to_vec()))
}
