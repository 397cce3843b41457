//! Certificates, enrolment tokens and registered keys.

use std::collections::BTreeSet;

use revoada_core::{Digest, Timestamp};
use revoada_proto::DeviceId;
use rusqlite::{Connection, Row, params};
use serde_json::json;

use super::value::{Hash, Json, Text, Time, json as text, time};
use super::{Outcome, Sqlite, all, audit, one};
use crate::store::{
    Actor, Certificate, EnrolmentToken, Identity, NAME_BYTES_MAX, RegisteredKey, Result, StoreError, Taken, TokenScope,
};

fn certificate(row: &Row<'_>) -> rusqlite::Result<Certificate> {
    Ok(Certificate {
        serial: row.get(0)?,
        device: row.get::<_, Text<_>>(1)?.0,
        issued_at: row.get::<_, Time>(2)?.0,
        not_after: row.get::<_, Time>(3)?.0,
        revoked_at: row.get::<_, Option<Time>>(4)?.map(|at| at.0),
    })
}

const CERTIFICATE: &str = "SELECT serial, device, issued_at, not_after, revoked_at FROM certificate";

fn token(row: &Row<'_>) -> rusqlite::Result<EnrolmentToken> {
    Ok(EnrolmentToken {
        hash: row.get::<_, Hash>(0)?.0,
        name: row.get(1)?,
        scope: row.get::<_, Json<_>>(2)?.0,
        uses_left: row.get(3)?,
        created_at: row.get::<_, Time>(4)?.0,
        expires_at: row.get::<_, Time>(5)?.0,
    })
}

const TOKEN: &str = "SELECT hash, name, scope, uses_left, created_at, expires_at FROM enrolment_token";

/// How many certificates of a device were not revoked before.
pub(super) fn revoke_all(transaction: &Connection, device: &DeviceId, now: Timestamp) -> Outcome<usize> {
    let sql = "UPDATE certificate SET revoked_at = ?2 WHERE device = ?1 AND revoked_at IS NULL";
    Ok(transaction.execute(sql, params![device.as_str(), time(now)])?)
}

impl Identity for Sqlite {
    fn add_certificate(&self, certificate: &Certificate, by: &Actor, now: Timestamp) -> Result<()> {
        let Certificate { serial, device, issued_at, not_after, revoked_at } = certificate;
        if serial.len() > NAME_BYTES_MAX {
            return Err(StoreError::TooMany { what: "digits of a serial", max: NAME_BYTES_MAX });
        }
        self.write("keep a certificate", |transaction| {
            let added = transaction
                .prepare_cached("INSERT INTO certificate VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (serial) DO NOTHING")?
                .execute(params![serial, device.as_str(), time(*issued_at), time(*not_after), revoked_at.map(time)])?;
            if added == 0 {
                return Err(StoreError::Exists { what: "certificate", name: serial.clone() }.into());
            }
            let details = json!({ "device": device });
            audit::append(transaction, by, "issue-certificate", serial, &details, now)
        })
    }

    fn certificate(&self, serial: &str) -> Result<Option<Certificate>> {
        self.read("read a certificate", |reader| {
            let sql = format!("{CERTIFICATE} WHERE serial = ?1");
            one(reader, &sql, [serial], certificate)
        })
    }

    fn certificates(&self, device: &DeviceId) -> Result<Vec<Certificate>> {
        self.read("read the certificates of a device", |reader| {
            let sql = format!("{CERTIFICATE} WHERE device = ?1 ORDER BY issued_at DESC, serial");
            all(reader, &sql, [device.as_str()], certificate)
        })
    }

    fn revoke_certificate(&self, serial: &str, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("revoke a certificate", |transaction| {
            let sql = "UPDATE certificate SET revoked_at = ?2 WHERE serial = ?1 AND revoked_at IS NULL";
            let revoked = transaction.execute(sql, params![serial, time(now)])? == 1;
            if revoked {
                audit::append(transaction, by, "revoke-certificate", serial, &json!({}), now)?;
            }
            Ok(revoked)
        })
    }

    fn revoke_device(&self, device: &DeviceId, by: &Actor, now: Timestamp) -> Result<usize> {
        self.write("revoke the certificates of a device", |transaction| {
            let revoked = revoke_all(transaction, device, now)?;
            if revoked > 0 {
                let details = json!({ "certificates": revoked });
                audit::append(transaction, by, "revoke-device", device.as_str(), &details, now)?;
            }
            Ok(revoked)
        })
    }

    fn revoked_serials(&self) -> Result<BTreeSet<String>> {
        self.read("read the revoked certificates", |reader| {
            let sql = "SELECT serial FROM certificate WHERE revoked_at IS NOT NULL";
            all(reader, sql, [], |row| row.get(0))
        })
    }

