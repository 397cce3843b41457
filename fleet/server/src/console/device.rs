//! One device.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, State};
use maud::{Markup, html};
use revoada_core::{Digest, Timestamp};
use revoada_proto::{Ask, DeviceId, Kind, Progress};

use super::chart::Chart;
use super::device_forms::{administration, command_forms, tag_form};
use super::fields::Query;
use super::shell::{Answer, Place, done, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::Api;
use crate::service::{self, DeviceView, Fleet, Principal, kind_name};
use crate::store::{Bucket, CommandRecord, CommandState, EventQuery, EventRecord, Gauge, Page, Step};

const EVENTS_SHOWN: usize = 20;
const COMMANDS_SHOWN: usize = 8;

/// How far back charts go.
const SPANS: [(&str, &str, Duration, Step); 3] = [
    ("2h", "2 hours", Duration::from_hours(2), Step::Minute),
    ("3d", "3 days", Duration::from_hours(72), Step::QuarterHour),
    ("90d", "90 days", Duration::from_hours(90 * 24), Step::Day),
];

const CHARTS: [(Gauge, &str, &str); 3] = [
    (Gauge::Fps, "Frames a second", "fps"),
    (Gauge::Latency, "Latency p99", "ms"),
    (Gauge::Temperature, "Temperature", "°C"),
];

/// Everything that the page shows.
struct Seen {
    view: DeviceView,
    history: [Vec<Bucket>; 3],
    events: Vec<EventRecord>,
    commands: Vec<CommandRecord>,
    /// What digests are called, as far as they are registered.
    names: BTreeMap<Digest, String>,
}

impl Seen {
    fn name(&self, digest: &Digest) -> String {
        self.names.get(digest).cloned().unwrap_or_else(|| digest.short())
    }
}

pub(super) async fn show(
    State(api): State<Api>,
    visitor: Visitor,
    Path(device): Path<DeviceId>,
    Query(query): Query,
) -> Answer {
    let (span, _, last, step) = SPANS.into_iter().find(|(name, ..)| *name == query.text("span")).unwrap_or(SPANS[0]);
    let by = visitor.by.clone();
    let seen = api.ask(move |fleet| look(fleet, &by, &device, last, step)).await?;
    let summary = &seen.view.summary;
    let state = html! {
        (words::health(&summary.health))
        @if summary.is_connected { span.online { "connected" } }
        @else if let Some(at) = summary.seen { span.muted { "seen " (words::ago(at)) } }
        @else { span.muted { "never heard of" } }
    };
    let live = format!("device:{0} command:{0} event:{0}", summary.device);
    let content = html! {
        (heading(summary.device.as_str(), &html! {}))
        (done(&query))
        div #now data-live=(live) {
            p.state { (state) @if let Some(why) = summary.health.why() { span { (words::text(why)) } } }
            (figures(&seen.view))
        }
        div.columns {
            div {
                section.card #charts data-live=(live) { (charts(&seen, span, last, step)) }
                section.card #streams data-live=(live) { h2 { "Streams" } (streams(&seen.view)) }
                section.card #deployment data-live=(live) { h2 { "Deployment" } (deployment(&seen)) }
                section.card #events data-live=(live) { h2 { "Events" } (events(&seen.events)) }
            }
            div {
                section.card {
                    h2 { "Commands" }
                    (command_forms(&visitor, &seen.view, |digest| seen.name(digest)))
                    div #commands data-live=(live) { (commands(&seen)) }
                }
                section.card { h2 { "Tags" } (tag_form(&visitor, &seen.view)) }
                section.card #facts data-live=(live) { h2 { "Facts" } (facts(&seen.view)) }
                section.card #certificates data-live=(live) { h2 { "Certificates" } (certificates(&seen.view)) }
                (administration(&visitor, &seen.view))
            }
        }
    };
    Ok(page(&visitor, Place::Devices, summary.device.as_str(), &content))
}

fn look(fleet: &Fleet, by: &Principal, device: &DeviceId, last: Duration, step: Step) -> service::Result<Seen> {
    let view = fleet.device(by, device)?;
    let mut history: [Vec<Bucket>; 3] = Default::default();
    for (buckets, (gauge, ..)) in history.iter_mut().zip(CHARTS) {
        *buckets = fleet.history(by, device, gauge, step, last)?;
    }
    let query = EventQuery { device: Some(device.clone()), ..EventQuery::default() };
    let events = fleet.events(by, &query, Page::first(EVENTS_SHOWN))?;
    let commands = fleet.commands(by, device, Page::first(COMMANDS_SHOWN))?;
    let running = view.summary.report.iter().flat_map(|report| report.running.values());
    let desired = view.order.iter().flat_map(|order| &order.deployables).map(|deployable| &deployable.digest);
    let slots = view.details.slots.iter().map(|slot| &slot.digest);
    let swapped = commands.iter().filter_map(|command| match &command.ask {
        Ask::SwapModel { digest } => Some(digest),
        _ => None,
    });
    let mut names = BTreeMap::new();
    for digest in running.chain(desired).chain(slots).chain(swapped) {
        // What is not registered any more has no name.
        if let Ok((version, _)) = fleet.version(by, digest) {
            names.insert(*digest, format!("{} {}", version.name, version.version));
        }
    }
    Ok(Seen { view, history, events, commands, names })
}

