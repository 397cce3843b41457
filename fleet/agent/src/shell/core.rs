//! The loop of the agent.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc as threads;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use revoada_bundle::sign::{KeyError, TrustedKeys};
use revoada_core::{Clock, Digest, Timestamp, causes, sentence_of};
use revoada_proto::{Dispatch, Invitation, Kind};
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::commands::Commands;
use super::config::AgentConfig;
use super::facts::{self, DeviceFacts};
use super::fetch::Cancel;
use super::identity::{Identity, IdentityError};
use super::learner::{self, Learned, Learner};
use super::link::{Heard, Link};
use super::log::Log;
use super::notify::Notify;
use super::numbers::{Numbers, NumbersError};
use super::pipeline::{self, Live, Pipeline, Places, Said};
use super::program::Programs;
use super::service::ServiceError;
use super::spool::{Spool, SpoolError};
use super::status::Counts;
use super::step::{Done, Measured, Steps, Todo};
use super::target::Defaults;
use super::update::{Update, UpdateError};
use super::vitals::Vitals;
use super::{identity_path, report, socket};
use crate::{Action, Agent, Event, LocalDisk, ReportId, SlotError, Slots, StepId};

mod link_side;
mod speech;

/// How often what nobody announces is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Messages of the threads that wait for the loop; at the bound, the threads wait.
const SAID_MAX: usize = 64;
/// What a machine is changes slowly.
const FACTS_EVERY: Duration = Duration::from_secs(6 * 3600);
/// A renewal that failed is asked for again by the next receipt; not sooner than this.
const RENEW_EVERY: Duration = Duration::from_secs(600);
/// How long the broker may take to hear that the agent ends.
const GOODBYE_MAX: Duration = Duration::from_secs(3);

/// What an agent is started with.
pub struct Options {
    pub config: AgentConfig,
    /// The program that this process executes.
    pub program: PathBuf,
    pub notify: Notify,
}

/// Why an agent has ended. The pipeline runs on, either way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to.
    Stopped,
    /// This process is to execute another program, with the arguments that it has.
    Replace { program: PathBuf },
}

#[derive(Debug, Error)]
pub enum ShellError {
    #[error("cannot use folder `{}`", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another agent uses folder `{}`", path.display())]
    InUse { path: PathBuf },
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Slot(#[from] SlotError),
    #[error(transparent)]
    Numbers(#[from] NumbersError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Update(#[from] UpdateError),
}

/// Runs the agent of a device until it is asked to stop. Two cannot run on one folder.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<Ending, ShellError> {
    let folder = options.config.folder.clone();
    let cannot_use = |source| ShellError::Folder { path: folder.clone(), source };
    std::fs::create_dir_all(&folder).map_err(cannot_use)?;
    let _lock = lock_folder(&folder)?;
    let programs = Programs::new(&folder.join("programs"));
    let update = Update::open(&folder.join("update.json"), programs.digest_of(&options.program))?;
    if let Some(program) = update.at_start().and_then(|digest| programs.find(digest)) {
        return Ok(Ending::Replace { program });
    }
    let listener = listen(&socket(&folder)).map_err(cannot_use)?;
    let (mut shell, mut inbox) = Shell::start(options, programs, update)?;
    shell.begin().await;
    shell.notify.ready();
    tokio::pin!(stop);
    let ending = loop {
        if let Some(ending) = shell.replacement() {
            break ending;
        }
        let wake = shell.wake_in();
        tokio::select! {
            () = &mut stop => break Ending::Stopped,
            said = inbox.said.recv() => shell.hear_pipeline(said).await,
            done = inbox.done.recv() => shell.hear_step(done).await,
            Some(learned) = inbox.learned.recv() => shell.hear_learned(learned),
            heard = hear(&mut shell.hear) => shell.hear_link(heard).await,
            task = inbox.tasks.recv() => shell.hear_task(task).await,
            asker = listener.accept() => shell.answer_status(asker).await,
            () = tokio::time::sleep(wake) => shell.tick().await,
        }
    };
    shell.notify.stopping();
    drop(inbox);
    shell.end().await;
    Ok(ending)
}

/// What the threads and tasks say.
struct Inbox {
    said: mpsc::Receiver<Said>,
    done: mpsc::Receiver<Done>,
    learned: mpsc::Receiver<Learned>,
    tasks: mpsc::Receiver<Task>,
}

/// What a task of the loop's has come to.
enum Task {
    Facts(DeviceFacts),
    Command(revoada_proto::CommandResult),
    Renewed(Result<Identity, ServiceError>),
}

struct Shell {
    config: AgentConfig,
    notify: Notify,
    clock: Arc<dyn Clock>,
    agent: Agent,
    slots: Arc<Mutex<Slots<LocalDisk>>>,
    busy: Arc<Mutex<()>>,
    programs: Programs,
    defaults: Defaults,
    log: Log,

