//! `/rollouts` and `/limits`.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use revoada_proto::DeviceId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, Caller, Problem, Time, limit};
use crate::planner::{Intent, Phase, RolloutId};
use crate::service::{DurationText, GateForm, RolloutForm, RolloutProgress, RolloutView, SizeText, WaveForm};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(show, remove))
        .routes(routes!(members))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(abort))
}

/// A rollout, and how far it is.
#[derive(Serialize, ToSchema)]
pub(super) struct RolloutJson {
    id: u64,
    title: String,
    created_by: String,
    created_at: Time,
    /// `model`, `pipeline` or `package`.
    kind: &'static str,
    digest: String,
    /// Where it is still registered.
    name: Option<String>,
    version: Option<String>,
    filter: String,
    /// `new`, `running`, `paused`, `finished`, `halted`, `aborted` or `superseded`.
    phase: &'static str,
    /// Which is under way, from 1.
    wave: Option<usize>,
    /// How far it is, for people.
    status: String,
    /// Of one that was halted: which gate failed, and how.
    why: Option<String>,
    progress: RolloutProgress,
    waves: Vec<WaveJson>,
    gates: Vec<GateForm>,
}

/// A [`WaveForm`], and how far it is.
#[derive(Serialize, ToSchema)]
struct WaveJson {
    #[schema(value_type = String, example = "10%")]
    size: SizeText,
    done_percent: u8,
    #[schema(value_type = String, example = "24h")]
    timeout: DurationText,
    #[schema(value_type = String, example = "10m")]
    soak: DurationText,
    devices: usize,
    reached: usize,
    gave_up: usize,
    in_flight: usize,
}

impl From<RolloutView> for RolloutJson {
    fn from(view: RolloutView) -> Self {
        let wanted = view.rollout.waves.iter().map(WaveForm::from);
        let waves = wanted.zip(&view.waves).map(|(wanted, wave)| WaveJson {
            size: wanted.size,
            done_percent: wanted.done_percent,
            timeout: wanted.timeout,
            soak: wanted.soak,
            devices: wave.devices,
            reached: wave.reached,
            gave_up: wave.gave_up,
            in_flight: wave.in_flight,
        });
        let wave = match view.phase {
            Some(Phase::Running { wave, .. }) => Some(wave + 1),
            _ => None,
        };
        let (name, version) = view.artefact.clone().unzip();
        Self {
            id: view.id.0,
            title: view.note.title.clone(),
            created_by: view.note.created_by.to_string(),
            created_at: view.note.created_at.into(),
            kind: crate::service::kind_name(view.rollout.deployable.kind),
            digest: view.rollout.deployable.digest.to_string(),
            name,
            version,
            filter: view.rollout.filter.to_string(),
            phase: view.phase_name(),
            wave,
            status: view.status.clone(),
            why: match &view.phase {
                Some(Phase::Halted { why, .. }) => Some(why.clone()),
                _ => None,
            },
            progress: view.progress.clone(),
            gates: view.rollout.gates.iter().map(GateForm::from).collect(),
            waves: waves.collect(),
        }
    }
}

/// All rollouts, the newest first.
#[utoipa::path(get, path = "/rollouts", tag = "rollouts", responses(
    (status = 200, body = Vec<RolloutJson>), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn list(State(api): State<Api>, Caller(by): Caller) -> Result<Json<Vec<RolloutJson>>, Problem> {
    let views = api.ask(move |fleet| fleet.rollouts(&by)).await?;
    Ok(Json(views.into_iter().map(RolloutJson::from).collect()))
}

#[derive(Serialize, ToSchema)]
struct Added {
    id: u64,
}

/// Begins a rollout of a registered version.
#[utoipa::path(post, path = "/rollouts", tag = "rollouts", request_body = RolloutForm, responses(
    (status = 201, body = Added), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem), (status = 413, body = Problem),
    (status = 415, body = Problem), (status = 422, body = Problem)))]
