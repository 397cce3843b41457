//! A device as far as the service knows it: it opens no socket and reads no clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use revoada_bundle::hash;
use revoada_bundle::sign::{PublicKey, Purpose, Signature};
use revoada_core::Digest;
use revoada_proto::message::{encode_event, encode_report};
use revoada_proto::{
    Blame, Channel, Command, CommandResult, Details, DeviceId, Dispatch, Event, Fact, Figures, Generation, Invitation,
    Kind, Level, Order, Progress, Receipt, Report, Signed,
};

use super::faults::Fate;
use super::ledger::{Ledger, count};
use super::lesson::Lesson;

/// What is not receipted is said again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// Events that say nothing but that they were said.
const HEARTBEATS_PER_CHATTER: u32 = 2;
/// The service keeps a thousand of a device; these and what commands add stay below.
const CHATTER_MAX: u64 = 300;
/// Sequences of one start.
const START_SHIFT: u32 = 32;

/// A message that was not receipted.
#[derive(Debug)]
struct Unreceipted {
    payload: Vec<u8>,
    said_at: Option<Instant>,
}

/// One device: what its disk keeps, and what it has in mind until the next reboot.
#[derive(Debug)]
pub(super) struct Virtual {
    pub(super) index: usize,
    pub(super) id: DeviceId,
    pub(super) fate: Fate,
    order_key: PublicKey,
    heartbeat: Duration,
    ledger: Arc<Ledger>,
    disk: Disk,
    mind: Mind,
}

#[derive(Debug)]
struct Disk {
    starts: u64,
    known: Generation,
    /// Accepted, and neither applied nor given up.
    order: Option<Dispatch<Order>>,
    progress: Progress,
    running: BTreeMap<Kind, Digest>,
    /// The number of the last command that was carried out.
    done: u64,
    events: BTreeMap<u64, Unreceipted>,
    chatter: u64,
    /// The last round of which it was told whether its update counts.
    learned: Option<Lesson>,
}

#[derive(Debug)]
struct Mind {
    sequence: u64,
    order_due: Option<Instant>,
    /// The newest report, where it was not receipted.
    report: Option<(u64, Unreceipted)>,
    report_due: Instant,
    chatter_due: Instant,
    has_said_facts: bool,
    runs_since: Instant,
    has_just_applied: bool,
    /// It was invited, and has not begun.
    invitation: Option<Invitation>,
    /// It learns, or brings what it has learned.
    lesson: Option<Lesson>,
}

/// Why what came was not heard.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unheard {
    #[error(transparent)]
    Message(#[from] revoada_proto::MessageError),
    #[error("the signature does not match")]
    Signature,
    #[error("it is for `{0}`")]
    Another(DeviceId),
    #[error("it expired before it came")]
    Expired,
}

impl Virtual {
    pub(super) fn new(
        (index, id): (usize, DeviceId),
        fate: Fate,
        order_key: PublicKey,
        heartbeat: Duration,
        ledger: Arc<Ledger>,
        now: Instant,
    ) -> Self {
        let disk = Disk {
            starts: 0,
            known: Generation::default(),
            order: None,
            progress: Progress::Done,
            running: BTreeMap::new(),
            done: 0,
            events: BTreeMap::new(),
            chatter: 0,
            learned: None,
        };
        let mind = Mind::new(0, now, &fate, heartbeat);
        Self { index, id, fate, order_key, heartbeat, ledger, disk, mind }
    }

    /// Starts, with what its disk has.
    pub(super) fn start(&mut self, now: Instant) {
        self.disk.starts += 1;
        self.mind = Mind::new(self.disk.starts, now, &self.fate, self.heartbeat);
        self.mind.order_due = self.disk.order.as_ref().map(|order| now + self.fate.takes(order.content.generation.0));
        for event in self.disk.events.values_mut() {
            event.said_at = None;
        }
    }

    /// There is a broker again, which may know nothing.
    pub(super) fn connected(&mut self, now: Instant) {
        self.mind.report_due = now;
        for event in self.disk.events.values_mut() {
            event.said_at = None;
        }
    }

    /// Takes what the service says. What must not come is a failure.
    pub(super) fn hear(&mut self, channel: Channel, payload: &[u8], now: Instant, wall: SystemTime) {
        let heard = match channel {
            Channel::Desired => self.hear_order(payload, now, wall),
            Channel::Command => self.hear_command(payload, now, wall),
            Channel::Receipt => self.hear_receipt(payload),
            Channel::Learn => self.hear_invitation(payload, wall),
            Channel::State | Channel::Event | Channel::Presence => Ok(()),
        };
        if let Err(error) = heard {
            self.ledger.fail(format!("{} was sent a {channel:?} that is none: {error}", self.id));
        }
    }

