//! Blobs and signatures from the fleet service, into a slot or a file, going on where it stopped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use revoada_bundle::hash_file;
use revoada_core::Digest;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use thiserror::Error;
use ureq::config::Config;
use ureq::http::{Response, StatusCode};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport, TransportAdapter,
};
use ureq::{Agent, Body};

use super::config::Address;
use super::identity::Identity;
use super::tls::{self, HTTP1, TlsError};
use crate::{Disk, Fault, Filling, Part, PartSource, SlotError};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);
/// How long the service may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const CHUNK_BYTES: usize = 128 << 10;

/// Whether a step was given up.
#[derive(Clone, Debug, Default)]
pub(super) struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub(super) fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Error)]
pub(super) enum FetchError {
    #[error("the fleet service does not have {what}")]
    NotFound { what: String },
    #[error("cannot fetch {what}: the fleet service answers {status}")]
    Status { what: String, status: StatusCode },
    #[error("cannot fetch {what}")]
    Http {
        what: String,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("cannot fetch {what}")]
    Read {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("only {bytes} bytes of {what} came")]
    Short { what: String, bytes: u64 },
    #[error("given up")]
    Cancelled,
    #[error("this device is not enrolled")]
    NotEnrolled,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Slot(#[from] SlotError),
}

impl FetchError {
    pub(super) fn fault(&self) -> Fault {
        match self {
            Self::NotFound { .. } => Fault::NotFound,
            Self::Slot(error) => error.fault(),
            _ => Fault::Passing,
        }
    }

    /// Whether it was the connection that did not hold, so that the rest may come another time.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Http { .. } | Self::Read { .. } | Self::Short { .. })
    }
}

/// Fetches with a device's certificate.
pub(super) struct Fetcher {
    agent: Agent,
    base: String,
    bytes_per_second: Option<u64>,
}

impl Fetcher {
    pub(super) fn new(server: &Address, identity: &Identity, rate: Option<u64>) -> Result<Self, TlsError> {
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .timeout_recv_response(Some(SILENCE_MAX))
            .timeout_per_read(Some(SILENCE_MAX))
            .build();
        let tls = TlsConnector { config: tls::mutual(identity, Some(HTTP1))? };
        let agent = Agent::with_parts(config, TcpConnector::default().chain(tls), DefaultResolver::default());
        Ok(Self { agent, base: format!("https://{server}/v1"), bytes_per_second: rate })
    }

    /// Fetches what `wanted` takes of the missing parts, which are named one after another.
    pub(super) fn fetch<D: Disk>(
        &self,
        filling: &Filling<D>,
        wanted: impl Fn(&Part) -> bool,
        cancel: &Cancel,
        progress: &dyn Fn(),
    ) -> Result<(), FetchError> {
        while let Some(part) = filling.next()?.filter(&wanted) {
            self.download(&part, &|| cancel.is_cancelled(), &mut |piece| {
                progress();
                filling.append(&part, piece)
            })?;
            filling.complete(&part)?;
        }
        Ok(())
    }

    /// Fetches a blob of so many bytes into a file, after what is in it already. One that is another blob is removed.
    pub(super) fn fetch_file(
        &self,
        blob: Digest,
        bytes: u64,
        path: &Path,
        is_given_up: &dyn Fn() -> bool,
    ) -> Result<(), FetchError> {
        let cannot_write = |source| SlotError::Write { path: path.to_owned(), source };
        let mut file = File::options().create(true).append(true).open(path).map_err(cannot_write)?;
        let offset = file.metadata().map_err(cannot_write)?.len();
        let name = path.display().to_string();
        let part = Part { path: name, source: PartSource::Blob(blob), offset, bytes: Some(bytes), bytes_max: bytes };
        let mut length = offset;
        self.download(&part, is_given_up, &mut |piece| {
            length += piece.len() as u64;
            if length > bytes {
                return Err(SlotError::TooLong { part: part.path.clone(), bytes_max: bytes });
            }
            file.write_all(piece).map_err(cannot_write)
        })?;
        let (found, _) = hash_file(path).map_err(|source| SlotError::Read { path: path.to_owned(), source })?;
        if found != blob {
            fs::remove_file(path).map_err(cannot_write)?;
            return Err(SlotError::Changed { part: part.path, digest: blob }.into());
        }
        Ok(())
    }

