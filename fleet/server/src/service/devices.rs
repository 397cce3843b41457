//! Which devices there are, for people.

use std::collections::BTreeSet;
use std::time::Duration;

use revoada_core::Timestamp;
use revoada_proto::{Details, DeviceId, Order, Report};
use serde::Serialize;

use super::{Change, Fleet, Principal, Result, ServiceError, now};
use crate::filter::Filter;
use crate::store::{Bucket, Certificate, DeviceRecord, EventQuery, EventRecord, Gauge, Page, Role, Step, TAGS_MAX};

/// Of one tag.
const TAG_BYTES_MAX: usize = 64;

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceSummary {
    pub device: DeviceId,
    pub is_connected: bool,
    #[serde(flatten)]
    pub health: Health,
    pub tags: BTreeSet<String>,
    pub version: Option<String>,
    pub class: Option<String>,
    pub seen: Option<Timestamp>,
    pub report: Option<Report>,
}

/// How a device is, in one word, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "health", content = "why")]
pub enum Health {
    /// It is there, runs what it should, and every stream runs.
    Good,
    /// It carries out its order.
    Working(String),
    /// Something is not as it should be.
    Degraded(String),
    /// It was not heard of for long.
    Away,
    /// It was never heard of.
    New,
}

/// Everything of one device.
#[derive(Clone, Debug)]
pub struct DeviceView {
    pub summary: DeviceSummary,
    pub is_builder: bool,
    pub enrolled_at: Timestamp,
    pub details: Details,
    pub order: Option<Order>,
    /// The newest first.
    pub certificates: Vec<Certificate>,
}

impl Health {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Working(_) => "working",
            Self::Degraded(_) => "degraded",
            Self::Away => "away",
            Self::New => "new",
        }
    }

    /// For people, where there is something to say.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Working(why) | Self::Degraded(why) => Some(why),
            Self::Good | Self::Away | Self::New => None,
        }
    }

    fn of(report: Option<&Report>, seen: Option<Timestamp>, trouble: Option<String>, is_there: bool) -> Self {
        use revoada_proto::Progress;
        let (Some(report), Some(_)) = (report, seen) else { return Self::New };
        if !is_there {
            return Self::Away;
        }
        if let Progress::Failed { why, .. } = &report.progress {
            return Self::Degraded(why.clone());
        }
        match (&report.progress, trouble) {
            (_, Some(trouble)) => Self::Degraded(trouble),
            (Progress::Working { what }, None) => Self::Working(what.clone()),
            _ => Self::Good,
        }
    }
}

impl Fleet {
    /// Devices that match, by name, after `after`; at most `limit`, and how many match in all.
    pub fn devices(
        &self,
        by: &Principal,
        filter: &Filter,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<(Vec<DeviceSummary>, usize)> {
        by.require(Role::Viewer)?;
        let now = now();
        let (page, matching) = {
            let live = self.live();
            let matching = live.inventory.devices.iter().filter(|(id, device)| filter.matches(id, device, now));
            let matching: Vec<&DeviceId> = matching.map(|(id, _)| id).collect();
            let start = after.map_or(0, |after| matching.partition_point(|id| *id <= after));
            let page: Vec<DeviceId> = matching[start..].iter().take(limit).map(|id| (*id).clone()).collect();
            (page, matching.len())
        };
        let mut summaries = Vec::with_capacity(page.len());
        for device in page {
            // One that is removed meanwhile is not there.
            summaries.extend(self.store.device(&device)?.map(|record| self.summary(device, &record, now)));
        }
        Ok((summaries, matching))
    }

    /// How many devices there are of each health.
    pub fn device_counts(&self, by: &Principal) -> Result<std::collections::BTreeMap<&'static str, usize>> {
        by.require(Role::Viewer)?;
        let now = now();
        let mut counts = std::collections::BTreeMap::new();
        let live = self.live();
        for (id, device) in &live.inventory.devices {
            let is_there = device.seen.is_some_and(|seen| now.since(seen) <= live.policy.policy.limits.away_after);
            let is_there = is_there || live.connected.contains_key(id);
            let trouble = live.troubles.get(id).cloned();
            let health = Health::of(live.observations.of(id), device.seen, trouble, is_there);
            *counts.entry(health.name()).or_default() += 1;
        }
        Ok(counts)
    }

    pub fn device(&self, by: &Principal, device: &DeviceId) -> Result<DeviceView> {
        by.require(Role::Viewer)?;
        let record = self.store.device(device)?.ok_or_else(|| missing(device))?;
        let order = self.live().blueprint.order(device).cloned();
        Ok(DeviceView {
            summary: self.summary(device.clone(), &record, now()),
            is_builder: record.is_builder,
            enrolled_at: record.enrolled_at,
            details: record.details,
            order,
            certificates: self.store.certificates(device)?,
        })
    }

