//! Artefacts, plans and blobs.

use std::collections::BTreeMap;

use revoada_bundle::sign::Signature;
use revoada_core::{DeviceClass, Digest, Timestamp};
use revoada_proto::message::{class_from_json, class_to_json};
use revoada_proto::{Kind, Order};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, Row, params};
use serde_json::json;

use super::value::{Hash, Json, Number, Text, Time, count, json as text, number, time};
use super::{Outcome, Sqlite, all, audit, one, rollouts};
use crate::store::{
    Actor, Artefact, ArtefactFile, ArtefactVersion, BlobRecord, NAME_BYTES_MAX, PLANS_MAX, PlanRecord, Registry,
    Result, StoreError, TEXT_BYTES_MAX,
};

struct KindText(Kind);

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "model",
        Kind::Pipeline => "pipeline",
        Kind::Package => "package",
    }
}

impl FromSql for KindText {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let kinds = [Kind::Model, Kind::Pipeline, Kind::Package];
        let name = value.as_str()?;
        kinds.into_iter().find(|kind| kind_name(*kind) == name).map(Self).ok_or(FromSqlError::InvalidType)
    }
}

struct Class(DeviceClass);

impl FromSql for Class {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let class = class_from_json(value.as_str()?).map_err(FromSqlError::other)?;
        class.map(Self).ok_or(FromSqlError::InvalidType)
    }
}

fn artefact(row: &Row<'_>) -> rusqlite::Result<Artefact> {
    Ok(Artefact {
        kind: row.get::<_, KindText>(0)?.0,
        name: row.get(1)?,
        labels: row.get::<_, Json<_>>(2)?.0,
        description: row.get(3)?,
        licence: row.get(4)?,
        created_at: row.get::<_, Time>(5)?.0,
    })
}

const ARTEFACT: &str = "SELECT kind, name, labels, description, licence, created_at FROM artefact";

/// With its number, by which its files are found.
fn version(row: &Row<'_>) -> rusqlite::Result<(i64, ArtefactVersion)> {
    let version = ArtefactVersion {
        digest: row.get::<_, Hash>(1)?.0,
        kind: row.get::<_, KindText>(2)?.0,
        name: row.get(3)?,
        version: row.get(4)?,
        parents: row.get::<_, Json<_>>(5)?.0,
        lineage: row.get::<_, Json<_>>(6)?.0,
        reports: row.get::<_, Json<_>>(7)?.0,
        bytes: row.get::<_, Number>(8)?.0,
        files: BTreeMap::new(),
        signer: row.get::<_, Text<_>>(9)?.0,
        created_at: row.get::<_, Time>(10)?.0,
        created_by: row.get::<_, Json<_>>(11)?.0,
    };
    Ok((row.get(0)?, version))
}

const VERSION: &str =
    "SELECT number, digest, kind, name, version, parents, lineage, reports, bytes, signer, created_at, created_by
     FROM version";

fn with_files(connection: &Connection, (number, version): (i64, ArtefactVersion)) -> Outcome<ArtefactVersion> {
    let file = |row: &Row<'_>| {
        let file = ArtefactFile { digest: row.get::<_, Hash>(1)?.0, bytes: row.get::<_, Number>(2)?.0 };
        Ok((row.get(0)?, file))
    };
    let sql = "SELECT path, digest, bytes FROM version_file WHERE version = ?1";
    Ok(ArtefactVersion { files: all(connection, sql, [number], file)?, ..version })
}

fn plan(row: &Row<'_>) -> rusqlite::Result<PlanRecord> {
    Ok(PlanRecord {
        bundle: row.get::<_, Hash>(0)?.0,
        class: row.get::<_, Class>(1)?.0,
        digest: row.get::<_, Hash>(2)?.0,
        bytes: row.get::<_, Number>(3)?.0,
        builder: row.get::<_, Text<_>>(4)?.0,
        signer: row.get::<_, Text<_>>(5)?.0,
        latency_ms: row.get(6)?,
        created_at: row.get::<_, Time>(7)?.0,
    })
}

const PLAN: &str = "SELECT bundle, class, digest, bytes, builder, signer, latency_ms, created_at FROM plan";

fn blob(row: &Row<'_>) -> rusqlite::Result<BlobRecord> {
    let (digest, bytes) = (row.get::<_, Hash>(0)?.0, row.get::<_, Number>(1)?.0);
    Ok(BlobRecord { digest, bytes, created_at: row.get::<_, Time>(2)?.0 })
}

