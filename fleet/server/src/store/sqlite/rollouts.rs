//! Policy and blueprint.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;

use revoada_core::Timestamp;
use revoada_proto::{Deployable, DeviceId};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::value::{Json, Number, Text, Time, json as text, number, time};
use super::{Outcome, Sqlite, all, audit, one};
use crate::planner::{Blueprint, Intent, Limits, Member, Phase, Policy, Rollout, RolloutId, RolloutState, Target};
use crate::store::{Actor, NAME_BYTES_MAX, Result, RolloutNote, Rollouts, StoreError, StoredPolicy};

/// What is stored of a rollout's state beside its members.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    deployable: Deployable,
    phase: Phase,
    paused: Option<Timestamp>,
}

impl Head {
    fn of(state: &RolloutState) -> Self {
        let RolloutState { deployable, phase, paused, members: _ } = state;
        Self { deployable: *deployable, phase: phase.clone(), paused: *paused }
    }
}

pub(super) fn rollouts(connection: &Connection) -> Outcome<BTreeMap<RolloutId, (Rollout, RolloutNote)>> {
    let rollout = |row: &Row<'_>| {
        let note = RolloutNote {
            title: row.get(2)?,
            created_by: row.get::<_, Json<_>>(3)?.0,
            created_at: row.get::<_, Time>(4)?.0,
        };
        Ok((RolloutId(row.get::<_, Number>(0)?.0), (row.get::<_, Json<_>>(1)?.0, note)))
    };
    let sql = "SELECT id, rollout, title, created_by, created_at FROM rollout ORDER BY id";
    all(connection, sql, [], rollout)
}

fn policy(connection: &Connection) -> Outcome<Option<StoredPolicy>> {
    let limits = |row: &Row<'_>| Ok((row.get::<_, Json<Limits>>(0)?.0, row.get::<_, Text<u64>>(1)?.0));
    let limits = one(connection, "SELECT limits, seed FROM limits", [], limits)?;
    let Some((limits, seed)) = limits else { return Ok(None) };
    let (mut policy, mut notes) = (Policy::new(limits, seed), BTreeMap::new());
    for (id, (rollout, note)) in rollouts(connection)? {
        policy.add(id, rollout).map_err(StoreError::from)?;
        notes.insert(id, note);
    }
    Ok(Some(StoredPolicy { policy, notes }))
}

fn rollout(connection: &Connection, id: RolloutId) -> Outcome<Rollout> {
    let sql = "SELECT rollout FROM rollout WHERE id = ?1";
    let found = one(connection, sql, [number(id.0)], |row| row.get::<_, Json<_>>(0))?;
    let missing = || StoreError::Missing { what: "rollout", name: id.to_string() };
    Ok(found.ok_or_else(missing)?.0)
}

impl Rollouts for Sqlite {
    fn policy(&self) -> Result<Option<StoredPolicy>> {
        self.read("read the policy", policy)
    }

    fn set_limits(&self, limits: &Limits, seed: u64, by: &Actor, now: Timestamp) -> Result<()> {
        self.write("set the limits of rollouts", |transaction| {
            let sql = "INSERT INTO limits VALUES (1, ?1, ?2) ON CONFLICT (only) DO UPDATE SET limits = excluded.limits";
            transaction.execute(sql, params![text(limits), seed.to_string()])?;
            audit::append(transaction, by, "set-limits", "rollouts", &json!(limits), now)
        })
    }

    fn add_rollout(&self, title: &str, rollout: &Rollout, by: &Actor, now: Timestamp) -> Result<RolloutId> {
        if title.len() > NAME_BYTES_MAX {
            return Err(StoreError::TooMany { what: "bytes of a rollout's title", max: NAME_BYTES_MAX });
        }
        self.write("add a rollout", |transaction| {
            let known = policy(transaction)?;
            let mut known =
                known.ok_or(StoreError::Missing { what: "setting", name: "limits of rollouts".to_owned() })?.policy;
            let sql = "INSERT INTO rollout (rollout, title, created_by, created_at) VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(sql, params![text(rollout), title, text(by), time(now)])?;
            let id = RolloutId(transaction.last_insert_rowid().unsigned_abs());
            known.add(id, rollout.clone()).map_err(StoreError::from)?;
            let details = json!({ "title": title, "rollout": rollout });
            audit::append(transaction, by, "add-rollout", &id.to_string(), &details, now)?;
            Ok(id)
        })
    }

    fn set_intent(&self, id: RolloutId, intent: Intent, by: &Actor, now: Timestamp) -> Result<()> {
        self.write("say what is wanted of a rollout", |transaction| {
            let wanted = Rollout { intent, ..rollout(transaction, id)? };
            let sql = "UPDATE rollout SET rollout = ?2 WHERE id = ?1";
            transaction.execute(sql, params![number(id.0), text(&wanted)])?;
            audit::append(transaction, by, "set-intent", &id.to_string(), &json!({ "intent": intent }), now)
        })
    }

    fn remove_rollout(&self, id: RolloutId, by: &Actor, now: Timestamp) -> Result<()> {
        self.write("remove a rollout", |transaction| {
            rollout(transaction, id)?;
            transaction.execute("DELETE FROM rollout WHERE id = ?1", [number(id.0)])?;
            audit::append(transaction, by, "remove-rollout", &id.to_string(), &json!({}), now)
        })
    }

