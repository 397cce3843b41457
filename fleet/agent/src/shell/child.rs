//! Children that do one thing and end.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::fetch::Cancel;

/// What is kept of each of its outputs; more is read and dropped.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How a child ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) output: Vec<u8>,
    errors: Vec<u8>,
}

impl Ended {
    /// The last line that it wrote to standard error, or how it ended.
    pub(super) fn reason(&self) -> String {
        let errors = String::from_utf8_lossy(&self.errors);
        let lines = || errors.lines().map(str::trim).filter(|line| !line.is_empty());
        let reason = lines().rfind(|line| line.starts_with("error: ")).or_else(|| lines().next_back());
        reason.map_or_else(|| self.status.to_string(), |line| line.trim_start_matches("error: ").to_owned())
    }
}

/// Why a child did not end.
#[derive(Debug)]
pub(super) enum NotEnded {
    Start(io::Error),
    /// Given up, or out of time.
    Killed,
}

impl fmt::Display for NotEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => write!(f, "it cannot be started: {error}"),
            Self::Killed => f.write_str("it did not end in time"),
        }
    }
}

/// Runs a child to its end, or kills it with all that it has started.
pub(super) fn run(command: &mut Command, cancel: &Cancel, time_max: Duration) -> Result<Ended, NotEnded> {
    let command = without_supervisor(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.process_group(0).spawn().map_err(NotEnded::Start)?;
    let output = child.stdout.take().map(read);
    let errors = child.stderr.take().map(read);
    let deadline = Instant::now() + time_max;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if cancel.is_cancelled() || Instant::now() >= deadline => break None,
            Ok(None) => thread::sleep(LOOK_EVERY),
            Err(error) => {
                kill_group(&mut child);
                return Err(NotEnded::Start(error));
            }
        }
    };
    // Whatever it has started goes with it, so that the pipes are closed.
    kill_group(&mut child);
    let join = |thread: Option<JoinHandle<Vec<u8>>>| thread.and_then(|thread| thread.join().ok()).unwrap_or_default();
    let (output, errors) = (join(output), join(errors));
    status.map(|status| Ended { status, output, errors }).ok_or(NotEnded::Killed)
}

/// Lets a child not speak to systemd in the agent's name.
pub(super) fn without_supervisor(command: &mut Command) -> &mut Command {
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(variable);
    }
    command
}

fn kill_group(child: &mut Child) {
    if let Some(group) = rustix::process::Pid::from_raw(child.id().cast_signed())
        && let Err(error) = rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
    {
        tracing::trace!(%error, "nothing of a child is left");
    }
    drop(child.wait());
}

fn read(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let (mut kept, mut buffer) = (Vec::new(), [0; 8192]);
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len()).min(count);
            kept.extend_from_slice(&buffer[..room]);
        }
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_reason_is_the_error_that_it_names() {
        let ended =
            run(&mut sh("echo a; echo 'error: it broke' >&2; echo more >&2; exit 3"), &Cancel::default(), MINUTE);
        let ended = ended.unwrap();
        assert_eq!((ended.output.as_slice(), ended.reason().as_str()), (&b"a\n"[..], "it broke"));
        assert_eq!(ended.status.code(), Some(3));
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn one_that_hangs_is_killed_with_what_it_has_started() {
        let began = Instant::now();
        assert!(matches!(run(&mut sh("sleep 100 & sleep 100"), &Cancel::default(), LOOK_EVERY), Err(NotEnded::Killed)));
        let cancel = Cancel::default();
        cancel.cancel();
        assert!(matches!(run(&mut sh("sleep 100"), &cancel, MINUTE), Err(NotEnded::Killed)));
        assert!(began.elapsed() < MINUTE);
    }
}
