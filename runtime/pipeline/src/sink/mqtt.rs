//! Events as MQTT 3.1.1 messages.
//!
//! The session is a clean one: what the broker has not acknowledged when the connection breaks is published again by
//! the courier, so that nothing of a device stays behind on a broker.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use rumqttc::{
    AsyncClient, Broker, Event, EventLoop, Incoming, MqttOptions, PublishNoticeError, PublishOptions, PublishResult,
    QoS, TlsConfiguration, Transport,
};
use tokio::runtime::Runtime;
use tokio::time::{Instant, timeout_at};

use super::courier::{Carrier, Letter, Setback};
use crate::SinkError;
use crate::config::MqttConfig;

const KEEP_ALIVE_S: u16 = 30;
/// Often enough that no ping is late.
const RESTS_EVERY: Duration = Duration::from_secs(10);
/// For reading what the broker has sent meanwhile.
const REST: Duration = Duration::from_millis(20);
/// Of what a broker sends to a client that subscribes to nothing.
const INCOMING_BYTES_MAX: usize = 64 * 1024;

pub(super) struct MqttCarrier {
    runtime: Runtime,
    client: AsyncClient,
    connection: EventLoop,
    options: PublishOptions,
    topic: String,
    is_connected: bool,
    /// The fate of the letter that was published and not acknowledged.
    published: Option<Published>,
}

type Published = Pin<Box<dyn Future<Output = Result<PublishResult, PublishNoticeError>> + Send>>;

impl MqttCarrier {
    /// Reads the password and certificates; does not connect.
    pub(super) fn new(config: &MqttConfig) -> Result<Self, SinkError> {
        let cannot = |reason: String| SinkError::Deliver { destination: config.broker.url(), reason };
        let broker = &config.broker;
        let host = if broker.host.contains(':') { format!("[{}]", broker.host) } else { broker.host.clone() };
        let client_id = config.client_id.clone().unwrap_or_else(new_client_id);
        let mut options = MqttOptions::new(client_id, Broker::tcp(host, broker.port));
        // What goes out is bounded where it is made; an event is small.
        options
            .set_clean_session(true)
            .set_keep_alive(KEEP_ALIVE_S)
            .set_max_packet_size(INCOMING_BYTES_MAX, usize::MAX);
        match (&broker.user, &config.password_file) {
            (Some(user), Some(path)) => {
                options.set_credentials(user.clone(), secret(path).map_err(cannot)?);
            }
            (Some(user), None) => {
                options.set_username(user.clone());
            }
            (None, _) => {}
        }
        if broker.tls {
            let tls = match &config.ca_file {
                Some(path) => {
                    let ca = fs::read(path).map_err(|error| cannot(format!("`{}`: {error}", path.display())))?;
                    TlsConfiguration::Simple { ca, alpn: None, client_auth: None }
                }
                None => TlsConfiguration::try_default_rustls().map_err(|error| cannot(error.to_string()))?,
            };
            options.set_transport(Transport::tls_with_config(tls));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| cannot(error.to_string()))?;
        let (client, mut connection) =
            AsyncClient::builder(options).capacity(1).try_build().map_err(|error| cannot(error.to_string()))?;
        let timeout_s = config.courier.timeout.as_secs().max(1);
        connection.network_options.set_connection_timeout(timeout_s);
        let qos = if config.acknowledged { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        Ok(Self {
            runtime,
            client,
            connection,
            options: PublishOptions::new(qos).retain(config.retain),
            topic: config.topic.clone(),
            is_connected: false,
            published: None,
        })
    }
}

impl Carrier for MqttCarrier {
    fn deliver(&mut self, letter: &Letter, timeout: Duration) -> Result<(), Setback> {
        let passing = |reason: String| Setback::Passing { reason, wait: None };
        let Self { runtime, client, connection, options, topic, is_connected, published } = self;
        runtime.block_on(async {
            let deadline = Instant::now() + timeout;
            loop {
                let fate = match published {
                    Some(fate) => fate,
                    None => {
                        let topic = topic.replace("{stream}", &letter.stream).replace("{kind}", &letter.kind);
                        let notice = client
                            .try_publish_tracked(topic, letter.body.clone(), *options)
                            .map_err(|error| passing(error.to_string()))?;
                        published.insert(Box::pin(notice.wait_async()))
                    }
                };
                tokio::select! {
                    biased;
                    result = fate => {
                        *published = None;
                        match result {
                            Ok(_) => return Ok(()),
                            // The connection is another one, which knows nothing of it.
                            Err(PublishNoticeError::SessionReset | PublishNoticeError::Qos0NotFlushed) => {}
                            Err(error) => return Err(passing(error.to_string())),
                        }
                    }
                    polled = connection.poll() => {
                        follow(is_connected, &polled);
                        if let Err(error) = polled {
                            return Err(passing(error.to_string()));
                        }
                    }
                    () = tokio::time::sleep_until(deadline) => {
                        // A broker that says nothing may be behind a connection that is dead.
                        connection.clean();
                        *is_connected = false;
                        return Err(passing(format!("no answer in {} ms", timeout.as_millis())));
                    }
                }
            }
        })
    }

    fn rest(&mut self, timeout: Duration) -> Result<(), String> {
        let Self { runtime, connection, is_connected, .. } = self;
        runtime.block_on(async {
            let deadline = Instant::now() + timeout;
            loop {
                let until = if *is_connected { deadline.min(Instant::now() + REST) } else { deadline };
                match timeout_at(until, connection.poll()).await {
                    Ok(polled) => {
                        follow(is_connected, &polled);
                        polled.map_err(|error| error.to_string())?;
                    }
                    Err(_) if *is_connected => return Ok(()),
                    Err(_) => return Err(format!("no answer in {} ms", timeout.as_millis())),
                }
            }
        })
    }

    fn rests_every(&self) -> Option<Duration> {
        Some(RESTS_EVERY)
    }

    fn leave(&mut self, timeout: Duration) {
        if !self.is_connected || self.client.try_disconnect_now().is_err() {
            return;
        }
        let Self { runtime, connection, .. } = self;
        runtime.block_on(async {
            let deadline = Instant::now() + timeout;
            while let Ok(Ok(_)) = timeout_at(deadline, connection.poll()).await {}
        });
    }
}

fn follow(is_connected: &mut bool, polled: &Result<Event, rumqttc::ConnectionError>) {
    match polled {
        Ok(Event::Incoming(Incoming::ConnAck(_))) => *is_connected = true,
        Ok(_) => {}
        Err(_) => *is_connected = false,
    }
}

/// One that every broker takes: MQTT 3.1.1 promises 23 letters and digits.
fn new_client_id() -> String {
    format!("revoada{:016x}", RandomState::new().build_hasher().finish())
}

/// What a file of one line says. The error is a sentence.
pub(super) fn secret(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    match secret.is_empty() || secret.contains(char::is_control) {
        true => Err(format!("`{}` is to hold one line, the secret", path.display())),
        false => Ok(secret.to_owned()),
    }
}
