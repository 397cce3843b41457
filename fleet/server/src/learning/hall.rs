//! Where all runs go on: one thread, which hears what participants say and stores what comes of it before it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;
use revoada_core::{Digest, Timestamp};
use revoada_federated::Participant;
use revoada_proto::Invitation;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{error, warn};

use super::FILE_BYTES_MAX;
use super::board::{Board, Said, Word};
use super::examiner::ExaminerDesk;
use super::plan::{HeadPlan, HeldWeights, Participants};
use super::run::{Run, RunError};
use super::spool::Spool;
use super::task::{Door, RunId, Task, Work};
use crate::blobs::{BlobError, Blobs};
use crate::service::{Change, Fleet, chain, now};
use crate::store::Store;

/// While nothing happens, so often the clock alone may change something: deadlines, pauses.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Words that are taken in before what came of them is stored.
const BATCH_MAX: usize = 256;

/// What the thread needs.
pub struct Learners {
    pub fleet: Arc<Fleet>,
    pub blobs: Arc<Blobs>,
    pub board: Arc<Board>,
    pub heard: mpsc::UnboundedReceiver<Word>,
    /// For updates of rounds that are under way.
    pub folder: PathBuf,
    /// Which the blobs wait on.
    pub runtime: Handle,
    /// Decides who is drawn.
    pub seed: u64,
    /// Which judges what was learned.
    pub examiner: ExaminerDesk,
}

/// What a run may use.
pub(super) struct Hall<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) store: &'a dyn Store,
    pub(super) board: &'a Board,
    pub(super) folder: &'a Path,
    pub(super) now: Timestamp,
    pub(super) seed: u64,
    pub(super) examiner: &'a ExaminerDesk,
    blobs: &'a Blobs,
    runtime: &'a Handle,
    task: &'a mut u64,
}

impl Hall<'_> {
    /// A task with the next number.
    pub(super) fn task(&mut self, run: RunId, round: u64, work: Work) -> Arc<Task> {
        *self.task = (*self.task + 1).max(self.now.as_nanos() / 1_000);
        Arc::new(Task { number: *self.task, run, round, work })
    }

    /// A whole blob.
    pub(super) fn read(&self, digest: Digest) -> Result<Bytes, BlobError> {
        self.runtime.block_on(self.blobs.read_whole(digest, FILE_BYTES_MAX))
    }

    /// A file of a bundle that is registered.
    pub(super) fn read_of(&self, bundle: Digest, file: &str) -> Result<Bytes, RunError> {
        let version = self.store.version(&bundle)?;
        let found = version.and_then(|version| version.files.get(file).copied());
        let found =
            found.ok_or_else(|| RunError::Model(format!("bundle `{bundle}` with its `{file}` is not registered")))?;
        Ok(self.read(found.digest)?)
    }

    /// Makes a blob, which a run is to refer to at once.
    pub(super) fn keep(&self, bytes: Bytes) -> Result<Digest, BlobError> {
        self.runtime.block_on(self.blobs.put(bytes, self.now))
    }

    /// Who could take part now.
    pub(super) fn candidates(&self, participants: &Participants) -> BTreeSet<Participant> {
        let has_app = match participants {
            Participants::Flower { app, .. } => app.is_some(),
            Participants::Devices { filter, .. } => return self.fleet.learners(filter),
        };
        let is_meant = |door| door == Door::Join || (door == Door::Node && has_app);
        let present = self.board.present().into_iter().filter(|(_, door)| is_meant(*door));
        present.map(|(participant, _)| participant).collect()
    }

    /// Invites a device. Whether it is there.
    pub(super) fn invite(
        &self,
        participant: &Participant,
        (run, round): (RunId, u64),
        head: &HeadPlan,
        held: &HeldWeights,
        until: Timestamp,
    ) -> bool {
        let invitation = Invitation {
            run: run.0,
            round,
            model: head.model,
            weights: held.digest,
            weights_bytes: held.bytes,
            labels: held.labels.clone(),
            settings: head.settings,
        };
        let Ok(device) = participant.0.parse() else { return false };
        self.fleet.invite(&device, invitation, until)
    }

    pub(super) fn is_present(&self, participant: &Participant) -> bool {
        self.board.is_present(participant)
    }
}

impl Learners {
    /// Keeps all runs going until `is_over` says so.
    pub fn keep(mut self, is_over: impl Fn() -> bool) {
        // A clock of its own: the service's runtime may end first, where nobody stopped the service.
        let clock = match Builder::new_current_thread().enable_time().build() {
            Ok(clock) => clock,
            Err(error) => return error!(%error, "cannot keep time: nothing is learned"),
        };
        let (mut runs, mut task) = (BTreeMap::new(), 0);
        self.look(&mut runs, &mut task);
        while !is_over() {
            let mut words = Vec::new();
            let first = clock.block_on(async { timeout(LOOK_EVERY, self.heard.recv()).await });
            if let Ok(Some(first)) = first {
                words.push(first);
                while words.len() < BATCH_MAX
                    && let Ok(next) = self.heard.try_recv()
                {
                    words.push(next);
                }
            }
            if words.iter().any(|word| matches!(word, Word::Wanted)) {
                self.look(&mut runs, &mut task);
            }
            self.hear(&mut runs, &mut task, words);
        }
    }

