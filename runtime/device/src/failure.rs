//! How a failed command ends: the whole chain of causes once, a hint where there is one, and the
//! exit status.

use std::fmt;
use std::process::ExitCode;

use revoada_bundle::strict::Problems;

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

/// What to do next, attached with `.context(Hint(..))`; printed last, not part of the chain.
#[derive(Debug)]
pub(crate) struct Hint(pub(crate) String);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Prints the error to standard error and says how the process exits.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(problems) = error.downcast_ref::<Problems>() {
        eprintln!("error: {problems}");
        return ExitCode::from(MISUSED);
    }
    eprintln!("error: {}", chain(error));
    if let Some(hint) = error.downcast_ref::<Hint>() {
        eprintln!("hint: {hint}");
    }
    let misused = error.chain().any(|cause| cause.is::<Misuse>());
    ExitCode::from(if misused { MISUSED } else { FAILED })
}

fn chain(error: &anyhow::Error) -> String {
    let hint = error.downcast_ref::<Hint>().map(ToString::to_string);
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| Some(cause) != hint.as_ref()) {
        // Wrappers that only forward their source would say the same thing twice.
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_chain_is_said_once_and_hints_stay_out_of_it() {
        let root: Result<(), _> = Err(std::io::Error::other("disk is on fire"));
        let error = root.context("cannot write `a`").context(Hint("use water".into())).unwrap_err();
        assert_eq!(chain(&error), "cannot write `a`: disk is on fire");
    }
}
