//! What devices say, as it comes in.

use std::collections::BTreeMap;

use revoada_core::Timestamp;
use revoada_proto::message::{self, RECEIPTS_MAX};
use revoada_proto::{Channel, DeviceId, Event, Receipt, Topic};
use tracing::{debug, info, warn};

use super::devices::trouble_of;
use super::learning::learner;
use super::{Change, Fleet, Result, now, wall};
use crate::broker::Incoming;
use crate::learning::LearningCounts;
use crate::store::{Gauge, Heard, Occurrence, Sample, StoreError};

/// What has been counted since the service began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub reports: u64,
    pub events: u64,
    /// Events that came again.
    pub events_known: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
    /// Batches that the store did not take; their devices send them again.
    pub batches_failed: u64,
    pub orders_sent: u64,
    pub commands_sent: u64,
    pub plans: u64,
    /// Plans that another one was faster than.
    pub plans_lost: u64,
    pub sign_ins_failed: u64,
    /// Webhooks that were not told at the bound.
    pub notices_lost: u64,
    pub learning: LearningCounts,
}

/// What one batch comes to.
#[derive(Default)]
struct Batch {
    heard: Vec<Heard>,
    occurrences: Vec<Occurrence>,
    samples: Vec<Sample>,
    /// Whom to send a receipt of what, once it is kept.
    receipts: BTreeMap<DeviceId, Vec<u64>>,
    connected: Vec<DeviceId>,
    /// Who would get an order now, and who commands.
    ordered: Vec<DeviceId>,
    commanded: Vec<DeviceId>,
}

impl Fleet {
    /// Takes a batch of what devices said: keeps it, answers it, and acts on it. What is not kept is not answered, and comes
    /// again.
    pub fn ingest(&self, incoming: Vec<Incoming>) {
        let now = now();
        let mut batch = self.read(incoming, now);
        if let Err(error) = self.keep(&batch) {
            self.count(|counts| counts.batches_failed += 1);
            warn!(error = %super::chain(&error), reports = batch.heard.len(), "cannot keep what devices said");
            batch.forget_said();
        }
        self.answer(&batch, now);
        self.take_in(batch, now);
    }

    fn read(&self, incoming: Vec<Incoming>, now: Timestamp) -> Batch {
        let mut batch = Batch::default();
        for incoming in incoming {
            match incoming {
                Incoming::Connected { peer, connection } => {
                    debug!(device = %peer.device, "connected");
                    let mut live = self.live_mut();
                    // One that was removed meanwhile is cut off by who removed it.
                    if live.inventory.devices.contains_key(&peer.device) {
                        live.connected.insert(peer.device.clone(), connection);
                        // One whose session was kept is subscribed, and says so no more.
                        batch.ordered.push(peer.device.clone());
                        batch.commanded.push(peer.device.clone());
                        self.board.came(learner(&peer.device));
                        batch.connected.push(peer.device);
                    }
                }
                Incoming::Subscribed { device, channel } => match channel {
                    Channel::Desired => batch.ordered.push(device),
                    Channel::Command => batch.commanded.push(device),
                    Channel::Learn => self.board.came(learner(&device)),
                    _ => {}
                },
                Incoming::Disconnected { peer, connection } => {
                    debug!(device = %peer.device, "disconnected");
                    let mut live = self.live_mut();
                    // An older connection's end says nothing of the newer one.
                    if live.connected.get(&peer.device) == Some(&connection) {
                        live.connected.remove(&peer.device);
                        drop(live);
                        self.announce(Change::Device { device: peer.device });
                    }
                }
                Incoming::Message { device, channel, payload } => {
                    if let Err(error) = batch.read(&device, channel, &payload, now) {
                        self.count(|counts| counts.unreadable += 1);
                        warn!(%device, ?channel, %error, "cannot read what a device said");
                    }
                }
            }
        }
        batch
    }

    fn keep(&self, batch: &Batch) -> Result<()> {
        if !batch.heard.is_empty() {
            self.store.record(&batch.heard)?;
            self.store.record_samples(&batch.samples)?;
        }
        if batch.occurrences.is_empty() {
            return Ok(());
        }
        let are_new = self.store.record_events(&batch.occurrences)?;
        for (Occurrence { device, event, .. }, is_new) in batch.occurrences.iter().zip(are_new) {
            self.count(|counts| if is_new { counts.events += 1 } else { counts.events_known += 1 });
            // Also of one that came again: the service may have been killed between.
            self.end_command_of(device, event)?;
        }
        Ok(())
    }

