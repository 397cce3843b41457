//! One run of learning: its rounds, what came of them, and who took part.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use revoada_federated::{Participant, Sample};

use super::curves::draw;
use super::fields::{Form, Query};
use super::learning::{KINDS, curve, names, rounds_bar};
use super::shell::{Answer, Place, Refusal, done, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::{Api, Problem};
use crate::learning::{MemberRecord, Participants, RoundRecord, RunId, RunIntent, RunPhase, learned_model, rounds_csv};
use crate::service::{SampleText, wall};
use crate::store::{Role, RunRecord};

/// Of the newest; all of them are in the export.
const ROUNDS_SHOWN: usize = 50;
const MEMBERS_SHOWN: usize = 100;

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Path(id): Path<u64>, Query(query): Query) -> Answer {
    let shown: Option<u64> = query.read("round")?;
    let (by, id) = (visitor.by.clone(), RunId(id));
    let (record, rounds, round, members) = api
        .ask(move |fleet| {
            let record = fleet.run(&by, id)?;
            let round = shown.unwrap_or(record.state.round);
            Ok((record, fleet.rounds(&by, id)?, round, fleet.round_members(&by, id, round)?))
        })
        .await?;
    let members: Vec<(Participant, MemberRecord)> = members.into_iter().collect();
    let live = format!("run:{id}");
    let export =
        html! { @if !rounds.is_empty() { a.button href={ "/learning/" (id) "/rounds.csv" } { "Export as CSV" } } };
    let content = html! {
        (heading(&record.title, &export))
        (done(&query))
        div #state data-live=(live) { (state(&record)) }
        (orders(&visitor, id, &record))
        section.card #figures data-live=(live) { (figures(id, &rounds)) }
        div.columns {
            div {
                section.card #rounds data-live=(live) { h2 { "Rounds" } (round_list(id, &rounds, round)) }
            }
            div {
                section.card #members data-live=(live) { h2 { "Participants of round " (round) } (member_list(&members)) }
                section.card { h2 { "About" } (about(id, &record)) }
            }
        }
    };
    Ok(page(&visitor, Place::Learning, &record.title, &content))
}

fn state(record: &RunRecord) -> Markup {
    html! {
        p.state { (words::phase(record.state.phase.name())) span { (record.status()) } }
        @if let RunPhase::Failed { why } = &record.state.phase { p.notice.wrong { (words::text(why)) } }
        (rounds_bar(record))
        @if let Some(epsilon) = record.state.epsilon { p.hint { "ε " (format!("{epsilon:.3}")) " of all rounds so far" } }
    }
}

fn orders(visitor: &Visitor, id: RunId, record: &RunRecord) -> Markup {
    if !visitor.may(Role::Operator) {
        return html! {};
    }
    let action = format!("/learning/{id}/intent");
    html! {
        div.orders {
            @if is_releasable(record) {
                form.inline method="post" action={ "/learning/" (id) "/release" } {
                    input name="version" required maxlength="64" placeholder="Version" autocapitalize="off" aria-label="Version to release as";
                    button { "Release as version" }
                }
            }
            @if record.state.phase.is_over() {
                details.confirm {
                    summary.button.danger { "Remove …" }
                    form method="post" action=(action) {
                        p { "It and its rounds are forgotten, and the weights that it made." }
                        button.danger name="intent" value="remove" { "Remove" }
                    }
                }
            } @else {
                @if record.intent == RunIntent::Pause {
                    form method="post" action=(action) { button.main name="intent" value="resume" { "Resume" } }
                } @else {
                    form method="post" action=(action) { button name="intent" value="pause" { "Pause" } }
                }
                details.confirm {
                    summary.button.danger { "Stop …" }
                    form method="post" action=(action) {
                        p { "It ends for good; the round that is under way is called off." }
                        button.danger name="intent" value="stop" { "Stop" }
                    }
                }
            }
        }
    }
}

/// Whether devices have learned something of which a bundle can be made.
fn is_releasable(record: &RunRecord) -> bool {
    learned_model(record).is_some() && record.state.weights.is_some() && record.state.round > 0
}

