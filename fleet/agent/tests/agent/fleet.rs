//! A fleet service that can lie: a device port with certificates and blobs, and a broker, on sockets of this machine.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use futures_util::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use mqtt5::QoS;
use mqtt5::broker::AllowAllAuthProvider;
use mqtt5::broker::client_handler::ClientHandler;
use mqtt5::broker::events::{ClientPublishEvent, PublishAction};
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::tls_acceptor::TlsStreamWrapper;
use mqtt5::broker::transport::BrokerTransport;
use mqtt5::broker::{BrokerConfig, BrokerEventHandler, DynamicStorage, MemoryBackend, ResourceLimits, ResourceMonitor};
use mqtt5::packet::publish::PublishPacket;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
};
use revoada_agent::PartSource;
use revoada_bundle::hash;
use revoada_bundle::sign::{Purpose, SecretKey};
use revoada_core::Digest;
use revoada_proto::message::{decode_event, decode_report};
use revoada_proto::wire::devices_server::{Devices, DevicesServer};
use revoada_proto::wire::enrolment_server::{Enrolment, EnrolmentServer};
use revoada_proto::wire::{self, upload_answer_request, upload_plan_request, upload_update_request};
use revoada_proto::{
    Ask, Channel, Command, Deployable, Details, Dispatch, EnrolmentToken, Event, Generation, Order, Receipt, Report,
    Signed, Topic,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, oneshot};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Status, Streaming};

use crate::artefacts::Artefacts;

pub(crate) const DEVICE: &str = "gate-7";
const SECRET: [u8; 16] = [7; 16];
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the service knows, heard, and does wrong.
pub(crate) struct World {
    pub(crate) parts: BTreeMap<String, Vec<u8>>,
    pub(crate) reports: Vec<(Report, Details)>,
    pub(crate) events: Vec<Event>,
    pub(crate) presence: Vec<(String, bool)>,
    pub(crate) answers: BTreeMap<u64, (String, Vec<u8>)>,
    /// What is said of plans; `None` where it cannot be.
    pub(crate) plans: Option<wire::FindPlanResponse>,
    pub(crate) uploaded_plans: Vec<(wire::PlanHeader, Vec<u8>)>,
    pub(crate) updates: Vec<(wire::UpdateHeader, Vec<u8>)>,
    /// Where it says that updates go on.
    pub(crate) update_offset: u64,
    /// Updates that it cannot take.
    pub(crate) update_faults: u32,
    /// Updates that it takes and that do not count.
    pub(crate) update_refusals: u32,
    /// Whether it does not say yet what it has taken.
    pub(crate) holds_answers: bool,
    pub(crate) declined: Vec<wire::DeclineRoundRequest>,
    /// What was asked of the device port: path and range.
    pub(crate) asked: Vec<(String, Option<String>)>,
    pub(crate) certificates: u32,
    /// Blobs are cut off after so many bytes, once.
    pub(crate) cut_after: Option<usize>,
    pub(crate) gives_receipts: bool,
    pub(crate) renews: bool,
}

struct Shared {
    world: Mutex<World>,
    changed: Condvar,
}

