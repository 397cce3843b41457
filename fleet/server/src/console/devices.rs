//! The list of devices.

use axum::extract::State;
use maud::{Markup, html};
use revoada_proto::DeviceId;
use url::form_urlencoded;

use super::fields::Query;
use super::shell::{Answer, Place, done, heading, page, wrong};
use super::visitor::Visitor;
use super::words;
use crate::api::Api;
use crate::filter::Filter;
use crate::service::DeviceSummary;
use crate::store::Role;

const PAGE: usize = 50;

/// What people begin with.
const EXAMPLES: [&str; 4] = ["tag = entrance", "version < 1.4.0", "seen > 1h", "module ~ \"*Orin*\""];

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    let text = query.text("filter").to_owned();
    let read: Result<Filter, String> = match text.as_str() {
        "" => Ok(Filter::ALL),
        text => text.parse().map_err(|error: crate::FilterError| error.to_string()),
    };
    let after: Option<DeviceId> = query.read("after")?;
    let found = match read {
        Err(reason) => Err(reason),
        Ok(filter) => {
            let (by, after) = (visitor.by.clone(), after.clone());
            Ok(api.ask(move |fleet| fleet.devices(&by, &filter, after.as_ref(), PAGE)).await?)
        }
    };
    let enrol = html! { @if visitor.may(Role::Admin) { a.button.main href="/enrolment" { "Enrol devices" } } };
    let content = html! {
        (heading("Devices", &enrol))
        (done(&query))
        (filter_form(&text, found.as_ref().err()))
        @if let Ok((devices, matching)) = &found {
            section.card #devices data-live="device" { (list(devices, *matching, &text, after.is_some())) }
        }
    };
    Ok(page(&visitor, Place::Devices, "Devices", &content))
}

fn filter_form(text: &str, problem: Option<&String>) -> Markup {
    html! {
        form.filter method="get" action="/devices" role="search" {
            label for="filter" { "Filter" }
            input #filter name="filter" value=(text) maxlength="4096" spellcheck="false" autocapitalize="off"
                placeholder="tag = entrance and version >= 1.2.0" aria-invalid=[problem.map(|_| "true")]
                aria-describedby="filter-help";
            button.main { "Apply" }
            @if !text.is_empty() { a.button href="/devices" { "Show all" } }
        }
        @if let Some(problem) = problem { (wrong(&format!("The filter cannot be read: {problem}"))) }
        p.hint #filter-help {
            "For example "
            @for (index, example) in EXAMPLES.iter().enumerate() {
                @if index > 0 { ", " }
                a href={ "/devices?filter=" (encoded(example)) } { code { (example) } }
            }
        }
    }
}

fn list(devices: &[DeviceSummary], matching: usize, filter: &str, is_further: bool) -> Markup {
    let last = devices.last().filter(|_| devices.len() == PAGE);
    html! {
        p.summary { (words::count(matching, "device")) @if !filter.is_empty() { " match" } }
        @if devices.is_empty() { p.nothing { "There is no device to show." } }
        @else {
            table.collapses.devices {
                thead { tr {
                    th { "Device" } th { "Health" } th { "Version" } th { "Tags" }
                    th.number { "fps" } th.number { "p99 ms" } th { "Last seen" }
                } }
                tbody { @for device in devices { (row(device)) } }
            }
        }
        nav.pages aria-label="Pages" {
            @if is_further { a.button href={ "/devices?filter=" (encoded(filter)) } { "First page" } }
            @if let Some(last) = last {
                a.button href={ "/devices?filter=" (encoded(filter)) "&after=" (last.device) } { "Next page" }
            }
        }
    }
}

fn row(device: &DeviceSummary) -> Markup {
    let figures = device.report.as_ref().map(|report| &report.figures);
    html! {
        tr {
            td data-label="Device" { a.name href={ "/devices/" (device.device) } { (device.device) } }
            td.health data-label="Health" {
                (words::health(&device.health))
                @if let Some(why) = device.health.why() { small title=(why) { (words::text(why)) } }
            }
            td data-label="Version" { (device.version.as_deref().unwrap_or("–")) }
            td data-label="Tags" { (words::tags(&device.tags)) }
            td.number data-label="fps" { (words::figure(figures.and_then(|it| it.fps), 1)) }
            td.number data-label="p99 ms" { (words::figure(figures.and_then(|it| it.latency_ms), 1)) }
            td data-label="Last seen" {
                @if device.is_connected { span.online { "connected" } }
                @else if let Some(seen) = device.seen { (words::ago(seen)) }
                @else { "never" }
            }
        }
    }
}

/// As it stands in an address.
pub(super) fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
