//! Carries events to another machine without holding up the pipeline.
//!
//! A [`Courier`] has a bounded queue and a thread. The thread hands one letter after another to a [`Carrier`], which
//! knows the protocol, and tries each until the other side has it or refuses it. A letter may arrive twice, where
//! the word that it arrived was lost; its id tells.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::delivery::Delivery;
use super::record::{EventRecord, Record};
use crate::SinkError;
use crate::backoff::Backoff;
use crate::config::CourierConfig;

/// At the end of a run where nothing waits: for taking leave of the other side.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// An event or a message on its way.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) stream: String,
    /// What happened, as records name it, or what a message tells of.
    pub(super) kind: String,
    /// JSON.
    pub(super) body: Vec<u8>,
}

impl Letter {
    pub(super) fn new(event: EventRecord) -> Self {
        let (stream, kind) = (event.stream.clone(), event.event.clone());
        let body = serde_json::to_vec(&Record::Event(event)).expect("a record has string keys");
        Self { stream, kind, body }
    }
}

/// Why a letter was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setback {
    /// May go better later, after `wait` where the other side asks for it.
    Passing { reason: String, wait: Option<Duration> },
    /// Would go no better.
    Refused { reason: String },
}

/// A protocol. Lives on the courier's thread.
pub(super) trait Carrier: Send + 'static {
    /// Tries once, within `timeout`. A letter that met with a passing setback is the next to be tried.
    fn deliver(&mut self, letter: &Letter, timeout: Duration) -> Result<(), Setback>;

    /// Called at the start, and then while there is nothing to deliver, every [`Self::rests_every`]: looks after the
    /// connection, within `timeout`. The error says why there is none.
    fn rest(&mut self, _timeout: Duration) -> Result<(), String> {
        Ok(())
    }

    /// `None`: there is nothing to look after.
    fn rests_every(&self) -> Option<Duration> {
        None
    }

    /// Takes leave, within `timeout`.
    fn leave(&mut self, _timeout: Duration) {}
}

/// Dropping one without [`Courier::finish`] gives up what waits.
pub(super) struct Courier {
    shared: Arc<Shared>,
    flush: Duration,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    delivery: Arc<Delivery>,
    /// Where to, for messages.
    destination: String,
    queue_events_max: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Letter>,
    /// A letter is with the carrier.
    in_hand: bool,
    /// When the last letter must be delivered; `None` while more may come.
    deadline: Option<Instant>,
    /// What was not delivered is counted: nothing counts any more.
    given_up: bool,
    /// The thread has ended.
    gone: bool,
    /// The queue is full, and this was told.
    told_full: bool,
}

/// What the thread does next.
enum Task {
    Deliver(Letter),
    Rest,
    Leave,
}

