//! `/runs`: what the fleet learns together.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, Caller, Problem, Time};
use crate::learning::{MemberRecord, Outcome, ReleaseError, RoundRecord, RunId, RunIntent, rounds_csv};
use crate::service::{Principal, RunForm, chain, wall};
use crate::store::{Role, RunRecord};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(show, remove))
        .routes(routes!(rounds))
        .routes(routes!(csv))
        .routes(routes!(members))
        .routes(routes!(weights))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(stop))
        .routes(routes!(release))
}

/// A run, and how far it is.
#[derive(Serialize, ToSchema)]
pub(super) struct RunJson {
    id: u64,
    title: String,
    created_by: String,
    created_at: Time,
    /// As Flower names it.
    strategy: &'static str,
    /// `waiting`, `learning`, `evaluating`, `releasing`, `finished`, `stopped` or `failed`.
    phase: &'static str,
    /// How far it is, for people.
    status: String,
    /// That is under way, or was last; 0 before the first.
    round: u64,
    rounds: u64,
    is_paused: bool,
    /// The newest weights: a blob, in the safetensors format.
    weights: Option<String>,
    /// ε of all rounds so far, where there is privacy.
    epsilon: Option<f64>,
    /// Who was refused too often.
    set_aside: Vec<String>,
    /// Of a run that is finished and of which a release was planned.
    outcome: Option<OutcomeJson>,
}

/// What became of what was learned.
#[derive(Serialize, ToSchema)]
struct OutcomeJson {
    /// The share of the service's pictures that the model was right about.
    accuracy_before: Option<f64>,
    /// The share that it is right about with what was learned.
    accuracy: Option<f64>,
    /// The version that it became.
    digest: Option<String>,
    /// That began with it.
    rollout: Option<u64>,
    /// Why it became no version, or was not rolled out.
    why: Option<String>,
}

impl From<Outcome> for OutcomeJson {
    fn from(outcome: Outcome) -> Self {
        let Outcome { accuracy_before, accuracy, digest, rollout, why } = outcome;
        Self { accuracy_before, accuracy, digest: digest.map(|digest| digest.to_string()), rollout, why }
    }
}

impl RunJson {
    fn new(id: RunId, record: RunRecord) -> Self {
        Self {
            id: id.0,
            status: record.status(),
            created_by: record.created_by.to_string(),
            created_at: record.created_at.into(),
            strategy: record.plan.recipe.strategy.name(),
            phase: record.state.phase.name(),
            round: record.state.round,
            rounds: record.plan.rounds,
            is_paused: record.intent == RunIntent::Pause,
            weights: record.state.weights.map(|held| held.digest.to_string()),
            epsilon: record.state.epsilon,
            set_aside: record.state.set_aside.into_iter().map(|participant| participant.0).collect(),
            outcome: record.state.outcome.map(OutcomeJson::from),
            title: record.title,
        }
    }
}

/// A number that participants reported, over all of them or of one.
#[derive(Serialize, ToSchema)]
struct FigureJson {
    name: String,
    value: f64,
}

fn figures(figures: Vec<(String, f64)>) -> Vec<FigureJson> {
    figures.into_iter().map(|(name, value)| FigureJson { name, value }).collect()
}

#[derive(Serialize, ToSchema)]
struct RoundJson {
    /// From 1.
    round: u64,
    began_at: Time,
    ended_at: Option<Time>,
    /// `collecting`, `aggregating`, `finished` or `called-off`.
    status: &'static str,
    /// Of one that was called off.
    why: Option<String>,
    invited: usize,
    /// That counted.
    updates: usize,
    /// That did not.
    refused: u64,
    examples: u64,
    bytes_received: u64,
    bytes_sent: u64,
    /// After learning, weighted by examples.
    fit: Vec<FigureJson>,
    /// Of the new weights, weighted by examples.
    evaluation: Vec<FigureJson>,
    evaluated_by: usize,
    /// By the service's own pictures: `accuracy` and `loss`.
    judged: Vec<FigureJson>,
    /// Why it could not tell.
    not_judged: Option<String>,
    /// ε of all rounds so far.
    epsilon: Option<f64>,
    clipping_norm: Option<f64>,
}

impl From<RoundRecord> for RoundJson {
    fn from(record: RoundRecord) -> Self {
        let (status, why) = record.status();
        let (why, result) = (why.map(str::to_owned), record.result);
        Self {
            round: record.head.number,
            began_at: record.head.began.into(),
            ended_at: result.ended.map(Time::from),
            status,
            why,
            invited: result.invited,
            updates: result.updates,
            refused: result.refused,
            examples: result.examples,
            bytes_received: result.bytes_received,
            bytes_sent: result.bytes_sent,
            fit: figures(result.fit),
            evaluation: figures(result.evaluation),
            evaluated_by: result.evaluated_by,
            judged: figures(result.judged),
            not_judged: result.not_judged,
            epsilon: result.epsilon,
            clipping_norm: result.clipping_norm,
        }
    }
}

