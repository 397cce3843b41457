//! The form with which a run of learning begins.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use revoada_core::Digest;
use revoada_proto::Kind;
use serde_json::{Map, Value, json};

use super::fields::{Fields, Form, Query};
use super::new_rollout::{Artefacts, offered, preview_text};
use super::shell::{self, Answer, Place, Refusal, heading, page};
use super::visitor::Visitor;
use crate::api::{Api, Problem};
use crate::service::{DevicesForm, Principal, ReleaseForm, ReleaseRolloutForm, RunForm};

/// A strategy, what it is for, and its parameters with what people begin with.
type Strategy = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const STRATEGIES: [Strategy; 10] = [
    ("FedAvg", "the mean, weighted by examples", &[]),
    ("FedProx", "the mean; programs keep close to the weights", &[("proximal_mu", "0.1")]),
    ("FedAvgM", "a mean with momentum", &[("server_learning_rate", "1"), ("server_momentum", "0.9")]),
    (
        "FedAdam",
        "the server steps as Adam does",
        &[("eta", "0.1"), ("beta_1", "0.9"), ("beta_2", "0.99"), ("tau", "0.001")],
    ),
    ("FedAdagrad", "the server steps as Adagrad does", &[("eta", "0.1"), ("tau", "0.001")]),
    (
        "FedYogi",
        "the server steps as Yogi does",
        &[("eta", "0.01"), ("beta_1", "0.9"), ("beta_2", "0.99"), ("tau", "0.001")],
    ),
    ("FedMedian", "withstands liars: the median of each weight", &[]),
    ("FedTrimmedAvg", "withstands liars: the mean without either end", &[("beta", "0.2")]),
    ("Krum", "withstands liars: the update closest to most", &[("num_malicious_nodes", "1")]),
    (
        "MultiKrum",
        "withstands liars: the mean of the closest",
        &[("num_malicious_nodes", "1"), ("num_nodes_to_select", "3")],
    ),
];

/// How our devices learn, as `revoada learn train` takes it.
const SETTINGS: [(&str, &str); 5] = [
    ("hidden", "Neurons of a layer before the last"),
    ("epochs", "Epochs of a round"),
    ("batch", "Examples of a step"),
    ("rate", "Learning rate"),
    ("held_out", "Share of the pictures that are only judged by"),
];

/// With what the address says filled in.
pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    form_page(&api, &visitor, &query, None).await
}

async fn form_page(api: &Api, visitor: &Visitor, fields: &Fields, problem: Option<&Problem>) -> Answer {
    let (artefacts, count) = offered(api, visitor, fields).await?;
    let content = html! {
        (heading("New run", &html! {}))
        @if let Some(problem) = problem { (shell::wrong(&problem.detail)) }
        form.sections method="post" action="/learning" {
            (what(fields))
            (devices(fields, &artefacts, &count))
            (strategy(fields))
            (privacy(fields))
            (care(fields))
            (afterwards(fields, &api.pictures.sets()))
            div.actions { button.main { "Add the run" } }
        }
    };
    Ok(page(visitor, Place::Learning, "New run", &content))
}

fn number(fields: &Fields, name: &str, title: &str, default: &str) -> Markup {
    html! { label { (title) input name=(name) inputmode="decimal" value=(fields.some(name).unwrap_or(default)); } }
}

fn what(fields: &Fields) -> Markup {
    html! {
        fieldset.card {
            legend { "What" }
            div.fields {
                label { "Title" input name="title" maxlength="128" placeholder="as the strategy is called" value=(fields.text("title")); }
                (number(fields, "rounds", "Rounds", "10"))
                (number(fields, "participants_min", "Participants to begin with", "2"))
                (number(fields, "quorum", "Quorum of updates", "2"))
                (number(fields, "sample", "Invite: all, a number, a share", "all"))
                (number(fields, "round_timeout", "A round takes at most", "10m"))
                (number(fields, "pause", "Between rounds", "0s"))
                label { "Not before (UTC)" input name="starts_at" placeholder="2026-05-04T22:00:00Z" value=(fields.text("starts_at")); }
                label { "For the programs, NAME=VALUE, a line each"
                    textarea name="config" rows="3" spellcheck="false" { (fields.text("config")) } }
            }
        }
    }
}

