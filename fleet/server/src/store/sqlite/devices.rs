//! Devices, and the newest that each said.

use std::collections::{BTreeMap, BTreeSet};

use revoada_core::Timestamp;
use revoada_proto::message::FACTS_MAX;
use revoada_proto::{Details, DeviceId, Fact, Report};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

use super::value::{Json, Text, Time, json as text, time};
use super::{Outcome, Sqlite, all, audit, events, identity, one};
use crate::store::{Actor, DeviceRecord, Devices, Heard, NAME_BYTES_MAX, Result, StoreError, TAGS_MAX};

const COLUMNS: &str = "id, tags, is_builder, enrolled_at, seen, report, details";

fn record(row: &Row<'_>) -> rusqlite::Result<(DeviceId, DeviceRecord)> {
    let record = DeviceRecord {
        tags: row.get::<_, Json<_>>(1)?.0,
        is_builder: row.get(2)?,
        enrolled_at: row.get::<_, Time>(3)?.0,
        seen: row.get::<_, Option<Time>>(4)?.map(|at| at.0),
        report: row.get::<_, Option<Json<_>>>(5)?.map(|report| report.0),
        details: row.get::<_, Option<Json<_>>>(6)?.map(|details| details.0).unwrap_or_default(),
    };
    Ok((row.get::<_, Text<_>>(0)?.0, record))
}

/// The key of a device in other tables; `None` where it is not enrolled.
pub(super) fn key(connection: &Connection, device: &DeviceId) -> Outcome<Option<i64>> {
    one(connection, "SELECT key FROM device WHERE id = ?1", [device.as_str()], |row| row.get(0))
}

pub(super) fn known_key(connection: &Connection, device: &DeviceId) -> Outcome<i64> {
    key(connection, device)?.ok_or_else(|| StoreError::Missing { what: "device", name: device.to_string() }.into())
}

impl Devices for Sqlite {
    fn devices(&self) -> Result<BTreeMap<DeviceId, DeviceRecord>> {
        self.read("read the devices", |reader| {
            let sql = format!("SELECT {COLUMNS} FROM device");
            all(reader, &sql, [], record)
        })
    }

    fn device(&self, device: &DeviceId) -> Result<Option<DeviceRecord>> {
        self.read("read a device", |reader| {
            let sql = format!("SELECT {COLUMNS} FROM device WHERE id = ?1");
            let found = one(reader, &sql, [device.as_str()], record)?;
            Ok(found.map(|(_, record)| record))
        })
    }

    fn add_device(&self, device: &DeviceId, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("enrol a device", |transaction| {
            let tags = text(&BTreeSet::<String>::new());
            let added = transaction
                .prepare_cached(
                    "INSERT INTO device (id, tags, is_builder, enrolled_at) VALUES (?1, ?2, FALSE, ?3)
                     ON CONFLICT (id) DO NOTHING",
                )?
                .execute(params![device.as_str(), tags, time(now)])?;
            if added == 0 {
                transaction.execute("UPDATE device SET report = NULL WHERE id = ?1", [device.as_str()])?;
                events::begin_anew(transaction, known_key(transaction, device)?)?;
            }
            let details = json!({ "again": added == 0 });
            audit::append(transaction, by, "add-device", device.as_str(), &details, now)?;
            Ok(added == 1)
        })
    }

    fn record(&self, heard: &[Heard]) -> Result<()> {
        self.write("keep reports", |transaction| {
            for Heard { device, report, details, at } in heard {
                keep_report(transaction, device, report, details, *at)?;
            }
            Ok(())
        })
    }

    fn record_seen(&self, seen: &[(DeviceId, Timestamp)]) -> Result<()> {
        self.write("keep when devices were seen", |transaction| {
            for (device, at) in seen {
                keep_seen(transaction, device, *at)?;
            }
            Ok(())
        })
    }

