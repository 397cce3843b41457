//! Events: into a file, as JSON Lines with a header, or, like messages, to another machine. See [`record`](super::record)
//! for the fields.

use std::path::Path;

use revoada_core::StreamId;

use super::SinkContext;
use super::courier::{Carrier, Courier, Letter};
use super::jsonl::{Files, header, to_line};
use super::messages::Messages;
use super::mqtt::MqttCarrier;
use super::record::{EventRecord, Record};
use super::snapshots::Snapshots;
use super::webhook::WebhookCarrier;
use crate::config::{CourierConfig, MqttConfig, Sends, SnapshotsConfig, WebhookConfig};
use crate::{FrameResult, Sink, SinkError, SinkReport};

pub(super) struct EventsSink {
    files: Files,
    snapshots: Option<Snapshots>,
    line: Vec<u8>,
}

impl EventsSink {
    pub(super) fn open(
        path: &Path,
        snapshots: Option<&SnapshotsConfig>,
        context: &SinkContext,
    ) -> Result<Self, SinkError> {
        let mut files = Files::open(path, &context.streams, header(context))?;
        files.flush()?;
        let snapshots = snapshots.map(Snapshots::open).transpose()?;
        Ok(Self { files, snapshots, line: Vec::new() })
    }
}

impl Sink for EventsSink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        let events = events(result, self.snapshots.as_mut());
        let any = !events.is_empty();
        for event in events {
            to_line(&Record::Event(event), &mut self.line);
            self.files.write_line(&result.frame.stream, &self.line)?;
        }
        // They are few, and each may be what somebody waits for.
        if any { self.files.flush() } else { Ok(()) }
    }

    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        self.files.end_stream(stream)
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        self.files.finish()
    }
}

/// Hands each event or message to a courier.
pub(super) struct DeliverySink {
    courier: Courier,
    writes: Writes,
}

enum Writes {
    Events(Option<Snapshots>),
    Messages(Messages),
}

impl Writes {
    fn open(config: &Sends, context: &SinkContext) -> Result<Self, SinkError> {
        Ok(match config {
            Sends::Events { snapshots } => Self::Events(snapshots.as_ref().map(Snapshots::open).transpose()?),
            Sends::Messages { payload, every } => Self::Messages(Messages::new(*payload, *every, context)),
        })
    }
}

impl DeliverySink {
    pub(super) fn mqtt(config: &MqttConfig, context: &SinkContext) -> Result<Self, SinkError> {
        let writes = Writes::open(&config.sends, context)?;
        Self::start("mqtt", MqttCarrier::new(config)?, config.broker.url(), config.courier, writes, context)
    }

    pub(super) fn webhook(config: &WebhookConfig, context: &SinkContext) -> Result<Self, SinkError> {
        let writes = Writes::open(&config.sends, context)?;
        Self::start("webhook", WebhookCarrier::new(config)?, config.url.clone(), config.courier, writes, context)
    }

    fn start(
        kind: &str,
        carrier: impl Carrier,
        destination: String,
        courier: CourierConfig,
        writes: Writes,
        context: &SinkContext,
    ) -> Result<Self, SinkError> {
        let courier = Courier::start(carrier, destination, courier, context.deliveries.open(kind))?;
        Ok(Self { courier, writes })
    }
}

impl Sink for DeliverySink {
    fn write(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        match &mut self.writes {
            Writes::Events(snapshots) => {
                let events = events(result, snapshots.as_mut());
                events.into_iter().for_each(|event| self.courier.send(Letter::new(event)));
            }
            Writes::Messages(messages) => {
                let (stream, kind) = (result.frame.stream.to_string(), messages.kind().to_owned());
                for message in messages.of(result) {
                    let (stream, kind, body) = (stream.clone(), kind.clone(), message.into_bytes());
                    self.courier.send(Letter { stream, kind, body });
                }
            }
        }
        Ok(())
    }

    fn end_stream(&mut self, stream: &StreamId) -> Result<(), SinkError> {
        if let Writes::Messages(messages) = &mut self.writes {
            messages.end_stream(stream);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<SinkReport, SinkError> {
        self.courier.finish();
        Ok(SinkReport::default())
    }
}

fn events(result: &FrameResult, snapshots: Option<&mut Snapshots>) -> Vec<EventRecord> {
    let mut events: Vec<_> = EventRecord::of(result).collect();
    if let Some(snapshots) = snapshots {
        snapshots.keep(result, &mut events);
    }
    events
}
