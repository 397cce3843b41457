//! `/devices`, with their events, history and commands, and `/events`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use revoada_core::{Digest, Timestamp};
use revoada_proto::{Ask, DeviceId, Fact, Figures, Label, Level, Progress};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, Caller, PageQuery, Problem, Time, limit};
use crate::filter::Filter;
use crate::service::{self, DeviceSummary, DurationText, kind_name};
use crate::store::{CommandRecord, CommandState, EventQuery, EventRecord, Gauge, Step};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, change, remove))
        .routes(routes!(revoke))
        .routes(routes!(history))
        .routes(routes!(commands, command))
        .routes(routes!(command_of))
        .routes(routes!(events))
}

type DevicePath = Result<Path<DeviceId>, PathRejection>;

/// A device, in short.
#[derive(Serialize, ToSchema)]
pub(super) struct DeviceJson {
    device: String,
    is_connected: bool,
    /// `good`, `working`, `degraded`, `away` or `new`.
    health: &'static str,
    /// Why, where it is neither good nor away.
    why: Option<String>,
    tags: BTreeSet<String>,
    /// Of the program that it runs.
    version: Option<String>,
    /// Module, GPU, TensorRT and CUDA.
    class: Option<String>,
    seen: Option<Time>,
    /// Digests by kind.
    running: BTreeMap<&'static str, String>,
    /// Of the newest order that it has taken up.
    generation: Option<u64>,
    figures: Option<FiguresJson>,
}

/// Measured since the device last changed what it runs.
#[derive(Serialize, ToSchema)]
struct FiguresJson {
    over_s: f64,
    restarts: u32,
    fps: Option<f64>,
    latency_ms: Option<f64>,
    agreement: Option<f64>,
    /// Of a classifier, on the device's labelled pictures: 0 to 1.
    accuracy: Option<f64>,
    temperature_c: Option<f64>,
    /// Of the whole board, in watts.
    power_w: Option<f64>,
}

impl From<&Figures> for FiguresJson {
    fn from(figures: &Figures) -> Self {
        Self {
            over_s: figures.over.as_secs_f64(),
            restarts: figures.restarts,
            fps: figures.fps,
            latency_ms: figures.latency_ms,
            agreement: figures.agreement,
            accuracy: figures.accuracy,
            temperature_c: figures.temperature_c,
            power_w: figures.power_w,
        }
    }
}

