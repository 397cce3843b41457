//! Rounds of averaging by nobody but whoever comes to the door for Flower's `start_client`, as fast as they answer:
//! `cargo run --release --package revoada-fleet --example join_rounds -- ADDRESS CLIENTS ROUNDS`. `tests/bench/flower_join.py`
//! plays the clients.

#![forbid(unsafe_code)]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use revoada_federated::npy::Array;
use revoada_federated::{Contribution, Layout, Mean, Participant, Weights};
use revoada_fleet::flower::{JoinDoor, JoinDoorLimits, JoinDoorOptions};
use revoada_fleet::learning::{Board, Config, Reply, RunId, Sheet, Task, Tensor, Word, Work};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: join_rounds ADDRESS CLIENTS ROUNDS");
    let (address, clients, rounds) = (next()?, next()?.parse::<usize>()?, next()?.parse::<u64>()?);
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    let (board, mut words) = Board::new(clients);
    let door = JoinDoor::start(JoinDoorOptions {
        listener,
        tls: None,
        board: Arc::clone(&board),
        limits: JoinDoorLimits::default(),
    });

    let mut participants = Vec::new();
    while participants.len() < clients {
        if let Some(Word::Came(participant)) = words.recv().await {
            participants.push(participant);
        }
    }
    let mut service = Service { board, words, tasks: 0 };
    service.post(&participants[..1], Work::Parameters { config: Config::new() });
    let Reply::Parameters(tensors) = service.said().await? else { return Err("a client has no weights".into()) };
    let mut weights = read(&tensors, None)?;
    for round in 1..=rounds {
        let start = Instant::now();
        let elements = tensors.iter().map(|tensor| Array::parse(&tensor.array).map(|array| array.element));
        let sheet = Arc::new(Sheet::new(weights.clone(), elements.collect::<Result<_, _>>()?, None));
        service.post(&participants, Work::Fit { weights: sheet, config: Config::new() });
        let mut mean = Mean::new(Arc::clone(weights.layout()));
        for _ in &participants {
            let Reply::Fit { tensors, reported } = service.said().await? else { return Err("a client failed".into()) };
            mean.fold(&Contribution::Full(read(&tensors, Some(weights.layout()))?), reported.examples)?;
        }
        weights = mean.finish(&weights)?;
        println!("round {round}: {:.3} s", start.elapsed().as_secs_f64());
    }
    service.post(&participants, Work::Leave);
    for _ in &participants {
        while !matches!(service.words.recv().await, Some(Word::Gone(_)) | None) {}
    }
    door.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(())
}

struct Service {
    board: Arc<Board>,
    words: UnboundedReceiver<Word>,
    tasks: u64,
}

impl Service {
    fn post(&mut self, participants: &[Participant], work: Work) {
        self.tasks += 1;
        let task = Arc::new(Task { number: self.tasks, run: RunId(1), round: 1, work });
        for participant in participants {
            assert!(self.board.post(participant, Arc::clone(&task)), "{participant} is gone");
        }
    }

    async fn said(&mut self) -> Result<Reply, String> {
        loop {
            match self.words.recv().await {
                Some(Word::Said(said)) => {
                    said.verdict.send(Ok(())).ok();
                    return Ok(said.reply);
                }
                Some(Word::Gone(participant)) => return Err(format!("{participant} is gone")),
                Some(Word::Came(_)) => {}
                None => return Err("the board is gone".to_owned()),
            }
        }
    }
}

fn read(tensors: &[Tensor], layout: Option<&Arc<Layout>>) -> Result<Weights, Box<dyn Error>> {
    let arrays = tensors.iter().map(|tensor| Array::parse(&tensor.array)).collect::<Result<Vec<_>, _>>()?;
    let mut values = Vec::with_capacity(arrays.iter().map(Array::count).sum());
    arrays.iter().for_each(|array| array.extend(&mut values));
    let layout = match layout {
        Some(layout) => Arc::clone(layout),
        None => {
            let shapes = arrays.into_iter().enumerate().map(|(index, array)| (index.to_string(), array.shape));
            Arc::new(Layout::new(shapes)?)
        }
    };
    Ok(Weights::new(layout, values)?)
}
