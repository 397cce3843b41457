//! The door for Flower's SuperNodes, from 1.40 on: `flwr.proto.Fleet` by POSTs of HTTP/1.1.
//!
//! A SuperNode says who it is and asks for messages; what it is sent, and what it answers, travels as [objects](super::objects).
//! It is there from when it activates itself until it deactivates itself or has not been heard of for too long. One that the
//! service knew before a restart is there again as soon as it is heard of.

mod port;
mod refusal;
mod upload;
mod visit;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use prost::Message as _;
use prost::bytes::Bytes;
use revoada_core::{causes, sentence_of};
use revoada_federated::Participant;
use revoada_proto::flower::{
    ActivateNodeRequest, ActivateNodeResponse, ConfirmMessageReceivedRequest, ConfirmMessageReceivedResponse,
    DeactivateNodeRequest, DeactivateNodeResponse, Fab, GetFabRequest, GetFabResponse, GetRunRequest, GetRunResponse,
    Metadata, Node, PullMessagesRequest, PullMessagesResponse, PullObjectRequest, PullObjectResponse,
    PushMessagesRequest, PushMessagesResponse, PushObjectRequest, PushObjectResponse, RegisterNodeFleetRequest,
    RegisterNodeFleetResponse, Run, RunStatus, SendNodeHeartbeatRequest, SendNodeHeartbeatResponse,
    UnregisterNodeFleetRequest, UnregisterNodeFleetResponse,
};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout};
use tracing::{debug, error, info, warn};

use self::refusal::Refusal;
use self::upload::{Put, Room, Upload};
use self::visit::{Visit, attend};
use super::incoming;
use super::node_auth::{NodeKey, authenticate};
use super::nodes::Nodes;
use super::objects::{id_of, names, parse_id};
use super::outgoing::{Arrays, Outgoing};
use crate::acceptor::AcceptorLimits;
use crate::learning::{App, Board, Config, Door, Reply, Sheet, Task, Work};

/// A request that carries no object has a key and a few names.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// How long the body of a request may take.
const BODY_TIME_MAX: Duration = Duration::from_secs(120);
/// Smaller objects are copied, lest each hold the buffer of the connection that it came in.
const COPIED_BYTES_MAX: usize = 64 << 10;
/// What is said of why a node failed.
const REASON_CHARS_MAX: usize = 500;
/// How Flower's own server is numbered.
const SERVER: u64 = 1;
/// A node gives a message up after this; long before, whoever waits for its answer has.
const MESSAGE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Where a node does not say how often it is heard of.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);

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
    arrays: Mutex<Vec<Shelved>>,
    room: Arc<Room>,
    bodies: Semaphore,
    is_stopping: watch::Sender<bool>,
    counters: Counters,
}

/// Objects that are made once, for as long as there is somebody to send them to.
struct Shelved {
    sheet: Weak<Sheet>,
    arrays: Arc<OnceCell<Arc<Arrays>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Register,
    Activate,
    Deactivate,
    Unregister,
    Heartbeat,
    PullMessages,
    PushMessages,
    GetRun,
    GetFab,
    PushObject,
    PullObject,
    Confirm,
}

impl Call {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "register-node" => Self::Register,
            "activate-node" => Self::Activate,
            "deactivate-node" => Self::Deactivate,
            "unregister-node" => Self::Unregister,
            "send-node-heartbeat" => Self::Heartbeat,
            "pull-messages" => Self::PullMessages,
            "push-messages" => Self::PushMessages,
            "get-run" => Self::GetRun,
            "get-fab" => Self::GetFab,
            "push-object" => Self::PushObject,
            "pull-object" => Self::PullObject,
            "confirm-message-received" => Self::Confirm,
            _ => return None,
        })
    }
}

