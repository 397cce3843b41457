//! Learning from what the device has, as the fleet service invites to.
//!
//! A child, `revoada learn train`, turns the device's own labelled pictures into an update of a model's head; the pictures and
//! what is made of them stay here. One round is learned at a time, and a newer one takes its place. What was learned lies in
//! a folder until the service has it, so that an agent that is killed uploads it, or goes on uploading, when it is invited again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use revoada_bundle::hash_file;
use revoada_bundle::partial::Partial;
use revoada_core::{Digest, causes, sentence_of};
use revoada_proto::control::{self, Client};
use revoada_proto::{Dispatch, Invitation, Kind, Label, LearnSettings, Level};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use super::child;
use super::config::{Address, LearningConfig, Limits};
use super::fetch::{Cancel, FetchError, Fetcher};
use super::identity::Identity;
use super::program::Programs;
use super::service::{self, LearnedUpdate, ServiceError};
use super::target::Defaults;
use crate::{Active, Contents, Placed, Verifier};

/// In the folder of the pictures: what `revoada learn forget` erases.
const FOLDER: &str = ".revoada-learn";
/// Of an update that the service could not be brought, before it is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The last update of a round begins the next, whose invitation may come before the answer: that is waited for so long.
const ANSWER_LATE_MAX: Duration = Duration::from_secs(5);
/// Of an invitation that does not say when its round is over.
const ROUND_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// What `revoada learn` takes.
const CHILD_TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Hundreds of thousands of pictures are erased within it.
const FORGET_TIME_MAX: Duration = Duration::from_secs(120);
/// A picture that is being written is waited for.
const END_LABELS_TIME_MAX: Duration = Duration::from_secs(10);
const METRICS_MAX: usize = 32;

/// What is to be learned, and what the device has for it.
#[derive(Debug)]
pub(super) struct Lesson {
    pub(super) invitation: Dispatch<Invitation>,
    /// By the clock on the wall, which is the service's.
    pub(super) now: SystemTime,
    pub(super) active: Active,
    pub(super) contents: Contents,
    /// Set once a newer invitation is there, or the agent ends.
    pub(super) cancel: Cancel,
}

/// What the learner does, one after another.
#[derive(Debug)]
pub(super) enum Todo {
    Learn(Box<Lesson>),
    /// Erase the pictures of a label, or all.
    Forget {
        label: Option<Label>,
        active: Active,
        answer: oneshot::Sender<Result<String, String>>,
    },
}

/// What has come of a lesson, for people.
#[derive(Debug)]
pub(super) struct Learned {
    /// Run and round.
    pub(super) round: (u64, u64),
    pub(super) level: Level,
    pub(super) name: &'static str,
    pub(super) text: String,
    /// Whether an update was brought that does not count.
    pub(super) is_refused: bool,
}

/// Learns on a thread of its own.
pub(super) struct Learner {
    pub(super) config: LearningConfig,
    pub(super) trust: PathBuf,
    /// Of the pipeline that runs.
    pub(super) socket: PathBuf,
    pub(super) server: Address,
    pub(super) limits: Limits,
    pub(super) verifier: Verifier,
    pub(super) programs: Programs,
    pub(super) defaults: Defaults,
    pub(super) identity: Arc<Mutex<Option<Arc<Identity>>>>,
    pub(super) said: mpsc::Sender<Learned>,
}

/// What was learned and lies in the folder: written once its update is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    run: u64,
    round: u64,
    base: Digest,
    update: Digest,
    bytes: u64,
    examples: u64,
    metrics: BTreeMap<String, f64>,
}

const VERSION: u32 = 1;

impl Learner {
    /// Learns, and forgets, until nobody asks any more.
    pub(super) fn run(&self, todos: &Receiver<Todo>) {
        while let Ok(todo) = todos.recv() {
            let lesson = match todo {
                Todo::Learn(lesson) => lesson,
                Todo::Forget { label, active, answer } => {
                    // Whoever asked may have ended.
                    drop(answer.send(self.forget(label.as_ref(), &active)));
                    continue;
                }
            };
            // A newer one has taken its place.
            if lesson.cancel.is_cancelled() {
                continue;
            }
            let Invitation { run, round, .. } = lesson.invitation.content;
            let learned = match self.learn(&lesson) {
                Ok(outcome) => {
                    let (is_refused, what) = match outcome {
                        Outcome::Counts { examples } => (false, format!("from {examples} examples")),
                        Outcome::Refused(why) => (true, format!("the update does not count: {why}")),
                    };
                    let text = format!("round {round} of run {run}: {what}");
                    Learned { round: (run, round), level: Level::Info, name: "learned", text, is_refused }
                }
                Err(why) if lesson.cancel.is_cancelled() => {
                    info!(run, round, why, "a lesson was given up");
                    continue;
                }
                Err(why) => {
                    self.decline(&lesson, &why);
                    let text = format!("round {round} of run {run}: {why}");
                    Learned { round: (run, round), level: Level::Warn, name: "not-learned", text, is_refused: false }
                }
            };
            // An agent that ends hears nothing more.
            drop(self.said.blocking_send(learned));
        }
    }

