//! How values are written on every page.

use std::time::Duration;

use humantime::format_rfc3339_seconds;
use maud::{Markup, html};
use revoada_core::{Digest, Timestamp};
use revoada_proto::{Fact, Level};

use crate::service::{self, Health};

/// Of a text that a device wrote, in a table.
const TEXT_CHARS_MAX: usize = 400;

/// A moment, as far from now: `3 min ago`. The script keeps it true while the page is open.
pub(super) fn ago(at: Timestamp) -> Markup {
    let exact = format_rfc3339_seconds(service::wall(at)).to_string();
    let now = service::now();
    html! { time datetime=(exact) title=(exact) data-ago { (distance(at, now)) } }
}

fn distance(at: Timestamp, now: Timestamp) -> String {
    match (now.since(at), at.since(now)) {
        (past, _) if past >= Duration::from_secs(1) => format!("{} ago", coarse(past)),
        (_, future) if future >= Duration::from_secs(1) => format!("in {}", coarse(future)),
        _ => "now".to_owned(),
    }
}

fn coarse(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A duration with its two largest units: `1 day 2 h`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let days = match seconds / 86_400 {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    let parts = [
        (seconds / 86_400, days),
        (seconds / 3600 % 24, format!("{} h", seconds / 3600 % 24)),
        (seconds / 60 % 60, format!("{} min", seconds / 60 % 60)),
        (seconds % 60, format!("{} s", seconds % 60)),
    ];
    let mut parts = parts.into_iter().skip_while(|(count, _)| *count == 0).take(2).filter(|(count, _)| *count > 0);
    match (parts.next(), parts.next()) {
        (None, _) => "0 s".to_owned(),
        (Some((_, large)), None) => large,
        (Some((_, large)), Some((_, small))) => format!("{large} {small}"),
    }
}

/// A whole number with thin spaces: `1 204 118`.
pub(super) fn whole(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(2 * digits.len());
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A day: `2026-05-04`.
pub(super) fn day(at: Timestamp) -> Markup {
    let exact = format_rfc3339_seconds(service::wall(at)).to_string();
    html! { time datetime=(exact) title=(exact) { (exact.split('T').next().unwrap_or_default()) } }
}

/// A measured value, or a dash.
pub(super) fn figure(value: Option<f64>, decimals: usize) -> Markup {
    match value.filter(|value| value.is_finite()) {
        Some(value) => html! { (format!("{value:.decimals$}")) },
        None => html! { span.none aria-label="not measured" { "–" } },
    }
}

/// `1.5 MiB`
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

pub(super) fn digest(digest: &Digest) -> Markup {
    html! { code title=(digest) { (digest.short()) } }
}

/// A text of a device, as far as a table has room for it.
pub(super) fn text(text: &str) -> Markup {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        None => html! { (text) },
        Some((end, _)) => html! { (&text[..end]) "…" },
    }
}

pub(super) fn fact(fact: &Fact) -> Markup {
    match fact {
        Fact::Number(number) => html! { (number) },
        Fact::Text(said) => text(said),
    }
}

pub(super) fn health(health: &Health) -> Markup {
    html! { span class={ "badge " (health.name()) } { (health.name()) } }
}

pub(super) fn phase(name: &str) -> Markup {
    html! { span class={ "badge phase-" (name) } { (name) } }
}

pub(super) fn level(level: Level) -> Markup {
    let name = match level {
        Level::Info => "info",
        Level::Warn => "warning",
        Level::Error => "error",
    };
    html! { span class={ "badge level-" (name) } { (name) } }
}

/// `1 device`, `3 devices`.
pub(super) fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

pub(super) fn tags<'a>(tags: impl IntoIterator<Item = &'a String>) -> Markup {
    html! { span.tags { @for tag in tags { span.tag { (tag) } " " } } }
}

/// Shares of a whole as one bar: counts by the class that colours them.
pub(super) fn bar(parts: &[(&str, usize)], whole: usize, label: &str) -> Markup {
    let mut start = 0.0;
    let parts = parts.iter().filter(|(_, count)| *count > 0).map(|(class, count)| {
        let width = *count as f64 / whole.max(1) as f64 * 100.0;
        start += width;
        (class, start - width, width)
    });
    html! {
        svg.bar role="img" aria-label=(label) viewBox="0 0 100 1" preserveAspectRatio="none" {
            @for (class, start, width) in parts {
                rect class=(class) x=(format!("{start:.3}")) y="0" width=(format!("{width:.3}")) height="1" {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let now = Timestamp::ZERO + Duration::from_hours(24 * 365);
        for (at, said) in [
            (now, "now"),
            (Timestamp::ZERO, "365 days ago"),
            (now + Duration::from_secs(90), "in 1 min"),
            (Timestamp::ZERO + Duration::from_hours(24 * 365 - 5), "5 h ago"),
        ] {
            assert_eq!(distance(at, now), said);
        }
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (seconds, said) in
            [(0, "0 s"), (90, "1 min 30 s"), (86_400, "1 day"), (200_000, "2 days 7 h"), (3601, "1 h")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), said);
        }
    }

    #[test]
    fn long_numbers_are_read_by_threes() {
        for (number, said) in [(0, "0"), (999, "999"), (1000, "1\u{202f}000"), (1_204_118, "1\u{202f}204\u{202f}118")] {
            assert_eq!(whole(number), said);
        }
    }

    #[test]
    fn sizes_have_units() {
        for (size, said) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (u64::MAX, "16777216.0 TiB")] {
            assert_eq!(bytes(size), said);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "ä".repeat(TEXT_CHARS_MAX + 1);
        assert_eq!(text(&long).into_string(), format!("{}…", "ä".repeat(TEXT_CHARS_MAX)));
        assert_eq!(text("<b>").into_string(), "&lt;b&gt;");
    }
}
