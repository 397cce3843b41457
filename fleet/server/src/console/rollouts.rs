//! The list of rollouts.

use axum::extract::State;
use maud::{Markup, html};

use super::fields::Query;
use super::shell::{Answer, Place, done, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::Api;
use crate::service::{RolloutView, kind_name};
use crate::store::Role;

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    let by = visitor.by.clone();
    let rollouts = api.ask(move |fleet| fleet.rollouts(&by)).await?;
    let new = html! { @if visitor.may(Role::Operator) { a.button.main href="/rollouts/new" { "New rollout" } } };
    let content = html! {
        (heading("Rollouts", &new))
        (done(&query))
        section.card #rollouts data-live="rollout device" {
            @if rollouts.is_empty() { p.nothing { "Nothing was rolled out yet." } }
            @else { (list(&rollouts)) }
        }
    };
    Ok(page(&visitor, Place::Rollouts, "Rollouts", &content))
}

fn list(rollouts: &[RolloutView]) -> Markup {
    html! {
        table.collapses {
            thead { tr { th.number { "No." } th { "Rollout" } th { "What" } th { "Phase" } th.progress { "Progress" } th { "Begun" } } }
            tbody {
                @for view in rollouts {
                    tr {
                        td.number data-label="No." { (view.id) }
                        td data-label="Rollout" { a.name href={ "/rollouts/" (view.id) } { (view.note.title) } }
                        td data-label="What" { (what(view)) }
                        td data-label="Phase" { (words::phase(view.phase_name())) }
                        td.progress data-label="Progress" { (progress_bar(view)) small { (progress_text(view)) } }
                        td data-label="Begun" { (words::ago(view.note.created_at)) " by " (view.note.created_by) }
                    }
                }
            }
        }
    }
}

/// What is rolled out, in a few words.
pub(super) fn what(view: &RolloutView) -> Markup {
    let kind = kind_name(view.rollout.deployable.kind);
    match &view.artefact {
        Some((name, version)) => html! {
            a href={ "/models/" (view.rollout.deployable.digest) } { (name) " " (version) } " " small.muted { (kind) }
        },
        None => html! { (words::digest(&view.rollout.deployable.digest)) " " small.muted { (kind) } },
    }
}

/// All of its devices as one bar.
pub(super) fn progress_bar(view: &RolloutView) -> Markup {
    let progress = &view.progress;
    let parts = [
        ("good", progress.reached),
        ("working", progress.in_flight),
        ("degraded", progress.gave_up),
        ("back", progress.back),
        ("away", progress.away),
    ];
    words::bar(&parts, progress.devices, &progress_text(view))
}

/// `12 of 40 devices done, 3 in flight`
pub(super) fn progress_text(view: &RolloutView) -> String {
    let progress = &view.progress;
    let mut text = format!("{} of {} done", progress.reached, words::count(progress.devices, "device"));
    for (count, what) in [
        (progress.in_flight, "in flight"),
        (progress.gave_up, "gave up"),
        (progress.back, "back"),
        (progress.away, "away"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}
