//! Who may do what.

use std::fmt;

use revoada_core::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Actor, Result};

/// What a person or a program may do. Each may do what the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Viewer,
    /// Deploy, and command devices.
    Operator,
    /// Enrol devices, and decide who may what.
    Admin,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// A person.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub role: Role,
    /// Argon2, in PHC form.
    pub password_hash: String,
    pub is_disabled: bool,
    pub created_at: Timestamp,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, role, is_disabled, .. } = self;
        write!(f, "User {{ name: {name:?}, role: {role:?}, password_hash: ***, is_disabled: {is_disabled} }}")
    }
}

/// What a program shows instead of a password. Nothing but its hash is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// SHA-256 of the secret.
    pub hash: Digest,
    pub name: String,
    pub role: Role,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub last_used: Option<Timestamp>,
}

/// A browser in which somebody is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserSession {
    /// SHA-256 of the cookie.
    pub hash: Digest,
    pub user: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// Users, tokens and sessions. The last administrator who is not disabled cannot be removed, disabled or given another role.
pub trait People {
    /// By name.
    fn users(&self) -> Result<Vec<User>>;

    fn user(&self, name: &str) -> Result<Option<User>>;

    fn add_user(&self, user: &User, by: &Actor, now: Timestamp) -> Result<()>;

    fn set_role(&self, name: &str, role: Role, by: &Actor, now: Timestamp) -> Result<()>;

    /// Ends the user's sessions.
    fn set_password(&self, name: &str, password_hash: &str, by: &Actor, now: Timestamp) -> Result<()>;

    /// Ends the user's sessions.
    fn set_disabled(&self, name: &str, is_disabled: bool, by: &Actor, now: Timestamp) -> Result<()>;

    /// Removes a user with the sessions. Whether there was one.
    fn remove_user(&self, name: &str, by: &Actor, now: Timestamp) -> Result<bool>;

    fn add_api_token(&self, token: &ApiToken, by: &Actor, now: Timestamp) -> Result<()>;

    /// Also those that are expired, by name.
    fn api_tokens(&self) -> Result<Vec<ApiToken>>;

    /// One that is not expired.
    fn api_token(&self, hash: &Digest, now: Timestamp) -> Result<Option<ApiToken>>;

    /// Notes that tokens were used. Times never go back.
    fn record_token_uses(&self, uses: &[(Digest, Timestamp)]) -> Result<()>;

    /// Whether there was one of this name.
    fn remove_api_token(&self, name: &str, by: &Actor, now: Timestamp) -> Result<bool>;

    fn add_browser_session(&self, session: &BrowserSession) -> Result<()>;

    /// One that is not expired, of a user who is not disabled, and who that is.
    fn browser_session(&self, hash: &Digest, now: Timestamp) -> Result<Option<(BrowserSession, User)>>;

    /// Whether there was one.
    fn end_browser_session(&self, hash: &Digest) -> Result<bool>;

    /// Removes those that are expired. How many there were.
    fn forget_browser_sessions(&self, now: Timestamp) -> Result<usize>;
}
