//! Runs, rounds and SuperNodes.

use std::collections::BTreeMap;

use revoada_core::{Digest, Timestamp};
use revoada_federated::Participant;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::json;

use super::registry::known_blob;
use super::value::{Json, Number, Time, count, json as text, number, time};
use super::{Outcome, Sqlite, all, audit, one};
use crate::learning::{MemberRecord, Participants, RUNS_MAX, RoundRecord, RunId, RunIntent, RunPlan, RunState};
use crate::store::{
    Actor, Learning, NAME_BYTES_MAX, NODES_MAX, Result, RunChanges, RunRecord, StoreError, WEIGHTS_KEPT,
};

const RUN: &str = "SELECT id, title, plan, intent, state, created_by, created_at FROM run";

fn run(row: &Row<'_>) -> rusqlite::Result<(RunId, RunRecord)> {
    let record = RunRecord {
        title: row.get(1)?,
        plan: row.get::<_, Json<_>>(2)?.0,
        intent: row.get::<_, Json<_>>(3)?.0,
        state: row.get::<_, Json<_>>(4)?.0,
        created_by: row.get::<_, Json<_>>(5)?.0,
        created_at: row.get::<_, Time>(6)?.0,
    };
    Ok((RunId(row.get::<_, Number>(0)?.0), record))
}

fn known(connection: &Connection, id: RunId) -> Outcome<()> {
    let found = one(connection, "SELECT 1 FROM run WHERE id = ?1", [number(id.0)], |_| Ok(()))?;
    Ok(found.ok_or_else(|| StoreError::Missing { what: "run", name: id.to_string() })?)
}

fn keep_file(transaction: &Connection, id: RunId, round: u64, digest: Digest) -> Outcome<()> {
    let sql = "INSERT OR IGNORE INTO run_file VALUES (?1, ?2, ?3)";
    transaction.prepare_cached(sql)?.execute(params![number(id.0), number(round), digest.as_bytes()])?;
    Ok(())
}

impl Learning for Sqlite {
    fn add_run(&self, title: &str, plan: &RunPlan, by: &Actor, now: Timestamp) -> Result<RunId> {
        if title.len() > NAME_BYTES_MAX {
            return Err(StoreError::TooMany { what: "bytes of a run's title", max: NAME_BYTES_MAX });
        }
        self.write("add a run", |transaction| {
            let runs: i64 = transaction.query_row("SELECT count(*) FROM run", [], |row| row.get(0))?;
            if runs >= count(RUNS_MAX) {
                return Err(StoreError::TooMany { what: "runs", max: RUNS_MAX }.into());
            }
            let sql = "INSERT INTO run (title, plan, intent, state, created_by, created_at)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let state = text(&RunState::new());
            transaction.execute(sql, params![title, text(plan), text(&RunIntent::Go), state, text(by), time(now)])?;
            let id = RunId(transaction.last_insert_rowid().unsigned_abs());
            let app = match &plan.participants {
                Participants::Flower { app, .. } => app.as_ref().map(|app| app.digest),
                Participants::Devices { .. } => None,
            };
            for digest in plan.weights.into_iter().chain(app) {
                known_blob(transaction, &digest)?;
                keep_file(transaction, id, 0, digest)?;
            }
            audit::append(transaction, by, "add-run", &id.to_string(), &json!({ "title": title, "plan": plan }), now)?;
            Ok(id)
        })
    }

    fn runs(&self) -> Result<BTreeMap<RunId, RunRecord>> {
        self.read("read the runs", |reader| all(reader, RUN, [], run))
    }

    fn run(&self, id: RunId) -> Result<Option<RunRecord>> {
        self.read("read a run", |reader| {
            Ok(one(reader, &format!("{RUN} WHERE id = ?1"), [number(id.0)], run)?.map(|(_, record)| record))
        })
    }

