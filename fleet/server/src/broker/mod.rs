//! The embedded MQTT broker, through which the service and its devices talk.
//!
//! `mqtt5` does the protocol; who may connect, what they may say, and where it goes is decided here. A device publishes on its
//! own topics to the service and to nobody else: whatever it says comes out of the channel that [`Broker::start`] returns, and
//! is acknowledged once it is in there. It subscribes to its own topics from the service, and to no pattern.
//!
//! Nothing is kept over a restart of the service: what has to last is in its database, and devices subscribe anew.

mod link;

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mqtt5::QoS;
use mqtt5::broker::client_handler::ClientHandler;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::QueueLimits;
use mqtt5::broker::tls_acceptor::TlsStreamWrapper;
use mqtt5::broker::transport::BrokerTransport;
use mqtt5::broker::{
    BrokerConfig, BrokerEventHandler, DynamicStorage, MemoryBackend, ResourceLimits, ResourceMonitor, StorageBackend,
};
use mqtt5::packet::publish::PublishPacket;
use prost::bytes::Bytes;
use revoada_proto::topic::MESSAGE_BYTES_MAX;
use revoada_proto::{Channel, DeviceId, Topic};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, warn};

use self::link::Link;
use crate::acceptor::{self, Acceptor, AcceptorLimits, AcceptorStats, count};
use crate::tls::{self, Admission, Peer};

/// Of a packet, its topic and its properties take less than the rest.
const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 1024;
/// Messages on their way to one device, before they count as waiting for it.
const LANE_MESSAGES: usize = 64;
const SHARDS: usize = 64;
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// What [`Broker::start`] takes.
pub struct BrokerOptions {
    pub listener: TcpListener,
    /// Of [`broker_config`](crate::tls::broker_config).
    pub tls: Arc<ServerConfig>,
    pub admission: Arc<dyn Admission>,
    pub limits: BrokerLimits,
}

#[derive(Clone, Debug)]
pub struct BrokerLimits {
    pub acceptor: AcceptorLimits,
    /// What every device is told to keep; one that is silent for half as long again is disconnected.
    pub keep_alive: Duration,
    /// How long a device that is away keeps its subscriptions and what was published to it.
    pub session_expiry_max: Duration,
    /// How many messages of one device may wait for their acknowledgement.
    pub receive_max: u16,
    /// How many messages of all devices may wait for the service; at the bound, devices wait.
    pub incoming_max: usize,
    /// How many messages to a device may wait for it; at the bound, the oldest is dropped: orders are numbered, and commands
    /// are repeated by the service until they are answered.
    pub queued_max: usize,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            acceptor: AcceptorLimits::default(),
            keep_alive: Duration::from_secs(60),
            session_expiry_max: Duration::from_secs(24 * 3600),
            receive_max: 16,
            incoming_max: 1024,
            queued_max: 256,
        }
    }
}

/// What the service hears of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A device has connected; where it has a session, it is subscribed already. `connection` rises; a device that connects
    /// again before its old connection is found dead is [`Disconnected`](Self::Disconnected) from the old one after this, which
    /// then says nothing of the new one.
    Connected {
        peer: Peer,
        connection: u64,
    },
    /// A device will now get what is published to it there. It may have missed what came before.
    Subscribed {
        device: DeviceId,
        channel: Channel,
    },
    /// Bytes on a channel [up](Channel::is_up), not checked yet.
    Message {
        device: DeviceId,
        channel: Channel,
        payload: Bytes,
    },
    Disconnected {
        peer: Peer,
        connection: u64,
    },
}

/// Since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerStats {
    pub acceptor: AcceptorStats,
    /// Devices that are connected.
    pub connected: u64,
    /// Certificates that name no device.
    pub refused_peers: u64,
    /// Sessions that were refused after the handshake: another's client id, a revoked certificate, a forged will.
    pub refused_sessions: u64,
    pub refused_publishes: u64,
    pub refused_subscriptions: u64,
    /// Handed over to the service.
    pub messages_in: u64,
    /// Sent to devices, those that were sent again too.
    pub messages_out: u64,
}

#[derive(Debug, Error)]
pub enum PublishError {
    #[error("`{topic}` is published by devices, not by the service")]
    Direction { topic: String },
    #[error("a message of {bytes} bytes for `{topic}` is longer than devices accept")]
    TooLong { topic: String, bytes: usize },
}

/// A running broker. Dropped, it cuts all connections at once.
pub struct Broker {
    core: Arc<Core>,
    accepting: Arc<acceptor::Counters>,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<usize>,
}