/// Who learns: devices of ours the head of a model, where one is chosen.
fn devices(fields: &Fields, artefacts: &Artefacts, count: &Result<usize, String>) -> Markup {
    let chosen = fields.text("model");
    html! {
        fieldset.card {
            legend { "Devices" }
            p.hint {
                "Our devices learn the last layers of a classifier from their own pictures. Where no model is chosen, clients of "
                "Flower learn, and the rest of this is left empty. What is not said is as " code { "revoada learn train" } " has it."
            }
            div.fields {
                label { "Model"
                    select name="model" {
                        option value="" { "none: clients of Flower learn" }
                        @for (artefact, versions) in artefacts.iter().filter(|(artefact, _)| artefact.kind == Kind::Model) {
                            @for version in versions {
                                option value=(version.digest) selected[version.digest.to_string() == chosen] {
                                    (artefact.name) " " (version.version)
                                }
                            }
                        }
                    }
                }
                label { "Filter; empty is every device"
                    input name="filter" value=(fields.text("filter")) maxlength="4096" spellcheck="false" autocapitalize="off"
                        placeholder="tag = entrance" data-preview="/rollouts/preview" aria-describedby="preview";
                }
            }
            p.hint #preview aria-live="polite" { (preview_text(count)) }
            div.fields {
                @for (name, title) in SETTINGS { (number(fields, name, title, "")) }
                label.check { input type="checkbox" name="balanced" value="yes" checked[fields.some("balanced").is_some()]; "Labels with few pictures count as much as others" }
                label { "Labels, a line each; empty is what the model tells apart"
                    textarea name="labels" rows="3" spellcheck="false" { (fields.text("labels")) } }
            }
        }
    }
}

fn strategy(fields: &Fields) -> Markup {
    let chosen = fields.some("strategy").unwrap_or("FedAvg");
    html! {
        fieldset.card {
            legend { "Strategy" }
            div.strategies {
                @for (name, meaning, parameters) in STRATEGIES {
                    div.strategy {
                        label.check { input type="radio" name="strategy" value=(name) checked[name == chosen]; b { (name) } }
                        span.meaning { (meaning) }
                        @for (parameter, default) in parameters {
                            @let field = format!("{name}.{parameter}");
                            label { (parameter)
                                input name=(field) inputmode="decimal" value=(fields.some(&field).unwrap_or(default)); }
                        }
                    }
                }
            }
        }
    }
}

fn privacy(fields: &Fields) -> Markup {
    html! {
        fieldset.card {
            legend { "Privacy" }
            p.hint { "Central differential privacy, where a clipping norm is given: updates are clipped to it, and noise is added to their mean. It goes with means alone." }
            div.fields {
                (number(fields, "clipping_norm", "Clipping norm", ""))
                (number(fields, "target_quantile", "It follows this quantile of the norms", ""))
                (number(fields, "noise_multiplier", "Noise, × the clipping norm", "1.0"))
                (number(fields, "delta", "δ", "0.00001"))
            }
        }
    }
}

fn care(fields: &Fields) -> Markup {
    html! {
        fieldset.card {
            legend { "What counts" }
            div.fields {
                (number(fields, "norm_max", "An update moves the weights by at most", ""))
                (number(fields, "refusals_max", "Refused updates of one participant", "3"))
                (number(fields, "failures_max", "Rounds called off in a row", "3"))
                label.check { input type="checkbox" name="skip_evaluation" value="yes" checked[fields.some("skip_evaluation").is_some()]; "Do not have participants evaluate" }
            }
        }
    }
}

/// What becomes of what devices have learned.
fn afterwards(fields: &Fields, sets: &[String]) -> Markup {
    let chosen = fields.text("pictures");
    html! {
        fieldset.card {
            legend { "Afterwards" }
            p.hint {
                "What devices have learned is judged after each round by labelled pictures of the service's own. Where a version is "
                "named, it is registered once the run has ended, if it is right about more of them than the model was."
                @if sets.is_empty() { " This service has none: " code { "learning.pictures" } " names their folder." }
            }
            div.fields {
                label { "Pictures"
                    select name="pictures" {
                        option value="" { "none" }
                        @for set in sets { option value=(set) selected[set == chosen] { (set) } }
                    }
                }
                label { "Release as version" input name="release" maxlength="64" value=(fields.text("release")); }
                (number(fields, "gain_min", "Right about more by, 0 to 1", "0"))
                label.check { input type="checkbox" name="roll_out" value="yes" checked[fields.some("roll_out").is_some()]; "Roll it out: one canary, a tenth, everybody" }
            }
        }
    }
}

/// Adds it, or shows the form again with what is wrong.
pub(super) async fn add(State(api): State<Api>, visitor: Visitor, Form(fields): Form) -> Result<Response, Refusal> {
    let added = match read(&api, &visitor.by, &fields).await {
        Err(problem) => Err(problem),
        Ok(form) => api.add_run(visitor.by.clone(), form).await,
    };
    match added {
        Ok(id) => Ok(Redirect::to(&format!("/learning/{id}?done=run")).into_response()),
        // Who may not add one is not shown the form.
        Err(problem) if problem.status == 403 => Err(problem.into()),
        Err(problem) => {
            let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::UNPROCESSABLE_ENTITY);
            Ok((status, form_page(&api, &visitor, &fields, Some(&problem)).await?).into_response())
        }
    }
}

