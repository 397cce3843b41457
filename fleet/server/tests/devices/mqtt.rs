//! A client of MQTT 5 without manners: it sends whatever it is told to, which a proper one does not.

use std::net::SocketAddr;
use std::sync::Arc;

use revoada_proto::Topic;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::world::{connect, within};

pub(crate) struct Client(pub(crate) TlsStream<TcpStream>);

pub(crate) struct Connect<'a> {
    pub(crate) id: &'a str,
    pub(crate) version: u8,
    pub(crate) keep_alive: u16,
    pub(crate) clean_start: bool,
    pub(crate) session_expiry: u32,
    /// Topic, payload, whether it is retained.
    pub(crate) will: Option<(&'a str, &'a [u8], bool)>,
}

impl Default for Connect<'_> {
    fn default() -> Self {
        Self { id: "gate-7", version: 5, keep_alive: 30, clean_start: true, session_expiry: 0, will: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    ConnAck { session_present: bool, reason: u8, properties: Vec<u8> },
    Publish { topic: String, payload: Vec<u8>, id: u16, is_retained: bool },
    PubAck { id: u16, reason: u8 },
    SubAck { reasons: Vec<u8> },
    Disconnect { reason: u8 },
    Other(u8),
}

pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
pub(crate) const CLIENT_ID_NOT_VALID: u8 = 0x85;

pub(crate) fn topic(device: &str, channel: revoada_proto::Channel) -> String {
    Topic::new(device.parse().unwrap(), channel).to_string()
}

pub(crate) fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    bytes.extend(text);
}

pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = if length >= 128 { 128 } else { 0 };
        bytes.push(u8::try_from(length % 128).unwrap() | more);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

pub(crate) fn publish(topic: &str, payload: &[u8], qos: u8, is_retained: bool, id: u16) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic.as_bytes());
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    body.push(0);
    body.extend(payload);
    packet(0x30 | qos << 1 | u8::from(is_retained), &body)
}

pub(crate) fn subscribe(filters: &[&str], id: u16) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.push(0);
    for filter in filters {
        text(&mut body, filter.as_bytes());
        body.push(1);
    }
    packet(0x82, &body)
}

impl Connect<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        let will = self.will.map_or(0, |(_, _, is_retained)| 0x0c | u8::from(is_retained) << 5);
        body.extend([self.version, u8::from(self.clean_start) << 1 | will]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == 5 {
            body.extend([5, 0x11]);
            body.extend(self.session_expiry.to_be_bytes());
        }
        text(&mut body, self.id.as_bytes());
        if let Some((topic, payload, _)) = self.will {
            if self.version == 5 {
                body.push(0);
            }
            text(&mut body, topic.as_bytes());
            text(&mut body, payload);
        }
        packet(0x10, &body)
    }
}

impl Client {
    pub(crate) async fn open(config: &Arc<ClientConfig>, address: SocketAddr) -> Self {
        Self(within(connect(config, address)).await.unwrap())
    }

    /// Connects, and expects to be let in.
    pub(crate) async fn start(config: &Arc<ClientConfig>, address: SocketAddr, connect: &Connect<'_>) -> Self {
        let mut client = Self::open(config, address).await;
        client.send(&connect.encode()).await;
        let answer = client.receive().await;
        assert!(matches!(answer, Some(Packet::ConnAck { reason: 0, .. })), "{answer:?}");
        client
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        within(async {
            self.0.write_all(bytes).await.unwrap();
            self.0.flush().await.unwrap();
        })
        .await;
    }

    /// `None` once the connection has ended, in whatever way.
    pub(crate) async fn receive(&mut self) -> Option<Packet> {
        within(self.read()).await.ok()
    }

    pub(crate) async fn acknowledge(&mut self, id: u16) {
        self.send(&packet(0x40, &id.to_be_bytes())).await;
    }

    /// Reads on until the connection ends, and returns what came before.
    pub(crate) async fn end(&mut self) -> Vec<Packet> {
        let mut packets = Vec::new();
        while let Some(packet) = self.receive().await {
            packets.push(packet);
        }
        packets
    }

    async fn read(&mut self) -> std::io::Result<Packet> {
        let first = self.0.read_u8().await?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.0.read_u8().await?;
            length |= usize::from(byte & 127) << shift;
            shift += 7;
            if byte < 128 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok(match first >> 4 {
            2 => Packet::ConnAck {
                session_present: body[0] & 1 == 1,
                reason: body[1],
                properties: body.get(3..).unwrap_or_default().to_vec(),
            },
            3 => {
                let after = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let has_id = first & 6 != 0;
                let id = if has_id { u16::from_be_bytes([body[after], body[after + 1]]) } else { 0 };
                let properties = after + if has_id { 2 } else { 0 };
                Packet::Publish {
                    topic: String::from_utf8(body[2..after].to_vec()).unwrap(),
                    payload: body[properties + 1 + usize::from(body[properties])..].to_vec(),
                    id,
                    is_retained: first & 1 == 1,
                }
            }
            4 => Packet::PubAck {
                id: u16::from_be_bytes([body[0], body[1]]),
                reason: body.get(2).copied().unwrap_or_default(),
            },
            9 => Packet::SubAck { reasons: body[3 + usize::from(body[2])..].to_vec() },
            14 => Packet::Disconnect { reason: body.first().copied().unwrap_or_default() },
            kind => Packet::Other(kind),
        })
    }
}
