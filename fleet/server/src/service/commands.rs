//! What devices are asked to do once.

use std::time::Duration;

use revoada_core::Timestamp;
use revoada_proto::{Ask, Channel, Command, DeviceId, Dispatch, Topic};
use tracing::warn;

use super::{Change, Fleet, Principal, Result, ServiceError, now, wall};
use crate::store::{CommandRecord, Page, Role};

/// More lines than anybody reads, and still one upload.
const LOG_LINES_MAX: u32 = 10_000;
const COMMAND_VALIDITY_MAX: Duration = Duration::from_hours(30 * 24);

impl Fleet {
    /// Asks a device for something, now or when it is back, and gives the command's number. Without `valid_for` it is
    /// forgotten after what the service is set up for.
    pub fn command(&self, by: &Principal, device: &DeviceId, ask: &Ask, valid_for: Option<Duration>) -> Result<u64> {
        by.require(Role::Operator)?;
        if let Ask::FetchLogs { lines } = ask
            && !(1..=LOG_LINES_MAX).contains(lines)
        {
            return Err(ServiceError::Invalid(format!("expected 1 to {LOG_LINES_MAX} lines, got {lines}")));
        }
        if let Ask::Snapshot { stream } | Ask::Label { stream, .. } = ask
            && (stream.is_empty() || stream.len() > 128)
        {
            return Err(ServiceError::Invalid("a stream has a name of 1 to 128 bytes".to_owned()));
        }
        if let Ask::Label { track: 0, .. } = ask {
            return Err(ServiceError::Invalid("tracks are numbered from 1".to_owned()));
        }
        let now = now();
        let valid_for = valid_for.unwrap_or(self.validity.commands).min(COMMAND_VALIDITY_MAX);
        let number = self.store.add_command(device, ask, now + valid_for, &by.actor, now)?;
        self.announce(Change::Command { device: device.clone(), number });
        if self.live().connected.contains_key(device) {
            self.send_open_commands(device)?;
        }
        Ok(number)
    }

    pub fn commands(&self, by: &Principal, device: &DeviceId, page: Page) -> Result<Vec<CommandRecord>> {
        by.require(Role::Viewer)?;
        Ok(self.store.commands(device, page)?)
    }

    pub fn command_of(&self, by: &Principal, device: &DeviceId, number: u64) -> Result<CommandRecord> {
        by.require(Role::Viewer)?;
        let missing = || ServiceError::Missing { what: "command", name: format!("{device}/{number}") };
        self.store.command(device, number)?.ok_or_else(missing)
    }

    /// Ends commands that nobody has carried out in time.
    pub fn expire_commands(&self) -> Result<()> {
        for (device, number) in self.store.expire_commands(now())? {
            self.announce(Change::Command { device, number });
        }
        Ok(())
    }

    /// Sends what a device has still to do, in its order; a device does nothing twice.
    pub(super) fn send_open_commands(&self, device: &DeviceId) -> Result<()> {
        let now = now();
        for record in self.store.open_commands(device)? {
            if record.expires_at > now {
                self.send_command(&record, now);
                self.store.command_sent(device, record.number)?;
            }
        }
        Ok(())
    }

    fn send_command(&self, record: &CommandRecord, now: Timestamp) {
        let content = Command { number: record.number, ask: record.ask.clone() };
        let expires_at = Some(wall(record.expires_at));
        let command = Dispatch { device: record.device.clone(), content, issued_at: wall(now), expires_at };
        self.count(|counts| counts.commands_sent += 1);
        self.post
            .post(&Topic::new(record.device.clone(), Channel::Command), self.orders.sign_command(&command).encode());
    }

    /// Sends again what was queued while the service was being killed.
    pub fn send_queued_commands(&self) {
        const AT_ONCE: usize = 1000;
        let queued = match self.store.queued_commands(AT_ONCE) {
            Ok(queued) => queued,
            Err(error) => return warn!(%error, "cannot look for queued commands"),
        };
        let (now, live) = (now(), self.live().connected.clone());
        for record in queued.into_iter().filter(|it| live.contains_key(&it.device) && it.expires_at > now) {
            self.send_command(&record, now);
            if let Err(error) = self.store.command_sent(&record.device, record.number) {
                warn!(device = %record.device, number = record.number, %error, "cannot note that a command was sent");
            }
        }
    }
}
