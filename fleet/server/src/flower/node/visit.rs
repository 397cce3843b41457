//! A SuperNode that is there: from when it comes until it goes, or is not heard of for too long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use super::upload::Upload;
use crate::flower::node_auth::NodeKey;
use crate::flower::outgoing::Outgoing;
use crate::learning::{Presence, Reply, Task, Work};

/// A node does one thing at a time, so that more than a few wait only where it misbehaves.
const COMMANDS_MAX: usize = 8;

/// What requests share of a node that is there; [`attend`] holds its place at the board.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) id: u64,
    pub(super) key: NodeKey,
    desk: Mutex<Desk>,
    /// How long it may be silent.
    silence_max: Mutex<Duration>,
    /// Until when it is there without another sign of life; `None` once it has gone.
    until: watch::Sender<Option<Instant>>,
    commands: mpsc::Sender<Command>,
}

/// What the node works on.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// What it was sent last.
    pub(super) sent: Option<(Arc<Task>, Arc<Outgoing>)>,
    pub(super) upload: Option<Upload>,
    /// Of the reply that was taken last: who has not heard of that sends its end again.
    pub(super) done: Option<String>,
}

#[derive(Debug)]
enum Command {
    Pull(oneshot::Sender<Arc<Task>>),
    Confirm(u64),
    Answer(Arc<Task>, Reply),
}

/// What [`attend`] takes.
#[derive(Debug)]
pub(super) struct Attendance {
    presence: Presence,
    until: watch::Receiver<Option<Instant>>,
    commands: mpsc::Receiver<Command>,
}

impl Visit {
    pub(super) fn new(
        (id, key): (u64, NodeKey),
        presence: Presence,
        silence_max: Duration,
        now: Instant,
    ) -> (Arc<Self>, Attendance) {
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let (until, watched) = watch::channel(Some(now + silence_max));
        let (desk, silence_max) = (Mutex::default(), Mutex::new(silence_max));
        let visit = Arc::new(Self { id, key, desk, silence_max, until, commands });
        (visit, Attendance { presence, until: watched, commands: received })
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was heard of.
    pub(super) fn touch(&self, now: Instant) {
        let until = now + *self.silence_max.lock().unwrap_or_else(PoisonError::into_inner);
        self.until.send_if_modified(|known| match known {
            Some(known) if *known < until => {
                *known = until;
                true
            }
            _ => false,
        });
    }

    /// It says how often it will be heard of.
    pub(super) fn set_silence_max(&self, silence_max: Duration) {
        *self.silence_max.lock().unwrap_or_else(PoisonError::into_inner) = silence_max;
    }

    pub(super) fn leave(&self) {
        self.until.send_replace(None);
    }

    pub(super) fn is_over(&self) -> bool {
        self.until.borrow().is_none() || self.commands.is_closed()
    }

    /// Waits for what there is to do; `None` where the visit is over, or the node has come to ask again.
    pub(super) async fn pull(&self) -> Option<Arc<Task>> {
        let (sender, task) = oneshot::channel();
        self.commands.send(Command::Pull(sender)).await.ok()?;
        task.await.ok()
    }

    /// The node has all of a task, and is not given it again in this visit.
    pub(super) async fn confirm(&self, number: u64) {
        drop(self.commands.send(Command::Confirm(number)).await);
    }

    pub(super) async fn answer(&self, task: Arc<Task>, reply: Reply) {
        drop(self.commands.send(Command::Answer(task, reply)).await);
    }
}

/// Holds a node's place at the board until its visit is over.
pub(super) async fn attend(visit: Arc<Visit>, attendance: Attendance) {
    let Attendance { mut presence, mut until, mut commands } = attendance;
    // The task with the highest number that was looked at, and the one that the node has whole.
    let (mut seen, mut confirmed) = (0, 0);
    let mut waiting: Option<oneshot::Sender<Arc<Task>>> = None;
    loop {
        let Some(deadline) = *until.borrow_and_update() else { break };
        tokio::select! {
            // Read anew at the top.
            _ = until.changed() => {}
            () = sleep_until(deadline) => {
                info!(node = visit.id, "a SuperNode has not been heard of");
                break;
            }
            task = presence.next(seen) => {
                let Some(task) = task else { break };
                seen = task.number;
                match unable(&task.work) {
                    Some(why) => answer(&presence, &mut until, task, Reply::Failed(why.to_owned())).await,
                    // Without anyone who waits, it is there for whoever asks next.
                    None => drop(waiting.take().map(|waiting| waiting.send(task))),
                }
            }
            command = commands.recv() => match command.expect("the visit holds the other end") {
                Command::Pull(sender) => {
                    waiting = Some(sender);
                    // What was given out and is not confirmed was lost on its way.
                    seen = confirmed;
                }
                Command::Confirm(number) => confirmed = confirmed.max(number),
                Command::Answer(task, reply) => {
                    confirmed = confirmed.max(task.number);
                    seen = seen.max(confirmed);
                    answer(&presence, &mut until, task, reply).await;
                }
            },
        }
    }
    visit.leave();
}

/// Waits for what the service says to it, unless the node goes before.
async fn answer(presence: &Presence, until: &mut watch::Receiver<Option<Instant>>, task: Arc<Task>, reply: Reply) {
    let number = task.number;
    let verdict = tokio::select! {
        verdict = presence.answer(task, reply) => verdict,
        _ = until.wait_for(Option::is_none) => return,
    };
    if let Err(why) = verdict {
        debug!(participant = %presence.participant().0, task = number, why, "what a SuperNode said does not count");
    }
}

/// What no SuperNode can be asked, and why.
fn unable(work: &Work) -> Option<&'static str> {
    match work {
        Work::Parameters { .. } => Some("a SuperNode cannot be asked for the first weights: give them with the run"),
        Work::Leave => Some("a SuperNode stays for the next run"),
        Work::Fit { weights, .. } | Work::Evaluate { weights, .. } if weights.app().is_none() => {
            Some("a SuperNode needs a program: give the run a FAB")
        }
        Work::Fit { .. } | Work::Evaluate { .. } => None,
    }
}
