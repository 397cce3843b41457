//! The embedded MQTT broker, through which the service and its devices talk.
//!
//! `mqtt5` does the protocol; who may connect, what they may say, and where it goes is decided here. A device publishes on its
//! own topics to the service and to nobody else: whatever it says comes out of the channel that [`Broker::start`] returns, and
//! is acknowledged once it is in there. It subscribes to its own topics from the service, and to no pattern.
//!
//! Nothing is kept over a restart of the service: what has to last is in its database, and devices subscribe anew.

use std::sync::Arc;
use std::time::Duration;

use revoada_proto::{Channel, DeviceId, Topic};
use rustls::ServerConfig;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::acceptor::{AcceptorLimits, AcceptorStats};
use crate::tls::{Admission, Peer};

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

/// What the service hears of devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A device has connected. `connection` rises; a device that connects again before its old connection is found dead is
    /// [`Disconnected`](Self::Disconnected) from the old one after this, which then says nothing of the new one.
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
        payload: prost::bytes::Bytes,
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
    /// Sessions that were refused after the handshake: another's client id, a revoked certificate, a forged will.
    pub refused_sessions: u64,
    pub refused_publishes: u64,
    pub refused_subscriptions: u64,
    pub messages_in: u64,
    pub messages_out: u64,
}

#[derive(Debug, Error)]
pub enum BrokerError {
    #[error("cannot start the broker")]
    Start(#[source] mqtt5::MqttError),
    #[error("`{topic}` is published by devices, not by the service")]
    Direction { topic: String },
    #[error("a message of {bytes} bytes for `{topic}` is longer than devices accept")]
    TooLong { topic: String, bytes: usize },
}

/// A running broker. It stops when it is dropped, without saying so to devices.
pub struct Broker {}

impl Broker {
    pub async fn start(_options: BrokerOptions) -> Result<(Self, mpsc::Receiver<Incoming>), BrokerError> {
        unimplemented!()
    }

    /// Hands a message over for delivery at least once; an order is retained for the next time that the device connects, the
    /// others wait only for a device that has a session.
    pub async fn publish(&self, _topic: &Topic, _payload: Vec<u8>) -> Result<(), BrokerError> {
        unimplemented!()
    }

    /// Cuts a device off, and forgets its session and what was to be delivered to it. Whether it may come back is for
    /// [`Admission`] to say, which is to refuse it before this is called.
    pub async fn disconnect(&self, _device: &DeviceId) {
        unimplemented!()
    }

    pub fn stats(&self) -> BrokerStats {
        unimplemented!()
    }

    /// Lets nobody in any more, tells devices, and waits for their connections to end, but not longer than until the deadline.
    /// Returns how many had to be cut.
    pub async fn shutdown(self, _deadline: Duration) -> usize {
        unimplemented!()
    }
}
