//! What is to run, as files, and what did run when the agent ended.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use revoada_bundle::partial;
use revoada_core::Digest;
use revoada_proto::Kind;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::program::{ProgramError, Programs};
use crate::{Active, CONTENT, Placed, SlotError, VerifiedSlot, Verifier};

const BYTES_MAX: u64 = 64 << 10;
const VERSION: u32 = 1;

/// A file or folder to run with, and the deployable that it is; `None` for what the device came with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    pub(super) path: PathBuf,
    pub(super) digest: Option<Digest>,
}

/// A pipeline with its model and the program that runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) program: Piece,
    pub(super) pipeline: Piece,
    /// `None` where the pipeline's file names its own.
    pub(super) model: Option<Piece>,
}

impl Target {
    /// Whether a running pipeline becomes this by swapping its model.
    pub(super) fn is_swap_from(&self, running: &Self) -> bool {
        (&self.program, &self.pipeline) == (&running.program, &running.pipeline)
            && self.model.is_some()
            && self.model != running.model
    }
}

/// What runs where nothing, or not everything, is deployed.
#[derive(Clone, Debug)]
pub(super) struct Defaults {
    pub(super) program: PathBuf,
    pub(super) pipeline: Option<PathBuf>,
    pub(super) model: Option<PathBuf>,
}

#[derive(Debug, Error)]
pub(super) enum TargetError {
    #[error("a slot cannot be run")]
    Slot {
        kind: Kind,
        placed: Placed,
        #[source]
        source: SlotError,
    },
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// What is active as files, each of its slots verified just now; `None` where there is no pipeline to run.
pub(super) fn target(
    active: &Active,
    verifier: &Verifier,
    programs: &Programs,
    defaults: &Defaults,
) -> Result<Option<Target>, TargetError> {
    let verified = |kind| -> Result<Option<VerifiedSlot>, TargetError> {
        let Some(placed) = active.get(&kind) else { return Ok(None) };
        let verified = verifier.verify(kind, *placed);
        verified.map(Some).map_err(|source| TargetError::Slot { kind, placed: *placed, source })
    };
    let piece = |path: &Path, digest| Piece { path: path.to_owned(), digest };
    let model = verified(Kind::Model)?.map(|slot| piece(slot.folder(), Some(slot.placed().digest)));
    let model = model.or_else(|| defaults.model.as_deref().map(|path| piece(path, None)));
    let pipeline = verified(Kind::Pipeline)?;
    let pipeline = pipeline.map(|slot| piece(&slot.folder().join(CONTENT), Some(slot.placed().digest)));
    let pipeline = pipeline.or_else(|| defaults.pipeline.as_deref().map(|path| piece(path, None)));
    let program = match verified(Kind::Package)? {
        Some(slot) => piece(&programs.executable(&slot)?, Some(slot.placed().digest)),
        None => piece(&defaults.program, None),
    };
    Ok(pipeline.map(|pipeline| Target { program, pipeline, model }))
}

/// The process that runs a target, so that the next agent finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Running {
    version: u32,
    pub(super) target: Target,
    pub(super) pid: u32,
    /// When the process began, in ticks since the machine did: another one with its number began at another time.
    pub(super) began: u64,
}

impl Running {
    pub(super) fn new(target: Target, pid: u32) -> Option<Self> {
        Some(Self { version: VERSION, target, pid, began: began(pid)? })
    }

    /// What was running, where it still is.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        File::open(path).ok()?.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let running: Self = serde_json::from_slice(&bytes).ok()?;
        (running.version == VERSION && running.is_alive()).then_some(running)
    }

    /// Not forced to the disk beyond what a rename does: after a power cut nothing runs.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        partial::replace(path, &serde_json::to_vec(self).map_err(io::Error::other)?)
    }

    pub(super) fn is_alive(&self) -> bool {
        began(self.pid) == Some(self.began)
    }
}

/// Field 22 of `/proc/PID/stat`; `None` where there is no such process, or it has ended and nobody has looked.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_one_with_its_number() {
        let piece = |path: &str| Piece { path: path.into(), digest: None };
        let target = Target { program: piece("/p"), pipeline: piece("/a"), model: Some(piece("/m")) };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("running.json");
        assert_eq!(Running::read(&path), None);
        let here = Running::new(target.clone(), std::process::id()).unwrap();
        here.write(&path).unwrap();
        assert_eq!(Running::read(&path), Some(here.clone()));
        Running { began: here.began + 1, ..here.clone() }.write(&path).unwrap();
        assert_eq!(Running::read(&path), None);

        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        while began(pid).is_some() {
            std::thread::yield_now();
        }
        assert_eq!(Running::new(target, pid), None, "one that has ended does not run, though nobody has waited for it");
        child.wait().unwrap();
    }

    #[test]
    fn only_a_changed_model_is_swapped() {
        let piece = |path: &str| Piece { path: path.into(), digest: None };
        let a = Target { program: piece("/p"), pipeline: piece("/a"), model: Some(piece("/m")) };
        let other_model = Target { model: Some(piece("/n")), ..a.clone() };
        assert!(other_model.is_swap_from(&a) && a.is_swap_from(&other_model) && !a.is_swap_from(&a));
        assert!(!Target { model: None, ..a.clone() }.is_swap_from(&a));
        assert!(!Target { pipeline: piece("/b"), ..other_model.clone() }.is_swap_from(&a));
        assert!(!Target { program: piece("/q"), ..other_model }.is_swap_from(&a));
    }
}
