//! Lets connections in, most of them by TLS: no handshake waits for another, and a crowd that says nothing keeps nobody out.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, warn};

use crate::bucket::Bucket;

/// Where the system is out of descriptors or memory, trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub struct AcceptorLimits {
    /// How many handshakes may be under way; at the bound, the oldest is given up for the newest.
    pub handshakes_max: usize,
    /// How long one may take.
    pub handshake_timeout: Duration,
    /// How many connections may be open, those in a handshake too; more are refused.
    pub connections_max: usize,
    /// How many connections may come in a second; more are refused.
    pub connections_per_second_max: u32,
}

impl Default for AcceptorLimits {
    /// For 10,000 devices, which come back within a minute after a power cut, and a machine that allows the descriptors.
    fn default() -> Self {
        Self {
            handshakes_max: 1024,
            handshake_timeout: Duration::from_secs(10),
            connections_max: 15_000,
            connections_per_second_max: 1000,
        }
    }
}

/// Since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptorStats {
    /// Connections that are open, those in a handshake too.
    pub open: u64,
    /// Handshakes that were completed.
    pub accepted: u64,
    /// At `connections_max`.
    pub refused_full: u64,
    /// At `connections_per_second_max`.
    pub refused_rate: u64,
    /// At `handshakes_max`.
    pub displaced: u64,
    /// Handshakes that failed, most of them for a certificate.
    pub failed: u64,
    pub timed_out: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    open: AtomicU64,
    accepted: AtomicU64,
    refused_full: AtomicU64,
    refused_rate: AtomicU64,
    displaced: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
}

impl Counters {
    pub(crate) fn read(&self) -> AcceptorStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        AcceptorStats {
            open: of(&self.open),
            accepted: of(&self.accepted),
            refused_full: of(&self.refused_full),
            refused_rate: of(&self.refused_rate),
            displaced: of(&self.displaced),
            failed: of(&self.failed),
            timed_out: of(&self.timed_out),
        }
    }
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What is done with a connection before it is served.
pub(crate) trait Greet: Send + Sync + 'static {
    type Stream: Send + 'static;

    fn greet(&self, stream: TcpStream) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Greet for Arc<ServerConfig> {
    type Stream = TlsStream<TcpStream>;

    async fn greet(&self, stream: TcpStream) -> io::Result<Self::Stream> {
        TlsAcceptor::from(Arc::clone(self)).accept(stream).await
    }
}

/// For ports that an operator may leave open: without TLS, a connection is served as it comes.
impl Greet for Option<Arc<ServerConfig>> {
    type Stream = Box<dyn Duplex>;

    async fn greet(&self, stream: TcpStream) -> io::Result<Self::Stream> {
        match self {
            Some(tls) => Ok(Box::new(tls.greet(stream).await?)),
            None => Ok(Box::new(stream)),
        }
    }
}

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A listener whose connections are served, each in a task of its own, until it is told to stop.
pub(crate) struct Acceptor<G = Arc<ServerConfig>> {
    pub(crate) listener: TcpListener,
    pub(crate) tls: G,
    pub(crate) limits: AcceptorLimits,
    pub(crate) counters: Arc<Counters>,
}

impl<G: Greet> Acceptor<G> {
    /// Serves until `stop` has a deadline, or its sender is gone, which is one that has passed. Then lets nobody in any more
    /// and waits for the connections to end, which whoever serves them tells them; returns how many had to be cut.
    pub(crate) async fn run<F>(
        self,
        mut stop: watch::Receiver<Option<Instant>>,
        serve: impl Fn(G::Stream, SocketAddr) -> F + Send + Sync + 'static,
    ) -> usize
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { listener, tls, limits, counters } = self;
        let mut rate = Bucket::new(u64::from(limits.connections_per_second_max), Instant::now());
        let (tls, serve) = (Arc::new(tls), Arc::new(serve));
        let handshakes = Arc::new(Handshakes::default());
        let mut connections = JoinSet::new();
        let deadline = loop {
            let accepted = tokio::select! {
                deadline = stopped(&mut stop) => break deadline,
                Some(ended) = connections.join_next() => {
                    report(ended);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if connections.len() >= limits.connections_max {
                count(&counters.refused_full);
                continue;
            }
            if !rate.try_take(Instant::now()) {
                count(&counters.refused_rate);
                continue;
            }
            let open = Open::new(Arc::clone(&counters));
            let handshake = handshakes.begin(limits.handshakes_max, &counters);
            let (tls, serve, time) = (Arc::clone(&tls), Arc::clone(&serve), limits.handshake_timeout);
            connections.spawn(async move {
                if let Some(stream) = greet(&*tls, stream, handshake, time, &open.0).await {
                    serve(stream, address).await;
                }
            });
        };
        drop(listener);
        handshakes.give_up();
        while let Ok(Some(ended)) = timeout_at(deadline, connections.join_next()).await {
            report(ended);
        }
        let cut = connections.len();
        connections.shutdown().await;
        cut
    }
}

async fn stopped(stop: &mut watch::Receiver<Option<Instant>>) -> Instant {
    match stop.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.expect("it was waited for"),
        Err(_) => Instant::now(),
    }
}

/// What panicked has ended one connection, and is a defect of ours all the same.
fn report(ended: Result<(), JoinError>) {
    if let Err(failed) = ended
        && failed.is_panic()
    {
        error!(error = %failed, "a connection ended in a panic");
    }
}

async fn greet<G: Greet>(
    tls: &G,
    stream: TcpStream,
    mut handshake: Handshake,
    time: Duration,
    counters: &Counters,
) -> Option<G::Stream> {
    // Answers are small, and nobody waits for more to send.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection was gone before its handshake");
        count(&counters.failed);
        return None;
    }
    let greeted = tokio::select! {
        greeted = timeout(time, tls.greet(stream)) => greeted,
        _ = &mut handshake.given_up => return None,
    };
    match greeted {
        Ok(Ok(stream)) => {
            count(&counters.accepted);
            Some(stream)
        }
        Ok(Err(error)) => {
            debug!(%error, "a handshake failed");
            count(&counters.failed);
            None
        }
        Err(_) => {
            count(&counters.timed_out);
            None
        }
    }
}

/// Counts a connection for as long as it is there.
struct Open(Arc<Counters>);

impl Open {
    fn new(counters: Arc<Counters>) -> Self {
        count(&counters.open);
        Self(counters)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The handshakes under way, the oldest first.
#[derive(Default)]
struct Handshakes(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    next: u64,
    under_way: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Handshakes {
    fn begin(self: &Arc<Self>, max: usize, counters: &Counters) -> Handshake {
        let (alive, given_up) = oneshot::channel();
        let mut queue = self.lock();
        if queue.under_way.len() >= max.max(1) && queue.under_way.pop_first().is_some() {
            count(&counters.displaced);
        }
        let number = queue.next;
        queue.next += 1;
        queue.under_way.insert(number, alive);
        Handshake { number, all: Arc::clone(self), given_up }
    }

    fn give_up(&self) {
        self.lock().under_way.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, until it is dropped.
struct Handshake {
    number: u64,
    all: Arc<Handshakes>,
    /// Resolves when it is no longer in the queue.
    given_up: oneshot::Receiver<()>,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.lock().under_way.remove(&self.number);
    }
}
