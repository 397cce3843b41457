//! How a failed command ends: the whole chain of causes once, and the exit status.

use std::fmt;
use std::io;
use std::process::ExitCode;

use revoada_bundle::strict::Problems;
use revoada_core::sentence_of;
use revoada_engine::EngineError;
use revoada_pipeline::decode::DecodeError;
use revoada_pipeline::run::{ModelError, RunError};

pub(crate) const FAILED: u8 = 1;
pub(crate) const MISUSED: u8 = 2;

/// The command line or a configuration asks for something that cannot be: exit status 2.
#[derive(Debug)]
pub(crate) struct Misuse(pub(crate) String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// What to do about an error that is an answer: a model that was refused. Shown as a hint.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) hint: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hint)
    }
}

impl std::error::Error for Refused {}

/// Prints the error to standard error and says how the process exits.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(problems) = error.downcast_ref::<Problems>() {
        eprintln!("error: {problems}");
        return ExitCode::from(MISUSED);
    }
    eprintln!("error: {}", chain(error));
    if let Some(refused) = error.downcast_ref::<Refused>() {
        eprintln!("hint: {refused}");
    }
    ExitCode::from(if error.chain().any(is_misuse) { MISUSED } else { FAILED })
}

/// Whether a line that this program, started again, wrote to standard error is its reason to fail, and what it says.
pub(crate) fn reported(line: &str) -> Option<&str> {
    line.strip_prefix("error: ")
}

/// Whether standard output was closed by its reader, as `head` does.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn is_misuse(cause: &(dyn std::error::Error + 'static)) -> bool {
    // Transparent wrappers hide what they wrap from the chain.
    let model = match cause.downcast_ref() {
        Some(RunError::Model(model)) => Some(model),
        _ => cause.downcast_ref(),
    };
    let engine = match model {
        Some(ModelError::Engine(engine)) => Some(engine),
        _ => cause.downcast_ref(),
    };
    cause.is::<Misuse>()
        || matches!(engine, Some(EngineError::UnknownBackend { .. }))
        || matches!(cause.downcast_ref(), Some(DecodeError::Unknown { .. }))
}

fn chain(error: &anyhow::Error) -> String {
    sentence_of(error.chain().filter(|cause| !cause.is::<Refused>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_chain_of_causes_is_said_once() {
        let root: Result<(), _> = Err(std::io::Error::other("disk is on fire"));
        let error = root.context("cannot write `a`").unwrap_err();
        assert_eq!(chain(&error), "cannot write `a`: disk is on fire");
    }
}
