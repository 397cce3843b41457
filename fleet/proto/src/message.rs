//! Messages as bytes: Protocol Buffers, as `device.proto` describes them.
//!
//! What comes from outside is bounded here, and what it says is checked as far as a type can: a digest has 32 bytes, a name
//! is a name, no number is more than it may be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use revoada_core::{DeviceClass, Digest};
use thiserror::Error;

use crate::report::{Blame, CommandResult, Details, Event, Fact, Figures, Level, Progress, Report, SlotContent};
use crate::topic::MESSAGE_BYTES_MAX;
use crate::{
    Ask, Command, Deployable, DeviceId, Generation, Invitation, Kind, Label, LearnSettings, Order, StreamHealth, wire,
};

/// In one report.
pub const STREAMS_MAX: usize = 256;
/// That one head tells apart.
pub const LABELS_MAX: usize = 2048;
/// In one report.
pub const FACTS_MAX: usize = 256;
/// Of a fact or an event.
pub const NAME_BYTES_MAX: usize = 64;
/// Of one text for people.
pub const TEXT_BYTES_MAX: usize = 2048;
/// In one receipt.
pub const RECEIPTS_MAX: usize = 1024;
/// Of each kind two.
const SLOTS_MAX: usize = 6;

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    #[error("the message has {bytes} bytes, and may have {MESSAGE_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("the message is damaged: {reason}")]
    Damaged { reason: String },
    #[error("`{field}` of the message is missing, unknown or out of bounds")]
    Field { field: &'static str },
}

/// Bytes that somebody has signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub payload: Vec<u8>,
    pub signature: [u8; 64],
}

impl Signed {
    pub fn encode(&self) -> Vec<u8> {
        let message = wire::Signed { payload: self.payload.clone().into(), signature: self.signature.to_vec().into() };
        message.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: wire::Signed = decode(bytes)?;
        let signature = message.signature.as_ref().try_into().map_err(|_| field("signature"))?;
        Ok(Self { payload: message.payload.into(), signature })
    }
}

/// An order or a command as it is sent: whose it is, and how long it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch<T> {
    pub device: DeviceId,
    pub content: T,
    /// By the service's clock, in whole seconds.
    pub issued_at: SystemTime,
    pub expires_at: Option<SystemTime>,
}

impl Dispatch<Order> {
    pub fn encode(&self) -> Vec<u8> {
        let order = wire::Order {
            device: self.device.to_string(),
            generation: self.content.generation.0,
            deployables: self.content.deployables.iter().map(to_deployable).collect(),
            issued_at: seconds(self.issued_at),
            expires_at: self.expires_at.map(seconds),
        };
        order.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: wire::Order = decode(bytes)?;
        let deployables = message.deployables.iter().take(SLOTS_MAX).map(from_deployable).collect::<Result<_, _>>()?;
        let order = Order { generation: Generation(message.generation), deployables };
        dispatched(&message.device, order, message.issued_at, message.expires_at)
    }
}

impl Dispatch<Command> {
    pub fn encode(&self) -> Vec<u8> {
        use wire::command::Ask as Wire;
        let ask = match &self.content.ask {
            Ask::RestartPipeline => Wire::RestartPipeline(wire::RestartPipeline {}),
            Ask::SwapModel { digest } => Wire::SwapModel(wire::SwapModel { digest: to_digest(digest) }),
            Ask::Snapshot { stream } => Wire::Snapshot(wire::Snapshot { stream: stream.clone() }),
            Ask::FetchLogs { lines } => Wire::FetchLogs(wire::FetchLogs { lines: *lines }),
            Ask::Label { stream, track, label } => {
                Wire::Label(wire::LabelTrack { stream: stream.clone(), track: *track, label: label.to_string() })
            }
            Ask::Forget { label } => Wire::Forget(wire::Forget { label: label.as_ref().map(ToString::to_string) }),
        };
        let command = wire::Command {
            device: self.device.to_string(),
            number: self.content.number,
            issued_at: seconds(self.issued_at),
            expires_at: self.expires_at.map(seconds),
            ask: Some(ask),
        };
        command.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        use wire::command::Ask as Wire;
        let message: wire::Command = decode(bytes)?;
        let ask = match message.ask.ok_or(field("ask"))? {
            Wire::RestartPipeline(_) => Ask::RestartPipeline,
            Wire::SwapModel(swap) => Ask::SwapModel { digest: from_digest(&swap.digest)? },
            Wire::Snapshot(snapshot) => Ask::Snapshot { stream: text(snapshot.stream, "stream")? },
            Wire::FetchLogs(logs) => Ask::FetchLogs { lines: logs.lines },
            Wire::Label(wire::LabelTrack { stream, track, label }) => {
                Ask::Label { stream: text(stream, "stream")?, track, label: from_label(&label)? }
            }
            Wire::Forget(forget) => Ask::Forget { label: forget.label.as_deref().map(from_label).transpose()? },
        };
        dispatched(&message.device, Command { number: message.number, ask }, message.issued_at, message.expires_at)
    }
}

