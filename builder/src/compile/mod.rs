//! From a converted graph to a plan, in a child process: a compiler that crashes, hangs or eats the memory
//! takes nothing else with it.
//!
//! The parent ([`Workshop`]) starts this program again with a hidden verb that calls [`child`], writes it a
//! [`CompileRequest`], the model into its file meanwhile, and then [`MODEL_IS_THERE`]. It reads [`Event`]s, a JSON object a
//! line. A watchdog ends the child when the machine runs out of memory; the child itself asks the system to be the first
//! to go. What it wrote lies in a folder of its own that goes with it.

mod child;
mod disk;
mod memory;
mod precision;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use revoada_bundle::onnx::OnnxModel;
use revoada_bundle::plan::ShapeProfile;
use revoada_core::{Architecture, Compatibility, TensorRtVersion};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use thiserror::Error;

pub use child::child;
pub use memory::{MemoryGuard, available_bytes, peak_bytes};
pub use precision::{PrecisionMismatch, check_plan_precision};
pub use revoada_tensorrt::Cancel;

/// How often the watchdog looks.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// A line of the child's: an error with every node that TensorRT refuses at most.
const EVENT_BYTES_MAX: usize = 8 << 20;
/// Events that the parent has not looked at yet; the child waits beyond it.
const EVENTS_MAX: usize = 256;

/// A plan that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompileOptions {
    /// A folder with TensorRT's libraries; `None` looks where the system does.
    pub tensorrt: Option<PathBuf>,
    /// `None`: for the GPU that is here.
    pub target: Option<Architecture>,
    pub compatibility: Compatibility,
    /// By input; needed where a dimension is open.
    pub profile: ShapeProfile,
    /// Device memory for a layer's scratch; `None` leaves it to TensorRT.
    pub workspace_bytes_max: Option<u64>,
    pub dla_core: Option<u32>,
    /// Where the timings of earlier builds are, to be read and written. One build at a time has them, since others
    /// would distort what it times.
    pub timing_cache: Option<PathBuf>,
}

/// What the parent writes to the child first, as one line. It opens TensorRT while the model is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompileRequest {
    model: PathBuf,
    /// `None` asks only whether TensorRT reads the model.
    plan: Option<PathBuf>,
    options: CompileOptions,
}

/// What the parent writes then; whoever sees the end before it has lost his parent.
const MODEL_IS_THERE: &[u8] = b"\n";

/// What the child tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A phase began, which has so many steps.
    Started {
        phase: String,
        steps: u32,
    },
    Step {
        phase: String,
        step: u32,
    },
    Finished {
        phase: String,
    },
    /// Another build times its kernels.
    Waiting,
    /// TensorRT reads the model.
    Readable,
    /// The plan is written.
    Done {
        tensorrt: TensorRtVersion,
        layers: usize,
        checked: usize,
        /// The most memory that the child had, where the system tells.
        peak_bytes: Option<u64>,
        /// How long TensorRT took, of all that the child did.
        compile_ms: u64,
    },
    Failed {
        reason: String,
    },
}

/// What a compiler made of a graph.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// As TensorRT serialised it.
    pub engine: Vec<u8>,
    pub tensorrt: TensorRtVersion,
    /// As TensorRT parsed them.
    pub layers: usize,
    /// Of these, the ones whose precision was held against the graph's.
    pub checked: usize,
    pub peak_bytes: Option<u64>,
    pub compile_time: Duration,
}

/// Why there is no plan.
#[derive(Debug, Error)]
pub enum CompileError {
    /// TensorRT's own words.
    #[error("{reason}")]
    Refused { reason: String },
    #[error(
        "the build needs about {needed_mib} MiB of memory, {available_mib} MiB are free; stop other programs, or build on another device"
    )]
    TooLittleMemory { needed_mib: u64, available_mib: u64 },
    #[error(
        "the build needs about {needed_mib} MiB in `{}`, {available_mib} MiB are free there; delete what is not needed",
        .folder.display()
    )]
    TooLittleDisk { folder: PathBuf, needed_mib: u64, available_mib: u64 },
    #[error("the build was ended because only {left_mib} MiB of memory were left; `--memory` makes it use less")]
    OutOfMemory { left_mib: u64 },
    #[error("the build was ended by signal {signal}{}", if *.signal == SIGKILL { ", most likely by the system for want of memory; `--memory` makes it use less" } else { ": TensorRT crashed" })]
    Killed { signal: i32 },
    #[error("the build ended without a plan (exit code {code})")]
    Ended { code: i32 },
    #[error("the build was cancelled")]
    Cancelled,
    #[error("the build process wrote what it should not: {reason}")]
    Protocol { reason: String },
    #[error("cannot {doing}")]
    Io {
        doing: &'static str,
        #[source]
        source: io::Error,
    },
}

const SIGKILL: i32 = 9;

/// How a child is started and watched.
pub struct Workshop<'a> {
    /// This program with the verb that calls [`child`].
    pub command: &'a dyn Fn() -> io::Result<Command>,
    /// A folder on a disk with room for the model and the plan.
    pub scratch: &'a Path,
    pub guard: MemoryGuard,
    pub cancel: Cancel,
}