    todo: threads::Sender<Todo>,
    /// `None` on a device that does not learn.
    lessons: Option<threads::Sender<learner::Todo>>,
    /// What is being learned: run and round.
    lesson: Option<((u64, u64), Cancel)>,
    /// To what is being learned: the newest that has come meanwhile.
    invited_again: Option<Dispatch<Invitation>>,
    pipeline: threads::Sender<pipeline::Ask>,
    threads: Vec<JoinHandle<()>>,
    tasks: mpsc::Sender<Task>,

    identity: Arc<Mutex<Option<Arc<Identity>>>>,
    link: Option<Link>,
    hear: Option<mpsc::Receiver<Heard>>,
    is_connected: bool,
    renew_at: Timestamp,

    numbers: Numbers,
    spool: Spool,
    /// Which events were said on this connection, and when.
    said_events: BTreeMap<u64, Timestamp>,
    commands: Commands,
    update: Update,
    started_at: Timestamp,

    step: Option<(StepId, Cancel)>,
    reported: Option<crate::Report>,
    said_reports: BTreeMap<u64, SaidReport>,
    facts: DeviceFacts,
    known_facts: BTreeMap<String, revoada_proto::Fact>,
    facts_at: Option<Timestamp>,
    heartbeat_at: Timestamp,
    vitals: Vitals,
    /// Of the model that was tried last.
    measured: Option<Measured>,
    /// What went wrong last, for people.
    trouble: Option<String>,
    /// The service's clock, and when it said so.
    service_time: Option<(SystemTime, Instant)>,
    counts: Counts,
    seen: crate::Counts,
}

/// A report that has no receipt yet.
struct SaidReport {
    id: Option<ReportId>,
    facts: BTreeMap<String, revoada_proto::Fact>,
}

impl Shell {
    fn start(options: Options, programs: Programs, update: Update) -> Result<(Self, Inbox), ShellError> {
        let Options { config, program, notify } = options;
        let folder = &config.folder;
        let trusted = TrustedKeys::read_all(&[TrustedKeys::File(config.trust.clone())])?;
        let slots = Slots::open(LocalDisk, folder, trusted)?;
        let found = slots.found()?;
        let verifier = slots.verifier().clone();
        let identity = match Identity::load(&identity_path(folder)) {
            Ok(identity) => Some(Arc::new(identity)),
            Err(IdentityError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let clock: Arc<dyn Clock> = Arc::new(Monotonic(Instant::now()));
        let slots = Arc::new(Mutex::new(slots));
        let busy = Arc::new(Mutex::new(()));
        let identity = Arc::new(Mutex::new(identity));
        let live = Live::default();
        let log = Log::new(&folder.join("pipeline.log"), config.limits.log_bytes_max);
        // An agent that is a package does not run children as itself where another package, or none, is active.
        let came_with = match (&config.program, programs.digest_of(&program)) {
            (Some(configured), _) => configured.clone(),
            (None, Some(_)) => PathBuf::from("/usr/bin/revoada"),
            (None, None) => program,
        };
        let (pipeline_file, model) = (config.pipeline.clone(), config.model.clone());
        let defaults = Defaults { program: came_with, pipeline: pipeline_file, model };
        let places = Places {
            folder: folder.clone(),
            socket: folder.join("pipeline.sock"),
            running: folder.join("running.json"),
            trust: config.trust.clone(),
        };
        let (say, said) = mpsc::channel(SAID_MAX);
        let (do_done, done) = mpsc::channel(SAID_MAX);
        let (tasks, tasks_done) = mpsc::channel(SAID_MAX);
        let (todo, todos) = threads::channel();
        let (ask, asked) = threads::channel();
        let steps = Steps {
            slots: Arc::clone(&slots),
            verifier: verifier.clone(),
            busy: Arc::clone(&busy),
            identity: Arc::clone(&identity),
            server: config.server.clone(),
            limits: config.limits.clone(),
            programs: programs.clone(),
            defaults: defaults.clone(),
            trust: config.trust.clone(),
            socket: places.socket.clone(),
            live: Arc::clone(&live),
            shadow_for: config.shadow_for,
            labelled: config.labelled.clone(),
            plans: folder.join("plans"),
            plan_time_max: config.policy.preflight_time_max / 2,
            done: do_done,
        };
        let (say_learned, learned) = mpsc::channel(SAID_MAX);
        let (teach, lessons) = threads::channel();
        let learner = config.learning.clone().map(|learning| Learner {
            config: learning,
            trust: config.trust.clone(),
            socket: places.socket.clone(),
            server: config.server.clone(),
            limits: config.limits.clone(),
            verifier: verifier.clone(),
            programs: programs.clone(),
            defaults: defaults.clone(),
            identity: Arc::clone(&identity),
            said: say_learned,
        });
        let is_learner = learner.is_some();
        let pipeline = Pipeline {
            verifier,
            programs: programs.clone(),
            defaults: defaults.clone(),
            places,
            log: log.clone(),
            clock: Arc::clone(&clock),
            live,
            said: say,
        };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(run).map_err(ShellError::Thread)
        };
        let mut threads = vec![
            spawn("steps", Box::new(move || steps.run(&todos)))?,
            spawn("pipeline", Box::new(move || pipeline.run(&asked)))?,
        ];
        if let Some(learner) = learner {
            threads.push(spawn("learner", Box::new(move || learner.run(&lessons)))?);
        }
        let numbers = Numbers::start(&folder.join("numbers.json"))?;
        let spool = Spool::open(&folder.join("events"), config.limits.events_bytes_max)?;
        let now = clock.now();
        let shell = Self {
            agent: Agent::start(config.policy.clone(), fastrand::u64(..), found),
            notify,
            slots,
            busy,
            programs,
            defaults,
            log,
            todo,
            lessons: is_learner.then_some(teach),
            lesson: None,
            invited_again: None,
            pipeline: ask,
            threads,
            tasks,
            identity,
            link: None,
            hear: None,
            is_connected: false,
            renew_at: now,
            numbers,
            spool,
            said_events: BTreeMap::new(),
            commands: Commands::default(),
            update,
            started_at: now,
            step: None,
            reported: None,
            said_reports: BTreeMap::new(),
            facts: DeviceFacts::default(),
            known_facts: BTreeMap::new(),
            facts_at: None,
            heartbeat_at: now,
            vitals: Vitals::default(),
            measured: None,
            trouble: None,
            service_time: None,
            counts: Counts::default(),
            seen: crate::Counts::default(),
            clock,
            config,
        };
        Ok((shell, Inbox { said, done, learned, tasks: tasks_done }))
    }

    async fn begin(&mut self) {
        if let Some(number) = self.numbers.interrupted() {
            self.answer_command(revoada_proto::CommandResult {
                number,
                outcome: Err("the agent ended while it did this".to_owned()),
            });
        }
        if let Some(attempts) = self.update.left(self.wanted_program()) {
            let text = format!("the package has not checked in as the agent, and was tried {attempts} times");
            self.event(revoada_proto::Level::Error, "agent-reverted", text);
        }
        if self.agent.active().is_empty() {
            self.run_what_it_came_with();
        }
        self.drive(Event::Tick).await;
        self.tick().await;
    }

    /// Tells the reconciler, and does what it says.
    async fn drive(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let before = self.agent.phase();
            let actions = self.agent.handle(event, self.clock.now());
            for action in actions {
                if let Some((event, is_next)) = self.act(action).await {
                    if is_next { events.push_front(event) } else { events.push_back(event) }
                }
            }
            self.tell_what_happened(before);
        }
    }

