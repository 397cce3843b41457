//! What pictures are of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Words of a language are shorter, and a file system takes twice as many.
const BYTES_MAX: usize = 128;

/// What pictures are of: the name of the folder in which they lie. 1 to 128 bytes without `/`, `\` and control characters, that
/// neither begin with a dot nor begin or end with a space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// A text that is no label.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected a label of 1 to {BYTES_MAX} bytes without `/`, `\\`, a dot in front and spaces around it, got `{text}`"
)]
pub struct LabelError {
    /// At most so many characters of it, without control characters.
    text: String,
}

impl Label {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let is_wrong = |c: char| matches!(c, '/' | '\\') || c.is_control();
        let fits = (1..=BYTES_MAX).contains(&text.len()) && text.trim() == text;
        if fits && !text.starts_with('.') && !text.contains(is_wrong) {
            return Ok(Self(text.to_owned()));
        }
        Err(LabelError { text: text.chars().take(64).collect::<String>().escape_debug().to_string() })
    }
}

impl TryFrom<String> for Label {
    type Error = LabelError;

    fn try_from(text: String) -> Result<Self, LabelError> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_folder_of_its_own_is_no_label() {
        for text in ["", ".", "..", ".hidden", "a/b", "/", "a\\b", " a", "a ", "a\n", "a\0", &"a".repeat(129)] {
            assert!(text.parse::<Label>().is_err(), "{text:?}");
            assert!(serde_json::from_value::<Label>(text.into()).is_err(), "{text:?}");
        }
        for text in ["parcel", "Egyptian cat", "Pferd & Wagen", "箱", "-", "a.b", &"a".repeat(128)] {
            assert_eq!(text.parse::<Label>().unwrap().as_str(), text);
        }
        let refused = "../\n".parse::<Label>().unwrap_err().to_string();
        assert!(refused.ends_with("got `../\\n`"), "{refused}");
    }

    proptest! {
        #[test]
        fn whatever_is_a_label_stays_within_a_folder(text in any::<String>()) {
            if let Ok(label) = text.parse::<Label>() {
                let path = std::path::Path::new("/data").join(label.as_str());
                prop_assert_eq!(path.parent(), Some(std::path::Path::new("/data")));
            }
        }
    }
}
