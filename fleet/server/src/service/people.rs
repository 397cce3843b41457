//! Who is who, and what they may.

use std::net::IpAddr;
use std::time::Duration;

use revoada_bundle::hash;
use revoada_core::{Digest, Timestamp};
use revoada_proto::EnrolmentToken;

use super::password::{hash_of_secret, hash_password, is_password, random, secret};
use super::{Fleet, Principal, Result, ServiceError, now};
use crate::store::{
    self, Actor, ApiToken, AuditCheck, AuditEntry, BrowserSession, NAME_BYTES_MAX, Page, Role, TokenScope, User,
};

/// A day at work.
const SESSION_VALIDITY: Duration = Duration::from_hours(12);
const ENROLMENT_VALIDITY_MAX: Duration = Duration::from_hours(366 * 24);
/// What API tokens begin with, so that a leaked one is known for what it is.
const API_TOKEN_PREFIX: &str = "rvf_";

/// Somebody in a browser.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub principal: Principal,
    pub user: String,
    /// What the browser shows: the session's secret.
    pub cookie: String,
    pub expires_at: Timestamp,
}

impl Fleet {
    /// Signs somebody in from an address.
    pub fn sign_in(&self, name: &str, password: &str, from: IpAddr) -> Result<SignedIn> {
        let now = now();
        let user = self.check_password(name, password, from, now)?;
        let cookie = secret()?;
        let expires_at = now + SESSION_VALIDITY;
        let session =
            BrowserSession { hash: hash_of_secret(&cookie), user: user.name.clone(), created_at: now, expires_at };
        self.store.add_browser_session(&session)?;
        let actor = Actor::User(user.name.clone());
        self.store.note(&actor, "sign-in", &user.name, &serde_json::json!({ "from": from }), now)?;
        Ok(SignedIn { principal: Principal { actor, role: user.role }, user: user.name, cookie, expires_at })
    }

    fn check_password(&self, name: &str, password: &str, from: IpAddr, now: Timestamp) -> Result<User> {
        let shortened: String = name.chars().take(NAME_BYTES_MAX).collect();
        let keys = [format!("user {shortened}"), format!("address {from}")];
        if let Some(wait) = self.sign_ins.wait(&keys, now) {
            return Err(ServiceError::TooMany { wait });
        }
        // Counted before it is known to be wrong: a thousand guesses at once are not free.
        self.sign_ins.failed(&keys, now);
        let user = self.store.user(name)?.filter(|user| !user.is_disabled);
        if !is_password(password, user.as_ref().map(|user| user.password_hash.as_str())) {
            self.count(|counts| counts.sign_ins_failed += 1);
            tracing::warn!(%from, "somebody failed to sign in");
            return Err(ServiceError::SignIn);
        }
        self.sign_ins.succeeded(&keys);
        user.ok_or(ServiceError::SignIn)
    }

    /// Who a browser's cookie belongs to.
    pub fn session(&self, cookie: &str) -> Result<SignedIn> {
        let found = self.store.browser_session(&hash_of_secret(cookie), now())?;
        let (session, user) = found.ok_or(ServiceError::Unknown)?;
        let principal = Principal { actor: Actor::User(user.name.clone()), role: user.role };
        Ok(SignedIn { principal, user: user.name, cookie: cookie.to_owned(), expires_at: session.expires_at })
    }

    pub fn sign_out(&self, cookie: &str) -> Result<()> {
        self.store.end_browser_session(&hash_of_secret(cookie))?;
        Ok(())
    }

    /// Who an API token belongs to. A secret of 256 bits is not guessed, so that wrong ones are not slowed down.
    pub fn token(&self, text: &str) -> Result<Principal> {
        let now = now();
        let hash = hash_of_secret(text);
        let token = self.store.api_token(&hash, now)?.ok_or(ServiceError::Unknown)?;
        // Once a minute is enough to know which are in use.
        if token.last_used.is_none_or(|used| now.since(used) > Duration::from_mins(1)) {
            self.store.record_token_uses(&[(hash, now)])?;
        }
        Ok(Principal { actor: Actor::Token(token.name), role: token.role })
    }

    /// Makes an API token, whose text is told this once.
    pub fn add_api_token(
        &self,
        by: &Principal,
        name: &str,
        role: Role,
        expires_at: Option<Timestamp>,
    ) -> Result<String> {
        by.require(Role::Admin)?;
        check_name(name)?;
        let (text, now) = (format!("{API_TOKEN_PREFIX}{}", secret()?), now());
        let hash = hash_of_secret(&text);
        let token = ApiToken { hash, name: name.to_owned(), role, created_at: now, expires_at, last_used: None };
        self.store.add_api_token(&token, &by.actor, now)?;
        Ok(text)
    }