/// Blobs before a time that nothing refers to.
const UNUSED: &str = "blob.created_at < ?1
     AND NOT EXISTS (SELECT 1 FROM version WHERE version.digest = blob.digest)
     AND NOT EXISTS (SELECT 1 FROM version_file WHERE version_file.digest = blob.digest)
     AND NOT EXISTS (SELECT 1 FROM plan WHERE plan.digest = blob.digest)
     AND NOT EXISTS (SELECT 1 FROM command WHERE command.answer = blob.digest)
     AND NOT EXISTS (SELECT 1 FROM run_file WHERE run_file.digest = blob.digest)";

/// Refuses a blob that is not there.
pub(super) fn known_blob(connection: &Connection, digest: &Digest) -> Outcome<()> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM blob WHERE digest = ?1")?;
    match statement.exists([digest.as_bytes()])? {
        true => Ok(()),
        false => Err(StoreError::Missing { what: "blob", name: digest.to_string() }.into()),
    }
}

fn check_artefact(artefact: &Artefact) -> Result<()> {
    let too_many = |what, max| Err(StoreError::TooMany { what, max });
    if artefact.name.len() > NAME_BYTES_MAX {
        return too_many("bytes of an artefact's name", NAME_BYTES_MAX);
    }
    let labels: usize = artefact.labels.iter().map(String::len).sum();
    if artefact.description.len() > TEXT_BYTES_MAX || labels > TEXT_BYTES_MAX {
        return too_many("bytes of what is said of an artefact", TEXT_BYTES_MAX);
    }
    Ok(())
}

impl Registry for Sqlite {
    fn put_artefact(&self, artefact: &Artefact, by: &Actor, now: Timestamp) -> Result<()> {
        check_artefact(artefact)?;
        let Artefact { kind, name, labels, description, licence, created_at } = artefact;
        self.write("keep an artefact", |transaction| {
            let sql = "INSERT INTO artefact VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (kind, name) DO UPDATE SET
                       labels = excluded.labels, description = excluded.description, licence = excluded.licence";
            let values = params![kind_name(*kind), name, text(labels), description, licence, time(*created_at)];
            transaction.execute(sql, values)?;
            let details = json!({
                "kind": kind, "labels": labels, "description": description, "licence": licence,
            });
            audit::append(transaction, by, "put-artefact", name, &details, now)
        })
    }

    fn artefacts(&self) -> Result<Vec<Artefact>> {
        self.read("read the artefacts", |reader| {
            let sql = format!("{ARTEFACT} ORDER BY kind, name");
            all(reader, &sql, [], artefact)
        })
    }

    fn artefact(&self, kind: Kind, name: &str) -> Result<Option<Artefact>> {
        self.read("read an artefact", |reader| {
            let sql = format!("{ARTEFACT} WHERE kind = ?1 AND name = ?2");
            one(reader, &sql, [kind_name(kind), name], artefact)
        })
    }

    fn remove_artefact(&self, kind: Kind, name: &str, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("remove an artefact", |transaction| {
            let sql = "SELECT count(*) FROM version WHERE kind = ?1 AND name = ?2";
            let versions: u32 = transaction.query_row(sql, [kind_name(kind), name], |row| row.get(0))?;
            if versions > 0 {
                let by = format!("it has {versions} versions");
                return Err(StoreError::InUse { what: kind_name(kind), name: name.to_owned(), by }.into());
            }
            let sql = "DELETE FROM artefact WHERE kind = ?1 AND name = ?2";
            let removed = transaction.execute(sql, [kind_name(kind), name])? == 1;
            if removed {
                audit::append(transaction, by, "remove-artefact", name, &json!({ "kind": kind }), now)?;
            }
            Ok(removed)
        })
    }

    fn add_version(&self, version: &ArtefactVersion, signature: &Signature, now: Timestamp) -> Result<bool> {
        let ArtefactVersion { digest, kind, name, created_by, .. } = version;
        if version.version.len() > NAME_BYTES_MAX {
            return Err(StoreError::TooMany { what: "bytes of a version", max: NAME_BYTES_MAX });
        }
        self.write("add a version", |transaction| {
            let sql = "SELECT 1 FROM artefact WHERE kind = ?1 AND name = ?2";
            if !transaction.prepare_cached(sql)?.exists([kind_name(*kind), name])? {
                return Err(StoreError::Missing { what: kind_name(*kind), name: name.clone() }.into());
            }
            known_blob(transaction, digest)?;
            for file in version.files.values() {
                known_blob(transaction, &file.digest)?;
            }
            if transaction.prepare_cached("SELECT 1 FROM version WHERE digest = ?1")?.exists([digest.as_bytes()])? {
                return Ok(false);
            }
            if !insert_version(transaction, version, signature)? {
                let name = format!("{name} {}", version.version);
                return Err(StoreError::Exists { what: "version", name }.into());
            }
            let details =
                json!({ "kind": kind, "version": version.version, "digest": digest, "signer": version.signer });
            audit::append(transaction, created_by, "add-version", name, &details, now)?;
            Ok(true)
        })
    }

