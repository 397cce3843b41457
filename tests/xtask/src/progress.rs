//! One line per piece of work, with the time it took; while it lasts, a live one on a terminal.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// Does `work`, telling people on standard error. A failure names the step.
pub(crate) fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    // Draws on a terminal only.
    let live = ProgressBar::new_spinner()
        .with_message(title.to_owned())
        .with_style(ProgressStyle::with_template("{spinner}  {msg} ({elapsed})").expect("the template is well formed"));
    live.enable_steady_tick(Duration::from_millis(120));
    let result = work();
    live.finish_and_clear();
    match &result {
        Ok(_) => eprintln!("done  {title} ({:.1} s)", started.elapsed().as_secs_f64()),
        Err(_) => eprintln!("failed  {title}"),
    }
    result.with_context(|| format!("cannot {title}"))
}
