//! Where participants wait for tasks.
//!
//! A door lets a participant in and holds its [`Presence`] as long as it is there. Each has one task at most: a newer one takes
//! the place of one that was not answered, whose answer nobody wants any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use revoada_federated::Participant;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::examiner::Examined;
use super::task::{Door, Reply, RunId, Task};

/// What has happened at the board.
#[derive(Debug)]
pub enum Word {
    Came(Participant),
    Gone(Participant),
    Said(Said),
    /// The examiner has found something out about a run.
    Examined(RunId, Examined),
    /// Somebody wants something else of a run.
    Wanted,
}

/// What a participant says of a round.
#[derive(Debug)]
pub struct Said {
    pub participant: Participant,
    pub run: RunId,
    pub round: u64,
    /// The number of the task that it answers; `None` where it was not given one here.
    pub task: Option<u64>,
    pub reply: Reply,
    /// Takes whether it counts, or for people why not.
    pub verdict: oneshot::Sender<Result<(), String>>,
}

/// So many are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{max} participants are there already")]
pub struct TooMany {
    pub max: usize,
}

/// Everybody who is there, and what each is asked.
#[derive(Debug)]
pub struct Board {
    waiting: Mutex<BTreeMap<Participant, Place>>,
    participants_max: usize,
    /// Without a bound of its own: each participant says one thing, and waits for the verdict.
    words: mpsc::UnboundedSender<Word>,
}

#[derive(Debug)]
struct Place {
    door: Door,
    /// Of several that say that they are the same, the newest counts.
    visit: u64,
    task: watch::Sender<Option<Arc<Task>>>,
}

/// A participant that is there, until it is dropped.
#[derive(Debug)]
pub struct Presence {
    board: Arc<Board>,
    participant: Participant,
    visit: u64,
    task: watch::Receiver<Option<Arc<Task>>>,
}

impl Board {
    /// A board, and what happens at it.
    pub fn new(participants_max: usize) -> (Arc<Self>, mpsc::UnboundedReceiver<Word>) {
        let (words, heard) = mpsc::unbounded_channel();
        (Arc::new(Self { waiting: Mutex::default(), participants_max, words }), heard)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Participant, Place>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a participant in. One that is there already has come again: it is the newest visit that is given tasks, and whoever
    /// holds the older finds it over. A task that it had is given to it again.
    pub fn arrive(self: &Arc<Self>, participant: Participant, door: Door) -> Result<Presence, TooMany> {
        let mut waiting = self.waiting();
        let known = waiting.remove(&participant);
        if waiting.len() >= self.participants_max {
            return Err(TooMany { max: self.participants_max });
        }
        let visit = known.as_ref().map_or(0, |place| place.visit + 1);
        let task = known.and_then(|place| place.task.borrow().clone());
        let (sender, receiver) = watch::channel(task);
        waiting.insert(participant.clone(), Place { door, visit, task: sender });
        drop(waiting);
        self.tell(Word::Came(participant.clone()));
        Ok(Presence { board: Arc::clone(self), participant, visit, task: receiver })
    }

    /// Who is there through which door.
    pub fn present(&self) -> Vec<(Participant, Door)> {
        self.waiting().iter().map(|(participant, place)| (participant.clone(), place.door)).collect()
    }

    pub fn is_present(&self, participant: &Participant) -> bool {
        self.waiting().contains_key(participant)
    }

    /// Gives a participant a task. Whether it is there.
    pub fn post(&self, participant: &Participant, task: Arc<Task>) -> bool {
        match self.waiting().get(participant) {
            Some(place) => {
                place.task.send_replace(Some(task));
                true
            }
            None => false,
        }
    }

    /// Takes back what a participant has not answered.
    pub fn withdraw(&self, participant: &Participant, number: u64) {
        if let Some(place) = self.waiting().get(participant) {
            place.task.send_if_modified(|task| {
                let is_it = task.as_ref().is_some_and(|task| task.number == number);
                if is_it {
                    *task = None;
                }
                is_it
            });
        }
    }

    /// Says something for a participant that does not wait here for tasks, and waits for whether it counts.
    pub async fn say(&self, participant: Participant, run: RunId, round: u64, reply: Reply) -> Result<(), String> {
        self.tell_and_wait(participant, (run, round, None), reply).await
    }

    async fn tell_and_wait(
        &self,
        participant: Participant,
        (run, round, task): (RunId, u64, Option<u64>),
        reply: Reply,
    ) -> Result<(), String> {
        let (verdict, heard) = oneshot::channel();
        self.tell(Word::Said(Said { participant, run, round, task, reply, verdict }));
        heard.await.unwrap_or_else(|_| Err("the service stops".to_owned()))
    }

    /// Somebody is there who does not wait here for tasks.
    pub fn came(&self, participant: Participant) {
        self.tell(Word::Came(participant));
    }

    /// Has runs looked at again.
    pub fn wake(&self) {
        self.tell(Word::Wanted);
    }

    pub(super) fn examined(&self, run: RunId, examined: Examined) {
        self.tell(Word::Examined(run, examined));
    }

    /// Nobody listens once the service stops.
    fn tell(&self, word: Word) {
        drop(self.words.send(word));
    }
}

impl Presence {
    pub fn participant(&self) -> &Participant {
        &self.participant
    }

