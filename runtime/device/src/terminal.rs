//! What only a terminal gets: colour, progress bars, aligned tables.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::EnvFilter;

/// Prints a result to standard output. A reader that has gone is an error, which `main` takes for
/// the end it is; `println!` would panic.
pub(crate) fn say(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        stdout.write_all(b"\n")?;
    }
    stdout.flush()
}

/// Sends the log to standard error, coloured where that is a terminal.
pub(crate) fn start_logging(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter: EnvFilter = filter.parse()?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
    Ok(())
}

/// A bar over `len` steps that nobody sees where standard error is not a terminal.
pub(crate) fn progress(len: u64, what: &str) -> ProgressBar {
    let target = if stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{msg:<24} [{bar:40}] {pos}/{len} {per_sec}")
        .expect("the template is constant and valid")
        .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(len), target).with_style(style).with_message(what.to_owned())
}

/// Frames so far, towards `len` where that is known; nobody sees it where standard error is not a
/// terminal.
pub(crate) fn counter(len: Option<u64>) -> ProgressBar {
    let bar = match len {
        Some(len) => progress(len, ""),
        None => {
            let style = ProgressStyle::with_template("{spinner} {pos} frames, {msg}");
            progress(0, "").with_style(style.expect("the template is constant and valid"))
        }
    };
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

/// Rows of text as columns: the first is left-aligned, the others right-aligned.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            if column == 0 {
                let _ = write!(line, "{cell:<width$}");
            } else {
                let _ = write!(line, "  {cell:>width$}");
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `12.3 M`, `4.56 k`: three significant digits with an SI prefix.
pub(crate) fn si(value: f64) -> String {
    let (scaled, prefix) = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")]
        .into_iter()
        .find(|(unit, _)| value.abs() >= *unit)
        .map_or((value, ""), |(unit, prefix)| (value / unit, prefix));
    match scaled.abs() {
        _ if prefix.is_empty() && scaled.fract() == 0.0 => format!("{scaled}"),
        magnitude if magnitude >= 100.0 => format!("{scaled:.0}{prefix}"),
        magnitude if magnitude >= 10.0 => format!("{scaled:.1}{prefix}"),
        _ => format!("{scaled:.2}{prefix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let rows = [vec!["stream".to_owned(), "fps".to_owned()], vec!["a".to_owned(), "125.0".to_owned()]];
        assert_eq!(table(&rows), "stream    fps\na       125.0\n");
    }

    #[test]
    fn prefixes_keep_three_digits() {
        let texts: Vec<String> = [7.0, 999.0, 1234.0, 45_600_000.0, 789e9].into_iter().map(si).collect();
        assert_eq!(texts, ["7", "999", "1.23 k", "45.6 M", "789 G"]);
    }
}
