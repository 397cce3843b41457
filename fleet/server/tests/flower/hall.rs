//! A board, and somebody who asks whoever is there.

use std::sync::Arc;
use std::time::Duration;

use revoada_federated::npy::{Array, Element};
use revoada_federated::{Layout, Participant, Weights};
use revoada_fleet::learning::{Board, Config, Reply, RunId, Said, Sheet, Task, Tensor, Word, Work};
use tokio::sync::mpsc;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// The time of a test is bounded, so that what hangs fails.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes far too long")
}

pub(crate) struct Hall {
    pub(crate) board: Arc<Board>,
    words: mpsc::UnboundedReceiver<Word>,
    tasks: u64,
}

impl Hall {
    pub(crate) fn new(participants_max: usize) -> Self {
        let (board, words) = Board::new(participants_max);
        Self { board, words, tasks: 0 }
    }

    pub(crate) async fn word(&mut self) -> Word {
        within(self.words.recv()).await.unwrap()
    }

    pub(crate) async fn came(&mut self) -> Participant {
        match self.word().await {
            Word::Came(participant) => participant,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn gone(&mut self) -> Participant {
        match self.word().await {
            Word::Gone(participant) => participant,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn post(&mut self, participant: &Participant, work: Work) -> u64 {
        self.tasks += 1;
        let task = Task { number: self.tasks, run: RunId(1), round: 1, work };
        assert!(self.board.post(participant, Arc::new(task)));
        self.tasks
    }

    /// The next answer, which counts, and of which task it is.
    pub(crate) async fn said(&mut self) -> (u64, Participant, Reply) {
        match self.word().await {
            Word::Said(Said { participant, task, reply, verdict, .. }) => {
                verdict.send(Ok(())).unwrap();
                (task.unwrap(), participant, reply)
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn parameters() -> Work {
    Work::Parameters { config: Config::new() }
}

pub(crate) fn fit(weights: &Arc<Sheet>) -> Work {
    Work::Fit { weights: Arc::clone(weights), config: Config::new() }
}

pub(crate) fn evaluate(weights: &Arc<Sheet>) -> Work {
    Work::Evaluate { weights: Arc::clone(weights), config: Config::new() }
}

/// Weights of one tensor.
pub(crate) fn sheet(values: &[f32]) -> Arc<Sheet> {
    let layout = Arc::new(Layout::new([("0".to_owned(), vec![values.len()])]).unwrap());
    Arc::new(Sheet::new(Weights::new(layout, values.to_vec()).unwrap(), vec![Element::F32], None))
}

/// Weights that somebody sent.
pub(crate) fn read(tensors: &[Tensor]) -> Arc<Sheet> {
    let arrays: Vec<_> = tensors.iter().map(|tensor| Array::parse(&tensor.array).unwrap()).collect();
    let shapes = arrays.iter().enumerate().map(|(index, array)| (index.to_string(), array.shape.clone()));
    let layout = Arc::new(Layout::new(shapes).unwrap());
    let mut values = Vec::new();
    arrays.iter().for_each(|array| array.extend(&mut values));
    let elements = arrays.iter().map(|array| array.element).collect();
    Arc::new(Sheet::new(Weights::new(layout, values).unwrap(), elements, None))
}

/// The mean by examples.
pub(crate) fn average(replies: &[Reply]) -> Arc<Sheet> {
    let fits = replies.iter().map(|reply| match reply {
        Reply::Fit { tensors, reported } => (read(tensors), reported.examples as f64),
        other => panic!("{other:?}"),
    });
    let fits: Vec<_> = fits.collect();
    let all: f64 = fits.iter().map(|(_, examples)| examples).sum();
    let first = &fits[0].0;
    let values = (0..first.weights().values().len()).map(|index| {
        let of = |(sheet, examples): &(Arc<Sheet>, f64)| f64::from(sheet.weights().values()[index]) * examples;
        (fits.iter().map(of).sum::<f64>() / all) as f32
    });
    let weights = Weights::new(Arc::clone(first.weights().layout()), values.collect()).unwrap();
    Arc::new(Sheet::new(weights, first.tensors().map(|(_, element, _)| element).collect(), None))
}
