//! What the end-to-end tests share: the program under test, the models and clips that set-up
//! fetched, and waiting for a condition instead of sleeping.
//!
//! It holds no tests and knows nothing of how the program works inside.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in a folder of the repository").to_owned()
}

/// The `revoada` program as `cargo test --workspace` built it: two folders above the test's own
/// executable.
pub fn revoada() -> Command {
    let mut command = program("revoada");
    let library = root().join(".cache/lib/libonnxruntime.so");
    if library.exists() {
        command.env("REVOADA_ONNXRUNTIME", library);
    }
    command
}

/// The fleet service's program.
pub fn revoada_fleet() -> Command {
    program("revoada-fleet")
}

fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("a running test has a path");
    let program = test.parent().and_then(Path::parent).expect("tests lie in `deps`").join(name);
    assert!(program.exists(), "`{}` is missing: run `cargo build --workspace --all-targets` first", program.display());
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).current_dir(root());
    command
}

/// A file that `cargo xtask setup` put into `.cache`; without it the test cannot be run, which is a
/// failure of the set-up and not of hardware.
pub fn asset(path: &str) -> PathBuf {
    let path = root().join(".cache").join(path);
    assert!(path.exists(), "`{}` is missing: run `cargo xtask setup` first", path.display());
    path
}

/// How a program ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Panics with everything the program said where it did not end with `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "standard output:\n{}\nstandard error:\n{}", self.stdout, self.stderr);
        self
    }

    /// The lines of standard error that begin with `error:`.
    pub fn error(&self) -> &str {
        self.stderr.find("error: ").map_or("", |start| self.stderr[start..].trim_end())
    }
}

/// Runs to the end, with everything captured.
pub fn finish(command: &mut Command) -> Finished {
    Finished::of(command.output().expect("the program starts"))
}

/// Waits until `condition` yields something; panics with `what` after a deadline that only a broken
/// program reaches.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A child that is killed, not left behind, where a test fails half way.
pub struct Running(pub std::process::Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts"))
    }

    /// Waits for the end and returns what was said.
    pub fn finish(mut self) -> Finished {
        use std::io::Read as _;
        // Standard error is read aside, so that neither pipe can fill while the other is awaited.
        let mut stderr = self.0.stderr.take().expect("standard error is piped and taken once");
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            stderr.read_to_end(&mut text).map(|_| text)
        });
        let mut stdout = Vec::new();
        self.0.stdout.take().expect("standard output is piped and taken once").read_to_end(&mut stdout).expect("pipe");
        let status = self.0.wait().expect("the child was started");
        let stderr = reader.join().expect("the reader does not panic").expect("pipe");
        Finished::of(Output { status, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A fleet service with a fleet that it plays: `fleet/server/examples/showroom`.
pub struct Showroom {
    running: Running,
    pub address: String,
    pub user: String,
    pub password: String,
}

impl Showroom {
    pub fn open() -> Self {
        // As `cargo test --workspace` builds it, beside the folder of the tests.
        let mut command = program("examples/showroom");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the showroom starts");
        let mut running = Running(child);
        let mut lines = BufReader::new(running.0.stdout.take().expect("standard output is piped")).lines();
        let mut line = || lines.next().expect("the showroom says where it is").expect("it writes text");
        let (address, user, password) = (line(), line(), line());
        Self { running, address, user, password }
    }

    /// Ends it, which it does in order.
    pub fn close(mut self) {
        // It ends with its standard input.
        drop(self.running.0.stdin.take());
        assert!(self.running.0.wait().expect("it was started").success());
    }
}

/// A port that nobody listens on at the moment of asking.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Names in a folder, sorted; what a failed run must leave empty.
pub fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder exists");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
