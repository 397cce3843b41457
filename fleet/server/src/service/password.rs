//! Passwords and secrets.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use revoada_bundle::hash;
use revoada_core::{Digest, to_hex};

use super::{Result, ServiceError};

/// Shorter ones are guessed.
const PASSWORD_CHARS_MIN: usize = 10;
/// Longer ones are an attack on the hash.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Of a password that nobody has.
static NOBODY: LazyLock<String> = LazyLock::new(|| hash_password("a password of nobody").unwrap_or_default());

/// 256 random bits, as 64 hexadecimal digits.
pub(crate) fn secret() -> Result<String> {
    Ok(to_hex(&random::<32>()?))
}

/// What is kept of a secret: it has as many bits as its hash, so that no salt is needed.
pub(crate) fn hash_of_secret(secret: &str) -> Digest {
    hash(secret.as_bytes())
}

/// Argon2id with the parameters that its crate takes for sound, in PHC form.
pub(super) fn hash_password(password: &str) -> Result<String> {
    if password.chars().count() < PASSWORD_CHARS_MIN || password.len() > PASSWORD_BYTES_MAX {
        return Err(ServiceError::Invalid(format!(
            "a password has at least {PASSWORD_CHARS_MIN} characters, and at most {PASSWORD_BYTES_MAX} bytes"
        )));
    }
    let broken =
        |error: argon2::password_hash::Error| ServiceError::Invalid(format!("cannot hash the password: {error}"));
    let salt = SaltString::encode_b64(&random::<16>()?).map_err(broken)?;
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt).map_err(broken)?.to_string())
}

/// Whether a password is the one whose hash is kept. Takes as long where there is none, so that nobody learns by the time
/// which names there are.
pub(super) fn is_password(password: &str, kept: Option<&str>) -> bool {
    if password.len() > PASSWORD_BYTES_MAX {
        return false;
    }
    let Ok(hash) = PasswordHash::new(kept.unwrap_or(&NOBODY)) else { return false };
    let is_right = Argon2::default().verify_password(password.as_bytes(), &hash).is_ok();
    is_right && kept.is_some()
}

pub(super) fn random<const BYTES: usize>() -> Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| ServiceError::Invalid(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash_alone() {
        let hash = hash_password("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(is_password("correct horse", Some(&hash)));
        assert!(!is_password("correct horsf", Some(&hash)));
        assert!(!is_password("correct horse", None));
        assert_ne!(hash, hash_password("correct horse").unwrap(), "the salt differs");
        assert!(hash_password("short").is_err() && hash_password(&"a".repeat(2000)).is_err());
    }
}