fn figures(id: RunId, rounds: &[RoundRecord]) -> Markup {
    html! {
        @if KINDS.iter().all(|(_, of)| names(rounds, *of).is_empty()) {
            p.nothing { "No participant has reported anything yet." }
        }
        @for (kind, of) in KINDS {
            @let known = names(rounds, of);
            @if !known.is_empty() {
                h2 { (kind) }
                div.charts {
                    @for name in &known { (draw(name, &[curve(id.to_string(), rounds, of, name)])) }
                }
            }
        }
    }
}

fn round_list(id: RunId, rounds: &[RoundRecord], shown: u64) -> Markup {
    html! {
        @if rounds.is_empty() { p.nothing { "No round has begun yet." } }
        @else {
            table.collapses {
                thead { tr {
                    th.number { "Round" } th { "Status" } th.number { "Updates" } th.number { "Refused" }
                    th.number { "Examples" } th.number { "Received" } th.number { "ε" } th { "Took" }
                } }
                tbody {
                    @for round in rounds.iter().rev().take(ROUNDS_SHOWN) {
                        @let (status, why) = round.status();
                        tr aria-current=[(round.head.number == shown).then_some("step")] {
                            td.number data-label="Round" { a href={ "/learning/" (id) "?round=" (round.head.number) } { (round.head.number) } }
                            td data-label="Status" {
                                (words::phase(status))
                                @if let Some(why) = why.or(round.result.not_judged.as_deref()) { " " small { (words::text(why)) } }
                            }
                            td.number data-label="Updates" { (round.result.updates) " of " (round.result.invited) }
                            td.number data-label="Refused" { (round.result.refused) }
                            td.number data-label="Examples" { (words::whole(round.result.examples)) }
                            td.number data-label="Received" { (words::bytes(round.result.bytes_received)) }
                            td.number data-label="ε" { (words::figure(round.result.epsilon, 3)) }
                            td data-label="Took" {
                                @if let Some(ended) = round.result.ended {
                                    (seconds(ended.since(round.head.began).as_secs_f64()))
                                } @else { "began " (words::ago(round.head.began)) }
                            }
                        }
                    }
                }
            }
            @if rounds.len() > ROUNDS_SHOWN { p.hint { "The newest " (ROUNDS_SHOWN) " of " (rounds.len()) "; the export has all." } }
        }
    }
}

fn member_list(members: &[(Participant, MemberRecord)]) -> Markup {
    html! {
        @if members.is_empty() { p.nothing { "Nobody was invited yet." } }
        @else {
            table.collapses {
                thead { tr { th { "Participant" } th { "Status" } th.number { "Bytes" } th { "Reported" } } }
                tbody {
                    @for (participant, record) in members.iter().take(MEMBERS_SHOWN) {
                        @let (status, why) = record.status();
                        tr {
                            td data-label="Participant" { (name(&participant.0)) }
                            td data-label="Status" {
                                (words::phase(status))
                                @if let Some(why) = why { " " small { (words::text(why)) } }
                            }
                            td.number data-label="Bytes" { (words::bytes(record.result.bytes)) }
                            td data-label="Reported" {
                                small {
                                    @for (name, value) in &record.result.fit { (name) " " (format!("{value:.4}")) " " }
                                    @if let Some(norm) = record.result.norm { "moved by " (format!("{norm:.3}")) " " }
                                    @if let Some(seconds) = &record.result.seconds { "in " (self::seconds(*seconds)) }
                                }
                            }
                        }
                    }
                }
            }
            @if members.len() > MEMBERS_SHOWN { p.hint { "The first " (MEMBERS_SHOWN) " of " (members.len()) "." } }
        }
    }
}

/// Those that Flower's clients are given are long, and told apart by their beginning.
fn name(participant: &str) -> Markup {
    const CHARS_MAX: usize = 18;
    match participant.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => html! { span title=(participant) { (&participant[..end]) "…" } },
        None => html! { (participant) },
    }
}

fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.0} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