impl Courier {
    /// Starts the thread. `destination` is shown in messages and has no secrets in it.
    pub(super) fn start(
        carrier: impl Carrier,
        destination: String,
        config: CourierConfig,
        delivery: Arc<Delivery>,
    ) -> Result<Self, SinkError> {
        let name = delivery.summary().sink;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            delivery,
            destination: destination.clone(),
            queue_events_max: config.queue_events_max,
        });
        let worker = Worker {
            carrier,
            backoff: Backoff::new(config.delay_min, config.delay_max),
            timeout: config.timeout,
            shared: Arc::clone(&shared),
            told_refused: false,
        };
        let thread = thread::Builder::new().name(name).spawn(move || worker.run());
        let thread = thread.map_err(|error| SinkError::Deliver { destination, reason: error.to_string() })?;
        Ok(Self { shared, flush: config.flush, thread: Some(thread) })
    }

    /// Queues a letter; never waits.
    pub(super) fn send(&self, letter: Letter) {
        let mut state = self.shared.lock();
        let is_full = state.waiting.len() >= self.shared.queue_events_max;
        if is_full {
            state.waiting.pop_front();
            if !std::mem::replace(&mut state.told_full, true) {
                let destination = &self.shared.destination;
                warn!(%destination, "too much waits to be delivered, dropping the oldest");
            }
        }
        state.waiting.push_back(letter);
        self.shared.delivery.count(|count| match is_full {
            true => count.dropped += 1,
            false => count.waiting += 1,
        });
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Delivers what waits as far as that goes in time, and tells what was not.
    pub(super) fn finish(&mut self) {
        let is_idle = { self.shared.lock() }.is_idle();
        self.close(if is_idle { self.flush.min(LEAVE_MAX) } else { self.flush });
    }

    fn close(&mut self, within: Duration) {
        let Some(thread) = self.thread.take() else { return };
        let mut state = self.shared.lock();
        state.deadline = Some(Instant::now() + within);
        self.shared.changed.notify_all();
        // A thread that panicked never says that it has gone.
        let (mut state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, within, |state| !state.gone)
            .unwrap_or_else(PoisonError::into_inner);
        state.given_up = true;
        let undelivered = state.waiting.len() as u64 + u64::from(state.in_hand);
        state.waiting.clear();
        let has_gone = state.gone;
        drop(state);
        self.shared.changed.notify_all();
        if undelivered > 0 {
            let (destination, reason) = (&self.shared.destination, self.shared.delivery.summary().error);
            let reason = reason.unwrap_or_else(|| "there was no time".to_owned());
            warn!(%destination, undelivered, reason, "not all was delivered before the end");
        }
        self.shared.delivery.count(|count| {
            count.dropped += undelivered;
            count.waiting = 0;
        });
        // One that is still trying ends with the time-out of its attempt.
        if has_gone && thread.join().is_err() {
            warn!(destination = %self.shared.destination, "the thread that delivers events has panicked");
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do.
    fn next(&self, rests_every: Option<Duration>) -> Task {
        let idle = |state: &mut State| state.waiting.is_empty() && state.deadline.is_none();
        let state = self.lock();
        let mut state = match rests_every {
            Some(every) => {
                self.changed.wait_timeout_while(state, every, idle).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
        };
        if state.given_up || state.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Task::Leave;
        }
        match state.waiting.pop_front() {
            Some(letter) => {
                state.in_hand = true;
                Task::Deliver(letter)
            }
            None if state.deadline.is_some() => Task::Leave,
            None => Task::Rest,
        }
    }

    /// Waits before another attempt; `before` is the deadline with which the last began. The end of the run cuts the first
    /// wait short, so that what waits gets one more. `false` where there is no time for another.
    fn pause(&self, delay: Duration, before: Option<Instant>) -> bool {
        let state = self.lock();
        let delay = at_most(delay, before);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, delay, |state| state.deadline == before && !state.given_up)
            .unwrap_or_else(PoisonError::into_inner);
        !state.given_up && state.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    fn deadline(&self) -> Option<Instant> {
        self.lock().deadline
    }

    /// The letter in hand has found its end.
    fn done(&self, count: impl FnOnce(&mut super::DeliverySummary)) {
        let mut state = self.lock();
        state.in_hand = false;
        state.told_full = false;
        if !state.given_up {
            self.delivery.count(|counts| {
                counts.waiting = state.waiting.len() as u64;
                count(counts);
            });
        }
    }
}

/// `timeout`, or what is left of the run where that is less.
fn at_most(timeout: Duration, deadline: Option<Instant>) -> Duration {
    deadline.map_or(timeout, |deadline| timeout.min(deadline.saturating_duration_since(Instant::now())))
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.in_hand
    }
}

struct Worker<C> {
    carrier: C,
    backoff: Backoff,
    timeout: Duration,
    shared: Arc<Shared>,
    /// That a letter was refused was told since one was delivered.
    told_refused: bool,
}

impl<C: Carrier> Worker<C> {
    fn run(mut self) {
        let mut task = Task::Rest;
        loop {
            match task {
                Task::Deliver(letter) => {
                    if !self.deliver(&letter) {
                        break;
                    }
                }
                Task::Rest => {
                    let deadline = self.shared.deadline();
                    match self.carrier.rest(at_most(self.timeout, deadline)) {
                        Ok(()) => self.works(),
                        Err(reason) => {
                            let delay = self.fails(reason);
                            // What comes meanwhile is tried when the wait is over, or the run.
                            self.shared.pause(delay, deadline);
                        }
                    }
                }
                Task::Leave => break,
            }
            task = self.shared.next(self.carrier.rests_every());
        }
        self.carrier.leave(at_most(LEAVE_MAX, self.shared.deadline()));
        self.shared.lock().gone = true;
        self.shared.changed.notify_all();
    }

    /// Tries until the letter has found its end; `false` where the run's comes first.
    fn deliver(&mut self, letter: &Letter) -> bool {
        loop {
            let deadline = self.shared.deadline();
            match self.carrier.deliver(letter, at_most(self.timeout, deadline)) {
                Ok(()) => {
                    self.works();
                    self.told_refused = false;
                    self.shared.done(|count| count.delivered += 1);
                    return true;
                }
                Err(Setback::Refused { reason }) => {
                    if !std::mem::replace(&mut self.told_refused, true) {
                        warn!(destination = %self.shared.destination, reason, "an event was refused");
                    }
                    self.shared.done(|count| {
                        count.failed += 1;
                        count.error = Some(reason);
                    });
                    return true;
                }
                Err(Setback::Passing { reason, wait }) => {
                    let delay = self.fails(reason).max(wait.unwrap_or_default().min(self.backoff.max()));
                    if !self.shared.pause(delay, deadline) {
                        return false;
                    }
                    self.shared.delivery.count(|count| count.retried += 1);
                }
            }
        }
    }

    fn works(&mut self) {
        if self.backoff.failures() > 0 {
            info!(destination = %self.shared.destination, "delivering again");
        }
        self.backoff.succeeded();
        self.shared.delivery.count(|count| count.error = None);
    }

    /// Told once an outage; how long to wait.
    fn fails(&mut self, reason: String) -> Duration {
        if self.backoff.failures() == 0 {
            warn!(destination = %self.shared.destination, reason, "cannot deliver, trying again");
        }
        self.shared.delivery.count(|count| count.error = Some(reason));
        self.backoff.failed()
    }
}

#[cfg(test)]
mod tests;
