//! Standard output and the log.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stderr, stdout};

use serde_json::Value;
use tracing_subscriber::EnvFilter;

/// Prints a result to standard output; a reader that has gone is an error.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    out.flush()?;
    Ok(())
}

/// Prints what a machine reads.
pub(crate) fn say_json(value: &Value) -> anyhow::Result<()> {
    say(&serde_json::to_string_pretty(value)?)
}

/// Sends the log to standard error, coloured where that is a terminal.
pub(crate) fn start_logging(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter: EnvFilter = filter.parse()?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    log.with_ansi(stderr().is_terminal()).with_target(false).init();
    Ok(())
}

/// Left-aligned columns below their titles; a note in place of no rows.
pub(crate) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return "nothing".to_owned();
    }
    let titles: Vec<String> = titles.iter().map(|title| title.to_uppercase()).collect();
    let all = || std::iter::once(&titles).chain(rows);
    let widths: Vec<usize> = (0..titles.len())
        .map(|column| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in all() {
        let line = row.iter().zip(&widths).fold(String::new(), |mut line, (cell, width)| {
            let _ = write!(line, "{cell:<width$}  ");
            line
        });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A value of an answer as people read it: what comes from devices cannot move the cursor.
pub(crate) fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(number) => format!("{number:.1}"),
            None => number.to_string(),
        },
        Value::Array(values) => values.iter().map(self::text).collect::<Vec<_>>().join(" "),
        value => value.to_string(),
    };
    text.replace(char::is_control, " ")
}

/// One row for each element, of the members that these pointers name.
pub(crate) fn rows(values: &Value, pointers: &[&str]) -> Vec<Vec<String>> {
    let row = |value: &Value| pointers.iter().map(|at| value.pointer(at).map(text).unwrap_or_default()).collect();
    values.as_array().into_iter().flatten().map(row).collect()
}

/// The members of an object, one a line.
pub(crate) fn members(value: &Value) -> String {
    let members = value.as_object().into_iter().flatten();
    let width = members.clone().map(|(name, _)| name.len()).max().unwrap_or(0);
    members.fold(String::new(), |mut lines, (name, value)| {
        let _ = writeln!(lines, "{name:<width$}  {}", text(value));
        lines
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_devices_say_cannot_move_the_cursor() {
        assert_eq!(text(&json!("a\u{1b}[2Jb\n")), "a [2Jb ");
    }

    #[test]
    fn columns_line_up_below_their_titles() {
        let values = json!([{ "device": "gate-7", "figures": { "fps": 25.0 } }, { "device": "a" }]);
        let rows = rows(&values, &["/device", "/figures/fps"]);
        assert_eq!(table(&["device", "fps"], &rows), "DEVICE  FPS\ngate-7  25.0\na\n");
    }
}
