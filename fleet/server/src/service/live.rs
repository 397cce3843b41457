//! What the service keeps in memory: what it plans from, and what only holds while it runs.

use std::collections::{BTreeMap, BTreeSet};

use revoada_core::Timestamp;
use revoada_proto::DeviceId;
use serde::Serialize;

use super::Result;
use super::devices::trouble_of;
use crate::inventory::Inventory;
use crate::planner::{Blueprint, Deferred, Limits, Observations, RolloutId};
use crate::store::{Actor, Store, StoredPolicy};

/// Something that whoever watches may want to look at again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum Change {
    /// A device said something, came, went, or was changed.
    Device {
        device: DeviceId,
    },
    /// A rollout, or how far it is.
    Rollout {
        rollout: u64,
    },
    Command {
        device: DeviceId,
        number: u64,
    },
    Event {
        device: DeviceId,
    },
    Registry,
    Alert,
    /// A run of learning, or how far it is.
    Run {
        run: u64,
    },
}

pub(super) struct Live {
    pub(super) inventory: Inventory,
    pub(super) observations: Observations,
    pub(super) policy: StoredPolicy,
    pub(super) blueprint: Blueprint,
    /// By the number of the newest connection.
    pub(super) connected: BTreeMap<DeviceId, u64>,
    /// Serial numbers of certificates that are worth nothing.
    pub(super) revoked: BTreeSet<String>,
    /// When the newest certificate of a device expires, of those that were connected.
    pub(super) certificates: BTreeMap<DeviceId, Timestamp>,
    /// What is wrong with a stream of a device, of devices with one that does not run.
    pub(super) troubles: BTreeMap<DeviceId, String>,
    /// Why each rollout is as it is, for people.
    pub(super) status: BTreeMap<RolloutId, String>,
    pub(super) deferred: Deferred,
}

impl Live {
    pub(super) fn load(store: &dyn Store, limits: &Limits, seed: u64, now: Timestamp) -> Result<Self> {
        store.set_limits(limits, seed, &Actor::Service, now)?;
        let policy = store.policy()?.expect("limits were just set");
        let mut observations = Observations::default();
        let mut inventory = Inventory::default();
        let mut troubles = BTreeMap::new();
        for (device, record) in store.devices()? {
            troubles.extend(trouble_of(&record.details).map(|trouble| (device.clone(), trouble)));
            inventory.devices.insert(device.clone(), record.to_inventory());
            if let Some(report) = record.report {
                observations.observe(device, report);
            }
        }
        Ok(Self {
            inventory,
            observations,
            policy,
            blueprint: store.blueprint()?,
            connected: BTreeMap::new(),
            revoked: store.revoked_serials()?,
            certificates: BTreeMap::new(),
            troubles,
            status: BTreeMap::new(),
            deferred: Deferred::default(),
        })
    }

    /// Forgets a device that is not enrolled any more.
    pub(super) fn forget(&mut self, device: &DeviceId) {
        self.inventory.devices.remove(device);
        self.observations.retain(|other| other != device);
        self.connected.remove(device);
        self.certificates.remove(device);
        self.troubles.remove(device);
    }
}