    /// Erases pictures, and what was made of any. No lesson is under way meanwhile, and no more pictures come.
    fn forget(&self, label: Option<&Label>, active: &Active) -> Result<String, String> {
        // Where no pipeline runs, or an older one, none keeps pictures.
        if let Err(error) = Client::connect(&self.socket).and_then(|mut client| {
            client = client.with_answer_time_max(END_LABELS_TIME_MAX);
            client.request(control::Command::EndLabels)
        }) {
            info!(error = %sentence_of(causes(&error)), "the pipeline was not told to keep no more pictures");
        }
        if !self.config.data.exists() {
            return Ok("there is nothing to forget".to_owned());
        }
        let mut child = Command::new(self.program(active));
        child.args(["learn", "forget", "--log", "warn", "--data"]).arg(&self.config.data);
        match label {
            Some(label) => child.arg(format!("--label={label}")),
            None => child.arg("--pictures"),
        };
        let ended = child::run(&mut child, &Cancel::default(), FORGET_TIME_MAX).map_err(|error| error.to_string())?;
        match ended.status.success() {
            true => Ok(String::from_utf8_lossy(&ended.output).trim().to_owned()),
            false => Err(ended.reason()),
        }
    }

    /// Learns and brings what was learned. What came of it; or why nothing did.
    fn learn(&self, lesson: &Lesson) -> Result<Outcome, String> {
        let deadline = self.deadline(lesson);
        fs::create_dir_all(self.folder()).map_err(|error| format!("cannot use its folder: {error}"))?;
        let record = match self.known(&lesson.invitation.content) {
            Some(record) => record,
            None => self.train(lesson, deadline)?,
        };
        let counts = self.upload(lesson, &record, deadline)?;
        Ok(counts.map_or_else(Outcome::Refused, |()| Outcome::Counts { examples: record.examples }))
    }

