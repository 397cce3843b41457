//! The agent's own update: which program it should be.
//!
//! A package is first committed as what runs the pipeline. Then the agent becomes it, and has to check in: to have one
//! receipt from the service. One that does not, because it crashes, hangs or cannot connect, is left again for the last that
//! did; the package goes on running the pipeline. Only an agent that has itself checked in tries another one, so that no
//! package is blamed for a service that is away.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use revoada_bundle::partial;
use revoada_core::Digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How often a package may try to be the agent.
const ATTEMPTS_MAX: u32 = 2;
const VERSION: u32 = 1;
const BYTES_MAX: u64 = 4 << 10;

#[derive(Debug, Error)]
pub enum UpdateError {
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

/// Which packages have been the agent. `None` stands for the program that the device came with.
#[derive(Debug)]
pub(super) struct Update {
    path: PathBuf,
    own: Option<Digest>,
    kept: Kept,
    checked_in: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    /// The last that checked in.
    good: Option<Digest>,
    tried: Option<Tried>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tried {
    digest: Digest,
    attempts: u32,
}

impl Update {
    /// `own` is the package that this process is.
    pub(super) fn open(path: &Path, own: Option<Digest>) -> Result<Self, UpdateError> {
        let mut bytes = Vec::new();
        let kept = match File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes)) {
            Ok(_) => {
                let damaged = |error: serde_json::Error| UpdateError::Damaged {
                    path: path.to_owned(),
                    reason: error.to_string(),
                };
                serde_json::from_slice(&bytes).map_err(damaged)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept { version: VERSION, ..Kept::default() },
            Err(source) => return Err(UpdateError::Read { path: path.to_owned(), source }),
        };
        Ok(Self { path: path.to_owned(), own, kept, checked_in: false })
    }

    /// What is to be the agent instead of this process, before it begins: the last that checked in.
    pub(super) fn at_start(&self) -> Option<Digest> {
        let is_tried = self.kept.tried.is_some_and(|tried| Some(tried.digest) == self.own);
        self.kept.good.filter(|good| Some(*good) != self.own && !is_tried)
    }

    /// Whether this process has yet to prove itself.
    pub(super) fn is_on_probation(&self) -> bool {
        !self.checked_in && self.own.is_some() && self.own != self.kept.good
    }

    /// The package that this process should be and that was left again; why it is not this one.
    pub(super) fn left(&self, wanted: Option<Digest>) -> Option<u32> {
        let tried = self.kept.tried.filter(|tried| Some(tried.digest) == wanted && wanted != self.own)?;
        Some(tried.attempts)
    }

    /// Notes a receipt: this process is one to go back to.
    pub(super) fn check_in(&mut self) -> Result<(), UpdateError> {
        if self.checked_in {
            return Ok(());
        }
        let tried = self.kept.tried.filter(|tried| Some(tried.digest) != self.own);
        // The program that the device came with needs no note: it is what is executed where there is none.
        let good = if self.own.is_some() { self.own } else { self.kept.good };
        let kept = Kept { good, tried, ..self.kept.clone() };
        if kept != self.kept {
            self.write(kept)?;
        }
        self.checked_in = true;
        Ok(())
    }

    /// Which package this process is to become now, once `wanted` is committed. The attempt is noted before it is made.
    pub(super) fn next(&mut self, wanted: Option<Digest>) -> Result<Option<Digest>, UpdateError> {
        let Some(wanted) = wanted.filter(|wanted| self.checked_in && Some(*wanted) != self.own) else {
            return Ok(None);
        };
        let attempts = self.kept.tried.filter(|tried| tried.digest == wanted).map_or(0, |tried| tried.attempts);
        if attempts >= ATTEMPTS_MAX {
            return Ok(None);
        }
        let tried = Some(Tried { digest: wanted, attempts: attempts + 1 });
        self.write(Kept { tried, ..self.kept.clone() })?;
        Ok(Some(wanted))
    }

    /// The package that this process is.
    pub(super) fn own(&self) -> Option<Digest> {
        self.own
    }

    /// The package to go back to; `None` for the program that the device came with.
    pub(super) fn good(&self) -> Option<Digest> {
        self.kept.good.filter(|good| Some(*good) != self.own)
    }

    fn write(&mut self, kept: Kept) -> Result<(), UpdateError> {
        let bytes = serde_json::to_vec(&kept).expect("plain data");
        partial::replace(&self.path, &bytes)
            .map_err(|source| UpdateError::Write { path: self.path.clone(), source })?;
        self.kept = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::new([byte; 32])
    }

    struct World {
        folder: tempfile::TempDir,
    }

    impl World {
        fn start(&self, own: Option<Digest>) -> Update {
            Update::open(&self.folder.path().join("update.json"), own).unwrap()
        }
    }

    #[test]
    fn a_package_becomes_the_agent_after_the_old_one_has_checked_in_and_stays_after_it_has() {
        let (world, new) = (World { folder: tempfile::tempdir().unwrap() }, Some(digest(1)));
        let mut came_with = world.start(None);
        assert_eq!(came_with.next(new).unwrap(), None, "the service may be away");
        came_with.check_in().unwrap();
        assert_eq!(came_with.next(new).unwrap(), new);

        let mut packaged = world.start(new);
        assert!(packaged.is_on_probation() && packaged.at_start().is_none());
        packaged.check_in().unwrap();
        assert!(!packaged.is_on_probation());
        assert_eq!(packaged.next(new).unwrap(), None);
        assert_eq!(world.start(None).at_start(), new, "after a reboot it is the agent again");
        assert!(!world.start(new).is_on_probation(), "and may then be without a service");
    }

    #[test]
    fn a_package_that_does_not_check_in_is_left_for_the_last_that_did_and_tried_a_bounded_number_of_times() {
        let (world, good, bad) = (World { folder: tempfile::tempdir().unwrap() }, Some(digest(1)), Some(digest(2)));
        let mut came_with = world.start(None);
        came_with.check_in().unwrap();
        came_with.next(good).unwrap();
        world.start(good).check_in().unwrap();
        for attempt in 1..=ATTEMPTS_MAX {
            let mut packaged = world.start(good);
            packaged.check_in().unwrap();
            assert_eq!(packaged.next(bad).unwrap(), bad);
            let failing = world.start(bad);
            assert!(failing.is_on_probation());
            assert_eq!(failing.good(), good);
            assert_eq!(world.start(good).left(bad), Some(attempt));
            assert_eq!(
                world.start(None).at_start(),
                good,
                "where it crashes, systemd starts what the device came with"
            );
        }
        let mut packaged = world.start(good);
        packaged.check_in().unwrap();
        assert_eq!(packaged.next(bad).unwrap(), None);
        assert_eq!(packaged.next(Some(digest(3))).unwrap(), Some(digest(3)), "another one is another matter");
    }
}