    fn hall<'a>(&'a self, task: &'a mut u64) -> Hall<'a> {
        Hall {
            fleet: &self.fleet,
            store: self.fleet.store(),
            board: &self.board,
            folder: &self.folder,
            now: now(),
            seed: self.seed,
            examiner: &self.examiner,
            blobs: &self.blobs,
            runtime: &self.runtime,
            task,
        }
    }

    /// Takes up runs that are new, and what is wanted of the others.
    fn look(&self, runs: &mut BTreeMap<RunId, Run>, task: &mut u64) {
        let stored = match self.fleet.store().runs() {
            Ok(stored) => stored,
            Err(error) => return error!(error = %chain(&error), "cannot read the runs"),
        };
        let mut hall = self.hall(task);
        runs.retain(|id, _| {
            let is_there = stored.contains_key(id);
            if !is_there && let Err(error) = Spool::remove_run(&self.folder, *id) {
                warn!(run = %id, %error, "cannot remove the updates of a run");
            }
            is_there
        });
        for (id, record) in stored {
            if let Some(run) = runs.get_mut(&id) {
                run.want(record.intent);
            } else if !record.state.phase.is_over() {
                let failed = record.clone();
                match Run::open(&mut hall, id, record) {
                    Ok(run) => drop(runs.insert(id, run)),
                    Err(error) => self.give_up(id, failed.state, &error),
                }
            }
        }
    }

    /// A run that cannot be gone on with is over, which people see.
    fn give_up(&self, id: RunId, mut state: super::plan::RunState, error: &super::run::RunError) {
        let why = chain(error);
        error!(run = %id, error = why, "cannot go on with a run");
        state.phase = super::plan::RunPhase::Failed { why };
        let changes = crate::store::RunChanges { state: Some(state), ..Default::default() };
        if let Err(error) = self.fleet.store().change_run(id, &changes) {
            error!(run = %id, error = %chain(&error), "cannot note that a run has failed");
        }
    }

    fn hear(&self, runs: &mut BTreeMap<RunId, Run>, task: &mut u64, words: Vec<Word>) {
        let mut hall = self.hall(task);
        for word in words {
            match word {
                Word::Came(participant) => runs.values_mut().for_each(|run| run.came(&mut hall, &participant)),
                Word::Gone(participant) => runs.values_mut().for_each(|run| run.gone(&mut hall, &participant)),
                Word::Said(Said { participant, run, round, reply, verdict, .. }) => match runs.get_mut(&run) {
                    Some(run) => run.said(&mut hall, &participant, round, reply, verdict),
                    // Who went meanwhile is told nothing.
                    None => drop(verdict.send(Err("the run is over".to_owned()))),
                },
                Word::Examined(run, examined) => {
                    if let Some(run) = runs.get_mut(&run) {
                        run.examined(&mut hall, examined);
                    }
                }
                Word::Wanted => {}
            }
        }
        for run in runs.values_mut() {
            run.advance(&mut hall);
        }
        let mut ended = Vec::new();
        for (id, run) in runs.iter_mut() {
            let is_stored = match run.take_changes() {
                None => true,
                Some(changes) => self.store(*id, &changes) || run.keep_changes(changes),
            };
            self.fleet.count_learning(run.take_counts());
            run.tell_verdicts(is_stored);
            if run.is_over() {
                ended.push(*id);
            }
        }
        for id in ended {
            let ended = runs.remove(&id).expect("it was just there");
            if ended.asks_flower() && !runs.values().any(Run::asks_flower) {
                self.dismiss(task, id);
            }
            if let Err(error) = Spool::remove_run(&self.folder, id) {
                warn!(run = %id, %error, "cannot remove the updates of a run");
            }
        }
    }

    fn store(&self, id: RunId, changes: &crate::store::RunChanges) -> bool {
        let stored = self.fleet.store().change_run(id, changes);
        if let Err(error) = &stored {
            error!(run = %id, error = %chain(error), "cannot note how far a run is");
        }
        self.fleet.announce(Change::Run { run: id.0 });
        stored.is_ok()
    }

    /// Clients of Flower stay for one run, unless another one waits for them.
    fn dismiss(&self, task: &mut u64, id: RunId) {
        let mut hall = self.hall(task);
        for (participant, door) in self.board.present() {
            if door == Door::Join {
                let task = hall.task(id, 0, Work::Leave);
                self.board.post(&participant, task);
            }
        }
    }
}
