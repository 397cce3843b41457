//! One rollout: its waves, its gates and its devices.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};
use revoada_proto::DeviceId;

use super::fields::{Form, Query};
use super::rollouts::{progress_bar, progress_text, what};
use super::shell::{Answer, Place, Refusal, done, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::{Api, Problem};
use crate::planner::{Gate, GateVerdict, GateView, Intent, Measure, Percent, Phase, RolloutId, Size};
use crate::service::{MemberView, RolloutView, WaveView};
use crate::store::Role;

const MEMBERS_SHOWN: usize = 50;

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Path(id): Path<u64>, Query(query): Query) -> Answer {
    let after: Option<DeviceId> = query.read("after")?;
    let (by, id) = (visitor.by.clone(), RolloutId(id));
    let (view, seen, members) = api
        .ask(move |fleet| {
            let members = fleet.rollout_members(&by, id, after.as_ref(), MEMBERS_SHOWN)?;
            Ok((fleet.rollout(&by, id)?, fleet.rollout_gates(&by, id)?, members))
        })
        .await?;
    let live = format!("rollout:{id} device");
    let content = html! {
        (heading(&view.note.title, &html! {}))
        (done(&query))
        div #state data-live=(live) { (state(&view)) }
        (orders(&visitor, &view))
        div.columns {
            div {
                section.card #waves data-live=(live) { h2 { "Waves" } (waves(&view)) }
                section.card #members data-live=(live) { h2 { "Devices" } (member_list(&view, &members)) }
            }
            div {
                section.card #gates data-live=(live) { h2 { "Gates" } (gates(&view, &seen)) }
                section.card { h2 { "About" } (about(&view)) }
            }
        }
    };
    Ok(page(&visitor, Place::Rollouts, &view.note.title, &content))
}

/// The status text holds one clause after the other: counts first, then what it waits for.
fn state(view: &RolloutView) -> Markup {
    let mut clauses = view.status.split("; ");
    let first = clauses.next().unwrap_or_default();
    html! {
        p.state { (words::phase(view.phase_name())) span { (first) } }
        @if let Some(Phase::Halted { why, .. }) = &view.phase { p.notice.wrong { "Halted: " (words::text(why)) } }
        (progress_bar(view))
        p.hint { (progress_text(view)) }
        ul.clauses { @for clause in clauses { li { (clause) } } }
    }
}

fn orders(visitor: &Visitor, view: &RolloutView) -> Markup {
    let is_over = matches!(view.phase, Some(Phase::Aborted { .. } | Phase::Superseded { .. }));
    if !visitor.may(Role::Operator) || is_over {
        return html! {};
    }
    let action = format!("/rollouts/{}/intent", view.id);
    let can_wait = matches!(view.phase, None | Some(Phase::Running { .. }));
    html! {
        div.orders {
            @if view.is_paused {
                form method="post" action=(action) {
                    button.main name="intent" value="resume" { "Resume" }
                }
            } @else if can_wait {
                form method="post" action=(action) { button name="intent" value="pause" { "Pause" } }
            }
            details.confirm {
                summary.button.danger { "Abort …" }
                form method="post" action=(action) {
                    p { "It ends for good, and no other device is ordered. Devices that have it keep it, or are ordered back." }
                    button.danger name="intent" value="abort" { "Abort, devices keep what they have" }
                    " "
                    button.danger name="intent" value="roll-back" { "Abort and roll back" }
                }
            }
        }
    }
}

