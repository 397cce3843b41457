//! The port of SuperNodes: HTTP/1.1, with TLS or without.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::NodeDoor;
use super::attendance::report;
use crate::acceptor::{Acceptor, AcceptorLimits, Counters};
use crate::bucket::Bucket;

/// Until a request begins, too: a node that trains for longer connects again.
const HEADERS_TIME_MAX: Duration = Duration::from_secs(60);
const HEADERS_MAX: usize = 64;
/// Where the system is out of descriptors or memory, trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl NodeDoor {
    /// Serves until `stop` has a deadline, or its sender is gone; then nobody is let in any more, and requests under way may end
    /// until the deadline. All nodes have gone once it returns how many connections had to be cut.
    ///
    /// Without TLS the port is for a network where everybody is trusted: the client needs `--insecure` there.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        stop: watch::Receiver<Option<Instant>>,
    ) -> usize {
        let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
        server.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_TIME_MAX).max_headers(HEADERS_MAX);
        let serving = Arc::new(Serving { server, door: Arc::clone(&self), stop: stop.clone() });
        let limits = self.limits.acceptor.clone();
        let accepting = async {
            match tls {
                Some(tls) => {
                    let acceptor = Acceptor { listener, tls, limits, counters: Arc::<Counters>::default() };
                    acceptor.run(stop.clone(), move |stream, _| Arc::clone(&serving).converse(stream)).await
                }
                None => {
                    let serve = move |stream| Arc::clone(&serving).converse(stream);
                    accept_plain(listener, limits, stop.clone(), serve).await
                }
            }
        };
        let stopping = async {
            stopped(&mut stop.clone()).await;
            self.is_stopping.send_replace(true);
            std::future::pending::<()>().await;
        };
        let cut = tokio::select! {
            cut = accepting => cut,
            () = stopping => unreachable!("it never ends"),
        };
        self.close().await;
        cut
    }
}

async fn stopped(stop: &mut watch::Receiver<Option<Instant>>) -> Instant {
    match stop.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.expect("it was waited for"),
        Err(_) => Instant::now(),
    }
}

struct Serving {
    server: auto::Builder<TokioExecutor>,
    door: Arc<NodeDoor>,
    stop: watch::Receiver<Option<Instant>>,
}

impl Serving {
    async fn converse(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = TowerToHyperService::new(self.door.router());
        let mut connection = pin!(self.server.serve_connection(TokioIo::new(stream), service));
        let mut stop = self.stop.clone();
        let served = tokio::select! {
            served = connection.as_mut() => served,
            _ = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            debug!(%error, "a connection of a SuperNode ended");
        }
    }
}

/// As [`Acceptor`] does it, where there is no handshake.
async fn accept_plain<F>(
    listener: TcpListener,
    limits: AcceptorLimits,
    mut stop: watch::Receiver<Option<Instant>>,
    serve: impl Fn(TcpStream) -> F,
) -> usize
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut rate = Bucket::new(u64::from(limits.connections_per_second_max), Instant::now());
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
        match accepted {
            Ok((stream, _)) if connections.len() < limits.connections_max && rate.try_take(Instant::now()) => {
                // Answers are small, and nobody waits for more to send.
                if stream.set_nodelay(true).is_ok() {
                    connections.spawn(serve(stream));
                }
            }
            Ok(_) => debug!("a connection of a SuperNode was refused for a full port"),
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    };
    drop(listener);
    while let Ok(Some(ended)) = timeout_at(deadline, connections.join_next()).await {
        report(ended);
    }
    let cut = connections.len();
    connections.shutdown().await;
    cut
}
