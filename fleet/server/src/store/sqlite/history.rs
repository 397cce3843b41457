//! What devices measured, in buckets.

use std::ops::Range;

use revoada_core::Timestamp;
use revoada_proto::DeviceId;
use rusqlite::{Connection, Row, params};

use super::devices::key;
use super::value::{Number, Time, time};
use super::{Outcome, Sqlite, all};
use crate::store::{Bucket, Gauge, History, Result, Sample, Step, VALUE_MAX};

/// Whose buckets are compacted in one transaction, so that others write in between.
const DEVICES_AT_ONCE: i64 = 500;

fn gauge_code(gauge: Gauge) -> i64 {
    match gauge {
        Gauge::Fps => 1,
        Gauge::Latency => 2,
        Gauge::Agreement => 3,
        Gauge::Temperature => 4,
        Gauge::Restarts => 5,
        Gauge::Processor => 6,
        Gauge::Gpu => 7,
        Gauge::Memory => 8,
        Gauge::Disk => 9,
        Gauge::Accuracy => 10,
        Gauge::Power => 11,
    }
}

fn seconds(step: Step) -> i64 {
    i64::try_from(step.length().as_secs()).unwrap_or(i64::MAX)
}

/// When the bucket began that a time falls into.
fn start(at: Timestamp, step: Step) -> i64 {
    let length = seconds(step) * 1_000_000_000;
    time(at) / length * length
}

/// What begins before is not kept.
fn kept_from(now: Timestamp, step: Step) -> i64 {
    let kept = i64::try_from(step.kept().as_nanos()).unwrap_or(i64::MAX);
    time(now).saturating_sub(kept)
}

impl History for Sqlite {
    fn record_samples(&self, samples: &[Sample]) -> Result<()> {
        self.write("keep samples", |transaction| {
            for sample in samples.iter().filter(|sample| sample.value.abs() <= VALUE_MAX) {
                if let Some(key) = key(transaction, &sample.device)? {
                    keep(transaction, key, sample)?;
                }
            }
            Ok(())
        })
    }

    fn history(&self, device: &DeviceId, gauge: Gauge, step: Step, range: Range<Timestamp>) -> Result<Vec<Bucket>> {
        self.read("read what a device measured", |reader| {
            let Some(key) = key(reader, device)? else { return Ok(Vec::new()) };
            let sql = "SELECT start, samples, sum, min, max FROM bucket
                       WHERE device = ?1 AND gauge = ?2 AND step = ?3 AND start >= ?4 AND start < ?5 ORDER BY start";
            let values = params![key, gauge_code(gauge), seconds(step), time(range.start), time(range.end)];
            all(reader, sql, values, bucket)
        })
    }

    fn compact(&self, now: Timestamp) -> Result<()> {
        let last = self.read("count the devices", |reader| {
            Ok(reader.query_row("SELECT coalesce(max(key), 0) FROM device", [], |row| row.get::<_, i64>(0))?)
        })?;
        for first in (0..=last).step_by(DEVICES_AT_ONCE as usize) {
            self.write("remove old samples", |transaction| {
                let sql = "SELECT key FROM device WHERE key >= ?1 AND key < ?2";
                let keys: Vec<i64> = all(transaction, sql, [first, first + DEVICES_AT_ONCE], |row| row.get(0))?;
                for (key, gauge, step) in keys
                    .iter()
                    .flat_map(|key| Gauge::ALL.map(|gauge| (key, gauge)))
                    .flat_map(|(key, gauge)| Step::ALL.map(|step| (*key, gauge, step)))
                {
                    remove_before(transaction, key, gauge, step, kept_from(now, step))?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn bucket(row: &Row<'_>) -> rusqlite::Result<Bucket> {
    let (samples, sum) = (row.get::<_, Number>(1)?.0, row.get::<_, f64>(2)?);
    Ok(Bucket {
        start: row.get::<_, Time>(0)?.0,
        samples,
        mean: sum / samples as f64,
        min: row.get(3)?,
        max: row.get(4)?,
    })
}

fn keep(transaction: &Connection, key: i64, Sample { gauge, at, value, .. }: &Sample) -> Outcome<()> {
    let mut count = transaction.prepare_cached(
        "INSERT INTO bucket VALUES (?1, ?2, ?3, ?4, 1, ?5, ?5, ?5)
         ON CONFLICT (device, gauge, step, start) DO UPDATE SET
         samples = samples + 1, sum = sum + excluded.sum, min = min(min, excluded.min), max = max(max, excluded.max)",
    )?;
    for step in Step::ALL {
        count.execute(params![key, gauge_code(*gauge), seconds(step), start(*at, step), value])?;
        remove_before(transaction, key, *gauge, step, kept_from(*at, step))?;
    }
    Ok(())
}

fn remove_before(transaction: &Connection, key: i64, gauge: Gauge, step: Step, first: i64) -> Outcome<()> {
    transaction
        .prepare_cached("DELETE FROM bucket WHERE device = ?1 AND gauge = ?2 AND step = ?3 AND start < ?4")?
        .execute(params![key, gauge_code(gauge), seconds(step), first])?;
    Ok(())
}
