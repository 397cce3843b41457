//! One version of a model, a pipeline or a package.

use axum::extract::{Path, State};
use maud::{Markup, html};
use revoada_core::Digest;
use serde_json::Value;

use super::fields::Query;
use super::models::{parents, signer};
use super::shell::{Answer, Place, done, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::Api;
use crate::service::kind_name;
use crate::store::{Artefact, ArtefactVersion, PlanRecord, Role};

/// Of a report; the whole of it is a file of the bundle.
const FIGURES_SHOWN: usize = 40;

pub(super) async fn show(
    State(api): State<Api>,
    visitor: Visitor,
    Path(digest): Path<Digest>,
    Query(query): Query,
) -> Answer {
    let by = visitor.by.clone();
    let (version, plans, artefact) = api
        .ask(move |fleet| {
            let (version, plans) = fleet.version(&by, &digest)?;
            let (artefact, _) = fleet.artefact(&by, version.kind, &version.name)?;
            Ok((version, plans, artefact))
        })
        .await?;
    let title = format!("{} {}", version.name, version.version);
    let actions = html! {
        @if visitor.may(Role::Operator) { a.button.main href={ "/rollouts/new?digest=" (version.digest) } { "Roll out" } }
    };
    let content = html! {
        (heading(&title, &actions))
        (done(&query))
        div.columns #version data-live="registry" {
            div {
                section.card { h2 { "Plans" } (plan_list(&plans)) }
                @for (name, report) in &version.reports { section.card { h2 { "Report: " (name) } (report_table(report)) } }
                section.card { h2 { "Files" } (files(&version)) }
            }
            div {
                section.card { h2 { "About" } (about(&artefact, &version)) }
                section.card { h2 { "Lineage" } (lineage(&version)) }
            }
        }
    };
    Ok(page(&visitor, Place::Models, &title, &content))
}

fn plan_list(plans: &[PlanRecord]) -> Markup {
    html! {
        @if plans.is_empty() { p.nothing { "No device class has a plan yet: each device builds its own." } }
        @else {
            table.collapses {
                thead { tr { th { "Device class" } th.number { "Median ms" } th.number { "Size" } th { "Built by" } th { "When" } } }
                tbody {
                    @for plan in plans {
                        tr {
                            td.wide data-label="Device class" { (plan.class) }
                            td.number data-label="Median ms" { (words::figure(plan.latency_ms, 2)) }
                            td.number data-label="Size" { (words::bytes(plan.bytes)) }
                            td data-label="Built by" { a href={ "/devices/" (plan.builder) } { (plan.builder) } }
                            td data-label="When" { (words::ago(plan.created_at)) }
                        }
                    }
                }
            }
        }
    }
}

fn about(artefact: &Artefact, version: &ArtefactVersion) -> Markup {
    html! {
        @if !artefact.description.is_empty() { p { (words::text(&artefact.description)) } }
        dl.facts {
            div { dt { "kind" } dd { (kind_name(version.kind)) } }
            div { dt { "digest" } dd { (words::digest(&version.digest)) } }
            div { dt { "size" } dd { (words::bytes(version.bytes)) } }
            div { dt { "licence" } dd { (artefact.licence.as_deref().unwrap_or("not said")) } }
            div { dt { "signed by" } dd { (signer(version)) } }
            div { dt { "registered" } dd { (words::ago(version.created_at)) " by " (version.created_by) } }
        }
    }
}

fn lineage(version: &ArtefactVersion) -> Markup {
    html! {
        dl.facts {
            div { dt { "made from" } dd { (parents(version)) } }
            @if let Some(source) = &version.lineage.source { div { dt { "ONNX file" } dd { (words::digest(source)) } } }
        }
        @if !version.lineage.steps.is_empty() {
            ol.steps { @for step in &version.lineage.steps { li { (words::text(step)) } } }
        }
    }
}

fn files(version: &ArtefactVersion) -> Markup {
    html! {
        @if version.files.is_empty() { p.nothing { "It is one file." } }
        @else {
            table.collapses {
                thead { tr { th { "Path" } th.number { "Size" } th { "Digest" } } }
                tbody {
                    @for (path, file) in &version.files {
                        tr {
                            td data-label="Path" { (words::text(path)) }
                            td.number data-label="Size" { (words::bytes(file.bytes)) }
                            td data-label="Digest" { (words::digest(&file.digest)) }
                        }
                    }
                }
            }
        }
    }
}

/// The figures of a report, by their paths in it.
fn report_table(report: &Value) -> Markup {
    let mut figures = Vec::new();
    flatten(report, String::new(), &mut figures);
    let more = figures.len() > FIGURES_SHOWN;
    figures.truncate(FIGURES_SHOWN);
    html! {
        dl.facts { @for (path, value) in &figures { div { dt { (words::text(path)) } dd { (words::text(value)) } } } }
        @if more { p.hint { "The whole report is a file of the bundle." } }
    }
}

fn flatten(value: &Value, path: String, figures: &mut Vec<(String, String)>) {
    if figures.len() > FIGURES_SHOWN {
        return;
    }
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(value, below(key), figures)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| flatten(value, below(&index.to_string()), figures));
        }
        Value::String(text) => figures.push((path, text.clone())),
        other => figures.push((path, other.to_string())),
    }
}