/// What all connections share.
struct Core {
    shards: Vec<Shard>,
    hasher: RandomState,
    monitor: Arc<ResourceMonitor>,
    traffic: Arc<mqtt5::broker::sys_topics::BrokerStats>,
    config: BrokerConfig,
    admission: Arc<dyn Admission>,
    incoming: mpsc::Sender<Incoming>,
    counters: Arc<link::Counters>,
    refused_peers: AtomicU64,
    connections: AtomicU64,
    /// Tells every connection that the service is going away.
    farewell: broadcast::Sender<()>,
}

/// Some of the devices, and what is on its way to them. Where one connects, its router goes through the subscriptions of all
/// that it has; and since devices do not talk to each other, they need not share one.
struct Shard {
    router: Arc<MessageRouter>,
    storage: Arc<DynamicStorage>,
}

impl Shard {
    fn new(queues: QueueLimits) -> Self {
        let storage = Arc::new(DynamicStorage::Memory(MemoryBackend::with_queue_limits(queues)));
        Self { router: Arc::new(MessageRouter::with_storage(Arc::clone(&storage))), storage }
    }
}

impl Core {
    fn shard(&self, device: &DeviceId) -> &Shard {
        let place = self.hasher.hash_one(device.as_str()) % self.shards.len() as u64;
        &self.shards[place as usize]
    }
}

impl Broker {
    pub fn start(options: BrokerOptions) -> (Self, mpsc::Receiver<Incoming>) {
        let BrokerOptions { listener, tls, admission, limits } = options;
        let (incoming, receiver) = mpsc::channel(limits.incoming_max.max(1));
        let queues = QueueLimits {
            max_messages: limits.queued_max,
            max_bytes: limits.queued_max.saturating_mul(MESSAGE_BYTES_MAX),
        };
        let core = Arc::new(Core {
            shards: (0..SHARDS).map(|_| Shard::new(queues)).collect(),
            hasher: RandomState::new(),
            // Connections are bounded by the acceptor; what a device sends, by the room there is for it.
            monitor: Arc::new(ResourceMonitor::new(ResourceLimits {
                max_connections: usize::MAX,
                max_connections_per_ip: usize::MAX,
                max_message_rate_per_client: 0,
                max_bandwidth_per_client: 0,
                ..ResourceLimits::default()
            })),
            traffic: Arc::default(),
            config: config(&limits),
            admission,
            incoming,
            counters: Arc::default(),
            refused_peers: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            farewell: broadcast::channel(1).0,
        });
        let accepting = Arc::<acceptor::Counters>::default();
        let (stop, stopped) = watch::channel(None);
        let acceptor = Acceptor { listener, tls, limits: limits.acceptor, counters: Arc::clone(&accepting) };
        let task = tokio::spawn(run(acceptor, Arc::clone(&core), stopped));
        (Self { core, accepting, stop, task }, receiver)
    }

    /// Hands a message over for delivery at least once, and does not wait for it. It reaches a device that has a session, now
    /// or when it is back. Nothing is retained: whoever [connects](Incoming::Connected) or
    /// [subscribes](Incoming::Subscribed) is to be sent what holds now, not what held once.
    pub async fn publish(&self, topic: &Topic, payload: Vec<u8>) -> Result<(), PublishError> {
        if topic.channel.is_up() {
            return Err(PublishError::Direction { topic: topic.to_string() });
        }
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(PublishError::TooLong { topic: topic.to_string(), bytes: payload.len() });
        }
        let packet = PublishPacket::new(topic.to_string(), payload, QoS::AtLeastOnce);
        // A device that is slow to take it finds it in its queue.
        self.core.shard(&topic.device).router.route_message_with_deadline(&packet, None, Instant::now()).await;
        Ok(())
    }

    /// Cuts a device off, and forgets its session and what was to be delivered to it. Whether it may come back is for
    /// [`Admission`] to say: to keep it out, refuse it there before this is called.
    pub async fn disconnect(&self, device: &DeviceId) {
        let Shard { router, storage } = self.core.shard(device);
        router.unregister_client(device.as_str()).await;
        let removed = storage.remove_session(device.as_str()).await;
        let forgotten = storage.remove_all_inflight_messages(device.as_str()).await;
        if let Err(error) = removed.and(forgotten) {
            warn!(%device, %error, "cannot forget a session");
        }
        router.queue_handle(device.as_str()).clear(None);
        let presence = Topic::new(device.clone(), Channel::Presence).to_string();
        // Nothing, retained, takes away what its will has left.
        let nothing = PublishPacket::new(presence, Bytes::new(), QoS::AtMostOnce).with_retain(true);
        router.route_message(&nothing, None).await;
    }

    pub fn stats(&self) -> BrokerStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Core { counters, traffic, refused_peers, .. } = &*self.core;
        BrokerStats {
            acceptor: self.accepting.read(),
            connected: traffic.clients_connected.load(Ordering::Relaxed) as u64,
            refused_peers: of(refused_peers),
            refused_sessions: of(&counters.refused_sessions),
            refused_publishes: of(&counters.refused_publishes),
            refused_subscriptions: of(&counters.refused_subscriptions),
            messages_in: of(&counters.messages_in),
            messages_out: of(&traffic.publish_sent),
        }
    }

    /// Lets nobody in any more, tells devices, and waits for their connections to end, but not longer than `time`. Returns how
    /// many had to be cut. What comes out of the channel has to be taken meanwhile, or the channel be dropped.
    pub async fn shutdown(self, time: Duration) -> usize {
        self.stop.send_replace(Some(Instant::now() + time));
        // Nobody listens where nobody is connected.
        let _ = self.core.farewell.send(());
        self.task.await.unwrap_or_else(|error| {
            error!(%error, "the broker ended in a panic");
            0
        })
    }
}

