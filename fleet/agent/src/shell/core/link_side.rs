//! What comes over the link.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use revoada_bundle::hash;
use revoada_bundle::sign::{Purpose, Signature};
use revoada_core::{causes, sentence_of};
use revoada_proto::{Ask, Channel, Command, CommandResult, Dispatch, Invitation, Level, Order, Receipt, Signed};
use tracing::{info, warn};

use super::{RENEW_EVERY, Shell, Task, lock};
use crate::Event;
use crate::shell::commands::{self, Means};
use crate::shell::fetch::Cancel;
use crate::shell::identity::Identity;
use crate::shell::identity_path;
use crate::shell::learner::{Learned, Lesson, Todo};
use crate::shell::link::{Heard, Link};
use crate::shell::service::{self, ServiceError};

impl Shell {
    /// Makes the link, once the device is enrolled.
    pub(super) fn keep_link(&mut self) {
        if self.link.is_some() {
            return;
        }
        if lock(&self.identity).is_none() {
            match Identity::load(&identity_path(&self.config.folder)) {
                Ok(identity) => *lock(&self.identity) = Some(Arc::new(identity)),
                Err(crate::shell::IdentityError::Missing { .. }) => return,
                Err(error) => {
                    return warn!(error = %sentence_of(causes(&error)), "this device cannot be told who it is");
                }
            }
        }
        let Some(identity) = lock(&self.identity).clone() else { return };
        match Link::start(&identity) {
            Ok((link, hear)) => (self.link, self.hear) = (Some(link), Some(hear)),
            Err(error) => warn!(error = %sentence_of(causes(&error)), "cannot make the link"),
        }
    }

    pub(super) async fn hear_link(&mut self, heard: Option<Heard>) {
        match heard {
            Some(Heard::Connected) => {
                info!("connected to the fleet service");
                self.is_connected = true;
                self.said_events.clear();
                self.drive(Event::Connected).await;
                self.say_events();
            }
            Some(Heard::Disconnected { reason }) => {
                info!(reason, "lost the fleet service");
                self.is_connected = false;
                let waiting: Vec<_> = std::mem::take(&mut self.said_reports).into_values().collect();
                for id in waiting.into_iter().filter_map(|report| report.id) {
                    self.drive(Event::ReportFailed { id }).await;
                }
            }
            Some(Heard::Message { channel: Channel::Desired, payload }) => self.hear_order(&payload).await,
            Some(Heard::Message { channel: Channel::Command, payload }) => self.hear_command(&payload),
            Some(Heard::Message { channel: Channel::Learn, payload }) => self.hear_invitation(&payload),
            Some(Heard::Message { channel: Channel::Receipt, payload }) => self.hear_receipt(&payload).await,
            Some(Heard::Message { channel, .. }) => warn!(?channel, "a message that devices do not get"),
            None => (self.link, self.hear, self.is_connected) = (None, None, false),
        }
    }

    async fn hear_order(&mut self, payload: &[u8]) {
        match self.opened(payload, Purpose::Order, Dispatch::<Order>::decode) {
            Ok(order) => {
                let Dispatch { content, expires_at, .. } = order;
                self.drive(Event::Order { order: content, expires_at, wall: self.wall() }).await;
            }
            Err(reason) => {
                self.counts.orders_refused += 1;
                self.event(Level::Warn, "order-refused", reason);
            }
        }
    }

    fn hear_command(&mut self, payload: &[u8]) {
        let refused = match self.opened(payload, Purpose::Command, Dispatch::<Command>::decode) {
            Ok(command) => {
                let known = self.commands.newest().unwrap_or(0).max(self.numbers.command());
                let number = command.content.number;
                if number <= known {
                    // The service says it again until it has the answer, which is on its way.
                    self.counts.commands_repeated += 1;
                    return;
                }
                if command.expires_at.is_some_and(|expires_at| expires_at <= self.wall()) {
                    format!("command {number} has expired")
                } else if self.commands.push(command.content) {
                    return self.begin_command();
                } else {
                    format!("command {number} is one too many")
                }
            }
            Err(reason) => reason,
        };
        self.counts.commands_refused += 1;
        self.event(Level::Warn, "command-refused", refused);
    }