/// A participant in a round.
#[derive(Serialize, ToSchema)]
struct MemberJson {
    participant: String,
    /// `invited`, `sent`, `left` or `set-aside`.
    status: &'static str,
    /// For people: why it left, or why its last update was refused.
    why: Option<String>,
    refusals: u32,
    bytes: u64,
    /// Of its update's difference from the weights that it began with.
    norm: Option<f64>,
    /// From the invitation to the update.
    seconds: Option<f64>,
    fit: Vec<FigureJson>,
    evaluation: Vec<FigureJson>,
}

impl MemberJson {
    fn new(participant: String, record: MemberRecord) -> Self {
        let (status, why) = record.status();
        let (why, result) = (why.map(str::to_owned), record.result);
        Self {
            participant,
            status,
            why,
            refusals: record.member.refusals,
            bytes: result.bytes,
            norm: result.norm,
            seconds: result.seconds,
            fit: figures(result.fit),
            evaluation: figures(result.evaluation),
        }
    }
}

/// All runs, the newest first.
#[utoipa::path(get, path = "/runs", tag = "learning", responses(
    (status = 200, body = Vec<RunJson>), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn list(State(api): State<Api>, Caller(by): Caller) -> Result<Json<Vec<RunJson>>, Problem> {
    let runs = api.ask(move |fleet| fleet.runs(&by)).await?;
    Ok(Json(runs.into_iter().rev().map(|(id, record)| RunJson::new(id, record)).collect()))
}

#[derive(Serialize, ToSchema)]
struct RunAdded {
    id: u64,
}

/// Adds a run, which begins as soon as enough participants are there.
#[utoipa::path(post, path = "/runs", tag = "learning", request_body = RunForm, responses(
    (status = 201, body = RunAdded), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem)))]
async fn add(
    State(api): State<Api>,
    Caller(by): Caller,
    form: Result<Json<RunForm>, JsonRejection>,
) -> Result<(StatusCode, Json<RunAdded>), Problem> {
    let Json(form) = form?;
    let id = api.add_run(by, form).await?;
    Ok((StatusCode::CREATED, Json(RunAdded { id: id.0 })))
}

