//! The connection to the fleet service's broker.
//!
//! It subscribes on every connection, whether or not the broker still has its session: only then does a retained order come
//! again that was published while the broker kept nothing. What the agent has to say is kept by the agent until the service
//! has receipted it, so nothing is queued here while there is no connection.
//!
//! The session is persistent over connections, and each process begins a new one: the client cannot send anything in a
//! session that only the broker remembers. What the broker held for the process before comes again, since orders are retained
//! and the service repeats commands until they are answered.

use std::time::Duration;

use revoada_proto::topic::{MESSAGE_BYTES_MAX, OFFLINE, ONLINE};
use revoada_proto::{Channel, DeviceId, Topic};
use rumqttc_v5::mqttbytes::QoS;
use rumqttc_v5::mqttbytes::v5::{LastWill, Packet, SubscribeFilter};
use rumqttc_v5::{
    AsyncClient, Event, IncomingPacketSizeLimit, MqttOptions, PublishOptions, SessionMode, TlsConfiguration, Transport,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::identity::Identity;
use super::tls::{self, TlsError};

const KEEP_ALIVE_S: u16 = 30;
/// How long the broker keeps messages for a device that is away.
const SESSION_EXPIRY_S: u32 = 86_400;
/// What MQTT adds to a message.
const HEADER_BYTES_MAX: usize = 1 << 10;
/// Messages that wait to be written; beyond it, saying fails and is tried again later.
const REQUESTS_MAX: usize = 64;
/// Messages that wait for the agent; at the bound, the broker waits.
const HEARD_MAX: usize = 16;
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// A connection that lasted for so long makes the next wait a short one.
const LASTED: Duration = Duration::from_secs(60);

/// What the link hears.
#[derive(Debug)]
pub(super) enum Heard {
    Connected,
    Disconnected { reason: String },
    Message { channel: Channel, payload: Vec<u8> },
}

/// A connection that is made again whenever it is lost, until this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    client: AsyncClient,
    whose: Whose,
    task: JoinHandle<()>,
}

impl Link {
    pub(super) fn start(identity: &Identity) -> Result<(Self, mpsc::Receiver<Heard>), TlsError> {
        let tls = tls::mutual(identity, None)?;
        let broker = identity.broker();
        let mut options = MqttOptions::new(identity.device.as_str(), (broker.host, broker.port));
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls)));
        options.set_keep_alive(KEEP_ALIVE_S);
        options.set_clean_start(true);
        options.set_session_expiry_interval(Some(SESSION_EXPIRY_S));
        let packet_bytes_max = (MESSAGE_BYTES_MAX + HEADER_BYTES_MAX) as u32;
        options.set_incoming_packet_size_limit(IncomingPacketSizeLimit::Bytes(packet_bytes_max));
        let whose = Whose { tenant: identity.tenant.clone(), device: identity.device.clone() };
        let presence = whose.topic(Channel::Presence);
        options.set_last_will(LastWill::new(presence, OFFLINE, QoS::AtLeastOnce, true, None));
        let (client, events) = AsyncClient::builder(options).capacity(REQUESTS_MAX).build();
        let (heard, hear) = mpsc::channel(HEARD_MAX);
        let task = tokio::spawn(run(client.clone(), events, whose.clone(), heard));
        Ok((Self { client, whose, task }, hear))
    }

    /// Says something; whether there was room for it.
    pub(super) fn say(&self, channel: Channel, payload: Vec<u8>) -> bool {
        let said = self.client.try_publish(self.whose.topic(channel), payload, PublishOptions::at_least_once());
        said.inspect_err(|error| warn!(%error, ?channel, "cannot queue a message")).is_ok()
    }

    /// Says goodbye and ends; what was said before arrives as far as it can in this time.
    pub(super) async fn end(mut self, time_max: Duration) {
        let presence = self.whose.topic(Channel::Presence);
        let options = PublishOptions::at_least_once().retained();
        let said = self.client.try_publish(presence, OFFLINE, options).is_ok() && self.client.try_disconnect().is_ok();
        if said && tokio::time::timeout(time_max, &mut self.task).await.is_err() {
            warn!("the broker did not take the goodbye");
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The device whose topics are spoken on.
#[derive(Clone, Debug)]
struct Whose {
    tenant: DeviceId,
    device: DeviceId,
}

impl Whose {
    fn topic(&self, channel: Channel) -> String {
        Topic { tenant: self.tenant.clone(), device: self.device.clone(), channel }.to_string()
    }
}

async fn run(client: AsyncClient, mut events: rumqttc_v5::EventLoop, whose: Whose, heard: mpsc::Sender<Heard>) {
    let mut connected_at = None;
    let mut failures = 0;
    loop {
        let hears = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                connected_at = Some(Instant::now());
                events.options.set_session_mode(SessionMode::Persistent);
                welcome(&client, &whose);
                heard.send(Heard::Connected).await
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let channel = Channel::ALL
                    .into_iter()
                    .find(|channel| !channel.is_up() && whose.topic(*channel).as_bytes() == publish.topic.as_ref());
                match channel {
                    Some(channel) => heard.send(Heard::Message { channel, payload: publish.payload.to_vec() }).await,
                    None => {
                        warn!(topic = %String::from_utf8_lossy(&publish.topic), "a message on a topic not asked for");
                        Ok(())
                    }
                }
            }
            Ok(Event::Incoming(Packet::SubAck(answer))) => {
                info!(codes = ?answer.return_codes, "subscribed");
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(rumqttc_v5::ConnectionError::RequestsDone) => return,
            Err(error) => {
                let lasted = connected_at.take().map(|at: Instant| at.elapsed());
                failures = if lasted.is_some_and(|lasted| lasted >= LASTED) { 0 } else { failures };
                let told = match lasted {
                    Some(_) => heard.send(Heard::Disconnected { reason: error.to_string() }).await,
                    None => Ok(()),
                };
                let wait = back_off(failures, fastrand::f64());
                failures = failures.saturating_add(1);
                info!(%error, ?wait, "no connection to the broker");
                tokio::time::sleep(wait).await;
                told
            }
        };
        if hears.is_err() {
            return;
        }
    }
}

/// Subscribes, and says that the device is there.
fn welcome(client: &AsyncClient, whose: &Whose) {
    let filters = Channel::ALL.into_iter().filter(|channel| !channel.is_up());
    let filters = filters.map(|channel| SubscribeFilter::new(whose.topic(channel), QoS::AtLeastOnce));
    let presence = whose.topic(Channel::Presence);
    let asked = client.try_subscribe_many(filters);
    let asked = asked.and_then(|()| client.try_publish(presence, ONLINE, PublishOptions::at_least_once().retained()));
    if let Err(error) = asked {
        warn!(%error, "cannot subscribe; the broker is asked again at the next connection");
    }
}

/// A random part, between 0 and 1, of a wait that doubles.
fn back_off(failures: u32, part: f64) -> Duration {
    let wait = BACK_OFF_MIN.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX)).min(BACK_OFF_MAX);
    wait.mul_f64(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        assert_eq!(back_off(0, 1.0), BACK_OFF_MIN);
        assert_eq!(back_off(3, 0.5), BACK_OFF_MIN * 4);
        for failures in [20, 31, 32, u32::MAX] {
            assert_eq!(back_off(failures, 1.0), BACK_OFF_MAX);
        }
        assert_eq!(back_off(9, 0.0), Duration::ZERO);
    }
}