/// A running service; it is gone with this.
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    authority: Arc<Ca>,
    order_key: SecretKey,
    pub(crate) port: SocketAddr,
    broker: SocketAddr,
    router: Arc<MessageRouter>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Ca {
    root: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a fleet");
        let root = params.self_signed(&key).unwrap();
        Self { root: root.der().clone(), pem: root.pem(), issuer: Issuer::new(params, key) }
    }

    /// Of a server whose certificate has ended long ago, as a device whose clock is wrong sees it.
    fn server(&self) -> (Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1990, 1, 1);
        params.not_after = date_time_ymd(1991, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone(), self.root.clone()], PrivatePkcs8KeyDer::from(key.serialize_der()))
    }

    fn device(&self, request: &[u8]) -> String {
        let mut request = CertificateSigningRequestParams::from_der(&request.to_vec().into()).unwrap();
        request.params.distinguished_name.push(DnType::CommonName, DEVICE);
        request.signed_by(&self.issuer).unwrap().pem()
    }

    fn config(&self, needs_certificate: bool, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = if needs_certificate { verifier } else { verifier.allow_unauthenticated() };
        let (chain, key) = self.server();
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let builder = builder.with_client_cert_verifier(verifier.build().unwrap());
        let mut config = builder.with_single_cert(chain, key.into()).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

impl Fleet {
    pub(crate) fn start() -> Self {
        let world = World {
            parts: BTreeMap::new(),
            reports: Vec::new(),
            events: Vec::new(),
            presence: Vec::new(),
            answers: BTreeMap::new(),
            plans: None,
            uploaded_plans: Vec::new(),
            updates: Vec::new(),
            update_offset: 0,
            update_faults: 0,
            update_refusals: 0,
            holds_answers: false,
            declined: Vec::new(),
            asked: Vec::new(),
            certificates: 0,
            cut_after: None,
            gives_receipts: true,
            renews: false,
        };
        let shared = Arc::new(Shared { world: Mutex::new(world), changed: Condvar::new() });
        let (authority, order_key) = (Arc::new(Ca::new()), SecretKey::generate().unwrap());
        let storage = Arc::new(DynamicStorage::Memory(MemoryBackend::new()));
        let router = Arc::new(MessageRouter::with_storage(Arc::clone(&storage)));
        let (stop, stopped) = oneshot::channel();
        let (say, said) = std::sync::mpsc::channel();
        let (serving, order_public, routes) =
            (Arc::clone(&shared), order_key.public().to_string(), Arc::clone(&router));
        let issuing = Arc::clone(&authority);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listeners = [bind().await, bind().await];
                let [port, broker] = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
                say.send((port, broker)).unwrap();
                let [port_listener, broker_listener] = listeners;
                let service =
                    Service { shared: Arc::clone(&serving), authority: Arc::clone(&issuing), order_public, broker };
                let devices = serve_devices(port_listener, service);
                let broker = serve_broker(broker_listener, issuing, serving, routes, storage);
                tokio::select! { _ = stopped => {}, () = devices => {}, () = broker => {} }
            });
        });
        let (port, broker) = said.recv().unwrap();
        Self { shared, authority, order_key, port, broker, router, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn token(&self) -> EnrolmentToken {
        EnrolmentToken::new(SECRET, hash(self.authority.root.as_ref()))
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what was made so far.
    pub(crate) fn offer(&self, artefacts: &Artefacts) {
        self.world().parts = artefacts.parts.clone();
    }

    /// Waits until the world is so.
    pub(crate) fn wait<T>(&self, what: &str, look: impl FnMut(&World) -> Option<T>) -> T {
        self.wait_at_most(PATIENCE, look).unwrap_or_else(|| {
            let world = self.world();
            let last = world.reports.last();
            panic!("waited in vain for {what}; last report {last:#?}, events {:#?}", world.events);
        })
    }

    pub(crate) fn wait_at_most<T>(&self, time: Duration, mut look: impl FnMut(&World) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + time;
        let mut world = self.world();
        loop {
            if let Some(found) = look(&world) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            world = self.shared.changed.wait_timeout(world, left).unwrap().0;
        }
    }

    pub(crate) fn wait_for_event(&self, name: &str) -> Event {
        self.wait(name, |world| world.events.iter().find(|event| event.name == name).cloned())
    }

    pub(crate) fn order(&self, generation: u64, deployables: &[Deployable]) {
        self.say_order(DEVICE, generation, deployables, None, &self.order_key);
    }

    pub(crate) fn say_order(
        &self,
        device: &str,
        generation: u64,
        deployables: &[Deployable],
        expires_at: Option<SystemTime>,
        key: &SecretKey,
    ) {
        let content = Order { generation: Generation(generation), deployables: deployables.iter().copied().collect() };
        let issued_at = SystemTime::now();
        let payload = Dispatch { device: device.parse().unwrap(), content, issued_at, expires_at }.encode();
        self.say(Channel::Desired, signed(payload, Purpose::Order, key));
    }

    pub(crate) fn command(&self, number: u64, ask: Ask) {
        self.say_command(DEVICE, number, ask, None);
    }

    pub(crate) fn say_command(&self, device: &str, number: u64, ask: Ask, expires_at: Option<SystemTime>) {
        let (device, content) = (device.parse().unwrap(), Command { number, ask });
        let payload = Dispatch { device, content, issued_at: SystemTime::now(), expires_at }.encode();
        self.say(Channel::Command, signed(payload, Purpose::Command, &self.order_key));
    }

    /// Publishes bytes to the device.
    pub(crate) fn say(&self, channel: Channel, payload: Vec<u8>) {
        say(&self.router, channel, payload);
    }

    pub(crate) fn order_key(&self) -> &SecretKey {
        &self.order_key
    }

    pub(crate) fn broker(&self) -> SocketAddr {
        self.broker
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

pub(crate) fn signed(payload: Vec<u8>, purpose: Purpose, key: &SecretKey) -> Vec<u8> {
    let signature = key.sign(purpose, hash(&payload)).to_bytes().unwrap();
    Signed { payload, signature }.encode()
}

fn say(router: &Arc<MessageRouter>, channel: Channel, payload: Vec<u8>) {
    let topic = Topic::new(DEVICE.parse().unwrap(), channel).to_string();
    let packet = PublishPacket::new(topic, payload, QoS::AtLeastOnce).with_retain(channel == Channel::Desired);
    let router = Arc::clone(router);
    let publish = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(router.route_message(&packet, None));
    };
    thread::spawn(publish).join().unwrap();
}

async fn bind() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap()
}

impl Shared {
    fn change(&self, change: impl FnOnce(&mut World)) {
        change(&mut self.world.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

// The device port.

#[derive(Clone)]
struct Service {
    shared: Arc<Shared>,
    authority: Arc<Ca>,
    order_public: String,
    broker: SocketAddr,
}

async fn serve_devices(listener: TcpListener, service: Service) {
    let acceptor = TlsAcceptor::from(service.authority.config(false, &[b"h2", b"http/1.1"]));
    let grpc = tonic::service::Routes::new(EnrolmentServer::new(service.clone()));
    let grpc = grpc.add_service(DevicesServer::new(service.clone())).into_axum_router();
    let router = axum::Router::new()
        .route("/v1/blobs/{digest}", axum::routing::any(blob))
        .route("/v1/signatures/{digest}", axum::routing::any(signature))
        .with_state(service.shared)
        .merge(grpc);
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await);
        });
    }
}

