//! `/session`, `/users`, `/tokens`, `/enrolment-tokens` and `/audit`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use revoada_proto::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::{COOKIE, Caller, check_origin, cookie_of};
use super::{Api, PageQuery, Problem, Time};
use crate::service::{self, DurationText, SignedIn};
use crate::store::{AuditCheck, Role, TokenScope};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(sign_in, who, sign_out))
        .routes(routes!(users, add_user))
        .routes(routes!(change_user, remove_user))
        .routes(routes!(tokens, add_token))
        .routes(routes!(remove_token))
        .routes(routes!(enrolment_tokens, add_enrolment_token))
        .routes(routes!(remove_enrolment_token))
        .routes(routes!(audit))
        .routes(routes!(verify_audit))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignIn {
    name: String,
    password: String,
}

#[derive(Serialize, ToSchema)]
struct Who {
    /// `user anna`, `token ci`.
    who: String,
    role: &'static str,
}

impl Api {
    /// The header that has a browser keep a session, or forget it.
    pub(crate) fn set_cookie(&self, session: Option<&SignedIn>) -> HeaderValue {
        let (secret, seconds) = match session {
            Some(session) => (session.cookie.as_str(), session.expires_at.since(service::now()).as_secs()),
            None => ("", 0),
        };
        HeaderValue::try_from(cookie(secret, seconds, self.is_encrypted)).expect("a secret is hexadecimal digits")
    }
}

fn cookie(secret: &str, seconds: u64, is_encrypted: bool) -> String {
    let secure = if is_encrypted { "; Secure" } else { "" };
    format!("{COOKIE}={secret}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

/// Signs somebody in: the answer has a browser keep a cookie.
#[utoipa::path(post, path = "/session", tag = "people", request_body = SignIn, security(()), responses(
    (status = 200, body = Who), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
    (status = 429, body = Problem)))]
async fn sign_in(
    State(api): State<Api>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    form: Result<Json<SignIn>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(form) = form?;
    let session = signed_in(&api, form.name, form.password, from.ip()).await?;
    let who = Who { who: session.principal.actor.to_string(), role: session.principal.role.name() };
    Ok(([(header::SET_COOKIE, api.set_cookie(Some(&session)))], Json(who)).into_response())
}

pub(crate) async fn signed_in(api: &Api, name: String, password: String, from: IpAddr) -> Result<SignedIn, Problem> {
    api.ask(move |fleet| fleet.sign_in(&name, &password, from)).await
}

/// Who asks.
#[utoipa::path(get, path = "/session", tag = "people", responses(
    (status = 200, body = Who), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn who(Caller(by): Caller) -> Json<Who> {
    Json(Who { who: by.actor.to_string(), role: by.role.name() })
}

/// Signs out.
#[utoipa::path(delete, path = "/session", tag = "people", security(()), responses(
    (status = 204), (status = 403, body = Problem)))]
async fn sign_out(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    if let Some(cookie) = cookie_of(&headers) {
        check_origin(&axum::http::Method::DELETE, &headers)?;
        api.ask(move |fleet| fleet.sign_out(&cookie)).await?;
    }
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, api.set_cookie(None))]).into_response())
}

#[derive(Serialize, ToSchema)]
struct UserJson {
    name: String,
    role: &'static str,
    is_disabled: bool,
    created_at: Time,
}

/// All users.
#[utoipa::path(get, path = "/users", tag = "people", responses(
    (status = 200, body = Vec<UserJson>), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn users(State(api): State<Api>, Caller(by): Caller) -> Result<Json<Vec<UserJson>>, Problem> {
    let users = api.ask(move |fleet| fleet.users(&by)).await?.into_iter().map(|user| UserJson {
        name: user.name,
        role: user.role.name(),
        is_disabled: user.is_disabled,
        created_at: user.created_at.into(),
    });
    Ok(Json(users.collect()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    name: String,
    /// `viewer`, `operator` or `admin`.
    #[schema(value_type = String)]
    role: Role,
    /// At least 10 characters.
    password: String,
}

/// Adds a user.
#[utoipa::path(post, path = "/users", tag = "people", request_body = NewUser, responses(
    (status = 201), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 409, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
    (status = 422, body = Problem)))]
async fn add_user(
    State(api): State<Api>,
    Caller(by): Caller,
    user: Result<Json<NewUser>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let Json(user) = user?;
    api.ask(move |fleet| fleet.add_user(&by, &user.name, user.role, &user.password)).await?;
    Ok(StatusCode::CREATED)
}

