//! Work that waits for disks and networks, on a thread that may.

use std::io;
use std::panic::resume_unwind;

use tokio::task::spawn_blocking;

/// Goes on where nobody waits for it any more; a panic of it is one of whoever waits. An error where the runtime shuts down,
/// which alone cancels what blocks.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(cancelled) => io::Error::other(cancelled),
    })
}