type World_ = State<Arc<Shared>>;

async fn blob(state: World_, path: Path<String>, method: Method, headers: HeaderMap) -> Response<Body> {
    give(state, "blobs", path, PartSource::Blob, method, &headers)
}

async fn signature(state: World_, path: Path<String>, method: Method, headers: HeaderMap) -> Response<Body> {
    give(state, "signatures", path, PartSource::SignatureOf, method, &headers)
}

fn give(
    State(shared): World_,
    what: &str,
    Path(name): Path<String>,
    source: impl Fn(Digest) -> PartSource,
    method: Method,
    headers: &HeaderMap,
) -> Response<Body> {
    let range = headers.get("range").map(|range| range.to_str().unwrap().to_owned());
    let mut found = None;
    shared.change(|world| {
        world.asked.push((format!("{what}/{name}"), range.clone()));
        let digest: Digest = name.parse().unwrap();
        let bytes = world.parts.get(&format!("{:?}", source(digest))).cloned();
        let is_long = bytes.as_ref().is_some_and(|bytes| world.cut_after.is_some_and(|cut| bytes.len() > cut));
        let cut = if is_long && method == Method::GET { world.cut_after.take() } else { None };
        found = bytes.map(|bytes| (bytes, cut));
    });
    let Some((bytes, cut)) = found else {
        return Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap();
    };
    let from = range.map(|range| range["bytes=".len()..].trim_end_matches('-').parse::<usize>().unwrap());
    let status = if from.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let bytes = bytes[from.unwrap_or(0)..].to_vec();
    let response = Response::builder().status(status).header("content-length", bytes.len());
    if method == Method::HEAD {
        return response.body(Body::empty()).unwrap();
    }
    let body = match cut {
        Some(cut) => {
            let begin = futures_util::stream::iter([Ok(Bytes::from(bytes[..cut].to_vec()))]);
            Body::from_stream(begin.chain(futures_util::stream::once(async {
                // What was sent has to arrive before the connection breaks.
                tokio::time::sleep(Duration::from_millis(300)).await;
                Err(io::Error::other("the line breaks"))
            })))
        }
        None => Body::from(bytes),
    };
    response.body(body).unwrap()
}

