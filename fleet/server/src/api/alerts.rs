//! `/alert-rules` and `/alerts`.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, Caller, PageQuery, Problem, Time};
use crate::filter::Filter;
use crate::service::Condition;
use crate::store::{Alert, AlertRule};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(rules)).routes(routes!(put_rule, remove_rule)).routes(routes!(list))
}

#[derive(Serialize, ToSchema)]
struct RuleJson {
    name: String,
    filter: String,
    #[schema(value_type = serde_json::Value)]
    condition: serde_json::Value,
    webhook: Option<String>,
    is_enabled: bool,
}

impl From<AlertRule> for RuleJson {
    fn from(rule: AlertRule) -> Self {
        Self {
            name: rule.name,
            filter: rule.filter.to_string(),
            condition: rule.condition,
            webhook: rule.webhook,
            is_enabled: rule.is_enabled,
        }
    }
}

/// When somebody is told.
#[utoipa::path(get, path = "/alert-rules", tag = "alerts", responses(
    (status = 200, body = Vec<RuleJson>), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn rules(State(api): State<Api>, Caller(by): Caller) -> Result<Json<Vec<RuleJson>>, Problem> {
    let rules = api.ask(move |fleet| fleet.alert_rules(&by)).await?;
    Ok(Json(rules.into_iter().map(RuleJson::from).collect()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RuleForm {
    /// Of which devices; of all, where it is not given.
    filter: Option<String>,
    condition: Condition,
    /// A URL that is sent each alert as JSON, when it is raised and when it is over.
    webhook: Option<String>,
    #[serde(default = "yes")]
    is_enabled: bool,
}

fn yes() -> bool {
    true
}

/// Adds a rule, or changes the one of its name.
#[utoipa::path(put, path = "/alert-rules/{name}", tag = "alerts", params(("name" = String, Path)),
    request_body = RuleForm, responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem)))]
async fn put_rule(
    State(api): State<Api>,
    Caller(by): Caller,
    name: Result<Path<String>, PathRejection>,
    form: Result<Json<RuleForm>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let (Path(name), Json(form)) = (name?, form?);
    let filter: Filter = match &form.filter {
        None => Filter::ALL,
        Some(text) => text.parse().map_err(Problem::bad_request)?,
    };
    api.ask(move |fleet| {
        fleet.put_alert_rule(&by, &name, filter, form.condition, form.webhook.as_deref(), form.is_enabled)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a rule with its alerts.
#[utoipa::path(delete, path = "/alert-rules/{name}", tag = "alerts", params(("name" = String, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem)))]
async fn remove_rule(
    State(api): State<Api>,
    Caller(by): Caller,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(name) = name?;
    api.ask(move |fleet| fleet.remove_alert_rule(&by, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, ToSchema)]
struct AlertJson {
    number: u64,
    rule: String,
    device: String,
    text: String,
    raised_at: Time,
    resolved_at: Option<Time>,
}

impl From<Alert> for AlertJson {
    fn from(alert: Alert) -> Self {
        Self {
            number: alert.number,
            rule: alert.rule,
            device: alert.device.to_string(),
            text: alert.text,
            raised_at: alert.raised_at.into(),
            resolved_at: alert.resolved_at.map(Time),
        }
    }
}

/// What somebody was told, the newest first.
#[utoipa::path(get, path = "/alerts", tag = "alerts", params(PageQuery), responses(
    (status = 200, body = Vec<AlertJson>), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem)))]
async fn list(
    State(api): State<Api>,
    Caller(by): Caller,
    page: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Vec<AlertJson>>, Problem> {
    let Query(page) = page?;
    let alerts = api.ask(move |fleet| fleet.alerts(&by, page.page())).await?;
    Ok(Json(alerts.into_iter().map(AlertJson::from).collect()))
}
