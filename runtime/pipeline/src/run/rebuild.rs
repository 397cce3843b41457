//! A plan for a bundle that has none for this device: built beside the running pipeline, which then goes on with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use revoada_core::{causes, sentence_of};
use tracing::{info, warn};

use super::swap::{Swapper, To};
use super::{Model, RunError};
use crate::config::ModelConfig;

/// Builds a plan of a bundle for batches of up to so many rows, in a process of its own, where the loader will find it.
/// An error is a sentence.
pub type Build = dyn FnOnce(&Path, usize) -> Result<(), String> + Send;

/// How plans are built; the program's own.
pub struct Rebuild {
    pub build: Box<Build>,
    /// Makes `build` end soon, also where it has not begun.
    pub cancel: Box<dyn Fn() + Send>,
}

/// A build that is under way.
pub(super) struct Rebuilding {
    cancel: Box<dyn Fn() + Send>,
    cancelled: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Rebuilding {
    /// Where the model is a bundle that lacks a plan, and one is wanted.
    pub(super) fn start(
        rebuild: Option<Rebuild>,
        config: &ModelConfig,
        model: &Model,
        swapper: Arc<Swapper>,
    ) -> Result<Option<Self>, RunError> {
        let (Some(Rebuild { build, cancel }), true, Some(_)) = (rebuild, config.rebuild, model.no_plan()) else {
            return Ok(None);
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let (bundle, ended): (PathBuf, _) = (config.path.clone(), Arc::clone(&cancelled));
        let work = move || {
            info!(bundle = %bundle.display(), "building a plan for this device, which takes over when it is there");
            let built = build(&bundle, swapper.stats.rows_max());
            if ended.load(Ordering::SeqCst) {
                return info!(bundle = %bundle.display(), "the run ended before its plan was built");
            }
            let swapped = built.and_then(|()| swapper.swap(To::Plan).map_err(|error| sentence_of(causes(&error))));
            if let Err(reason) = swapped {
                warn!(bundle = %bundle.display(), reason, "no plan takes over; the model that runs goes on");
            }
        };
        let name = "rebuild";
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        let thread = thread.map_err(|source| RunError::Thread { name: name.to_owned(), source })?;
        Ok(Some(Self { cancel, cancelled, thread }))
    }

    /// Ends it, and waits for that.
    pub(super) fn end(self) {
        self.cancelled.store(true, Ordering::SeqCst);
        (self.cancel)();
        // A panic has written its message to standard error.
        drop(self.thread.join());
    }
}