impl Workshop<'_> {
    /// Asks TensorRT whether it reads `model`; the error names every node that it refuses.
    pub fn check(&self, model: &OnnxModel, options: &CompileOptions) -> Result<(), CompileError> {
        let folder = self.folder()?;
        match self.work(&folder, model, None, options, &mut |_| {})? {
            Event::Readable => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Compiles `model`.
    pub fn compile(
        &self,
        model: &OnnxModel,
        options: &CompileOptions,
        progress: &mut dyn FnMut(&Event),
    ) -> Result<Compiled, CompileError> {
        let folder = self.folder()?;
        let plan = folder.path().join("engine");
        let mut engine = None;
        let mut listen = |event: &Event| {
            // Read while the child ends, which takes it a while.
            if matches!(event, Event::Done { .. }) {
                engine = Some(fs::read(&plan));
            }
            progress(event);
        };
        match self.work(&folder, model, Some(plan.clone()), options, &mut listen)? {
            Event::Done { tensorrt, layers, checked, peak_bytes, compile_ms } => {
                let engine = engine.expect("it was read when it was done");
                let engine = engine.map_err(io("read the plan that was built"))?;
                let compile_time = Duration::from_millis(compile_ms);
                Ok(Compiled { engine, tensorrt, layers, checked, peak_bytes, compile_time })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Goes, with what the child left in it, when it is dropped.
    fn folder(&self) -> Result<TempDir, CompileError> {
        tempfile::Builder::new().prefix(".build-").tempdir_in(self.scratch).map_err(io("create a scratch folder"))
    }

    /// Runs a child to its end; its last word, where that was no failure.
    fn work(
        &self,
        folder: &TempDir,
        model: &OnnxModel,
        plan: Option<PathBuf>,
        options: &CompileOptions,
        progress: &mut dyn FnMut(&Event),
    ) -> Result<Event, CompileError> {
        let request = CompileRequest { model: folder.path().join("model.onnx"), plan, options: options.clone() };
        let mut command = (self.command)().map_err(io("find this program"))?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = Reaped(child.map_err(io("start the build process"))?);
        let mut input = child.0.stdin.take().expect("it is piped");
        let mut text = serde_json::to_vec(&request).expect("a request is plain data with string keys");
        text.push(b'\n');
        // A child that died at once says more by its exit than by a closed pipe.
        drop(input.write_all(&text));
        let bytes = model.encode();
        self.guard.check(bytes.len() as u64)?;
        disk::check(folder.path(), bytes.len() as u64)?;
        fs::write(&request.model, bytes).map_err(io("write the model for the compiler"))?;
        drop(input.write_all(MODEL_IS_THERE));
        drop(input);
        let events = read_events(child.0.stdout.take().expect("it is piped")).map_err(io("start a thread"))?;
        let told = follow(&events, &mut child, &self.guard, progress, &self.cancel)?;
        let status = child.0.wait().map_err(io("wait for the build process"))?;
        match told {
            Some(Event::Failed { reason }) => Err(CompileError::Refused { reason }),
            Some(event) if status.success() => Ok(event),
            _ => Err(ended(status)),
        }
    }
}

fn io(doing: &'static str) -> impl Fn(io::Error) -> CompileError {
    move |source| CompileError::Io { doing, source }
}

fn unexpected(event: &Event) -> CompileError {
    CompileError::Protocol { reason: format!("its last word was {event:?}") }
}

fn ended(status: ExitStatus) -> CompileError {
    match (status.signal(), status.code()) {
        (Some(signal), _) => CompileError::Killed { signal },
        (None, code) => CompileError::Ended { code: code.unwrap_or(-1) },
    }
}

/// A child that does not outlive its parent's interest.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // One that has ended and was waited for cannot be killed any more, which is as well.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn read_events(output: impl io::Read + Send + 'static) -> io::Result<Receiver<Result<Event, String>>> {
    let (sender, receiver) = sync_channel(EVENTS_MAX);
    let read = move || {
        let mut lines = BufReader::new(output);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = io::Read::take(&mut lines, EVENT_BYTES_MAX as u64);
            let event = match bounded.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => serde_json::from_slice(&line).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let is_end = event.is_err();
            if sender.send(event).is_err() || is_end {
                return;
            }
        }
    };
    thread::Builder::new().name("build-events".to_owned()).spawn(read)?;
    Ok(receiver)
}

/// Until the child has nothing more to say; its last word, where it was one.
fn follow(
    events: &Receiver<Result<Event, String>>,
    child: &mut Reaped,
    guard: &MemoryGuard,
    progress: &mut dyn FnMut(&Event),
    cancel: &Cancel,
) -> Result<Option<Event>, CompileError> {
    let mut last = None;
    let mut look = Instant::now();
    loop {
        match events.recv_timeout(look.saturating_duration_since(Instant::now())) {
            Ok(Ok(event)) => {
                progress(&event);
                last = matches!(event, Event::Done { .. } | Event::Failed { .. } | Event::Readable).then_some(event);
            }
            Ok(Err(reason)) => return Err(CompileError::Protocol { reason }),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(last),
        }
        if cancel.is_cancelled() {
            return Err(CompileError::Cancelled);
        }
        // Hundreds of events are no reason to look hundreds of times.
        if Instant::now() < look {
            continue;
        }
        look = Instant::now() + WATCH_INTERVAL;
        if let Some(left) = guard.exhausted() {
            // It is in no state to end by itself.
            drop(child.0.kill());
            return Err(CompileError::OutOfMemory { left_mib: left >> 20 });
        }
    }
}
