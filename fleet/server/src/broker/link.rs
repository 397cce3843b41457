//! One device's connection, and what it may do there.
//!
//! `mqtt5` asks an [`AuthProvider`] before it does something and tells a [`BrokerEventHandler`] afterwards. Each connection has
//! one of its own, which is both: so the name in the certificate is known wherever something is decided.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mqtt5::QoS;
use mqtt5::broker::events::{ClientConnectEvent, ClientPublishEvent, ClientSubscribeEvent, PublishAction};
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::{AuthProvider, AuthResult, BrokerEventHandler, SubAckReasonCode};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::packet::publish::PublishPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use prost::bytes::Bytes;
use revoada_proto::topic::{OFFLINE, TENANT};
use revoada_proto::{Channel, Topic};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Incoming;
use crate::acceptor::count;
use crate::tls::{Admission, Peer};

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a message goes that is not to be acknowledged: no device may subscribe to it.
const NOWHERE: &str = "refused";

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) refused_sessions: AtomicU64,
    pub(super) refused_publishes: AtomicU64,
    pub(super) refused_subscriptions: AtomicU64,
    pub(super) messages_in: AtomicU64,
}

pub(super) struct Link {
    pub(super) peer: Peer,
    pub(super) connection: u64,
    pub(super) admission: Arc<dyn Admission>,
    pub(super) router: Arc<MessageRouter>,
    pub(super) incoming: mpsc::Sender<Incoming>,
    pub(super) counters: Arc<Counters>,
    /// Whether the service was told that it is there.
    pub(super) is_announced: AtomicBool,
}

impl Link {
    fn is_admitted(&self) -> bool {
        self.admission.admits(&self.peer.device, &self.peer.serial)
    }

    /// Which of the device's own channels a topic or a filter names. Nothing else is read as a topic: no pattern, no share, no
    /// topic of the broker's.
    fn own_channel(&self, topic: &str) -> Option<Channel> {
        let topic: Topic = topic.parse().ok()?;
        (topic.tenant.as_str() == TENANT && topic.device == self.peer.device).then_some(topic.channel)
    }

    fn check_session(&self, connect: &ConnectPacket) -> Result<(), ReasonCode> {
        if connect.client_id != self.peer.device.as_str() {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        if !self.is_admitted() {
            return Err(ReasonCode::NotAuthorized);
        }
        // What bounds a session's length is of version 5.
        if connect.protocol_version != 5 {
            return Err(ReasonCode::UnsupportedProtocolVersion);
        }
        match &connect.will {
            Some(will)
                if self.own_channel(&will.topic) != Some(Channel::Presence)
                    || !will.retain
                    || will.payload != OFFLINE =>
            {
                Err(ReasonCode::NotAuthorized)
            }
            _ => Ok(()),
        }
    }

    /// Ends the connection without acknowledging what came, so that a device that means well sends it again.
    async fn cut(&self) -> PublishAction {
        self.router.disconnect_client(self.peer.device.as_str()).await;
        PublishAction::Transform(PublishPacket::new(NOWHERE, Bytes::new(), QoS::AtMostOnce))
    }
}

impl AuthProvider for Link {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        address: SocketAddr,
    ) -> Answer<'a, mqtt5::Result<AuthResult>> {
        Box::pin(async move {
            Ok(match self.check_session(connect) {
                Ok(()) => AuthResult::success(),
                Err(reason) => {
                    count(&self.counters.refused_sessions);
                    warn!(device = %self.peer.device, %address, ?reason, "a session was refused");
                    AuthResult::fail(reason)
                }
            })
        })
    }

    /// Asked for wills too, once they are due.
    fn authorize_publish<'a>(&'a self, _: &str, _: Option<&'a str>, topic: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let may = self.own_channel(topic).is_some_and(Channel::is_up) && self.is_admitted();
            if !may {
                count(&self.counters.refused_publishes);
            }
            may
        })
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, _: Option<&'a str>, filter: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let may = self.own_channel(filter).is_some_and(|channel| !channel.is_up()) && self.is_admitted();
            if !may {
                count(&self.counters.refused_subscriptions);
            }
            may
        })
    }
}

impl BrokerEventHandler for Link {
    fn on_client_connect<'a>(&'a self, _: ClientConnectEvent) -> Answer<'a, ()> {
        Box::pin(async move {
            // Whoever was revoked since it was asked for the first time was not there to be disconnected.
            if !self.is_admitted() {
                self.cut().await;
                return;
            }
            self.is_announced.store(true, Ordering::Relaxed);
            let connected = Incoming::Connected { peer: self.peer.clone(), connection: self.connection };
            if self.incoming.send(connected).await.is_err() {
                self.cut().await;
            }
        })
    }

    fn on_client_subscribe<'a>(&'a self, event: ClientSubscribeEvent) -> Answer<'a, ()> {
        Box::pin(async move {
            for subscription in event.subscriptions {
                let is_granted = matches!(
                    subscription.result,
                    SubAckReasonCode::GrantedQoS0 | SubAckReasonCode::GrantedQoS1 | SubAckReasonCode::GrantedQoS2
                );
                let Some(channel) = self.own_channel(&subscription.topic_filter).filter(|_| is_granted) else {
                    continue;
                };
                let subscribed = Incoming::Subscribed { device: self.peer.device.clone(), channel };
                if self.incoming.send(subscribed).await.is_err() {
                    self.cut().await;
                    return;
                }
            }
        })
    }

    /// Waits until there is room for the message, and the device waits for its acknowledgement meanwhile.
    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Answer<'a, PublishAction> {
        Box::pin(async move {
            let channel = self.own_channel(&event.topic).filter(|channel| channel.is_up());
            let Some(channel) = channel.filter(|channel| event.retain == (*channel == Channel::Presence)) else {
                count(&self.counters.refused_publishes);
                info!(device = %self.peer.device, "a device was cut off for the way it publishes");
                return self.cut().await;
            };
            let message =
                Incoming::Message { device: self.peer.device.clone(), channel, payload: event.payload.clone() };
            if self.incoming.send(message).await.is_err() {
                return self.cut().await;
            }
            count(&self.counters.messages_in);
            PublishAction::Handled
        })
    }
}
