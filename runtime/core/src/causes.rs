//! An error and its causes as one sentence.

use std::error::Error;

/// The texts of an error and its causes, from the outermost on, with colons between them. What only forwards its cause
/// is not said twice.
///
/// ```
/// let disk = std::io::Error::other("disk is on fire");
/// assert_eq!(revoada_core::sentence_of(revoada_core::causes(&disk)), "disk is on fire");
/// ```
pub fn sentence_of<'a>(causes: impl IntoIterator<Item = &'a (dyn Error + 'static)>) -> String {
    let mut text = String::new();
    for cause in causes.into_iter().map(ToString::to_string) {
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

/// An error, what caused it, what caused that, and so on.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