/// What is not given stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserChange {
    #[schema(value_type = Option<String>)]
    role: Option<Role>,
    password: Option<String>,
    is_disabled: Option<bool>,
}

/// Changes a user. Everybody may change their own password.
#[utoipa::path(patch, path = "/users/{name}", tag = "people", params(("name" = String, Path)),
    request_body = UserChange, responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem),
    (status = 415, body = Problem), (status = 422, body = Problem)))]
async fn change_user(
    State(api): State<Api>,
    Caller(by): Caller,
    name: Result<Path<String>, PathRejection>,
    change: Result<Json<UserChange>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let (Path(name), Json(change)) = (name?, change?);
    api.ask(move |fleet| {
        if let Some(password) = &change.password {
            fleet.set_password(&by, &name, password)?;
        }
        if let Some(role) = change.role {
            fleet.set_role(&by, &name, role)?;
        }
        match change.is_disabled {
            Some(is_disabled) => fleet.set_disabled(&by, &name, is_disabled),
            None => Ok(()),
        }
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a user.
#[utoipa::path(delete, path = "/users/{name}", tag = "people", params(("name" = String, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove_user(
    State(api): State<Api>,
    Caller(by): Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(name) = name?;
    api.ask(move |fleet| fleet.remove_user(&by, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, ToSchema)]
struct TokenJson {
    name: String,
    role: &'static str,
    created_at: Time,
    expires_at: Option<Time>,
    last_used: Option<Time>,
}

/// All API tokens, without their texts.
#[utoipa::path(get, path = "/tokens", tag = "people", responses(
    (status = 200, body = Vec<TokenJson>), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn tokens(State(api): State<Api>, Caller(by): Caller) -> Result<Json<Vec<TokenJson>>, Problem> {
    let tokens = api.ask(move |fleet| fleet.api_tokens(&by)).await?.into_iter().map(|token| TokenJson {
        name: token.name,
        role: token.role.name(),
        created_at: token.created_at.into(),
        expires_at: token.expires_at.map(Time),
        last_used: token.last_used.map(Time),
    });
    Ok(Json(tokens.collect()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    /// `viewer`, `operator` or `admin`.
    #[schema(value_type = String)]
    role: Role,
    /// For how long; for ever where it is not given.
    #[schema(value_type = Option<String>, example = "90days")]
    valid_for: Option<DurationText>,
}

/// What is told once.
#[derive(Serialize, ToSchema)]
struct Told {
    token: String,
}

/// Makes an API token.
#[utoipa::path(post, path = "/tokens", tag = "people", request_body = NewToken, responses(
    (status = 201, body = Told), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem),
    (status = 415, body = Problem), (status = 422, body = Problem)))]
async fn add_token(
    State(api): State<Api>,
    Caller(by): Caller,
    token: Result<Json<NewToken>, JsonRejection>,
) -> Result<(StatusCode, Json<Told>), Problem> {
    let Json(token) = token?;
    let expires_at = token.valid_for.map(|valid_for| service::now() + valid_for.0);
    let told = api.ask(move |fleet| fleet.add_api_token(&by, &token.name, token.role, expires_at)).await?;
    Ok((StatusCode::CREATED, Json(Told { token: told })))
}

/// Makes an API token worth nothing.
#[utoipa::path(delete, path = "/tokens/{name}", tag = "people", params(("name" = String, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem)))]
async fn remove_token(
    State(api): State<Api>,
    Caller(by): Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(name) = name?;
    api.ask(move |fleet| fleet.remove_api_token(&by, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, ToSchema)]
struct EnrolmentTokenJson {
    name: String,
    /// For this device alone.
    device: Option<String>,
    /// For devices whose names begin so.
    prefix: Option<String>,
    uses_left: u32,
    created_at: Time,
    expires_at: Time,
}

/// All enrolment tokens, without their texts.
#[utoipa::path(get, path = "/enrolment-tokens", tag = "devices", responses(
    (status = 200, body = Vec<EnrolmentTokenJson>), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn enrolment_tokens(
    State(api): State<Api>,
    Caller(by): Caller,
) -> Result<Json<Vec<EnrolmentTokenJson>>, Problem> {
    let tokens = api.ask(move |fleet| fleet.enrolment_tokens(&by)).await?.into_iter().map(|token| {
        let (device, prefix) = match token.scope {
            TokenScope::Device(device) => (Some(device.to_string()), None),
            TokenScope::Prefix(prefix) => (None, Some(prefix)),
        };
        EnrolmentTokenJson {
            name: token.name,
            device,
            prefix,
            uses_left: token.uses_left,
            created_at: token.created_at.into(),
            expires_at: token.expires_at.into(),
        }
    });
    Ok(Json(tokens.collect()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewEnrolmentToken {
    name: String,
    /// For this device alone …
    #[schema(value_type = Option<String>)]
    device: Option<DeviceId>,
    /// … or for those whose names begin so; for any, where neither is given.
    prefix: Option<String>,
    /// How many devices may use it: 1 where it is not given.
    #[schema(minimum = 1)]
    uses: Option<u32>,
    /// For how long: a day where it is not given.
    #[schema(value_type = Option<String>, example = "24h")]
    valid_for: Option<DurationText>,
}

/// Makes a token with which devices enrol.
#[utoipa::path(post, path = "/enrolment-tokens", tag = "devices", request_body = NewEnrolmentToken, responses(
    (status = 201, body = Told), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem),
    (status = 415, body = Problem), (status = 422, body = Problem)))]
async fn add_enrolment_token(
    State(api): State<Api>,
    Caller(by): Caller,
    token: Result<Json<NewEnrolmentToken>, JsonRejection>,
) -> Result<(StatusCode, Json<Told>), Problem> {
    let Json(token) = token?;
    let scope = match (token.device, token.prefix) {
        (Some(device), None) => TokenScope::Device(device),
        (None, prefix) => TokenScope::Prefix(prefix.unwrap_or_default()),
        (Some(_), Some(_)) => {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "a token has a `device` or a `prefix`, not both",
            ));
        }
    };
    let valid_for = token.valid_for.map_or(Duration::from_hours(24), |valid_for| valid_for.0);
    let uses = token.uses.unwrap_or(1);
    let root = api.root;
    let add = move |fleet: &service::Fleet| fleet.add_enrolment_token(&by, &token.name, scope, uses, valid_for, root);
    let token = api.ask(add).await?;
    Ok((StatusCode::CREATED, Json(Told { token: token.text() })))
}

