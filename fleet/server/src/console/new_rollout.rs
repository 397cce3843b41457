//! The form with which a rollout begins.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use maud::{Markup, html};
use revoada_core::Digest;

use super::fields::{Fields, Form, Query};
use super::shell::{Answer, Place, Refusal, heading, page, wrong};
use super::visitor::Visitor;
use super::words;
use crate::api::{Api, Problem};
use crate::filter::Filter;
use crate::service::{DurationText, GateForm, MeasureName, RetryForm, RolloutForm, WaveForm, kind_name};
use crate::store::{Artefact, ArtefactVersion, Role};

/// Rows for waves that are free beside those that are filled.
const WAVES_FREE: usize = 2;

/// One canary, a tenth, everybody: size, share in percent, time-out, soak.
const WAVES: [[&str; 4]; 3] = [["1", "100", "24h", "10m"], ["10%", "95", "24h", "30m"], ["100%", "95", "24h", "10m"]];

const WAVE_FIELDS: [&str; 4] = ["size", "done_percent", "timeout", "soak"];

/// What a gate is on, what its threshold means, and one that people begin with.
const GATES: [(MeasureName, &str, &str, &str); 7] = [
    (MeasureName::Outcome, "outcome", "no device has given up", ""),
    (MeasureName::Restarts, "restarts", "restarts an hour, at most", "2"),
    (MeasureName::Fps, "fps", "share of the frame rate before, at least", "0.9"),
    (MeasureName::Latency, "latency", "share of the latency before, at most", "1.2"),
    (MeasureName::Agreement, "agreement", "agreement with the model before, at least", "0.9"),
    (MeasureName::Accuracy, "accuracy", "accuracy on the device's labelled pictures (classifiers), at least", "0.8"),
    (MeasureName::Temperature, "temperature", "°C, at most", "85"),
];

pub(super) type Artefacts = Vec<(Artefact, Vec<ArtefactVersion>)>;

/// With what the address says filled in.
pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    form_page(&api, &visitor, &query, None).await
}

/// What there is to choose from, and how many devices the filter means that is typed; or what is wrong with it.
pub(super) async fn offered(
    api: &Api,
    visitor: &Visitor,
    fields: &Fields,
) -> Result<(Artefacts, Result<usize, String>), Problem> {
    let (by, filter) = (visitor.by.clone(), fields.text("filter").to_owned());
    api.ask(move |fleet| {
        by.require(Role::Operator)?;
        let count = match read_filter(&filter) {
            Ok(filter) => Ok(fleet.preview(&by, &filter)?),
            Err(reason) => Err(reason),
        };
        Ok((fleet.artefacts(&by)?, count))
    })
    .await
}

async fn form_page(api: &Api, visitor: &Visitor, fields: &Fields, problem: Option<&Problem>) -> Answer {
    let (artefacts, count) = offered(api, visitor, fields).await?;
    let content = html! {
        (heading("New rollout", &html! {}))
        @if let Some(problem) = problem { (wrong(&problem.detail)) }
        @if artefacts.iter().all(|(_, versions)| versions.is_empty()) {
            p.notice { "Nothing is registered yet: " code { "revoada-fleet models push" } " registers a bundle." }
        }
        form.sections method="post" action="/rollouts" {
            (what(fields, &artefacts))
            (to_whom(fields, &count))
            (wave_rows(fields))
            (gate_rows(fields))
            div.actions {
                button.main { "Begin the rollout" }
                // The same page again, with the devices counted and room for more waves.
                button formmethod="get" formaction="/rollouts/new" formnovalidate { "Check without beginning" }
            }
        }
    };
    Ok(page(visitor, Place::Rollouts, "New rollout", &content))
}

pub(super) fn read_filter(text: &str) -> Result<Filter, String> {
    match text {
        "" => Ok(Filter::ALL),
        text => text.parse().map_err(|error: crate::FilterError| error.to_string()),
    }
}

