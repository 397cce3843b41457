//! The two threads behind the queues: one takes batches and runs them, one reads the answers and
//! writes the results.
//!
//! Two sessions travel in a circle between them: while the output thread decodes, draws and writes
//! one batch, the next is staged and inferred. Nothing is copied out of a session for that, and
//! there are never more batches on the way than sessions.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use revoada_core::{Clock, Timestamp};
use tracing::debug;

use super::model::{ModelError, ModelSession};
use super::output::OutputControls;
use super::queue::Lanes;
use super::sessions::Sessions;
use super::stats::RunStats;
use super::stream::Ticket;
use crate::config::BatchConfig;

/// A batch on its way from inference to output, in its session.
pub(crate) struct Batch {
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
        // Without a frame no session is held, so that a model whose streams are silent can be swapped.
        while self.lanes.wait() {
            let Some(mut session) = self.sessions.take()? else { break };
            let frames_max = self.batch.frames_max.min(session.frames_max());
            let Some(tickets) = self.lanes.take(frames_max, self.batch.wait) else {
                self.sessions.give_back(session);
                break;
            };
            let taken = self.clock.now();
            tickets.iter().for_each(|ticket| ticket.stream.queue_left());
            let submitted = session.submit(tickets.iter().map(|ticket| &ticket.frame), &*self.clock);
            if let Err(error) = submitted {
                tickets.iter().for_each(Ticket::lost);
                return Err(error);
            }
            self.stats.batch(tickets.len());
            if let Err(unread) = self.batches.send(Batch { session, tickets, taken }) {
                unread.0.tickets.iter().for_each(Ticket::lost);
                debug!("nobody reads the answers any more");
                break;
            }
        }
        Ok(())
    }
}
