//! Things of which an engine has a few and its sessions need one at a time.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, PoisonError};

pub(super) struct Lending<T> {
    idle: Mutex<Vec<T>>,
    returned: Condvar,
}

/// Borrowed until dropped, be it by a panic.
pub(super) struct Lent<'a, T> {
    lender: &'a Lending<T>,
    /// Taken only by `drop`.
    item: Option<T>,
}

impl<T> Lending<T> {
    /// Of at least one thing: with none, `lend` would wait forever.
    pub(super) fn new(items: Vec<T>) -> Self {
        assert!(!items.is_empty(), "there is something to lend");
        Self { idle: Mutex::new(items), returned: Condvar::new() }
    }

    /// Waits until one is idle.
    pub(super) fn lend(&self) -> Lent<'_, T> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match idle.pop() {
                Some(item) => return Lent { lender: self, item: Some(item) },
                None => idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl<T> Deref for Lent<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().expect("only `drop` takes it")
    }
}

impl<T> DerefMut for Lent<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.item.as_mut().expect("only `drop` takes it")
    }
}

impl<T> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        self.lender.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.item.take());
        self.lender.returned.notify_one();
    }
}
