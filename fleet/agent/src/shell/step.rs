//! The steps of a deployment, one at a time on a thread of their own: find room, fetch, verify, try in a child.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use revoada_bundle::bundle::MODEL;
use revoada_core::{Digest, causes, sentence_of};
use revoada_proto::Kind;
use revoada_proto::control::{self, Client};
use tokio::sync::mpsc;

use super::child::{self, Ended, NotEnded};
use super::config::{Address, Limits};
use super::fetch::{Cancel, FetchError, Fetcher};
use super::identity::Identity;
use super::labelled::{self, Candidate};
use super::pipeline::Live;
use super::plan::{Plans, Scratch};
use super::program::Programs;
use super::target::Defaults;
use super::vitals::Stats;
use crate::{Active, CONTENT, Fault, LocalDisk, Part, Placed, Slot, Slots, Step, StepId, VerifiedSlot, Verifier};

/// Pictures that a new model has to answer before it is tried on live ones.
const TRIAL_FRAMES: &str = "8";
const TRIAL_SOURCE: &str = "test://smpte?width=640&height=480&fps=30";
/// The reconciler's own bound is what counts; this one is so that nothing is left behind.
const CHILD_TIME_MAX: Duration = Duration::from_secs(7200);
const VERSION_TIME_MAX: Duration = Duration::from_secs(60);
/// More of it makes the agreement no more certain.
const SHADOW_FRAMES_MAX: u64 = 500;
const SHADOW_LOOK_EVERY: Duration = Duration::from_millis(500);
/// In one remark.
const LABELS_NAMED_MAX: usize = 5;
/// Of a model's weights in memory, while it is loaded.
const MODEL_COPIES: u64 = 2;
/// What a child needs beside the weights of its model.
const MEMORY_BESIDE: u64 = 64 << 20;

/// What the thread works with.
pub(super) struct Steps {
    pub(super) slots: Arc<Mutex<Slots<LocalDisk>>>,
    pub(super) verifier: Verifier,
    /// Held while a step may touch a slot.
    pub(super) busy: Arc<Mutex<()>>,
    pub(super) identity: Arc<Mutex<Option<Arc<Identity>>>>,
    pub(super) server: Address,
    pub(super) limits: Limits,
    pub(super) programs: Programs,
    pub(super) defaults: Defaults,
    pub(super) trust: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) live: Live,
    pub(super) shadow_for: Duration,
    /// Pictures whose classes are known, for classifiers.
    pub(super) labelled: Option<PathBuf>,
    /// Where plans are tried.
    pub(super) plans: PathBuf,
    /// How much of a pre-flight's time may go into a plan; half as much into its upload, and the rest is for the trial.
    pub(super) plan_time_max: Duration,
    pub(super) done: mpsc::Sender<Done>,
}

/// One step to do.
#[derive(Debug)]
pub(super) struct Todo {
    pub(super) id: StepId,
    pub(super) step: Step,
    pub(super) kind: Kind,
    pub(super) placed: Placed,
    pub(super) active: Active,
    pub(super) desired: BTreeMap<Kind, Digest>,
    pub(super) cancel: Cancel,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    Progress {
        id: StepId,
    },
    /// `measured` of a model, where it was tried.
    Passed {
        id: StepId,
        measured: Option<Measured>,
    },
    Failed {
        id: StepId,
        fault: Fault,
        why: String,
    },
}

/// What a model's pre-flight found out. It decides nothing on the device: the fleet service's gates judge it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Measured {
    pub(super) model: Digest,
    /// With the model that runs, on its pictures, where there was one: 0 to 1.
    pub(super) agreement: Option<f64>,
    /// Of a classifier on the labelled pictures, where there are any: 0 to 1.
    pub(super) accuracy: Option<f64>,
    /// Why the accuracy is unknown or less than it could be, for people.
    pub(super) remarks: Vec<String>,
}

type Outcome = Result<Option<Measured>, (Fault, String)>;