#[tonic::async_trait]
impl Enrolment for Service {
    async fn enrol(
        &self,
        request: Request<wire::EnrolRequest>,
    ) -> Result<tonic::Response<wire::EnrolResponse>, Status> {
        let request = request.into_inner();
        if request.token != EnrolmentToken::new(SECRET, hash(self.authority.root.as_ref())).text() {
            return Err(Status::permission_denied("no such token"));
        }
        self.shared.change(|world| world.certificates += 1);
        Ok(tonic::Response::new(wire::EnrolResponse {
            certificates: self.authority.device(&request.certificate_request),
            authority: self.authority.pem.clone(),
            order_key: self.order_public.clone(),
            broker: format!(":{}", self.broker.port()),
            tenant: "default".to_owned(),
        }))
    }
}

#[tonic::async_trait]
impl Devices for Service {
    async fn renew(
        &self,
        request: Request<wire::RenewRequest>,
    ) -> Result<tonic::Response<wire::RenewResponse>, Status> {
        self.shared.change(|world| (world.certificates, world.renews) = (world.certificates + 1, false));
        let certificates = self.authority.device(&request.into_inner().certificate_request);
        Ok(tonic::Response::new(wire::RenewResponse { certificates }))
    }

    async fn find_plan(
        &self,
        _: Request<wire::FindPlanRequest>,
    ) -> Result<tonic::Response<wire::FindPlanResponse>, Status> {
        let mut plans = None;
        self.shared.change(|world| plans.clone_from(&world.plans));
        plans.map(tonic::Response::new).ok_or(Status::unavailable("not now"))
    }

    async fn upload_plan(
        &self,
        request: Request<Streaming<wire::UploadPlanRequest>>,
    ) -> Result<tonic::Response<wire::UploadPlanResponse>, Status> {
        let (mut stream, mut header, mut bytes) = (request.into_inner(), None, Vec::new());
        while let Some(message) = stream.message().await? {
            match message.part {
                Some(upload_plan_request::Part::Header(first)) => header = Some(first),
                Some(upload_plan_request::Part::Chunk(chunk)) => bytes.extend(chunk),
                None => return Err(Status::invalid_argument("nothing")),
            }
        }
        let header = header.ok_or(Status::invalid_argument("no header"))?;
        self.shared.change(|world| world.uploaded_plans.push((header, bytes)));
        Ok(tonic::Response::new(wire::UploadPlanResponse {}))
    }

    async fn upload_answer(
        &self,
        request: Request<Streaming<wire::UploadAnswerRequest>>,
    ) -> Result<tonic::Response<wire::UploadAnswerResponse>, Status> {
        let (mut stream, mut header, mut bytes) = (request.into_inner(), None, Vec::new());
        while let Some(message) = stream.message().await? {
            match message.part {
                Some(upload_answer_request::Part::Header(first)) => header = Some(first),
                Some(upload_answer_request::Part::Chunk(chunk)) => bytes.extend(chunk),
                None => return Err(Status::invalid_argument("nothing")),
            }
        }
        let header = header.ok_or(Status::invalid_argument("no header"))?;
        self.shared.change(|world| drop(world.answers.insert(header.number, (header.media_type, bytes))));
        Ok(tonic::Response::new(wire::UploadAnswerResponse {}))
    }

    async fn find_update(
        &self,
        _: Request<wire::FindUpdateRequest>,
    ) -> Result<tonic::Response<wire::FindUpdateResponse>, Status> {
        let mut offset = 0;
        self.shared.change(|world| offset = world.update_offset);
        Ok(tonic::Response::new(wire::FindUpdateResponse { offset }))
    }

