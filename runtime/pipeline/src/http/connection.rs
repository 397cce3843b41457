//! Connections that cannot pile up: there are only so many, and one whose peer takes nothing for
//! long is cut.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Enough for a wall of screens and a scraper. Further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 64;

/// A peer that takes no byte for so long while there are some to take has gone.
const STALL_MAX: Duration = Duration::from_secs(10);

/// A connection on which nothing was asked or answered for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

pub(super) struct BoundedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl BoundedListener {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }
}

impl Listener for BoundedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let permit = self.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        // The inner `accept` logs errors and tries again.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Pictures are written whole; waiting to fill a segment would only delay their ends.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "cannot disable Nagle's algorithm");
        }
        let (idle, stalled) = (Patience::new(IDLE_MAX), Patience::new(STALL_MAX));
        (Connection { stream, idle, stalled, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A socket that gives up on its peer.
pub(super) struct Connection {
    stream: TcpStream,
    /// Waits for something to read, with nothing written meanwhile.
    idle: Patience,
    /// Waits for room to write.
    stalled: Patience,
    _permit: OwnedSemaphorePermit,
}

/// How long an operation has been pending.
struct Patience {
    limit: Duration,
    pending: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { limit, pending: None }
    }

    /// Passes a result on, or an error where it has been pending for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.pending = None;
            return result;
        }
        let limit = self.limit;
        ready!(self.pending.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.idle.watch(context, result)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        if result.is_ready() {
            self.idle.pending = None;
        }
        self.stalled.watch(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
