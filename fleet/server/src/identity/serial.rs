//! What tells one certificate of a device from the next.

use std::fmt;
use std::str::FromStr;

use revoada_core::{from_hex, to_hex};
use thiserror::Error;

/// The serial number of a certificate that the authority has issued: 16 random bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected a certificate's serial number of 32 hexadecimal digits")]
pub struct SerialError;

impl Serial {
    /// A new one, as DER has it in as many bytes: positive, and without a zero in front.
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        bytes[0] = bytes[0] & 0x3f | 0x40;
        Ok(Self(bytes))
    }

    /// `None` where it is none of the authority's.
    pub(crate) fn from_der(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        from_hex(text).map(Self).ok_or(SerialError)
    }
}
