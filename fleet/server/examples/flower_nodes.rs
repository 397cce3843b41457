//! How many messages a second SuperNodes get through the door: `flower_nodes NODES SECONDS`.
//!
//! Each node is a thread that waits for a task, takes all of it and answers it, signing every call as Flower's own do. With the
//! address of a server of Flower's as a third argument (`flower-superlink --insecure`), heartbeats are counted there too: the
//! one call that costs both sides the same.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a measurement that goes wrong has no result")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use revoada_fleet::flower::{Allowed, MemoryNodes, NodeLimits};
use revoada_fleet::learning::{Sheet, Word};
use revoada_proto::flower::metric_record_value::Value;
use revoada_proto::flower::{RegisterNodeFleetRequest, RegisterNodeFleetResponse};

#[path = "../tests/flower/node_client.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod node_client;
#[path = "../tests/flower/node_server.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod node_server;

use node_client::{NodeClient, key};
use node_server::{RUN, Server, app, fit};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default| arguments.get(place).map_or(default, |text| text.parse().unwrap());
    let (nodes, time) = (number(0, 4), Duration::from_secs(number(1, 5)));
    let known = Arc::new(MemoryNodes::new(Allowed::Any, 10_000));
    let mut server = Server::start(known, NodeLimits::default(), None);
    println!("heartbeats here: {:.0} a second", heartbeats(server.address, time));
    if let Some(address) = arguments.get(2) {
        println!("heartbeats at {address}: {:.0} a second", heartbeats(address.parse().unwrap(), time));
    }
    let answered = messages(&mut server, nodes as usize, time);
    let each = answered as f64 / time.as_secs_f64() / nodes as f64;
    println!("messages: {each:.1} a second and node, with {nodes} nodes and {} calls each", CALLS);
    server.stop();
}

/// Of one node, one after the other.
fn heartbeats(address: SocketAddr, time: Duration) -> f64 {
    let mut client = NodeClient::new(address, key());
    let public_key = client.key.public_key_pem().into();
    client.call::<RegisterNodeFleetResponse>("register-node", &RegisterNodeFleetRequest { public_key }).unwrap();
    client.activate().unwrap();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        assert_eq!(client.heartbeat(), Ok(true));
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// To pull, to pull six objects, to confirm, to push and to push five objects.
const CALLS: usize = 14;

/// How many tasks all of them get through. Whoever has answered is given the next.
fn messages(server: &mut Server, nodes: usize, time: Duration) -> usize {
    let weights = small_sheet();
    let before: BTreeSet<_> = server.board.present().into_iter().map(|(participant, _)| participant).collect();
    let clients: Vec<_> = (0..nodes).map(|_| NodeClient::active(server.address, key())).collect();
    let there = server.wait_for(nodes + before.len());
    let there: Vec<_> = there.into_iter().filter(|participant| !before.contains(participant)).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let working: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(Some((message, tree))) = client.pull() else { continue };
                    client.objects(RUN.0, &tree);
                    client.confirm(RUN.0, &message);
                    let reply = client.reply(&message, &[("a", b"1234")], &[("num-examples", Value::Sint64(1))]);
                    client.answer(&message, &reply).unwrap();
                }
            })
        })
        .collect();
    server.post(&there, 1, fit(&weights));
    let (start, mut answered) = (Instant::now(), 0);
    while start.elapsed() < time {
        if let Word::Said(said) = server.word() {
            said.verdict.send(Ok(())).unwrap();
            answered += 1;
            server.post(&[said.participant], 1, fit(&weights));
        }
    }
    is_over.store(true, Ordering::Relaxed);
    // Each is given one more, so that nobody waits for what does not come.
    server.post(&there, 1, fit(&weights));
    for thread in working {
        thread.join().unwrap();
    }
    answered
}

fn small_sheet() -> Arc<Sheet> {
    use revoada_federated::npy::Element;
    use revoada_federated::{Layout, Weights};
    let layout = Arc::new(Layout::new([("a".to_owned(), vec![100])]).unwrap());
    Arc::new(Sheet::new(Weights::zeros(layout), vec![Element::F32], Some(app(b"no program"))))
}
