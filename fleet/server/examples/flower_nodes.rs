//! What SuperNodes get through the door, and through a SuperLink of Flower's: `flower_nodes SECONDS ADDRESS [NODES…]`.
//!
//! Each node is a thread that waits for a task, takes all of it and answers it, signing every call as Flower's own do: the same
//! threads here and at `ADDRESS`, where somebody else gives them tasks (`tests/bench/flower_superlink.py`). Heartbeats are the one
//! call that costs both sides the same. Prints a line of JSON for each measurement.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a measurement that goes wrong has no result")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use revoada_federated::Participant;
use revoada_fleet::flower::{Allowed, MemoryNodes, NodeLimits};
use revoada_fleet::learning::{Sheet, Word};
use revoada_proto::flower::metric_record_value::Value;
use revoada_proto::flower::{RegisterNodeFleetRequest, RegisterNodeFleetResponse};
use serde_json::json;

#[path = "../tests/flower/node_client.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod node_client;
#[path = "../tests/flower/node_server.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod node_server;

use node_client::{NodeClient, key};
use node_server::{Server, app, fit};

/// Where a server does not hold an empty answer back, as ours does.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(1);
/// To pull, to pull six objects, to confirm, to push and to push five objects.
const CALLS: usize = 14;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let time = Duration::from_secs(arguments.next().unwrap().parse().unwrap());
    let theirs: SocketAddr = arguments.next().unwrap().parse().unwrap();
    let crowds: Vec<usize> = arguments.map(|nodes| nodes.parse().unwrap()).collect();
    let known = Arc::new(MemoryNodes::new(Allowed::Any, 10_000));
    let mut server = Server::start(known, NodeLimits::default(), None);
    let ours = server.address;
    for (who, address) in [("ours", ours), ("flower", theirs)] {
        told(who, "heartbeats", 1, heartbeats(address, time));
    }
    for nodes in crowds {
        told("ours", "messages", nodes, with_tasks(&mut server, nodes, time));
        let working = Crowd::at(theirs, nodes);
        told("flower", "messages", nodes, working.rate(time));
        working.end();
    }
    server.stop();
}

fn told(server: &str, what: &str, nodes: usize, per_second: f64) {
    let calls = if what == "messages" { CALLS } else { 1 };
    println!("{}", json!({ "server": server, "what": what, "nodes": nodes, "per_second": per_second, "calls": calls }));
}

fn active(address: SocketAddr) -> NodeClient {
    let mut client = NodeClient::new(address, key());
    let public_key = client.key.public_key_pem().into();
    client.call::<RegisterNodeFleetResponse>("register-node", &RegisterNodeFleetRequest { public_key }).unwrap();
    client.activate().unwrap();
    client
}

/// Of one node, one after the other.
fn heartbeats(address: SocketAddr, time: Duration) -> f64 {
    let client = active(address);
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        assert_eq!(client.heartbeat(), Ok(true));
        count += 1;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    client.leave().unwrap();
    rate
}

/// Nodes at work.
struct Crowd {
    answered: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn at(address: SocketAddr, nodes: usize) -> Self {
        let (answered, is_over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let work = |_| {
            let (client, answered, is_over) = (active(address), Arc::clone(&answered), Arc::clone(&is_over));
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    work(&client, &answered);
                }
                client.leave().unwrap();
            })
        };
        let threads = (0..nodes).map(work).collect();
        Self { answered, is_over, threads }
    }

    /// Whole messages a second of all of them together, once the first are through.
    fn rate(&self, time: Duration) -> f64 {
        thread::sleep(time / 4);
        let (start, before) = (Instant::now(), self.answered.load(Ordering::Relaxed));
        thread::sleep(time);
        (self.answered.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn work(client: &NodeClient, answered: &AtomicU64) {
    let Ok(Some((message, tree))) = client.pull() else { return thread::sleep(ASK_AGAIN_AFTER) };
    let run = message.metadata.as_ref().unwrap().run_id;
    client.objects(run, &tree);
    client.confirm(run, &message);
    let reply = client.reply(&message, &[("a", b"1234")], &[("num-examples", Value::Sint64(1))]);
    client.answer(&message, &reply).unwrap();
    answered.fetch_add(1, Ordering::Relaxed);
}

/// Here, whoever has answered is given the next task.
fn with_tasks(server: &mut Server, nodes: usize, time: Duration) -> f64 {
    let weights = small_sheet();
    let before = present(server);
    let crowd = Crowd::at(server.address, nodes);
    let there = server.wait_for(nodes + before.len());
    let there: Vec<_> = there.into_iter().filter(|participant| !before.contains(participant)).collect();
    server.post(&there, 1, fit(&weights));
    let measured = thread::scope(|scope| {
        let measuring = scope.spawn(|| crowd.rate(time));
        while !measuring.is_finished() {
            if let Word::Said(said) = server.word() {
                said.verdict.send(Ok(())).unwrap();
                server.post(&[said.participant], 1, fit(&weights));
            }
        }
        measuring.join().unwrap()
    });
    crowd.is_over.store(true, Ordering::Relaxed);
    // Each has one more, so that nobody waits for what does not come.
    while present(server).len() > before.len() {
        if let Word::Said(said) = server.word() {
            said.verdict.send(Ok(())).unwrap();
        }
    }
    crowd.end();
    measured
}

fn present(server: &Server) -> BTreeSet<Participant> {
    server.board.present().into_iter().map(|(participant, _)| participant).collect()
}

fn small_sheet() -> Arc<Sheet> {
    use revoada_federated::npy::Element;
    use revoada_federated::{Layout, Weights};
    let layout = Arc::new(Layout::new([("a".to_owned(), vec![100])]).unwrap());
    Arc::new(Sheet::new(Weights::zeros(layout), vec![Element::F32], Some(app(b"no program"))))
}