impl NodeDoor {
    pub fn new(board: Arc<Board>, nodes: Arc<dyn Nodes>, limits: NodeLimits) -> Arc<Self> {
        Arc::new(Self {
            board,
            nodes,
            visits: Mutex::default(),
            attending: Mutex::default(),
            arrays: Mutex::default(),
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

    async fn respond(self: &Arc<Self>, call: &str, headers: &HeaderMap, body: Body) -> Response {
        match self.answer(call, headers, body).await {
            Ok(message) => {
                let kind = (header::CONTENT_TYPE, "application/protobuf");
                (StatusCode::OK, [kind], message).into_response()
            }
            Err(refusal) => {
                let counter = match refusal.status() {
                    StatusCode::UNAUTHORIZED => &self.counters.refused_peers,
                    _ if matches!(refusal, Refusal::NotListed) => &self.counters.refused_peers,
                    StatusCode::SERVICE_UNAVAILABLE => &self.counters.busy,
                    _ => &self.counters.refused_requests,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                debug!(call, error = %said(&refusal), "a SuperNode was refused");
                refusal.into_response()
            }
        }
    }

    async fn answer(self: &Arc<Self>, call: &str, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
        let call = Call::named(call).ok_or(Refusal::NoCall)?;
        // Before the body is read: a stranger's costs nothing.
        let key = authenticate(headers, SystemTime::now())?;
        let body = self.read(call, body).await?;
        Ok(match call {
            Call::Register => {
                let request: RegisterNodeFleetRequest = decode(body)?;
                let node_id = self.admit(&key, &request.public_key).await?;
                RegisterNodeFleetResponse { node_id }.encode_to_vec()
            }
            Call::Activate => {
                let request: ActivateNodeRequest = decode(body)?;
                let node_id = self.admit(&key, &request.public_key).await?;
                self.arrive(node_id, key, self.silence_max(request.heartbeat_interval))?;
                ActivateNodeResponse { node_id }.encode_to_vec()
            }
            Call::Deactivate => {
                let request: DeactivateNodeRequest = decode(body)?;
                self.depart(request.node_id, &key).await?;
                DeactivateNodeResponse {}.encode_to_vec()
            }
            Call::Unregister => {
                let request: UnregisterNodeFleetRequest = decode(body)?;
                self.depart(request.node_id, &key).await?;
                self.ask(move |nodes| nodes.forget(request.node_id)).await?;
                UnregisterNodeFleetResponse {}.encode_to_vec()
            }
            Call::Heartbeat => {
                let request: SendNodeHeartbeatRequest = decode(body)?;
                self.heartbeat(request, key).await?.encode_to_vec()
            }
            Call::PullMessages => {
                let request: PullMessagesRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                self.pull(&visit).await?.encode_to_vec()
            }
            Call::PushMessages => {
                let request: PushMessagesRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                self.push(&visit, request).await?.encode_to_vec()
            }
            Call::GetRun => {
                let request: GetRunRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                let app = app_of(&visit, request.run_id)?;
                GetRunResponse { run: Some(run(request.run_id, &app)) }.encode_to_vec()
            }
            Call::GetFab => {
                let request: GetFabRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                let app = app_of(&visit, request.run_id)?;
                if request.hash_str != app.digest.hex() {
                    return Err(Refusal::NotWaited("program"));
                }
                let fab = Fab { hash_str: request.hash_str, content: app.content.clone(), ..Fab::default() };
                GetFabResponse { fab: Some(fab) }.encode_to_vec()
            }
            Call::PushObject => {
                let request: PushObjectRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                let stored = self.put(&visit, request).await?;
                PushObjectResponse { stored }.encode_to_vec()
            }
            Call::PullObject => {
                let request: PullObjectRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                let id = parse_id(&request.object_id).map_err(|_| Refusal::Malformed)?;
                let sent = visit.desk().sent.as_ref().map(|(_, message)| Arc::clone(message));
                let content = sent.and_then(|message| message.object(&id).cloned());
                let is_there = content.is_some();
                PullObjectResponse {
                    object_found: is_there,
                    object_available: is_there,
                    object_content: content.unwrap_or_default(),
                }
                .encode_to_vec()
            }
            Call::Confirm => {
                let request: ConfirmMessageReceivedRequest = decode(body)?;
                let visit = self.visit(request.node, key).await?;
                let sent = visit.desk().sent.as_ref().map(|(task, message)| (task.number, message.id().hex()));
                if let Some((number, _)) = sent.filter(|(_, id)| *id == request.message_object_id) {
                    visit.confirm(number).await;
                }
                ConfirmMessageReceivedResponse {}.encode_to_vec()
            }
        })
    }

    async fn read(&self, call: Call, body: Body) -> Result<Bytes, Refusal> {
        let is_large = matches!(call, Call::PushObject | Call::PushMessages);
        let max = if is_large { self.limits.body_bytes_max } else { REQUEST_BYTES_MAX };
        let _place = match is_large {
            true => Some(self.bodies.acquire().await.expect("it is never closed")),
            false => None,
        };
        match timeout(BODY_TIME_MAX, to_bytes(body, max)).await {
            Ok(Ok(body)) => Ok(body),
            // Of the two reasons the other is a connection that is gone, where nobody reads the answer.
            Ok(Err(_)) => Err(Refusal::TooLarge { max: max as u64 }),
            Err(_) => Err(Refusal::Busy("the request takes too long".to_owned())),
        }
    }

    /// Asks what is kept of nodes.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Nodes) -> Result<T, super::nodes::NodesError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let nodes = Arc::clone(&self.nodes);
        let answered = spawn_blocking(move || question(&*nodes)).await;
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                error!(error = %said(&*error), "cannot read or keep what is known of SuperNodes");
                Err(Refusal::Busy("what is known of SuperNodes cannot be read or kept now".to_owned()))
            }
            Err(error) => {
                error!(%error, "a question about SuperNodes ended in a panic");
                Err(Refusal::Busy("what is known of SuperNodes cannot be read now".to_owned()))
            }
        }
    }

    /// The number of a node that may take part.
    async fn admit(&self, key: &NodeKey, sent: &[u8]) -> Result<u64, Refusal> {
        if NodeKey::from_pem(sent).as_ref() != Ok(key) {
            return Err(Refusal::Foreign);
        }
        let key = key.clone();
        let asked = move |nodes: &dyn Nodes| Ok(if nodes.is_allowed(&key)? { Some(nodes.id_of(&key)?) } else { None });
        self.ask(asked).await?.ok_or(Refusal::NotListed)
    }

    fn silence_max(&self, interval_s: f64) -> Duration {
        let interval = match Duration::try_from_secs_f64(interval_s) {
            Ok(Duration::ZERO) => HEARTBEAT_INTERVAL,
            Ok(interval) => interval,
            // Beyond what a duration holds, for those who would rather not say.
            Err(_) if interval_s > 0.0 => Duration::MAX,
            Err(_) => HEARTBEAT_INTERVAL,
        };
        let interval = interval.min(self.limits.heartbeat_interval_max);
        // Who waits for messages is there.
        interval.saturating_mul(self.limits.heartbeats_missed_max).max(self.limits.hold * 2)
    }

    fn arrive(self: &Arc<Self>, id: u64, key: NodeKey, silence_max: Duration) -> Result<Arc<Visit>, Refusal> {
        let participant = Participant(format!("node/{id}"));
        let presence = self.board.arrive(participant, Door::Node).map_err(|error| Refusal::Busy(said(&error)))?;
        let (visit, attendance) = Visit::new((id, key), presence, silence_max, Instant::now());
        if let Some(earlier) = self.visits().insert(id, Arc::clone(&visit)) {
            earlier.leave();
        }
        info!(node = id, "a SuperNode has come");
        let (door, attended) = (Arc::downgrade(self), Arc::clone(&visit));
        let mut attending = self.attending.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = attending.try_join_next() {
            report(ended);
        }
        attending.spawn(async move {
            attend(Arc::clone(&attended), attendance).await;
            if let Some(door) = door.upgrade() {
                door.forget(&attended);
            }
        });
        Ok(visit)
    }

    /// Of the visits of a node only the one that is over.
    fn forget(&self, visit: &Arc<Visit>) {
        let mut visits = self.visits();
        if visits.get(&visit.id).is_some_and(|known| Arc::ptr_eq(known, visit)) {
            visits.remove(&visit.id);
            info!(node = visit.id, "a SuperNode has gone");
        }
    }

    /// The visit of whoever asks, which after a restart of ours begins with it.
    async fn visit(self: &Arc<Self>, node: Option<Node>, key: NodeKey) -> Result<Arc<Visit>, Refusal> {
        let id = node.ok_or(Refusal::Malformed)?.node_id;
        let known = self.visits().get(&id).cloned();
        if let Some(visit) = known.filter(|visit| !visit.is_over()) {
            if visit.key != key {
                return Err(Refusal::Foreign);
            }
            visit.touch(Instant::now());
            return Ok(visit);
        }
        let owner = key.clone();
        let asked = move |nodes: &dyn Nodes| {
            let is_it = nodes.key_of(id)?.as_ref() == Some(&owner);
            Ok((is_it, is_it && nodes.is_allowed(&owner)?))
        };
        match self.ask(asked).await? {
            (false, _) => Err(Refusal::Foreign),
            (true, false) => Err(Refusal::Revoked),
            (true, true) => self.arrive(id, key, self.silence_max(HEARTBEAT_INTERVAL.as_secs_f64())),
        }
    }

    async fn depart(&self, id: u64, key: &NodeKey) -> Result<(), Refusal> {
        let known = self.visits().get(&id).cloned();
        let owner = match &known {
            Some(visit) => Some(visit.key.clone()),
            None => self.ask(move |nodes| nodes.key_of(id)).await?,
        };
        if owner.as_ref() != Some(key) {
            return Err(Refusal::Foreign);
        }
        if let Some(visit) = known {
            visit.leave();
            self.forget(&visit);
        }
        Ok(())
    }

    async fn heartbeat(
        self: &Arc<Self>,
        request: SendNodeHeartbeatRequest,
        key: NodeKey,
    ) -> Result<SendNodeHeartbeatResponse, Refusal> {
        let visit = self.visit(request.node, key.clone()).await?;
        // A list may have changed since the node came.
        if !self.ask(move |nodes| nodes.is_allowed(&key)).await? {
            visit.leave();
            self.forget(&visit);
            return Err(Refusal::Revoked);
        }
        visit.set_silence_max(self.silence_max(request.heartbeat_interval));
        visit.touch(Instant::now());
        self.tidy();
        Ok(SendNodeHeartbeatResponse { success: true })
    }

    /// Lets go of objects that nobody will ask for any more.
    fn tidy(&self) {
        self.arrays.lock().unwrap_or_else(PoisonError::into_inner).retain(|shelved| shelved.sheet.strong_count() > 0);
    }

    async fn pull(&self, visit: &Visit) -> Result<PullMessagesResponse, Refusal> {
        let mut is_stopping = self.is_stopping.subscribe();
        let task = tokio::select! {
            task = timeout(self.limits.hold, visit.pull()) => task.ok().flatten(),
            _ = is_stopping.wait_for(|is_stopping| *is_stopping) => None,
        };
        visit.touch(Instant::now());
        let Some(task) = task else { return Ok(PullMessagesResponse::default()) };
        let Some(message) = self.message(visit, task).await? else { return Ok(PullMessagesResponse::default()) };
        self.counters.messages.fetch_add(1, Ordering::Relaxed);
        Ok(PullMessagesResponse {
            messages_list: vec![message.message.clone()],
            message_object_trees: vec![message.tree.clone()],
            reconnect: None,
        })
    }

    /// The message of a task, the same one where it was sent before.
    async fn message(&self, visit: &Visit, task: Arc<Task>) -> Result<Option<Arc<Outgoing>>, Refusal> {
        if let Some((sent, message)) = &visit.desk().sent
            && sent.number == task.number
        {
            return Ok(Some(Arc::clone(message)));
        }
        let Some((kind, sheet, config)) = order(&task.work) else { return Ok(None) };
        let arrays = self.arrays(sheet).await?;
        let metadata = Metadata {
            run_id: task.run.0,
            src_node_id: SERVER,
            dst_node_id: visit.id,
            group_id: task.round.to_string(),
            ttl: MESSAGE_LIFE.as_secs_f64(),
            message_type: kind.to_owned(),
            created_at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            ..Metadata::default()
        };
        let message = Arc::new(Outgoing::new(metadata, task.round, config, arrays));
        let mut desk = visit.desk();
        desk.upload = None;
        desk.sent = Some((task, Arc::clone(&message)));
        Ok(Some(message))
    }

    /// Made by the first who asks, while the others wait for it.
    async fn arrays(&self, sheet: &Arc<Sheet>) -> Result<Arc<Arrays>, Refusal> {
        self.tidy();
        let cell = {
            let mut shelf = self.arrays.lock().unwrap_or_else(PoisonError::into_inner);
            match shelf.iter().find(|shelved| std::ptr::eq(shelved.sheet.as_ptr(), Arc::as_ptr(sheet))) {
                Some(shelved) => Arc::clone(&shelved.arrays),
                None => {
                    let arrays = Arc::<OnceCell<_>>::default();
                    shelf.push(Shelved { sheet: Arc::downgrade(sheet), arrays: Arc::clone(&arrays) });
                    arrays
                }
            }
        };
        let made = cell.get_or_try_init(|| {
            let sheet = Arc::clone(sheet);
            async move { spawn_blocking(move || Arc::new(Arrays::new(&sheet))).await }
        });
        made.await.cloned().map_err(|error| {
            error!(%error, "objects for SuperNodes could not be made");
            Refusal::Busy("the message could not be made".to_owned())
        })
    }

    async fn push(&self, visit: &Visit, request: PushMessagesRequest) -> Result<PushMessagesResponse, Refusal> {
        let ([message], [tree]) = (request.messages_list.as_slice(), request.message_object_trees.as_slice()) else {
            return Err(Refusal::Malformed);
        };
        let metadata = message.metadata.as_ref().ok_or(Refusal::Malformed)?;
        let sent = visit.desk().sent.clone();
        let is_reply = |sent: &Outgoing| {
            let to = sent.message.metadata.as_ref();
            to.is_some_and(|to| to.run_id == metadata.run_id && to.message_id == metadata.reply_to_message_id)
                && metadata.src_node_id == visit.id
        };
        let (task, sent) = sent.filter(|(_, sent)| is_reply(sent)).ok_or(Refusal::NotWaited("reply"))?;
        let session = session()?;
        if let Some(error) = &message.error {
            let reason: String = error.reason.chars().take(REASON_CHARS_MAX).collect();
            let reason = format!("the SuperNode failed with code {}: {reason}", error.code);
            self.fail(visit, task, session.clone(), reason).await;
            return Ok(pushed(&metadata.message_id, Vec::new(), session));
        }
        let upload = names(tree, self.limits.reply_objects_max).map_err(Refusal::from).and_then(|names| {
            let root = *names.last().expect("a tree has a root");
            if root.hex() != metadata.message_id {
                return Err(Refusal::Malformed);
            }
            let this = (Arc::clone(&task), root, session);
            let known = |id: &_| sent.object(id).cloned();
            Ok(Upload::new(this, &names, known, self.limits.reply_bytes_max, Arc::clone(&self.room)))
        });
        let upload = match upload {
            Ok(upload) => upload,
            Err(refusal) => {
                self.fail(visit, task, String::new(), said(&refusal)).await;
                return Err(refusal);
            }
        };
        let mut desk = visit.desk();
        // A node that has not heard our answer says the same again, and goes on with what it has sent.
        let upload = match desk.upload.take() {
            Some(earlier) if earlier.root == upload.root && earlier.task.number == upload.task.number => earlier,
            _ => upload,
        };
        let lacking = upload.lacking().map(revoada_core::Digest::hex).collect();
        let answer = pushed(&metadata.message_id, lacking, upload.session.clone());
        desk.upload = Some(upload);
        Ok(answer)
    }

    async fn put(&self, visit: &Visit, request: PushObjectRequest) -> Result<bool, Refusal> {
        let id = parse_id(&request.object_id).map_err(|_| Refusal::Malformed)?;
        let content = match request.object_content.len() {
            length if length <= COPIED_BYTES_MAX => Bytes::copy_from_slice(&request.object_content),
            _ => request.object_content,
        };
        let hashed = content.clone();
        let is_it = match content.len() {
            length if length <= COPIED_BYTES_MAX => id_of(&hashed) == id,
            _ => spawn_blocking(move || id_of(&hashed) == id).await.unwrap_or(false),
        };
        let (put, ended) = {
            let mut desk = visit.desk();
            let is_done = desk.done.as_ref() == Some(&request.session_id);
            match &mut desk.upload {
                Some(upload) if upload.session == request.session_id => {
                    let put = if is_it { upload.put(id, content) } else { Put::Wrong };
                    (put, if put.ends() { desk.upload.take() } else { None })
                }
                _ if is_done => return Ok(true),
                _ => return Err(Refusal::NotWaited("object")),
            }
        };
        let refusal = match put {
            Put::Kept => return Ok(true),
            Put::Unwanted => return Ok(false),
            Put::Full => return Err(Refusal::Busy("too many replies are coming in".to_owned())),
            Put::Whole => None,
            Put::TooLarge => Some(Refusal::TooLarge { max: self.limits.reply_bytes_max }),
            Put::Wrong => Some(Refusal::WrongObject),
        };
        let upload = ended.expect("it was taken for what ends it");
        match refusal {
            None => {
                self.finish(visit, upload).await;
                Ok(true)
            }
            Some(refusal) => {
                // Whoever waits for it learns now that it will not come.
                self.fail(visit, Arc::clone(&upload.task), String::new(), said(&refusal)).await;
                Err(refusal)
            }
        }
    }

    /// Hands in a reply that is whole.
    async fn finish(&self, visit: &Visit, mut upload: Upload) {
        let (task, root, contents) = (Arc::clone(&upload.task), upload.root, upload.take_contents());
        let (bytes_max, asked) = (self.limits.reply_bytes_max, Arc::clone(&task));
        let read = spawn_blocking(move || match &asked.work {
            Work::Evaluate { .. } => incoming::evaluate(&root, &contents),
            _ => incoming::fit(&root, &contents, bytes_max),
        });
        let reply = match read.await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => Reply::Failed(said(&error)),
            Err(error) => {
                error!(%error, "a reply of a SuperNode could not be read");
                Reply::Failed("the reply could not be read".to_owned())
            }
        };
        self.hand_in(visit, task, std::mem::take(&mut upload.session), reply).await;
    }

