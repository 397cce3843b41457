//! Tells somebody when something is wrong with devices.

use std::collections::BTreeSet;
use std::time::Duration;

use revoada_core::Timestamp;
use revoada_proto::DeviceId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::warn;
use ureq::Agent;
use url::Url;
use utoipa::ToSchema;

use super::{Change, Fleet, Principal, Result, ServiceError, chain, now};
use crate::filter::Filter;
use crate::store::{Alert, AlertRule, Page, Role};

/// Messages to webhooks that wait; more are dropped, and said to be in the log.
pub(super) const NOTICES_MAX: usize = 1000;
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
const WEBHOOK_TRIES: u32 = 3;

/// What must hold of a device for an alert.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "when", deny_unknown_fields)]
pub enum Condition {
    /// It was not heard of for so many minutes.
    Away {
        #[schema(minimum = 1)]
        minutes: u64,
    },
    /// It could not do what it was ordered, and went back.
    Failed,
    /// The highest temperature is above so many °C.
    Hot { celsius: f64 },
    /// All streams together have fewer frames a second.
    Slow { fps: f64 },
    /// From capture to result, the 99th percentile takes longer.
    Late { milliseconds: f64 },
}

/// A message for a webhook.
#[derive(Clone, Debug, Serialize)]
pub struct Notice {
    #[serde(skip)]
    pub webhook: String,
    pub rule: String,
    pub device: DeviceId,
    pub text: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    pub is_resolved: bool,
}

/// What the alerts that are raised are, so that the store is asked for changes alone.
#[derive(Debug, Default)]
pub(super) struct Raised(BTreeSet<(String, DeviceId)>);

impl Condition {
    /// Why it holds of a device, where it does.
    fn holds(
        self,
        live: &super::live::Live,
        device: &DeviceId,
        seen: Option<Timestamp>,
        now: Timestamp,
    ) -> Option<String> {
        use revoada_proto::Progress;
        let report = live.observations.of(device);
        let figures = report.map(|report| &report.figures);
        match self {
            Self::Away { minutes } => {
                let away = now.since(seen?);
                (away > Duration::from_secs(minutes.saturating_mul(60)))
                    .then(|| format!("was not heard of for {} minutes", away.as_secs() / 60))
            }
            Self::Failed => match &report?.progress {
                Progress::Failed { why, .. } => Some(format!("went back: {why}")),
                _ => None,
            },
            Self::Hot { celsius } => {
                let found = figures?.temperature_c.filter(|found| *found > celsius)?;
                Some(format!("has {found:.1} °C"))
            }
            Self::Slow { fps } => {
                let found = figures?.fps.filter(|found| *found < fps)?;
                Some(format!("has {found:.1} frames a second"))
            }
            Self::Late { milliseconds } => {
                let found = figures?.latency_ms.filter(|found| *found > milliseconds)?;
                Some(format!("takes {found:.1} ms"))
            }
        }
    }
}

impl Fleet {
    pub fn alert_rules(&self, by: &Principal) -> Result<Vec<AlertRule>> {
        by.require(Role::Viewer)?;
        Ok(self.store.rules()?)
    }

    /// Adds a rule, or changes the one of its name.
    pub fn put_alert_rule(
        &self,
        by: &Principal,
        name: &str,
        filter: Filter,
        condition: Condition,
        webhook: Option<&str>,
        is_enabled: bool,
    ) -> Result<()> {
        by.require(Role::Operator)?;
        super::people::check_name(name)?;
        let webhook = webhook.map(check_webhook).transpose()?;
        let condition = serde_json::to_value(condition).expect("a condition is names and numbers");
        let rule = AlertRule { name: name.to_owned(), filter, condition, webhook, is_enabled };
        self.store.put_rule(&rule, &by.actor, now())?;
        self.announce(Change::Alert);
        Ok(())
    }

    pub fn remove_alert_rule(&self, by: &Principal, name: &str) -> Result<()> {
        by.require(Role::Operator)?;
        if !self.store.remove_rule(name, &by.actor, now())? {
            return Err(ServiceError::Missing { what: "rule", name: name.to_owned() });
        }
        self.announce(Change::Alert);
        Ok(())
    }

