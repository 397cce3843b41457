//! The door for Flower's SuperNodes, from 1.40 on: `flwr.proto.Fleet` by POSTs of HTTP/1.1.
//!
//! A SuperNode says who it is and asks for messages; what it is sent, and what it answers, travels as [objects](super::objects).
//! It is there from when it activates itself until it deactivates itself or has not been heard of for too long. One that the
//! service knew before a restart is there again as soon as it is heard of.

mod attendance;
mod calls;
mod messages;
mod port;
mod refusal;
mod shelf;
mod upload;
mod visit;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::routing::post;
use revoada_core::{causes, sentence_of};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::refusal::Refusal;
use self::shelf::Shelf;
use self::upload::Room;
use self::visit::Visit;
use super::nodes::Nodes;
use crate::acceptor::AcceptorLimits;
use crate::learning::Board;

#[derive(Clone, Debug)]
pub struct NodeLimits {
    pub acceptor: AcceptorLimits,
    /// How long a node that asks for messages waits where there are none; it gives up after 30 s by itself.
    pub hold: Duration,
    /// A node that says that it is heard of less often is expected this often.
    pub heartbeat_interval_max: Duration,
    /// So many intervals of silence, and it has gone.
    pub heartbeats_missed_max: u32,
    /// Of the body of a request that carries objects; a chunk of an array has 5 MiB.
    pub body_bytes_max: usize,
    /// How many of those are read at a time.
    pub bodies_max: usize,
    /// Of one reply; of its arrays also where its objects are used many times.
    pub reply_bytes_max: u64,
    /// How many objects one reply may have.
    pub reply_objects_max: usize,
    /// Of all replies that are coming in; at the bound, nodes are told to come again.
    pub replies_bytes_max: u64,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            acceptor: AcceptorLimits::default(),
            hold: Duration::from_secs(15),
            heartbeat_interval_max: Duration::from_secs(120),
            heartbeats_missed_max: 2,
            body_bytes_max: 8 << 20,
            bodies_max: 64,
            reply_bytes_max: 2 << 30,
            reply_objects_max: 100_000,
            replies_bytes_max: 8 << 30,
        }
    }
}

/// Since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Nodes that are there.
    pub present: u64,
    /// Messages that nodes were given, again included.
    pub messages: u64,
    /// Replies that were whole, failures included.
    pub replies: u64,
    /// Requests of whoever is not, or may not be, who it says.
    pub refused_peers: u64,
    /// Requests and replies that were malformed, too large or not asked for.
    pub refused_requests: u64,
    /// Requests that were told to come again.
    pub busy: u64,
    /// Bytes of replies that are coming in.
    pub upload_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    messages: AtomicU64,
    replies: AtomicU64,
    refused_peers: AtomicU64,
    refused_requests: AtomicU64,
    busy: AtomicU64,
}

/// What all SuperNodes speak with. Dropped, it sends all of them away.
pub struct NodeDoor {
    board: Arc<Board>,
    nodes: Arc<dyn Nodes>,
    limits: NodeLimits,
    visits: Mutex<BTreeMap<u64, Arc<Visit>>>,
    /// Each visit has a task that holds its place at the board.
    attending: Mutex<JoinSet<()>>,
    shelf: Shelf,
    room: Arc<Room>,
    bodies: Semaphore,
    is_stopping: watch::Sender<bool>,
    counters: Counters,
}

impl NodeDoor {
    pub fn new(board: Arc<Board>, nodes: Arc<dyn Nodes>, limits: NodeLimits) -> Arc<Self> {
        Arc::new(Self {
            board,
            nodes,
            visits: Mutex::default(),
            attending: Mutex::default(),
            shelf: Shelf::default(),
            room: Room::new(limits.replies_bytes_max),
            bodies: Semaphore::new(limits.bodies_max),
            is_stopping: watch::Sender::new(false),
            counters: Counters::default(),
            limits,
        })
    }

    pub fn stats(&self) -> NodeStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NodeStats {
            present: self.visits().len() as u64,
            messages: of(&self.counters.messages),
            replies: of(&self.counters.replies),
            refused_peers: of(&self.counters.refused_peers),
            refused_requests: of(&self.counters.refused_requests),
            busy: of(&self.counters.busy),
            upload_bytes: self.room.taken(),
        }
    }

    /// The calls, for whoever serves them otherwise than by [`serve`](Self::serve).
    pub fn router(self: &Arc<Self>) -> Router {
        let call = async |State(door): State<Arc<Self>>, Path(call): Path<String>, headers: HeaderMap, body: Body| {
            door.respond(&call, &headers, body).await
        };
        Router::new()
            .route("/v1/fleet/{call}", post(call))
            .fallback(async || Refusal::NoCall)
            .with_state(Arc::clone(self))
    }

    fn visits(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Visit>>> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error and its causes, for people.
fn said(error: &(dyn std::error::Error + 'static)) -> String {
    sentence_of(causes(error))
}
