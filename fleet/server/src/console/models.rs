//! What can be deployed.

use axum::extract::State;
use maud::{Markup, html};

use super::fields::Query;
use super::shell::{Answer, Place, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::Api;
use crate::service::kind_name;
use crate::store::{Artefact, ArtefactVersion, Role};

/// Of one artefact; its other versions are found through what was made from them.
const VERSIONS_SHOWN: usize = 20;

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(_): Query) -> Answer {
    let by = visitor.by.clone();
    let artefacts = api.ask(move |fleet| fleet.artefacts(&by)).await?;
    let content = html! {
        (heading("Models, pipelines and packages", &html! {}))
        div #artefacts data-live="registry" {
            @if artefacts.is_empty() {
                section.card { p.nothing { "Nothing is registered yet: " code { "revoada-fleet models push" } " registers a bundle." } }
            }
            @for (artefact, versions) in &artefacts { (section(&visitor, artefact, versions)) }
        }
    };
    Ok(page(&visitor, Place::Models, "Models", &content))
}

fn section(visitor: &Visitor, artefact: &Artefact, versions: &[ArtefactVersion]) -> Markup {
    html! {
        section.card {
            h2 { (artefact.name) " " small.muted { (kind_name(artefact.kind)) } (words::tags(&artefact.labels)) }
            @if !artefact.description.is_empty() { p { (words::text(&artefact.description)) } }
            p.hint { "Licence: " (artefact.licence.as_deref().unwrap_or("not said")) ". Registered " (words::ago(artefact.created_at)) "." }
            @if versions.is_empty() { p.nothing { "It has no version." } }
            @else {
                table.collapses {
                    thead { tr {
                        th { "Version" } th { "Digest" } th.number { "Size" } th { "Made from" } th { "Signer" } th { "Registered" }
                        @if visitor.may(Role::Operator) { th { span.unseen { "Roll out" } } }
                    } }
                    tbody {
                        @for version in versions.iter().take(VERSIONS_SHOWN) {
                            tr {
                                td data-label="Version" { a.name href={ "/models/" (version.digest) } { (version.version) } }
                                td data-label="Digest" { (words::digest(&version.digest)) }
                                td.number data-label="Size" { (words::bytes(version.bytes)) }
                                td data-label="Made from" { (parents(version)) }
                                td data-label="Signer" { (signer(version)) }
                                td data-label="Registered" { (words::ago(version.created_at)) " by " (version.created_by) }
                                @if visitor.may(Role::Operator) {
                                    td { a.button href={ "/rollouts/new?digest=" (version.digest) } aria-label={ "Roll out " (version.name) " " (version.version) } { "Roll out" } }
                                }
                            }
                        }
                    }
                }
            }
            @if versions.len() > VERSIONS_SHOWN { p.hint { (versions.len() - VERSIONS_SHOWN) " older versions are not shown." } }
        }
    }
}

pub(super) fn parents(version: &ArtefactVersion) -> Markup {
    html! {
        @if version.parents.is_empty() { span.none { "–" } }
        @for parent in &version.parents { a href={ "/models/" (parent) } { (words::digest(parent)) } " " }
    }
}

/// The key in short: the whole of it is its title.
pub(super) fn signer(version: &ArtefactVersion) -> Markup {
    let key = version.signer.to_string();
    let end = key.char_indices().nth(20).map_or(key.len(), |(end, _)| end);
    html! { code title=(key) { (&key[..end]) "…" } }
}
