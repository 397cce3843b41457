//! The file that holds what an agent must not forget.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SlotError;
use crate::{Active, State};

/// The version that this program writes, and the latest that it reads.
pub(super) const VERSION: u32 = 1;
/// Three kinds, two slots and a few numbers are far below it.
const BYTES_MAX: u64 = 64 << 10;

/// State and active slots in one file, so that one rename flips every kind that an order names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    pub(super) state: State,
    pub(super) active: Active,
}

impl Record {
    pub(super) fn new(state: State, active: Active) -> Self {
        Self { version: VERSION, state, active }
    }

    /// What the file says; that nothing is known where there is none.
    pub(super) fn read(path: &Path) -> Result<Self, SlotError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
        match read {
            Ok(_) => Self::parse(&bytes).map_err(|reason| SlotError::State { path: path.to_owned(), reason }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SlotError::Read { path: path.to_owned(), source }),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if version == 0 || version > VERSION {
            return Err(format!("it is of version {version} of the format, and this program reads up to {VERSION}"));
        }
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("plain data with string keys");
        bytes.push(b'\n');
        bytes
    }
}
