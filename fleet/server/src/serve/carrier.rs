//! From threads that block to the broker.

use std::time::Duration;

use revoada_proto::{DeviceId, Topic};
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};

use super::{SHUTDOWN_TIME_MAX, STATS_EVERY, until};
use crate::broker::{Broker, BrokerStats};
use crate::service::Post;

/// Messages on their way to the broker; at the bound, who sends waits.
const OUTGOING_MAX: usize = 4096;
/// What is under way when the service stops has so long to go out.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

pub(super) enum Outgoing {
    Message(Topic, Vec<u8>),
    Disconnect(DeviceId),
}

/// Hands messages to a task that owns the broker.
#[derive(Debug)]
pub(super) struct Carrier(mpsc::Sender<Outgoing>);

impl Carrier {
    pub(super) fn new() -> (Self, mpsc::Receiver<Outgoing>) {
        let (sender, receiver) = mpsc::channel(OUTGOING_MAX);
        (Self(sender), receiver)
    }

    fn send(&self, outgoing: Outgoing) {
        // A service that stops sends nothing any more: it is sent again once it is back.
        if self.0.blocking_send(outgoing).is_err() {
            tracing::debug!("a message was not sent: the service stops");
        }
    }
}

impl Post for Carrier {
    fn post(&self, topic: &Topic, payload: Vec<u8>) {
        self.send(Outgoing::Message(topic.clone(), payload));
    }

    fn disconnect(&self, device: &DeviceId) {
        self.send(Outgoing::Disconnect(device.clone()));
    }
}

/// Carries messages until the service stops, then ends the broker.
pub(super) async fn carry(
    broker: Broker,
    mut outgoing: mpsc::Receiver<Outgoing>,
    stats: watch::Sender<BrokerStats>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut seconds = tokio::time::interval(STATS_EVERY);
    loop {
        tokio::select! {
            next = outgoing.recv() => match next {
                Some(next) => deliver(&broker, next).await,
                None => break,
            },
            _ = seconds.tick() => drop(stats.send_replace(broker.stats())),
            () = until(&mut stopped) => break,
        }
    }
    outgoing.close();
    let drain = async {
        while let Some(next) = outgoing.recv().await {
            deliver(&broker, next).await;
        }
    };
    if tokio::time::timeout(DRAIN_TIME_MAX, drain).await.is_err() {
        warn!("messages to devices were not sent before the service stopped");
    }
    let cut = broker.shutdown(SHUTDOWN_TIME_MAX).await;
    if cut > 0 {
        warn!(cut, "connections of devices were cut");
    }
}

async fn deliver(broker: &Broker, outgoing: Outgoing) {
    match outgoing {
        Outgoing::Message(topic, payload) => {
            if let Err(error) = broker.publish(&topic, payload).await {
                error!(%error, "cannot send a message to a device");
            }
        }
        Outgoing::Disconnect(device) => broker.disconnect(&device).await,
    }
}