fn what(fields: &Fields, artefacts: &Artefacts) -> Markup {
    let chosen = fields.text("digest");
    html! {
        fieldset.card {
            legend { "What" }
            div.fields {
                label { "Version"
                    select name="digest" required {
                        @for (artefact, versions) in artefacts.iter().filter(|(_, versions)| !versions.is_empty()) {
                            optgroup label={ (kind_name(artefact.kind)) " " (artefact.name) } {
                                @for version in versions {
                                    option value=(version.digest) selected[version.digest.to_string() == chosen] {
                                        (version.name) " " (version.version)
                                    }
                                }
                            }
                        }
                    }
                }
                label { "Title" input name="title" maxlength="200" placeholder="as the version is called" value=(fields.text("title")); }
            }
        }
    }
}

fn to_whom(fields: &Fields, count: &Result<usize, String>) -> Markup {
    html! {
        fieldset.card {
            legend { "To which devices" }
            label { "Filter; empty is every device"
                input name="filter" value=(fields.text("filter")) maxlength="4096" spellcheck="false" autocapitalize="off"
                    placeholder="tag = entrance and version >= 1.2.0" data-preview="/rollouts/preview"
                    aria-describedby="preview";
            }
            p.hint #preview aria-live="polite" { (preview_text(count)) }
        }
    }
}

pub(super) fn preview_text(count: &Result<usize, String>) -> Markup {
    match count {
        Ok(count) => html! { "Now it means " b { (words::count(*count, "device")) } "." },
        Err(reason) => html! { span.wrong-text { "It cannot be read: " (reason) } },
    }
}

/// How many devices a filter means now: a piece of a page.
pub(super) async fn preview(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    let count = match read_filter(query.text("filter")) {
        Err(reason) => Err(reason),
        Ok(filter) => Ok(api.ask(move |fleet| fleet.preview(&visitor.by, &filter)).await?),
    };
    Ok(Html(preview_text(&count).into_string()))
}

fn wave_rows(fields: &Fields) -> Markup {
    let mut rows: Vec<[String; 4]> = typed_waves(fields);
    if fields.is_empty() || !fields.all("size").any(|_| true) {
        rows = WAVES.map(|row| row.map(str::to_owned)).into();
    }
    rows.extend(std::iter::repeat_n([const { String::new() }; 4], WAVES_FREE));
    rows.truncate(crate::planner::WAVES_MAX);
    let titles = ["Size: a number or a share", "Done, in percent", "At the latest after", "Soaks for"];
    html! {
        fieldset.card {
            legend { "Waves" }
            p.hint { "One after the other; sizes count the waves before. The last is " code { "100%" } ". Rows without a size are left out." }
            div.grid.waves {
                @for title in titles { span.grid-head aria-hidden="true" { (title) } }
                @for (index, row) in rows.iter().enumerate() {
                    @for ((name, title), value) in WAVE_FIELDS.iter().zip(titles).zip(row) {
                        input name=(name) value=(value) aria-label={ "Wave " (index + 1) ": " (title) };
                    }
                }
            }
        }
    }
}

fn typed_waves(fields: &Fields) -> Vec<[String; 4]> {
    let [sizes, dones, timeouts, soaks] =
        WAVE_FIELDS.map(|name| fields.all(name).map(str::to_owned).collect::<Vec<String>>());
    let at = |column: &[String], index: usize| column.get(index).cloned().unwrap_or_default();
    let rows = sizes.iter().enumerate().filter(|(_, size)| !size.is_empty());
    rows.map(|(index, size)| [size.clone(), at(&dones, index), at(&timeouts, index), at(&soaks, index)]).collect()
}

fn gate_rows(fields: &Fields) -> Markup {
    let is_first = !fields.all("size").any(|_| true);
    html! {
        fieldset.card {
            legend { "Gates" }
            p.hint { "Watched from the first order on. One that fails halts the rollout and has its devices go back." }
            div.gates {
                @for (_, name, meaning, default) in GATES {
                    @let is_on = if is_first { name == "outcome" } else { fields.all("gate").any(|on| on == name) };
                    @let of = |field: &str, default: &str| {
                        fields.some(&format!("{name}.{field}")).unwrap_or(default).to_owned()
                    };
                    div.gate {
                        label.check { input type="checkbox" name="gate" value=(name) checked[is_on]; b { (name) } }
                        span.meaning { (meaning) }
                        @if !default.is_empty() {
                            label { "Threshold"
                                input name={ (name) ".threshold" } inputmode="decimal" value=(of("threshold", default)); }
                        }
                        label { "May miss it, %"
                            input name={ (name) ".breaches" } inputmode="numeric" value=(of("breaches", "0")); }
                        label { "Devices, min."
                            input name={ (name) ".samples" } inputmode="numeric" value=(of("samples", "1")); }
                    }
                }
            }
        }
    }
}

