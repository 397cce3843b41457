//! Users, API tokens and browser sessions.

use revoada_core::{Digest, Timestamp};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, Row, params};
use serde_json::json;

use super::value::{Hash, Time, time};
use super::{Outcome, Sqlite, all, audit, one};
use crate::store::{Actor, ApiToken, BrowserSession, NAME_BYTES_MAX, People, Result, Role, StoreError, User};

struct RoleText(Role);

impl FromSql for RoleText {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let name = value.as_str()?;
        let roles = [Role::Viewer, Role::Operator, Role::Admin];
        roles.into_iter().find(|role| role.name() == name).map(Self).ok_or(FromSqlError::InvalidType)
    }
}

const USER: &str = "SELECT user.name, user.role, user.password_hash, user.is_disabled, user.created_at FROM user";

fn user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        name: row.get(0)?,
        role: row.get::<_, RoleText>(1)?.0,
        password_hash: row.get(2)?,
        is_disabled: row.get(3)?,
        created_at: row.get::<_, Time>(4)?.0,
    })
}

const API_TOKEN: &str = "SELECT hash, name, role, created_at, expires_at, last_used FROM api_token";

fn api_token(row: &Row<'_>) -> rusqlite::Result<ApiToken> {
    Ok(ApiToken {
        hash: row.get::<_, Hash>(0)?.0,
        name: row.get(1)?,
        role: row.get::<_, RoleText>(2)?.0,
        created_at: row.get::<_, Time>(3)?.0,
        expires_at: row.get::<_, Option<Time>>(4)?.map(|at| at.0),
        last_used: row.get::<_, Option<Time>>(5)?.map(|at| at.0),
    })
}

fn find_user(connection: &Connection, name: &str) -> Outcome<Option<User>> {
    one(connection, &format!("{USER} WHERE name = ?1"), [name], user)
}

fn known_user(connection: &Connection, name: &str) -> Outcome<User> {
    find_user(connection, name)?.ok_or_else(|| StoreError::Missing { what: "user", name: name.to_owned() }.into())
}

/// Refuses to lose the last one who can let others in, where `name` was that before the change.
fn check_administrators(transaction: &Connection, before: &User) -> Outcome<()> {
    let sql = "SELECT 1 FROM user WHERE role = 'admin' AND NOT is_disabled";
    let was_one = before.role == Role::Admin && !before.is_disabled;
    match !was_one || transaction.prepare_cached(sql)?.exists([])? {
        true => Ok(()),
        false => Err(StoreError::LastAdministrator { name: before.name.clone() }.into()),
    }
}

fn end_sessions(transaction: &Connection, user: &str) -> Outcome<()> {
    transaction.execute("DELETE FROM browser_session WHERE user = ?1", [user])?;
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    match name.len() > NAME_BYTES_MAX {
        true => Err(StoreError::TooMany { what: "bytes of a name", max: NAME_BYTES_MAX }),
        false => Ok(()),
    }
}

impl People for Sqlite {
    fn users(&self) -> Result<Vec<User>> {
        self.read("read the users", |reader| all(reader, &format!("{USER} ORDER BY name"), [], user))
    }

    fn user(&self, name: &str) -> Result<Option<User>> {
        self.read("read a user", |reader| find_user(reader, name))
    }

    fn add_user(&self, user: &User, by: &Actor, now: Timestamp) -> Result<()> {
        let User { name, role, password_hash, is_disabled, created_at } = user;
        check_name(name)?;
        self.write("add a user", |transaction| {
            let sql = "INSERT INTO user VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO NOTHING";
            let values = params![name, role.name(), password_hash, is_disabled, time(*created_at)];
            if transaction.execute(sql, values)? == 0 {
                return Err(StoreError::Exists { what: "user", name: name.clone() }.into());
            }
            audit::append(transaction, by, "add-user", name, &json!({ "role": role }), now)
        })
    }

    fn set_role(&self, name: &str, role: Role, by: &Actor, now: Timestamp) -> Result<()> {
        self.write("change the role of a user", |transaction| {
            let before = known_user(transaction, name)?;
            transaction.execute("UPDATE user SET role = ?2 WHERE name = ?1", [name, role.name()])?;
            check_administrators(transaction, &before)?;
            audit::append(transaction, by, "set-role", name, &json!({ "role": role }), now)
        })
    }

    fn set_password(&self, name: &str, password_hash: &str, by: &Actor, now: Timestamp) -> Result<()> {
        self.write("change the password of a user", |transaction| {
            known_user(transaction, name)?;
            transaction.execute("UPDATE user SET password_hash = ?2 WHERE name = ?1", [name, password_hash])?;
            end_sessions(transaction, name)?;
            audit::append(transaction, by, "set-password", name, &json!({}), now)
        })
    }

