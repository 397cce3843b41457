//! The door for programs that call Flower's `start_client`, from version 1.0 on: the stream `FlowerService/Join` of gRPC.
//!
//! A stream is a participant, for as long as it is open. We speak first, and each of our messages is answered with one. Such
//! clients show nothing that says who they are: whoever reaches the port takes part.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, Method, Request};
use axum::response::Response;
use http_body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prost::bytes::Bytes;
use revoada_core::to_hex;
use revoada_federated::Participant;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};
use tracing::{debug, error, warn};

use super::framing::{FramingError, Incoming};
use super::words;
use crate::acceptor::{self, Acceptor, AcceptorLimits, AcceptorStats, Duplex, count};
use crate::learning::{Board, Door, Presence, Reply, Task, Work};

const PATH: &str = "/flwr.proto.FlowerService/Join";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// How long a client may take to close the stream that it was told to leave.
const LEAVE_TIME_MAX: Duration = Duration::from_secs(10);
/// What may be on its way to us before we have looked at it, of one stream and of a connection. Windows of 64 KiB, which are
/// usual, make whoever sends weights wait for us all the time.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Weights come in few large frames.
const FRAME_BYTES_MAX: u32 = 256 << 10;

/// What [`JoinDoor::start`] takes.
pub struct JoinDoorOptions {
    pub listener: TcpListener,
    /// Of [`flower_config`](crate::tls::flower_config); `None` for a port that is open to whoever can read along.
    pub tls: Option<Arc<ServerConfig>>,
    pub board: Arc<Board>,
    pub limits: JoinDoorLimits,
}

#[derive(Clone, Debug)]
pub struct JoinDoorLimits {
    pub acceptor: AcceptorLimits,
    /// Of what a client answers. One who sends more has failed, and its stream ends.
    pub message_bytes_max: usize,
    /// Of one connection, which clients in one process share.
    pub streams_max: u32,
    /// How often a client that says nothing is asked whether it is there: it may learn for hours.
    pub ping_every: Duration,
    /// How long it may take to say so, after which its connection is closed.
    pub ping_timeout: Duration,
    /// How long a connection may be open without a stream.
    pub unused_max: Duration,
    /// What clients that wait are told when the door closes: to come again after this time, and to give up where nobody opens.
    pub come_again_after: Duration,
}

impl Default for JoinDoorLimits {
    fn default() -> Self {
        Self {
            acceptor: AcceptorLimits::default(),
            // Flower's own bound.
            message_bytes_max: i32::MAX as usize,
            streams_max: 1024,
            ping_every: Duration::from_secs(20),
            ping_timeout: Duration::from_secs(20),
            unused_max: Duration::from_secs(10),
            come_again_after: Duration::from_secs(30),
        }
    }
}

/// Since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinDoorStats {
    pub acceptor: AcceptorStats,
    /// At the bound of the board.
    pub refused_participants: u64,
    /// Answers at `message_bytes_max`.
    pub refused_messages: u64,
    /// Streams that ended with an error of the client's: it broke off, or spoke out of turn.
    pub broken: u64,
    /// Connections that were closed because they had no stream.
    pub unused: u64,
}

#[derive(Debug, Default)]
struct Counters {
    refused_participants: AtomicU64,
    refused_messages: AtomicU64,
    broken: AtomicU64,
    unused: AtomicU64,
}

/// A door that is open. Dropped, it cuts all connections at once.
pub struct JoinDoor {
    accepting: Arc<acceptor::Counters>,
    counters: Arc<Counters>,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<usize>,
}

impl JoinDoor {
    pub fn start(options: JoinDoorOptions) -> Self {
        let JoinDoorOptions { listener, tls, board, limits } = options;
        let counters = Arc::<Counters>::default();
        let accepting = Arc::<acceptor::Counters>::default();
        let (stop, stopped) = watch::channel(None);
        let acceptor = Acceptor { listener, tls, limits: limits.acceptor.clone(), counters: Arc::clone(&accepting) };
        let host = Arc::new(Host {
            server: server(&limits),
            limits,
            board,
            counters: Arc::clone(&counters),
            stopped: stopped.clone(),
        });
        let task = tokio::spawn(acceptor.run(stopped, move |stream, _| Arc::clone(&host).serve(stream)));
        Self { accepting, counters, stop, task }
    }