    fn hear_order(&mut self, payload: &[u8], now: Instant, wall: SystemTime) -> Result<(), Unheard> {
        let order = Dispatch::<Order>::decode(&self.signed(payload, Purpose::Order)?)?;
        self.check(&order, wall)?;
        self.ledger.heard(self.index, &self.id, &order.content);
        let generation = order.content.generation;
        if generation <= self.disk.known {
            let is_again = generation == self.disk.known;
            let counts = &self.ledger.counts;
            count(if is_again { &counts.orders_again } else { &counts.orders_older });
            return Ok(());
        }
        self.disk.known = generation;
        self.disk.order = Some(order);
        self.disk.progress = Progress::Working { what: "installing".to_owned() };
        self.mind.order_due = Some(now + self.fate.takes(generation.0));
        self.mind.report_due = now;
        Ok(())
    }

    fn hear_command(&mut self, payload: &[u8], now: Instant, wall: SystemTime) -> Result<(), Unheard> {
        let command = Dispatch::<Command>::decode(&self.signed(payload, Purpose::Command)?)?;
        self.check(&command, wall)?;
        let number = command.content.number;
        if number <= self.disk.done {
            self.ledger.command_again(self.index, &self.id, number);
            return Ok(());
        }
        self.disk.done = number;
        self.ledger.done(self.index, &self.id, number, now);
        let result = CommandResult { number, outcome: Ok("done".to_owned()) };
        self.happen("command-done", Some(result), wall);
        Ok(())
    }

    fn hear_invitation(&mut self, payload: &[u8], wall: SystemTime) -> Result<(), Unheard> {
        let invitation = Dispatch::<Invitation>::decode(&self.signed(payload, Purpose::Invitation)?)?;
        self.check(&invitation, wall)?;
        let invitation = invitation.content;
        let lesson = Lesson { run: invitation.run, round: invitation.round };
        if self.disk.learned.max(self.mind.lesson) >= Some(lesson) {
            count(&self.ledger.counts.invitations_again);
            return Ok(());
        }
        self.mind.lesson = Some(lesson);
        self.mind.invitation = Some(invitation);
        Ok(())
    }

    /// What it was invited to since it was last asked.
    pub(super) fn take_invitation(&mut self) -> Option<Invitation> {
        self.mind.invitation.take()
    }

    /// It was told whether its update counts.
    pub(super) fn has_learned(&mut self, lesson: Lesson) {
        self.disk.learned = self.disk.learned.max(Some(lesson));
    }

    /// It learns while it is connected: what it had begun is begun anew once it is invited again.
    pub(super) fn disconnected(&mut self) {
        self.mind.lesson = None;
        self.mind.invitation = None;
    }

    fn hear_receipt(&mut self, payload: &[u8]) -> Result<(), Unheard> {
        for sequence in Receipt::decode(payload)?.sequences {
            if self.disk.events.remove(&sequence).is_some() {
                self.ledger.receipted(self.index, sequence);
            }
            self.mind.report.take_if(|(report, _)| *report == sequence);
        }
        Ok(())
    }

    fn signed(&self, payload: &[u8], purpose: Purpose) -> Result<Vec<u8>, Unheard> {
        let signed = Signed::decode(payload)?;
        let signature = Signature::from_bytes(self.order_key, &signed.signature);
        match signature.verify(purpose, hash(&signed.payload)) {
            true => Ok(signed.payload),
            false => Err(Unheard::Signature),
        }
    }

    /// By the service's clock, which a device learns from receipts.
    fn check<T>(&self, dispatch: &Dispatch<T>, wall: SystemTime) -> Result<(), Unheard> {
        if dispatch.device != self.id {
            return Err(Unheard::Another(dispatch.device.clone()));
        }
        match dispatch.expires_at {
            Some(expires_at) if expires_at <= wall => Err(Unheard::Expired),
            _ => Ok(()),
        }
    }

    /// Does what is due, and gives what is to be said now.
    pub(super) fn live(&mut self, now: Instant, wall: SystemTime) -> Vec<(Channel, Vec<u8>)> {
        if self.mind.order_due.is_some_and(|due| due <= now) {
            self.mind.order_due = None;
            self.carry_out(now, wall);
        }
        if self.mind.chatter_due <= now {
            self.mind.chatter_due = now + HEARTBEATS_PER_CHATTER * self.heartbeat;
            if self.disk.chatter < CHATTER_MAX {
                self.disk.chatter += 1;
                self.happen("simulated", None, wall);
            }
        }
        let mut said = Vec::new();
        if self.mind.report_due <= now {
            self.mind.report_due = now + self.heartbeat;
            let sequence = self.next_sequence();
            let payload = self.report(sequence, now);
            self.mind.report = Some((sequence, Unreceipted { payload, said_at: None }));
        }
        let report = self.mind.report.iter_mut().map(|(_, report)| (Channel::State, report));
        let events = self.disk.events.values_mut().map(|event| (Channel::Event, event));
        for (channel, unreceipted) in report.chain(events) {
            if unreceipted.said_at.is_none_or(|at| now.saturating_duration_since(at) >= AGAIN_AFTER) {
                unreceipted.said_at = Some(now);
                said.push((channel, unreceipted.payload.clone()));
            }
        }
        said
    }

