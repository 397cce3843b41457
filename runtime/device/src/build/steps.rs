//! The steps of a build, each with the time that it took.

use std::cell::RefCell;
use std::time::Instant;

use revoada_builder::convert::Steps;
use tracing::info;

/// Tells a step when it is over; the last one when it is dropped.
#[derive(Default)]
pub(crate) struct Timed(RefCell<Option<(String, Instant)>>);

impl Timed {
    fn end(&self) {
        if let Some((what, started)) = self.0.borrow_mut().take() {
            info!("{what} ({:.1} s)", started.elapsed().as_secs_f64());
        }
    }
}

impl Steps for Timed {
    fn step(&self, what: &str) {
        self.end();
        *self.0.borrow_mut() = Some((what.to_owned(), Instant::now()));
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        self.end();
    }
}