    /// What was learned for this very invitation, where it is whole.
    fn known(&self, invitation: &Invitation) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.record()).ok()?).ok()?;
        let is_it = (record.version, record.run, record.round, record.base)
            == (VERSION, invitation.run, invitation.round, invitation.weights);
        let (found, bytes) = hash_file(&self.update()).ok()?;
        (is_it && (found, bytes) == (record.update, record.bytes)).then_some(record)
    }

    fn train(&self, lesson: &Lesson, deadline: Instant) -> Result<Record, String> {
        let invitation = &lesson.invitation.content;
        let held = lesson.contents.iter();
        let held = held.filter(|((kind, _), held)| *kind == Kind::Model && **held == invitation.model);
        let slot = held.map(|((_, slot), _)| *slot).next();
        let slot = slot.ok_or_else(|| format!("this device does not have model {}", invitation.model.short()))?;
        let placed = Placed { slot, digest: invitation.model };
        let bundle = self.verifier.verify(Kind::Model, placed).map_err(|error| sentence_of(causes(&error)))?;
        self.fetch(invitation, &lesson.cancel, deadline)?;
        let labels = self.folder().join("labels.txt");
        write(&labels, invitation.labels.join("\n").as_bytes())?;
        // What is there of another round is not to be taken for this one's.
        remove(&self.record())?;
        let mut child = Command::new(self.program(&lesson.active));
        child.args(["learn", "train"]).arg(bundle.folder()).arg("--trust").arg(&self.trust);
        child.arg("--data").arg(&self.config.data).arg("--labels").arg(&labels);
        child.arg("--weights").arg(self.weights()).arg("--output").arg(self.update());
        child.arg("--control").arg(&self.socket).args(["--json", "--log", "warn"]);
        child.args(["--parent", &std::process::id().to_string()]);
        child.args(["--memory-max", &self.config.memory_mib_max.to_string()]);
        child.args(["--seed", &(invitation.round ^ invitation.run.rotate_left(32)).to_string()]);
        if let Some(celsius) = self.config.celsius_max {
            child.args(["--celsius-max", &celsius.to_string()]);
        }
        let left = deadline.saturating_duration_since(Instant::now()).min(self.config.time_max).min(CHILD_TIME_MAX);
        child.args(["--time-max", &format!("{}s", left.as_secs().max(1))]);
        child.args(arguments(&invitation.settings));
        let ended = child::run(&mut child, &lesson.cancel, left).map_err(|error| error.to_string())?;
        if !ended.status.success() {
            return Err(ended.reason());
        }
        let said: Value = serde_json::from_slice(&ended.output)
            .map_err(|error| format!("the program that learns says nothing that can be read: {error}"))?;
        let examples = said["examples"].as_u64().filter(|examples| *examples > 0);
        let (update, bytes) = hash_file(&self.update()).map_err(|error| format!("cannot read the update: {error}"))?;
        let record = Record {
            version: VERSION,
            run: invitation.run,
            round: invitation.round,
            base: invitation.weights,
            update,
            bytes,
            examples: examples.ok_or("it learned from no example")?,
            metrics: metrics(&said),
        };
        let text = serde_json::to_vec(&record).expect("a record is plain data");
        write(&self.record(), &text)?;
        Ok(record)
    }

    fn fetch(&self, invitation: &Invitation, cancel: &Cancel, deadline: Instant) -> Result<(), String> {
        let say = |error: FetchError| sentence_of(causes(&error));
        let identity = super::core::lock(&self.identity).clone().ok_or("this device is not enrolled")?;
        let rate = self.limits.download_bytes_per_second;
        let fetcher = Fetcher::new(&self.server, &identity, rate).map_err(|error| say(error.into()))?;
        let path = self.weights();
        let (digest, bytes) = (invitation.weights, invitation.weights_bytes);
        if hash_file(&path).is_ok_and(|(found, _)| found == digest) {
            return Ok(());
        }
        // Of other weights, nothing can be gone on with.
        let partial = self.folder().join(format!("{}.partial", digest.hex()));
        let is_over = || cancel.is_cancelled() || Instant::now() >= deadline;
        loop {
            match fetcher.fetch_file(digest, bytes, &partial, &is_over) {
                Ok(()) => return fs::rename(&partial, &path).map_err(|error| format!("cannot keep weights: {error}")),
                Err(error) if is_over() || !error.is_broken() => return Err(say(error)),
                Err(_) => wait(RETRY_EVERY, &is_over),
            }
        }
    }

    /// Whether it counts, once the service has said so.
    fn upload(&self, lesson: &Lesson, record: &Record, deadline: Instant) -> Result<Result<(), String>, String> {
        let path = self.update();
        let (is_sent, cancelled_at) = (Arc::new(AtomicBool::new(false)), Cell::new(None));
        let is_over = || {
            let now = Instant::now();
            if lesson.cancel.is_cancelled() && cancelled_at.get().is_none() {
                cancelled_at.set(Some(now));
            }
            let late = if is_sent.load(Ordering::SeqCst) { ANSWER_LATE_MAX } else { Duration::ZERO };
            now >= deadline || cancelled_at.get().is_some_and(|at| now.duration_since(at) >= late)
        };
        loop {
            let identity = super::core::lock(&self.identity).clone().ok_or("this device is not enrolled")?;
            let update = LearnedUpdate {
                run: record.run,
                round: record.round,
                base: record.base,
                digest: record.update,
                bytes: record.bytes,
                examples: record.examples,
                metrics: &record.metrics,
                path: &path,
                is_sent: &is_sent,
            };
            let answer = self.answer(service::upload_update(&self.server, &identity, update), &is_over);
            is_sent.store(false, Ordering::SeqCst);
            match answer {
                Ok(verdict) => return Ok(verdict),
                Err(Asked::Refused(why)) => return Err(why),
                Err(Asked::Unheard(why)) if is_over() => return Err(why),
                Err(Asked::Unheard(why)) => {
                    info!(why, "an update is brought again");
                    wait(RETRY_EVERY, &is_over);
                }
            }
        }
    }

    /// Says that no update will come; where that is not heard, the round waits for its deadline.
    fn decline(&self, lesson: &Lesson, why: &str) {
        let Some(identity) = super::core::lock(&self.identity).clone() else { return };
        let Invitation { run, round, .. } = lesson.invitation.content;
        let declined = service::decline_round(&self.server, &identity, (run, round), why.to_owned());
        if let Err(Asked::Refused(why) | Asked::Unheard(why)) = self.answer(declined, &|| lesson.cancel.is_cancelled())
        {
            info!(run, round, why, "the service was not told that there will be no update");
        }
    }

    /// Waits for the service on this thread, which is none of the agent's runtime.
    fn answer<T>(
        &self,
        asked: impl Future<Output = Result<T, ServiceError>>,
        is_over: &dyn Fn() -> bool,
    ) -> Result<T, Asked> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Asked::Unheard(format!("cannot start a runtime: {error}")))?;
        let over = async {
            while !is_over() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                answer = asked => answer.map_err(|error| match error {
                    error if error.is_final() => Asked::Refused(sentence_of(causes(&error))),
                    error => Asked::Unheard(sentence_of(causes(&error))),
                }),
                () = over => Err(Asked::Unheard("there is no time for it".to_owned())),
            }
        })
    }

    fn deadline(&self, lesson: &Lesson) -> Instant {
        let left = lesson.invitation.expires_at.map(|expires| expires.duration_since(lesson.now).unwrap_or_default());
        Instant::now() + left.unwrap_or(ROUND_TIME_MAX).min(ROUND_TIME_MAX)
    }

    fn program(&self, active: &Active) -> PathBuf {
        let package = active.get(&Kind::Package).and_then(|placed| self.programs.find(placed.digest));
        package.unwrap_or_else(|| self.defaults.program.clone())
    }

    /// Where what was learned lies.
    fn folder(&self) -> PathBuf {
        self.config.data.join(FOLDER)
    }

    fn weights(&self) -> PathBuf {
        self.folder().join("weights.safetensors")
    }

    fn update(&self) -> PathBuf {
        self.folder().join("update.safetensors")
    }

    fn record(&self) -> PathBuf {
        self.folder().join("update.json")
    }
}

