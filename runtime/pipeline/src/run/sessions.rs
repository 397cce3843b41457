//! The sessions of the model that runs, lent to one batch each. Here another model takes over: every batch after that
//! gets a session of it, while those on their way are finished by the old one, which is gone with the last of them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::model::{Model, ModelError, ModelSession};
use crate::lock::lock;

pub(crate) struct Sessions {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// `None` while the old model is unloaded to make room for the new one.
    model: Option<Arc<Model>>,
    idle: Vec<ModelSession>,
    /// On their way with a batch, of whichever model.
    lent: usize,
    /// Nobody takes sessions any more, or gives them back.
    closed: bool,
    /// Why there is no model any more.
    lost: Option<ModelError>,
}

impl Sessions {
    /// For batches of up to so many frames.
    pub(crate) fn open(model: &Arc<Model>, frames: usize) -> Result<Arc<Self>, ModelError> {
        let (model, idle) = (Some(Arc::clone(model)), all(model, frames)?);
        let state = State { model, idle, lent: 0, closed: false, lost: None };
        Ok(Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// A session for one batch, once one is idle; `None` where nobody reads answers any more.
    pub(crate) fn take(&self) -> Result<Option<ModelSession>, ModelError> {
        let mut state = self.wait_while(|state| state.idle.is_empty() && !state.closed && state.lost.is_none());
        if let Some(error) = state.lost.take() {
            return Err(error);
        }
        let session = if state.closed { None } else { state.idle.pop() };
        state.lent += usize::from(session.is_some());
        Ok(session)
    }

    pub(crate) fn give_back(&self, session: ModelSession) {
        let mut state = lock(&self.state);
        let current = state.model.as_ref().is_some_and(|model| Arc::ptr_eq(model, session.model()));
        if current {
            state.idle.push(session);
        } else {
            // Before it is counted as back, so that who waits for it finds its memory free.
            drop(state);
            drop(session);
            state = lock(&self.state);
        }
        state.lent -= 1;
        drop(state);
        self.changed.notify_all();
    }

    /// The model of the next batch.
    pub(crate) fn model(&self) -> Option<Arc<Model>> {
        lock(&self.state).model.clone()
    }

    /// The name of the model of the next batch, and of what runs it.
    pub(crate) fn names(&self) -> Option<(String, &'static str)> {
        // Not by `model`: whoever unloads it is to be the last that holds it.
        lock(&self.state).model.as_ref().map(|model| (model.name().to_owned(), model.backend().name()))
    }

    /// From the next batch on it is the model of these sessions.
    pub(crate) fn exchange(&self, sessions: Vec<ModelSession>) {
        let model = sessions.first().map(|session| Arc::clone(session.model()));
        let mut state = lock(&self.state);
        let old = (std::mem::replace(&mut state.model, model), std::mem::replace(&mut state.idle, sessions));
        drop(state);
        self.changed.notify_all();
        drop(old);
    }

    /// Drops the model, waiting for the batches that it still has; until [`exchange`](Self::exchange) there is no
    /// inference.
    pub(crate) fn unload(&self) -> Unloaded<'_> {
        let unloaded = Unloaded(self);
        let mut state = lock(&self.state);
        let old = (state.model.take(), std::mem::take(&mut state.idle));
        drop(state);
        drop(old);
        drop(self.wait_while(|state| state.lent > 0 && !state.closed));
        unloaded
    }

    /// There is no model any more, and will be none.
    pub(crate) fn lose(&self, error: ModelError) {
        lock(&self.state).lost = Some(error);
        self.changed.notify_all();
    }

    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = lock(&self.state);
        self.changed.wait_while(state, |state| condition(state)).unwrap_or_else(PoisonError::into_inner)
    }
}

/// There is no model. Dropped before another one is there, as by a panic, it says so to who waits for one.
pub(crate) struct Unloaded<'a>(&'a Sessions);

impl Drop for Unloaded<'_> {
    fn drop(&mut self) {
        let state = lock(&self.0.state);
        if state.model.is_none() && state.lost.is_none() {
            drop(state);
            self.0.lose(ModelError::Unloaded);
        }
    }
}

/// How many sessions go round: one batch is read while others are inferred. More would only lengthen the queue.
pub(crate) fn count(model: &Model) -> usize {
    model.concurrent_max() + 1
}

/// As many sessions of a model as a pipeline has.
pub(crate) fn all(model: &Arc<Model>, frames: usize) -> Result<Vec<ModelSession>, ModelError> {
    (0..count(model)).map(|_| model.session(frames)).collect()
}
