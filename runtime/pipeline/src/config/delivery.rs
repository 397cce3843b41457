//! Sinks that deliver events to another machine, and the pictures that go with events.

use std::path::{Path, PathBuf};
use std::time::Duration;

use revoada_bundle::strict::Table;
use toml_edit::Value;
use ureq::http::Uri;

use super::Payload;
use super::print::{integer, milliseconds, path as path_value, word};
use super::read::{PAYLOADS, milliseconds as read_milliseconds, path};

/// An event is about 400 bytes: so many are 40 MB.
const QUEUE_EVENTS_MAX: usize = 100_000;

/// What an MQTT topic can have, in bytes.
const TOPIC_BYTES_MAX: usize = 65_535;

/// Events or messages published to an MQTT 3.1.1 broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttConfig {
    pub broker: BrokerAddress,
    /// Of the address's user; one line.
    pub password_file: Option<PathBuf>,
    /// Certificates in PEM that sign the broker's; `None`: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// `{stream}` becomes the stream's id and `{kind}` the event's kind, or a message's: `object` or `frame`.
    pub topic: String,
    /// Wait for the broker's word that it has the event (QoS 1), or send and forget (QoS 0).
    pub acknowledged: bool,
    pub retain: bool,
    /// `None`: another one in each run.
    pub client_id: Option<String>,
    pub sends: Sends,
    pub courier: CourierConfig,
}

/// `mqtt://user@host:1883`, or `mqtts://` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerAddress {
    pub tls: bool,
    pub user: Option<String>,
    /// A name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
}

/// Events or messages posted to an HTTP server, one JSON object each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookConfig {
    pub url: String,
    /// What is sent as bearer token; one line.
    pub token_file: Option<PathBuf>,
    /// Certificates in PEM that sign the server's; `None`: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    pub sends: Sends,
    pub courier: CourierConfig,
}

/// What is delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sends {
    /// What objects did, with pictures where they are kept.
    Events { snapshots: Option<SnapshotsConfig> },
    /// The results of every n-th frame of a stream.
    Messages { payload: Payload, every: u32 },
}

impl Sends {
    pub(crate) fn snapshots(&self) -> Option<&SnapshotsConfig> {
        match self {
            Self::Events { snapshots } => snapshots.as_ref(),
            Self::Messages { .. } => None,
        }
    }
}

/// How events are carried to where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CourierConfig {
    /// Events that wait; beyond it the oldest is dropped.
    pub queue_events_max: usize,
    /// Of one attempt.
    pub timeout: Duration,
    /// Between attempts; doubles from the least to the greatest.
    pub delay_min: Duration,
    pub delay_max: Duration,
    /// At the end of a run, what waits is delivered for so long.
    pub flush: Duration,
}

impl Default for CourierConfig {
    fn default() -> Self {
        Self {
            queue_events_max: 1000,
            timeout: Duration::from_secs(10),
            delay_min: Duration::from_millis(500),
            delay_max: Duration::from_secs(30),
            flush: Duration::from_secs(5),
        }
    }
}

/// A picture of each event's frame, as drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotsConfig {
    pub folder: PathBuf,
    /// Of the folder; beyond it the oldest pictures are deleted.
    pub mb_max: u32,
}

impl BrokerAddress {
    /// The error is a sentence for whoever typed the address.
    pub fn parse(url: &str) -> Result<Self, String> {
        // What was typed is not repeated: it may have a password in it.
        let expected = || "expected a broker such as `mqtt://user@host:1883`".to_owned();
        let (scheme, _) = url.split_once("://").ok_or_else(expected)?;
        let (tls, port) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err("unknown scheme, choose `mqtt://` or `mqtts://`".to_owned()),
        };
        let uri: Uri = url.parse().map_err(|_| expected())?;
        if uri.path_and_query().is_some_and(|path| !matches!(path.as_str(), "" | "/")) {
            return Err("a broker has no path; what to publish to is `topic`".into());
        }
        let authority = uri.authority().ok_or_else(expected)?;
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user.to_owned());
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err("a password stands in a file of its own: name it as `password_file`".into());
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(port);
        if host.is_empty() || port == 0 || user.as_ref().is_some_and(String::is_empty) {
            return Err(expected());
        }
        Ok(Self { tls, user, host, port })
    }

    /// As it is written in a file.
    pub fn url(&self) -> String {
        let Self { tls, user, host, port } = self;
        let scheme = if *tls { "mqtts" } else { "mqtt" };
        let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!("{scheme}://{user}{host}:{port}")
    }
}

