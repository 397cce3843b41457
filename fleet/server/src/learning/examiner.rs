//! How good heads are by the service's own labelled pictures, and what becomes of them: on a thread of its own, which rounds
//! wait for and the service does not.
//!
//! The pictures are answered by a child, `revoada learn evaluate`, so that nothing of an engine is in the service. A set of them
//! is a folder, `PICTURES/SET/LABEL/picture.jpg`, in which the child keeps what it computed of them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;
use revoada_bundle::bundle::{INDEX, MANIFEST, SIGNATURE};
use revoada_core::{Digest, causes, sentence_of};
use revoada_proto::Kind;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::info;

use super::board::Board;
use super::head::read_manifest;
use super::plan::{HeldWeights, Outcome, ReleasePlan};
use super::release::Releaser;
use super::task::RunId;
use crate::blobs::BlobError;
use crate::planner::RolloutId;
use crate::service::{Fleet, Principal, ServiceError, chain};
use crate::store::ArtefactVersion;

/// Of all pictures of a set: the first time, their features are computed.
const CHILD_TIME_MAX: Duration = Duration::from_hours(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const NAME_BYTES_MAX: usize = 64;

/// What a run asks.
#[derive(Debug)]
pub(super) enum Request {
    /// How good weights are.
    Judge { run: RunId, round: u64, set: String, model: Digest, weights: HeldWeights },
    /// Whether its newest are better than the model was, and to make a version of them then.
    Release { run: RunId },
}

/// What was found out.
#[derive(Debug)]
pub enum Examined {
    Judged { round: u64, marks: Result<Marks, String> },
    Released(Outcome),
}

/// How good a head is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Marks {
    /// The share of all pictures that it is right about; whoever does not know a label is wrong about its pictures.
    pub accuracy: f64,
    /// The mean cross-entropy of the pictures whose labels it knows, in nats.
    pub loss: Option<f64>,
}

impl Marks {
    pub(super) fn figures(&self) -> Vec<(String, f64)> {
        let loss = self.loss.map(|loss| ("loss".to_owned(), loss));
        [("accuracy".to_owned(), self.accuracy)].into_iter().chain(loss).collect()
    }
}

/// Where runs ask.
#[derive(Clone, Debug)]
pub struct ExaminerDesk(mpsc::UnboundedSender<Request>);

impl ExaminerDesk {
    /// And what was asked there.
    pub fn new() -> (Self, Requests) {
        let (sender, requests) = mpsc::unbounded_channel();
        (Self(sender), Requests(requests))
    }

    /// Whether anybody will answer.
    pub(super) fn ask(&self, request: Request) -> bool {
        self.0.send(request).is_ok()
    }
}

/// What runs have asked.
#[derive(Debug)]
pub struct Requests(mpsc::UnboundedReceiver<Request>);

/// Where the labelled pictures are, and who answers them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pictures {
    /// A folder of sets; without it the service judges nothing.
    pub folder: Option<PathBuf>,
    /// `revoada`: where none is named, the one beside this program, or the one in `PATH`.
    pub program: Option<PathBuf>,
}

impl Pictures {
    /// A set of labelled pictures, or why there is none of this name.
    pub fn set(&self, name: &str) -> Result<PathBuf, String> {
        let is_right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || name.starts_with('.') || !name.chars().all(is_right) {
            return Err("a set of pictures has a name of 1 to 64 letters, digits, `-`, `_` and `.`".to_owned());
        }
        let missing = "this service has no labelled pictures: name their folder in `learning.pictures`";
        let folder = self.folder.as_ref().ok_or(missing)?.join(name);
        match folder.is_dir() {
            true => Ok(folder),
            false => Err(format!("this service has no set of labelled pictures `{name}`")),
        }
    }

    /// The names of all sets.
    pub fn sets(&self) -> Vec<String> {
        let folders = self.folder.as_ref().and_then(|folder| names(folder).ok()).unwrap_or_default();
        folders.into_iter().filter(|name| self.set(name).is_ok()).collect()
    }

    fn program(&self) -> PathBuf {
        const NAME: &str = "revoada";
        let beside = || std::env::current_exe().ok().map(|program| program.with_file_name(NAME));
        let named = self.program.clone().or_else(|| beside().filter(|program| program.is_file()));
        named.unwrap_or_else(|| NAME.into())
    }
}

/// Judges and releases.
pub struct Examiner {
    pub fleet: Arc<Fleet>,
    pub board: Arc<Board>,
    pub releaser: Arc<Releaser>,
    pub pictures: Pictures,
    pub requests: Requests,
    pub runtime: Handle,
}

/// Why something was not found out.
#[derive(Debug, thiserror::Error)]
enum ExamError {
    #[error("{0}")]
    Said(String),
    #[error("`{program}` cannot be started")]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot use a temporary folder")]
    Folder(#[from] io::Error),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl ExamError {
    fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }
}