impl Steps {
    /// Does steps until nobody asks for any.
    pub(super) fn run(self, todo: &Receiver<Todo>) {
        while let Ok(todo) = todo.recv() {
            let outcome = {
                let _busy = lock(&self.busy);
                if todo.cancel.is_cancelled() { Err((Fault::Passing, "given up".to_owned())) } else { self.step(&todo) }
            };
            let id = todo.id;
            let done = match outcome {
                Ok(measured) => Done::Passed { id, measured },
                Err((fault, why)) => Done::Failed { id, fault, why },
            };
            if self.done.blocking_send(done).is_err() {
                return;
            }
        }
    }

    fn step(&self, todo: &Todo) -> Outcome {
        match todo.step {
            Step::CheckRoom => self.check_room(todo).map(|()| None).map_err(of_fetch),
            Step::Fetch => self.fetch(todo).map(|()| None).map_err(of_fetch),
            Step::Verify => self.verified(todo.kind, todo.placed).map(|_| None),
            Step::Preflight => {
                let slot = self.verified(todo.kind, todo.placed)?;
                match todo.kind {
                    Kind::Model => self.try_model(todo, &slot),
                    Kind::Pipeline => self.try_pipeline(todo, &slot),
                    Kind::Package => self.try_package(todo, &slot),
                }
            }
        }
    }

    /// What says how much else there is comes first, since it is small.
    fn check_room(&self, todo: &Todo) -> Result<(), FetchError> {
        let fetcher = self.fetcher()?;
        let filling = lock(&self.slots).fill(todo.kind, todo.placed)?;
        let reserve = self.limits.disk_reserve_bytes;
        let unknown = match filling.next()? {
            Some(part) if todo.kind != Kind::Model => fetcher.length(&part)?,
            Some(part) => part.bytes_max,
            None => 0,
        };
        filling.check_room(reserve, unknown)?;
        if todo.kind == Kind::Model {
            fetcher.fetch(&filling, |part: &Part| part.bytes.is_none(), &todo.cancel, &self.progress(todo.id))?;
            filling.check_room(reserve, 0)?;
        }
        Ok(())
    }

    fn fetch(&self, todo: &Todo) -> Result<(), FetchError> {
        let fetcher = self.fetcher()?;
        let filling = lock(&self.slots).fill(todo.kind, todo.placed)?;
        fetcher.fetch(&filling, |_| true, &todo.cancel, &self.progress(todo.id))?;
        filling.finish()?;
        Ok(())
    }

    fn fetcher(&self) -> Result<Fetcher, FetchError> {
        let identity = lock(&self.identity).clone().ok_or(FetchError::NotEnrolled)?;
        Ok(Fetcher::new(&self.server, &identity, self.limits.download_bytes_per_second)?)
    }