    fn set_tags(&self, device: &DeviceId, tags: &BTreeSet<String>, by: &Actor, now: Timestamp) -> Result<()> {
        if tags.len() > TAGS_MAX {
            return Err(StoreError::TooMany { what: "tags of a device", max: TAGS_MAX });
        }
        if tags.iter().any(|tag| tag.len() > NAME_BYTES_MAX) {
            return Err(StoreError::TooMany { what: "bytes of a tag", max: NAME_BYTES_MAX });
        }
        self.write("set the tags of a device", |transaction| {
            let key = known_key(transaction, device)?;
            transaction.execute("UPDATE device SET tags = ?2 WHERE key = ?1", params![key, text(tags)])?;
            audit::append(transaction, by, "set-tags", device.as_str(), &json!({ "tags": tags }), now)
        })
    }

    fn set_builder(&self, device: &DeviceId, is_builder: bool, by: &Actor, now: Timestamp) -> Result<()> {
        self.write("mark a device as builder", |transaction| {
            let key = known_key(transaction, device)?;
            transaction.execute("UPDATE device SET is_builder = ?2 WHERE key = ?1", params![key, is_builder])?;
            audit::append(transaction, by, "set-builder", device.as_str(), &json!({ "is-builder": is_builder }), now)
        })
    }

    fn remove_device(&self, device: &DeviceId, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("remove a device", |transaction| {
            // What else is its own goes with the row.
            let removed = transaction.execute("DELETE FROM device WHERE id = ?1", [device.as_str()])? == 1;
            transaction.execute("DELETE FROM registered_key WHERE device = ?1", [device.as_str()])?;
            let revoked = identity::revoke_all(transaction, device, now)?;
            if removed || revoked > 0 {
                let details = json!({ "certificates-revoked": revoked });
                audit::append(transaction, by, "remove-device", device.as_str(), &details, now)?;
            }
            Ok(removed)
        })
    }
}

fn keep_report(
    transaction: &Connection,
    device: &DeviceId,
    report: &Report,
    details: &Details,
    at: Timestamp,
) -> Outcome<()> {
    let known = transaction
        .prepare_cached("SELECT report, details FROM device WHERE id = ?1")?
        .query_row([device.as_str()], |row| {
            let (report, details) = (row.get::<_, Option<Json<Report>>>(0)?, row.get::<_, Option<Json<Details>>>(1)?);
            Ok((report.map(|report| report.0.sequence), details.map(|details| details.0.facts).unwrap_or_default()))
        })
        .optional()?;
    let Some((sequence, facts)) = known else { return Ok(()) };
    if sequence.is_some_and(|sequence| sequence >= report.sequence) {
        return keep_seen(transaction, device, at);
    }
    let details = merged(details, facts);
    transaction
        .prepare_cached("UPDATE device SET report = ?2, details = ?3, seen = max(coalesce(seen, 0), ?4) WHERE id = ?1")?
        .execute(params![device.as_str(), text(report), text(&details), time(at)])?;
    Ok(())
}

fn keep_seen(transaction: &Connection, device: &DeviceId, at: Timestamp) -> Outcome<()> {
    transaction
        .prepare_cached("UPDATE device SET seen = max(coalesce(seen, 0), ?2) WHERE id = ?1")?
        .execute(params![device.as_str(), time(at)])?;
    Ok(())
}

/// What is said now, with the facts that were said before. JSON has no numbers that are not finite.
fn merged(details: &Details, mut facts: BTreeMap<String, Fact>) -> Details {
    for (name, fact) in &details.facts {
        let is_finite = !matches!(fact, Fact::Number(number) if !number.is_finite());
        if is_finite && (facts.len() < FACTS_MAX || facts.contains_key(name)) {
            facts.insert(name.clone(), fact.clone());
        }
    }
    let mut details = Details { facts, ..details.clone() };
    for stream in details.streams.iter_mut().filter(|stream| !stream.fps.is_finite()) {
        stream.fps = 0.0;
    }
    details
}
