//! The built-in certificate authority.

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber, date_time_ymd,
};
use revoada_bundle::partial;
use revoada_core::Digest;
use revoada_proto::{DeviceId, EnrolmentToken};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use super::{CertificateRequest, Serial};

/// How long a device's certificate holds, where the operator says nothing else.
pub const VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// A server whose clock is set back within this finds its newest certificates valid still.
const BACKDATED: Duration = Duration::from_secs(24 * 3600);

const KEY_FILE: &str = "authority.key.pem";
const CERTIFICATE_FILE: &str = "authority.cert.pem";
/// A certificate or a key has about one.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Signs the certificates of devices and servers with one ECDSA key on P-256, kept in a folder: `authority.key.pem`, which
/// only its owner reads, and `authority.cert.pem`, which says nothing secret.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    pem: String,
}

/// A certificate for a device.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM.
    pub certificate: String,
    pub serial: Serial,
    /// In whole seconds.
    pub not_after: SystemTime,
}

/// What a server shows, and its key, made for one run of the service: nothing of it is written to a file.
pub struct ServerIdentity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("cannot read `{path}` of the certificate authority")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write `{path}` of the certificate authority")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is no file of a certificate authority: {reason}")]
    Damaged { path: PathBuf, reason: String },
    #[error("the certificate and the key in `{folder}` do not belong together")]
    Mismatch { folder: PathBuf },
    #[error("cannot issue a certificate for {name}")]
    Issue {
        name: String,
        #[source]
        source: rcgen::Error,
    },
    #[error("the system gives no random numbers: {reason}")]
    Random { reason: String },
}

impl IdentityError {
    /// Whether there is no authority in the folder.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Authority {
    /// Makes a new authority in a folder that has none. Neither file is ever written over another. The certificate is written
    /// last, and a key that has none yet, after a power cut, gets one.
    pub fn create(folder: &Path) -> Result<Self, IdentityError> {
        let issue = |source| IdentityError::Issue { name: "the authority".to_owned(), source };
        let key_path = folder.join(KEY_FILE);
        if !key_path.exists() {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(issue)?;
            write_new(&key_path, &key.serialize_pem(), 0o600)?;
        }
        let key = read_key(&key_path)?;
        let mut params = lasting(&serial()?);
        params.distinguished_name.push(DnType::CommonName, "Revoada fleet authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(issue)?;
        write_new(&folder.join(CERTIFICATE_FILE), &certificate.pem(), 0o644)?;
        Self::load(folder)
    }

    /// The authority that is in a folder.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let certificate_path = folder.join(CERTIFICATE_FILE);
        let key = read_key(&folder.join(KEY_FILE))?;
        let pem = read(&certificate_path)?;
        let root =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| damaged(&certificate_path, &error))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&root).map_err(|error| damaged(&certificate_path, &error))?;
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            return Err(IdentityError::Mismatch { folder: folder.to_owned() });
        }
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(|error| damaged(&certificate_path, &error))?;
        Ok(Self { issuer, root, pem })
    }

    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The root certificate, for devices to keep.
    pub fn root_pem(&self) -> &str {
        &self.pem
    }

    /// The SHA-256 of the root certificate's DER.
    pub fn fingerprint(&self) -> Digest {
        revoada_bundle::hash(&self.root)
    }

    /// A new secret for a device to be let in with; the caller remembers what it is good for.
    pub fn new_token(&self) -> Result<EnrolmentToken, IdentityError> {
        let mut secret = [0; EnrolmentToken::SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|error| IdentityError::Random { reason: error.to_string() })?;
        Ok(EnrolmentToken::new(secret, self.fingerprint()))
    }

    /// Certifies that the key of the request is the device's. The caller has made sure that it is.
    pub fn issue_device(
        &self,
        request: &CertificateRequest,
        device: &DeviceId,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Issued, IdentityError> {
        let issue = |source| IdentityError::Issue { name: format!("device `{device}`"), source };
        let serial = serial()?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let not_after = Duration::from_secs(now.saturating_add(validity).as_secs());
        // The last second of 9999, after which certificates cannot say a time.
        let not_after = not_after.min(Duration::from_secs(253_402_300_799));
        let mut params = lasting(&serial);
        params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(BACKDATED);
        params.not_after = date_time_ymd(1970, 1, 1) + not_after;
        params.distinguished_name.push(DnType::CommonName, device.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&request.params.public_key, &self.issuer).map_err(issue)?;
        Ok(Issued { certificate: certificate.pem(), serial, not_after: UNIX_EPOCH + not_after })
    }

    /// A new key for a server that devices reach by any of the names or addresses.
    pub fn issue_server(&self, names: &[String]) -> Result<ServerIdentity, IdentityError> {
        let issue = |source| IdentityError::Issue { name: format!("server `{}`", names.join("`, `")), source };
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(issue)?;
        let mut params = lasting(&serial()?);
        params.subject_alt_names = CertificateParams::new(names).map_err(issue)?.subject_alt_names;
        params.distinguished_name.push(DnType::CommonName, "Revoada fleet service");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(issue)?;
        // The root goes with it: a device that enrols knows no more of it than its fingerprint.
        let chain = vec![certificate.der().clone(), self.root.clone()];
        Ok(ServerIdentity { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() })
    }
}

/// Of a certificate that every clock finds valid, without a name.
fn lasting(serial: &Serial) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params
}

fn serial() -> Result<Serial, IdentityError> {
    Serial::random().map_err(|error| IdentityError::Random { reason: error.to_string() })
}

fn damaged(path: &Path, reason: &dyn Error) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), reason: reason.to_string() }
}

fn read_key(path: &Path) -> Result<KeyPair, IdentityError> {
    KeyPair::from_pem(&read(path)?).map_err(|error| damaged(path, &error))
}

fn read(path: &Path) -> Result<String, IdentityError> {
    let cannot_read = |source| IdentityError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(cannot_read)?;
    io::Read::read_to_string(&mut io::Read::take(file, FILE_BYTES_MAX), &mut text).map_err(cannot_read)?;
    Ok(text)
}

/// The file appears whole under its name, or not at all, and only where there is none yet.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    let partial = path.with_extension("partial");
    let write = || {
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Unlike a renaming, this fails where the name is taken.
        let linked = fs::hard_link(&partial, path);
        fs::remove_file(&partial)?;
        linked?;
        partial::sync_folder_of(path)
    };
    write().map_err(|source| IdentityError::Write { path: path.to_owned(), source })
}