impl From<DeviceSummary> for DeviceJson {
    fn from(summary: DeviceSummary) -> Self {
        let running = summary.report.iter().flat_map(|report| &report.running);
        Self {
            device: summary.device.to_string(),
            is_connected: summary.is_connected,
            health: summary.health.name(),
            why: summary.health.why().map(str::to_owned),
            tags: summary.tags,
            version: summary.version,
            class: summary.class,
            seen: summary.seen.map(Time),
            running: running.map(|(kind, digest)| (kind_name(*kind), digest.to_string())).collect(),
            generation: summary.report.as_ref().map(|report| report.generation.0),
            figures: summary.report.as_ref().map(|report| FiguresJson::from(&report.figures)),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DevicesQuery {
    /// Which devices: `tag = entrance and version >= 1.2.0`.
    filter: Option<String>,
    /// After the device of this name.
    #[param(value_type = Option<String>)]
    after: Option<DeviceId>,
    /// At most so many, up to 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

#[derive(Serialize, ToSchema)]
struct DevicesJson {
    devices: Vec<DeviceJson>,
    /// How many match in all.
    matching: usize,
}

/// Devices that match, by name.
#[utoipa::path(get, path = "/devices", tag = "devices", params(DevicesQuery), responses(
    (status = 200, body = DevicesJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem)))]
async fn list(
    State(api): State<Api>,
    Caller(by): Caller,
    query: Result<Query<DevicesQuery>, QueryRejection>,
) -> Result<Json<DevicesJson>, Problem> {
    let Query(query) = query?;
    let filter: Filter = match &query.filter {
        None => Filter::ALL,
        Some(text) => text.parse().map_err(Problem::bad_request)?,
    };
    let ask = move |fleet: &service::Fleet| fleet.devices(&by, &filter, query.after.as_ref(), limit(query.limit));
    let (devices, matching) = api.ask(ask).await?;
    Ok(Json(DevicesJson { devices: devices.into_iter().map(DeviceJson::from).collect(), matching }))
}

/// Everything of one device.
#[derive(Serialize, ToSchema)]
struct DeviceDetailsJson {
    #[serde(flatten)]
    summary: DeviceJson,
    is_builder: bool,
    enrolled_at: Time,
    /// `working`, `done` or `failed`.
    progress: Option<&'static str>,
    /// What it was ordered to run: digests by kind.
    desired: BTreeMap<&'static str, String>,
    desired_generation: Option<u64>,
    /// Whatever it reported, by name: texts and numbers.
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    facts: BTreeMap<String, Fact>,
    streams: Vec<StreamJson>,
    slots: Vec<SlotJson>,
    /// The last order that it refused, and why.
    refused: Option<RefusedJson>,
    certificates: Vec<CertificateJson>,
}

#[derive(Serialize, ToSchema)]
struct StreamJson {
    stream: String,
    frames: u64,
    fps: f64,
    dropped: u64,
    reconnects: u64,
    trouble: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct SlotJson {
    kind: &'static str,
    slot: String,
    digest: String,
    is_active: bool,
}

#[derive(Serialize, ToSchema)]
struct RefusedJson {
    generation: u64,
    why: String,
}

#[derive(Serialize, ToSchema)]
struct CertificateJson {
    serial: String,
    issued_at: Time,
    not_after: Time,
    revoked_at: Option<Time>,
}

/// One device.
#[utoipa::path(get, path = "/devices/{device}", tag = "devices", params(("device" = String, Path)), responses(
    (status = 200, body = DeviceDetailsJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn show(
    State(api): State<Api>,
    Caller(by): Caller,
    device: DevicePath,
) -> Result<Json<DeviceDetailsJson>, Problem> {
    let Path(device) = device?;
    let view = api.ask(move |fleet| fleet.device(&by, &device)).await?;
    let progress = view.summary.report.as_ref().map(|report| match report.progress {
        Progress::Working { .. } => "working",
        Progress::Done => "done",
        Progress::Failed { .. } => "failed",
    });
    let deployables = view.order.iter().flat_map(|order| &order.deployables);
    let details = view.details;
    Ok(Json(DeviceDetailsJson {
        is_builder: view.is_builder,
        enrolled_at: view.enrolled_at.into(),
        progress,
        desired: deployables.map(|it| (kind_name(it.kind), it.digest.to_string())).collect(),
        desired_generation: view.order.as_ref().map(|order| order.generation.0),
        facts: details.facts,
        streams: details
            .streams
            .into_iter()
            .map(|stream| StreamJson {
                stream: stream.stream,
                frames: stream.frames,
                fps: stream.fps,
                dropped: stream.dropped,
                reconnects: stream.reconnects,
                trouble: stream.trouble,
            })
            .collect(),
        slots: details
            .slots
            .into_iter()
            .map(|slot| SlotJson {
                kind: kind_name(slot.kind),
                slot: slot.slot,
                digest: slot.digest.to_string(),
                is_active: slot.is_active,
            })
            .collect(),
        refused: details.refused.map(|(generation, why)| RefusedJson { generation: generation.0, why }),
        certificates: view
            .certificates
            .into_iter()
            .map(|certificate| CertificateJson {
                serial: certificate.serial,
                issued_at: certificate.issued_at.into(),
                not_after: certificate.not_after.into(),
                revoked_at: certificate.revoked_at.map(Time),
            })
            .collect(),
        summary: view.summary.into(),
    }))
}

/// What is not given stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DeviceChange {
    tags: Option<BTreeSet<String>>,
    /// Whether it builds plans that others of its class take.
    is_builder: Option<bool>,
}

/// Changes what operators say of a device.
#[utoipa::path(patch, path = "/devices/{device}", tag = "devices", params(("device" = String, Path)),
    request_body = DeviceChange, responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
    (status = 422, body = Problem)))]