    fn summary(&self, device: DeviceId, record: &DeviceRecord, now: Timestamp) -> DeviceSummary {
        let live = self.live();
        let is_connected = live.connected.contains_key(&device);
        let away_after = live.policy.policy.limits.away_after;
        let is_there = is_connected || record.seen.is_some_and(|seen| now.since(seen) <= away_after);
        DeviceSummary {
            is_connected,
            health: Health::of(record.report.as_ref(), record.seen, trouble_of(&record.details), is_there),
            tags: record.tags.clone(),
            version: record.details.version.as_ref().map(ToString::to_string),
            class: record.details.class.as_ref().map(ToString::to_string),
            seen: record.seen,
            report: record.report.clone(),
            device,
        }
    }

    pub fn events(&self, by: &Principal, query: &EventQuery, page: Page) -> Result<Vec<EventRecord>> {
        by.require(Role::Viewer)?;
        Ok(self.store.events(query, page)?)
    }

    /// What a device measured over the last `last`, the oldest first.
    pub fn history(
        &self,
        by: &Principal,
        device: &DeviceId,
        gauge: Gauge,
        step: Step,
        last: Duration,
    ) -> Result<Vec<Bucket>> {
        by.require(Role::Viewer)?;
        let now = now();
        let since = Timestamp::ZERO + now.since(Timestamp::ZERO).saturating_sub(last);
        Ok(self.store.history(device, gauge, step, since..now + step.length())?)
    }

    pub fn set_tags(&self, by: &Principal, device: &DeviceId, tags: &BTreeSet<String>) -> Result<()> {
        by.require(Role::Operator)?;
        if tags.len() > TAGS_MAX {
            return Err(ServiceError::Invalid(format!("a device has at most {TAGS_MAX} tags")));
        }
        if let Some(tag) = tags.iter().find(|tag| tag.is_empty() || tag.len() > TAG_BYTES_MAX) {
            let tag: String = tag.chars().take(20).collect();
            return Err(ServiceError::Invalid(format!("a tag has 1 to {TAG_BYTES_MAX} bytes, unlike `{tag}`")));
        }
        self.store.set_tags(device, tags, &by.actor, now())?;
        if let Some(known) = self.live_mut().inventory.devices.get_mut(device) {
            known.tags = tags.clone();
        }
        self.changed(device);
        Ok(())
    }

    /// Whether it builds plans that others of its class take.
    pub fn set_builder(&self, by: &Principal, device: &DeviceId, is_builder: bool) -> Result<()> {
        by.require(Role::Admin)?;
        self.store.set_builder(device, is_builder, &by.actor, now())?;
        self.announce(Change::Device { device: device.clone() });
        Ok(())
    }

    /// Takes a device out of the fleet: its certificates are worth nothing from now on.
    pub fn remove_device(&self, by: &Principal, device: &DeviceId) -> Result<()> {
        by.require(Role::Admin)?;
        if !self.store.remove_device(device, &by.actor, now())? {
            return Err(missing(device));
        }
        self.live_mut().forget(device);
        self.cut_off(device)?;
        self.changed(device);
        Ok(())
    }

    /// Makes every certificate of a device worth nothing; it stays in the fleet, and may be enrolled again.
    pub fn revoke_device(&self, by: &Principal, device: &DeviceId) -> Result<usize> {
        by.require(Role::Admin)?;
        let revoked = self.store.revoke_device(device, &by.actor, now())?;
        self.cut_off(device)?;
        self.announce(Change::Device { device: device.clone() });
        Ok(revoked)
    }

    /// First it is not admitted any more, then its connection ends.
    pub(super) fn cut_off(&self, device: &DeviceId) -> Result<()> {
        let revoked = self.store.revoked_serials()?;
        self.live_mut().revoked = revoked;
        self.post.disconnect(device);
        Ok(())
    }

    /// A device that enrolled just now.
    pub fn enrolled(&self, device: &DeviceId) -> Result<()> {
        if let Some(record) = self.store.device(device)? {
            self.live_mut().inventory.devices.insert(device.clone(), record.to_inventory());
            self.changed(device);
        }
        Ok(())
    }

    fn changed(&self, device: &DeviceId) {
        self.announce(Change::Device { device: device.clone() });
        self.wake();
    }
}

/// What is wrong with the first stream that does not run, if one does not.
pub(super) fn trouble_of(details: &Details) -> Option<String> {
    details.streams.iter().find_map(|stream| {
        let trouble = stream.trouble.as_ref()?;
        Some(format!("stream {}: {trouble}", stream.stream))
    })
}

fn missing(device: &DeviceId) -> ServiceError {
    ServiceError::Missing { what: "device", name: device.to_string() }
}
