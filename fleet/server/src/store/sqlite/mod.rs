//! The store in one SQLite file: one connection writes, a few read, and readers see the last committed state.
//!
//! Write-ahead log with `synchronous=FULL`: what was committed is on the disk. A database of a later version of this program
//! is refused; one of an earlier version is brought forward when it is opened.

mod alerts;
mod audit;
mod commands;
mod devices;
mod events;
mod history;
mod identity;
mod learning;
mod people;
mod pool;
mod registry;
mod rollouts;
mod schema;
mod upkeep;
mod value;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, Row, Transaction, TransactionBehavior};

use self::pool::Pool;
use super::{Result, StoreError};

pub use upkeep::{check_copy, restore};

/// A [`Store`](super::Store) in a file or in memory.
pub struct Sqlite {
    /// `None` in memory, where the writer's connection has the only view. Closed first: the last connection folds the log into
    /// the database, which one that only reads cannot.
    readers: Option<Pool>,
    writer: Mutex<Connection>,
}

/// Why a piece of work failed, before it is known what for.
enum Fault {
    Sql(rusqlite::Error),
    Store(StoreError),
}

type Outcome<T> = std::result::Result<T, Fault>;

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    fn during(self, operation: &'static str) -> StoreError {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
        match self {
            Self::Store(error) => error,
            Self::Sql(error @ (FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..))) => {
                StoreError::Damaged { what: format!("cannot {operation}: {error}") }
            }
            Self::Sql(error)
                if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) =>
            {
                StoreError::Damaged { what: format!("cannot {operation}: {error}") }
            }
            Self::Sql(error) => StoreError::Failed { operation, source: error.into() },
        }
    }
}

impl Sqlite {
    /// Opens a database, or begins one in a folder that is there. Its structure is checked first, which reads all of it.
    pub fn open(path: &Path) -> Result<Self> {
        let writer = schema::open(path)?;
        let readers = Some(Pool::new(path));
        Ok(Self { writer: Mutex::new(writer), readers })
    }

    /// One that is gone when it is dropped.
    pub fn in_memory() -> Result<Self> {
        let writer = schema::open_in_memory()?;
        Ok(Self { writer: Mutex::new(writer), readers: None })
    }

    /// Does all of the work or nothing of it.
    fn write<T>(&self, operation: &'static str, work: impl FnOnce(&Transaction<'_>) -> Outcome<T>) -> Result<T> {
        // A thread that panicked has left no transaction: it is rolled back as it unwinds.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let work = |writer: &mut Connection| {
            let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        work(&mut writer).map_err(|fault: Fault| fault.during(operation))
    }

    /// Reads everything as it is at one moment.
    fn read<T>(&self, operation: &'static str, work: impl FnOnce(&Connection) -> Outcome<T>) -> Result<T> {
        let work = |reader: &Connection| {
            let transaction = reader.unchecked_transaction()?;
            let read = work(&transaction)?;
            transaction.finish()?;
            Ok(read)
        };
        let read = match &self.readers {
            Some(readers) => readers.with(work),
            None => work(&self.writer.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        read.map_err(|fault: Fault| fault.during(operation))
    }
}

/// Everything that a query finds.
fn all<T, C: FromIterator<T>>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Outcome<C> {
    let found = connection.prepare_cached(sql)?.query_map(values, map)?.collect::<rusqlite::Result<C>>()?;
    Ok(found)
}

/// The first that a query finds.
fn one<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Outcome<Option<T>> {
    Ok(connection.prepare_cached(sql)?.query_row(values, map).optional()?)
}