    fn blueprint(&self) -> Result<Blueprint> {
        self.read("read the blueprint", |reader| {
            let mut rollouts = states(reader)?;
            let mut statement = reader.prepare_cached("SELECT rollout, device, member FROM member")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let id = RolloutId(row.get::<_, Number>(0)?.0);
                let Some(state) = rollouts.get_mut(&id) else {
                    let what = format!("rollout {id} has members and no state");
                    return Err(StoreError::Damaged { what }.into());
                };
                state.members.insert(row.get::<_, Text<_>>(1)?.0, row.get::<_, Json<_>>(2)?.0);
            }
            let target = |row: &Row<'_>| Ok((row.get::<_, Text<_>>(0)?.0, row.get::<_, Json<_>>(1)?.0));
            let sql = "SELECT device, target FROM target";
            let targets: BTreeMap<DeviceId, Target> = all(reader, sql, [], target)?;
            let mut statement = reader.prepare_cached("SELECT number, parent, recent FROM blueprint")?;
            let blueprint = statement.query_row([], |row| {
                Ok(Blueprint {
                    number: row.get::<_, Number>(0)?.0,
                    parent: row.get::<_, Option<Number>>(1)?.map(|parent| parent.0),
                    targets: Arc::new(targets),
                    rollouts: rollouts.into_iter().map(|(id, state)| (id, Arc::new(state))).collect(),
                    recent: row.get::<_, Json<_>>(2)?.0,
                })
            })?;
            Ok(blueprint)
        })
    }

    fn swap_blueprint(&self, current: &Blueprint, next: &Blueprint) -> Result<bool> {
        assert!(next.number > current.number, "a blueprint has a higher number than the one it follows");
        self.write("put the next blueprint in place", |transaction| {
            let sql = "UPDATE blueprint SET number = ?2, parent = ?3, recent = ?4 WHERE number = ?1";
            let (parent, recent) = (next.parent.map(number), text(&next.recent));
            let swapped =
                transaction.execute(sql, params![number(current.number), number(next.number), parent, recent])?;
            if swapped == 0 {
                return Ok(false);
            }
            if !Arc::ptr_eq(&current.targets, &next.targets) {
                swap_targets(transaction, &current.targets, &next.targets)?;
            }
            for (id, before, after) in differences(&current.rollouts, &next.rollouts, Arc::ptr_eq) {
                swap_rollout(transaction, *id, before.map(Arc::as_ref), after.map(Arc::as_ref))?;
            }
            Ok(true)
        })
    }
}

fn states(connection: &Connection) -> Outcome<BTreeMap<RolloutId, RolloutState>> {
    let state = |row: &Row<'_>| {
        let Json(Head { deployable, phase, paused }) = row.get(1)?;
        let state = RolloutState { deployable, phase, paused, members: BTreeMap::new() };
        Ok((RolloutId(row.get::<_, Number>(0)?.0), state))
    };
    let sql = "SELECT rollout, state FROM rollout_state";
    all(connection, sql, [], state)
}

fn swap_targets(
    transaction: &Connection,
    current: &BTreeMap<DeviceId, Target>,
    next: &BTreeMap<DeviceId, Target>,
) -> Outcome<()> {
    let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO target VALUES (?1, ?2)")?;
    let mut remove = transaction.prepare_cached("DELETE FROM target WHERE device = ?1")?;
    for (device, _, target) in differences(current, next, PartialEq::eq) {
        match target {
            Some(target) => put.execute(params![device.as_str(), text(target)])?,
            None => remove.execute([device.as_str()])?,
        };
    }
    Ok(())
}

fn swap_rollout(
    transaction: &Connection,
    id: RolloutId,
    current: Option<&RolloutState>,
    next: Option<&RolloutState>,
) -> Outcome<()> {
    let id = number(id.0);
    let Some(next) = next else {
        transaction.prepare_cached("DELETE FROM member WHERE rollout = ?1")?.execute([id])?;
        transaction.prepare_cached("DELETE FROM rollout_state WHERE rollout = ?1")?.execute([id])?;
        return Ok(());
    };
    let head = Head::of(next);
    if current.map(Head::of).as_ref() != Some(&head) {
        let sql = "INSERT OR REPLACE INTO rollout_state VALUES (?1, ?2)";
        transaction.prepare_cached(sql)?.execute(params![id, text(&head)])?;
    }
    let none = BTreeMap::new();
    let members = current.map_or(&none, |current| &current.members);
    let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO member VALUES (?1, ?2, ?3)")?;
    let mut remove = transaction.prepare_cached("DELETE FROM member WHERE rollout = ?1 AND device = ?2")?;
    for (device, _, member) in differences(members, &next.members, Member::eq) {
        match member {
            Some(member) => put.execute(params![id, device.as_str(), text(member)])?,
            None => remove.execute(params![id, device.as_str()])?,
        };
    }
    Ok(())
}

/// What is in one map and not in the other, or not the same there, in one walk over both.
fn differences<'a, K: Ord, V>(
    current: &'a BTreeMap<K, V>,
    next: &'a BTreeMap<K, V>,
    is_same: impl Fn(&V, &V) -> bool + 'a,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let (mut current, mut next) = (current.iter().peekable(), next.iter().peekable());
    iter::from_fn(move || {
        loop {
            let order = match (current.peek(), next.peek()) {
                (Some((before, _)), Some((after, _))) => before.cmp(after),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return None,
            };
            let before = current.next_if(|_| order.is_le());
            let after = next.next_if(|_| order.is_ge());
            let (key, _) = before.or(after)?;
            let (before, after) = (before.map(|(_, before)| before), after.map(|(_, after)| after));
            if !before.zip(after).is_some_and(|(before, after)| is_same(before, after)) {
                return Some((key, before, after));
            }
        }
    })
}