/// Makes an enrolment token worth nothing.
#[utoipa::path(delete, path = "/enrolment-tokens/{name}", tag = "devices", params(("name" = String, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem)))]
async fn remove_enrolment_token(
    State(api): State<Api>,
    Caller(by): Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(name) = name?;
    api.ask(move |fleet| fleet.remove_enrolment_token(&by, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, ToSchema)]
struct AuditJson {
    number: u64,
    at: Time,
    by: String,
    action: String,
    subject: String,
    #[schema(value_type = serde_json::Value)]
    details: serde_json::Value,
    digest: String,
}

/// Who changed what, the newest first.
#[utoipa::path(get, path = "/audit", tag = "audit", params(PageQuery), responses(
    (status = 200, body = Vec<AuditJson>), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem)))]
async fn audit(
    State(api): State<Api>,
    Caller(by): Caller,
    page: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Vec<AuditJson>>, Problem> {
    let Query(page) = page?;
    let entries = api.ask(move |fleet| fleet.audit(&by, page.page())).await?.into_iter().map(|entry| AuditJson {
        number: entry.number,
        at: entry.at.into(),
        by: entry.by.to_string(),
        action: entry.action,
        subject: entry.subject,
        details: entry.details,
        digest: entry.digest.to_string(),
    });
    Ok(Json(entries.collect()))
}

#[derive(Serialize, ToSchema)]
struct AuditCheckJson {
    is_whole: bool,
    entries: Option<u64>,
    /// Note it elsewhere: it shows whether entries are taken away.
    head: Option<String>,
    /// The first that is not as it was written, and why.
    broken: Option<u64>,
    why: Option<String>,
}

/// Computes the whole chain of the audit log anew.
#[utoipa::path(get, path = "/audit/check", tag = "audit", responses(
    (status = 200, body = AuditCheckJson), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn verify_audit(State(api): State<Api>, Caller(by): Caller) -> Result<Json<AuditCheckJson>, Problem> {
    Ok(Json(match api.ask(move |fleet| fleet.verify_audit(&by)).await? {
        AuditCheck::Whole { entries, head } => AuditCheckJson {
            is_whole: true,
            entries: Some(entries),
            head: Some(head.to_string()),
            broken: None,
            why: None,
        },
        AuditCheck::Broken { number, why } => {
            AuditCheckJson { is_whole: false, entries: None, head: None, broken: Some(number), why: Some(why) }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_that_came_with_tls_is_shown_to_nobody_else() {
        assert!(cookie("ab", 60, true).ends_with("; HttpOnly; SameSite=Strict; Secure"));
        assert!(cookie("ab", 60, false).ends_with("; HttpOnly; SameSite=Strict"));
    }
}