impl Dispatch<Invitation> {
    pub fn encode(&self) -> Vec<u8> {
        let Invitation { run, round, model, weights, weights_bytes, labels, settings } = &self.content;
        let settings = wire::LearnSettings {
            hidden: settings.hidden,
            epochs: settings.epochs,
            batch: settings.batch,
            rate: settings.rate,
            proximal_mu: settings.proximal_mu,
            balanced: settings.balanced,
            held_out: settings.held_out,
        };
        let invitation = wire::Invitation {
            device: self.device.to_string(),
            run: *run,
            round: *round,
            issued_at: seconds(self.issued_at),
            expires_at: self.expires_at.map(seconds),
            model: to_digest(model),
            weights: to_digest(weights),
            weights_bytes: *weights_bytes,
            labels: labels.clone(),
            settings: Some(settings),
        };
        invitation.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: wire::Invitation = decode(bytes)?;
        bounded(message.labels.len(), LABELS_MAX, "labels")?;
        let settings = message.settings.unwrap_or_default();
        let finite = |number: Option<f64>, name| match number {
            Some(number) if !number.is_finite() => Err(field(name)),
            number => Ok(number),
        };
        let settings = LearnSettings {
            hidden: settings.hidden,
            epochs: settings.epochs,
            batch: settings.batch,
            rate: finite(settings.rate, "rate")?,
            proximal_mu: finite(settings.proximal_mu, "proximal_mu")?,
            balanced: settings.balanced,
            held_out: finite(settings.held_out, "held_out")?,
        };
        let invitation = Invitation {
            run: message.run,
            round: message.round,
            model: from_digest(&message.model)?,
            weights: from_digest(&message.weights)?,
            weights_bytes: message.weights_bytes,
            labels: message.labels,
            settings,
        };
        dispatched(&message.device, invitation, message.issued_at, message.expires_at)
    }
}

fn from_label(text: &str) -> Result<Label, MessageError> {
    text.parse().map_err(|_| field("label"))
}

fn dispatched<T>(device: &str, content: T, issued: u64, expires: Option<u64>) -> Result<Dispatch<T>, MessageError> {
    let device = device.parse().map_err(|_| field("device"))?;
    let issued_at = time(issued).ok_or(field("issued_at"))?;
    let expires_at = expires.map(|expires| time(expires).ok_or(field("expires_at"))).transpose()?;
    Ok(Dispatch { device, content, issued_at, expires_at })
}