    /// Begins to learn, unless it does already. One that comes while another is learned takes its place.
    fn hear_invitation(&mut self, payload: &[u8]) {
        let invitation = match self.opened(payload, Purpose::Invitation, Dispatch::<Invitation>::decode) {
            Ok(invitation) => invitation,
            Err(reason) => return self.event(Level::Warn, "invitation-refused", reason),
        };
        let Invitation { run, round, .. } = invitation.content;
        let now = self.wall();
        if invitation.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return info!(run, round, "an invitation has expired");
        }
        if self.lessons.is_none() {
            return self.decline((run, round));
        }
        if let Some((known, cancel)) = &self.lesson {
            if *known == (run, round) {
                self.invited_again = Some(invitation);
                return;
            }
            cancel.cancel();
        }
        self.teach(invitation, now);
    }

    /// Has the learner begin.
    fn teach(&mut self, invitation: Dispatch<Invitation>, now: SystemTime) {
        let Invitation { run, round, .. } = invitation.content;
        let Some(lessons) = &self.lessons else { return };
        let cancel = Cancel::default();
        self.lesson = Some(((run, round), cancel.clone()));
        self.invited_again = None;
        let (active, contents) = (self.agent.active().clone(), self.agent.contents().clone());
        info!(run, round, "a lesson begins");
        // Nobody listens any more where the agent ends.
        drop(lessons.send(Todo::Learn(Box::new(Lesson { invitation, now, active, contents, cancel }))));
    }

    fn decline(&self, round: (u64, u64)) {
        let Some(identity) = lock(&self.identity).clone() else { return };
        let server = self.config.server.clone();
        tokio::spawn(async move {
            let why = "this device does not learn: its agent is told no pictures".to_owned();
            if let Err(error) = service::decline_round(&server, &identity, round, why).await {
                warn!(error = %sentence_of(causes(&error)), "cannot decline an invitation");
            }
        });
    }

    /// A lesson is over: the next invitation to it is a new one. One whose update does not count is invited again, which may
    /// have come before it was told so.
    pub(super) fn hear_learned(&mut self, learned: Learned) {
        let is_over = self.lesson.take_if(|(known, _)| *known == learned.round).is_some();
        self.event(learned.level, learned.name, learned.text);
        if is_over && let Some(invitation) = self.invited_again.take().filter(|_| learned.is_refused) {
            self.teach(invitation, self.wall());
        }
    }

    /// What a message says that the service has signed for this purpose and this device.
    fn opened<T>(
        &self,
        payload: &[u8],
        purpose: Purpose,
        decode: impl FnOnce(&[u8]) -> Result<Dispatch<T>, revoada_proto::MessageError>,
    ) -> Result<Dispatch<T>, String> {
        let identity = lock(&self.identity).clone().ok_or("this device is not enrolled")?;
        let signed = Signed::decode(payload).map_err(|error| error.to_string())?;
        let signature = Signature::from_bytes(identity.order_key, &signed.signature);
        if !signature.verify(purpose, hash(&signed.payload)) {
            return Err("the fleet service's key has not signed it".to_owned());
        }
        let dispatch = decode(&signed.payload).map_err(|error| error.to_string())?;
        match dispatch.device == identity.device {
            true => Ok(dispatch),
            false => Err(format!("it is for device `{}`", dispatch.device)),
        }
    }

    async fn hear_receipt(&mut self, payload: &[u8]) {
        let receipt = match Receipt::decode(payload) {
            Ok(receipt) => receipt,
            Err(error) => return warn!(%error, "a receipt cannot be read"),
        };
        self.counts.receipts += 1;
        self.service_time = Some((receipt.now, Instant::now()));
        if let Err(error) = self.update.check_in() {
            warn!(error = %sentence_of(causes(&error)), "cannot note that this agent has checked in");
        }
        for sequence in receipt.sequences {
            self.said_events.remove(&sequence);
            if let Err(error) = self.spool.remove(sequence) {
                warn!(error = %sentence_of(causes(&error)), "an event will be said again");
            }
            if let Some(said) = self.said_reports.remove(&sequence) {
                self.known_facts.extend(said.facts);
                if let Some(id) = said.id {
                    self.drive(Event::Reported { id }).await;
                }
            }
        }
        self.say_events();
        if receipt.renews_certificate {
            self.renew();
        }
    }

    /// What the clock on the wall shows: the service's, where it has been heard.
    fn wall(&self) -> SystemTime {
        let service = self.service_time.and_then(|(time, heard_at)| time.checked_add(heard_at.elapsed()));
        service.unwrap_or_else(SystemTime::now)
    }

    /// Begins the next command, once it is durable that it was begun.
    pub(super) fn begin_command(&mut self) {
        let Some(command) = self.commands.begin() else { return };
        let number = command.number;
        let identity = lock(&self.identity).clone();
        let begun = self.numbers.begin(number).map_err(|error| sentence_of(causes(&error)));
        let identity = begun.and_then(|()| identity.ok_or_else(|| "this device is not enrolled".to_owned()));
        let identity = match identity {
            Ok(identity) => identity,
            Err(reason) => {
                self.commands.ended();
                return self.answer_command(CommandResult { number, outcome: Err(reason) });
            }
        };
        // What is learned of pictures that are to be forgotten is not wanted any more; whoever learns is asked again.
        if let (Ask::Forget { .. }, Some((_, cancel))) = (&command.ask, &self.lesson) {
            cancel.cancel();
            self.lesson = None;
        }
        let means = Means {
            pipeline: self.pipeline.clone(),
            verifier: lock(&self.slots).verifier().clone(),
            contents: self.agent.contents().clone(),
            log: self.log.clone(),
            folder: self.config.folder.clone(),
            data: self.config.learning.as_ref().map(|learning| learning.data.clone()),
            lessons: self.lessons.clone(),
            active: self.agent.active().clone(),
            server: self.config.server.clone(),
            identity,
        };
        info!(number, ask = command.ask.name(), "a command begins");
        let tasks = self.tasks.clone();
        // Nobody listens any more where the agent ends; the next one says that it did not end.
        tokio::spawn(async move { drop(tasks.send(Task::Command(commands::run(command, means).await)).await) });
    }

    /// Asks for a new certificate, unless that was done lately.
    fn renew(&mut self) {
        let now = self.clock.now();
        let Some(identity) = lock(&self.identity).clone().filter(|_| self.renew_at <= now) else { return };
        self.renew_at = now + RENEW_EVERY;
        let (server, tasks) = (self.config.server.clone(), self.tasks.clone());
        tokio::spawn(async move { drop(tasks.send(Task::Renewed(service::renew(&server, &identity).await)).await) });
    }

    pub(super) async fn renewed(&mut self, renewed: Result<Identity, ServiceError>) {
        let saved = match renewed {
            Ok(identity) => {
                let path = identity_path(&self.config.folder);
                let saved = tokio::task::spawn_blocking(move || identity.save(&path).map(|()| identity)).await;
                saved.map_err(|error| error.to_string()).and_then(|saved| saved.map_err(|e| sentence_of(causes(&e))))
            }
            Err(error) => Err(sentence_of(causes(&error))),
        };
        match saved {
            Ok(identity) => {
                *lock(&self.identity) = Some(Arc::new(identity));
                // The next one is made with the new certificate.
                (self.link, self.hear, self.is_connected) = (None, None, false);
                self.event(Level::Info, "certificate-renewed", String::new());
                self.keep_link();
            }
            Err(reason) => self.event(Level::Error, "renewal-failed", reason),
        }
    }
}