    pub fn api_tokens(&self, by: &Principal) -> Result<Vec<ApiToken>> {
        by.require(Role::Admin)?;
        Ok(self.store.api_tokens()?)
    }

    pub fn remove_api_token(&self, by: &Principal, name: &str) -> Result<()> {
        by.require(Role::Admin)?;
        found(self.store.remove_api_token(name, &by.actor, now())?, "token", name)
    }

    pub fn users(&self, by: &Principal) -> Result<Vec<User>> {
        by.require(Role::Admin)?;
        Ok(self.store.users()?)
    }

    pub fn add_user(&self, by: &Principal, name: &str, role: Role, password: &str) -> Result<()> {
        by.require(Role::Admin)?;
        check_name(name)?;
        let (password_hash, now) = (hash_password(password)?, now());
        let user = User { name: name.to_owned(), role, password_hash, is_disabled: false, created_at: now };
        Ok(self.store.add_user(&user, &by.actor, now)?)
    }

    pub fn set_role(&self, by: &Principal, name: &str, role: Role) -> Result<()> {
        by.require(Role::Admin)?;
        Ok(self.store.set_role(name, role, &by.actor, now())?)
    }

    /// An administrator changes anybody's password, everybody else their own.
    pub fn set_password(&self, by: &Principal, name: &str, password: &str) -> Result<()> {
        if by.actor != Actor::User(name.to_owned()) {
            by.require(Role::Admin)?;
        }
        Ok(self.store.set_password(name, &hash_password(password)?, &by.actor, now())?)
    }

    pub fn set_disabled(&self, by: &Principal, name: &str, is_disabled: bool) -> Result<()> {
        by.require(Role::Admin)?;
        Ok(self.store.set_disabled(name, is_disabled, &by.actor, now())?)
    }

    pub fn remove_user(&self, by: &Principal, name: &str) -> Result<()> {
        by.require(Role::Admin)?;
        found(self.store.remove_user(name, &by.actor, now())?, "user", name)
    }

    /// Makes an enrolment token, whose secret is told this once. `root` is the SHA-256 of the authority's certificate.
    pub fn add_enrolment_token(
        &self,
        by: &Principal,
        name: &str,
        scope: TokenScope,
        uses: u32,
        valid_for: Duration,
        root: Digest,
    ) -> Result<EnrolmentToken> {
        by.require(Role::Admin)?;
        check_name(name)?;
        if uses == 0 || valid_for.is_zero() || valid_for > ENROLMENT_VALIDITY_MAX {
            return Err(ServiceError::Invalid(
                "an enrolment token is good for at least one use, and for at most a year".to_owned(),
            ));
        }
        let (token, now) = (EnrolmentToken::new(random()?, root), now());
        let kept = store::EnrolmentToken {
            hash: hash(token.secret()),
            name: name.to_owned(),
            scope,
            uses_left: uses,
            created_at: now,
            expires_at: now + valid_for,
        };
        self.store.add_enrolment_token(&kept, &by.actor, now)?;
        Ok(token)
    }

    pub fn enrolment_tokens(&self, by: &Principal) -> Result<Vec<store::EnrolmentToken>> {
        by.require(Role::Admin)?;
        Ok(self.store.enrolment_tokens()?)
    }

    pub fn remove_enrolment_token(&self, by: &Principal, name: &str) -> Result<()> {
        by.require(Role::Admin)?;
        found(self.store.remove_enrolment_token(name, &by.actor, now())?, "enrolment token", name)
    }

    pub fn audit(&self, by: &Principal, page: Page) -> Result<Vec<AuditEntry>> {
        by.require(Role::Operator)?;
        Ok(self.store.audit(page)?)
    }

    pub fn verify_audit(&self, by: &Principal) -> Result<AuditCheck> {
        by.require(Role::Admin)?;
        Ok(self.store.verify_audit()?)
    }
}

/// Names of users and tokens are seen by others, and part of addresses.
pub(super) fn check_name(name: &str) -> Result<()> {
    let is_right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if (1..=64).contains(&name.len()) && name.chars().all(is_right) {
        return Ok(());
    }
    let shortened: String = name.chars().take(64).collect();
    Err(ServiceError::Invalid(format!(
        "a name has 1 to 64 letters, digits, `-`, `_`, `.` and `@`, unlike `{shortened}`"
    )))
}

fn found(found: bool, what: &'static str, name: &str) -> Result<()> {
    if found { Ok(()) } else { Err(ServiceError::Missing { what, name: name.to_owned() }) }
}