/// A report with what is said beside it.
pub fn encode_report(report: &Report, details: &Details) -> Vec<u8> {
    use wire::report::Progress as Wire;
    let progress = match &report.progress {
        Progress::Working { what } => Wire::Working(wire::Working { what: cut(what) }),
        Progress::Done => Wire::Done(wire::Done {}),
        Progress::Failed { why, blame } => {
            let blame = match blame {
                Blame::Device => wire::Blame::Device,
                Blame::Deployable => wire::Blame::Deployable,
            };
            Wire::Failed(wire::Failed { why: cut(why), blame: blame.into() })
        }
    };
    let running =
        report.running.iter().map(|(kind, digest)| to_deployable(&Deployable { kind: *kind, digest: *digest }));
    let message = wire::Report {
        sequence: report.sequence,
        generation: report.generation.0,
        progress: Some(progress),
        running: running.collect(),
        figures: Some(to_figures(&report.figures)),
        streams: details.streams.iter().take(STREAMS_MAX).map(to_stream).collect(),
        version: details.version.as_ref().map(ToString::to_string).unwrap_or_default(),
        facts: details.facts.iter().take(FACTS_MAX).map(|(name, fact)| to_fact(name, fact)).collect(),
        refused: details
            .refused
            .as_ref()
            .map(|(generation, why)| wire::Refused { generation: generation.0, why: cut(why) }),
        device_class: details.class.as_ref().map(class_to_json).unwrap_or_default(),
        slots: details.slots.iter().take(SLOTS_MAX).map(to_slot).collect(),
    };
    message.encode_to_vec()
}

pub fn decode_report(bytes: &[u8]) -> Result<(Report, Details), MessageError> {
    use wire::report::Progress as Wire;
    let message: wire::Report = decode(bytes)?;
    let progress = match message.progress.ok_or(field("progress"))? {
        Wire::Working(working) => Progress::Working { what: text(working.what, "what")? },
        Wire::Done(_) => Progress::Done,
        Wire::Failed(failed) => {
            let blame = match failed.blame() {
                wire::Blame::Unspecified => return Err(field("blame")),
                wire::Blame::Device => Blame::Device,
                wire::Blame::Deployable => Blame::Deployable,
            };
            Progress::Failed { why: text(failed.why, "why")?, blame }
        }
    };
    let running: BTreeSet<Deployable> =
        message.running.iter().take(SLOTS_MAX).map(from_deployable).collect::<Result<_, _>>()?;
    let report = Report {
        sequence: message.sequence,
        generation: Generation(message.generation),
        progress,
        running: running.into_iter().map(|deployable| (deployable.kind, deployable.digest)).collect(),
        figures: from_figures(message.figures.unwrap_or_default()),
    };
    bounded(message.streams.len(), STREAMS_MAX, "streams")?;
    bounded(message.facts.len(), FACTS_MAX, "facts")?;
    bounded(message.slots.len(), SLOTS_MAX, "slots")?;
    let version = match message.version.as_str() {
        "" => None,
        version => Some(version.parse().map_err(|_| field("version"))?),
    };
    let refused = match message.refused {
        None => None,
        Some(refused) => Some((Generation(refused.generation), text(refused.why, "why")?)),
    };
    let details = Details {
        streams: message.streams.into_iter().map(from_stream).collect::<Result<_, _>>()?,
        version,
        class: class_from_json(&message.device_class)?,
        facts: message.facts.into_iter().map(from_fact).collect::<Result<BTreeMap<_, _>, _>>()?,
        refused,
        slots: message.slots.into_iter().map(from_slot).collect::<Result<_, _>>()?,
    };
    Ok((report, details))
}

pub fn encode_event(event: &Event) -> Vec<u8> {
    let level = match event.level {
        Level::Info => wire::Level::Info,
        Level::Warn => wire::Level::Warn,
        Level::Error => wire::Level::Error,
    };
    let result = event.result.as_ref().map(|result| {
        use wire::command_result::Outcome;
        let outcome = match &result.outcome {
            Ok(done) => Outcome::Done(cut(done)),
            Err(failed) => Outcome::Failed(cut(failed)),
        };
        wire::CommandResult { number: result.number, outcome: Some(outcome) }
    });
    let message = wire::Event {
        sequence: event.sequence,
        at_ms: event.at_ms,
        level: level.into(),
        name: event.name.clone(),
        text: cut(&event.text),
        result,
        lost: event.lost,
    };
    message.encode_to_vec()
}

