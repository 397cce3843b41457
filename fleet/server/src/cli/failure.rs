//! How a failed verb ends: the whole chain of causes once, and the exit status.

use std::io;
use std::process::ExitCode;

use revoada_bundle::strict::Problems;
use revoada_core::sentence_of;
use thiserror::Error;

pub(crate) const FAILED: u8 = 1;
pub(crate) const MISUSED: u8 = 2;

/// The command line or a configuration asks for something that cannot be: exit status 2.
#[derive(Debug, Error)]
#[error("{0}")]
pub(crate) struct Misuse(pub(crate) String);

/// Prints the error to standard error and says how the process exits.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", sentence_of(error.chain()));
    let is_misuse = error.is::<Problems>() || error.chain().any(|cause| cause.is::<Misuse>());
    ExitCode::from(if is_misuse { MISUSED } else { FAILED })
}

/// Whether standard output was closed by its reader, as `head` does.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
