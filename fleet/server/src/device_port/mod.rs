//! The one port that devices speak HTTP with: certificates, plans and uploads by gRPC, blobs and their signatures by `GET`.
//!
//! A device without a certificate may enrol, ask for the port's health and its description, and nothing else.

mod activity;
mod blobs;
mod downloads;
mod grpc;
mod quota;
mod service;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prost::bytes::Bytes;
use revoada_proto::wire;
use revoada_proto::wire::devices_server::DevicesServer;
use revoada_proto::wire::enrolment_server::EnrolmentServer;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;
use tonic::Status;
use tonic::service::Routes;
use tower::ServiceExt;
use tracing::{debug, error};

pub use service::{
    BlobError, BlobSource, DeviceService, Enrolled, Enrolment, MediaType, PlanOffer, PlanSearch, Refusal, Upload,
    UploadError, UploadedAnswer, UploadedPlan, UploadedUpdate,
};

use self::activity::{Activity, Watched};
use self::blobs::Blobs;
use self::downloads::Downloads;
use self::grpc::Grpc;
use self::quota::Quota;
use crate::acceptor::{self, Acceptor, AcceptorLimits, AcceptorStats, count};
use crate::bucket::Bucket;
use crate::tls::{self, Admission, Peer};

/// What needs no certificate.
const OPEN: [&str; 3] = ["/revoada.v1.Enrolment/", "/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];
/// What takes as long as its bytes do.
const UPLOADS: [&str; 3] =
    ["/revoada.v1.Devices/UploadPlan", "/revoada.v1.Devices/UploadAnswer", "/revoada.v1.Devices/UploadUpdate"];

/// A request to enrol has a key and a token.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Of an upload, and of what waits to be sent of a download.
const PIECE_BYTES_MAX: usize = 1 << 20;
const HEADER_BYTES_MAX: u32 = 16 << 10;
const HEADERS_MAX: usize = 64;
const HTTP1_BUFFER_BYTES: usize = 64 << 10;
const HEADERS_TIME_MAX: Duration = Duration::from_secs(10);
/// Of whoever has no certificate: to enrol takes a second.
const STRANGER_IDLE_MAX: Duration = Duration::from_secs(10);
/// Until an answer begins, other than to an upload.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What [`DevicePort::start`] takes.
pub struct DevicePortOptions<S, B> {
    pub listener: TcpListener,
    /// Of [`device_port_config`](crate::tls::device_port_config).
    pub tls: Arc<ServerConfig>,
    pub admission: Arc<dyn Admission>,
    pub service: Arc<S>,
    pub blobs: Arc<B>,
    pub limits: DevicePortLimits,
}

#[derive(Clone, Debug)]
pub struct DevicePortLimits {
    pub acceptor: AcceptorLimits,
    /// Of those with a certificate; more are closed, so that no device takes the others' room.
    pub connections_per_device_max: usize,
    /// Of anyone; more are told to come again.
    pub enrolments_per_second_max: u32,
    /// Requests that one connection may have under way.
    pub streams_max: u32,
    /// How long a connection may be open without a request, or with one and without a byte.
    pub idle_max: Duration,
    /// Of an uploaded plan.
    pub plan_bytes_max: u64,
    /// Of what a command asked for.
    pub answer_bytes_max: u64,
    /// Of what a device has learned.
    pub update_bytes_max: u64,
    pub downloads_per_device_max: usize,
    /// Of all devices; more are told to come again.
    pub downloads_max: usize,
    /// Of all downloads together; `None` without a bound.
    pub download_bytes_per_second: Option<u64>,
}

impl Default for DevicePortLimits {
    fn default() -> Self {
        Self {
            acceptor: AcceptorLimits::default(),
            connections_per_device_max: 8,
            enrolments_per_second_max: 50,
            streams_max: 32,
            idle_max: Duration::from_secs(60),
            plan_bytes_max: 4 << 30,
            answer_bytes_max: 16 << 20,
            update_bytes_max: 1 << 30,
            downloads_per_device_max: 4,
            downloads_max: 1024,
            download_bytes_per_second: None,
        }
    }
}

/// Since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DevicePortStats {
    pub acceptor: AcceptorStats,
    /// At the bound of one device.
    pub refused_connections: u64,
    /// Requests without an admitted certificate that needed one.
    pub refused_peers: u64,
    /// At a bound on downloads.
    pub refused_downloads: u64,
    /// Downloads that are under way.
    pub downloads: u64,
    pub downloaded_bytes: u64,
    /// Connections that were cut for doing nothing.
    pub idle: u64,
}

