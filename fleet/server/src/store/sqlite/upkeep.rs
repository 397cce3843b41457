//! Copies of the whole database.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use revoada_bundle::partial::Partial;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::{Fault, Outcome, Sqlite, schema};
use crate::store::{Result, StoreError, Upkeep};

impl Upkeep for Sqlite {
    fn check(&self) -> Result<()> {
        self.read("read the database", |reader| Ok(reader.query_row("SELECT 1 FROM blueprint", [], |_| Ok(()))?))?;
        self.write("write the database", |transaction| {
            transaction.execute("UPDATE blueprint SET only = 1", [])?;
            Ok(())
        })
    }

    fn backup(&self, target: &Path) -> Result<()> {
        let cannot_write =
            |source: io::Error| StoreError::Failed { operation: "write a backup", source: source.into() };
        refuse_files(target, &LOGS)?;
        let partial = create_private(target).map_err(cannot_write)?;
        self.read("take a backup", |reader| copy(reader, partial.path()))?;
        partial.commit().map_err(cannot_write)?;
        Ok(())
    }
}

/// What SQLite keeps beside a database that is in use, or that a process left when it was killed.
const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Refuses a place where something is that a copy would be mixed up with.
fn refuse_files(target: &Path, suffixes: &[&str]) -> Result<()> {
    for suffix in suffixes {
        let mut name = target.as_os_str().to_owned();
        name.push(suffix);
        if fs::symlink_metadata(&name).is_ok() {
            return Err(StoreError::Exists { what: "file", name: name.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

/// Hashes of passwords are for nobody else to try.
fn create_private(target: &Path) -> io::Result<Partial> {
    let partial = Partial::create(target)?;
    fs::set_permissions(partial.path(), Permissions::from_mode(0o600))?;
    Ok(partial)
}

/// In one step, so that it is the state of one moment; nobody waits for it, as the log takes what is written meanwhile.
fn copy(from: &Connection, target: &Path) -> Outcome<()> {
    let mut copy = Connection::open(target)?;
    let done = Backup::new(from, &mut copy)?.step(-1)?;
    if done != StepResult::Done {
        let why = io::Error::other("the database is busy");
        return Err(StoreError::Failed { operation: "take a backup", source: why.into() }.into());
    }
    // One file, without a log beside it.
    let mode: String = copy.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0))?;
    if mode != "delete" {
        let why = io::Error::other(format!("its journal stays in mode `{mode}`"));
        return Err(StoreError::Failed { operation: "take a backup", source: why.into() }.into());
    }
    copy.close().map_err(|(_, error)| Fault::Sql(error))
}

/// Whether a backup is whole, and of a version that this program knows.
pub fn check_copy(backup: &Path) -> Result<()> {
    schema::check_copy(backup)
}

/// Puts a backup that is whole where a database is to be. Refuses where one is, or what is left of one.
pub fn restore(backup: &Path, target: &Path) -> Result<()> {
    check_copy(backup)?;
    let cannot_write = |source: io::Error| StoreError::Failed { operation: "restore a backup", source: source.into() };
    refuse_files(target, &[""])?;
    refuse_files(target, &LOGS)?;
    let partial = create_private(target).map_err(cannot_write)?;
    let copied = File::open(backup).and_then(|mut from| io::copy(&mut from, &mut File::create(partial.path())?));
    copied.map_err(cannot_write)?;
    schema::check_copy(partial.path())?;
    partial.commit().map_err(cannot_write)?;
    Ok(())
}