    pub fn stats(&self) -> JoinDoorStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JoinDoorStats {
            acceptor: self.accepting.read(),
            refused_participants: of(&self.counters.refused_participants),
            refused_messages: of(&self.counters.refused_messages),
            broken: of(&self.counters.broken),
            unused: of(&self.counters.unused),
        }
    }

    /// Lets nobody in any more and sends everybody away, those who are at work as soon as they have answered, but not later
    /// than after `time`. Returns how many connections had to be cut.
    pub async fn shutdown(self, time: Duration) -> usize {
        self.stop.send_replace(Some(Instant::now() + time));
        self.task.await.unwrap_or_else(|error| {
            error!(%error, "the door for Flower's clients ended in a panic");
            0
        })
    }
}

fn server(limits: &JoinDoorLimits) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new()).http2_only();
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(limits.streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .keep_alive_interval(Some(limits.ping_every))
        .keep_alive_timeout(limits.ping_timeout);
    server
}

/// What all connections share.
struct Host {
    server: auto::Builder<TokioExecutor>,
    limits: JoinDoorLimits,
    board: Arc<Board>,
    counters: Arc<Counters>,
    stopped: watch::Receiver<Option<Instant>>,
}

impl Host {
    /// Serves one connection until it ends, or is there for nothing.
    async fn serve(self: Arc<Self>, stream: Box<dyn Duplex>) {
        let (streams, mut open) = watch::channel(0);
        let caller = Caller { host: Arc::clone(&self), streams: Arc::new(streams) };
        let connection = self.server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(caller));
        let mut connection = pin!(connection);
        let mut unused = pin!(unused(&mut open, self.limits.unused_max));
        let mut stopped = self.stopped.clone();
        let mut is_stopping = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(%error, "a connection of a client of Flower ended");
                    }
                    return;
                }
                // An error is a door that was dropped, which cuts the connection.
                _ = stopped.wait_for(Option::is_some), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = unused.as_mut() => {
                    count(&self.counters.unused);
                    return;
                }
            }
        }
    }
}

/// Returns once there was no stream for so long.
async fn unused(open: &mut watch::Receiver<usize>, time: Duration) {
    loop {
        let none = open.wait_for(|open| *open == 0).await.map(|_| ());
        let some = timeout(time, open.wait_for(|open| *open > 0)).await;
        if none.is_err() || some.is_err() {
            return;
        }
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct Caller {
    host: Arc<Host>,
    /// How many of them are open.
    streams: Arc<watch::Sender<usize>>,
}

impl<B> tower::Service<Request<B>> for Caller
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let response = self.answer(request.map(Body::new)).unwrap_or_else(|status| status.into_http());
        std::future::ready(Ok(response))
    }
}

impl Caller {
    fn answer(&self, request: Request<Body>) -> Result<Response, Status> {
        if request.method() != Method::POST || request.uri().path() != PATH {
            return Err(Status::unimplemented(format!("this port speaks `{PATH}` only")));
        }
        if self.host.stopped.borrow().is_some() {
            return Err(Status::unavailable("the service stops"));
        }
        let presence = self.host.board.arrive(name()?, Door::Join).map_err(|full| {
            count(&self.host.counters.refused_participants);
            warn!(max = full.max, "there is no room for a client of Flower");
            Status::resource_exhausted(full.to_string())
        })?;
        let open = Open::new(Arc::clone(&self.streams));
        let (pieces, outgoing) = mpsc::channel(1);
        let incoming = Incoming::new(request.into_body(), self.host.limits.message_bytes_max);
        let conversation = Conversation { presence, incoming, pieces, host: Arc::clone(&self.host), _open: open };
        let mut conversations = JoinSet::new();
        conversations.spawn(conversation.hold());
        let mut response = Response::new(Body::new(Outgoing { pieces: outgoing, conversations }));
        response.headers_mut().insert(CONTENT_TYPE, GRPC);
        Ok(response)
    }
}

/// Clients bring no name along.
fn name() -> Result<Participant, Status> {
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(|error| {
        error!(%error, "cannot draw a name for a client of Flower");
        internal()
    })?;
    Ok(Participant(format!("join/{}", to_hex(&name))))
}

/// Our own trouble, which was logged.
fn internal() -> Status {
    Status::internal("the service has an internal trouble")
}

/// Counts a stream for as long as it is there.
struct Open(Arc<watch::Sender<usize>>);

