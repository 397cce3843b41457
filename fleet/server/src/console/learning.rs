//! The list of runs of learning, and runs beside each other.

use std::collections::BTreeSet;

use axum::extract::State;
use maud::{Markup, html};

use super::curves::{CURVES_MAX, Curve, draw};
use super::fields::Query;
use super::shell::{Answer, Place, done, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::Api;
use crate::learning::{RoundRecord, RunId};
use crate::store::{Role, RunRecord};

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    let by = visitor.by.clone();
    let runs = api.ask(move |fleet| fleet.runs(&by)).await?;
    let new = html! { @if visitor.may(Role::Operator) { a.button.main href="/learning/new" { "New run" } } };
    let content = html! {
        (heading("Learning", &new))
        (done(&query))
        form.stacked action="/learning/compare" {
            section.card #runs data-live="run" {
                @if runs.is_empty() { p.nothing { "Nothing was learned yet." } }
                @else { (list(runs.iter().rev().map(|(id, record)| (*id, record)))) }
            }
            @if runs.len() > 1 { div.actions { button { "Compare those that are chosen" } } }
        }
    };
    Ok(page(&visitor, Place::Learning, "Learning", &content))
}

fn list<'a>(runs: impl Iterator<Item = (RunId, &'a RunRecord)>) -> Markup {
    html! {
        table.collapses {
            thead { tr { th.pick { } th.number { "No." } th { "Run" } th { "Strategy" } th { "Phase" } th.progress { "Rounds" } th { "Added" } } }
            tbody {
                @for (id, record) in runs {
                    tr {
                        td.pick data-label="Compare" { input type="checkbox" name="run" value=(id) aria-label={ "Compare run " (id) }; }
                        td.number data-label="No." { (id) }
                        td data-label="Run" { a.name href={ "/learning/" (id) } { (record.title) } }
                        td data-label="Strategy" { (record.plan.recipe.strategy.name()) }
                        td data-label="Phase" { (words::phase(record.state.phase.name())) }
                        td.progress data-label="Rounds" { (rounds_bar(record)) small { (record.status()) } }
                        td data-label="Added" { (words::ago(record.created_at)) " by " (record.created_by) }
                    }
                }
            }
        }
    }
}

/// Rounds that are over, and the one that is under way.
pub(super) fn rounds_bar(record: &RunRecord) -> Markup {
    let count = |rounds: u64| usize::try_from(rounds).unwrap_or(usize::MAX);
    let is_under_way = matches!(record.state.phase.name(), "learning" | "evaluating");
    let over = record.state.round.saturating_sub(u64::from(is_under_way));
    let parts = [("good", count(over)), ("working", usize::from(is_under_way))];
    words::bar(&parts, count(record.plan.rounds), &record.status())
}

/// The figures of one kind that a round has.
pub(super) type Figures = fn(&RoundRecord) -> &Vec<(String, f64)>;

/// The figures of a kind that some round has.
pub(super) fn names(rounds: &[RoundRecord], of: Figures) -> BTreeSet<String> {
    rounds.iter().flat_map(of).map(|(name, _)| name.clone()).collect()
}

/// One figure of one run.
pub(super) fn curve(run: String, rounds: &[RoundRecord], of: Figures, name: &str) -> Curve {
    let value = |round: &RoundRecord| {
        let found = of(round).iter().find(|(known, _)| known == name)?;
        Some((round.head.number, found.1))
    };
    Curve { name: run, points: rounds.iter().filter_map(value).collect() }
}

/// What participants said after learning, and of the new weights, and what the service has found out itself.
pub(super) const KINDS: [(&str, Figures); 3] = [
    ("Reported after learning", |round| &round.result.fit),
    ("Reported of the new weights", |round| &round.result.evaluation),
    ("Judged by the service's pictures", |round| &round.result.judged),
];

pub(super) async fn compare(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    let chosen: BTreeSet<RunId> =
        query.all("run").filter_map(|text| text.parse().ok()).map(RunId).take(CURVES_MAX).collect();
    let by = visitor.by.clone();
    let runs = api
        .ask(move |fleet| {
            let all = fleet.runs(&by)?;
            let chosen = all.into_iter().filter(|(id, _)| chosen.contains(id));
            chosen.map(|(id, record)| Ok((id, record, fleet.rounds(&by, id)?))).collect::<Result<Vec<_>, _>>()
        })
        .await?;
    let content = html! {
        (heading("Runs beside each other", &html! { a.button href="/learning" { "All runs" } }))
        @if runs.is_empty() { p.notice { "No run is chosen: choose some in the list of runs, up to " (CURVES_MAX) "." } }
        @for (kind, of) in KINDS {
            @let known: BTreeSet<String> = runs.iter().flat_map(|(_, _, rounds)| names(rounds, of)).collect();
            @if !known.is_empty() {
                section.card {
                    h2 { (kind) }
                    div.charts.wide {
                        @for name in &known {
                            @let curves: Vec<Curve> = runs.iter()
                                .map(|(id, record, rounds)| curve(format!("{id} {}", record.title), rounds, of, name))
                                .collect();
                            (draw(name, &curves))
                        }
                    }
                }
            }
        }
        @if !runs.is_empty() {
            section.card { h2 { "What was asked" } (list(runs.iter().map(|(id, record, _)| (*id, record)))) }
        }
    };
    Ok(page(&visitor, Place::Learning, "Runs beside each other", &content))
}