/// What became of an update that was brought.
enum Outcome {
    Counts { examples: u64 },
    Refused(String),
}

/// Why the service did not answer what it was asked.
enum Asked {
    /// It said no, and would again.
    Refused(String),
    Unheard(String),
}

/// The options of `revoada learn train`.
fn arguments(settings: &LearnSettings) -> Vec<String> {
    let LearnSettings { hidden, epochs, batch, rate, proximal_mu, balanced, held_out } = settings;
    let number = |number: &Option<f64>| number.map(|number| number.to_string());
    let count = |number: &Option<u32>| number.map(|number| number.to_string());
    let options = [
        ("--hidden", count(hidden)),
        ("--epochs", count(epochs)),
        ("--batch", count(batch)),
        ("--rate", number(rate)),
        ("--proximal", number(proximal_mu)),
        ("--class-weights", balanced.then(|| "balanced".to_owned())),
        ("--held-out", number(held_out)),
    ];
    let given = options.into_iter().filter_map(|(option, value)| Some([option.to_owned(), value?]));
    given.flatten().collect()
}

/// What the program measured, by names that figures of all devices have.
fn metrics(said: &Value) -> BTreeMap<String, f64> {
    let figures = [
        ("train_loss", &said["train_loss"]),
        ("loss_before", &said["before"]["loss"]),
        ("accuracy_before", &said["before"]["accuracy"]),
        ("loss", &said["after"]["loss"]),
        ("accuracy", &said["after"]["accuracy"]),
    ];
    let figures = figures.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_f64()?)));
    figures.take(METRICS_MAX).collect()
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let write = || -> io::Result<()> {
        let partial = Partial::create(path)?;
        fs::write(partial.path(), bytes)?;
        partial.commit().map(drop)
    };
    write().map_err(|error| format!("cannot write `{}`: {error}", path.display()))
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot remove `{}`: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

fn wait(time: Duration, is_over: &dyn Fn() -> bool) {
    let until = Instant::now() + time;
    while Instant::now() < until && !is_over() {
        thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_options_and_what_is_not_said_is_left_to_the_program() {
        assert!(arguments(&LearnSettings::default()).is_empty());
        let settings = LearnSettings { epochs: Some(2), rate: Some(0.05), balanced: true, ..LearnSettings::default() };
        let expected = ["--epochs", "2", "--rate", "0.05", "--class-weights", "balanced"];
        assert_eq!(arguments(&settings), expected);
    }

    #[test]
    fn figures_are_what_the_program_measured() {
        let said = json!({ "train_loss": 0.5, "before": null, "after": { "loss": 0.25, "accuracy": 0.75 } });
        let expected = [("accuracy", 0.75), ("loss", 0.25), ("train_loss", 0.5)];
        assert_eq!(metrics(&said), expected.map(|(name, value)| (name.to_owned(), value)).into());
    }
}
