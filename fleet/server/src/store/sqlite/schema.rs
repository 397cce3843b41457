//! How a database is opened, and which tables it has.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{Fault, Outcome};
use crate::store::{Result, StoreError};

/// What brings a database from each version to the next; the first makes one of nothing.
const MIGRATIONS: [&str; 2] = [include_str!("schema/1.sql"), include_str!("schema/2.sql")];

/// `RVDF`: in the header of our databases, and of no other program's.
const APPLICATION_ID: i32 = 0x5256_4446;

/// Another process has the database, such as one that takes a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// As many as there are statements here.
const STATEMENTS_MAX: usize = 256;

pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

pub(super) fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Nobody else is to try passwords on their hashes; logs beside a database take its mode.
    let created = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    created.map_err(|source| StoreError::Open { path: path.to_owned(), source: source.into() })?;
    let open = || {
        let mut connection = Connection::open_with_flags(path, flags)?;
        prepare(&connection)?;
        let version = known_version(&connection, path)?;
        check_structure(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
        connection.pragma_update(None, "cache_size", -(64 << 10))?;
        migrate(&mut connection, version)?;
        // The first read opens the log, and only who has it open removes it at the end, which readers cannot.
        connection.query_row("SELECT number FROM blueprint", [], |_| Ok(()))?;
        Ok(connection)
    };
    open().map_err(|fault: Fault| named(fault, path))
}

pub(super) fn open_in_memory() -> Result<Connection> {
    let open = || {
        let mut connection = Connection::open_in_memory()?;
        prepare(&connection)?;
        migrate(&mut connection, 0)?;
        Ok(connection)
    };
    open().map_err(|fault: Fault| named(fault, Path::new(":memory:")))
}

/// Of a database that was opened before.
pub(super) fn open_reader(path: &Path) -> Outcome<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection)?;
    Ok(connection)
}

/// A copy that nothing else has open: whether it is whole and of a version that is known.
pub(super) fn check_copy(path: &Path) -> Result<()> {
    let check = || {
        let connection = open_reader(path)?;
        if known_version(&connection, path)? == 0 {
            return Err(StoreError::Damaged { what: "it is empty".to_owned() }.into());
        }
        check_structure(&connection)?;
        let dangling: Option<String> =
            connection.prepare("PRAGMA foreign_key_check")?.query_map([], |row| row.get(0))?.next().transpose()?;
        match dangling {
            None => Ok(()),
            Some(table) => Err(StoreError::Damaged { what: format!("a row of `{table}` refers to nothing") }.into()),
        }
    };
    check().map_err(|fault: Fault| named(fault, path))
}

fn prepare(connection: &Connection) -> Outcome<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(())
}

/// 0 for one that is empty.
fn known_version(connection: &Connection, path: &Path) -> Outcome<u32> {
    let read = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (found, application) = (read("user_version")?, read("application_id")?);
    let tables: u32 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match u32::try_from(found) {
        Ok(0) if tables == 0 => Ok(0),
        _ if application != APPLICATION_ID => {
            Err(StoreError::Damaged { what: "it is no database of revoada-fleet".to_owned() }.into())
        }
        Ok(found) if found > VERSION => Err(StoreError::Later { path: path.to_owned(), found, known: VERSION }.into()),
        Ok(found) if found > 0 => Ok(found),
        _ => Err(StoreError::Damaged { what: "it has no version".to_owned() }.into()),
    }
}

fn check_structure(connection: &Connection) -> Outcome<()> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(StoreError::Damaged { what: found }.into()) }
}

fn migrate(connection: &mut Connection, found: u32) -> Outcome<()> {
    for (version, migration) in (1..).zip(MIGRATIONS).skip(found as usize) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

fn named(fault: Fault, path: &Path) -> StoreError {
    match fault.during("open the database") {
        StoreError::Failed { source, .. } => StoreError::Open { path: path.to_owned(), source },
        StoreError::Damaged { what } => StoreError::Damaged { what: format!("`{}`: {what}", path.display()) },
        other => other,
    }
}
