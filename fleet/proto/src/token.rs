//! What lets a device without a certificate in.

use std::fmt;
use std::str::FromStr;

use revoada_core::{Digest, from_hex, to_hex};
use thiserror::Error;

/// What an operator carries to a new device: a secret that the service knows, and the SHA-256 of the root certificate (DER)
/// that signs the service's certificates, so that the device trusts no other server with the secret. Written
/// `<secret>.<root>`, both in hexadecimal digits. It prints as `***`; [`text`](Self::text) has it.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    secret: [u8; Self::SECRET_BYTES],
    root: Digest,
}

/// Deliberately without the text: it may be a secret with a typing error.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected an enrolment token: 32 hexadecimal digits, a point, and 64 more")]
pub struct EnrolmentTokenError;

impl EnrolmentToken {
    /// Too many to guess.
    pub const SECRET_BYTES: usize = 16;

    pub fn new(secret: [u8; Self::SECRET_BYTES], root: Digest) -> Self {
        Self { secret, root }
    }

    pub fn secret(&self) -> &[u8; Self::SECRET_BYTES] {
        &self.secret
    }

    /// The SHA-256 of the root certificate.
    pub fn root(&self) -> Digest {
        self.root
    }

    /// For the operator, and for the enrolment request.
    pub fn text(&self) -> String {
        format!("{}.{}", to_hex(&self.secret), self.root.hex())
    }
}

impl FromStr for EnrolmentToken {
    type Err = EnrolmentTokenError;

    fn from_str(text: &str) -> Result<Self, EnrolmentTokenError> {
        let (secret, root) = text.trim().split_once('.').ok_or(EnrolmentTokenError)?;
        let secret = from_hex(secret).ok_or(EnrolmentTokenError)?;
        let root = from_hex(root).map(Digest::new).ok_or(EnrolmentTokenError)?;
        Ok(Self { secret, root })
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolmentToken(*** for {})", self.root.short())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        let token = EnrolmentToken::new([0xab; 16], Digest::new([7; 32])).text();
        let (secret, root) = token.split_once('.').unwrap();
        for text in [
            "",
            ".",
            secret,
            &format!("{secret}."),
            &format!(".{root}"),
            &format!("{secret}.sha256:{root}"),
            &format!("{}.{root}", &secret[1..]),
            &format!("{secret}.{root}."),
            &token.replace("ab", "äb"),
        ] {
            let error = text.parse::<EnrolmentToken>().unwrap_err();
            assert!(text.len() < 8 || !error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn a_token_keeps_its_secret_when_it_is_printed() {
        let token = EnrolmentToken::new([0xab; 16], Digest::new([7; 32]));
        assert_eq!(format!("{token:?}"), "EnrolmentToken(*** for 070707070707)");
    }

    proptest! {
        #[test]
        fn a_token_is_read_as_it_is_written(secret: [u8; 16], root: [u8; 32]) {
            let token = EnrolmentToken::new(secret, Digest::new(root));
            prop_assert_eq!(format!("{}\n", token.text()).parse(), Ok(token));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text: String) {
            let _ = text.parse::<EnrolmentToken>();
        }
    }
}
