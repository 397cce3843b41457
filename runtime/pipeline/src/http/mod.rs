//! The pipeline's own web server: live pictures, statistics and metrics.
//!
//! | route | what |
//! |---|---|
//! | `/` | a page that shows every stream live |
//! | `/streams/<id>.mjpeg` | the stream as Motion JPEG |
//! | `/streams/<id>.jpg` | its latest picture |
//! | `/api/streams` | what the run and each stream do, as JSON; `control` says whether streams can be added and removed |
//! | `/api/streams/<id>/recordings` | a POST records the stream, where `control` allows it |
//! | `/api/events` | the latest 100 events of lines, regions and directions, as JSON |
//! | `/metrics` | metrics, as the pipeline's callback prints them |
//! | `/healthz` | `ok` |
//!
//! The server runs on a thread of its own and never holds up the pipeline: it sees the latest frame
//! of each stream and nothing else. A picture is encoded only while somebody watches, once for all
//! who do. A watcher that reads slowly skips pictures; one that stops reading is cut off.
//!
//! It has no passwords and no TLS: bind it to an address that only those can reach who may watch.

mod connection;
mod hub;
mod routes;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use crate::SinkError;
use connection::BoundedListener;

pub use hub::{Hub, RunStatus, StreamOptions, StreamStatus};

/// How long open requests may take to end once the server is told to stop.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(1);

/// Two pictures are encoded at once, and no more.
const ENCODER_THREADS_MAX: usize = 2;

/// Serves until it is dropped, which waits for its thread.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes the address at once, so that a port in use is found here.
    pub fn bind(address: SocketAddr, hub: Arc<Hub>) -> Result<Self, SinkError> {
        let serve = |source| SinkError::Serve { address: address.to_string(), source };
        let listener = TcpListener::bind(address).map_err(|source| serve(explained(source)))?;
        listener.set_nonblocking(true).map_err(serve)?;
        let address = listener.local_addr().map_err(serve)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(ENCODER_THREADS_MAX)
            .build()
            .map_err(serve)?;
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || {
                if let Err(error) = runtime.block_on(run(listener, hub, stopped)) {
                    tracing::error!(%address, %error, "the HTTP server ended");
                }
                // An encoder at work ends within a picture's time.
                runtime.shutdown_timeout(SHUTDOWN_DEADLINE);
            })
            .map_err(serve)?;
        tracing::info!(%address, "serving HTTP");
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens: with the port it was given where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(address = %self.address, "the HTTP server panicked");
        }
    }
}

fn explained(source: io::Error) -> io::Error {
    match source.kind() {
        io::ErrorKind::AddrInUse => io::Error::new(source.kind(), "another program uses this port"),
        io::ErrorKind::AddrNotAvailable => io::Error::new(source.kind(), "this machine has no such address"),
        io::ErrorKind::PermissionDenied => {
            io::Error::new(source.kind(), "this port is for privileged programs; use one above 1023")
        }
        _ => source,
    }
}

async fn run(listener: TcpListener, hub: Arc<Hub>, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
    let listener = BoundedListener::new(tokio::net::TcpListener::from_std(listener)?);
    let router = routes::router(hub, stopped.clone());
    let mut on_stop = stopped.clone();
    let graceful = async move {
        // An error means that the server was dropped, which is the same.
        let _ = on_stop.wait_for(|stop| *stop).await;
    };
    let serve = axum::serve(listener, router).with_graceful_shutdown(graceful);
    let deadline = async {
        let _ = stopped.wait_for(|stop| *stop).await;
        tokio::time::sleep(SHUTDOWN_DEADLINE).await;
    };
    tokio::select! {
        served = serve => served,
        () = deadline => Ok(()),
    }
}

#[cfg(test)]
mod tests;
