//! Durations as people write them: a number and a unit.

use std::time::Duration;

const UNITS: [(&str, u64); 5] =
    [("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

/// Reads `500ms`, `1.5s`, `2m`, `1h`, `250us`; `None` for everything else, a bare number included.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let number = number.trim_end();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(*nanos).map(Duration::from_nanos);
    }
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * *nanos as f64 / 1e9).ok()
}

/// The shortest text that [`parse_duration`] reads as `duration` (to the microsecond).
pub fn duration_text(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    let (unit, size) =
        UNITS.iter().rev().find(|(_, size)| nanos.is_multiple_of(u128::from(*size))).unwrap_or(&UNITS[0]);
    format!("{}{unit}", nanos.div_ceil(u128::from(*size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, micros) in [("250us", 250), ("500ms", 500_000), ("10s", 10_000_000), ("2m", 120_000_000)] {
            let duration = Duration::from_micros(micros);
            assert_eq!(parse_duration(text), Some(duration), "{text}");
            assert_eq!(duration_text(duration), text);
        }
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration_text(Duration::from_millis(1500)), "1500ms");
        assert_eq!(duration_text(Duration::ZERO), "0s");
        for text in ["", "5", "s", "5 days", "-1s", "1e3s", "nans", "99999999999999999999h", "1.2.3s", "é5s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
