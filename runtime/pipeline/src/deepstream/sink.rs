//! Sinks of the application.

use std::path::Path;

use toml_edit::{Table, value};

use super::Files;
use super::section::Section;
use crate::config::BrokerAddress;

/// Where a browser finds what DeepStream would show on a screen.
pub(super) const PREVIEW_ADDRESS: &str = "127.0.0.1:8080";

/// The sinks so far, and what they need beside themselves.
#[derive(Default)]
pub(super) struct Sinks {
    pub(super) tables: Vec<Table>,
    /// A sink needs `[http]`.
    pub(super) preview: bool,
    messages: usize,
}

impl Sinks {
    /// Adds the sink of a `[sinkN]`; `streams` is how many there are.
    pub(super) fn add(&mut self, section: &Section<'_>, streams: usize, files: &Files<'_>) {
        section.switch("enable");
        let container = section.integer("container");
        let output = section.text("output-file");
        let bitrate = section.count("bitrate");
        let port = section.integer("rtsp-port").unwrap_or(8554);
        let payload = section.integer("msg-conv-payload-type").unwrap_or(0);
        let every = section.count("msg-conv-frame-interval").unwrap_or(30);
        let broker = section.text("msg-broker-proto-lib");
        let (connection, topic) = (section.text("msg-broker-conn-str"), section.text("topic"));
        let credentials = section.text("msg-broker-config");
        let codec = section.integer("codec").unwrap_or(1);
        let mut table = Table::new();
        let mut set = |key: &str, value: toml_edit::Value| drop(table.insert(key, toml_edit::Item::Value(value)));
        match section.integer("type") {
            Some(1) => set("type", "none".into()),
            Some(2 | 5 | 7) => {
                section.note(
                    "type",
                    format!("there is no screen: a browser shows the streams at http://{PREVIEW_ADDRESS}/"),
                );
                if self.preview {
                    return;
                }
                self.preview = true;
                set("type", "preview".into());
            }
            Some(3) => {
                let Some(output) = output else {
                    return section.problem("output-file", "this key is missing");
                };
                set("type", "video".into());
                set("path", video_path(section, container, output, streams, files).into());
            }
            Some(4) => {
                if !(1..=65_535).contains(&port) {
                    section.problem("rtsp-port", format!("expected a port from 1 to 65535, got {port}"));
                }
                set("type", "rtsp".into());
                set("address", format!("0.0.0.0:{port}").into());
            }
            Some(6) => {
                let broker = broker.map_or("a broker", broker_name);
                if broker == MQTT {
                    let Some(url) = connection.and_then(broker_url) else {
                        let message = "expected the host and port of a broker, as `host;1883`";
                        return section.problem("msg-broker-conn-str", message);
                    };
                    set("type", "mqtt".into());
                    set("url", url.into());
                    if let Some(topic) = topic {
                        set("topic", topic.into());
                    }
                    if credentials.is_some() {
                        section.note(
                            "msg-broker-config",
                            "is not read: a user stands in `sink.url`, a password in a `password_file`, and `mqtts://` is TLS",
                        );
                    }
                } else {
                    set("type", "messages".into());
                    self.messages += 1;
                    let name = match self.messages {
                        1 => "messages.jsonl".to_owned(),
                        number => format!("messages-{number}.jsonl"),
                    };
                    section.note(
                        "msg-broker-proto-lib",
                        format!("{broker} is not spoken: the messages are written as JSON Lines to `{name}`"),
                    );
                    set("path", files.shown(Path::new(&name)).into());
                    let unused =
                        [("msg-broker-conn-str", connection), ("topic", topic), ("msg-broker-config", credentials)];
                    for (key, _) in unused.into_iter().filter(|(_, value)| value.is_some()) {
                        section.note(key, "has no effect: no broker is spoken to");
                    }
                }
                let payload = match payload {
                    0 => "deepstream-full",
                    1 => "deepstream-minimal",
                    _ => {
                        let message = format!(
                            "payload {payload} is made by a library of one's own; take 0 (full) or 1 (minimal)"
                        );
                        return section.problem("msg-conv-payload-type", message);
                    }
                };
                set("payload", payload.into());
                set("every", i64::from(every.max(1)).into());
            }
            Some(other) => {
                let message = match other {
                    8 => "WebRTC (8) is not served; take 4 (RTSP), or 2 for a page in a browser".to_owned(),
                    _ => format!("expected a type from 1 to 7, got {other}"),
                };
                return section.problem("type", message);
            }
            None => {
                return section.problem("type", "this key is missing: 1 none, 2 screen, 3 file, 4 RTSP, 6 messages");
            }
        }
        if matches!(section.integer("type"), Some(3 | 4)) {
            if codec != 1 {
                section.note("codec", "videos are written in H.264, whatever is asked for");
            }
            if let Some(bitrate) = bitrate.filter(|bitrate| *bitrate > 0) {
                let kbps = i64::from(bitrate.div_ceil(1000)).clamp(50, 500_000);
                if kbps * 1000 != i64::from(bitrate) {
                    section.note("bitrate", format!("becomes {kbps} kbit/s"));
                }
                table.insert("bitrate_kbps", value(kbps));
            }
        }
        self.tables.push(table);
    }
}

/// Our files are told by their extension, and each stream has one of its own.
fn video_path(
    section: &Section<'_>,
    container: Option<i64>,
    output: &str,
    streams: usize,
    files: &Files<'_>,
) -> String {
    let path = files.resolve(Path::new(""), output);
    let written = path.extension().and_then(|extension| extension.to_str());
    let wanted = match (container, written) {
        (None, Some("mkv")) | (Some(2), _) => "mkv",
        (None | Some(1), _) => "mp4",
        (Some(other), _) => {
            section.problem("container", format!("expected 1 (MP4) or 2 (Matroska), got {other}"));
            "mp4"
        }
    };
    let name = match written {
        Some("mp4" | "mkv" | "mov" | "avi" | "h264" | "264") => path.file_stem(),
        _ => path.file_name(),
    };
    let name = name.unwrap_or_default().to_string_lossy();
    let mark = if streams > 1 { "-{stream}" } else { "" };
    let path = path.with_file_name(format!("{name}{mark}.{wanted}"));
    if streams > 1 || written != Some(wanted) {
        section.note("output-file", format!("becomes `{}`", path.display()));
    }
    files.shown(&path)
}

const MQTT: &str = "MQTT";

/// `host;port`, as NVIDIA's adapter of MQTT takes it; what comes behind the port has no meaning there.
fn broker_url(connection: &str) -> Option<String> {
    let mut parts = connection.split(';');
    let (host, port) = (parts.next()?.trim(), parts.next()?.trim().parse::<u16>().ok()?);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Some(format!("mqtt://{host}:{port}")).filter(|url| BrokerAddress::parse(url).is_ok())
}

fn broker_name(library: &str) -> &'static str {
    const BROKERS: [(&str, &str); 6] = [
        ("kafka", "Kafka"),
        ("amqp", "AMQP"),
        ("redis", "Redis"),
        ("azure", "Azure IoT"),
        ("mqtt", MQTT),
        ("nats", "NATS"),
    ];
    BROKERS.iter().find(|(word, _)| library.contains(word)).map_or("that broker", |(_, name)| name)
}
