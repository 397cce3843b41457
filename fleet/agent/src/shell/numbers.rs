//! Numbers that rise over restarts, and which command was done.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use revoada_bundle::partial;
use serde::{Deserialize, Serialize};
use thiserror::Error;

const VERSION: u32 = 1;
const BYTES_MAX: u64 = 4 << 10;
/// As many as reports and events fit between two starts.
const SHIFT: u32 = 32;

#[derive(Debug, Error)]
pub enum NumbersError {
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` cannot be used: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot write `{}`", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The numbers of one agent, and their file.
#[derive(Debug)]
pub(super) struct Numbers {
    path: PathBuf,
    kept: Kept,
    given: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    /// How often an agent was started on this folder.
    starts: u64,
    /// The highest command that was begun.
    command: u64,
    /// Set while it is being done.
    is_open: bool,
}

impl Numbers {
    /// Counts this start, durably: what is numbered from now on comes after everything before.
    pub(super) fn start(path: &Path) -> Result<Self, NumbersError> {
        let mut bytes = Vec::new();
        let kept = match File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes)) {
            Ok(_) => parse(&bytes).map_err(|reason| NumbersError::Damaged { path: path.to_owned(), reason })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Kept { version: VERSION, starts: 0, command: 0, is_open: false }
            }
            Err(source) => return Err(NumbersError::Read { path: path.to_owned(), source }),
        };
        let mut numbers = Self { path: path.to_owned(), kept: kept.clone(), given: 0 };
        numbers.write(Kept { starts: kept.starts.saturating_add(1), ..kept })?;
        Ok(numbers)
    }

    /// The next report or event.
    pub(super) fn next(&mut self) -> u64 {
        self.given += 1;
        (self.kept.starts << SHIFT) | self.given
    }

    /// The highest command that was begun.
    pub(super) fn command(&self) -> u64 {
        self.kept.command
    }

    /// A command that the agent was doing when it ended: whether it was done is not known.
    pub(super) fn interrupted(&self) -> Option<u64> {
        self.kept.is_open.then_some(self.kept.command)
    }

    /// Notes a command before it is done, so that it is never done twice.
    pub(super) fn begin(&mut self, command: u64) -> Result<(), NumbersError> {
        self.write(Kept { command, is_open: true, ..self.kept.clone() })
    }

    /// Notes that the command begun last has its answer.
    pub(super) fn end(&mut self) -> Result<(), NumbersError> {
        self.write(Kept { is_open: false, ..self.kept.clone() })
    }

    fn write(&mut self, kept: Kept) -> Result<(), NumbersError> {
        let mut bytes = serde_json::to_vec(&kept).expect("plain numbers");
        bytes.push(b'\n');
        partial::replace(&self.path, &bytes)
            .map_err(|source| NumbersError::Write { path: self.path.clone(), source })?;
        self.kept = kept;
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<Kept, String> {
    let kept: Kept = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match kept.version {
        VERSION => Ok(kept),
        version => Err(format!("it is of version {version}, and this program reads {VERSION}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_over_restarts_and_a_command_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.json");
        let mut numbers = Numbers::start(&path).unwrap();
        let before = [numbers.next(), numbers.next()];
        assert!(before[0] < before[1]);
        assert_eq!((numbers.command(), numbers.interrupted()), (0, None));
        numbers.begin(7).unwrap();

        let mut numbers = Numbers::start(&path).unwrap();
        assert!(numbers.next() > before[1]);
        assert_eq!((numbers.command(), numbers.interrupted()), (7, Some(7)));
        numbers.end().unwrap();
        assert_eq!(Numbers::start(&path).unwrap().interrupted(), None);
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_a_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers.json");
        for text in ["", "{}", r#"{"version":2,"starts":1,"command":0,"is_open":false}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Numbers::start(&path), Err(NumbersError::Damaged { .. })), "{text}");
        }
    }
}