/// A bundle as a child reads it.
struct Model {
    digest: Digest,
    labels: BTreeSet<String>,
    folder: TempDir,
}

impl Model {
    fn bundle(&self) -> PathBuf {
        self.folder.path().join("model.bundle")
    }

    fn trust(&self) -> PathBuf {
        self.folder.path().join("trust")
    }
}

impl Examiner {
    /// Answers until nobody asks any more, or `is_over` says so.
    pub fn keep(mut self, is_over: impl Fn() -> bool) {
        // The last one: a run asks about the same model again and again.
        let mut model = None;
        while let Some(request) = self.requests.0.blocking_recv() {
            if is_over() {
                return;
            }
            match request {
                Request::Judge { run, round, set, model: digest, weights } => {
                    let marks = self.judge(&mut model, digest, &set, Some(&weights), &is_over);
                    let marks = marks.map_err(|error| sentence_of(causes(&error)));
                    self.board.examined(run, Examined::Judged { round, marks });
                }
                Request::Release { run } => {
                    let outcome = self.release(&mut model, run, &is_over);
                    // What the service was kept from by its end is done when it is started again.
                    if is_over() {
                        return;
                    }
                    let outcome = outcome.unwrap_or_else(|error| Outcome::not(sentence_of(causes(&error))));
                    self.board.examined(run, Examined::Released(outcome));
                }
            }
        }
    }

    /// How good weights are, or without any, how good the model is as it stands.
    fn judge(
        &self,
        known: &mut Option<Model>,
        model: Digest,
        set: &str,
        weights: Option<&HeldWeights>,
        is_over: &impl Fn() -> bool,
    ) -> Result<Marks, ExamError> {
        let set = self.pictures.set(set).map_err(ExamError::Said)?;
        if known.as_ref().is_none_or(|known| known.digest != model) {
            *known = Some(self.unpack(model)?);
        }
        let known = known.as_ref().expect("it was just put there");
        let program = self.pictures.program();
        let mut command = Command::new(&program);
        command.args(["learn", "evaluate"]).arg(known.bundle()).arg("--trust").arg(known.trust());
        command.arg("--data").arg(&set).args(["--json", "--log", "warn", "--time-max", "1h"]);
        command.args(["--parent", &std::process::id().to_string()]);
        match weights {
            Some(held) => {
                let (file, labels) = (known.folder.path().join("weights"), known.folder.path().join("labels"));
                fs::write(&file, self.read(held.digest)?)?;
                fs::write(&labels, held.labels.join("\n"))?;
                command.arg("--weights").arg(file).arg("--labels").arg(labels);
            }
            None if names(&set)?.is_disjoint(&known.labels) => return Ok(Marks { accuracy: 0.0, loss: None }),
            None => drop(command.args(["--weights", "model"])),
        }
        let said = self.answer(command, program, is_over)?;
        marks(&said).ok_or_else(|| ExamError::said("the program that judges says nothing that can be read"))
    }

    fn answer(
        &self,
        mut command: Command,
        program: PathBuf,
        is_over: &impl Fn() -> bool,
    ) -> Result<Vec<u8>, ExamError> {
        command.stdin(Stdio::null()).kill_on_drop(true);
        let deadline = Instant::now() + CHILD_TIME_MAX;
        let given_up = async {
            while !is_over() && Instant::now() < deadline {
                sleep(LOOK_EVERY).await;
            }
        };
        let ended = self.runtime.block_on(async {
            tokio::select! {
                ended = command.output() => Some(ended),
                () = given_up => None,
            }
        });
        let ended = ended.ok_or_else(|| ExamError::said("the pictures were not judged in time"))?;
        let ended = ended.map_err(|source| ExamError::Start { program, source })?;
        if ended.status.success() {
            return Ok(ended.stdout);
        }
        let errors = String::from_utf8_lossy(&ended.stderr);
        let reason = errors.lines().rfind(|line| line.starts_with("error: "));
        let reason = reason.map_or_else(|| ended.status.to_string(), |line| line.replacen("error: ", "", 1));
        Err(ExamError::Said(format!("the pictures were not judged: {reason}")))
    }

    fn read(&self, digest: Digest) -> Result<Bytes, BlobError> {
        self.releaser.read(digest, &self.runtime)
    }

    /// Puts a registered bundle into a folder.
    fn unpack(&self, digest: Digest) -> Result<Model, ExamError> {
        let missing = || ExamError::Said(format!("bundle `{digest}` is not registered any more"));
        let version = self.fleet.store().version(&digest).map_err(ServiceError::from)?.ok_or_else(missing)?;
        let mut model = Model { digest, labels: BTreeSet::new(), folder: TempDir::new()? };
        let bundle = model.bundle();
        fs::create_dir(&bundle)?;
        for (name, file) in &version.files {
            let bytes = self.read(file.digest)?;
            let path = bundle.join(name);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            if name == MANIFEST {
                model.labels = read_manifest(&bytes).map_err(ExamError::Said)?.labels.into_iter().collect();
            }
            fs::write(path, bytes)?;
        }
        fs::write(bundle.join(INDEX), self.read(digest)?)?;
        let signature = self.fleet.store().signature(&digest).map_err(ServiceError::from)?.ok_or_else(missing)?;
        fs::write(bundle.join(SIGNATURE), serde_json::to_vec(&signature).map_err(io::Error::from)?)?;
        let keys: Vec<String> = self.releaser.trusted.iter().map(ToString::to_string).collect();
        fs::write(model.trust(), keys.join("\n"))?;
        Ok(model)
    }

