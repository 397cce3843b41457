//! Which devices there are, and what is known of them.

use std::collections::{BTreeMap, BTreeSet};

use revoada_core::{DeviceClass, Timestamp};
use revoada_proto::{DeviceId, Fact};
use semver::Version;

/// Every enrolled device. One that is taken out is forgotten by the planner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    pub devices: BTreeMap<DeviceId, Device>,
}

/// What is known of one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Device {
    /// Given by its operator.
    pub tags: BTreeSet<String>,
    pub class: Option<DeviceClass>,
    /// Of the program that it runs.
    pub version: Option<Version>,
    /// When the service last heard of it, by the service's clock. `None` before the first time.
    pub seen: Option<Timestamp>,
    /// Whatever else it reported, by name.
    pub facts: BTreeMap<String, Fact>,
}