/// A running port. Dropped, it cuts all connections at once.
pub struct DevicePort {
    accepting: Arc<acceptor::Counters>,
    counters: Arc<Counters>,
    connections: Arc<Quota>,
    downloads: Arc<Downloads>,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<usize>,
}

#[derive(Debug, Default)]
struct Counters {
    refused_peers: AtomicU64,
    idle: AtomicU64,
}

impl DevicePort {
    pub fn start<S: DeviceService, B: BlobSource>(options: DevicePortOptions<S, B>) -> Self {
        let DevicePortOptions { listener, tls, admission, service, blobs, limits } = options;
        let downloads = Downloads::new(&limits);
        let connections = Quota::new(limits.connections_per_device_max, usize::MAX);
        let counters = Arc::<Counters>::default();
        let accepting = Arc::<acceptor::Counters>::default();
        let (stop, stopped) = watch::channel(None);
        let blobs = Blobs { source: blobs, downloads: Arc::clone(&downloads), admission: Arc::clone(&admission) };
        let serving = Arc::new(Serving {
            router: router(service, blobs, &limits),
            server: server(&limits),
            idle_max: limits.idle_max,
            admission,
            connections: Arc::clone(&connections),
            counters: Arc::clone(&counters),
            stopped: stopped.clone(),
        });
        let acceptor = Acceptor { listener, tls, limits: limits.acceptor, counters: Arc::clone(&accepting) };
        let task = tokio::spawn(acceptor.run(stopped, move |stream, _| Arc::clone(&serving).converse(stream)));
        Self { accepting, counters, connections, downloads, stop, task }
    }

    pub fn stats(&self) -> DevicePortStats {
        DevicePortStats {
            acceptor: self.accepting.read(),
            refused_connections: self.connections.refused(),
            refused_peers: self.counters.refused_peers.load(Ordering::Relaxed),
            refused_downloads: self.downloads.quota.refused(),
            downloads: self.downloads.quota.taken(),
            downloaded_bytes: self.downloads.bytes(),
            idle: self.counters.idle.load(Ordering::Relaxed),
        }
    }

    /// Lets nobody in any more and lets requests that are under way end, but not for longer than `time`. Returns how many
    /// connections had to be cut.
    pub async fn shutdown(self, time: Duration) -> usize {
        self.stop.send_replace(Some(Instant::now() + time));
        self.task.await.unwrap_or_else(|error| {
            error!(%error, "the device port ended in a panic");
            0
        })
    }
}

/// What all connections share.
struct Serving {
    router: Router,
    server: auto::Builder<TokioExecutor>,
    idle_max: Duration,
    admission: Arc<dyn Admission>,
    connections: Arc<Quota>,
    counters: Arc<Counters>,
    stopped: watch::Receiver<Option<Instant>>,
}

impl Serving {
    /// Serves one connection until it ends, or does nothing for too long.
    async fn converse(self: Arc<Self>, stream: TlsStream<TcpStream>) {
        let peer = tls::peer(stream.get_ref().1);
        // Held for as long as the connection is.
        let Ok(_place) = peer.as_ref().map(|peer| self.connections.take(&peer.device)).transpose() else { return };
        let idle_max = if peer.is_some() { self.idle_max } else { self.idle_max.min(STRANGER_IDLE_MAX) };
        let activity = Activity::new(Instant::now());
        let caller = Caller { serving: Arc::clone(&self), peer, activity: Arc::clone(&activity) };
        let stream = TokioIo::new(Watched { stream, activity: Arc::clone(&activity) });
        let connection = self.server.serve_connection(stream, TowerToHyperService::new(caller));
        let mut connection = pin!(connection);
        let mut stopped = self.stopped.clone();
        let mut is_stopping = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        debug!(%error, "a connection of the device port ended");
                    }
                    return;
                }
                // An error is a port that was dropped, which cuts the connection.
                _ = stopped.wait_for(Option::is_some), if !is_stopping => {
                    is_stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = tokio::time::sleep(idle_max / 4) => {
                    if activity.idle(Instant::now()) >= idle_max {
                        count(&self.counters.idle);
                        return;
                    }
                }
            }
        }
    }
}

