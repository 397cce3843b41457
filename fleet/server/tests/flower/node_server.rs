//! A door for SuperNodes, and somebody who gives them tasks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;
use revoada_core::Digest;
use revoada_federated::npy::{self, Element};
use revoada_federated::{Layout, Participant, Weights};
use revoada_fleet::flower::{NodeDoor, NodeLimits, Nodes};
use revoada_fleet::learning::{App, Board, Config, Reply, RunId, Sheet, Task, Tensor, Word, Work};
use rustls::ServerConfig;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// Far beyond what anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
pub(crate) const RUN: RunId = RunId(7);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) door: Arc<NodeDoor>,
    pub(crate) board: Arc<Board>,
    words: mpsc::UnboundedReceiver<Word>,
    stop: watch::Sender<Option<Instant>>,
    serving: JoinHandle<usize>,
    next: u64,
    runtime: Runtime,
}

impl Server {
    pub(crate) fn start(nodes: Arc<dyn Nodes>, limits: NodeLimits, tls: Option<Arc<ServerConfig>>) -> Self {
        Self::start_for(100, nodes, limits, tls)
    }

    pub(crate) fn start_for(
        participants_max: usize,
        nodes: Arc<dyn Nodes>,
        limits: NodeLimits,
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (board, words) = Board::new(participants_max);
        let door = NodeDoor::new(Arc::clone(&board), nodes, limits);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(None);
        let serving = runtime.spawn(Arc::clone(&door).serve(listener, tls, stopped));
        Self { address, door, board, words, stop, serving, next: 1, runtime }
    }

    /// Stops it, and says how many connections had to be cut.
    pub(crate) fn stop(self) -> usize {
        self.stop.send_replace(Some(Instant::now() + Duration::from_secs(10)));
        let cut = self.runtime.block_on(self.serving).unwrap();
        assert_eq!(self.board.present(), []);
        cut
    }

    pub(crate) fn word(&mut self) -> Word {
        let words = &mut self.words;
        self.runtime.block_on(async { timeout(PATIENCE, words.recv()).await }).expect("nothing was heard").unwrap()
    }

    /// Waits until so many are there.
    pub(crate) fn wait_for(&mut self, participants: usize) -> Vec<Participant> {
        while self.board.present().len() != participants {
            self.word();
        }
        self.board.present().into_iter().map(|(participant, _)| participant).collect()
    }

    pub(crate) fn wait_for_gone(&mut self, who: &Participant) {
        while !matches!(self.word(), Word::Gone(gone) if gone == *who) {}
    }

    /// Gives these a task, and says which number it has.
    pub(crate) fn post(&mut self, to: &[Participant], round: u64, work: Work) -> u64 {
        let number = self.next;
        self.next += 1;
        let task = Arc::new(Task { number, run: RUN, round, work });
        for participant in to {
            assert!(self.board.post(participant, Arc::clone(&task)), "{participant:?} is not there");
        }
        number
    }

    /// What these say to a task; whoever has gone says nothing. What is said of others does not count.
    pub(crate) fn replies(&mut self, from: &[Participant], number: u64) -> BTreeMap<Participant, Option<Reply>> {
        let mut replies = BTreeMap::new();
        while replies.len() < from.len() {
            match self.word() {
                Word::Said(said) => {
                    let counts = said.task == Some(number) && from.contains(&said.participant);
                    said.verdict.send(counts.then_some(()).ok_or("late".to_owned())).unwrap();
                    if counts {
                        replies.insert(said.participant, Some(said.reply));
                    }
                }
                Word::Gone(participant) if from.contains(&participant) => {
                    replies.entry(participant).or_insert(None);
                }
                Word::Came(_) | Word::Gone(_) | Word::Examined(..) | Word::Wanted => {}
            }
        }
        replies
    }

    pub(crate) fn ask(&mut self, of: &[Participant], round: u64, work: Work) -> BTreeMap<Participant, Option<Reply>> {
        let number = self.post(of, round, work);
        self.replies(of, number)
    }
}

/// One of each kind, one of them without a dimension and one that takes two chunks.
pub(crate) fn layout() -> (Arc<Layout>, Vec<Element>) {
    let tensors = [("dense/kernel", vec![3, 2]), ("scale", vec![]), ("large", vec![1_400_000])];
    let tensors = tensors.map(|(name, shape)| (name.to_owned(), shape));
    (Arc::new(Layout::new(tensors).unwrap()), vec![Element::F32, Element::F64, Element::F32])
}

pub(crate) fn app(content: &[u8]) -> Arc<App> {
    Arc::new(App {
        id: "revoada/steps".to_owned(),
        version: "1.2.3".to_owned(),
        digest: Digest::new(Sha256::digest(content).into()),
        content: Bytes::copy_from_slice(content),
    })
}

pub(crate) fn sheet(values: Vec<f32>, app: Option<&Arc<App>>) -> Arc<Sheet> {
    let (layout, elements) = layout();
    Arc::new(Sheet::new(Weights::new(layout, values).unwrap(), elements, app.cloned()))
}

pub(crate) fn fit(weights: &Arc<Sheet>) -> Work {
    Work::Fit { weights: Arc::clone(weights), config: Config::new() }
}

/// The numbers of the tensors of a layout, in its order.
pub(crate) fn values(tensors: &[Tensor]) -> Vec<f32> {
    let mut values = Vec::new();
    for (name, _) in layout().0.tensors() {
        let tensor = tensors.iter().find(|tensor| tensor.name.as_deref() == Some(name)).expect("each is there");
        npy::Array::parse(&tensor.array).unwrap().extend(&mut values);
    }
    values
}