    /// Says that a step works on, a few times a second at most.
    fn progress(&self, id: StepId) -> impl Fn() + '_ {
        let said_at = std::cell::Cell::new(Instant::now());
        move || {
            if said_at.get().elapsed() > SHADOW_LOOK_EVERY {
                said_at.set(Instant::now());
                // Where the agent is behind, it hears the next one.
                drop(self.done.try_send(Done::Progress { id }));
            }
        }
    }

    fn verified(&self, kind: Kind, placed: Placed) -> Result<VerifiedSlot, (Fault, String)> {
        self.verifier.verify(kind, placed).map_err(|error| (error.fault(), sentence_of(causes(&error))))
    }

    fn try_model(&self, todo: &Todo, slot: &VerifiedSlot) -> Outcome {
        let bytes = fs::metadata(slot.folder().join(MODEL)).map_or(0, |file| file.len());
        check_memory(bytes.saturating_mul(MODEL_COPIES))?;
        let program = self.program(&todo.active);
        let mut verify = Command::new(&program);
        verify.arg("verify").arg(slot.folder()).arg("--key").arg(&self.trust);
        succeed("verify the bundle", child::run(&mut verify, &todo.cancel, CHILD_TIME_MAX))?;
        let wanted = self.plans(&program, &todo.cancel).and_then(|plans| {
            let wanted = plans.provide(slot)?;
            Some((plans, wanted))
        });
        let mut run = Command::new(&program);
        run.arg("run").arg("--model").arg(slot.folder()).arg("--trust").arg(&self.trust);
        run.args(["--source", TRIAL_SOURCE, "--frames", TRIAL_FRAMES, "--no-output", "--no-rebuild", "--json"]);
        let ended = succeed("run the model", child::run(&mut run, &todo.cancel, CHILD_TIME_MAX))?;
        let stats: Stats = serde_json::from_slice(&ended.output)
            .map_err(|error| (Fault::Refused, format!("the model's trial says nothing that can be read: {error}")))?;
        if stats.frames_out == 0 || stats.non_finite > 0 {
            let (frames, bad) = (stats.frames_out, stats.non_finite);
            return Err((
                Fault::Refused,
                format!("the model's trial gave {frames} frames, and {bad} values that are none"),
            ));
        }
        // Others are not to fetch what only its own self-test was content with.
        if let Some((plans, wanted)) = wanted {
            plans.upload(&wanted, self.plan_time_max / 2);
        }
        let (accuracy, remarks) = self.accuracy(todo, slot, &program);
        let agreement = self.shadow(todo, slot);
        Ok(Some(Measured { model: slot.placed().digest, agreement, accuracy, remarks }))
    }

    /// `None`, which is logged, where there is no way to look for any.
    fn plans<'a>(&'a self, program: &'a Path, cancel: &'a Cancel) -> Option<Plans<'a>> {
        let identity = lock(&self.identity).clone()?;
        let scratch = Scratch::open(&self.plans);
        let scratch = scratch.inspect_err(|error| tracing::warn!(%error, "there is no folder for plans")).ok()?;
        let deadline = Instant::now() + self.plan_time_max;
        let Self { server, limits, socket, .. } = self;
        Some(Plans { server, identity, limits, program, socket, scratch, cancel, deadline })
    }

    fn try_pipeline(&self, todo: &Todo, slot: &VerifiedSlot) -> Outcome {
        let mut print = Command::new(self.program(&todo.active));
        print.arg("run").arg(slot.folder().join(CONTENT)).arg("--print-config");
        let model = match todo.desired.get(&Kind::Model) {
            Some(digest) => {
                let placed = todo.active.get(&Kind::Model).copied();
                let other = placed.map_or(Slot::A, |placed| placed.slot.other());
                let placed = placed.filter(|placed| placed.digest == *digest);
                let placed = placed.unwrap_or(Placed { slot: other, digest: *digest });
                print.arg("--trust").arg(&self.trust);
                Some(self.verified(Kind::Model, placed)?.folder().to_owned())
            }
            None => self.defaults.model.clone(),
        };
        if let Some(model) = model {
            print.arg("--model").arg(model);
        }
        succeed("read the pipeline", child::run(&mut print, &todo.cancel, VERSION_TIME_MAX)).map(|_| None)
    }

    fn try_package(&self, todo: &Todo, slot: &VerifiedSlot) -> Outcome {
        let program = self.programs.executable(slot).map_err(|error| (error.fault(), sentence_of(causes(&error))))?;
        let mut version = Command::new(program);
        version.arg("--version");
        succeed("run the package", child::run(&mut version, &todo.cancel, VERSION_TIME_MAX)).map(|_| None)
    }

    /// What runs children now. A package that the same order names is tried after its model, by then with this one.
    fn program(&self, active: &Active) -> PathBuf {
        let deployed = active.get(&Kind::Package).and_then(|placed| self.programs.find(placed.digest));
        deployed.unwrap_or_else(|| self.defaults.program.clone())
    }

    /// Has the new model answer the labelled pictures. Whatever is wrong with those is no reason to refuse the model.
    fn accuracy(&self, todo: &Todo, slot: &VerifiedSlot, program: &Path) -> (Option<f64>, Vec<String>) {
        let Some(folder) = &self.labelled else { return (None, Vec::new()) };
        let candidate = Candidate { program, bundle: slot.folder(), trust: &self.trust };
        match labelled::mark(&candidate, folder, &todo.cancel) {
            Ok(None) => (None, Vec::new()),
            Ok(Some(marks)) => {
                let named = marks.unknown.iter().take(LABELS_NAMED_MAX).map(|label| format!("`{label}`"));
                let named = named.collect::<Vec<_>>().join(", ");
                let remark = match marks.unknown.len() {
                    0 => None,
                    count => Some(format!("the model does not know {count} of the set's labels, such as {named}")),
                };
                (Some(marks.accuracy), remark.into_iter().collect())
            }
            Err(error) => (None, vec![sentence_of(causes(&error))]),
        }
    }

    /// Has the new model answer live pictures beside the old one for a while, where it alone is to be replaced. What it
    /// says decides nothing here: a pipeline that has no room for a second model is not a reason to refuse it.
    fn shadow(&self, todo: &Todo, slot: &VerifiedSlot) -> Option<f64> {
        let replaces_model_alone = todo.desired.iter().all(|(kind, digest)| {
            *kind == Kind::Model || todo.active.get(kind).is_some_and(|placed| placed.digest == *digest)
        });
        let is_running = lock(&self.live).as_ref().is_some_and(|target| target.model.is_some());
        if self.shadow_for.is_zero() || !replaces_model_alone || !is_running {
            return None;
        }
        let mut client = Client::connect(&self.socket).ok()?;
        let model = slot.folder().to_owned();
        if let Err(error) = client.request(control::Command::Shadow { model }) {
            tracing::info!(%error, "the new model is not held against the old one");
            return None;
        }
        let deadline = Instant::now() + self.shadow_for;
        let mut seen = None;
        while Instant::now() < deadline && !todo.cancel.is_cancelled() {
            thread::sleep(SHADOW_LOOK_EVERY);
            let stats = client.request(control::Command::Stats).ok()?;
            seen = serde_json::from_value::<Stats>(stats).ok()?.shadow;
            if seen.as_ref().is_none_or(|shadow| shadow.error.is_some() || shadow.frames >= SHADOW_FRAMES_MAX) {
                break;
            }
        }
        if let Err(error) = client.request(control::Command::EndShadow) {
            tracing::info!(%error, "the shadow has ended by itself");
        }
        seen.as_ref().and_then(super::vitals::Shadow::agreement)
    }
}

