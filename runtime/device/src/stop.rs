//! SIGINT and SIGTERM: the first drains, the second abandons.

use std::thread;

use anyhow::Context;
use revoada_pipeline::run::{StopFlag, StopLevel};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::warn;

/// Asks `act` at every signal; where it has nothing to end in order, the process ends as if nobody listened.
pub(crate) fn on_signal(act: impl Fn() -> bool + Send + 'static) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let listen = move || {
        for signal in signals.forever() {
            if !act() {
                drop(signal_hook::low_level::emulate_default_handler(signal));
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(listen).context("cannot listen for signals")?;
    Ok(())
}

/// A flag that the process's signals raise for as long as it lives.
pub(crate) fn on_signals() -> anyhow::Result<StopFlag> {
    let stop = StopFlag::new();
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let flag = stop.clone();
    let listen = move || {
        for _ in signals.forever() {
            match flag.request() {
                StopLevel::Drain => warn!("stopping: finishing what was begun; once more to abandon it"),
                _ => warn!("abandoning the run"),
            }
        }
    };
    // The listener ends with the process: there is no moment before that at which a signal may go unheard.
    thread::Builder::new().name("signals".into()).spawn(listen).context("cannot listen for signals")?;
    Ok(stop)
}