    fn end_command_of(&self, device: &DeviceId, event: &Event) -> Result<()> {
        let Some(result) = &event.result else { return Ok(()) };
        let outcome = result.outcome.as_deref().map_err(String::as_str);
        match self.store.end_command(device, result.number, outcome) {
            Ok(true) => self.announce(Change::Command { device: device.clone(), number: result.number }),
            // Removed meanwhile, and its commands with it: no reason to drop what others said.
            Ok(false) | Err(StoreError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn answer(&self, batch: &Batch, now: Timestamp) {
        for (device, sequences) in &batch.receipts {
            let renews_certificate = self.is_to_renew(device, now);
            for sequences in sequences.chunks(RECEIPTS_MAX) {
                let receipt = Receipt { sequences: sequences.to_vec(), now: wall(now), renews_certificate };
                self.post.post(&Topic::new(device.clone(), Channel::Receipt), receipt.encode());
            }
        }
    }

    fn is_to_renew(&self, device: &DeviceId, now: Timestamp) -> bool {
        let not_after = self.live().certificates.get(device).copied();
        not_after.is_some_and(|not_after| not_after.since(now) < self.validity.certificate_renewal)
    }

    fn take_in(&self, batch: Batch, now: Timestamp) {
        let (mut is_news, mut behind) = (false, Vec::new());
        let mut said = Vec::new();
        {
            let mut live = self.live_mut();
            for Heard { device, report, details, at } in batch.heard {
                let trouble = trouble_of(&details);
                let Some(known) = live.inventory.devices.get_mut(&device) else { continue };
                known.seen = known.seen.max(Some(at));
                known.version = details.version.or(known.version.take());
                known.class = details.class.or(known.class.take());
                known.facts.extend(details.facts);
                match trouble {
                    Some(trouble) => live.troubles.insert(device.clone(), trouble),
                    None => live.troubles.remove(&device),
                };
                let generation = report.generation;
                is_news |= live.observations.observe(device.clone(), report);
                if live.blueprint.order(&device).is_some_and(|order| order.generation > generation) {
                    behind.push(device.clone());
                }
                said.push(device);
            }
            for device in &batch.connected {
                if let Some(known) = live.inventory.devices.get_mut(device) {
                    known.seen = known.seen.max(Some(now));
                    is_news = true;
                }
            }
        }
        self.count(|counts| counts.reports += said.len() as u64);
        for device in &batch.connected {
            if let Err(error) = self.note_certificate(device) {
                warn!(%device, error = %super::chain(&error), "cannot look up a device's certificates");
            }
        }
        let mut commanded = batch.commanded;
        commanded.sort();
        commanded.dedup();
        for device in &commanded {
            if let Err(error) = self.send_open_commands(device) {
                warn!(%device, error = %super::chain(&error), "cannot look up what a device has to do");
            }
        }
        behind.extend(batch.ordered);
        behind.sort();
        behind.dedup();
        self.send_orders(&behind, now);
        said.extend(batch.connected);
        said.sort();
        said.dedup();
        said.into_iter().for_each(|device| self.announce(Change::Device { device }));
        for Occurrence { device, event, .. } in batch.occurrences {
            info!(%device, event = event.name, text = event.text, "event");
            self.announce(Change::Event { device });
        }
        if is_news {
            self.wake();
        }
    }

    /// How long a device's certificate holds.
    pub(super) fn note_certificate(&self, device: &DeviceId) -> Result<()> {
        let certificates = self.store.certificates(device)?;
        let newest = certificates.iter().filter(|it| it.revoked_at.is_none()).map(|it| it.not_after).max();
        if let Some(not_after) = newest {
            self.live_mut().certificates.insert(device.clone(), not_after);
        }
        Ok(())
    }
}

impl Batch {
    /// What was said and not kept is not answered, so that it comes again; who came is there all the same.
    fn forget_said(&mut self) {
        self.heard.clear();
        self.occurrences.clear();
        self.receipts.clear();
    }

    fn read(
        &mut self,
        device: &DeviceId,
        channel: Channel,
        payload: &[u8],
        at: Timestamp,
    ) -> std::result::Result<(), message::MessageError> {
        let sequence =
            match channel {
                Channel::State => {
                    let (report, details) = message::decode_report(payload)?;
                    let figures = [
                        (Gauge::Fps, report.figures.fps),
                        (Gauge::Latency, report.figures.latency_ms),
                        (Gauge::Agreement, report.figures.agreement),
                        (Gauge::Accuracy, report.figures.accuracy),
                        (Gauge::Temperature, report.figures.temperature_c),
                        (Gauge::Power, report.figures.power_w),
                        (Gauge::Restarts, Some(f64::from(report.figures.restarts))),
                    ];
                    self.samples.extend(figures.into_iter().filter_map(|(gauge, value)| {
                        Some(Sample { device: device.clone(), gauge, at, value: value? })
                    }));
                    let sequence = report.sequence;
                    self.heard.push(Heard { device: device.clone(), report, details, at });
                    sequence
                }
                Channel::Event => {
                    let event = message::decode_event(payload)?;
                    let sequence = event.sequence;
                    self.occurrences.push(Occurrence { device: device.clone(), event, at });
                    sequence
                }
                // What the connection itself says counts.
                Channel::Presence | Channel::Desired | Channel::Command | Channel::Learn | Channel::Receipt => {
                    return Ok(());
                }
            };
        self.receipts.entry(device.clone()).or_default().push(sequence);
        Ok(())
    }
}