impl Open {
    fn new(streams: Arc<watch::Sender<usize>>) -> Self {
        streams.send_modify(|open| *open += 1);
        Self(streams)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// What is sent on a stream, and the one conversation that it comes from. Whoever sends it drops it once the stream is gone,
/// and the conversation with it.
struct Outgoing {
    pieces: mpsc::Receiver<Bytes>,
    conversations: JoinSet<Result<(), Status>>,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(piece) = ready!(self.pieces.poll_recv(cx)) {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(ended) = ready!(self.conversations.poll_join_next(cx)) else { return Poll::Ready(None) };
        let status = match ended {
            Ok(ended) => ended.err().unwrap_or_else(|| Status::new(Code::Ok, "")),
            Err(failed) => {
                error!(error = %failed, "a conversation with a client of Flower ended in a panic");
                internal()
            }
        };
        let mut trailers = HeaderMap::new();
        if let Err(error) = status.add_header(&mut trailers) {
            debug!(%error, "cannot say how a stream ended");
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

/// Asks one client, and hears it.
struct Conversation {
    presence: Presence,
    incoming: Incoming,
    pieces: mpsc::Sender<Bytes>,
    host: Arc<Host>,
    _open: Open,
}

/// What comes to somebody who waits.
enum Turn {
    Task(Arc<Task>),
    Stop,
    /// The client is gone.
    End,
}

impl Conversation {
    async fn hold(mut self) -> Result<(), Status> {
        let ended = self.take_turns().await;
        if let Err(status) = &ended {
            debug!(participant = %self.presence.participant(), %status, "a stream of a client of Flower ended");
        }
        ended
    }

    async fn take_turns(&mut self) -> Result<(), Status> {
        let mut last = 0;
        loop {
            let task = match self.turn(last).await? {
                Turn::Task(task) => task,
                Turn::Stop => return self.part(words::leave(self.host.limits.come_again_after.as_secs())).await,
                Turn::End => return Ok(()),
            };
            last = task.number;
            // The first of many makes the bytes of their weights, which may take a while.
            let asked = Arc::clone(&task);
            let asked = spawn_blocking(move || words::ask(&asked)).await;
            let asked = asked.map_err(|failed| {
                error!(error = %failed, "the making of a message ended in a panic");
                internal()
            })?;
            if matches!(task.work, Work::Leave) {
                return self.part(asked.unwrap_or_default()).await;
            }
            let reply = match asked {
                Ok(pieces) => {
                    self.send(pieces).await;
                    let Some(message) = self.listen(&task).await? else { return Ok(()) };
                    words::understand(&task, message)
                }
                Err(too_large) => Reply::Failed(too_large.to_string()),
            };
            self.answer(task, reply).await;
        }
    }

    async fn turn(&mut self, last: u64) -> Result<Turn, Status> {
        let mut stopped = self.host.stopped.clone();
        tokio::select! {
            task = self.presence.next(last) => match task {
                Some(task) => Ok(Turn::Task(task)),
                None => Err(Status::aborted("somebody else came under the same name")),
            },
            _ = stopped.wait_for(Option::is_some) => Ok(Turn::Stop),
            more = self.incoming.fill() => match more {
                Ok(false) => Ok(Turn::End),
                Ok(true) => {
                    count(&self.host.counters.broken);
                    Err(Status::invalid_argument("the client spoke before it was asked"))
                }
                Err(error) => Err(self.broken(&error)),
            },
        }
    }

    /// Nobody takes the pieces of a stream that is gone, which is noticed where its answer is waited for.
    async fn send(&mut self, pieces: Vec<Bytes>) {
        for piece in pieces {
            if self.pieces.send(piece).await.is_err() {
                return;
            }
        }
    }

    /// The client's answer; `None` if it is gone.
    async fn listen(&mut self, task: &Arc<Task>) -> Result<Option<Bytes>, Status> {
        let error = match self.incoming.message().await {
            Ok(message) => return Ok(message),
            Err(error) => error,
        };
        if let FramingError::TooLong { bytes, max } = error {
            count(&self.host.counters.refused_messages);
            let why = format!("its answer has {bytes} bytes, and may have {max}");
            self.answer(Arc::clone(task), Reply::Failed(why)).await;
            return Err(Status::resource_exhausted(error.to_string()));
        }
        Err(self.broken(&error))
    }

    fn broken(&self, error: &FramingError) -> Status {
        count(&self.host.counters.broken);
        Status::invalid_argument(error.to_string())
    }

    /// The protocol has no words for whether an answer counts.
    async fn answer(&mut self, task: Arc<Task>, reply: Reply) {
        let (number, participant) = (task.number, self.presence.participant());
        if let Err(why) = self.presence.answer(task, reply).await {
            debug!(%participant, task = number, why, "an answer of a client of Flower does not count");
        }
    }

    /// Sends the client away. It need not say good-bye: most close the stream at once.
    async fn part(&mut self, leave: Vec<Bytes>) -> Result<(), Status> {
        self.send(leave).await;
        let gone = async { while let Ok(Some(_)) = self.incoming.message().await {} };
        if timeout(LEAVE_TIME_MAX, gone).await.is_err() {
            debug!(participant = %self.presence.participant(), "a client of Flower stays that was told to leave");
        }
        Ok(())
    }
}