fn figures(view: &DeviceView) -> Markup {
    let figures = view.summary.report.as_ref().map(|report| report.figures.clone()).unwrap_or_default();
    let dropped: u64 = view.details.streams.iter().fold(0, |sum, stream| sum.saturating_add(stream.dropped));
    html! {
        dl.figures {
            div { dt { "Frames a second" } dd { (words::figure(figures.fps, 1)) } }
            div { dt { "Latency p99" } dd { (words::figure(figures.latency_ms, 1)) small { " ms" } } }
            div { dt { "Temperature" } dd { (words::figure(figures.temperature_c, 1)) small { " °C" } } }
            div { dt { "Power" } dd { (words::figure(figures.power_w, 1)) small { " W" } } }
            div { dt { "Agreement" } dd { (words::figure(figures.agreement.map(|share| share * 100.0), 1)) small { " %" } } }
            div { dt { "Accuracy" } dd { (words::figure(figures.accuracy.map(|share| share * 100.0), 1)) small { " %" } } }
            div { dt { "Restarts" } dd { (figures.restarts) } }
            div { dt { "Dropped frames" } dd { (words::whole(dropped)) } }
        }
        p.hint {
            "Measured since it last changed what it runs, " (words::duration(figures.over)) " ago. "
            @if let Some(class) = &view.summary.class { (class.replace('`', "")) }
        }
    }
}

fn charts(seen: &Seen, span: &str, last: Duration, step: Step) -> Markup {
    let to = service::now();
    let from = Timestamp::ZERO + to.since(Timestamp::ZERO).saturating_sub(last);
    let device = &seen.view.summary.device;
    html! {
        h2 {
            "History"
            nav.spans aria-label="How far back" {
                @for (name, title, ..) in SPANS {
                    a href={ "/devices/" (device) "?span=" (name) } aria-current=[(name == span).then_some("true")] { (title) }
                }
            }
        }
        div.charts {
            @for (buckets, (_, title, unit)) in seen.history.iter().zip(CHARTS) {
                (Chart { title, unit, buckets, from, to, step }.draw())
            }
        }
    }
}