    /// Makes a version of what a run has learned, where that is right about more pictures than its model was.
    fn release(
        &self,
        known: &mut Option<Model>,
        run: RunId,
        is_over: &impl Fn() -> bool,
    ) -> Result<Outcome, ExamError> {
        let by = Principal::service();
        let record = self.fleet.run(&by, run)?;
        let plan = record.plan.release.as_ref().ok_or_else(|| ExamError::said("no release was planned"))?;
        let (Some(set), Some(model), Some(held)) =
            (&record.plan.pictures, super::release::learned_model(&record), &record.state.weights)
        else {
            return Ok(Outcome::not("nothing was learned"));
        };
        let before = self.judge(known, model, set, None, is_over)?.accuracy;
        let after = self.judge(known, model, set, Some(held), is_over)?.accuracy;
        let mut outcome = Outcome { accuracy_before: Some(before), accuracy: Some(after), ..Outcome::default() };
        if after <= before || after < before + plan.gain_min {
            let wanted = if plan.gain_min > 0.0 { format!(" by {}", plan.gain_min) } else { String::new() };
            outcome.why = Some(format!("it is no better{wanted} than the model was"));
            return Ok(outcome);
        }
        let released = self.runtime.block_on(self.releaser.release(&by, run, &plan.version));
        match released.map_err(|error| chain(&error)).and_then(|version| self.roll_out(&by, plan, &version)) {
            Ok((digest, rollout)) => {
                info!(%run, %digest, accuracy_before = before, accuracy = after, "what was learned was released");
                outcome.digest = Some(digest);
                outcome.rollout = rollout.map(|id| id.0);
            }
            Err(why) => outcome.why = Some(why),
        }
        Ok(outcome)
    }

    fn roll_out(
        &self,
        by: &Principal,
        plan: &ReleasePlan,
        version: &ArtefactVersion,
    ) -> Result<(Digest, Option<RolloutId>), String> {
        let Some(form) = &plan.rollout else { return Ok((version.digest, None)) };
        // It may have begun before the service was killed.
        if let Some(id) = self.fleet.rollout_of(Kind::Model, version.digest) {
            return Ok((version.digest, Some(id)));
        }
        let id = self.fleet.add_rollout(by, form).map_err(|error| chain(&error))?;
        Ok((version.digest, Some(id)))
    }
}

/// The folders of a folder: sets, or the labels that a set has pictures of.
fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// What `revoada learn evaluate --json` says.
fn marks(said: &[u8]) -> Option<Marks> {
    let said: Value = serde_json::from_slice(said).ok()?;
    let right: u64 = said["classes"].as_array()?.iter().filter_map(|class| class["right"].as_u64()).sum();
    let pictures = &said["pictures"];
    let unknown = pictures["unknown_labels"].as_object()?.values().filter_map(Value::as_u64).sum::<u64>();
    let all = said["examples"].as_u64()? + unknown;
    (all > 0).then(|| Marks { accuracy: right as f64 / all as f64, loss: said["loss"].as_f64() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pictures_of_labels_that_a_head_does_not_know_count_as_wrong() {
        let said = json!({
            "examples": 6, "loss": 0.5, "accuracy": 0.5,
            "classes": [{ "label": "a", "examples": 4, "right": 3, "predicted": 4 }, { "label": "b", "examples": 2, "right": 0, "predicted": 2 }],
            "pictures": { "used": 6, "computed": 0, "failed": [], "unknown_labels": { "c": 4 } },
        });
        assert_eq!(marks(said.to_string().as_bytes()), Some(Marks { accuracy: 0.3, loss: Some(0.5) }));
        assert_eq!(marks(b"{}"), None);
        assert_eq!(marks(b"oh"), None);
    }

    #[test]
    fn a_set_is_a_folder_with_a_plain_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("digits")).unwrap();
        let pictures = Pictures { folder: Some(folder.path().to_owned()), program: None };
        assert_eq!(pictures.set("digits"), Ok(folder.path().join("digits")));
        assert_eq!(pictures.sets(), ["digits"]);
        for (name, said) in
            [("letters", "no set"), ("../digits", "has a name"), ("", "has a name"), (".", "has a name")]
        {
            assert!(pictures.set(name).unwrap_err().contains(said), "{name}");
        }
        assert!(Pictures::default().set("digits").unwrap_err().contains("`learning.pictures`"));
    }
}
