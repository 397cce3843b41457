//! The fleet at a glance.

use std::collections::BTreeMap;

use axum::extract::State;
use maud::{Markup, html};

use super::fields::Query;
use super::rollouts::progress_bar;
use super::shell::{Answer, Place, done, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::Api;
use crate::service::RolloutView;
use crate::store::{Alert, EventQuery, EventRecord, Page};

const EVENTS_SHOWN: usize = 12;
const ALERTS_SHOWN: usize = 8;
const ROLLOUTS_SHOWN: usize = 6;

/// In the order in which people look: what is wrong first.
const HEALTHS: [(&str, &str); 5] = [
    ("degraded", "something is not as it should be"),
    ("away", "not heard of for long"),
    ("working", "carrying out an order"),
    ("good", "everything runs"),
    ("new", "enrolled, never heard of"),
];

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    let by = visitor.by.clone();
    let (counts, mut rollouts, alerts, events) = api
        .ask(move |fleet| {
            let newest = Page::first(EVENTS_SHOWN);
            Ok((
                fleet.device_counts(&by)?,
                fleet.rollouts(&by)?,
                fleet.raised_alerts(&by)?,
                fleet.events(&by, &EventQuery::default(), newest)?,
            ))
        })
        .await?;
    let is_active = |view: &RolloutView| matches!(view.phase_name(), "new" | "running" | "paused" | "halted");
    // Those under way first; then the newest of the others, so that the place is not empty.
    rollouts.sort_by_key(|view| !is_active(view));
    let active = rollouts.iter().filter(|view| is_active(view)).count();
    rollouts.truncate(ROLLOUTS_SHOWN.max(active.min(2 * ROLLOUTS_SHOWN)));
    let content = html! {
        (heading("Overview", &html! {}))
        (done(&query))
        section #healths data-live="device" { (healths(&counts)) }
        div.columns {
            div {
                section.card #rollouts data-live="rollout device" {
                    h2 { "Rollouts" a.more href="/rollouts" { "All rollouts" } }
                    (rollout_list(&rollouts))
                }
                section.card #events data-live="event" {
                    h2 { "Recent events" }
                    (event_list(&events))
                }
            }
            div {
                section.card #alerts data-live="alert" {
                    h2 { "Raised alerts" a.more href="/alerts" { "All alerts" } }
                    (alert_list(&alerts))
                }
            }
        }
    };
    Ok(page(&visitor, Place::Overview, "Overview", &content))
}

fn healths(counts: &BTreeMap<&'static str, usize>) -> Markup {
    let of = |name| counts.get(name).copied().unwrap_or_default();
    let all: usize = counts.values().sum();
    let parts = ["good", "working", "degraded", "away", "new"].map(|name| (name, of(name)));
    let label = parts.map(|(name, count)| format!("{count} {name}")).join(", ");
    html! {
        div.tiles {
            a.tile href="/devices" { b { (all) } span { "devices" } small { "enrolled in the fleet" } }
            @for (name, meaning) in HEALTHS {
                div class={ "tile " (name) } { b { (of(name)) } span { (name) } small { (meaning) } }
            }
        }
        (words::bar(&parts, all, &label))
    }
}

fn rollout_list(rollouts: &[RolloutView]) -> Markup {
    html! {
        @if rollouts.is_empty() { p.nothing { "Nothing was rolled out yet." } }
        ul.rows {
            @for view in rollouts {
                li {
                    div.row-head {
                        a href={ "/rollouts/" (view.id) } { (view.note.title) }
                        (words::phase(view.phase_name()))
                    }
                    (progress_bar(view))
                    small { (view.status) }
                }
            }
        }
    }
}

fn alert_list(alerts: &[Alert]) -> Markup {
    html! {
        @if alerts.is_empty() { p.nothing { "No alert is raised." } }
        ul.rows {
            @for alert in alerts.iter().rev().take(ALERTS_SHOWN) {
                li.alert {
                    div.row-head { a href={ "/devices/" (alert.device) } { (alert.device) } (words::ago(alert.raised_at)) }
                    span { (words::text(&alert.text)) }
                    small { (alert.rule) }
                }
            }
        }
        @if alerts.len() > ALERTS_SHOWN { p.hint { (alerts.len() - ALERTS_SHOWN) " more are raised." } }
    }
}

/// Events of any device, the newest first.
fn event_list(events: &[EventRecord]) -> Markup {
    html! {
        @if events.is_empty() { p.nothing { "Nothing happened yet." } }
        @else {
            table.collapses.events {
                thead { tr { th { "When" } th { "Device" } th { "Level" } th { "What" } } }
                tbody {
                    @for EventRecord { occurrence, .. } in events {
                        tr {
                            td data-label="When" { (words::ago(occurrence.at)) }
                            td data-label="Device" { a href={ "/devices/" (occurrence.device) } { (occurrence.device) } }
                            td data-label="Level" { (words::level(occurrence.event.level)) }
                            td.wide data-label="What" { b { (occurrence.event.name) } " " (words::text(&occurrence.event.text)) }
                        }
                    }
                }
            }
        }
    }
}