async fn run(acceptor: Acceptor, core: Arc<Core>, stopped: watch::Receiver<Option<Instant>>) -> usize {
    let is_stopping = stopped.clone();
    let sweeping = sweep(Arc::clone(&core));
    let accepting =
        acceptor.run(stopped, move |stream, address| converse(Arc::clone(&core), is_stopping.clone(), stream, address));
    tokio::select! {
        cut = accepting => cut,
        never = sweeping => match never {},
    }
}

/// Serves one device until it is gone.
async fn converse(
    core: Arc<Core>,
    is_stopping: watch::Receiver<Option<Instant>>,
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
) {
    let Some(peer) = tls::peer(stream.get_ref().1) else {
        count(&core.refused_peers);
        return;
    };
    let farewell = core.farewell.subscribe();
    // Whoever comes after the farewell would not hear it.
    if is_stopping.borrow().is_some() {
        return;
    }
    let connection = core.connections.fetch_add(1, Ordering::Relaxed);
    let Shard { router, storage } = core.shard(&peer.device);
    let link = Arc::new(Link {
        peer: peer.clone(),
        connection,
        admission: Arc::clone(&core.admission),
        router: Arc::clone(router),
        incoming: core.incoming.clone(),
        counters: Arc::clone(&core.counters),
        is_announced: AtomicBool::new(false),
    });
    let events: Arc<dyn BrokerEventHandler> = Arc::<Link>::clone(&link);
    let handler = ClientHandler::new(
        BrokerTransport::tls(TlsStreamWrapper::new(stream)),
        address,
        Arc::new(core.config.clone().with_event_handler(events)),
        Arc::clone(router),
        Arc::<Link>::clone(&link),
        Some(Arc::clone(storage)),
        Arc::clone(&core.traffic),
        Arc::clone(&core.monitor),
        farewell,
    );
    if let Err(error) = handler.run().await {
        debug!(device = %peer.device, %error, "a connection ended");
    }
    if link.is_announced.load(Ordering::Relaxed) {
        // Where the service is gone, it need not be told.
        let _ = core.incoming.send(Incoming::Disconnected { peer, connection }).await;
    }
}

/// Forgets sessions that have expired.
async fn sweep(core: Arc<Core>) -> Infallible {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        interval.tick().await;
        for Shard { router, storage } in &core.shards {
            if let Err(error) = storage.cleanup_expired().await {
                warn!(%error, "cannot forget what has expired");
            }
            router.sweep_sessions().await;
        }
    }
}

fn config(limits: &BrokerLimits) -> BrokerConfig {
    BrokerConfig {
        bind_addresses: Vec::new(),
        session_expiry_interval: limits.session_expiry_max,
        max_packet_size: MESSAGE_BYTES_MAX,
        topic_alias_maximum: 0,
        maximum_qos: 1,
        wildcard_subscription_available: false,
        subscription_identifier_available: false,
        shared_subscription_available: false,
        // A device has no more topics than it may subscribe to; counting its subscriptions would look at everybody's.
        max_subscriptions_per_client: 0,
        client_channel_capacity: LANE_MESSAGES,
        max_outbound_inflight: limits.receive_max,
        server_keep_alive: Some(limits.keep_alive),
        server_receive_maximum: Some(limits.receive_max),
        sys_topics_enabled: false,
        ..BrokerConfig::default()
    }
}