    /// How long a part is, as the service says.
    pub(super) fn length(&self, part: &Part) -> Result<u64, FetchError> {
        let what = part.path.clone();
        let asked = self.agent.head(self.url(part.source)).call();
        let response = asked.map_err(|error| FetchError::Http { what: what.clone(), source: Box::new(error) })?;
        check(&response, &what)?;
        let length = response.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(length.unwrap_or(part.bytes_max))
    }

    /// Gives what is missing of a part to `keep`, piece by piece.
    fn download(
        &self,
        part: &Part,
        is_given_up: &dyn Fn() -> bool,
        keep: &mut dyn FnMut(&[u8]) -> Result<(), SlotError>,
    ) -> Result<(), FetchError> {
        if part.bytes.is_some_and(|bytes| part.offset >= bytes) {
            return Ok(());
        }
        let what = || part.path.clone();
        let mut request = self.agent.get(self.url(part.source));
        if part.offset > 0 {
            request = request.header("range", format!("bytes={}-", part.offset));
        }
        let response = request.call().map_err(|error| FetchError::Http { what: what(), source: Box::new(error) })?;
        if part.offset > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // There is nothing after what is here: its digest decides whether that is all.
            return Ok(());
        }
        check(&response, &part.path)?;
        let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT { 0 } else { part.offset };
        let mut body = response.into_body().into_with_config().limit(part.bytes_max.saturating_add(1)).reader();
        let (mut buffer, mut pace) = (vec![0; CHUNK_BYTES], Pace::new(self.bytes_per_second));
        let mut bytes = part.offset;
        loop {
            if is_given_up() {
                return Err(FetchError::Cancelled);
            }
            let count = body.read(&mut buffer).map_err(|source| FetchError::Read { what: what(), source })?;
            if count == 0 {
                break;
            }
            let skipped = skip.min(count as u64);
            skip -= skipped;
            keep(&buffer[skipped as usize..count])?;
            bytes += count as u64 - skipped;
            pace.spent(count);
        }
        match part.bytes {
            Some(expected) if bytes < expected => Err(FetchError::Short { what: what(), bytes }),
            _ => Ok(()),
        }
    }

    fn url(&self, source: PartSource) -> String {
        match source {
            PartSource::Blob(digest) => format!("{}/blobs/{}", self.base, digest.hex()),
            PartSource::SignatureOf(digest) => format!("{}/signatures/{}", self.base, digest.hex()),
        }
    }
}

fn check(response: &Response<Body>, what: &str) -> Result<(), FetchError> {
    match response.status() {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(()),
        StatusCode::NOT_FOUND => Err(FetchError::NotFound { what: what.to_owned() }),
        status => Err(FetchError::Status { what: what.to_owned(), status }),
    }
}

/// Holds a download to a rate.
struct Pace {
    bytes_per_second: Option<u64>,
    began: Instant,
    bytes: u64,
}

impl Pace {
    fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, began: Instant::now(), bytes: 0 }
    }

    fn spent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(wait) = ahead(self.bytes_per_second, self.bytes, self.began.elapsed()) {
            std::thread::sleep(wait);
        }
    }
}

/// How much too early so many bytes are there.
fn ahead(bytes_per_second: Option<u64>, bytes: u64, elapsed: Duration) -> Option<Duration> {
    let due = Duration::from_secs_f64(bytes as f64 / bytes_per_second?.max(1) as f64);
    due.checked_sub(elapsed)
}

/// TLS for ureq, whose own cannot be told whom to trust.
#[derive(Debug)]
struct TlsConnector {
    config: Arc<ClientConfig>,
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let transport = chained.ok_or(ureq::Error::ConnectionFailed)?;
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| ureq::Error::HostNotFound)?;
        let failed = |error| ureq::Error::Io(std::io::Error::other(error));
        let mut connection = ClientConnection::new(Arc::clone(&self.config), name).map_err(failed)?;
        let mut socket = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned { conn: connection, sock: socket } })))
    }
}

struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsTransport").finish_non_exhaustive()
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        std::io::Write::write_all(&mut self.stream, &self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_is_held_to_its_rate() {
        let second = Duration::from_secs(1);
        assert_eq!(ahead(None, 1 << 30, Duration::ZERO), None);
        assert_eq!(ahead(Some(1000), 3000, second), Some(2 * second));
        assert_eq!(ahead(Some(1000), 1000, 2 * second), None);
    }
}
