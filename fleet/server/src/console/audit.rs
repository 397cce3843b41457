//! Who changed what.

use axum::extract::State;
use axum::response::Html;
use maud::{Markup, html};

use super::fields::Query;
use super::shell::{Answer, Place, heading, page, wrong};
use super::visitor::Visitor;
use super::words;
use crate::api::Api;
use crate::store::{AuditCheck, AuditEntry, Page, Role};

const ENTRIES_SHOWN: usize = 100;

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    let before: Option<u64> = query.read("before")?;
    audit_page(&api, &visitor, before, &html! {}).await
}

/// Computes the whole chain anew, and says what was found.
pub(super) async fn verify(State(api): State<Api>, visitor: Visitor) -> Answer {
    let by = visitor.by.clone();
    let found = match api.ask(move |fleet| fleet.verify_audit(&by)).await? {
        AuditCheck::Whole { entries, head } => html! {
            p.notice role="status" { "The chain is whole: " (entries) " entries. Its head is " code { (head) } "." }
        },
        AuditCheck::Broken { number, why } => wrong(&format!("The chain is broken at entry {number}: {why}")),
    };
    audit_page(&api, &visitor, None, &found).await
}

async fn audit_page(
    api: &Api,
    visitor: &Visitor,
    before: Option<u64>,
    found: &Markup,
) -> Result<Html<String>, super::shell::Refusal> {
    let by = visitor.by.clone();
    let entries = api.ask(move |fleet| fleet.audit(&by, Page { before, limit: ENTRIES_SHOWN })).await?;
    let check = html! {
        @if visitor.may(Role::Admin) { form method="post" action="/audit" { button { "Verify the chain" } } }
    };
    let content = html! {
        (heading("Audit", &check))
        (found)
        section.card {
            (list(&entries))
            nav.pages aria-label="Pages" {
                @if before.is_some() { a.button href="/audit" { "Newest" } }
                @if let Some(last) = entries.last().filter(|last| entries.len() == ENTRIES_SHOWN && last.number > 1) {
                    a.button href={ "/audit?before=" (last.number) } { "Older ones" }
                }
            }
        }
    };
    Ok(page(visitor, Place::Audit, "Audit", &content))
}

fn list(entries: &[AuditEntry]) -> Markup {
    html! {
        table.collapses {
            thead { tr { th.number { "No." } th { "When" } th { "Who" } th { "Did" } th { "To" } th { "Details" } } }
            tbody {
                @for entry in entries {
                    tr {
                        td.number data-label="No." { (entry.number) }
                        td data-label="When" { (words::ago(entry.at)) }
                        td.word data-label="Who" { (entry.by) }
                        td.word data-label="Did" { b { (entry.action) } }
                        td data-label="To" { (words::text(&entry.subject)) }
                        td.wide.details data-label="Details" { (details(entry)) }
                    }
                }
            }
        }
    }
}

fn details(entry: &AuditEntry) -> Markup {
    match entry.details.as_object() {
        Some(fields) if fields.is_empty() => html! { span.none { "–" } },
        _ => {
            html! { code title=(words::text(&entry.details.to_string()).into_string()) { (words::text(&entry.details.to_string())) } }
        }
    }
}
