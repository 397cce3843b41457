//! What is asked of a device on its page.

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};
use revoada_core::Digest;
use revoada_proto::{Ask, DeviceId, Kind, Label, LabelError};

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
        "label" => Ok(Ask::Label {
            stream: fields.some("stream").ok_or_else(|| missing("stream"))?.to_owned(),
            track: fields.read("track")?.ok_or_else(|| missing("track"))?,
            label: label(fields)?.ok_or_else(|| missing("label"))?,
        }),
        "forget" => Ok(Ask::Forget { label: Some(label(fields)?.ok_or_else(|| missing("label"))?) }),
        "forget-all" => Ok(Ask::Forget { label: None }),
        "swap-model" => {
            let digest: Option<Digest> = fields.read("digest")?;
            Ok(Ask::SwapModel { digest: digest.ok_or_else(|| missing("model"))? })
        }
        _ => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "there is no such command")),
    }
}

fn label(fields: &Fields) -> Result<Option<Label>, Problem> {
    let wrong = |error: LabelError| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
    fields.some("label").map(str::parse).transpose().map_err(wrong)
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
        (learning_forms(&action, view))
    }
}

/// What the device learns from: pictures of tracks that a person has named, which it keeps for itself.
fn learning_forms(action: &str, view: &DeviceView) -> Markup {
    html! {
        @if !view.details.streams.is_empty() {
            form.labelling method="post" action=(action) {
                input type="hidden" name="ask" value="label";
                select name="stream" aria-label="Stream of the track" {
                    @for stream in &view.details.streams { option value=(stream.stream) { (stream.stream) } }
                }
                input type="number" name="track" min="1" required placeholder="Track" aria-label="Number of the track";
                input name="label" maxlength="128" required placeholder="Label" autocapitalize="off" aria-label="Label: what the track shows";
                button { "Label a track" }
                p.hint {
                    "A picture shows the numbers of tracks. While the track is there the device keeps pictures of it to learn "
                    "from; they stay on the device."
                }
            }
        }
        details.confirm {
            summary.button.danger { "Forget pictures …" }
            form method="post" action=(action) {
                p { "The device erases its pictures of a label, and everything that was made of any. This cannot be taken back." }
                input type="hidden" name="ask" value="forget";
                input name="label" maxlength="128" required placeholder="Label" autocapitalize="off" aria-label="Label to forget";
                button.danger { "Forget this label" }
            }
            form method="post" action=(action) {
                p { "Or all the pictures that it learns from, whatever they are of." }
                input type="hidden" name="ask" value="forget-all";
                button.danger { "Forget all pictures" }
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