    fn forget_certificates(&self, expired_before: Timestamp) -> Result<usize> {
        self.write("forget expired certificates", |transaction| {
            Ok(transaction.execute("DELETE FROM certificate WHERE not_after < ?1", [time(expired_before)])?)
        })
    }

    fn add_enrolment_token(&self, token: &EnrolmentToken, by: &Actor, now: Timestamp) -> Result<()> {
        let EnrolmentToken { hash, name, scope, uses_left, created_at, expires_at } = token;
        if name.len() > NAME_BYTES_MAX {
            return Err(StoreError::TooMany { what: "bytes of a token's name", max: NAME_BYTES_MAX });
        }
        self.write("add an enrolment token", |transaction| {
            let added = transaction
                .prepare_cached("INSERT INTO enrolment_token VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING")?
                .execute(params![
                    hash.as_bytes(),
                    name,
                    text(scope),
                    uses_left,
                    time(*created_at),
                    time(*expires_at)
                ])?;
            if added == 0 {
                return Err(StoreError::Exists { what: "enrolment token", name: name.clone() }.into());
            }
            let details = json!({ "scope": scope, "uses": uses_left });
            audit::append(transaction, by, "add-enrolment-token", name, &details, now)
        })
    }

    fn enrolment_tokens(&self) -> Result<Vec<EnrolmentToken>> {
        self.read("read the enrolment tokens", |reader| {
            let sql = format!("{TOKEN} ORDER BY created_at DESC, name");
            all(reader, &sql, [], token)
        })
    }

    fn remove_enrolment_token(&self, name: &str, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("remove an enrolment token", |transaction| {
            let removed = transaction.execute("DELETE FROM enrolment_token WHERE name = ?1", [name])? == 1;
            if removed {
                audit::append(transaction, by, "remove-enrolment-token", name, &json!({}), now)?;
            }
            Ok(removed)
        })
    }

    fn take_token(&self, hash: &Digest, device: &DeviceId, now: Timestamp) -> Result<Taken> {
        self.write("take an enrolment token", |transaction| {
            let sql = format!("{TOKEN} WHERE hash = ?1");
            let found = one(transaction, &sql, [hash.as_bytes()], token)?;
            let Some(token) = found else { return Ok(Taken::Unknown) };
            if token.expires_at <= now {
                return Ok(Taken::Expired);
            }
            if !TokenScope::has(&token.scope, device) {
                return Ok(Taken::OtherDevice);
            }
            if token.uses_left == 0 {
                return Ok(Taken::UsedUp);
            }
            let sql = "UPDATE enrolment_token SET uses_left = uses_left - 1 WHERE hash = ?1";
            transaction.execute(sql, [hash.as_bytes()])?;
            let details = json!({ "device": device });
            audit::append(transaction, &Actor::Service, "take-enrolment-token", &token.name, &details, now)?;
            Ok(Taken::Granted)
        })
    }

    fn register_key(&self, spki: &Digest, device: &DeviceId, by: &Actor, now: Timestamp) -> Result<()> {
        self.write("register a key", |transaction| {
            let added = transaction
                .prepare_cached("INSERT INTO registered_key VALUES (?1, ?2, ?3) ON CONFLICT (spki) DO NOTHING")?
                .execute(params![spki.as_bytes(), device.as_str(), time(now)])?;
            if added == 0 {
                return Err(StoreError::Exists { what: "key", name: spki.to_string() }.into());
            }
            audit::append(transaction, by, "register-key", &spki.to_string(), &json!({ "device": device }), now)
        })
    }

    fn registered_key(&self, spki: &Digest) -> Result<Option<DeviceId>> {
        self.read("read a registered key", |reader| {
            let sql = "SELECT device FROM registered_key WHERE spki = ?1";
            let found = one(reader, sql, [spki.as_bytes()], |row| row.get::<_, Text<_>>(0))?;
            Ok(found.map(|device| device.0))
        })
    }

    fn registered_keys(&self) -> Result<Vec<RegisteredKey>> {
        self.read("read the registered keys", |reader| {
            let key = |row: &Row<'_>| {
                Ok(RegisteredKey {
                    spki: row.get::<_, Hash>(0)?.0,
                    device: row.get::<_, Text<_>>(1)?.0,
                    created_at: row.get::<_, Time>(2)?.0,
                })
            };
            let sql = "SELECT spki, device, created_at FROM registered_key ORDER BY device, spki";
            all(reader, sql, [], key)
        })
    }

    fn remove_key(&self, spki: &Digest, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("remove a registered key", |transaction| {
            let removed = transaction.execute("DELETE FROM registered_key WHERE spki = ?1", [spki.as_bytes()])? == 1;
            if removed {
                audit::append(transaction, by, "remove-key", &spki.to_string(), &json!({}), now)?;
            }
            Ok(removed)
        })
    }
}
