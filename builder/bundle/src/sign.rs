//! Ed25519 signatures (RFC 8032) over digests: who vouches for a bundle or a plan.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, spki::der::pem::LineEnding};
use ed25519_dalek::{Signature as Ed25519, Signer, SigningKey, VerifyingKey};
use revoada_core::{Digest, from_hex, to_hex};
use serde::{Deserialize, Serialize};
use thiserror::Error;

const PREFIX: &str = "ed25519:";
/// A file of trusted keys: a thousand of them with a remark each.
const KEYS_BYTES_MAX: u64 = 1 << 18;

/// What is signed, so that a signature of one kind of thing is worth nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Bundle,
    Plan,
    /// A pipeline's configuration, as the fleet deploys it.
    Pipeline,
    /// The program itself, as the fleet deploys it.
    Package,
    /// What a device is to run, as the fleet service says it.
    Order,
    /// What a device is to do once.
    Command,
    /// To learn, in one round.
    Invitation,
}

impl Purpose {
    fn message(self, digest: Digest) -> Vec<u8> {
        let context: &[u8] = match self {
            Self::Bundle => b"revoada bundle 1\0",
            Self::Plan => b"revoada plan 1\0",
            Self::Pipeline => b"revoada pipeline 1\0",
            Self::Package => b"revoada package 1\0",
            Self::Order => b"revoada order 1\0",
            Self::Command => b"revoada command 1\0",
            Self::Invitation => b"revoada invitation 1\0",
        };
        [context, digest.as_bytes()].concat()
    }
}

/// A key that signs. Kept in a file that only its owner reads, in PKCS #8 PEM as `openssl genpkey
/// -algorithm ed25519` writes it.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// A new one from the system's random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| KeyError::Random { reason: error.to_string() })?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
        let key = SigningKey::from_pkcs8_pem(&text).map_err(|_| KeyError::NotAKey { path: path.to_owned() })?;
        Ok(Self(key))
    }

    /// Writes a new file of mode 600; never over another one.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let refuse = |source| KeyError::Write { path: path.to_owned(), source };
        let pem = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|error| refuse(io::Error::other(error.to_string())))?;
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(refuse)?;
        io::Write::write_all(&mut file, pem.as_bytes()).and_then(|()| file.sync_all()).map_err(refuse)
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub fn sign(&self, purpose: Purpose, digest: Digest) -> Signature {
        Signature { key: self.public(), signature: to_hex(&self.0.sign(&purpose.message(digest)).to_bytes()) }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(*** of {})", self.public())
    }
}

/// The public half of a key, written `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PublicKey([u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", to_hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = text.strip_prefix(PREFIX).and_then(from_hex);
        // Also refuses points that are none.
        let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        key.map(|key| Self(key.to_bytes())).ok_or_else(|| KeyError::NotPublic { text: text.chars().take(90).collect() })
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

/// Who is to be trusted, as it is typed: a public key, or a file with one a line, where empty lines and those that
/// begin with `#` say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedKeys {
    Key(PublicKey),
    File(PathBuf),
}

impl TrustedKeys {
    /// The keys of all of them. A file without a key is refused: it would trust nobody.
    pub fn read_all(named: &[Self]) -> Result<Vec<PublicKey>, KeyError> {
        let mut keys = Vec::new();
        for named in named {
            match named {
                Self::Key(key) => keys.push(*key),
                Self::File(path) => keys.extend(read_keys(path)?),
            }
        }
        Ok(keys)
    }
}

fn read_keys(path: &Path) -> Result<Vec<PublicKey>, KeyError> {
    let cannot_read = |source| KeyError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(cannot_read)?;
    io::Read::read_to_string(&mut io::Read::take(file, KEYS_BYTES_MAX), &mut text).map_err(cannot_read)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(str::parse).collect::<Result<Vec<PublicKey>, _>>()?;
    if keys.is_empty() { Err(KeyError::NoKeys { path: path.to_owned() }) } else { Ok(keys) }
}

impl fmt::Display for TrustedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for TrustedKeys {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        match text.starts_with(PREFIX) {
            true => text.parse().map(Self::Key),
            false => Ok(Self::File(text.into())),
        }
    }
}