    /// Waits for a task with a higher number than one that it was given before, or 0; `None` once this visit is over. It may be
    /// dropped and called again: nothing is lost.
    pub async fn next(&mut self, after: u64) -> Option<Arc<Task>> {
        let is_newer = |task: &Option<Arc<Task>>| task.as_ref().is_some_and(|task| task.number > after);
        self.task.wait_for(is_newer).await.ok().and_then(|task| task.clone())
    }

    /// Says what came of a task, and waits for whether it counts; for people, why not. The task is done with either way.
    pub async fn answer(&self, task: Arc<Task>, reply: Reply) -> Result<(), String> {
        self.board.withdraw(&self.participant, task.number);
        let asked = (task.run, task.round, Some(task.number));
        self.board.tell_and_wait(self.participant.clone(), asked, reply).await
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut waiting = self.board.waiting();
        if waiting.get(&self.participant).is_some_and(|place| place.visit == self.visit) {
            waiting.remove(&self.participant);
            drop(waiting);
            self.board.tell(Word::Gone(self.participant.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learning::task::Work;

    fn task(number: u64) -> Arc<Task> {
        Arc::new(Task { number, run: RunId(1), round: 1, work: Work::Leave })
    }

    fn name(text: &str) -> Participant {
        Participant(text.to_owned())
    }

    #[tokio::test]
    async fn a_task_waits_for_who_comes_again_and_is_gone_once_it_is_answered() {
        let (board, mut words) = Board::new(10);
        assert!(!board.post(&name("a"), task(1)));
        let mut first = board.arrive(name("a"), Door::Node).unwrap();
        assert!(board.post(&name("a"), task(1)));
        assert_eq!(first.next(0).await.unwrap().number, 1);
        let mut second = board.arrive(name("a"), Door::Node).unwrap();
        assert!(first.next(1).await.is_none());
        drop(first);
        assert_eq!(board.present(), [(name("a"), Door::Node)]);
        let again = second.next(0).await.unwrap();
        let (verdict, heard) = tokio::join!(second.answer(again, Reply::Failed("busy".to_owned())), async {
            loop {
                match words.recv().await.unwrap() {
                    Word::Said(said) => {
                        said.verdict.send(Err("late".to_owned())).unwrap();
                        break said.participant;
                    }
                    Word::Came(participant) => assert_eq!(participant, name("a")),
                    other => panic!("{other:?}"),
                }
            }
        });
        assert_eq!((verdict, heard), (Err("late".to_owned()), name("a")));
        board.post(&name("a"), task(2));
        assert_eq!(second.next(1).await.unwrap().number, 2);
        drop(second);
        assert!(matches!(words.recv().await, Some(Word::Gone(_))));
        assert_eq!(board.present(), []);
    }

    #[tokio::test]
    async fn there_is_room_for_so_many() {
        let (board, _words) = Board::new(1);
        let _first = board.arrive(name("a"), Door::Join).unwrap();
        assert_eq!(board.arrive(name("b"), Door::Join).unwrap_err(), TooMany { max: 1 });
        assert!(board.arrive(name("a"), Door::Join).is_ok());
    }
}