    async fn fail(&self, visit: &Visit, task: Arc<Task>, session: String, reason: String) {
        warn!(node = visit.id, task = task.number, reason, "a SuperNode has no answer to a task");
        self.hand_in(visit, task, session, Reply::Failed(reason)).await;
    }

    /// The task is done with, and so is what the node was sent with it.
    async fn hand_in(&self, visit: &Visit, task: Arc<Task>, session: String, reply: Reply) {
        {
            let mut desk = visit.desk();
            desk.done = Some(session).filter(|session| !session.is_empty());
            desk.upload = None;
            if desk.sent.as_ref().is_some_and(|(sent, _)| sent.number == task.number) {
                desk.sent = None;
            }
        }
        self.counters.replies.fetch_add(1, Ordering::Relaxed);
        visit.answer(task, reply).await;
    }

    /// Sends everybody away, and waits until they have gone.
    async fn close(&self) {
        for (_, visit) in std::mem::take(&mut *self.visits()) {
            visit.leave();
        }
        let mut attending = std::mem::take(&mut *self.attending.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(ended) = attending.join_next().await {
            report(ended);
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(failed) = ended
        && failed.is_panic()
    {
        error!(error = %failed, "the visit of a SuperNode ended in a panic");
    }
}

/// An error and its causes, for people.
fn said(error: &(dyn std::error::Error + 'static)) -> String {
    sentence_of(causes(error))
}

fn decode<T: prost::Message + Default>(body: Bytes) -> Result<T, Refusal> {
    T::decode(body).map_err(|_| Refusal::Malformed)
}

/// What a node is asked, for which weights and with what.
fn order(work: &Work) -> Option<(&'static str, &Arc<Sheet>, &Config)> {
    match work {
        Work::Fit { weights, config } => Some(("train", weights, config)),
        Work::Evaluate { weights, config } => Some(("evaluate", weights, config)),
        Work::Parameters { .. } | Work::Leave => None,
    }
}

/// The program of the run that a node works for.
fn app_of(visit: &Visit, run: u64) -> Result<Arc<App>, Refusal> {
    let sent = visit.desk().sent.as_ref().map(|(task, _)| Arc::clone(task)).filter(|task| task.run.0 == run);
    let app = sent.as_ref().and_then(|task| order(&task.work)).and_then(|(_, sheet, _)| sheet.app().cloned());
    app.ok_or(Refusal::NotWaited("run"))
}

fn run(id: u64, app: &App) -> Run {
    Run {
        run_id: id,
        fab_id: app.id.clone(),
        fab_version: app.version.clone(),
        fab_hash: app.digest.hex(),
        status: Some(RunStatus { status: "running".to_owned(), ..RunStatus::default() }),
        primary_task_type: "flwr-serverapp".to_owned(),
        series_id: id,
    }
}

fn session() -> Result<String, Refusal> {
    let number = getrandom::u64().map_err(|_| Refusal::Busy("the system has no random numbers".to_owned()))?;
    Ok(format!("{number:016x}"))
}

fn pushed(message_id: &str, objects_to_push: Vec<String>, session_id: String) -> PushMessagesResponse {
    let results = [(message_id.to_owned(), 0)].into();
    PushMessagesResponse { results, objects_to_push, session_id, reconnect: None }
}
