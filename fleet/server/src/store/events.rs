//! What happened on devices.

use revoada_core::Timestamp;
use revoada_proto::{DeviceId, Event, Level};

use super::{Page, Result};

/// Of one device; the oldest go.
pub const EVENTS_MAX: usize = 1000;

/// An event as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occurrence {
    pub device: DeviceId,
    pub event: Event,
    /// When it came; when it happened, only the device knows.
    pub at: Timestamp,
}

/// An event as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Rises with every event of any device.
    pub number: u64,
    pub occurrence: Occurrence,
}

/// Which events; of every field, where it says nothing, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    pub device: Option<DeviceId>,
    /// At least so bad.
    pub level_min: Option<Level>,
    pub name: Option<String>,
}

/// The events of all devices.
pub trait Events {
    /// Keeps events, and says of each whether it is new: a device sends one again until it has a receipt. Of devices that are
    /// not enrolled none is. Where a device has [`EVENTS_MAX`], one that is older than all of them is not new.
    fn record_events(&self, events: &[Occurrence]) -> Result<Vec<bool>>;

    /// The newest first. Pages go by number.
    fn events(&self, query: &EventQuery, page: Page) -> Result<Vec<EventRecord>>;
}
