//! What somebody is to be told of.

use revoada_core::Timestamp;
use revoada_proto::DeviceId;
use serde_json::Value;

use super::{Actor, Page, Result};
use crate::filter::Filter;

/// At the bound a new one is refused.
pub const RULES_MAX: usize = 200;

/// Of those that are resolved; the oldest go.
pub const ALERTS_MAX: usize = 10_000;

/// When an alert is raised, and who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertRule {
    pub name: String,
    /// For devices that match.
    pub filter: Filter,
    /// Whoever watches says what it means.
    pub condition: Value,
    /// A URL that is told of alerts.
    pub webhook: Option<String>,
    pub is_enabled: bool,
}

/// A rule that holds, or held, of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    pub number: u64,
    pub rule: String,
    pub device: DeviceId,
    /// For people.
    pub text: String,
    pub raised_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
}

/// Rules and alerts.
pub trait Alerts {
    /// Adds a rule, or changes the one of its name.
    fn put_rule(&self, rule: &AlertRule, by: &Actor, now: Timestamp) -> Result<()>;

    /// By name.
    fn rules(&self) -> Result<Vec<AlertRule>>;

    /// Removes a rule with its alerts. Whether it was there.
    fn remove_rule(&self, name: &str, by: &Actor, now: Timestamp) -> Result<bool>;

    /// Raises an alert, and gives its number; `None` where the rule's for the device is raised already.
    fn raise_alert(&self, rule: &str, device: &DeviceId, text: &str, now: Timestamp) -> Result<Option<u64>>;

    /// Whether there was one.
    fn resolve_alert(&self, rule: &str, device: &DeviceId, now: Timestamp) -> Result<bool>;

    /// All that are raised and not resolved, the oldest first.
    fn raised_alerts(&self) -> Result<Vec<Alert>>;

    /// The newest first. Pages go by number.
    fn alerts(&self, page: Page) -> Result<Vec<Alert>>;
}