    fn versions(&self, kind: Kind, name: &str) -> Result<Vec<ArtefactVersion>> {
        self.read("read the versions of an artefact", |reader| {
            let sql = format!("{VERSION} WHERE kind = ?1 AND name = ?2 ORDER BY number DESC");
            let found: Vec<_> = all(reader, &sql, [kind_name(kind), name], version)?;
            found.into_iter().map(|found| with_files(reader, found)).collect()
        })
    }

    fn version(&self, digest: &Digest) -> Result<Option<ArtefactVersion>> {
        self.read("read a version", |reader| {
            let sql = format!("{VERSION} WHERE digest = ?1");
            let found = one(reader, &sql, [digest.as_bytes()], version)?;
            found.map(|found| with_files(reader, found)).transpose()
        })
    }

    fn remove_version(&self, digest: &Digest, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("remove a version", |transaction| {
            let sql = format!("{VERSION} WHERE digest = ?1");
            let found = one(transaction, &sql, [digest.as_bytes()], version)?;
            let Some((number, version)) = found else { return Ok(false) };
            if let Some(user) = user_of(transaction, digest)? {
                let name = format!("{} {}", version.name, version.version);
                return Err(StoreError::InUse { what: "version", name, by: user }.into());
            }
            transaction.execute("DELETE FROM version WHERE number = ?1", [number])?;
            let details = json!({ "kind": version.kind, "version": version.version, "digest": digest });
            audit::append(transaction, by, "remove-version", &version.name, &details, now)?;
            Ok(true)
        })
    }

    fn signature(&self, digest: &Digest) -> Result<Option<Signature>> {
        self.read("read a signature", |reader| {
            let sql = "SELECT signature FROM version WHERE digest = ?1";
            let found = one(reader, sql, [digest.as_bytes()], |row| row.get::<_, Json<_>>(0))?;
            Ok(found.map(|signature| signature.0))
        })
    }