fn of_fetch(error: FetchError) -> (Fault, String) {
    (error.fault(), sentence_of(causes(&error)))
}

/// A child that was to succeed. One that did not says of what it tries that it will never do.
fn succeed(what: &str, ended: Result<Ended, NotEnded>) -> Result<Ended, (Fault, String)> {
    match ended {
        Ok(ended) if ended.status.success() => Ok(ended),
        Ok(ended) => Err((Fault::Refused, format!("cannot {what}: {}", ended.reason()))),
        Err(error) => Err((Fault::Passing, format!("cannot {what}: {error}"))),
    }
}

/// Refuses to begin what holds so many bytes, where it would take the running pipeline's memory.
pub(super) fn check_memory(bytes: u64) -> Result<(), (Fault, String)> {
    let Some(free) = memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable:") else {
        return Ok(());
    };
    let needed = bytes.saturating_add(MEMORY_BESIDE);
    match free < needed {
        true => Err((Fault::NoRoom, format!("{free} bytes of memory are free, and a trial needs {needed}"))),
        false => Ok(()),
    }
}

/// A value of `/proc/meminfo` in bytes.
pub(super) fn memory(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:        4051628 kB\nMemAvailable:    2000000 kB\nHugePages_Total:       0\n";
        assert_eq!(memory(text, "MemAvailable:"), Some(2_048_000_000));
        assert_eq!((memory(text, "HugePages_Total:"), memory(text, "SwapFree:")), (None, None));
    }
}