pub fn decode_event(bytes: &[u8]) -> Result<Event, MessageError> {
    let message: wire::Event = decode(bytes)?;
    let level = match message.level() {
        wire::Level::Unspecified => return Err(field("level")),
        wire::Level::Info => Level::Info,
        wire::Level::Warn => Level::Warn,
        wire::Level::Error => Level::Error,
    };
    let result = match message.result {
        None => None,
        Some(result) => {
            use wire::command_result::Outcome;
            let outcome = match result.outcome.ok_or(field("outcome"))? {
                Outcome::Done(done) => Ok(text(done, "done")?),
                Outcome::Failed(failed) => Err(text(failed, "failed")?),
            };
            Some(CommandResult { number: result.number, outcome })
        }
    };
    Ok(Event {
        sequence: message.sequence,
        at_ms: message.at_ms,
        level,
        name: name(message.name, "name")?,
        text: text(message.text, "text")?,
        result,
        lost: message.lost,
    })
}

/// What the service has stored, and need not be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub sequences: Vec<u64>,
    /// By the service's clock, in whole milliseconds.
    pub now: SystemTime,
    /// The certificate is to be renewed.
    pub renews_certificate: bool,
}

impl Receipt {
    pub fn encode(&self) -> Vec<u8> {
        let message = wire::Receipt {
            sequences: self.sequences.clone(),
            now_ms: u64::try_from(since_epoch(self.now).as_millis()).unwrap_or(u64::MAX),
            renew_certificate: self.renews_certificate,
        };
        message.encode_to_vec()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let message: wire::Receipt = decode(bytes)?;
        bounded(message.sequences.len(), RECEIPTS_MAX, "sequences")?;
        let now = UNIX_EPOCH.checked_add(Duration::from_millis(message.now_ms)).ok_or(field("now_ms"))?;
        Ok(Self { sequences: message.sequences, now, renews_certificate: message.renew_certificate })
    }
}

// Parts of messages.

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, MessageError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong { bytes: bytes.len() });
    }
    M::decode(bytes).map_err(|error| MessageError::Damaged { reason: error.to_string() })
}

fn field(field: &'static str) -> MessageError {
    MessageError::Field { field }
}

fn bounded(count: usize, max: usize, name: &'static str) -> Result<(), MessageError> {
    if count > max { Err(field(name)) } else { Ok(()) }
}

/// A text for people, cut where it is too long, so that what says much is still heard.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

fn text(text: String, name: &'static str) -> Result<String, MessageError> {
    if text.len() > TEXT_BYTES_MAX { Err(field(name)) } else { Ok(text) }
}