    fn add_plan(&self, plan: &PlanRecord, now: Timestamp) -> Result<bool> {
        let class = class_to_json(&plan.class);
        self.write("keep a plan", |transaction| {
            known_blob(transaction, &plan.digest)?;
            let (bundle, digest) = (plan.bundle.as_bytes(), plan.digest.as_bytes());
            if !transaction.prepare_cached("SELECT 1 FROM version WHERE digest = ?1")?.exists([bundle])? {
                return Err(StoreError::Missing { what: "bundle", name: plan.bundle.to_string() }.into());
            }
            let added = transaction
                .prepare_cached(
                    "INSERT INTO plan (bundle, class, digest, bytes, builder, signer, latency_ms, created_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (digest) DO NOTHING",
                )?
                .execute(params![
                    bundle,
                    class,
                    digest,
                    number(plan.bytes),
                    plan.builder.as_str(),
                    plan.signer.to_string(),
                    plan.latency_ms.filter(|latency| latency.is_finite()),
                    time(plan.created_at)
                ])?;
            let sql = "DELETE FROM plan WHERE bundle = ?1 AND class = ?2 AND number <= (SELECT number FROM plan
                       WHERE bundle = ?1 AND class = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?3)";
            transaction.execute(sql, params![bundle, class, count(PLANS_MAX)])?;
            if added == 1 {
                let details = json!({ "plan": plan.digest, "class": plan.class, "builder": plan.builder });
                audit::append(transaction, &Actor::Service, "add-plan", &plan.bundle.to_string(), &details, now)?;
            }
            Ok(added == 1)
        })
    }

    fn plans(&self, bundle: &Digest, class: &DeviceClass) -> Result<Vec<PlanRecord>> {
        self.read("read plans", |reader| {
            let sql = format!("{PLAN} WHERE bundle = ?1 AND class = ?2 ORDER BY number DESC");
            let values = params![bundle.as_bytes(), class_to_json(class)];
            all(reader, &sql, values, plan)
        })
    }

    fn plans_of(&self, bundle: &Digest) -> Result<Vec<PlanRecord>> {
        self.read("read plans", |reader| {
            let sql = format!("{PLAN} WHERE bundle = ?1 ORDER BY number DESC");
            all(reader, &sql, [bundle.as_bytes()], plan)
        })
    }

    fn remove_plan(&self, digest: &Digest, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("remove a plan", |transaction| {
            let removed = transaction.execute("DELETE FROM plan WHERE digest = ?1", [digest.as_bytes()])? == 1;
            if removed {
                audit::append(transaction, by, "remove-plan", &digest.to_string(), &json!({}), now)?;
            }
            Ok(removed)
        })
    }

    fn add_blob(&self, digest: &Digest, bytes: u64, now: Timestamp) -> Result<()> {
        self.write("note a blob", |transaction| {
            let sql = "INSERT INTO blob VALUES (?1, ?2, ?3)
                       ON CONFLICT (digest) DO UPDATE SET created_at = max(created_at, excluded.created_at)";
            transaction.execute(sql, params![digest.as_bytes(), number(bytes), time(now)])?;
            Ok(())
        })
    }

    fn blob(&self, digest: &Digest) -> Result<Option<BlobRecord>> {
        self.read("read what is known of a blob", |reader| {
            let sql = "SELECT digest, bytes, created_at FROM blob WHERE digest = ?1";
            one(reader, sql, [digest.as_bytes()], blob)
        })
    }

    fn blob_bytes(&self) -> Result<u64> {
        self.read("count the bytes of blobs", |reader| {
            let sql = "SELECT coalesce(sum(bytes), 0) FROM blob";
            Ok(reader.query_row(sql, [], |row| row.get::<_, Number>(0))?.0)
        })
    }

    fn unused_blobs(&self, created_before: Timestamp) -> Result<Vec<BlobRecord>> {
        self.read("find unused blobs", |reader| {
            let sql = format!("SELECT digest, bytes, created_at FROM blob WHERE {UNUSED}");
            all(reader, &sql, [time(created_before)], blob)
        })
    }

    fn remove_unused_blob(&self, digest: &Digest, created_before: Timestamp) -> Result<bool> {
        self.write("forget a blob", |transaction| {
            let sql = format!("DELETE FROM blob WHERE {UNUSED} AND digest = ?2");
            Ok(transaction.execute(&sql, params![time(created_before), digest.as_bytes()])? == 1)
        })
    }
}

/// Whether no other version has its name and text.
fn insert_version(transaction: &Connection, version: &ArtefactVersion, signature: &Signature) -> Outcome<bool> {
    let added = transaction
        .prepare_cached(
            "INSERT INTO version (digest, kind, name, version, parents, lineage, reports, bytes, signer, signature,
             created_at, created_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (kind, name, version) DO NOTHING",
        )?
        .execute(params![
            version.digest.as_bytes(),
            kind_name(version.kind),
            version.name,
            version.version,
            text(&version.parents),
            text(&version.lineage),
            text(&version.reports),
            number(version.bytes),
            version.signer.to_string(),
            text(signature),
            time(version.created_at),
            text(&version.created_by)
        ])?;
    if added == 0 {
        return Ok(false);
    }
    let key = transaction.last_insert_rowid();
    let mut insert = transaction.prepare_cached("INSERT INTO version_file VALUES (?1, ?2, ?3, ?4)")?;
    for (path, file) in &version.files {
        insert.execute(params![key, path, file.digest.as_bytes(), number(file.bytes)])?;
    }
    Ok(true)
}

/// What a version cannot be taken from, for people.
fn user_of(transaction: &Connection, digest: &Digest) -> Outcome<Option<String>> {
    let wanted = rollouts::rollouts(transaction)?;
    if let Some((id, _)) = wanted.iter().find(|(_, (rollout, _))| rollout.deployable.digest == *digest) {
        return Ok(Some(format!("rollout {id} brings it")));
    }
    let mut statement = transaction.prepare_cached("SELECT device, target FROM target WHERE instr(target, ?1) > 0")?;
    let mut rows = statement.query([digest.hex()])?;
    while let Some(row) = rows.next()? {
        let order: Order = row.get::<_, Json<crate::planner::Target>>(1)?.0.order;
        if order.deployables.iter().any(|deployable| deployable.digest == *digest) {
            return Ok(Some(format!("device {} is to run it", row.get::<_, String>(0)?)));
        }
    }
    Ok(None)
}