async fn add(
    State(api): State<Api>,
    Caller(by): Caller,
    form: Result<Json<RolloutForm>, JsonRejection>,
) -> Result<(StatusCode, Json<Added>), Problem> {
    let Json(form) = form?;
    let id = api.ask(move |fleet| fleet.add_rollout(&by, &form)).await?;
    Ok((StatusCode::CREATED, Json(Added { id: id.0 })))
}

/// One rollout.
#[utoipa::path(get, path = "/rollouts/{id}", tag = "rollouts", params(("id" = u64, Path)), responses(
    (status = 200, body = RolloutJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn show(
    State(api): State<Api>,
    Caller(by): Caller,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Json<RolloutJson>, Problem> {
    let Path(id) = id?;
    let view = api.ask(move |fleet| fleet.rollout(&by, RolloutId(id))).await?;
    Ok(Json(view.into()))
}

/// Forgets a rollout. Its devices keep what they have.
#[utoipa::path(delete, path = "/rollouts/{id}", tag = "rollouts", params(("id" = u64, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem)))]
async fn remove(
    State(api): State<Api>,
    Caller(by): Caller,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(id) = id?;
    api.ask(move |fleet| fleet.remove_rollout(&by, RolloutId(id))).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct MembersQuery {
    /// After the device of this name.
    #[param(value_type = Option<String>)]
    after: Option<DeviceId>,
    /// At most so many, up to 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A device of a rollout, and why it is where it is.
#[derive(Serialize, ToSchema)]
struct MemberJson {
    device: String,
    /// From 1.
    wave: usize,
    /// Whether it is ordered back.
    is_back: bool,
    attempts: u32,
    /// For people.
    standing: String,
}

/// Devices of a rollout, by name.
#[utoipa::path(get, path = "/rollouts/{id}/devices", tag = "rollouts", params(("id" = u64, Path), MembersQuery),
    responses((status = 200, body = Vec<MemberJson>), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn members(
    State(api): State<Api>,
    Caller(by): Caller,
    id: Result<Path<u64>, PathRejection>,
    query: Result<Query<MembersQuery>, QueryRejection>,
) -> Result<Json<Vec<MemberJson>>, Problem> {
    let (Path(id), Query(query)) = (id?, query?);
    let members = move |fleet: &crate::service::Fleet| {
        fleet.rollout_members(&by, RolloutId(id), query.after.as_ref(), limit(query.limit))
    };
    let members = api.ask(members).await?.into_iter().map(|member| MemberJson {
        device: member.device.to_string(),
        wave: member.wave,
        is_back: member.is_back,
        attempts: member.attempts,
        standing: member.standing,
    });
    Ok(Json(members.collect()))
}

async fn intend(api: &Api, by: Caller, id: u64, intent: Intent) -> Result<StatusCode, Problem> {
    api.ask(move |fleet| fleet.intend(&by.0, RolloutId(id), intent)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives no new orders, but for rollbacks.
#[utoipa::path(post, path = "/rollouts/{id}/pause", tag = "rollouts", params(("id" = u64, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn pause(
    State(api): State<Api>,
    by: Caller,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    intend(&api, by, id?.0, Intent::Pause).await
}

/// Goes on with a rollout that was paused.
#[utoipa::path(post, path = "/rollouts/{id}/resume", tag = "rollouts", params(("id" = u64, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn resume(
    State(api): State<Api>,
    by: Caller,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, Problem> {
    intend(&api, by, id?.0, Intent::Run).await
}

/// Whether what it did is taken back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AbortForm {
    /// Order its devices back to what ran before.
    rolls_back: bool,
}

/// Ends a rollout for good.
#[utoipa::path(post, path = "/rollouts/{id}/abort", tag = "rollouts", params(("id" = u64, Path)),
    request_body = AbortForm, responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem),
    (status = 415, body = Problem), (status = 422, body = Problem)))]
async fn abort(
    State(api): State<Api>,
    by: Caller,
    id: Result<Path<u64>, PathRejection>,
    form: Result<Json<AbortForm>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let (Path(id), Json(form)) = (id?, form?);
    intend(&api, by, id, Intent::Abort { rolls_back: form.rolls_back }).await
}
