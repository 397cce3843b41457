//! What happened on devices.

use revoada_proto::Level;
use rusqlite::types::ToSql;
use rusqlite::{Connection, Row, params};

use super::devices::key;
use super::value::{Json, Number, Text, Time, count, json as text, limit, number, time};
use super::{Outcome, Sqlite, all, one};
use crate::store::{EVENTS_MAX, EventQuery, EventRecord, Events, Occurrence, Page, Result};

fn level(level: Level) -> i64 {
    match level {
        Level::Info => 0,
        Level::Warn => 1,
        Level::Error => 2,
    }
}

fn event(row: &Row<'_>) -> rusqlite::Result<EventRecord> {
    let (device, event) = (row.get::<_, Text<_>>(1)?.0, row.get::<_, Json<_>>(2)?.0);
    let occurrence = Occurrence { device, event, at: row.get::<_, Time>(3)?.0 };
    Ok(EventRecord { number: row.get::<_, Number>(0)?.0, occurrence })
}

impl Events for Sqlite {
    fn record_events(&self, events: &[Occurrence]) -> Result<Vec<bool>> {
        self.write("keep events", |transaction| events.iter().map(|event| keep(transaction, event)).collect())
    }

    fn events(&self, query: &EventQuery, page: Page) -> Result<Vec<EventRecord>> {
        let (before, limit) = (page.before.map_or(i64::MAX, number), limit(page.limit));
        let (device, level_min) = (query.device.as_ref().map(|device| device.as_str()), query.level_min.map(level));
        let mut sql = "SELECT event.number, device.id, event.event, event.at
                       FROM event JOIN device ON device.key = event.device WHERE event.number < ?1"
            .to_owned();
        let mut values: Vec<&dyn ToSql> = vec![&before, &limit];
        let mut narrow = |condition: &str, value| {
            values.push(value);
            sql.push_str(&format!(" AND {condition} ?{}", values.len()));
        };
        if let Some(device) = &device {
            narrow("device.id =", device);
        }
        if let Some(name) = &query.name {
            narrow("event.name =", name);
        }
        if let Some(level) = level_min.as_ref().filter(|level| **level > 0) {
            // The first half names the index.
            narrow("event.level > 0 AND event.level >=", level);
        }
        sql.push_str(" ORDER BY event.number DESC LIMIT ?2");
        self.read("read events", |reader| all(reader, &sql, &values[..], event))
    }
}

/// Below every number of a device, in the order of the numbers that are put there.
const BEFORE_ALL: i64 = i64::MIN;

/// Makes room for a device that counts from the beginning: kept events keep their order, before all that come.
pub(super) fn begin_anew(transaction: &Connection, key: i64) -> Outcome<()> {
    let sql = "UPDATE event SET sequence = ?2 + number WHERE device = ?1 AND sequence >= 0";
    transaction.execute(sql, params![key, BEFORE_ALL])?;
    Ok(())
}

/// Whether the event is new.
fn keep(transaction: &Connection, Occurrence { device, event, at }: &Occurrence) -> Outcome<bool> {
    let Some(key) = key(transaction, device)? else { return Ok(false) };
    // The lowest number that is kept once there are as many as may be.
    let sql = "SELECT sequence FROM event WHERE device = ?1 ORDER BY sequence DESC LIMIT 1 OFFSET ?2";
    let floor: Option<i64> = one(transaction, sql, params![key, count(EVENTS_MAX - 1)], |row| row.get(0))?;
    let sequence = number(event.sequence);
    if floor.is_some_and(|floor| sequence <= floor) {
        return Ok(false);
    }
    let added = transaction
        .prepare_cached(
            "INSERT INTO event (device, sequence, level, name, event, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (device, sequence) DO NOTHING",
        )?
        .execute(params![key, sequence, level(event.level), event.name, text(event), time(*at)])?;
    if added == 1 && floor.is_some() {
        transaction
            .prepare_cached("DELETE FROM event WHERE device = ?1 AND sequence <= ?2")?
            .execute(params![key, floor])?;
    }
    Ok(added == 1)
}