/// Who signed, and the signature as 128 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    pub key: PublicKey,
    signature: String,
}

impl Signature {
    /// From the 64 bytes that a message has of it.
    pub fn from_bytes(key: PublicKey, signature: &[u8; 64]) -> Self {
        Self { key, signature: to_hex(signature) }
    }

    /// Its 64 bytes; `None` where the text was none, which nothing verifies.
    pub fn to_bytes(&self) -> Option<[u8; 64]> {
        from_hex(&self.signature)
    }

    /// Whether the key has signed this digest for this purpose.
    pub fn verify(&self, purpose: Purpose, digest: Digest) -> bool {
        let signature = from_hex::<64>(&self.signature).map(|bytes| Ed25519::from_bytes(&bytes));
        let key = VerifyingKey::from_bytes(&self.key.0).ok();
        // Strict: no other signature of the same message is accepted, nor a weak key.
        key.zip(signature)
            .is_some_and(|(key, signature)| key.verify_strict(&purpose.message(digest), &signature).is_ok())
    }
}

#[derive(Debug, Error)]
pub enum KeyError {
    #[error("cannot read key `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is no Ed25519 private key in PKCS #8 PEM")]
    NotAKey { path: PathBuf },
    #[error("cannot write key `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{text}` is no public key: expected `ed25519:` and 64 hexadecimal digits")]
    NotPublic { text: String },
    #[error("`{path}` names no public key, so that nobody would be trusted")]
    NoKeys { path: PathBuf },
    #[error("the system gives no random numbers: {reason}")]
    Random { reason: String },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::hash::hash;

    #[test]
    fn a_signature_holds_for_one_digest_one_purpose_and_one_key() {
        let (key, other) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        let digest = hash(b"bundle");
        let signature = key.sign(Purpose::Bundle, digest);
        assert!(signature.verify(Purpose::Bundle, digest));
        assert!(!signature.verify(Purpose::Plan, digest));
        assert!(!signature.verify(Purpose::Bundle, hash(b"another")));
        assert!(!Signature { key: other.public(), ..signature.clone() }.verify(Purpose::Bundle, digest));
        let damaged = signature.signature.replace(['0', '1'], "2");
        assert!(!Signature { signature: damaged, ..signature }.verify(Purpose::Bundle, digest));
    }

    #[test]
    fn a_key_is_read_back_from_a_file_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owner.pem");
        let key = SecretKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(SecretKey::load(&path).unwrap().public(), key.public());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(key.save(&path), Err(KeyError::Write { .. })), "a key is never written over another");
        assert!(!format!("{key:?}").contains(&to_hex(key.0.as_bytes())));
        fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(matches!(SecretKey::load(&path), Err(KeyError::NotAKey { .. })));
    }

    #[test]
    fn public_keys_are_read_back_as_they_are_written() {
        let key = SecretKey::generate().unwrap().public();
        assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        for text in ["", "ed25519:", &to_hex(&key.0), &format!("ed25519:{}", "f".repeat(63))] {
            assert!(text.parse::<PublicKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn trusted_keys_are_typed_or_stand_in_a_file_one_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trusted");
        let [a, b, c] = [(); 3].map(|()| SecretKey::generate().unwrap().public());
        fs::write(&path, format!("# builders\n{b}\n\n  {c}\n")).unwrap();
        let named: Vec<TrustedKeys> =
            [a.to_string(), path.display().to_string()].map(|text| text.parse().unwrap()).into();
        assert_eq!(named[1], TrustedKeys::File(path.clone()));
        assert_eq!(TrustedKeys::read_all(&named).unwrap(), [a, b, c]);
        assert!("ed25519:12".parse::<TrustedKeys>().is_err(), "a mistyped key is no file");
        for (text, expected) in [("# nobody\n", "names no public key"), ("owner", "`owner` is no public key")] {
            fs::write(&path, text).unwrap();
            let error = TrustedKeys::read_all(&named).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// RFC 8032, section 7.1, test 1: the same key and signature arithmetic as everybody's.
    #[test]
    fn keys_are_those_of_the_standard() {
        let seed = from_hex::<32>("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = SecretKey(SigningKey::from_bytes(&seed));
        assert_eq!(
            key.public().to_string(),
            "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
    }
}