async fn change(
    State(api): State<Api>,
    Caller(by): Caller,
    device: DevicePath,
    change: Result<Json<DeviceChange>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let (Path(device), Json(change)) = (device?, change?);
    api.ask(move |fleet| {
        if let Some(tags) = &change.tags {
            fleet.set_tags(&by, &device, tags)?;
        }
        match change.is_builder {
            Some(is_builder) => fleet.set_builder(&by, &device, is_builder),
            None => Ok(()),
        }
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a device out of the fleet.
#[utoipa::path(delete, path = "/devices/{device}", tag = "devices", params(("device" = String, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem)))]
async fn remove(State(api): State<Api>, Caller(by): Caller, device: DevicePath) -> Result<StatusCode, Problem> {
    let Path(device) = device?;
    api.ask(move |fleet| fleet.remove_device(&by, &device)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, ToSchema)]
struct Revoked {
    certificates: usize,
}

/// Makes every certificate of a device worth nothing. It may be enrolled again.
#[utoipa::path(post, path = "/devices/{device}/revoke", tag = "devices", params(("device" = String, Path)), responses(
    (status = 200, body = Revoked), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn revoke(State(api): State<Api>, Caller(by): Caller, device: DevicePath) -> Result<Json<Revoked>, Problem> {
    let Path(device) = device?;
    let certificates = api.ask(move |fleet| fleet.revoke_device(&by, &device)).await?;
    Ok(Json(Revoked { certificates }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    /// `fps`, `latency`, `agreement`, `accuracy`, `temperature`, `power`, `restarts`, `processor`, `gpu`, `memory` or `disk`.
    gauge: String,
    /// How far back: `2h`. The step follows from it: a minute, a quarter of an hour, or a day.
    #[param(value_type = Option<String>, example = "2h")]
    last: Option<DurationText>,
}

#[derive(Serialize, ToSchema)]
struct BucketJson {
    start: Time,
    samples: u64,
    mean: f64,
    min: f64,
    max: f64,
}

/// What a device measured, the oldest first.
#[utoipa::path(get, path = "/devices/{device}/history", tag = "devices",
    params(("device" = String, Path), HistoryQuery), responses(
    (status = 200, body = Vec<BucketJson>), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn history(
    State(api): State<Api>,
    Caller(by): Caller,
    device: DevicePath,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<Vec<BucketJson>>, Problem> {
    let (Path(device), Query(query)) = (device?, query?);
    let gauge = Gauge::ALL.into_iter().find(|gauge| gauge.name() == query.gauge);
    let gauge = gauge.ok_or_else(|| {
        let known = Gauge::ALL.map(|gauge| format!("`{}`", gauge.name())).join(", ");
        Problem::bad_request(format!("`gauge` is one of {known}"))
    })?;
    let last = query.last.map_or(Duration::from_hours(2), |last| last.0);
    let step = Step::ALL.into_iter().find(|step| last <= step.kept()).unwrap_or(Step::Day);
    let buckets = api.ask(move |fleet| fleet.history(&by, &device, gauge, step, last)).await?;
    let buckets = buckets.into_iter().map(|bucket| BucketJson {
        start: bucket.start.into(),
        samples: bucket.samples,
        mean: bucket.mean,
        min: bucket.min,
        max: bucket.max,
    });
    Ok(Json(buckets.collect()))
}

/// Something to be done once.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "ask", deny_unknown_fields)]
enum AskForm {
    RestartPipeline {
        #[schema(value_type = Option<String>)]
        valid_for: Option<DurationText>,
    },
    /// Runs a model that one of its slots holds, until the next start of the pipeline.
    SwapModel {
        #[schema(value_type = String)]
        digest: Digest,
        #[schema(value_type = Option<String>)]
        valid_for: Option<DurationText>,
    },
    /// Uploads the next picture of a stream.
    Snapshot {
        stream: String,
        #[schema(value_type = Option<String>)]
        valid_for: Option<DurationText>,
    },
    /// Uploads the newest lines of the log.
    FetchLogs {
        #[schema(minimum = 1, maximum = 10000)]
        lines: u32,
        #[schema(value_type = Option<String>)]
        valid_for: Option<DurationText>,
    },
    /// Keeps pictures of a track that a stream shows in the device's folder of pictures to learn from. They stay there.
    Label {
        stream: String,
        /// As a snapshot shows it.
        #[schema(minimum = 1)]
        track: u64,
        /// What the track shows: the name of a folder, of 1 to 128 bytes.
        #[schema(value_type = String)]
        label: Label,
        #[schema(value_type = Option<String>)]
        valid_for: Option<DurationText>,
    },
    /// Erases the device's pictures to learn from, and everything that was made of any.
    Forget {
        /// Pictures of this label alone; all of them where it is not given.
        #[schema(value_type = Option<String>)]
        label: Option<Label>,
        #[schema(value_type = Option<String>)]
        valid_for: Option<DurationText>,
    },
}

#[derive(Serialize, ToSchema)]
struct CommandJson {
    device: String,
    number: u64,
    #[schema(value_type = serde_json::Value)]
    ask: Ask,
    by: String,
    issued_at: Time,
    expires_at: Time,
    /// `queued`, `sent`, `done`, `failed` or `expired`.
    state: &'static str,
    /// What the device says to it.
    text: Option<String>,
    /// Where what it uploaded is to be had.
    answer: Option<String>,
    media_type: Option<String>,
}

impl From<CommandRecord> for CommandJson {
    fn from(record: CommandRecord) -> Self {
        let (state, text) = match record.state {
            CommandState::Queued => ("queued", None),
            CommandState::Sent => ("sent", None),
            CommandState::Done { text } => ("done", Some(text)),
            CommandState::Failed { text } => ("failed", Some(text)),
            CommandState::Expired => ("expired", None),
        };
        let answer = record
            .answer
            .as_ref()
            .map(|_| format!("/api/v1/devices/{}/commands/{}/answer", record.device, record.number));
        Self {
            device: record.device.to_string(),
            number: record.number,
            ask: record.ask,
            by: record.by.to_string(),
            issued_at: record.issued_at.into(),
            expires_at: record.expires_at.into(),
            state,
            text,
            answer,
            media_type: record.answer.map(|answer| answer.media_type),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Commanded {
    number: u64,
}

/// Asks a device to do something once: now, or when it is back.
#[utoipa::path(post, path = "/devices/{device}/commands", tag = "commands", params(("device" = String, Path)),
    request_body = AskForm, responses(
    (status = 202, body = Commanded), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem), (status = 413, body = Problem),
    (status = 415, body = Problem), (status = 422, body = Problem)))]
async fn command(
    State(api): State<Api>,
    Caller(by): Caller,
    device: DevicePath,
    form: Result<Json<AskForm>, JsonRejection>,
) -> Result<(StatusCode, Json<Commanded>), Problem> {
    let (Path(device), Json(form)) = (device?, form?);
    let (ask, valid_for) = match form {
        AskForm::RestartPipeline { valid_for } => (Ask::RestartPipeline, valid_for),
        AskForm::SwapModel { digest, valid_for } => (Ask::SwapModel { digest }, valid_for),
        AskForm::Snapshot { stream, valid_for } => (Ask::Snapshot { stream }, valid_for),
        AskForm::FetchLogs { lines, valid_for } => (Ask::FetchLogs { lines }, valid_for),
        AskForm::Label { stream, track, label, valid_for } => (Ask::Label { stream, track, label }, valid_for),
        AskForm::Forget { label, valid_for } => (Ask::Forget { label }, valid_for),
    };
    let valid_for = valid_for.map(|valid_for| valid_for.0);
    let number = api.ask(move |fleet| fleet.command(&by, &device, &ask, valid_for)).await?;
    Ok((StatusCode::ACCEPTED, Json(Commanded { number })))
}

/// Commands to a device, the newest first.
#[utoipa::path(get, path = "/devices/{device}/commands", tag = "commands",
    params(("device" = String, Path), PageQuery), responses(
    (status = 200, body = Vec<CommandJson>), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn commands(
    State(api): State<Api>,
    Caller(by): Caller,
    device: DevicePath,
    page: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Vec<CommandJson>>, Problem> {
    let (Path(device), Query(page)) = (device?, page?);
    let records = api.ask(move |fleet| fleet.commands(&by, &device, page.page())).await?;
    Ok(Json(records.into_iter().map(CommandJson::from).collect()))
}

/// One command.
#[utoipa::path(get, path = "/devices/{device}/commands/{number}", tag = "commands",
    params(("device" = String, Path), ("number" = u64, Path)), responses(
    (status = 200, body = CommandJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn command_of(
    State(api): State<Api>,
    Caller(by): Caller,
    path: Result<Path<(DeviceId, u64)>, PathRejection>,
) -> Result<Json<CommandJson>, Problem> {
    let Path((device, number)) = path?;
    let record = api.ask(move |fleet| fleet.command_of(&by, &device, number)).await?;
    Ok(Json(record.into()))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Of this device alone.
    #[param(value_type = Option<String>)]
    device: Option<DeviceId>,
    /// At least so bad: `info`, `warn` or `error`.
    #[param(value_type = Option<String>)]
    level: Option<Level>,
    /// Of this name alone.
    name: Option<String>,
    /// What is older than the one of this number.
    before: Option<u64>,
    /// At most so many, up to 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

#[derive(Serialize, ToSchema)]
struct EventJson {
    number: u64,
    device: String,
    /// When it came.
    at: Time,
    /// When it happened, by the device's clock, which may be wrong.
    device_at: Time,
    level: &'static str,
    name: String,
    text: String,
}

impl From<EventRecord> for EventJson {
    fn from(record: EventRecord) -> Self {
        let event = record.occurrence.event;
        Self {
            number: record.number,
            device: record.occurrence.device.to_string(),
            at: record.occurrence.at.into(),
            device_at: Time(Timestamp::ZERO + Duration::from_millis(event.at_ms)),
            level: level_name(event.level),
            name: event.name,
            text: event.text,
        }
    }
}

pub(crate) fn level_name(level: Level) -> &'static str {
    match level {
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// What happened on devices, the newest first.
#[utoipa::path(get, path = "/events", tag = "devices", params(EventsQuery), responses(
    (status = 200, body = Vec<EventJson>), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem)))]
async fn events(
    State(api): State<Api>,
    Caller(by): Caller,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Json<Vec<EventJson>>, Problem> {
    let Query(query) = query?;
    let page = PageQuery { before: query.before, limit: query.limit }.page();
    let query = EventQuery { device: query.device, level_min: query.level, name: query.name };
    let records = api.ask(move |fleet| fleet.events(&by, &query, page)).await?;
    Ok(Json(records.into_iter().map(EventJson::from).collect()))
}
