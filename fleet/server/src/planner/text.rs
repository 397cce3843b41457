//! Words for people.

/// So many devices are named in one reason; the others are counted.
const NAMED_MAX: usize = 5;

/// A device's own words are kept so far.
const WHY_CHARS_MAX: usize = 200;

/// ``a, b and 3 more``
pub(super) fn named(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let mut text = names.take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// What a device said, bounded and on one line.
pub(super) fn said(why: &str) -> String {
    why.chars().take(WHY_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// ``1 device``, ``2 devices``
pub(super) fn devices(count: usize) -> String {
    if count == 1 { "1 device".to_owned() } else { format!("{count} devices") }
}