/// As the REST API takes it, which says what is wrong with it.
async fn read(api: &Api, by: &Principal, fields: &Fields) -> Result<RunForm, Problem> {
    let model: Option<Digest> = fields.read("model")?;
    let mut form = read_form(fields)?;
    if let Some(digest) = model {
        let by = by.clone();
        let (version, _) = api.ask(move |fleet| fleet.version(&by, &digest)).await?;
        form.devices = Some(DevicesForm {
            model: version.name,
            version: version.version,
            filter: fields.some("filter").unwrap_or("all").to_owned(),
            labels: lines(fields, "labels").map(str::to_owned).collect(),
        });
        form.pictures = fields.some("pictures").map(str::to_owned);
        form.release = match fields.some("release") {
            Some(version) => Some(ReleaseForm {
                version: version.to_owned(),
                gain_min: fields.read("gain_min")?.unwrap_or_default(),
                rollout: fields.some("roll_out").map(|_| ReleaseRolloutForm::default()),
            }),
            None => None,
        };
        return Ok(form);
    }
    let of_devices =
        SETTINGS.map(|(name, _)| name).into_iter().chain(["filter", "labels", "balanced", "pictures", "release"]);
    match of_devices.into_iter().find(|name| fields.some(name).is_some()) {
        Some(name) => {
            let detail =
                format!("`{name}` is for devices: choose the model whose last layers they learn, or leave it empty");
            Err(wrong(detail))
        }
        None => Ok(form),
    }
}

fn wrong(detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

fn lines<'a>(fields: &'a Fields, name: &str) -> impl Iterator<Item = &'a str> {
    fields.text(name).lines().map(str::trim).filter(|line| !line.is_empty())
}

fn read_form(fields: &Fields) -> Result<RunForm, Problem> {
    let number = |name: &str| -> Result<Option<Value>, Problem> {
        let Some(text) = fields.some(name) else { return Ok(None) };
        let shown: String = text.chars().take(64).collect();
        let field = name.split('.').next_back().unwrap_or(name);
        match serde_json::from_str(text) {
            Ok(Value::Number(number)) => Ok(Some(Value::Number(number))),
            _ => Err(wrong(format!("`{field}` is `{shown}`, and has to be a number"))),
        }
    };
    let mut form = Map::new();
    for name in ["rounds", "participants_min", "quorum", "norm_max", "refusals_max", "failures_max"] {
        form.extend(number(name)?.map(|value| (name.to_owned(), value)));
    }
    for name in ["title", "sample", "round_timeout", "pause", "starts_at"] {
        form.extend(fields.some(name).map(|text| (name.to_owned(), json!(text))));
    }
    let chosen = fields.some("strategy").unwrap_or("FedAvg");
    let known = STRATEGIES.iter().find(|(name, ..)| *name == chosen);
    let (name, _, parameters) = known.ok_or_else(|| wrong("there is no such strategy".to_owned()))?;
    let mut strategy = Map::from_iter([("name".to_owned(), json!(name))]);
    for (parameter, _) in *parameters {
        strategy.extend(number(&format!("{name}.{parameter}"))?.map(|value| ((*parameter).to_owned(), value)));
    }
    form.insert("strategy".to_owned(), Value::Object(strategy));
    if let Some(norm) = number("clipping_norm")? {
        let mut privacy = Map::from_iter([("clipping_norm".to_owned(), norm)]);
        for name in ["target_quantile", "noise_multiplier", "delta"] {
            privacy.extend(number(name)?.map(|value| (name.to_owned(), value)));
        }
        form.insert("privacy".to_owned(), Value::Object(privacy));
    }
    form.insert("evaluate".to_owned(), json!(fields.some("skip_evaluation").is_none()));
    let mut config = Map::new();
    for line in lines(fields, "config") {
        let shown: String = line.chars().take(64).collect();
        let (name, value) = line.split_once('=').ok_or_else(|| wrong(format!("`{shown}` is not like `epochs=2`")))?;
        let value = match serde_json::from_str(value.trim()) {
            Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
            _ => json!(value.trim()),
        };
        config.insert(name.trim().to_owned(), value);
    }
    let mut settings = Vec::new();
    for (name, _) in SETTINGS {
        settings.extend(number(name)?.map(|value| (name, value)));
    }
    settings.extend(fields.some("balanced").map(|_| ("balanced", json!(true))));
    for (name, value) in settings {
        if config.insert(name.to_owned(), value).is_some() {
            return Err(wrong(format!("`{name}` is said twice")));
        }
    }
    form.insert("config".to_owned(), Value::Object(config));
    serde_json::from_value(Value::Object(form)).map_err(|error| wrong(error.to_string()))
}