    fn set_run_intent(&self, id: RunId, intent: RunIntent, by: &Actor, now: Timestamp) -> Result<()> {
        self.write("change what is wanted of a run", |transaction| {
            known(transaction, id)?;
            transaction.execute("UPDATE run SET intent = ?2 WHERE id = ?1", params![number(id.0), text(&intent)])?;
            audit::append(transaction, by, "set-run-intent", &id.to_string(), &json!(intent), now)
        })
    }

    fn remove_run(&self, id: RunId, by: &Actor, now: Timestamp) -> Result<()> {
        self.write("remove a run", |transaction| {
            known(transaction, id)?;
            transaction.execute("DELETE FROM run WHERE id = ?1", [number(id.0)])?;
            audit::append(transaction, by, "remove-run", &id.to_string(), &json!({}), now)
        })
    }

    fn change_run(&self, id: RunId, changes: &RunChanges) -> Result<()> {
        self.write("note how far a run is", |transaction| {
            let RunChanges { state, rounds, members, files } = changes;
            if transaction
                .query_row("SELECT 1 FROM run WHERE id = ?1", [number(id.0)], |_| Ok(()))
                .optional()?
                .is_none()
            {
                return Ok(());
            }
            if let Some(state) = state {
                let sql = "UPDATE run SET state = ?2 WHERE id = ?1";
                transaction.prepare_cached(sql)?.execute(params![number(id.0), text(state)])?;
            }
            let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO round VALUES (?1, ?2, ?3)")?;
            for round in rounds {
                put.execute(params![number(id.0), number(round.head.number), text(round)])?;
            }
            let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO round_member VALUES (?1, ?2, ?3, ?4)")?;
            for (round, participant, member) in members {
                put.execute(params![number(id.0), number(*round), participant.0, text(member)])?;
            }
            for (round, digest) in files {
                keep_file(transaction, id, *round, *digest)?;
            }
            if !files.is_empty() {
                let sql = "DELETE FROM run_file WHERE run = ?1 AND round > 0 AND round <=
                           (SELECT DISTINCT round FROM run_file WHERE run = ?1 ORDER BY round DESC LIMIT 1 OFFSET ?2)";
                transaction.execute(sql, params![number(id.0), count(WEIGHTS_KEPT)])?;
            }
            Ok(())
        })
    }

    fn rounds(&self, id: RunId) -> Result<Vec<RoundRecord>> {
        self.read("read the rounds of a run", |reader| {
            let sql = "SELECT round FROM round WHERE run = ?1 ORDER BY number";
            all(reader, sql, [number(id.0)], |row| Ok(row.get::<_, Json<_>>(0)?.0))
        })
    }

    fn members(&self, id: RunId, round: u64) -> Result<BTreeMap<Participant, MemberRecord>> {
        self.read("read who took part in a round", |reader| {
            let sql = "SELECT participant, member FROM round_member WHERE run = ?1 AND round = ?2";
            all(reader, sql, [number(id.0), number(round)], |row| {
                Ok((Participant(row.get(0)?), row.get::<_, Json<_>>(1)?.0))
            })
        })
    }

    fn node(&self, key: &[u8], fresh: u64, now: Timestamp) -> Result<u64> {
        self.write("know a SuperNode", |transaction| {
            let sql = "INSERT INTO node VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET seen = excluded.seen
                       RETURNING id";
            let id: Number = transaction.query_row(sql, params![number(fresh), key, time(now)], |row| row.get(0))?;
            let sql = "DELETE FROM node WHERE id IN (SELECT id FROM node ORDER BY seen DESC LIMIT -1 OFFSET ?1)";
            transaction.execute(sql, [count(NODES_MAX)])?;
            Ok(id.0)
        })
    }

    fn forget_node(&self, id: u64) -> Result<()> {
        self.write("forget a SuperNode", |transaction| {
            transaction.execute("DELETE FROM node WHERE id = ?1", [number(id)])?;
            Ok(())
        })
    }

    fn node_key(&self, id: u64) -> Result<Option<Vec<u8>>> {
        self.read("look for a SuperNode", |reader| {
            one(reader, "SELECT key FROM node WHERE id = ?1", [number(id)], |row| row.get(0))
        })
    }
}
