//! A few connections that read.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use rusqlite::Connection;

use super::{Outcome, schema};

/// More than disks or processors of one machine answer at once. Who comes at the bound waits.
const READERS_MAX: usize = 4;

pub(super) struct Pool {
    path: PathBuf,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Connection>,
    /// Idle or lent.
    open: usize,
}

impl Pool {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), state: Mutex::default(), returned: Condvar::new() }
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&Connection) -> Outcome<T>) -> Outcome<T> {
        let lent = self.lend()?;
        work(lent.connection.as_ref().expect("it is taken when it is returned"))
    }

    fn lend(&self) -> Outcome<Lent<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.idle.is_empty() && state.open >= READERS_MAX {
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let connection = match state.idle.pop() {
            Some(connection) => connection,
            None => {
                let connection = schema::open_reader(&self.path)?;
                state.open += 1;
                connection
            }
        };
        Ok(Lent { pool: self, connection: Some(connection) })
    }
}

/// Goes back when it is dropped, whatever became of the work.
struct Lent<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.idle.extend(self.connection.take());
        self.pool.returned.notify_one();
    }
}
