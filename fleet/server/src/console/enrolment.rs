//! The tokens with which devices enrol.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};
use revoada_proto::DeviceId;

use super::fields::{Form, Query};
use super::people::told;
use super::shell::{Answer, Place, Refusal, done, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::{Api, Problem};
use crate::service::{self, DurationText};
use crate::store::{EnrolmentToken, TokenScope};

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    enrolment_page(&api, &visitor, &done(&query)).await
}

async fn enrolment_page(api: &Api, visitor: &Visitor, notice: &Markup) -> Answer {
    let by = visitor.by.clone();
    let tokens = api.ask(move |fleet| fleet.enrolment_tokens(&by)).await?;
    let content = html! {
        (heading("Enrolment", &html! {}))
        (notice)
        div.columns {
            div { section.card { h2 { "Enrolment tokens" } (list(&tokens)) } }
            div { section.card { h2 { "Make a token" } (form()) } }
        }
    };
    Ok(page(visitor, Place::Enrolment, "Enrolment", &content))
}

fn list(tokens: &[EnrolmentToken]) -> Markup {
    let now = service::now();
    html! {
        @if tokens.is_empty() { p.nothing { "There is none: make one, and give it to a device." } }
        @else {
            table.collapses {
                thead { tr { th { "Name" } th { "For" } th.number { "Uses left" } th { "Expires" } th { span.unseen { "Remove" } } } }
                tbody {
                    @for token in tokens {
                        tr {
                            td data-label="Name" { b { (token.name) } }
                            td data-label="For" {
                                @match &token.scope {
                                    TokenScope::Device(device) => { "the device " (device) }
                                    TokenScope::Prefix(prefix) if prefix.is_empty() => { "any device" }
                                    TokenScope::Prefix(prefix) => { "devices that begin with " code { (prefix) } }
                                }
                            }
                            td.number data-label="Uses left" { (token.uses_left) }
                            td data-label="Expires" {
                                @if token.expires_at <= now { span.badge.away { "expired" } } @else { (words::ago(token.expires_at)) }
                            }
                            td {
                                form method="post" action="/enrolment/remove" {
                                    input type="hidden" name="name" value=(token.name);
                                    button.small aria-label={ "Remove " (token.name) } { "Remove" }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn form() -> Markup {
    html! {
        form.stacked method="post" action="/enrolment" {
            label { "Name" input name="name" required maxlength="64" autocomplete="off"; }
            label { "For one device" input name="device" maxlength="64" placeholder="gate-7"; }
            label { "Or for devices that begin with" input name="prefix" maxlength="64" placeholder="gate-"; }
            label { "Uses" input type="number" name="uses" min="1" value="1"; }
            label { "Valid for" input name="valid_for" value="24h"; }
            button.main { "Make the token" }
        }
    }
}

pub(super) async fn add(State(api): State<Api>, visitor: Visitor, Form(fields): Form) -> Answer {
    let wrong = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
    let device: Option<DeviceId> = fields.read("device")?;
    let scope = match (device, fields.some("prefix")) {
        (Some(_), Some(_)) => {
            return Err(wrong("a token is for one device or for a prefix, not both".to_owned()).into());
        }
        (Some(device), None) => TokenScope::Device(device),
        (None, prefix) => TokenScope::Prefix(prefix.unwrap_or_default().to_owned()),
    };
    let valid_for = fields.some("valid_for").map(|text| DurationText::try_from(text.to_owned())).transpose();
    let valid_for = valid_for.map_err(wrong)?.map_or(Duration::from_hours(24), |text| text.0);
    let uses = fields.read("uses")?.unwrap_or(1);
    let (by, name, root) = (visitor.by.clone(), fields.text("name").to_owned(), api.root);
    let token = api.ask(move |fleet| fleet.add_enrolment_token(&by, &name, scope, uses, valid_for, root)).await?;
    enrolment_page(&api, &visitor, &told("The enrolment token was made.", &token.text())).await
}

pub(super) async fn remove(State(api): State<Api>, visitor: Visitor, Form(fields): Form) -> Result<Redirect, Refusal> {
    let name = fields.text("name").to_owned();
    api.ask(move |fleet| fleet.remove_enrolment_token(&visitor.by, &name)).await?;
    Ok(Redirect::to("/enrolment?done=removed"))
}