fn about(id: RunId, record: &RunRecord) -> Markup {
    let plan = &record.plan;
    html! {
        dl.facts {
            div { dt { "number" } dd { (id) } }
            div { dt { "strategy" } dd { (plan.recipe.strategy.name()) } }
            @if let Some(privacy) = plan.recipe.privacy {
                div { dt { "privacy" } dd { "noise " (privacy.noise) " × the clipping norm, δ " (format!("{:e}", privacy.delta)) } }
            }
            div { dt { "invites" } dd { (sample(plan.sample)) } }
            div { dt { "needs" } dd { (needs(&plan.participants)) ", quorum " (plan.recipe.quorum) } }
            div { dt { "a round takes" } dd { "at most " (words::duration(plan.round_time_max)) } }
            div { dt { "added" } dd { (words::ago(record.created_at)) " by " (record.created_by) } }
            @if let Some(starts_at) = plan.starts_at { div { dt { "begins" } dd { (words::ago(starts_at)) } } }
            @if let Some(held) = &record.state.weights { div { dt { "newest weights" } dd {
                    (words::digest(&held.digest)) " "
                    a href={ "/api/v1/runs/" (id) "/weights" } download={ "run-" (id) ".safetensors" } { "Save" }
                } } }
            @if let Some(set) = &plan.pictures { div { dt { "judged by" } dd { "the pictures of " (set) } } }
            @if let Some(release) = &plan.release {
                div { dt { "released as" } dd {
                    (release.version) ", if better"
                    @if release.gain_min > 0.0 { " by " (format!("{:.1} %", release.gain_min * 100.0)) }
                    @if release.rollout.is_some() { ", and rolled out" }
                } }
            }
            @if let Some(outcome) = &record.state.outcome {
                @if let Some(digest) = &outcome.digest { div { dt { "version" } dd { (words::digest(digest)) } } }
                @if let Some(rollout) = outcome.rollout {
                    div { dt { "rollout" } dd { a href={ "/rollouts/" (rollout) } { (rollout) } } }
                }
            }
            @if !record.state.set_aside.is_empty() {
                div { dt { "set aside" } dd { (words::count(record.state.set_aside.len(), "participant")) } }
            }
        }
    }
}

fn sample(sample: Sample) -> String {
    match sample {
        Sample::All => "everybody who is there".to_owned(),
        sample => format!("{} of those that are there", SampleText(sample)),
    }
}

fn needs(participants: &Participants) -> String {
    match participants {
        Participants::Flower { clients_min, .. } => words::count(*clients_min, "participant"),
        Participants::Devices { devices_min, .. } => words::count(*devices_min, "device"),
    }
}

pub(super) async fn csv(State(api): State<Api>, visitor: Visitor, Path(id): Path<u64>) -> Result<Response, Refusal> {
    let rounds = api.ask(move |fleet| fleet.rounds(&visitor.by, RunId(id))).await?;
    let text = rounds_csv(&rounds, |at| humantime::format_rfc3339_millis(wall(at)).to_string());
    let name = format!("attachment; filename=\"run-{id}.csv\"");
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()), (header::CONTENT_DISPOSITION, name)], text)
        .into_response())
}

/// Registers the newest weights in the model whose head they are, and shows that version.
pub(super) async fn release(
    State(api): State<Api>,
    visitor: Visitor,
    Path(id): Path<u64>,
    Form(fields): Form,
) -> Result<Redirect, Refusal> {
    let released = api.releaser.release(&visitor.by, RunId(id), fields.text("version")).await;
    let version = released.map_err(Problem::from)?;
    Ok(Redirect::to(&format!("/models/{}?done=released", version.digest)))
}

pub(super) async fn intend(
    State(api): State<Api>,
    visitor: Visitor,
    Path(id): Path<u64>,
    Form(fields): Form,
) -> Result<Redirect, Refusal> {
    let id = RunId(id);
    let intent = match fields.text("intent") {
        "pause" => RunIntent::Pause,
        "resume" => RunIntent::Go,
        "stop" => RunIntent::Stop,
        "remove" => {
            api.ask(move |fleet| fleet.remove_run(&visitor.by, id)).await?;
            return Ok(Redirect::to("/learning?done=removed"));
        }
        _ => return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "there is no such intent").into()),
    };
    api.ask(move |fleet| fleet.intend_run(&visitor.by, id, intent)).await?;
    Ok(Redirect::to(&format!("/learning/{id}?done=run-intent")))
}