/// Begins it, or shows the form again with what is wrong.
pub(super) async fn begin(State(api): State<Api>, visitor: Visitor, Form(fields): Form) -> Result<Response, Refusal> {
    let by = visitor.by.clone();
    let begun = match read(&fields) {
        Err(problem) => Err(problem),
        Ok((digest, form)) => {
            let begin = move |fleet: &crate::service::Fleet| {
                let (version, _) = fleet.version(&by, &digest)?;
                let form = RolloutForm { kind: version.kind, name: version.name, version: version.version, ..form };
                fleet.add_rollout(&by, &form)
            };
            api.ask(begin).await
        }
    };
    match begun {
        Ok(id) => Ok(Redirect::to(&format!("/rollouts/{id}?done=rollout")).into_response()),
        // Who may not begin one is not shown the form.
        Err(problem) if problem.status == 403 => Err(problem.into()),
        Err(problem) => {
            let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
            Ok((status, form_page(&api, &visitor, &fields, Some(&problem)).await?).into_response())
        }
    }
}

/// The version, and all else; what the version is called is looked up.
fn read(fields: &Fields) -> Result<(Digest, RolloutForm), Problem> {
    let wrong = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
    let digest: Option<Digest> = fields.read("digest")?;
    let duration = |text: &str, default: &str| {
        let text = if text.is_empty() { default } else { text };
        DurationText::try_from(text.to_owned()).map_err(wrong)
    };
    let mut waves = Vec::new();
    for [size, done, timeout, soak] in typed_waves(fields) {
        let done = if done.is_empty() { "100" } else { done.trim_end_matches('%').trim() };
        waves.push(WaveForm {
            size: size.parse().map_err(wrong)?,
            done_percent: done.parse().map_err(|_| wrong(format!("`{}` is no share in percent", shortened(done))))?,
            timeout: duration(&timeout, "24h")?,
            soak: duration(&soak, "10m")?,
        });
    }
    let mut gates = Vec::new();
    for (measure, name, ..) in GATES.into_iter().filter(|(_, name, ..)| fields.all("gate").any(|on| on == *name)) {
        let number = |field: &str| {
            let text = fields.text(&format!("{name}.{field}"));
            text.parse::<f64>().map_err(|_| wrong(format!("`{}` is no {field} of gate `{name}`", shortened(text))))
        };
        let whole = |field: &str| {
            let text = fields.text(&format!("{name}.{field}"));
            text.parse::<u32>().map_err(|_| wrong(format!("`{}` is no {field} of gate `{name}`", shortened(text))))
        };
        gates.push(GateForm {
            measure,
            threshold: if measure == MeasureName::Outcome { None } else { Some(number("threshold")?) },
            breaches_percent_max: u8::try_from(whole("breaches")?)
                .map_err(|_| wrong(format!("gate `{name}` may be missed by at most 100 %")))?,
            samples_min: whole("samples")?
                .try_into()
                .map_err(|_| wrong(format!("gate `{name}` needs at least one device")))?,
            over_min: DurationText(std::time::Duration::from_secs(30)),
        });
    }
    let filter = fields.some("filter").unwrap_or("all").to_owned();
    let form = RolloutForm {
        title: fields.text("title").to_owned(),
        kind: revoada_proto::Kind::Model,
        name: String::new(),
        version: String::new(),
        filter,
        waves,
        gates: Some(gates),
        retry: RetryForm::default(),
    };
    Ok((digest.ok_or_else(|| wrong("choose a version".to_owned()))?, form))
}

/// So that an answer is never longer than what was asked.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
