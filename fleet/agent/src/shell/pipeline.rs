//! The one pipeline of a device, on a thread of its own.
//!
//! It is a child in its own process group with its own log, and it is not the agent's to end: an agent that is restarted, by
//! systemd or by an update of itself, finds it through its control socket and takes it over where it runs exactly what is
//! active, so that video goes on. Where it does not, it is brought there: by swapping the model, else by another start.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use revoada_core::{Clock, Timestamp, causes, sentence_of};
use revoada_proto::control::{self, Client, ClientError};
use revoada_proto::{Label, Level};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::child::without_supervisor;
use super::log::Log;
use super::program::Programs;
use super::target::{Defaults, Piece, Running, Target, TargetError, target};
use super::vitals::{Stats, Vitals, Watch};
use crate::{Active, Event, Fault, Health, RunId, Verifier};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const STATS_TIME_MAX: Duration = Duration::from_secs(5);
/// A pipeline that has answered before and says nothing for so long hangs.
const HANG_MAX: Duration = Duration::from_secs(120);
/// One that has not answered yet may build for its first model.
const LOAD_MAX: Duration = Duration::from_secs(1800);
/// How long a pipeline may take to finish what it has begun.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// And then to end once it is told to.
const TERMINATE_MAX: Duration = Duration::from_secs(10);
/// Of those that a snapshot shows: more nobody reads.
const TRACKS_NAMED_MAX: usize = 32;
const EXIT_LOOK_EVERY: Duration = Duration::from_millis(50);
/// Between starts of what the device came with, which nobody else retries.
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(60);

/// Answers what was asked: a text for people, either way.
pub(super) type Answer = oneshot::Sender<Result<String, String>>;

/// What the thread is asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// Run this instead of what runs; without a run, what the device came with.
    Run { run: Option<RunId>, active: Active },
    /// Run the same in a new process.
    Restart(Answer),
    /// Run another model until the next start.
    Swap { model: Piece, answer: Answer },
    /// Write the next picture of a stream.
    Snapshot { stream: String, path: PathBuf, answer: Answer },
    /// Keep pictures of a track in the folder of a label.
    Label { stream: String, track: u64, label: Label, folder: PathBuf, answer: Answer },
}

/// What the thread says.
#[derive(Debug)]
pub(super) enum Said {
    Event(Event),
    Vitals(Vitals),
    Note { level: Level, name: &'static str, text: String },
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) folder: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) running: PathBuf,
    pub(super) trust: PathBuf,
}

/// What others may know of the pipeline.
pub(super) type Live = Arc<Mutex<Option<Target>>>;

pub(super) struct Pipeline {
    pub(super) verifier: Verifier,
    pub(super) programs: Programs,
    pub(super) defaults: Defaults,
    pub(super) places: Places,
    pub(super) log: Log,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) live: Live,
    pub(super) said: mpsc::Sender<Said>,
}

/// What is to run.
struct Job {
    run: Option<RunId>,
    target: Option<Target>,
    since: Timestamp,
    starts: u32,
    watch: Watch,
    /// When the process was started or taken over, and when it answered last.
    reached_at: Timestamp,
    heard_at: Option<Timestamp>,
}

struct Process {
    running: Running,
    /// `None` where another agent started it.
    child: Option<Child>,
}

/// What the thread knows.
struct State {
    pipeline: Pipeline,
    job: Option<Job>,
    process: Option<Process>,
    client: Option<Client>,
    /// What the process would not swap to.
    refused: Option<Target>,
    /// Of what the device came with.
    failures: u32,
    restart_at: Option<Timestamp>,
}

impl Pipeline {
    /// Does what is asked until nobody can ask any more. What runs then runs on.
    pub(super) fn run(self, asked: &Receiver<Ask>) {
        let process = Running::read(&self.places.running).map(|running| Process { running, child: None });
        let mut state =
            State { pipeline: self, job: None, process, client: None, refused: None, failures: 0, restart_at: None };
        let mut looked_at = Timestamp::ZERO;
        loop {
            match asked.recv_timeout(LOOK_EVERY) {
                Ok(ask) => state.answer(ask),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = state.now();
            if now.since(looked_at) >= LOOK_EVERY {
                looked_at = now;
                state.look();
            }
        }
    }
}

impl State {
    fn now(&self) -> Timestamp {
        self.pipeline.clock.now()
    }

    fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Run { run, active } => self.take(run, active),
            Ask::Restart(answer) => self.restart(answer),
            Ask::Swap { model, answer } => {
                let swapped = self.swap_by_hand(model);
                drop(answer.send(swapped));
            }
            Ask::Snapshot { stream, path, answer } => {
                let command = control::Command::Snapshot { stream, path };
                let taken = self.request(command, None).map(|answer| tracks(&answer));
                drop(answer.send(taken.map_err(|error| sentence_of(causes(&error)))));
            }
            Ask::Label { stream, track, label, folder, answer } => {
                let (count, every_ms) = (control::LABEL_COUNT, control::LABEL_EVERY_MS);
                let said = format!("up to {count} pictures of track {track} of `{stream}` are kept as `{label}`");
                let command = control::Command::Label { stream, track, label, folder, count, every_ms };
                let kept = self.request(command, None).map(|_| said);
                drop(answer.send(kept.map_err(|error| sentence_of(causes(&error)))));
            }
        }
    }

    fn take(&mut self, run: Option<RunId>, active: Active) {
        let Pipeline { verifier, programs, defaults, .. } = &self.pipeline;
        match target(&active, verifier, programs, defaults) {
            Ok(target) => {
                let before = self.job.take().filter(|job| job.target == target && self.process.is_some());
                let (since, starts) = before.map_or((self.now(), 0), |job| (job.since, job.starts));
                let watch = Watch::default();
                let reached_at = self.now();
                self.job = Some(Job { run, target, since, starts, watch, reached_at, heard_at: None });
                self.reach();
            }
            Err(error) => self.cannot_take(run, &error),
        }
    }

    fn cannot_take(&mut self, run: Option<RunId>, error: &TargetError) {
        self.note(Level::Error, "run-failed", sentence_of(causes(error)));
        match (error, run) {
            (TargetError::Slot { kind, placed, source }, Some(_)) if source.fault() != Fault::Passing => {
                self.say(Said::Event(Event::SlotDamaged { kind: *kind, placed: *placed }));
            }
            (_, Some(run)) => self.say(Said::Event(Event::Crashed { run, frames: 0 })),
            (_, None) => {}
        }
    }

    /// Brings the process to the job's target.
    fn reach(&mut self) {
        let Some(target) = self.job.as_ref().map(|job| job.target.clone()) else { return };
        self.forget_if_ended();
        let Some(target) = target else { return self.end_process() };
        let running = self.process.as_ref().map(|process| &process.running.target);
        let was_refused = self.refused.as_ref() == Some(&target);
        match running {
            Some(running) if *running == target => self.go_on(),
            Some(running) if target.is_swap_from(running) && !was_refused => self.swap(target),
            _ => self.spawn(target),
        }
    }

    /// What runs is what is to run, whoever started it: it is judged from here on.
    fn go_on(&mut self) {
        self.refused = None;
        self.publish();
        if let Ok(stats) = self.stats()
            && let Some(job) = &mut self.job
        {
            job.watch = Watch::begin_at(&stats);
        }
    }

    fn swap(&mut self, target: Target) {
        let Some(model) = target.model.as_ref().map(|piece| piece.path.clone()) else { return };
        match self.request(control::Command::Swap { model }, None) {
            Ok(_) => {
                self.swapped(target);
                self.go_on();
            }
            Err(ClientError::Refused(reason)) => {
                self.note(Level::Error, "swap-refused", reason);
                self.refused = Some(target);
                self.crashed(0);
            }
            // It is starting, or it broke while it loaded: another start tells which.
            Err(error) => {
                self.note(Level::Warn, "swap-failed", sentence_of(causes(&error)));
                self.spawn(target);
            }
        }
    }

    fn swap_by_hand(&mut self, model: Piece) -> Result<String, String> {
        self.forget_if_ended();
        let running = self.process.as_ref().ok_or("no pipeline runs")?.running.target.clone();
        let target = Target { model: Some(model.clone()), ..running };
        let command = control::Command::Swap { model: model.path };
        self.request(command, None).map_err(|error| sentence_of(causes(&error)))?;
        self.swapped(target);
        Ok("swapped".to_owned())
    }

    fn swapped(&mut self, target: Target) {
        if let Some(process) = &mut self.process {
            process.running.target = target;
        }
        self.remember();
    }

    fn restart(&mut self, answer: Answer) {
        let target = self.job.as_ref().and_then(|job| job.target.clone());
        let answered = match target {
            Some(target) => {
                self.spawn(target);
                self.process.as_ref().map(|_| "restarted".to_owned()).ok_or_else(|| "it did not start".to_owned())
            }
            None => Err("there is no pipeline to run".to_owned()),
        };
        drop(answer.send(answered));
    }

    fn spawn(&mut self, target: Target) {
        self.end_process();
        self.refused = None;
        let log = self.pipeline.log.open().and_then(|log| Ok((log.try_clone()?, log)));
        let spawned = log.and_then(|(output, errors)| {
            let Places { folder, socket, trust, .. } = &self.pipeline.places;
            let mut command = Command::new(&target.program.path);
            command.arg("run").arg(&target.pipeline.path).arg("--control").arg(socket);
            if let Some(model) = &target.model {
                command.arg("--model").arg(&model.path);
                if model.digest.is_some() {
                    command.arg("--trust").arg(trust);
                }
            }
            command.current_dir(folder).stdin(Stdio::null()).stdout(output).stderr(errors);
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            without_supervisor(&mut command).spawn()
        });
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                self.note(Level::Error, "start-failed", error.to_string());
                return self.crashed(0);
            }
        };
        let now = self.now();
        if let Some(job) = &mut self.job {
            (job.watch, job.reached_at, job.heard_at) = (Watch::default(), now, None);
            job.starts = job.starts.saturating_add(1);
        }
        match Running::new(target, child.id()) {
            Some(running) => {
                self.process = Some(Process { running, child: Some(child) });
                self.remember();
                self.publish();
            }
            None => {
                let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                self.note(Level::Error, "crashed", format!("the pipeline ended at once: {status}"));
                self.crashed(0);
            }
        }
    }

    fn look(&mut self) {
        if let Err(error) = self.pipeline.log.rotate() {
            warn!(%error, "cannot rotate the pipeline's log");
        }
        let Some(job) = &self.job else { return };
        if job.target.is_none() {
            // With nothing to run there is nothing to fail.
            let health = Health { frames: 1, frames_per_second: f64::MAX, nonfinite: 0 };
            return self.healthy(health);
        }
        if let Some(how) = self.ended() {
            let frames = self.job.as_ref().map_or(0, |job| job.watch.frames());
            (self.process, self.client) = (None, None);
            self.note(Level::Error, "crashed", format!("the pipeline ended after {frames} frames: {how}"));
            return self.crashed(frames);
        }
        if self.process.is_none() {
            return self.start_again();
        }
        let now = self.now();
        match self.stats() {
            Ok(stats) => {
                let Some(job) = &mut self.job else { return };
                job.heard_at = Some(now);
                let health = job.watch.look(stats, now);
                let vitals = job.watch.vitals(now.since(job.since), job.starts.saturating_sub(1));
                self.say(Said::Vitals(vitals));
                self.healthy(health);
            }
            Err(error) => {
                let Some(job) = &self.job else { return };
                let (since, silence_max) = job.heard_at.map_or((job.reached_at, LOAD_MAX), |at| (at, HANG_MAX));
                if now.since(since) > silence_max {
                    let frames = job.watch.frames();
                    self.note(Level::Error, "hung", sentence_of(causes(&error)));
                    self.end_process();
                    self.crashed(frames);
                }
            }
        }
    }

    fn healthy(&mut self, health: Health) {
        self.failures = 0;
        if let Some(run) = self.job.as_ref().and_then(|job| job.run) {
            self.say(Said::Event(Event::Healthy { run, health }));
        }
    }

    fn crashed(&mut self, frames: u64) {
        self.publish();
        match self.job.as_ref().and_then(|job| job.run) {
            Some(run) => self.say(Said::Event(Event::Crashed { run, frames })),
            None => {
                let wait = RESTART_MIN.saturating_mul(1 << self.failures.min(16)).min(RESTART_MAX);
                self.failures += 1;
                self.restart_at = Some(self.now() + wait);
            }
        }
    }

    /// What the device came with is started again here; all else when the agent says so.
    fn start_again(&mut self) {
        let is_default = self.job.as_ref().is_some_and(|job| job.run.is_none());
        if is_default && self.restart_at.is_none_or(|at| at <= self.now()) {
            self.restart_at = None;
            self.reach();
        }
    }

    /// How the process ended; `None` while it runs, and where there is none.
    fn ended(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        match &mut process.child {
            Some(child) => match child.try_wait() {
                Ok(status) => status.map(|status| status.to_string()),
                Err(error) => Some(error.to_string()),
            },
            None => {
                // It is the agent's child all the same where the agent has replaced itself.
                let waited = rustix::process::waitpid(pid(process.running.pid), rustix::process::WaitOptions::NOHANG);
                tracing::trace!(?waited, "looked at a process that another agent has started");
                (!process.running.is_alive()).then(|| "nobody saw how".to_owned())
            }
        }
    }

    fn forget_if_ended(&mut self) {
        if self.ended().is_some() {
            (self.process, self.client) = (None, None);
        }
    }

    /// Ends the process: asks it to finish, then tells it to, then kills it.
    fn end_process(&mut self) {
        if self.process.is_none() {
            return;
        }
        if let Err(error) = self.request(control::Command::Drain, Some(STATS_TIME_MAX)) {
            warn!(%error, "the pipeline does not drain");
        }
        self.client = None;
        let process = self.process.as_ref().and_then(|process| pid(process.running.pid));
        let signals = [
            (DRAIN_MAX, Some(rustix::process::Signal::TERM)),
            (TERMINATE_MAX, Some(rustix::process::Signal::KILL)),
            (TERMINATE_MAX, None),
        ];
        for (wait, next) in signals {
            if self.ends_within(wait) {
                break;
            }
            if let (Some(process), Some(signal)) = (process, next) {
                self.note(Level::Warn, "killed", format!("the pipeline did not end within {wait:?}"));
                if let Err(error) = rustix::process::kill_process(process, signal) {
                    warn!(%error, "cannot kill the pipeline");
                }
            }
        }
        self.process = None;
        self.publish();
    }

    fn ends_within(&mut self, wait: Duration) -> bool {
        let deadline = self.now() + wait;
        while self.now() < deadline {
            if self.ended().is_some() {
                return true;
            }
            thread::sleep(EXIT_LOOK_EVERY);
        }
        false
    }

    fn stats(&mut self) -> Result<Stats, ClientError> {
        let stats = self.request(control::Command::Stats, Some(STATS_TIME_MAX))?;
        let path = self.pipeline.places.socket.clone();
        serde_json::from_value(stats).map_err(|error| ClientError::Answer { path, reason: error.to_string() })
    }

    fn request(
        &mut self,
        command: control::Command,
        time_max: Option<Duration>,
    ) -> Result<serde_json::Value, ClientError> {
        let connect = |socket| Client::connect(socket);
        let mut client = match (self.client.take(), time_max) {
            (Some(client), _) => client,
            (None, _) => connect(&self.pipeline.places.socket)?,
        };
        client = match time_max {
            Some(time_max) => client.with_answer_time_max(time_max),
            None => client.with_answer_time_max(DRAIN_MAX * 3),
        };
        let answer = client.request(command);
        // After anything else, the next answer on this connection could be of this question.
        if matches!(answer, Ok(_) | Err(ClientError::Refused(_))) {
            self.client = Some(client);
        }
        answer
    }

    fn remember(&self) {
        let Some(process) = &self.process else { return };
        if let Err(error) = process.running.write(&self.pipeline.places.running) {
            warn!(%error, "cannot note what runs; the next agent will start it anew");
        }
    }

    fn publish(&self) {
        let target = self.process.as_ref().map(|process| process.running.target.clone());
        *self.pipeline.live.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    fn note(&self, level: Level, name: &'static str, text: String) {
        self.say(Said::Note { level, name, text });
    }

    /// Waits where the agent is behind; what it does not take any more, nobody needs.
    fn say(&self, said: Said) {
        drop(self.pipeline.said.blocking_send(said));
    }
}

/// Which tracks a snapshot shows, for people; empty where it shows none.
fn tracks(answer: &serde_json::Value) -> String {
    let tracks = answer["tracks"].as_array().into_iter().flatten().take(TRACKS_NAMED_MAX);
    let name = |track: &serde_json::Value| match track["label"].as_str() {
        Some(label) => format!("track {} ({label})", track["track"]),
        None => format!("track {}", track["track"]),
    };
    tracks.map(name).collect::<Vec<_>>().join(", ")
}

fn pid(pid: u32) -> Option<rustix::process::Pid> {
    rustix::process::Pid::from_raw(pid.cast_signed())
}