    async fn upload_update(
        &self,
        request: Request<Streaming<wire::UploadUpdateRequest>>,
    ) -> Result<tonic::Response<wire::UploadUpdateResponse>, Status> {
        let (mut stream, mut header, mut bytes) = (request.into_inner(), None, Vec::new());
        while let Some(message) = stream.message().await? {
            match message.part {
                Some(upload_update_request::Part::Header(first)) => header = Some(first),
                Some(upload_update_request::Part::Chunk(chunk)) => bytes.extend(chunk),
                None => return Err(Status::invalid_argument("nothing")),
            }
        }
        let header = header.ok_or(Status::invalid_argument("no header"))?;
        let (mut is_taken, mut counts) = (false, true);
        self.shared.change(|world| match world.update_faults.checked_sub(1) {
            Some(left) => world.update_faults = left,
            None => {
                is_taken = true;
                counts = world.update_refusals == 0;
                world.update_refusals = world.update_refusals.saturating_sub(1);
                world.updates.push((header, bytes));
            }
        });
        while self.shared.world.lock().unwrap().holds_answers {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match is_taken {
            true => {
                let why = if counts { String::new() } else { "it is too large".to_owned() };
                Ok(tonic::Response::new(wire::UploadUpdateResponse { counts, why }))
            }
            false => Err(Status::unavailable("not now")),
        }
    }

    async fn decline_round(
        &self,
        request: Request<wire::DeclineRoundRequest>,
    ) -> Result<tonic::Response<wire::DeclineRoundResponse>, Status> {
        self.shared.change(|world| world.declined.push(request.into_inner()));
        Ok(tonic::Response::new(wire::DeclineRoundResponse {}))
    }
}

// The broker.

struct Hearing {
    shared: Arc<Shared>,
    router: Arc<MessageRouter>,
}

impl BrokerEventHandler for Hearing {
    fn on_client_publish<'a>(
        &'a self,
        event: ClientPublishEvent,
    ) -> Pin<Box<dyn Future<Output = PublishAction> + Send + 'a>> {
        Box::pin(async move {
            let topic: Topic = event.topic.parse().unwrap();
            assert_eq!(topic.device.as_str(), DEVICE);
            let mut receipt = None;
            self.shared.change(|world| {
                let sequence = match topic.channel {
                    Channel::State => {
                        let (report, details) = decode_report(&event.payload).unwrap();
                        let sequence = report.sequence;
                        world.reports.push((report, details));
                        sequence
                    }
                    Channel::Event => {
                        let heard = decode_event(&event.payload).unwrap();
                        let sequence = heard.sequence;
                        if !world.events.iter().any(|event| event.sequence == sequence) {
                            world.events.push(heard);
                        }
                        sequence
                    }
                    _ => {
                        let text = String::from_utf8(event.payload.to_vec()).unwrap();
                        return world.presence.push((text, event.retain));
                    }
                };
                if world.gives_receipts {
                    let (now, renews_certificate) = (SystemTime::now(), world.renews);
                    receipt = Some(Receipt { sequences: vec![sequence], now, renews_certificate });
                }
            });
            if let Some(receipt) = receipt {
                let topic = Topic { channel: Channel::Receipt, ..topic }.to_string();
                let packet = PublishPacket::new(topic, receipt.encode(), QoS::AtLeastOnce);
                self.router.route_message(&packet, None).await;
            }
            PublishAction::Handled
        })
    }
}

async fn serve_broker(
    listener: TcpListener,
    authority: Arc<Ca>,
    shared: Arc<Shared>,
    router: Arc<MessageRouter>,
    storage: Arc<DynamicStorage>,
) {
    let acceptor = TlsAcceptor::from(authority.config(true, &[]));
    let handler = Arc::new(Hearing { shared, router: Arc::clone(&router) });
    let config = Arc::new(BrokerConfig::default().with_event_handler(handler));
    let monitor = Arc::new(ResourceMonitor::new(ResourceLimits::default()));
    let (stop, _) = broadcast::channel(1);
    loop {
        let Ok((stream, address)) = listener.accept().await else { return };
        let Ok(stream): io::Result<tokio_rustls::server::TlsStream<TcpStream>> = acceptor.accept(stream).await else {
            continue;
        };
        let handler = ClientHandler::new(
            BrokerTransport::tls(TlsStreamWrapper::new(stream)),
            address,
            Arc::clone(&config),
            Arc::clone(&router),
            Arc::new(AllowAllAuthProvider),
            Some(Arc::clone(&storage)),
            Arc::default(),
            Arc::clone(&monitor),
            stop.subscribe(),
        );
        tokio::spawn(handler.run());
    }
}
