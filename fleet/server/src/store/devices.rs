//! Which devices there are, and the newest that each said.

use std::collections::{BTreeMap, BTreeSet};

use revoada_core::Timestamp;
use revoada_proto::{Details, DeviceId, Report};

use super::{Actor, Result};
use crate::inventory::Device;

/// Of one device.
pub const TAGS_MAX: usize = 64;

/// What is kept of a device. Whether it is connected is not: that is known only while the service runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceRecord {
    /// Given by its operator.
    pub tags: BTreeSet<String>,
    /// Whether it builds plans that others of its class take.
    pub is_builder: bool,
    pub enrolled_at: Timestamp,
    /// When the service last heard of it.
    pub seen: Option<Timestamp>,
    /// The newest.
    pub report: Option<Report>,
    /// Of the newest report, with the facts of those before.
    pub details: Details,
}

impl DeviceRecord {
    /// As filters and the planner see it.
    pub fn to_inventory(&self) -> Device {
        Device {
            tags: self.tags.clone(),
            class: self.details.class.clone(),
            version: self.details.version.clone(),
            seen: self.seen,
            facts: self.details.facts.clone(),
        }
    }
}

/// A report, and when it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    pub device: DeviceId,
    pub report: Report,
    pub details: Details,
    pub at: Timestamp,
}

/// The devices.
pub trait Devices {
    /// All of them.
    fn devices(&self) -> Result<BTreeMap<DeviceId, DeviceRecord>>;

    fn device(&self, device: &DeviceId) -> Result<Option<DeviceRecord>>;

    /// Enrols a device, without tags. Whether it was not there before. One that was has lost its disk: it counts its reports
    /// and events from the beginning, and those are new again; tags, facts and kept events stay.
    fn add_device(&self, device: &DeviceId, by: &Actor, now: Timestamp) -> Result<bool>;

    /// Keeps reports, in this order. Of one that is not newer than what is known only the time counts; of a device that is
    /// not enrolled nothing is kept. Figures that are not finite are left out, and so are new facts where a device has
    /// [`FACTS_MAX`](revoada_proto::message::FACTS_MAX).
    fn record(&self, heard: &[Heard]) -> Result<()>;

    /// When devices were last heard of without a report. Times never go back.
    fn record_seen(&self, seen: &[(DeviceId, Timestamp)]) -> Result<()>;

    fn set_tags(&self, device: &DeviceId, tags: &BTreeSet<String>, by: &Actor, now: Timestamp) -> Result<()>;

    fn set_builder(&self, device: &DeviceId, is_builder: bool, by: &Actor, now: Timestamp) -> Result<()>;

    /// Removes a device with everything of it: reports, events, commands, history, alerts and registered keys. Its
    /// certificates are revoked, and stay known as such. The blueprint forgets it when it is planned next. Whether it was there.
    fn remove_device(&self, device: &DeviceId, by: &Actor, now: Timestamp) -> Result<bool>;
}