fn waves(view: &RolloutView) -> Markup {
    let current = match view.phase {
        Some(Phase::Running { wave, .. }) => Some(wave),
        _ => None,
    };
    html! {
        table.collapses {
            thead { tr { th.number { "Wave" } th { "Size" } th.progress { "Progress" } th { "Goes on" } } }
            tbody {
                @for (index, (wanted, wave)) in view.rollout.waves.iter().zip(&view.waves).enumerate() {
                    tr aria-current=[(current == Some(index)).then_some("step")] {
                        td.number data-label="Wave" { (index + 1) }
                        td data-label="Size" { (size(wanted.size)) }
                        td.progress data-label="Progress" { (wave_bar(wave)) small { (wave_text(wave)) } }
                        td data-label="Goes on" {
                            small {
                                "at " (wanted.done) " done, or after " (words::duration(wanted.timeout))
                                "; soaks " (words::duration(wanted.soak))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn size(size: Size) -> String {
    match size {
        Size::Devices(count) => words::count(usize::try_from(count).unwrap_or(usize::MAX), "device"),
        Size::Share(Percent::ALL) => "all".to_owned(),
        Size::Share(percent) => percent.to_string(),
    }
}

fn wave_bar(wave: &WaveView) -> Markup {
    let parts = [("good", wave.reached), ("working", wave.in_flight), ("degraded", wave.gave_up)];
    words::bar(&parts, wave.devices, &wave_text(wave))
}

fn wave_text(wave: &WaveView) -> String {
    let mut text = format!("{} of {}", wave.reached, wave.devices);
    for (count, what) in [(wave.in_flight, "in flight"), (wave.gave_up, "gave up")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text
}

/// `seen` is what each gate sees, or nothing where none is watched.
fn gates(view: &RolloutView, seen: &[GateView]) -> Markup {
    html! {
        @if view.rollout.gates.is_empty() { p.nothing { "It has none: every wave passes." } }
        ul.rows {
            @for (index, gate) in view.rollout.gates.iter().enumerate() {
                @let seen = seen.get(index);
                li {
                    div.row-head {
                        b { (gate.measure.name()) }
                        @match seen.map(|seen| seen.verdict) {
                            None => span.badge.away { "not watched" },
                            Some(GateVerdict::Open) => span.badge.working { "open" },
                            Some(GateVerdict::Fails) => span.badge.degraded { "fails" },
                            Some(GateVerdict::Holds) => span.badge.good { "holds" },
                        }
                    }
                    @if let Some(seen) = seen { (figures(gate, seen)) }
                    span { (condition(gate)) }
                }
            }
        }
    }
}

/// What a gate is judged by: `agreement 0.970, at least 0.9 wanted`.
fn figures(gate: &Gate, seen: &GateView) -> Markup {
    let name = gate.measure.name();
    html! {
        strong {
            @match (wanted(gate.measure), &seen.worst) {
                (None, _) => {
                    (seen.samples - seen.breaches) " of "
                    (words::count(seen.samples.max(seen.samples_min), "device")) " done"
                },
                (Some(wanted), Some((_, figure))) => { (name) " " (figure) ", " (wanted) " wanted" },
                (Some(wanted), None) => { (name) " not measured yet, " (wanted) " wanted" },
            }
        }
        @if let Some((device, figure)) = &seen.worst {
            @if gate.measure != Measure::Outcome || seen.breaches > 0 {
                small {
                    "on " a href={ "/devices/" (device) } { (device) }
                    @if gate.measure == Measure::Outcome { " " (words::text(figure)) }
                    @else if seen.samples > 1 { ", the worst of " (words::count(seen.samples, "device")) }
                    "; " (seen.breaches) " of " (seen.samples) " miss it"
                }
            }
        }
        @if seen.verdict == GateVerdict::Open {
            small { (seen.samples) " of " (words::count(seen.samples_min, "device")) " measured" }
        }
    }
}

/// `None` for what has no threshold.
fn wanted(measure: Measure) -> Option<String> {
    Some(match measure {
        Measure::Outcome => return None,
        Measure::Restarts { per_hour_max } => format!("at most {per_hour_max} an hour"),
        Measure::Fps { of_before_min } => format!("at least {:.0} % of before", of_before_min * 100.0),
        Measure::Latency { of_before_max } => format!("at most {:.0} % of before", of_before_max * 100.0),
        Measure::Agreement { min } | Measure::Accuracy { min } => format!("at least {min}"),
        Measure::Temperature { celsius_max } => format!("at most {celsius_max} °C"),
    })
}

fn condition(gate: &Gate) -> String {
    let measure = match gate.measure {
        Measure::Outcome => "has not given up".to_owned(),
        Measure::Restarts { per_hour_max } => format!("at most {per_hour_max} restarts an hour"),
        Measure::Fps { of_before_min } => format!("at least {:.0} % of the frame rate before", of_before_min * 100.0),
        Measure::Latency { of_before_max } => format!("at most {:.0} % of the latency before", of_before_max * 100.0),
        Measure::Agreement { min } => format!("agrees with the model before by at least {:.0} %", min * 100.0),
        Measure::Accuracy { min } => format!("names at least {:.0} % of its labelled pictures rightly", min * 100.0),
        Measure::Temperature { celsius_max } => format!("at most {celsius_max} °C"),
    };
    let missing = match gate.breaches_max {
        Percent::ZERO => "no device may miss it".to_owned(),
        percent => format!("at most {percent} of devices may miss it"),
    };
    format!("{measure}; {missing}; judged from {}", words::count(gate.samples_min.get() as usize, "device"))
}

fn member_list(view: &RolloutView, members: &[MemberView]) -> Markup {
    let last = members.last().filter(|_| members.len() == MEMBERS_SHOWN);
    html! {
        @if members.is_empty() { p.nothing { "It has no device yet." } }
        @else {
            table.collapses {
                thead { tr { th { "Device" } th.number { "Wave" } th { "Standing" } th.number { "Attempts" } } }
                tbody {
                    @for member in members {
                        tr {
                            td data-label="Device" { a.name href={ "/devices/" (member.device) } { (member.device) } }
                            td.number data-label="Wave" { (member.wave) }
                            td data-label="Standing" {
                                @if member.is_back { span.badge.degraded { "back" } " " }
                                (words::text(&member.standing))
                            }
                            td.number data-label="Attempts" { (member.attempts) }
                        }
                    }
                }
            }
        }
        @if let Some(last) = last {
            nav.pages aria-label="Pages" { a.button href={ "/rollouts/" (view.id) "?after=" (last.device) } { "Next page" } }
        }
    }
}

fn about(view: &RolloutView) -> Markup {
    let retry = &view.rollout.retry;
    html! {
        dl.facts {
            div { dt { "number" } dd { (view.id) } }
            div { dt { "what" } dd { (what(view)) } }
            div { dt { "digest" } dd { (words::digest(&view.rollout.deployable.digest)) } }
            div { dt { "devices" } dd { code { (view.rollout.filter) } } }
            div { dt { "begun" } dd { (words::ago(view.note.created_at)) " by " (view.note.created_by) } }
            div { dt { "tries" } dd { (retry.attempts_max) ", first after " (words::duration(retry.delay)) } }
        }
    }
}

pub(super) async fn intend(
    State(api): State<Api>,
    visitor: Visitor,
    Path(id): Path<u64>,
    Form(fields): Form,
) -> Result<Redirect, Refusal> {
    let intent = match fields.text("intent") {
        "pause" => Intent::Pause,
        "resume" => Intent::Run,
        "abort" => Intent::Abort { rolls_back: false },
        "roll-back" => Intent::Abort { rolls_back: true },
        _ => return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "there is no such intent").into()),
    };
    api.ask(move |fleet| fleet.intend(&visitor.by, RolloutId(id), intent)).await?;
    Ok(Redirect::to(&format!("/rollouts/{id}?done=intent")))
}