fn streams(view: &DeviceView) -> Markup {
    html! {
        @if view.details.streams.is_empty() { p.nothing { "It reports no stream." } }
        @else {
            table.collapses {
                thead { tr { th { "Stream" } th.number { "fps" } th.number { "Frames" } th.number { "Dropped" } th.number { "Reconnects" } th { "State" } } }
                tbody {
                    @for stream in &view.details.streams {
                        tr {
                            td data-label="Stream" { b { (words::text(&stream.stream)) } }
                            td.number data-label="fps" { (words::figure(Some(stream.fps), 1)) }
                            td.number data-label="Frames" { (words::whole(stream.frames)) }
                            td.number data-label="Dropped" { (words::whole(stream.dropped)) }
                            td.number data-label="Reconnects" { (stream.reconnects) }
                            td data-label="State" {
                                @match &stream.trouble {
                                    Some(trouble) => { span.badge.degraded { "trouble" } " " (words::text(trouble)) }
                                    None => { span.badge.good { "runs" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What it should run against what it does, and what lies in its slots.
fn deployment(seen: &Seen) -> Markup {
    let report = seen.view.summary.report.as_ref();
    let order = seen.view.order.as_ref();
    let named = |digest: Option<&Digest>| match digest {
        Some(digest) => html! { (seen.name(digest)) small.digest { (words::digest(digest)) } },
        None => html! { span.none { "–" } },
    };
    html! {
        table.collapses {
            thead { tr { th { "Kind" } th { "Desired" } th { "Running" } th { "Slots" } } }
            tbody {
                @for kind in [Kind::Package, Kind::Pipeline, Kind::Model] {
                    @let desired = order.and_then(|order| order.of(kind));
                    @let running = report.and_then(|report| report.running.get(&kind).copied());
                    tr {
                        td data-label="Kind" { (kind_name(kind)) }
                        td data-label="Desired" { (named(desired.as_ref())) }
                        td data-label="Running" {
                            (named(running.as_ref()))
                            @if desired.is_some() && desired != running { " " span.badge.working { "differs" } }
                        }
                        td data-label="Slots" {
                            @for slot in seen.view.details.slots.iter().filter(|slot| slot.kind == kind) {
                                span.slot { (words::text(&slot.slot)) ": " (seen.name(&slot.digest)) @if slot.is_active { " (active)" } } " "
                            }
                        }
                    }
                }
            }
        }
        @if let Some(report) = report {
            p.hint {
                "Generation " (report.generation)
                @if let Some(order) = order { " of " (order.generation) }
                ": "
                @match &report.progress {
                    Progress::Done => { "done" }
                    Progress::Working { what } => { (words::text(what)) }
                    Progress::Failed { why, .. } => { "failed: " (words::text(why)) }
                }
            }
        }
        @if let Some((generation, why)) = &seen.view.details.refused {
            p.hint { "It refused the order of generation " (generation) ": " (words::text(why)) }
        }
    }
}

fn events(events: &[EventRecord]) -> Markup {
    html! {
        @if events.is_empty() { p.nothing { "Nothing happened yet." } }
        @else {
            table.collapses.events {
                thead { tr { th { "When" } th { "Level" } th { "What" } } }
                tbody {
                    @for EventRecord { occurrence, .. } in events {
                        tr {
                            td data-label="When" { (words::ago(occurrence.at)) }
                            td data-label="Level" { (words::level(occurrence.event.level)) }
                            td.wide data-label="What" { b { (occurrence.event.name) } " " (words::text(&occurrence.event.text)) }
                        }
                    }
                }
            }
        }
    }
}

fn commands(seen: &Seen) -> Markup {
    html! {
        @if seen.commands.is_empty() { p.nothing { "Nothing was asked of it yet." } }
        ul.rows {
            @for command in &seen.commands {
                @let (state, text) = state(&command.state);
                li {
                    div.row-head { b { (asked(seen, &command.ask)) } span class={ "badge command-" (state) } { (state) } }
                    @if !text.is_empty() { span { (words::text(text)) } }
                    @if let Some(answer) = &command.answer {
                        @let address = format!("/api/v1/devices/{}/commands/{}/answer", command.device, command.number);
                        @if answer.media_type == "image/jpeg" {
                            a.snapshot href=(address) {
                                img src=(address) width="640" height="360" loading="lazy" alt={ "Picture of " (asked(seen, &command.ask)) };
                            }
                        } @else { a href=(address) { "Show what it sent" } }
                    }
                    small { (command.by) ", " (words::ago(command.issued_at)) }
                }
            }
        }
    }
}

fn asked(seen: &Seen, ask: &Ask) -> String {
    match ask {
        Ask::RestartPipeline => "Restart the pipeline".to_owned(),
        Ask::SwapModel { digest } => format!("Swap to {}", seen.name(digest)),
        Ask::Snapshot { stream } => format!("Picture of {stream}"),
        Ask::FetchLogs { lines } => format!("Newest {lines} lines of the log"),
        Ask::Label { stream, track, label } => format!("Keep track {track} of {stream} as {label}"),
        Ask::Forget { label: Some(label) } => format!("Forget pictures of {label}"),
        Ask::Forget { label: None } => "Forget all pictures to learn from".to_owned(),
    }
}

fn state(state: &CommandState) -> (&'static str, &str) {
    match state {
        CommandState::Queued => ("queued", ""),
        CommandState::Sent => ("sent", ""),
        CommandState::Done { text } => ("done", text),
        CommandState::Failed { text } => ("failed", text),
        CommandState::Expired => ("expired", ""),
    }
}

fn facts(view: &DeviceView) -> Markup {
    html! {
        dl.facts {
            div { dt { "enrolled" } dd { (words::day(view.enrolled_at)) } }
            div { dt { "version" } dd { (view.summary.version.as_deref().unwrap_or("–")) } }
            @if view.is_builder { div { dt { "builder" } dd { "builds plans for others of its class" } } }
            @for (name, fact) in &view.details.facts { div { dt { (name) } dd { (words::fact(fact)) } } }
        }
    }
}

fn certificates(view: &DeviceView) -> Markup {
    let now = service::now();
    html! {
        @if view.certificates.is_empty() { p.nothing { "It has none." } }
        ul.rows {
            @for certificate in &view.certificates {
                li {
                    div.row-head {
                        code title=(certificate.serial) { (certificate.serial.get(..12).unwrap_or(&certificate.serial)) }
                        @if certificate.revoked_at.is_some() { span.badge.degraded { "revoked" } }
                        @else if certificate.not_after <= now { span.badge.away { "expired" } }
                        @else { span.badge.good { "valid" } }
                    }
                    small {
                        @if let Some(at) = certificate.revoked_at { "revoked " (words::ago(at)) }
                        @else { "since " (words::day(certificate.issued_at)) ", until " (words::day(certificate.not_after)) }
                    }
                }
            }
        }
    }
}