    fn set_disabled(&self, name: &str, is_disabled: bool, by: &Actor, now: Timestamp) -> Result<()> {
        self.write("disable or enable a user", |transaction| {
            let before = known_user(transaction, name)?;
            transaction.execute("UPDATE user SET is_disabled = ?2 WHERE name = ?1", params![name, is_disabled])?;
            check_administrators(transaction, &before)?;
            end_sessions(transaction, name)?;
            audit::append(transaction, by, "set-disabled", name, &json!({ "is-disabled": is_disabled }), now)
        })
    }

    fn remove_user(&self, name: &str, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("remove a user", |transaction| {
            let Some(before) = find_user(transaction, name)? else { return Ok(false) };
            transaction.execute("DELETE FROM user WHERE name = ?1", [name])?;
            check_administrators(transaction, &before)?;
            audit::append(transaction, by, "remove-user", name, &json!({}), now)?;
            Ok(true)
        })
    }

    fn add_api_token(&self, token: &ApiToken, by: &Actor, now: Timestamp) -> Result<()> {
        let ApiToken { hash, name, role, created_at, expires_at, last_used } = token;
        check_name(name)?;
        self.write("add an API token", |transaction| {
            let sql = "INSERT INTO api_token VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
            let (expires_at, last_used) = (expires_at.map(time), last_used.map(time));
            let values = params![hash.as_bytes(), name, role.name(), time(*created_at), expires_at, last_used];
            if transaction.execute(sql, values)? == 0 {
                return Err(StoreError::Exists { what: "API token", name: name.clone() }.into());
            }
            audit::append(transaction, by, "add-api-token", name, &json!({ "role": role }), now)
        })
    }

    fn api_tokens(&self) -> Result<Vec<ApiToken>> {
        self.read("read the API tokens", |reader| {
            let sql = format!("{API_TOKEN} ORDER BY name");
            all(reader, &sql, [], api_token)
        })
    }

    fn api_token(&self, hash: &Digest, now: Timestamp) -> Result<Option<ApiToken>> {
        self.read("read an API token", |reader| {
            let sql = format!("{API_TOKEN} WHERE hash = ?1 AND (expires_at IS NULL OR expires_at > ?2)");
            let values = params![hash.as_bytes(), time(now)];
            one(reader, &sql, values, api_token)
        })
    }

    fn record_token_uses(&self, uses: &[(Digest, Timestamp)]) -> Result<()> {
        self.write("note that API tokens were used", |transaction| {
            let sql = "UPDATE api_token SET last_used = max(coalesce(last_used, 0), ?2) WHERE hash = ?1";
            let mut note = transaction.prepare_cached(sql)?;
            for (hash, at) in uses {
                note.execute(params![hash.as_bytes(), time(*at)])?;
            }
            Ok(())
        })
    }

    fn remove_api_token(&self, name: &str, by: &Actor, now: Timestamp) -> Result<bool> {
        self.write("remove an API token", |transaction| {
            let removed = transaction.execute("DELETE FROM api_token WHERE name = ?1", [name])? == 1;
            if removed {
                audit::append(transaction, by, "remove-api-token", name, &json!({}), now)?;
            }
            Ok(removed)
        })
    }

    fn add_browser_session(&self, session: &BrowserSession) -> Result<()> {
        let BrowserSession { hash, user, created_at, expires_at } = session;
        self.write("begin a browser session", |transaction| {
            known_user(transaction, user)?;
            let sql = "INSERT INTO browser_session VALUES (?1, ?2, ?3, ?4) ON CONFLICT (hash) DO NOTHING";
            let values = params![hash.as_bytes(), user, time(*created_at), time(*expires_at)];
            match transaction.execute(sql, values)? {
                0 => Err(StoreError::Exists { what: "browser session", name: hash.short() }.into()),
                _ => Ok(()),
            }
        })
    }

    fn browser_session(&self, hash: &Digest, now: Timestamp) -> Result<Option<(BrowserSession, User)>> {
        self.read("read a browser session", |reader| {
            let session = |row: &Row<'_>| {
                Ok(BrowserSession {
                    hash: row.get::<_, Hash>(0)?.0,
                    user: row.get(1)?,
                    created_at: row.get::<_, Time>(2)?.0,
                    expires_at: row.get::<_, Time>(3)?.0,
                })
            };
            let sql =
                "SELECT hash, user, created_at, expires_at FROM browser_session WHERE hash = ?1 AND expires_at > ?2";
            let values = params![hash.as_bytes(), time(now)];
            let found = one(reader, sql, values, session)?;
            let Some(session) = found else { return Ok(None) };
            let user = find_user(reader, &session.user)?.filter(|user| !user.is_disabled);
            Ok(user.map(|user| (session, user)))
        })
    }

    fn end_browser_session(&self, hash: &Digest) -> Result<bool> {
        self.write("end a browser session", |transaction| {
            Ok(transaction.execute("DELETE FROM browser_session WHERE hash = ?1", [hash.as_bytes()])? == 1)
        })
    }

    fn forget_browser_sessions(&self, now: Timestamp) -> Result<usize> {
        self.write("forget expired browser sessions", |transaction| {
            Ok(transaction.execute("DELETE FROM browser_session WHERE expires_at <= ?1", [time(now)])?)
        })
    }
}
