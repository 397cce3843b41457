//! What operators asked of devices, until it is answered.

use revoada_core::{Digest, Timestamp};
use revoada_proto::{Ask, DeviceId};

use super::{Actor, Page, Result};

/// Of one device. At the bound a new one is refused.
pub const OPEN_COMMANDS_MAX: usize = 32;

/// Of one device; the oldest go.
pub const COMMANDS_MAX: usize = 200;

/// A command, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRecord {
    pub device: DeviceId,
    pub number: u64,
    pub ask: Ask,
    pub by: Actor,
    pub issued_at: Timestamp,
    /// A device that gets it later does not do it.
    pub expires_at: Timestamp,
    pub state: CommandState,
    /// What the device uploaded.
    pub answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandState {
    Queued,
    /// At least once; whether it came is not known.
    Sent,
    Done {
        text: String,
    },
    Failed {
        text: String,
    },
    Expired,
}

impl CommandState {
    /// Whether the device still is to do it.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Queued | Self::Sent)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the blob.
    pub digest: Digest,
    /// `image/jpeg` or `text/plain`.
    pub media_type: String,
}

/// The outbox.
pub trait Commands {
    /// Queues a command and gives its number, which is higher than that of every command to the device before, also of one
    /// that was removed or that a restored backup does not know.
    fn add_command(
        &self,
        device: &DeviceId,
        ask: &Ask,
        expires_at: Timestamp,
        by: &Actor,
        now: Timestamp,
    ) -> Result<u64>;

    /// Those that are queued or sent, the oldest first.
    fn open_commands(&self, device: &DeviceId) -> Result<Vec<CommandRecord>>;

    /// Of all devices, the oldest first, no more than `limit`.
    fn queued_commands(&self, limit: usize) -> Result<Vec<CommandRecord>>;

    /// Of a device, the newest first. Pages go by number.
    fn commands(&self, device: &DeviceId, page: Page) -> Result<Vec<CommandRecord>>;

    fn command(&self, device: &DeviceId, number: u64) -> Result<Option<CommandRecord>>;

    /// Notes that a queued command was sent.
    fn command_sent(&self, device: &DeviceId, number: u64) -> Result<()>;

    /// Notes how a command ended: `Ok` is done. Whether it had not ended otherwise than by expiring.
    fn end_command(&self, device: &DeviceId, number: u64, outcome: std::result::Result<&str, &str>) -> Result<bool>;

    /// Keeps what a device uploaded, whose blob is there; once for each command. Whether it did.
    fn answer_command(&self, device: &DeviceId, number: u64, answer: &Answer) -> Result<bool>;

    /// Ends open commands whose time is over. Which.
    fn expire_commands(&self, now: Timestamp) -> Result<Vec<(DeviceId, u64)>>;
}