    /// Does an action; the event that answers it, where that is known at once, and whether nothing may come between.
    async fn act(&mut self, action: Action) -> Option<(Event, bool)> {
        match action {
            Action::Begin { id, step, kind, placed } => {
                let cancel = Cancel::default();
                self.step = Some((id, cancel.clone()));
                info!(step = %report::doing(step, kind), digest = %placed.digest, "step begins");
                let (active, desired) = (self.agent.active().clone(), self.agent.state().desired.clone());
                let todo = Todo { id, step, kind, placed, active, desired, cancel };
                let fault = crate::Fault::Passing;
                self.todo.send(todo).is_err().then_some((Event::StepFailed { id, fault }, false))
            }
            Action::Cancel { id } => {
                if let Some((_, cancel)) = self.step.take_if(|(current, _)| *current == id) {
                    cancel.cancel();
                }
                None
            }
            Action::Save { state } => {
                let saved = self.blocking(move |slots| slots.save(&state)).await;
                Some((self.saved(saved), true))
            }
            Action::Activate { state, slots: wanted, emptied } => {
                let busy = Arc::clone(&self.busy);
                let activated = self.blocking(move |slots| {
                    // Who fills a slot has been told to stop.
                    let _busy = lock(&busy);
                    let mut verified = Vec::new();
                    for (kind, placed) in wanted {
                        match slots.verify(kind, placed) {
                            Ok(slot) => verified.push(slot),
                            Err(error) if error.fault() == crate::Fault::Passing => return Err(error),
                            Err(error) => {
                                warn!(error = %sentence_of(causes(&error)), "a slot cannot be activated");
                                return Ok(Some((kind, placed)));
                            }
                        }
                    }
                    slots.activate(&state, &verified, &emptied).map(|()| None)
                });
                let event = match activated.await {
                    Ok(Some((kind, placed))) => Event::SlotDamaged { kind, placed },
                    Ok(None) => self.saved(Ok(())),
                    Err(error) => self.saved(Err(error)),
                };
                Some((event, true))
            }
            Action::Run { run, active } => {
                self.ask_pipeline(pipeline::Ask::Run { run: Some(run), active });
                None
            }
            Action::Stop => {
                self.run_what_it_came_with();
                None
            }
            Action::Report { id, report } => {
                self.reported = Some(report);
                let is_said = self.say_report(Some(id));
                (!is_said).then_some((Event::ReportFailed { id }, false))
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Slots<LocalDisk>) -> Result<T, SlotError> + Send + 'static,
    ) -> Result<T, SlotError> {
        let slots = Arc::clone(&self.slots);
        let done = tokio::task::spawn_blocking(move || work(&mut lock(&slots))).await;
        done.expect("what works on slots does not panic and is not aborted")
    }

    fn saved(&mut self, saved: Result<(), SlotError>) -> Event {
        match saved {
            Ok(()) => Event::Saved,
            Err(error) => {
                self.trouble = Some(sentence_of(causes(&error)));
                error!(error = self.trouble, "the state was not saved");
                Event::SaveFailed
            }
        }
    }

    fn run_what_it_came_with(&mut self) {
        self.ask_pipeline(pipeline::Ask::Run { run: None, active: crate::Active::new() });
    }

    fn ask_pipeline(&mut self, ask: pipeline::Ask) {
        if self.pipeline.send(ask).is_err() {
            error!("the pipeline's thread has ended");
        }
    }

    async fn hear_pipeline(&mut self, said: Option<Said>) {
        match said {
            Some(Said::Event(event)) => self.drive(event).await,
            Some(Said::Vitals(vitals)) => self.vitals = vitals,
            Some(Said::Note { level, name, text }) => {
                self.trouble = Some(text.clone());
                self.event(level, name, text);
            }
            None => {}
        }
    }

    async fn hear_step(&mut self, done: Option<Done>) {
        match done {
            Some(Done::Progress { id }) => self.drive(Event::StepProgress { id }).await,
            Some(Done::Passed { id, measured }) => {
                let is_current = self.step.as_ref().is_some_and(|(current, _)| *current == id);
                if let Some(measured) = measured.filter(|_| is_current) {
                    for remark in &measured.remarks {
                        self.event(revoada_proto::Level::Warn, "labelled-pictures", remark.clone());
                    }
                    self.measured = Some(measured);
                }
                self.drive(Event::StepDone { id }).await;
            }
            Some(Done::Failed { id, fault, why }) => {
                let is_current = self.step.as_ref().is_some_and(|(current, _)| *current == id);
                if is_current && self.trouble.as_ref() != Some(&why) {
                    self.trouble = Some(why.clone());
                    self.event(revoada_proto::Level::Warn, "step-failed", why);
                }
                self.drive(Event::StepFailed { id, fault }).await;
            }
            None => {}
        }
    }

    async fn hear_task(&mut self, task: Option<Task>) {
        match task {
            Some(Task::Facts(facts)) => {
                self.facts = facts;
                self.say_report(None);
            }
            Some(Task::Command(result)) => {
                self.counts.commands_done += 1;
                self.commands.ended();
                self.answer_command(result);
                self.begin_command();
            }
            Some(Task::Renewed(renewed)) => self.renewed(renewed).await,
            None => {}
        }
    }

    async fn tick(&mut self) {
        let now = self.clock.now();
        self.notify.alive();
        self.drive(Event::Tick).await;
        self.keep_link();
        self.repeat_events();
        if self.heartbeat_at <= now {
            self.heartbeat_at = now + self.config.heartbeat.mul_f64(0.75 + fastrand::f64() / 2.0);
            self.say_report(None);
        }
        if self.facts_at.is_none_or(|at| now.since(at) > FACTS_EVERY) {
            self.facts_at = Some(now);
            let (program, folder, tasks) =
                (self.defaults.program.clone(), self.config.folder.clone(), self.tasks.clone());
            tokio::spawn(async move {
                let gathered = tokio::task::spawn_blocking(move || facts::gather(&program, &folder)).await;
                // Nobody listens any more where the agent ends.
                drop(tasks.send(Task::Facts(gathered.unwrap_or_default())).await);
            });
        }
        self.begin_command();
    }

    fn wake_in(&self) -> Duration {
        let now = self.clock.now();
        self.agent.wake_at(now).map_or(TICK, |at| at.since(now)).min(TICK)
    }

    /// The package that is committed, which this process should be.
    fn wanted_program(&self) -> Option<Digest> {
        let is_committed = self.agent.state().trial.is_none();
        self.agent.active().get(&Kind::Package).filter(|_| is_committed).map(|placed| placed.digest)
    }

    /// What this process is to become, where it is to become anything.
    fn replacement(&mut self) -> Option<Ending> {
        let since_start = self.clock.now().since(self.started_at);
        if self.update.is_on_probation() && since_start > self.config.check_in_time_max {
            let good = self.update.good().and_then(|digest| self.programs.find(digest));
            let program = good.unwrap_or_else(|| self.defaults.program.clone());
            self.event(
                revoada_proto::Level::Error,
                "agent-reverts",
                format!("no receipt within {:?} of the start", self.config.check_in_time_max),
            );
            return Some(Ending::Replace { program });
        }
        match self.update.next(self.wanted_program()) {
            Ok(next) => next.and_then(|digest| self.programs.find(digest)).map(|program| Ending::Replace { program }),
            Err(error) => {
                warn!(error = %sentence_of(causes(&error)), "the agent is not replaced");
                None
            }
        }
    }

    async fn end(mut self) {
        if let Some((_, cancel)) = self.step.take() {
            cancel.cancel();
        }
        if let Some(link) = self.link.take() {
            link.end(GOODBYE_MAX).await;
        }
        if let Some((_, cancel)) = self.lesson.take() {
            cancel.cancel();
        }
        let Self { todo, pipeline, lessons, threads, config, .. } = self;
        drop((todo, pipeline, lessons));
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        drop(joined.await);
        // The next agent makes its own.
        drop(std::fs::remove_file(socket(&config.folder)));
    }
}

/// Time that never goes back and that nobody sets.
#[derive(Debug)]
struct Monotonic(Instant);

impl Clock for Monotonic {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held for as long as the agent runs; the kernel lets go of it however that ends.
fn lock_folder(folder: &Path) -> Result<File, ShellError> {
    let cannot_use = |source| ShellError::Folder { path: folder.to_owned(), source };
    let file = File::create(folder.join("lock")).map_err(cannot_use)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ShellError::InUse { path: folder.to_owned() }),
        Err(error) => Err(cannot_use(error.into())),
    }
}

/// Replaces what an agent has left that did not end in order: the folder is ours alone.
fn listen(path: &Path) -> io::Result<tokio::net::UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    tokio::net::UnixListener::bind(path)
}

/// Never, where there is no link.
async fn hear(link: &mut Option<mpsc::Receiver<Heard>>) -> Option<Heard> {
    match link {
        Some(link) => link.recv().await,
        None => std::future::pending().await,
    }
}
