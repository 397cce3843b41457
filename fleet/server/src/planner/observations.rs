//! What devices say.

use std::collections::BTreeMap;

use revoada_proto::{DeviceId, Report};

/// The newest report of each device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observations {
    pub(super) reports: BTreeMap<DeviceId, Report>,
}

impl Observations {
    /// Takes a report, unless it came late or again. Whether it was taken.
    pub fn observe(&mut self, device: DeviceId, report: Report) -> bool {
        if self.reports.get(&device).is_some_and(|known| known.sequence >= report.sequence) {
            return false;
        }
        self.reports.insert(device, report);
        true
    }

    /// Drops the reports of devices that are not to be kept.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&DeviceId) -> bool) {
        self.reports.retain(|device, _| is_kept(device));
    }

    pub fn of(&self, device: &DeviceId) -> Option<&Report> {
        self.reports.get(device)
    }
}