    /// When to [live](Self::live) again, at the latest.
    pub(super) fn wake_at(&self, now: Instant) -> Instant {
        let unreceipted = self.mind.report.iter().map(|(_, report)| report).chain(self.disk.events.values());
        let again = unreceipted.map(|it| it.said_at.map_or(now, |at| at + AGAIN_AFTER)).min();
        let due = [Some(self.mind.report_due), Some(self.mind.chatter_due), self.mind.order_due, again];
        due.into_iter().flatten().min().unwrap_or(now)
    }

    /// Whether it has carried out an order since it was last asked.
    pub(super) fn has_just_applied(&mut self) -> bool {
        std::mem::take(&mut self.mind.has_just_applied)
    }

    /// What it runs by the last order that it carried out.
    pub(super) fn runs(&self) -> Option<Digest> {
        self.disk.running.values().next().copied()
    }

    fn carry_out(&mut self, now: Instant, wall: SystemTime) {
        let Some(order) = self.disk.order.take() else { return };
        self.mind.report_due = now;
        if self.fate.fails(order.content.generation.0) {
            count(&self.ledger.counts.orders_failed);
            self.disk.progress = Progress::Failed { why: "no room".to_owned(), blame: Blame::Device };
            return;
        }
        self.ledger.applied(self.index, &order, wall);
        self.disk.running.extend(order.content.deployables.iter().map(|it| (it.kind, it.digest)));
        self.disk.progress = Progress::Done;
        self.mind.runs_since = now;
        self.mind.has_just_applied = true;
        self.happen("deployed", None, wall);
    }

    fn happen(&mut self, name: &str, result: Option<CommandResult>, wall: SystemTime) {
        let sequence = self.next_sequence();
        let wall_ms = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let at_ms = u64::try_from(wall_ms).unwrap_or(u64::MAX).saturating_add_signed(self.fate.skew_ms);
        let (name, text) = (name.to_owned(), sequence.to_string());
        let event = Event { sequence, at_ms, level: Level::Info, name, text, result, lost: 0 };
        self.ledger.said(self.index, sequence);
        self.disk.events.insert(sequence, Unreceipted { payload: encode_event(&event), said_at: None });
    }

    fn report(&mut self, sequence: u64, now: Instant) -> Vec<u8> {
        let report = Report {
            sequence,
            generation: self.disk.known,
            progress: self.disk.progress.clone(),
            running: self.disk.running.clone(),
            figures: Figures {
                over: now.saturating_duration_since(self.mind.runs_since),
                restarts: 0,
                fps: Some(29.0 + self.fate.draw(4, sequence)),
                latency_ms: Some(20.0 + 5.0 * self.fate.draw(5, sequence)),
                agreement: None,
                accuracy: None,
                temperature_c: Some(50.0 + 10.0 * self.fate.draw(6, sequence)),
                power_w: None,
            },
        };
        let mut details = Details { version: Some(semver::Version::new(1, 0, 0)), ..Details::default() };
        if !std::mem::replace(&mut self.mind.has_said_facts, true) {
            details.facts.insert("module".to_owned(), Fact::Text("virtual".to_owned()));
            details.facts.insert("number".to_owned(), Fact::Number(self.index as f64));
        }
        encode_report(&report, &details)
    }

    fn next_sequence(&mut self) -> u64 {
        self.mind.sequence += 1;
        self.mind.sequence
    }
}

impl Mind {
    fn new(starts: u64, now: Instant, fate: &Fate, heartbeat: Duration) -> Self {
        // Devices that start together do not speak together for ever.
        let spread = |purpose, every: Duration| now + every.mul_f64(fate.draw(purpose, starts));
        Self {
            sequence: starts << START_SHIFT,
            order_due: None,
            report: None,
            report_due: spread(7, heartbeat),
            chatter_due: spread(8, HEARTBEATS_PER_CHATTER * heartbeat),
            has_said_facts: false,
            runs_since: now,
            has_just_applied: false,
            invitation: None,
            lesson: None,
        }
    }
}
