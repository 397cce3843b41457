//! What is to be done now and then.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::blobs::Blobs;
use crate::service::{Fleet, chain, now};

/// Commands that were left unsent, devices that went away.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const COMPACT_EVERY: Duration = Duration::from_mins(5);
const COLLECT_EVERY: Duration = Duration::from_hours(1);
/// An expired certificate proves nothing any more; for so long it still says who was who.
const CERTIFICATES_KEPT: Duration = Duration::from_hours(24 * 365);
/// How long the end of the service may wait for this thread to see it.
const STEP: Duration = Duration::from_millis(100);

/// What is kept in order.
pub(super) struct House {
    pub(super) fleet: Arc<Fleet>,
    pub(super) blobs: Arc<Blobs>,
    /// Which the blobs wait on.
    pub(super) runtime: Handle,
}

/// Something that is due again and again.
struct Chore {
    every: Duration,
    due: Instant,
    work: fn(&House),
}

impl House {
    /// Works until `is_over` says so.
    pub(super) fn keep(&self, is_over: impl Fn() -> bool) {
        let begun = Instant::now();
        let chore = |every, work| Chore { every, due: begun + every, work };
        let mut chores = [
            chore(LOOK_EVERY, |house: &Self| house.fleet.keep_house()),
            chore(COMPACT_EVERY, Self::compact),
            chore(COLLECT_EVERY, Self::collect),
        ];
        while !is_over() {
            for chore in &mut chores {
                if chore.due <= Instant::now() && !is_over() {
                    (chore.work)(self);
                    chore.due = Instant::now() + chore.every;
                }
            }
            thread::park_timeout(STEP);
        }
    }

    fn compact(&self) {
        if let Err(error) = self.fleet.compact() {
            warn!(error = %chain(&error), "cannot shorten what is kept");
        }
    }

    fn collect(&self) {
        match self.runtime.block_on(self.blobs.collect(now())) {
            Ok(collected) => info!(blobs = collected.blobs, bytes = collected.bytes, "removed what nothing refers to"),
            Err(error) => warn!(error = %chain(&error), "cannot remove what nothing refers to"),
        }
        match self.fleet.forget_certificates(CERTIFICATES_KEPT) {
            Ok(0) => {}
            Ok(certificates) => info!(certificates, "forgot certificates that have long expired"),
            Err(error) => warn!(error = %chain(&error), "cannot forget certificates"),
        }
    }
}
