//! What is asked of a device on its page.

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};
use revoada_core::Digest;
use revoada_proto::{Ask, DeviceId, Kind};

use super::fields::{Fields, Form};
use super::shell::Refusal;
use super::visitor::Visitor;
use crate::api::{Api, Problem};
use crate::service::{DeviceView, DurationText};
use crate::store::Role;

const LOG_LINES: u32 = 500;

type Moved = Result<Redirect, Refusal>;

fn back(device: &DeviceId, done: &str) -> Moved {
    Ok(Redirect::to(&format!("/devices/{device}?done={done}")))
}

pub(super) async fn command(
    State(api): State<Api>,
    visitor: Visitor,
    Path(device): Path<DeviceId>,
    Form(fields): Form,
) -> Moved {
    let ask = read(&fields)?;
    let valid_for = fields.some("valid_for").map(|text| DurationText::try_from(text.to_owned()));
    let valid_for = valid_for.transpose().map_err(Problem::bad_request)?.map(|text| text.0);
    let target = device.clone();
    api.ask(move |fleet| fleet.command(&visitor.by, &device, &ask, valid_for)).await?;
    back(&target, "command")
}

fn read(fields: &Fields) -> Result<Ask, Problem> {
    let missing = |what: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the command lacks its {what}"));
    match fields.text("ask") {
        "restart-pipeline" => Ok(Ask::RestartPipeline),
        "snapshot" => Ok(Ask::Snapshot { stream: fields.some("stream").ok_or_else(|| missing("stream"))?.to_owned() }),
        "fetch-logs" => Ok(Ask::FetchLogs { lines: fields.read("lines")?.ok_or_else(|| missing("lines"))? }),
        "swap-model" => {
            let digest: Option<Digest> = fields.read("digest")?;
            Ok(Ask::SwapModel { digest: digest.ok_or_else(|| missing("model"))? })
        }
        _ => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "there is no such command")),
    }
}

pub(super) async fn tags(
    State(api): State<Api>,
    visitor: Visitor,
    Path(device): Path<DeviceId>,
    Form(fields): Form,
) -> Moved {
    let tags = fields.text("tags").split(',').map(str::trim).filter(|tag| !tag.is_empty());
    let tags: BTreeSet<String> = tags.map(str::to_owned).collect();
    let target = device.clone();
    api.ask(move |fleet| fleet.set_tags(&visitor.by, &device, &tags)).await?;
    back(&target, "tags")
}

pub(super) async fn builder(
    State(api): State<Api>,
    visitor: Visitor,
    Path(device): Path<DeviceId>,
    Form(fields): Form,
) -> Moved {
    let (target, is_builder) = (device.clone(), fields.text("is_builder") == "yes");
    api.ask(move |fleet| fleet.set_builder(&visitor.by, &device, is_builder)).await?;
    back(&target, "builder")
}

pub(super) async fn revoke(State(api): State<Api>, visitor: Visitor, Path(device): Path<DeviceId>) -> Moved {
    let target = device.clone();
    api.ask(move |fleet| fleet.revoke_device(&visitor.by, &device)).await?;
    back(&target, "revoked")
}

pub(super) async fn remove(State(api): State<Api>, visitor: Visitor, Path(device): Path<DeviceId>) -> Moved {
    api.ask(move |fleet| fleet.remove_device(&visitor.by, &device)).await?;
    Ok(Redirect::to("/devices?done=removed"))
}

/// The forms for commands, for who may give them.
pub(super) fn command_forms(visitor: &Visitor, view: &DeviceView, name_of: impl Fn(&Digest) -> String) -> Markup {
    if !visitor.may(Role::Operator) {
        return html! {};
    }
    let action = format!("/devices/{}/command", view.summary.device);
    let models = view.details.slots.iter().filter(|slot| slot.kind == Kind::Model && !slot.is_active);
    let models: Vec<_> = models.collect();
    html! {
        div.commands {
            form method="post" action=(action) {
                input type="hidden" name="ask" value="restart-pipeline";
                button { "Restart the pipeline" }
            }
            form method="post" action=(action) {
                input type="hidden" name="ask" value="snapshot";
                @if view.details.streams.is_empty() { p.hint { "It reports no stream to take a picture of." } }
                @else {
                    select name="stream" aria-label="Stream" {
                        @for stream in &view.details.streams { option value=(stream.stream) { (stream.stream) } }
                    }
                    button { "Take a picture" }
                }
            }
            form method="post" action=(action) {
                input type="hidden" name="ask" value="fetch-logs";
                input type="number" name="lines" value=(LOG_LINES) min="1" max="10000" aria-label="Lines of the log";
                button { "Fetch logs" }
            }
            @if !models.is_empty() {
                form method="post" action=(action) {
                    input type="hidden" name="ask" value="swap-model";
                    select name="digest" aria-label="Model in another slot" {
                        @for slot in models { option value=(slot.digest) { (name_of(&slot.digest)) } }
                    }
                    button { "Swap the model" }
                }
            }
        }
    }
}

pub(super) fn tag_form(visitor: &Visitor, view: &DeviceView) -> Markup {
    if !visitor.may(Role::Operator) {
        return html! { (super::words::tags(&view.summary.tags)) };
    }
    let tags: Vec<&str> = view.summary.tags.iter().map(String::as_str).collect();
    html! {
        form.inline method="post" action={ "/devices/" (view.summary.device) "/tags" } {
            input name="tags" value=(tags.join(", ")) aria-label="Tags, with commas between them";
            button { "Keep" }
        }
    }
}

/// What only an administrator does; what cannot be taken back asks again.
pub(super) fn administration(visitor: &Visitor, view: &DeviceView) -> Markup {
    if !visitor.may(Role::Admin) {
        return html! {};
    }
    let device = &view.summary.device;
    let (change, other) =
        if view.is_builder { ("Build no plans for others", "no") } else { ("Build plans for others", "yes") };
    html! {
        section.card {
            h2 { "Administration" }
            form method="post" action={ "/devices/" (device) "/builder" } {
                input type="hidden" name="is_builder" value=(other);
                button { (change) }
            }
            details.confirm {
                summary.button.danger { "Revoke certificates …" }
                form method="post" action={ "/devices/" (device) "/revoke" } {
                    p { "It is cut off at once, and comes back only when it is enrolled again." }
                    button.danger { "Revoke the certificates of " (device) }
                }
            }
            details.confirm {
                summary.button.danger { "Remove from the fleet …" }
                form method="post" action={ "/devices/" (device) "/remove" } {
                    p { "Its history, events and commands are deleted. This cannot be taken back." }
                    button.danger { "Remove " (device) }
                }
            }
        }
    }
}
