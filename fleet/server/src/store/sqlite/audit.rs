//! The chain of changes.

use revoada_core::{Digest, Timestamp};
use rusqlite::{Connection, Row, params};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::value::{Hash, Json, Number, Time, json, limit, number, time};
use super::{Outcome, Sqlite, all, one};
use crate::store::{Actor, Audit, AuditCheck, AuditEntry, Page, Result};

const BEFORE_THE_FIRST: Digest = Digest::new([0; 32]);

/// Adds an entry to the chain, within the transaction of the change.
pub(super) fn append(
    transaction: &Connection,
    by: &Actor,
    action: &str,
    subject: &str,
    details: &Value,
    now: Timestamp,
) -> Outcome<()> {
    let sql = "SELECT number, digest FROM audit ORDER BY number DESC LIMIT 1";
    let last = one(transaction, sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Hash>(1)?.0)))?;
    let (last, previous) = last.unwrap_or((0, BEFORE_THE_FIRST));
    let (actor, details) = (json(by), details.to_string());
    let number = last + 1;
    let digest = digest(&previous, number, time(now), [&actor, action, subject, &details]);
    transaction
        .prepare_cached(
            "INSERT INTO audit (number, at, actor, action, subject, details, previous, digest)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![number, time(now), actor, action, subject, details, previous.as_bytes(), digest.as_bytes()])?;
    Ok(())
}

/// Over the texts as they are stored, each with its length before it.
fn digest(previous: &Digest, number: i64, at: i64, texts: [&str; 4]) -> Digest {
    let mut hasher = Sha256::new();
    hasher.update(b"revoada audit 1\0");
    hasher.update(previous.as_bytes());
    hasher.update(number.to_be_bytes());
    hasher.update(at.to_be_bytes());
    for text in texts {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    }
    Digest::new(hasher.finalize().into())
}

const COLUMNS: &str = "number, at, actor, action, subject, details, previous, digest";

fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let details: String = row.get(5)?;
    Ok(AuditEntry {
        number: row.get::<_, Number>(0)?.0,
        at: row.get::<_, Time>(1)?.0,
        by: row.get::<_, Json<_>>(2)?.0,
        action: row.get(3)?,
        subject: row.get(4)?,
        details: serde_json::from_str(&details).unwrap_or(Value::String(details)),
        previous: row.get::<_, Hash>(6)?.0,
        digest: row.get::<_, Hash>(7)?.0,
    })
}

/// Why an entry is not the one after `previous`.
fn fault(row: &Row<'_>, expected: i64, previous: &Digest) -> rusqlite::Result<std::result::Result<Digest, String>> {
    let number: i64 = row.get(0)?;
    if number != expected {
        return Ok(Err(format!("entry {expected} is missing")));
    }
    let text = |index| row.get_ref(index).and_then(|value| Ok(value.as_str()?));
    if row.get_ref(6)?.as_blob()? != previous.as_bytes() {
        return Ok(Err("it does not follow the entry before".to_owned()));
    }
    let computed = digest(previous, number, row.get(1)?, [text(2)?, text(3)?, text(4)?, text(5)?]);
    let is_right = row.get_ref(7)?.as_blob()? == computed.as_bytes();
    Ok(if is_right { Ok(computed) } else { Err("it is not what was written".to_owned()) })
}

impl Audit for Sqlite {
    fn note(&self, by: &Actor, action: &str, subject: &str, details: &Value, now: Timestamp) -> Result<()> {
        self.write("add to the audit log", |transaction| append(transaction, by, action, subject, details, now))
    }

    fn audit(&self, page: Page) -> Result<Vec<AuditEntry>> {
        self.read("read the audit log", |reader| {
            let sql = format!("SELECT {COLUMNS} FROM audit WHERE number < ?1 ORDER BY number DESC LIMIT ?2");
            let before = page.before.map_or(i64::MAX, number);
            all(reader, &sql, params![before, limit(page.limit)], entry)
        })
    }

    fn verify_audit(&self) -> Result<AuditCheck> {
        self.read("verify the audit log", |reader| {
            let sql = format!("SELECT {COLUMNS} FROM audit ORDER BY number");
            let mut statement = reader.prepare(&sql)?;
            let mut rows = statement.query([])?;
            let (mut entries, mut head) = (0, BEFORE_THE_FIRST);
            while let Some(row) = rows.next()? {
                match fault(row, entries + 1, &head)? {
                    Ok(digest) => (entries, head) = (entries + 1, digest),
                    Err(why) => return Ok(AuditCheck::Broken { number: entries.unsigned_abs() + 1, why }),
                }
            }
            Ok(AuditCheck::Whole { entries: entries.unsigned_abs(), head })
        })
    }
}
