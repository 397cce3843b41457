//! Plans kept from one start to the next: found by content, bounded, and shared by processes.
//!
//! A plan lies in the folder under its key's digest. Reading takes no lock: a file appears whole or not at
//! all. Writing takes the folder's lock, under which the plans that were not used for longest make room.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use thiserror::Error;

use revoada_core::Digest;

use crate::plan::{Plan, PlanErrorKind, PlanHeader, PlanKey};

const EXTENSION: &str = "plan";
const UNFINISHED: &str = ".partial";
/// Builds of different plans wait for each other only where they share one of so many locks.
const BUILD_LOCKS: u8 = 64;
/// Headers that are read in search of a bundle's plans: a cache holds a few dozen plans.
const PLANS_LOOKED_AT_MAX: usize = 1024;

/// A folder of plans.
#[derive(Clone, Debug)]
pub struct PlanCache {
    folder: PathBuf,
    bytes_max: u64,
}

/// The right to build one plan; others who want it wait until this is dropped.
#[derive(Debug)]
pub struct BuildLock {
    _file: File,
}

impl PlanCache {
    /// Opens or creates the folder, and removes what a writer that was killed has left.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, CacheError> {
        let cache = Self { folder: folder.to_owned(), bytes_max };
        fs::create_dir_all(folder).map_err(|source| cache.error(source))?;
        // Whoever holds the lock may be writing just now, and cleans up after itself.
        let lock = cache.lock_file("write").map_err(|source| cache.error(source))?;
        match lock.try_lock() {
            Ok(()) => cache.remove_unfinished().map_err(|source| cache.error(source))?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(cache.error(source)),
        }
        Ok(cache)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The plan of this key, whole and signed. One that is damaged is removed and said aloud: it will be
    /// built anew.
    pub fn get(&self, key: &PlanKey) -> Result<Option<Plan>, CacheError> {
        let path = self.path(key);
        match Plan::read(&path) {
            Ok(plan) if plan.key() == key => {
                note_use(&path);
                Ok(Some(plan))
            }
            Err(error) => match error.kind {
                PlanErrorKind::Read { source } if source.kind() == io::ErrorKind::NotFound => Ok(None),
                PlanErrorKind::Read { source } => Err(self.error(source)),
                kind => {
                    tracing::warn!(path = %path.display(), reason = %kind, "a cached plan is damaged and is built anew");
                    self.remove(&path)?;
                    Ok(None)
                }
            },
            Ok(_) => {
                tracing::warn!(path = %path.display(), "a cached plan lies under another's name and is built anew");
                self.remove(&path)?;
                Ok(None)
            }
        }
    }

    /// Keeps a plan; those that were not used for longest make room for it. A plan that alone is larger than
    /// the whole cache is not kept.
    pub fn insert(&self, plan: &Plan) -> Result<(), CacheError> {
        let bytes = plan.bytes().len() as u64;
        if bytes > self.bytes_max {
            tracing::warn!(bytes, bytes_max = self.bytes_max, "the plan is larger than the cache and is not kept");
            return Ok(());
        }
        self.write(plan).map_err(|source| self.error(source))
    }

    fn write(&self, plan: &Plan) -> io::Result<()> {
        let lock = self.lock_file("write")?;
        lock.lock()?;
        let path = self.path(plan.key());
        self.make_room(plan.bytes().len() as u64, &path)?;
        let mut file = tempfile::Builder::new().prefix(".").suffix(UNFINISHED).tempfile_in(&self.folder)?;
        file.write_all(plan.bytes())?;
        file.as_file().sync_all()?;
        // A name that a power cut takes is a plan that is built again.
        file.persist(&path)?;
        Ok(())
    }

    /// Waits until nobody else builds this plan. Then look again: it may be there.
    pub fn lock_build(&self, key: &PlanKey) -> Result<BuildLock, CacheError> {
        let slot = key.digest().as_bytes()[0] % BUILD_LOCKS;
        let locked = self.lock_file(&format!("build-{slot:02}")).and_then(|file| file.lock().map(|()| file));
        Ok(BuildLock { _file: locked.map_err(|source| self.error(source))? })
    }

    fn path(&self, key: &PlanKey) -> PathBuf {
        self.folder.join(key.digest().hex()).with_extension(EXTENSION)
    }

    fn lock_file(&self, name: &str) -> io::Result<File> {
        File::options().create(true).append(true).open(self.folder.join(format!(".{name}.lock")))
    }

    fn remove_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Removes plans until `bytes` more fit, the one at `replaced` not counted.
    fn make_room(&self, bytes: u64, replaced: &Path) -> io::Result<()> {
        let mut plans = plans(&self.folder)?;
        plans.retain(|(_, _, path)| path != replaced);
        plans.sort();
        let mut kept: u64 = plans.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, plan_bytes, path) in plans {
            if kept + bytes <= self.bytes_max {
                break;
            }
            tracing::info!(path = %path.display(), "the plan makes room in the cache");
            fs::remove_file(path)?;
            kept -= plan_bytes;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), CacheError> {
        match fs::remove_file(path) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| self.error(source)),
        }
    }

    fn error(&self, source: io::Error) -> CacheError {
        CacheError { folder: self.folder.clone(), source }
    }
}

/// The plans of a bundle in a cache that may not be there yet, the latest used first, by what their headers say: no
/// payload is read. What cannot be read as a plan is left out; [`PlanCache::get`] says more of it.
pub fn plans_of(folder: &Path, bundle: Digest) -> Result<Vec<(PathBuf, PlanHeader)>, CacheError> {
    let mut plans = match plans(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        plans => plans.map_err(|source| CacheError { folder: folder.to_owned(), source })?,
    };
    plans.sort_by(|a, b| b.cmp(a));
    plans.truncate(PLANS_LOOKED_AT_MAX);
    let headers = plans.into_iter().filter_map(|(_, _, path)| match PlanHeader::read(&path) {
        Ok(header) => Some((path, header)),
        Err(error) => {
            tracing::debug!(%error, "a cached plan is passed over");
            None
        }
    });
    Ok(headers.filter(|(_, header)| header.key().bundle == bundle).collect())
}

/// The time of a cached plan is that of its last use. Where it cannot be set, the plan is only forgotten earlier.
pub fn note_use(path: &Path) {
    let touched = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!(path = %path.display(), %error, "cannot note the use of a cached plan");
    }
}

/// Every plan's time of last use, size and path.
fn plans(folder: &Path) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
    let mut plans = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            match fs::metadata(&path) {
                Ok(metadata) => plans.push((metadata.modified()?, metadata.len(), path)),
                // It has made room for another meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(plans)
}

#[derive(Debug, Error)]
#[error("cannot use the plan cache `{}`", folder.display())]
pub struct CacheError {
    pub folder: PathBuf,
    #[source]
    pub source: io::Error,
}