pub(super) fn mqtt(table: &Table<'_>, folder: &Path) -> Option<MqttConfig> {
    let url = table.required().string("url");
    let broker = url.and_then(|url| BrokerAddress::parse(&url).map_err(|message| table.problem("url", message)).ok());
    let sends = sends(table, folder);
    let topic = table.string("topic").unwrap_or_else(|| match sends {
        Sends::Events { .. } => "revoada/{stream}/events".to_owned(),
        Sends::Messages { .. } => "revoada/{stream}/messages".to_owned(),
    });
    if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX || topic.contains(['+', '#', '\0']) {
        table.problem("topic", "expected a topic to publish to, without `+` and `#`");
    }
    let client_id = table.string("client_id");
    if client_id.as_ref().is_some_and(String::is_empty) {
        table.problem("client_id", "expected a name, got nothing; leave it out to have one made");
    }
    let config = MqttConfig {
        broker: broker.clone().unwrap_or(BrokerAddress { tls: false, user: None, host: String::new(), port: 0 }),
        password_file: path(table, "password_file", folder),
        ca_file: path(table, "ca_file", folder),
        topic,
        acknowledged: table.integer("qos", 0u8..=1).unwrap_or(1) == 1,
        retain: table.boolean("retain").unwrap_or(false),
        client_id,
        sends,
        courier: courier(table),
    };
    let broker = broker?;
    if config.password_file.is_some() && broker.user.is_none() {
        table.problem("password_file", "has no effect without a user: `mqtt://user@host`");
    }
    if config.ca_file.is_some() && !broker.tls {
        table.problem("ca_file", "has no effect without TLS: `mqtts://`");
    }
    Some(config)
}

pub(super) fn webhook(table: &Table<'_>, folder: &Path) -> Option<WebhookConfig> {
    let url = table.required().string("url").filter(|url| match check_url(url) {
        Ok(()) => true,
        Err(message) => {
            table.problem("url", message);
            false
        }
    });
    let config = WebhookConfig {
        url: url.clone().unwrap_or_default(),
        token_file: path(table, "token_file", folder),
        ca_file: path(table, "ca_file", folder),
        sends: sends(table, folder),
        courier: courier(table),
    };
    if config.ca_file.is_some() && url.as_ref().is_some_and(|url| url.starts_with("http://")) {
        table.problem("ca_file", "has no effect without TLS: `https://`");
    }
    url.map(|_| config)
}

fn check_url(url: &str) -> Result<(), &'static str> {
    const EXPECTED: &str = "expected an address such as `https://host/events`";
    let uri: Uri = url.parse().map_err(|_| EXPECTED)?;
    let authority = uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https"))).ok_or(EXPECTED)?;
    match authority.as_str().contains('@') {
        true => Err("a secret stands in a file of its own: name it as `token_file`"),
        false => Ok(()),
    }
}

fn sends(table: &Table<'_>, folder: &Path) -> Sends {
    let events = [("events", None)].into_iter();
    let payloads: Vec<_> = events.chain(PAYLOADS.map(|(word, payload)| (word, Some(payload)))).collect();
    match table.choice("payload", &payloads).flatten() {
        None => {
            if table.has("every") {
                table.problem("every", "has no effect on events, which are all sent");
            }
            Sends::Events { snapshots: snapshots(table, folder) }
        }
        Some(payload) => {
            for key in ["snapshots", "snapshots_mb_max"].into_iter().filter(|key| table.has(key)) {
                table.problem(key, "has no effect on messages: pictures go with events");
            }
            Sends::Messages { payload, every: table.integer("every", 1u32..).unwrap_or(1) }
        }
    }
}