    /// Those that are raised, the oldest first.
    pub fn raised_alerts(&self, by: &Principal) -> Result<Vec<Alert>> {
        by.require(Role::Viewer)?;
        Ok(self.store.raised_alerts()?)
    }

    /// All, the newest first.
    pub fn alerts(&self, by: &Principal, page: Page) -> Result<Vec<Alert>> {
        by.require(Role::Viewer)?;
        Ok(self.store.alerts(page)?)
    }

    /// Holds every rule against every device, and raises and resolves what changed.
    pub(super) fn watch_devices(&self) -> Result<()> {
        let now = now();
        let rules = self.store.rules()?;
        let mut raised = self.raised.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut holding: Vec<(&AlertRule, DeviceId, String)> = Vec::new();
        {
            let live = self.live();
            for rule in rules.iter().filter(|rule| rule.is_enabled) {
                let Ok(condition) = serde_json::from_value::<Condition>(rule.condition.clone()) else {
                    warn!(rule = rule.name, "a rule of a later version is not watched");
                    continue;
                };
                let matching =
                    live.inventory.devices.iter().filter(|(id, device)| rule.filter.matches(id, device, now));
                holding.extend(matching.filter_map(|(id, device)| {
                    Some((rule, id.clone(), condition.holds(&live, id, device.seen, now)?))
                }));
            }
        }
        let found: BTreeSet<(String, DeviceId)> =
            holding.iter().map(|(rule, device, _)| (rule.name.clone(), device.clone())).collect();
        for (rule, device, text) in holding {
            if raised.0.contains(&(rule.name.clone(), device.clone())) {
                continue;
            }
            if self.store.raise_alert(&rule.name, &device, &text, now)?.is_some() {
                self.notify(rule, device, text, false, now);
            }
        }
        for (name, device) in raised.0.difference(&found) {
            if self.store.resolve_alert(name, device, now)?
                && let Some(rule) = rules.iter().find(|rule| rule.name == *name)
            {
                self.notify(rule, device.clone(), "is over".to_owned(), true, now);
            }
        }
        raised.0 = found;
        Ok(())
    }

    fn notify(&self, rule: &AlertRule, device: DeviceId, text: String, is_resolved: bool, now: Timestamp) {
        warn!(rule = rule.name, %device, is_resolved, "alert: {text}");
        self.announce(Change::Alert);
        let Some(webhook) = &rule.webhook else { return };
        let at_ms = now.as_nanos() / 1_000_000;
        let notice = Notice { webhook: webhook.clone(), rule: rule.name.clone(), device, text, at_ms, is_resolved };
        let notices = self.notices.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if notices.as_ref().is_none_or(|notices| notices.try_send(notice).is_err()) {
            self.count(|counts| counts.notices_lost += 1);
            warn!(rule = rule.name, "a webhook is not told: too much waits for webhooks");
        }
    }
}

impl Raised {
    pub(super) fn load(alerts: Vec<Alert>) -> Self {
        Self(alerts.into_iter().map(|alert| (alert.rule, alert.device)).collect())
    }
}

fn check_webhook(text: &str) -> Result<String> {
    let wrong = || {
        ServiceError::Invalid(format!("`{}` is no URL of http or https", text.chars().take(200).collect::<String>()))
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    if matches!(url.scheme(), "http" | "https") && text.len() <= 2000 { Ok(url.to_string()) } else { Err(wrong()) }
}

/// Tells webhooks, one after the other, until nobody has anything to say any more.
pub fn tell_webhooks(mut notices: mpsc::Receiver<Notice>) {
    let tls = ureq::tls::TlsConfig::builder()
        .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
        .root_certs(ureq::tls::RootCerts::PlatformVerifier)
        .build();
    let config = Agent::config_builder().tls_config(tls).max_redirects(0).timeout_global(Some(WEBHOOK_TIMEOUT));
    let agent: Agent = config.build().into();
    while let Some(notice) = notices.blocking_recv() {
        let mut failure = None;
        for _ in 0..WEBHOOK_TRIES {
            failure = agent.post(&notice.webhook).send_json(&notice).err();
            if failure.is_none() {
                break;
            }
        }
        if let Some(error) = failure {
            warn!(rule = notice.rule, error = %chain(&error), "cannot tell a webhook");
        }
    }
}
