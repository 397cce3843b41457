//! The outbox of commands.

use revoada_core::Timestamp;
use revoada_proto::{Ask, DeviceId};
use rusqlite::{Row, params};
use serde_json::json;

use super::devices::known_key;
use super::value::{Hash, Json, Number, Text, Time, count, json as text, limit, number, time};
use super::{Sqlite, all, audit, one};
use crate::store::{
    Actor, Answer, COMMANDS_MAX, CommandRecord, CommandState, Commands, OPEN_COMMANDS_MAX, Page, Result, StoreError,
};

const COMMAND: &str =
    "SELECT device.id, command.number, ask, by, issued_at, expires_at, state, text, answer, media_type
     FROM command JOIN device ON device.key = command.device";

fn command(row: &Row<'_>) -> rusqlite::Result<CommandRecord> {
    let text: String = row.get(7)?;
    let state = match row.get_ref(6)?.as_str()? {
        "queued" => CommandState::Queued,
        "sent" => CommandState::Sent,
        "done" => CommandState::Done { text },
        "failed" => CommandState::Failed { text },
        _ => CommandState::Expired,
    };
    let answer = match (row.get::<_, Option<Hash>>(8)?, row.get(9)?) {
        (Some(digest), Some(media_type)) => Some(Answer { digest: digest.0, media_type }),
        _ => None,
    };
    Ok(CommandRecord {
        device: row.get::<_, Text<_>>(0)?.0,
        number: row.get::<_, Number>(1)?.0,
        ask: row.get::<_, Json<_>>(2)?.0,
        by: row.get::<_, Json<_>>(3)?.0,
        issued_at: row.get::<_, Time>(4)?.0,
        expires_at: row.get::<_, Time>(5)?.0,
        state,
        answer,
    })
}

impl Commands for Sqlite {
    fn add_command(
        &self,
        device: &DeviceId,
        ask: &Ask,
        expires_at: Timestamp,
        by: &Actor,
        now: Timestamp,
    ) -> Result<u64> {
        self.write("queue a command", |transaction| {
            let key = known_key(transaction, device)?;
            let sql = "SELECT count(*) FROM command WHERE device = ?1 AND state IN ('queued', 'sent')";
            let open: i64 = transaction.query_row(sql, [key], |row| row.get(0))?;
            if open >= count(OPEN_COMMANDS_MAX) {
                return Err(StoreError::TooMany { what: "open commands of a device", max: OPEN_COMMANDS_MAX }.into());
            }
            // Milliseconds of the clock, or one more than the last: so a backup that is restored begins above what was
            // given after it was taken.
            let sql = "INSERT INTO counter VALUES ('command', ?1)
                       ON CONFLICT (name) DO UPDATE SET value = max(value + 1, excluded.value) RETURNING value";
            let next: i64 = transaction.query_row(sql, [time(now) / 1_000_000], |row| row.get(0))?;
            transaction
                .prepare_cached("INSERT INTO command VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'queued', '', NULL, NULL)")?
                .execute(params![next, key, text(ask), text(by), time(now), time(expires_at)])?;
            let sql = "DELETE FROM command WHERE device = ?1 AND state NOT IN ('queued', 'sent') AND number <=
                       (SELECT number FROM command WHERE device = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)";
            transaction.execute(sql, params![key, count(COMMANDS_MAX)])?;
            let details = json!({ "number": next, "command": ask });
            audit::append(transaction, by, "command", device.as_str(), &details, now)?;
            Ok(next.unsigned_abs())
        })
    }

    fn open_commands(&self, device: &DeviceId) -> Result<Vec<CommandRecord>> {
        self.read("read the open commands of a device", |reader| {
            let sql = format!("{COMMAND} WHERE device.id = ?1 AND state IN ('queued', 'sent') ORDER BY command.number");
            all(reader, &sql, [device.as_str()], command)
        })
    }

    fn queued_commands(&self, limit: usize) -> Result<Vec<CommandRecord>> {
        self.read("read the queued commands", |reader| {
            let sql = format!("{COMMAND} WHERE state = 'queued' ORDER BY command.number LIMIT ?1");
            all(reader, &sql, [self::limit(limit)], command)
        })
    }

    fn commands(&self, device: &DeviceId, page: Page) -> Result<Vec<CommandRecord>> {
        self.read("read the commands of a device", |reader| {
            let sql =
                format!("{COMMAND} WHERE device.id = ?1 AND command.number < ?2 ORDER BY command.number DESC LIMIT ?3");
            let values = params![device.as_str(), page.before.map_or(i64::MAX, number), limit(page.limit)];
            all(reader, &sql, values, command)
        })
    }

    fn command(&self, device: &DeviceId, number: u64) -> Result<Option<CommandRecord>> {
        self.read("read a command", |reader| {
            let sql = format!("{COMMAND} WHERE device.id = ?1 AND command.number = ?2");
            let values = params![device.as_str(), self::number(number)];
            one(reader, &sql, values, command)
        })
    }

    fn command_sent(&self, device: &DeviceId, number: u64) -> Result<()> {
        self.write("note that a command was sent", |transaction| {
            let key = known_key(transaction, device)?;
            let sql = "UPDATE command SET state = 'sent' WHERE device = ?1 AND number = ?2 AND state = 'queued'";
            transaction.execute(sql, params![key, self::number(number)])?;
            Ok(())
        })
    }

    fn end_command(&self, device: &DeviceId, number: u64, outcome: std::result::Result<&str, &str>) -> Result<bool> {
        let (state, text) = match outcome {
            Ok(text) => ("done", text),
            Err(text) => ("failed", text),
        };
        self.write("note how a command ended", |transaction| {
            let key = known_key(transaction, device)?;
            let sql = "UPDATE command SET state = ?3, text = ?4
                       WHERE device = ?1 AND number = ?2 AND state NOT IN ('done', 'failed')";
            Ok(transaction.execute(sql, params![key, self::number(number), state, text])? == 1)
        })
    }

    fn answer_command(&self, device: &DeviceId, number: u64, answer: &Answer) -> Result<bool> {
        self.write("keep the answer to a command", |transaction| {
            let key = known_key(transaction, device)?;
            super::registry::known_blob(transaction, &answer.digest)?;
            let sql = "UPDATE command SET answer = ?3, media_type = ?4
                       WHERE device = ?1 AND number = ?2 AND answer IS NULL";
            let values = params![key, self::number(number), answer.digest.as_bytes(), answer.media_type];
            Ok(transaction.execute(sql, values)? == 1)
        })
    }

    fn expire_commands(&self, now: Timestamp) -> Result<Vec<(DeviceId, u64)>> {
        self.write("end commands whose time is over", |transaction| {
            let sql = "SELECT device.id, command.number FROM command JOIN device ON device.key = command.device
                       WHERE state IN ('queued', 'sent') AND expires_at <= ?1";
            let expired = |row: &Row<'_>| Ok((row.get::<_, Text<_>>(0)?.0, row.get::<_, Number>(1)?.0));
            let expired = all(transaction, sql, [time(now)], expired)?;
            let sql = "UPDATE command SET state = 'expired' WHERE state IN ('queued', 'sent') AND expires_at <= ?1";
            transaction.execute(sql, [time(now)])?;
            Ok(expired)
        })
    }
}
