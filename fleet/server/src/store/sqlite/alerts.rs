//! Alert rules, and what they raised.

use revoada_core::Timestamp;
use revoada_proto::DeviceId;
use rusqlite::{OptionalExtension, Row, params};
use serde_json::json;

use super::devices::{key, known_key};
use super::value::{Json, Number, Text, Time, count, json as text, limit, number, time};
use super::{Sqlite, all, audit};
use crate::filter::Filter;
use crate::store::{
    ALERTS_MAX, Actor, Alert, AlertRule, Alerts, NAME_BYTES_MAX, Page, RULES_MAX, Result, StoreError, TEXT_BYTES_MAX,
};

fn rule(row: &Row<'_>) -> rusqlite::Result<AlertRule> {
    Ok(AlertRule {
        name: row.get(0)?,
        filter: row.get::<_, Json<Filter>>(1)?.0,
        condition: row.get::<_, Json<_>>(2)?.0,
        webhook: row.get(3)?,
        is_enabled: row.get(4)?,
    })
}

const ALERT: &str = "SELECT alert.number, rule, device.id, text, raised_at, resolved_at
     FROM alert JOIN device ON device.key = alert.device";

fn alert(row: &Row<'_>) -> rusqlite::Result<Alert> {
    Ok(Alert {
        number: row.get::<_, Number>(0)?.0,
        rule: row.get(1)?,
        device: row.get::<_, Text<_>>(2)?.0,
        text: row.get(3)?,
        raised_at: row.get::<_, Time>(4)?.0,
        resolved_at: row.get::<_, Option<Time>>(5)?.map(|at| at.0),
    })
}

impl Alerts for Sqlite {
    fn put_rule(&self, rule: &AlertRule, by: &Actor, now: Timestamp) -> Result<()> {
        let AlertRule { name, filter, condition, webhook, is_enabled } = rule;
        if name.len() > NAME_BYTES_MAX {
            return Err(StoreError::TooMany { what: "bytes of a rule's name", max: NAME_BYTES_MAX });
        }
        if text(condition).len() + webhook.as_deref().map_or(0, str::len) > TEXT_BYTES_MAX {
            return Err(StoreError::TooMany { what: "bytes of a rule", max: TEXT_BYTES_MAX });
        }
        self.write("keep an alert rule", |transaction| {
            let sql = "SELECT count(*) FROM alert_rule WHERE name != ?1";
            let others: i64 = transaction.query_row(sql, [name], |row| row.get(0))?;
            if others >= count(RULES_MAX) {
                return Err(StoreError::TooMany { what: "alert rules", max: RULES_MAX }.into());
            }
            let sql = "INSERT INTO alert_rule VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO UPDATE SET
                       filter = excluded.filter, condition = excluded.condition, webhook = excluded.webhook,
                       is_enabled = excluded.is_enabled";
            transaction.execute(sql, params![name, text(filter), text(condition), webhook, is_enabled])?;
            let details = json!({
                "filter": filter, "condition": condition, "webhook": webhook, "is-enabled": is_enabled,
            });
            audit::append(transaction, by, "put-alert-rule", name, &details, now)
        })
    }

    fn rules(&self) -> Result<Vec<AlertRule>> {
        self.read("read the alert rules", |reader| {
            let sql = "SELECT name, filter, condition, webhook, is_enabled FROM alert_rule ORDER BY name";
            all(reader, sql, [], rule)
        })
    }

    fn remove_rule(&self, name: &str, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("remove an alert rule", |transaction| {
            let removed = transaction.execute("DELETE FROM alert_rule WHERE name = ?1", [name])? == 1;
            if removed {
                audit::append(transaction, by, "remove-alert-rule", name, &json!({}), now)?;
            }
            Ok(removed)
        })
    }

    fn raise_alert(&self, rule: &str, device: &DeviceId, text: &str, now: Timestamp) -> Result<Option<u64>> {
        self.write("raise an alert", |transaction| {
            let key = known_key(transaction, device)?;
            if !transaction.prepare_cached("SELECT 1 FROM alert_rule WHERE name = ?1")?.exists([rule])? {
                return Err(StoreError::Missing { what: "alert rule", name: rule.to_owned() }.into());
            }
            let number = transaction
                .prepare_cached(
                    "INSERT INTO alert (rule, device, text, raised_at) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO NOTHING RETURNING number",
                )?
                .query_row(params![rule, key, text, time(now)], |row| row.get::<_, Number>(0))
                .optional()?;
            Ok(number.map(|number| number.0))
        })
    }

    fn resolve_alert(&self, rule: &str, device: &DeviceId, now: Timestamp) -> Result<bool> {
        self.write("resolve an alert", |transaction| {
            let Some(key) = key(transaction, device)? else { return Ok(false) };
            let sql = "UPDATE alert SET resolved_at = ?3 WHERE rule = ?1 AND device = ?2 AND resolved_at IS NULL";
            let resolved = transaction.prepare_cached(sql)?.execute(params![rule, key, time(now)])? == 1;
            let sql = "DELETE FROM alert WHERE resolved_at IS NOT NULL AND number <= (SELECT number FROM alert
                       WHERE resolved_at IS NOT NULL ORDER BY number DESC LIMIT 1 OFFSET ?1)";
            transaction.prepare_cached(sql)?.execute([count(ALERTS_MAX)])?;
            Ok(resolved)
        })
    }

    fn raised_alerts(&self) -> Result<Vec<Alert>> {
        self.read("read the raised alerts", |reader| {
            let sql = format!("{ALERT} WHERE resolved_at IS NULL ORDER BY alert.number");
            all(reader, &sql, [], alert)
        })
    }

    fn alerts(&self, page: Page) -> Result<Vec<Alert>> {
        self.read("read the alerts", |reader| {
            let sql = format!("{ALERT} WHERE alert.number < ?1 ORDER BY alert.number DESC LIMIT ?2");
            let values = params![page.before.map_or(i64::MAX, number), limit(page.limit)];
            all(reader, &sql, values, alert)
        })
    }
}
