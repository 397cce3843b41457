//! Alerts, and the rules that raise them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};

use super::fields::{Fields, Form, Query};
use super::shell::{Answer, Place, Refusal, done, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::{Api, Problem};
use crate::filter::Filter;
use crate::service::Condition;
use crate::store::{Alert, AlertRule, Page, Role};

const ALERTS_SHOWN: usize = 50;

/// What a rule is about, as a form says it; the last but for `failed` takes a number.
const CONDITIONS: [(&str, &str); 5] = [
    ("away", "not heard of for more minutes than"),
    ("failed", "went back from what it was ordered"),
    ("hot", "hotter than so many °C"),
    ("slow", "fewer frames a second than"),
    ("late", "p99 latency above so many ms"),
];

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    let before: Option<u64> = query.read("before")?;
    let by = visitor.by.clone();
    let (raised, past, rules) = api
        .ask(move |fleet| {
            let past = fleet.alerts(&by, Page { before, limit: ALERTS_SHOWN })?;
            Ok((fleet.raised_alerts(&by)?, past, fleet.alert_rules(&by)?))
        })
        .await?;
    let content = html! {
        (heading("Alerts", &html! {}))
        (done(&query))
        div.columns {
            div {
                section.card #raised data-live="alert" {
                    h2 { "Raised" }
                    @if raised.is_empty() { p.nothing { "No alert is raised." } }
                    @else { (alert_table(raised.iter().rev().take(ALERTS_SHOWN))) }
                    @if raised.len() > ALERTS_SHOWN { p.hint { (raised.len() - ALERTS_SHOWN) " more are raised." } }
                }
                section.card #past data-live="alert" {
                    h2 { "All, the newest first" }
                    @if past.is_empty() { p.nothing { "There was none." } } @else { (alert_table(past.iter())) }
                    @if let Some(last) = past.last().filter(|_| past.len() == ALERTS_SHOWN) {
                        nav.pages aria-label="Pages" { a.button href={ "/alerts?before=" (last.number) } { "Older ones" } }
                    }
                }
            }
            div {
                section.card #rules data-live="alert" { h2 { "Rules" } (rule_list(&visitor, &rules)) }
                @if visitor.may(Role::Operator) { section.card { h2 { "Add or change a rule" } (rule_form()) } }
            }
        }
    };
    Ok(page(&visitor, Place::Alerts, "Alerts", &content))
}

fn alert_table<'a>(alerts: impl Iterator<Item = &'a Alert>) -> Markup {
    html! {
        table.collapses {
            thead { tr { th { "Raised" } th { "Device" } th { "What" } th { "Rule" } th { "Over" } } }
            tbody {
                @for alert in alerts {
                    tr {
                        td data-label="Raised" { (words::ago(alert.raised_at)) }
                        td data-label="Device" { a.name href={ "/devices/" (alert.device) } { (alert.device) } }
                        td.wide data-label="What" { (words::text(&alert.text)) }
                        td data-label="Rule" { (alert.rule) }
                        td data-label="Over" {
                            @match alert.resolved_at {
                                Some(at) => { (words::ago(at)) }
                                None => { span.badge.degraded { "raised" } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn rule_list(visitor: &Visitor, rules: &[AlertRule]) -> Markup {
    html! {
        @if rules.is_empty() { p.nothing { "There is no rule." } }
        ul.rows {
            @for rule in rules {
                li {
                    div.row-head {
                        b { (rule.name) }
                        @if rule.is_enabled { span.badge.good { "on" } } @else { span.badge.away { "off" } }
                    }
                    span { (condition_text(rule)) }
                    small { "Devices: " code { (rule.filter) } }
                    @if let Some(webhook) = &rule.webhook { small { "Tells " (words::text(webhook)) } }
                    @if visitor.may(Role::Operator) {
                        details.confirm {
                            summary.button.small { "Remove …" }
                            form method="post" action="/alerts/rules/remove" {
                                input type="hidden" name="name" value=(rule.name);
                                p { "Its alerts are removed too." }
                                button.danger { "Remove " (rule.name) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn condition_text(rule: &AlertRule) -> String {
    match serde_json::from_value(rule.condition.clone()) {
        Ok(Condition::Away { minutes }) => format!("not heard of for more than {minutes} min"),
        Ok(Condition::Failed) => "went back from what it was ordered".to_owned(),
        Ok(Condition::Hot { celsius }) => format!("hotter than {celsius} °C"),
        Ok(Condition::Slow { fps }) => format!("fewer than {fps} frames a second"),
        Ok(Condition::Late { milliseconds }) => format!("p99 latency above {milliseconds} ms"),
        Err(_) => "a condition of a later version".to_owned(),
    }
}

fn rule_form() -> Markup {
    html! {
        form.stacked method="post" action="/alerts/rules" {
            label { "Name" input name="name" required maxlength="64" pattern="[A-Za-z0-9@._\\-]+"; }
            label { "Filter; empty is every device"
                input name="filter" maxlength="4096" spellcheck="false" autocapitalize="off" placeholder="tag = entrance"
                    data-preview="/rollouts/preview" aria-describedby="preview"; }
            p.hint #preview aria-live="polite" {}
            label { "When a device is"
                select name="when" { @for (name, meaning) in CONDITIONS { option value=(name) { (name) ": " (meaning) } } } }
            label { "Limit, where it takes one" input name="limit" inputmode="decimal" placeholder="10"; }
            label { "Webhook; may be empty" input type="url" name="webhook" placeholder="https://example.org/hook"; }
            label.check { input type="checkbox" name="is_enabled" value="yes" checked; "On" }
            button.main { "Keep the rule" }
        }
    }
}

pub(super) async fn put_rule(
    State(api): State<Api>,
    visitor: Visitor,
    Form(fields): Form,
) -> Result<Redirect, Refusal> {
    let filter: Filter = match fields.some("filter") {
        None => Filter::ALL,
        Some(text) => text.parse().map_err(Problem::bad_request)?,
    };
    let condition = condition(&fields)?;
    let is_enabled = fields.text("is_enabled") == "yes";
    let (name, webhook) = (fields.text("name").to_owned(), fields.some("webhook").map(str::to_owned));
    api.ask(move |fleet| fleet.put_alert_rule(&visitor.by, &name, filter, condition, webhook.as_deref(), is_enabled))
        .await?;
    Ok(Redirect::to("/alerts?done=rule"))
}

fn condition(fields: &Fields) -> Result<Condition, Problem> {
    let wrong = |what: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, what);
    let limit = || {
        let limit: Option<f64> = fields.read("limit")?;
        limit.filter(|limit| limit.is_finite()).ok_or_else(|| wrong("this condition takes a limit"))
    };
    Ok(match fields.text("when") {
        "away" => {
            let minutes: Option<u64> = fields.read("limit")?;
            Condition::Away { minutes: minutes.ok_or_else(|| wrong("this condition takes whole minutes"))? }
        }
        "failed" => Condition::Failed,
        "hot" => Condition::Hot { celsius: limit()? },
        "slow" => Condition::Slow { fps: limit()? },
        "late" => Condition::Late { milliseconds: limit()? },
        _ => return Err(wrong("there is no such condition")),
    })
}

pub(super) async fn remove_rule(
    State(api): State<Api>,
    visitor: Visitor,
    Form(fields): Form,
) -> Result<Redirect, Refusal> {
    let name = fields.text("name").to_owned();
    api.ask(move |fleet| fleet.remove_alert_rule(&visitor.by, &name)).await?;
    Ok(Redirect::to("/alerts?done=removed"))
}
