//! What a device is called.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// As many as a certificate's common name has room for.
const CHARS_MAX: usize = 64;

/// The name of a device: its certificate's common name, its MQTT client id, and a level of its topics. 1 to 64 letters,
/// digits, `-`, `_` and `.`, of which the last does not come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(Arc<str>);

/// A text that names no device.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected a device's name of 1 to 64 letters, digits, `-`, `_` and `.` (not first), got `{text}`")]
pub struct DeviceIdError {
    /// At most so many characters of it, without control characters.
    text: String,
}

impl DeviceId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, DeviceIdError> {
        let is_right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if (1..=CHARS_MAX).contains(&text.len()) && text.chars().all(is_right) && !text.starts_with('.') {
            return Ok(Self(text.into()));
        }
        Err(DeviceIdError { text: text.chars().take(CHARS_MAX).collect::<String>().escape_debug().to_string() })
    }
}

impl TryFrom<String> for DeviceId {
    type Error = DeviceIdError;

    fn try_from(text: String) -> Result<Self, DeviceIdError> {
        text.parse()
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_reach_into_other_topics_and_folders_is_no_name() {
        for text in ["", ".", "..", ".ssh", "a/b", "+", "#", "a b", "ä", "a\0", &"a".repeat(65)] {
            assert!(text.parse::<DeviceId>().is_err(), "{text:?}");
            assert!(serde_json::from_value::<DeviceId>(text.into()).is_err(), "{text:?}");
        }
        assert_eq!(
            "a/\n".parse::<DeviceId>().unwrap_err().to_string(),
            "expected a device's name of 1 to 64 letters, digits, `-`, `_` and `.` (not first), got `a/\\n`"
        );
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_is_written(text in "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}") {
            let id: DeviceId = text.parse().unwrap();
            prop_assert_eq!(id.to_string(), text);
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<DeviceId>(&json).unwrap(), id);
        }
    }
}