fn name(text: String, name: &'static str) -> Result<String, MessageError> {
    let is_right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(is_right) { Ok(text) } else { Err(field(name)) }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn seconds(time: SystemTime) -> u64 {
    since_epoch(time).as_secs()
}

fn time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// A digest as gRPC messages have it.
pub fn to_digest(digest: &Digest) -> prost::bytes::Bytes {
    digest.as_bytes().to_vec().into()
}

/// The digest in a gRPC message.
pub fn from_digest(bytes: &[u8]) -> Result<Digest, MessageError> {
    bytes.try_into().map(Digest::new).map_err(|_| field("digest"))
}

/// A device class as messages have it.
pub fn class_to_json(class: &DeviceClass) -> String {
    serde_json::to_string(class).expect("a device class has nothing that JSON lacks")
}

/// `None` for the empty text of a device without one.
pub fn class_from_json(text: &str) -> Result<Option<DeviceClass>, MessageError> {
    match text {
        "" => Ok(None),
        text if text.len() > TEXT_BYTES_MAX => Err(field("device_class")),
        text => serde_json::from_str(text).map(Some).map_err(|_| field("device_class")),
    }
}

fn to_kind(kind: Kind) -> wire::Kind {
    match kind {
        Kind::Model => wire::Kind::Model,
        Kind::Pipeline => wire::Kind::Pipeline,
        Kind::Package => wire::Kind::Package,
    }
}

fn from_kind(kind: wire::Kind) -> Result<Kind, MessageError> {
    match kind {
        wire::Kind::Unspecified => Err(field("kind")),
        wire::Kind::Model => Ok(Kind::Model),
        wire::Kind::Pipeline => Ok(Kind::Pipeline),
        wire::Kind::Package => Ok(Kind::Package),
    }
}

fn to_deployable(deployable: &Deployable) -> wire::Deployable {
    wire::Deployable { kind: to_kind(deployable.kind).into(), digest: to_digest(&deployable.digest) }
}

fn from_deployable(message: &wire::Deployable) -> Result<Deployable, MessageError> {
    Ok(Deployable { kind: from_kind(message.kind())?, digest: from_digest(&message.digest)? })
}

fn to_figures(figures: &Figures) -> wire::Figures {
    wire::Figures {
        over_ms: u64::try_from(figures.over.as_millis()).unwrap_or(u64::MAX),
        restarts: figures.restarts,
        fps: figures.fps,
        latency_ms: figures.latency_ms,
        agreement: figures.agreement,
        accuracy: figures.accuracy,
        temperature_c: figures.temperature_c,
        power_w: figures.power_w,
    }
}

fn from_figures(message: wire::Figures) -> Figures {
    let finite = |figure: Option<f64>| figure.filter(|figure| figure.is_finite());
    Figures {
        over: Duration::from_millis(message.over_ms),
        restarts: message.restarts,
        fps: finite(message.fps),
        latency_ms: finite(message.latency_ms),
        agreement: finite(message.agreement),
        accuracy: message.accuracy.filter(|share| (0.0..=1.0).contains(share)),
        temperature_c: finite(message.temperature_c),
        power_w: finite(message.power_w),
    }
}

fn to_stream(stream: &StreamHealth) -> wire::StreamHealth {
    wire::StreamHealth {
        stream: stream.stream.clone(),
        frames: stream.frames,
        fps: stream.fps,
        dropped: stream.dropped,
        reconnects: stream.reconnects,
        trouble: stream.trouble.as_deref().map(cut).unwrap_or_default(),
    }
}

fn from_stream(message: wire::StreamHealth) -> Result<StreamHealth, MessageError> {
    if message.stream.len() > NAME_BYTES_MAX * 4 || !message.fps.is_finite() {
        return Err(field("streams"));
    }
    Ok(StreamHealth {
        stream: message.stream,
        frames: message.frames,
        fps: message.fps,
        dropped: message.dropped,
        reconnects: message.reconnects,
        trouble: Some(text(message.trouble, "trouble")?).filter(|trouble| !trouble.is_empty()),
    })
}

fn to_fact(name: &str, fact: &Fact) -> wire::Fact {
    use wire::fact::Value;
    let value = match fact {
        Fact::Text(text) => Value::Text(cut(text)),
        Fact::Number(number) => Value::Number(*number),
    };
    wire::Fact { name: name.to_owned(), value: Some(value) }
}

fn from_fact(message: wire::Fact) -> Result<(String, Fact), MessageError> {
    use wire::fact::Value;
    let fact = match message.value.ok_or(field("facts"))? {
        Value::Text(value) => Fact::Text(text(value, "facts")?),
        Value::Number(number) if number.is_finite() => Fact::Number(number),
        Value::Number(_) => return Err(field("facts")),
    };
    Ok((name(message.name, "facts")?, fact))
}

fn to_slot(slot: &SlotContent) -> wire::SlotContent {
    wire::SlotContent {
        kind: to_kind(slot.kind).into(),
        slot: slot.slot.clone(),
        digest: to_digest(&slot.digest),
        active: slot.is_active,
    }
}

fn from_slot(message: wire::SlotContent) -> Result<SlotContent, MessageError> {
    let (kind, digest) = (from_kind(message.kind())?, from_digest(&message.digest)?);
    let slot = Some(message.slot).filter(|slot| matches!(slot.as_str(), "a" | "b")).ok_or(field("slots"))?;
    Ok(SlotContent { kind, slot, digest, is_active: message.active })
}
