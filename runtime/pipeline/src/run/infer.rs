//! The two threads behind the queues: one takes batches and runs them, one reads the answers and
//! writes the results.
//!
//! Two sessions travel in a circle between them: while the output thread decodes, draws and writes
//! one batch, the next is staged and inferred. Nothing is copied out of a session for that, and
//! there are never more batches on the way than sessions. Where several inferences may run at once,
//! each has a thread and one more session goes round; batches come out in the order in which they
//! were formed.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use revoada_core::{Clock, Timestamp};
use tracing::debug;

use super::model::{ModelError, ModelSession};
use super::output::OutputControls;
use super::queue::Lanes;
use super::sessions::Sessions;
use super::stats::{Dropped, RunStats};
use super::stream::Ticket;
use crate::config::BatchConfig;
use crate::lock::lock;

/// A batch on its way from inference to output, in its session.
pub(crate) struct Batch {
    /// Counted from 0, in the order in which they were formed.
    pub(crate) number: u64,
    pub(crate) session: ModelSession,
    pub(crate) tickets: Vec<Ticket>,
    /// When it was taken from the queues.
    pub(crate) taken: Timestamp,
}

pub(crate) struct Infer {
    pub(crate) lanes: Arc<Lanes<Ticket>>,
    pub(crate) batch: BatchConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stats: Arc<RunStats>,
    pub(crate) controls: Arc<OutputControls>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) concurrent_max: usize,
    /// The number of the next batch; held by the thread that forms it.
    pub(crate) turn: Mutex<u64>,
    pub(crate) batches: SyncSender<Batch>,
}

impl Infer {
    /// Runs until there are no more frames, or nobody reads the answers.
    pub(crate) fn run(self) -> Result<(), ModelError> {
        let result = self.run_batches();
        if result.is_err() {
            // Before `self` is dropped and the output thread sees that no batch will come any more.
            self.controls.fail();
        }
        result
    }

    fn run_batches(&self) -> Result<(), ModelError> {
        thread::scope(|scope| {
            let further: Vec<_> = (1..self.concurrent_max).map(|_| scope.spawn(|| self.run_in_turn())).collect();
            let first = self.run_in_turn();
            let others = further.into_iter().map(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            others.fold(first, Result::and)
        })
    }

    fn run_in_turn(&self) -> Result<(), ModelError> {
        // The others would wait for frames and sessions that do not come any more; also after a panic.
        let _ending = Ending(self);
        while let Some((mut session, batch)) = self.next_batch()? {
            let Formed { number, tickets, taken } = batch;
            let submitted = session.submit(tickets.iter().map(|ticket| &ticket.frame), &*self.clock);
            if let Err(error) = submitted {
                tickets.iter().for_each(Ticket::lost);
                return Err(error);
            }
            self.stats.batch(tickets.len());
            if let Err(unread) = self.batches.send(Batch { number, session, tickets, taken }) {
                unread.0.tickets.iter().for_each(Ticket::lost);
                debug!("nobody reads the answers any more");
                break;
            }
        }
        Ok(())
    }

    /// `None` where there will be no more frames, or nobody reads the answers.
    fn next_batch(&self) -> Result<Option<(ModelSession, Formed)>, ModelError> {
        let mut turn = lock(&self.turn);
        // Without a frame no session is held, so that a model whose streams are silent can be swapped.
        if !self.lanes.wait() {
            return Ok(None);
        }
        let Some(session) = self.sessions.take()? else { return Ok(None) };
        let frames_max = self.batch.frames_max.min(session.frames_max());
        let Some(tickets) = self.lanes.take(frames_max, self.batch.wait) else {
            self.sessions.give_back(session);
            return Ok(None);
        };
        let number = *turn;
        *turn += 1;
        let taken = self.clock.now();
        tickets.iter().for_each(|ticket| ticket.stream.queue_left());
        Ok(Some((session, Formed { number, tickets, taken })))
    }
}

struct Formed {
    number: u64,
    tickets: Vec<Ticket>,
    taken: Timestamp,
}

/// Ends the inferences beside one that ended. Answers behind one that failed are not read, and their sessions do not come
/// back.
struct Ending<'a>(&'a Infer);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.sessions.close();
        for ticket in self.0.lanes.discard() {
            ticket.lost_at(Dropped::Shutdown);
        }
    }
}

/// Batches in the order in which they were formed.
pub(crate) struct InOrder {
    batches: Receiver<Batch>,
    next: u64,
    /// Those that came before their turn: at most as many as there are sessions.
    early: BTreeMap<u64, Batch>,
}

impl InOrder {
    pub(crate) fn new(batches: Receiver<Batch>) -> Self {
        Self { batches, next: 0, early: BTreeMap::new() }
    }

    /// The next one, once it is there. Where there will be no more, what came before its turn, behind one that failed, is
    /// lost.
    pub(crate) fn next(&mut self, wait: Duration) -> Result<Batch, RecvTimeoutError> {
        loop {
            if let Some(batch) = self.early.remove(&self.next) {
                self.next += 1;
                return Ok(batch);
            }
            match self.batches.recv_timeout(wait) {
                Ok(batch) => drop(self.early.insert(batch.number, batch)),
                Err(error @ RecvTimeoutError::Timeout) => return Err(error),
                Err(error @ RecvTimeoutError::Disconnected) => {
                    let early = std::mem::take(&mut self.early);
                    early.values().flat_map(|batch| &batch.tickets).for_each(Ticket::lost);
                    return Err(error);
                }
            }
        }
    }
}