/// Answers the requests of one connection.
#[derive(Clone)]
struct Caller {
    serving: Arc<Serving>,
    peer: Option<Peer>,
    activity: Arc<Activity>,
}

impl<B> tower::Service<Request<B>> for Caller
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let caller = self.clone();
        Box::pin(async move { Ok(caller.answer(request.map(Body::new)).await) })
    }
}

impl Caller {
    async fn answer(self, mut request: Request<Body>) -> Response {
        let _under_way = self.activity.request();
        let path = request.uri().path();
        let (is_open, is_upload) = (OPEN.iter().any(|open| path.starts_with(open)), UPLOADS.contains(&path));
        let admission = &self.serving.admission;
        // Asked at each request: a connection may be older than a revocation.
        match self.peer.filter(|peer| admission.admits(&peer.device, &peer.serial)) {
            Some(peer) => drop(request.extensions_mut().insert(peer)),
            None if is_open => {}
            None => {
                count(&self.serving.counters.refused_peers);
                return refuse(&request);
            }
        }
        request.extensions_mut().insert(Arc::clone(&self.activity));
        let answered = self.serving.router.clone().oneshot(request);
        if is_upload {
            // Bounded by the time that its next piece may take.
            return answered.await.unwrap_or_else(|never| match never {});
        }
        match timeout(ANSWER_MAX, answered).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
        }
    }
}

fn refuse(request: &Request<Body>) -> Response {
    match is_grpc(request) {
        true => Status::unauthenticated("the certificate of an admitted device is needed").into_http(),
        false => StatusCode::FORBIDDEN.into_response(),
    }
}

async fn unknown(request: Request<Body>) -> Response {
    match is_grpc(&request) {
        true => Status::unimplemented("there is no such service").into_http(),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Whether the answer's status is read from where gRPC has it.
fn is_grpc(request: &Request<Body>) -> bool {
    let content = request.headers().get(CONTENT_TYPE);
    content.is_some_and(|content| content.as_bytes().starts_with(b"application/grpc"))
}

fn router<S: DeviceService, B: BlobSource>(service: Arc<S>, blobs: Blobs<B>, limits: &DevicePortLimits) -> Router {
    let grpc = Arc::new(Grpc {
        service,
        plan_bytes_max: limits.plan_bytes_max,
        answer_bytes_max: limits.answer_bytes_max,
        update_bytes_max: limits.update_bytes_max,
        idle_max: limits.idle_max,
        enrolments: Mutex::new(Bucket::new(u64::from(limits.enrolments_per_second_max), Instant::now())),
    });
    let enrolment = EnrolmentServer::from_arc(Arc::clone(&grpc)).max_decoding_message_size(REQUEST_BYTES_MAX);
    let devices = DevicesServer::from_arc(grpc).max_decoding_message_size(PIECE_BYTES_MAX);
    let (_, health) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors are those that the program was compiled from");
    let services = Routes::new(enrolment).add_service(devices).add_service(health).add_service(reflection);
    let blobs = Router::new()
        .route("/v1/blobs/{digest}", get(blobs::blob::<B>))
        .route("/v1/signatures/{digest}", get(blobs::signature::<B>))
        .with_state(Arc::new(blobs));
    services.into_axum_router().merge(blobs).fallback(unknown)
}

fn server(limits: &DevicePortLimits) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIME_MAX)
        .max_headers(HEADERS_MAX)
        // Hyper reads headers into it, and writes a body of bytes past it.
        .max_buf_size(HTTP1_BUFFER_BYTES);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(limits.streams_max)
        .max_send_buf_size(PIECE_BYTES_MAX);
    server
}