/// One run.
#[utoipa::path(get, path = "/runs/{id}", tag = "learning", params(("id" = u64, Path)), responses(
    (status = 200, body = RunJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn show(
    State(api): State<Api>,
    Caller(by): Caller,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Json<RunJson>, Problem> {
    let id = RunId(id?.0);
    let record = api.ask(move |fleet| fleet.run(&by, id)).await?;
    Ok(Json(RunJson::new(id, record)))
}

/// Forgets a run that is over.
#[utoipa::path(delete, path = "/runs/{id}", tag = "learning", params(("id" = u64, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove(
    State(api): State<Api>,
    Caller(by): Caller,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let id = RunId(id?.0);
    api.ask(move |fleet| fleet.remove_run(&by, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The rounds of a run, from the first on.
#[utoipa::path(get, path = "/runs/{id}/rounds", tag = "learning", params(("id" = u64, Path)), responses(
    (status = 200, body = Vec<RoundJson>), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn rounds(
    State(api): State<Api>,
    Caller(by): Caller,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Json<Vec<RoundJson>>, Problem> {
    let id = RunId(id?.0);
    let rounds = api.ask(move |fleet| fleet.rounds(&by, id)).await?;
    Ok(Json(rounds.into_iter().map(RoundJson::from).collect()))
}

/// The rounds of a run as a table.
#[utoipa::path(get, path = "/runs/{id}/rounds.csv", tag = "learning", params(("id" = u64, Path)), responses(
    (status = 200, content_type = "text/csv", body = String), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn csv(
    State(api): State<Api>,
    Caller(by): Caller,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Response, Problem> {
    let id = RunId(id?.0);
    let rounds = api.ask(move |fleet| fleet.rounds(&by, id)).await?;
    let text = rounds_csv(&rounds, |at| humantime::format_rfc3339_millis(wall(at)).to_string());
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response())
}

/// Who takes part in a round, or took.
#[utoipa::path(get, path = "/runs/{id}/rounds/{round}/participants", tag = "learning",
    params(("id" = u64, Path), ("round" = u64, Path)), responses(
    (status = 200, body = Vec<MemberJson>), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn members(
    State(api): State<Api>,
    Caller(by): Caller,
    path: Result<Path<(u64, u64)>, PathRejection>,
) -> Result<Json<Vec<MemberJson>>, Problem> {
    let Path((id, round)) = path?;
    let members = api.ask(move |fleet| fleet.round_members(&by, RunId(id), round)).await?;
    Ok(Json(members.into_iter().map(|(participant, record)| MemberJson::new(participant.0, record)).collect()))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WeightsQuery {
    /// Those that this round has made; the newest where it is not given. Of a long run the first and the newest are kept.
    round: Option<u64>,
}

/// What was learned: a file in the safetensors format.
#[utoipa::path(get, path = "/runs/{id}/weights", tag = "learning", params(("id" = u64, Path), WeightsQuery), responses(
    (status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn weights(
    State(api): State<Api>,
    Caller(by): Caller,
    id: Result<Path<u64>, PathRejection>,
    query: Result<Query<WeightsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (id, Query(WeightsQuery { round })) = (RunId(id?.0), query?);
    let digest = api.ask(move |fleet| fleet.learned_weights(&by, id, round)).await?;
    let missing = || Problem::new(StatusCode::NOT_FOUND, "these weights are not kept any more");
    api.send_blob(digest, "application/octet-stream").await?.ok_or_else(missing)
}

/// What a bundle of what was learned is called.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReleaseForm {
    version: String,
}

#[derive(Serialize, ToSchema)]
struct ReleasedJson {
    name: String,
    version: String,
    digest: String,
}

/// Registers the newest weights of a run of devices as a version of the model that they learn the head of.
#[utoipa::path(post, path = "/runs/{id}/release", tag = "learning", params(("id" = u64, Path)),
    request_body = ReleaseForm, responses(
    (status = 201, body = ReleasedJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
    (status = 429, body = Problem), (status = 507, body = Problem)))]
async fn release(
    State(api): State<Api>,
    Caller(by): Caller,
    id: Result<Path<u64>, PathRejection>,
    form: Result<Json<ReleaseForm>, JsonRejection>,
) -> Result<(StatusCode, Json<ReleasedJson>), Problem> {
    let (id, Json(form)) = (RunId(id?.0), form?);
    let version = api.releaser.release(&by, id, &form.version).await?;
    let released = ReleasedJson { name: version.name, version: version.version, digest: version.digest.to_string() };
    Ok((StatusCode::CREATED, Json(released)))
}

impl From<ReleaseError> for Problem {
    fn from(error: ReleaseError) -> Self {
        match error {
            ReleaseError::Blob(error) => error.into(),
            ReleaseError::Import(error) => error.into(),
            ReleaseError::Service(error) => error.into(),
            ReleaseError::Store(_) | ReleaseError::Bundle(_) | ReleaseError::Folder(_) => Self::internal(&error),
            error => Self::new(StatusCode::CONFLICT, chain(&error)),
        }
    }
}

impl Api {
    /// Adds a run whose pictures and key there are.
    pub(crate) async fn add_run(&self, by: Principal, form: RunForm) -> Result<RunId, Problem> {
        by.require(Role::Operator)?;
        let wrong = |detail: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        if let Some(set) = &form.pictures {
            self.pictures.set(set).map_err(wrong)?;
        }
        if form.release.is_some() && self.releaser.key.is_none() {
            return Err(ReleaseError::NoKey.into());
        }
        self.ask(move |fleet| fleet.add_run(&by, &form)).await
    }
}

async fn intend(api: &Api, by: Caller, id: u64, intent: RunIntent) -> Result<StatusCode, Problem> {
    api.ask(move |fleet| fleet.intend_run(&by.0, RunId(id), intent)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins no new round.
#[utoipa::path(post, path = "/runs/{id}/pause", tag = "learning", params(("id" = u64, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn pause(
    State(api): State<Api>,
    by: Caller,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    intend(&api, by, id?.0, RunIntent::Pause).await
}

/// Goes on with a run that was paused.
#[utoipa::path(post, path = "/runs/{id}/resume", tag = "learning", params(("id" = u64, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn resume(
    State(api): State<Api>,
    by: Caller,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    intend(&api, by, id?.0, RunIntent::Go).await
}

/// Ends a run for good. The round that is under way is called off.
#[utoipa::path(post, path = "/runs/{id}/stop", tag = "learning", params(("id" = u64, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn stop(State(api): State<Api>, by: Caller, id: Result<Path<u64>, PathRejection>) -> Result<StatusCode, Problem> {
    intend(&api, by, id?.0, RunIntent::Stop).await
}