fn courier(table: &Table<'_>) -> CourierConfig {
    const HOUR_MS: u64 = 3600 * 1000;
    let default = CourierConfig::default();
    let delay_min = read_milliseconds(table, "delay_ms_min", 10, HOUR_MS).unwrap_or(default.delay_min);
    let delay_max = read_milliseconds(table, "delay_ms_max", 10, HOUR_MS).unwrap_or(default.delay_max.max(delay_min));
    if delay_max < delay_min {
        table.problem("delay_ms_max", format!("is less than `delay_ms_min`, {}", delay_min.as_millis()));
    }
    CourierConfig {
        queue_events_max: table.integer("queue_events_max", 1..=QUEUE_EVENTS_MAX).unwrap_or(default.queue_events_max),
        timeout: read_milliseconds(table, "timeout_ms", 100, 600_000).unwrap_or(default.timeout),
        delay_min,
        delay_max,
        flush: read_milliseconds(table, "flush_ms", 0, 600_000).unwrap_or(default.flush),
    }
}

pub(super) fn snapshots(table: &Table<'_>, folder: &Path) -> Option<SnapshotsConfig> {
    let mb_max = table.integer("snapshots_mb_max", 1u32..=1_000_000);
    let folder = path(table, "snapshots", folder);
    if folder.is_none() && mb_max.is_some() && !table.has("snapshots") {
        table.problem("snapshots_mb_max", "has no effect without a folder: `snapshots`");
    }
    Some(SnapshotsConfig { folder: folder?, mb_max: mb_max.unwrap_or(500) })
}

type Options = Vec<(&'static str, Option<Value>)>;

pub(super) fn print_mqtt(config: &MqttConfig) -> Options {
    let mut options = vec![
        ("url", Some(config.broker.url().into())),
        ("password_file", config.password_file.as_deref().map(path_value)),
        ("ca_file", config.ca_file.as_deref().map(path_value)),
        ("topic", Some(config.topic.as_str().into())),
        ("qos", Some(integer(config.acknowledged.into()))),
        ("retain", Some(config.retain.into())),
        ("client_id", config.client_id.as_deref().map(Value::from)),
    ];
    options.extend(print_sends(&config.sends));
    options.extend(print_courier(&config.courier));
    options
}

pub(super) fn print_webhook(config: &WebhookConfig) -> Options {
    let mut options = vec![
        ("url", Some(config.url.as_str().into())),
        ("token_file", config.token_file.as_deref().map(path_value)),
        ("ca_file", config.ca_file.as_deref().map(path_value)),
    ];
    options.extend(print_sends(&config.sends));
    options.extend(print_courier(&config.courier));
    options
}

fn print_sends(sends: &Sends) -> Options {
    match sends {
        Sends::Events { snapshots } => print_snapshots(snapshots.as_ref()),
        Sends::Messages { payload, every } => {
            vec![("payload", Some(word(&PAYLOADS, payload))), ("every", Some(integer((*every).into())))]
        }
    }
}

fn print_courier(courier: &CourierConfig) -> Options {
    vec![
        ("queue_events_max", Some(integer(courier.queue_events_max as u64))),
        ("timeout_ms", Some(milliseconds(courier.timeout))),
        ("delay_ms_min", Some(milliseconds(courier.delay_min))),
        ("delay_ms_max", Some(milliseconds(courier.delay_max))),
        ("flush_ms", Some(milliseconds(courier.flush))),
    ]
}

pub(super) fn print_snapshots(snapshots: Option<&SnapshotsConfig>) -> Options {
    vec![
        ("snapshots", snapshots.map(|snapshots| path_value(&snapshots.folder))),
        ("snapshots_mb_max", snapshots.map(|snapshots| integer(snapshots.mb_max.into()))),
    ]
}
