//! `/blobs`, `/artefacts` and `/versions`: what can be deployed.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt;
use revoada_bundle::sign::{PublicKey, Signature};
use revoada_core::Digest;
use revoada_proto::{DeviceId, Kind};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, Caller, Problem, Time};
use crate::blobs::{Begun, BlobError};
use crate::registry::{FileKind, Import, ImportError, Importer};
use crate::service::{Change, kind_name, now};
use crate::store::{Artefact, ArtefactVersion, PlanRecord, Role};

/// Of one piece of an upload.
pub(super) const PIECE_BYTES_MAX: usize = 8 << 20;

pub(super) fn routes() -> OpenApiRouter<Api> {
    let pieces = OpenApiRouter::new().routes(routes!(append)).layer(DefaultBodyLimit::max(PIECE_BYTES_MAX));
    OpenApiRouter::new()
        .routes(routes!(begin))
        .routes(routes!(complete))
        .routes(routes!(artefacts))
        .routes(routes!(artefact, describe, remove_artefact))
        .routes(routes!(add_version))
        .routes(routes!(import))
        .routes(routes!(version, remove_version))
        .routes(routes!(answer))
        .merge(pieces)
}

impl From<BlobError> for Problem {
    fn from(error: BlobError) -> Self {
        let status = match &error {
            BlobError::Missing { .. } => StatusCode::NOT_FOUND,
            BlobError::NotBegun { .. }
            | BlobError::Busy { .. }
            | BlobError::Offset { .. }
            | BlobError::Unfinished { .. } => StatusCode::CONFLICT,
            BlobError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            BlobError::TooLong { .. } | BlobError::Changed { .. } | BlobError::Range { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            BlobError::Full { .. } | BlobError::DiskFull { .. } => StatusCode::INSUFFICIENT_STORAGE,
            BlobError::TooManyUploads { .. } => StatusCode::TOO_MANY_REQUESTS,
            _ => return Self::internal(&error),
        };
        Self::new(status, error)
    }
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Blob(error) => error.into(),
            ImportError::Store(error) => crate::service::ServiceError::from(error).into(),
            error @ ImportError::Stranger { .. } => Self::new(StatusCode::FORBIDDEN, error),
            error => Self::new(StatusCode::UNPROCESSABLE_ENTITY, crate::service::chain(&error)),
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BlobForm {
    #[schema(value_type = String)]
    digest: Digest,
    bytes: u64,
}

/// Where an upload goes on.
#[derive(Serialize, ToSchema)]
struct UploadJson {
    /// The blob is there, and nothing is to be uploaded.
    is_whole: bool,
    /// How many bytes are there.
    offset: u64,
}

/// Begins to upload a blob, or resumes it.
#[utoipa::path(post, path = "/blobs", tag = "registry", request_body = BlobForm, responses(
    (status = 200, body = UploadJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem),
    (status = 415, body = Problem), (status = 422, body = Problem), (status = 429, body = Problem),
    (status = 507, body = Problem)))]
async fn begin(
    State(api): State<Api>,
    Caller(by): Caller,
    form: Result<Json<BlobForm>, JsonRejection>,
) -> Result<Json<UploadJson>, Problem> {
    by.require(Role::Operator)?;
    let Json(form) = form?;
    Ok(Json(match api.blobs.begin(form.digest, form.bytes, now()).await? {
        Begun::Whole => UploadJson { is_whole: true, offset: form.bytes },
        Begun::At(offset) => UploadJson { is_whole: false, offset },
    }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PieceQuery {
    /// Where in the blob the piece begins.
    offset: u64,
}

/// Adds a piece of at most 8 MiB to an upload.
#[utoipa::path(patch, path = "/blobs/{digest}", tag = "registry", params(("digest" = String, Path), PieceQuery),
    request_body(content_type = "application/octet-stream", content = Vec<u8>), responses(
    (status = 200, body = UploadJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 409, body = Problem), (status = 413, body = Problem),
    (status = 422, body = Problem), (status = 507, body = Problem)))]
async fn append(
    State(api): State<Api>,
    Caller(by): Caller,
    digest: Result<Path<Digest>, PathRejection>,
    query: Result<Query<PieceQuery>, QueryRejection>,
    piece: Result<Bytes, BytesRejection>,
) -> Result<Json<UploadJson>, Problem> {
    by.require(Role::Operator)?;
    let (Path(digest), Query(query)) = (digest?, query?);
    let piece = piece.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    let offset = api.blobs.append(digest, query.offset, piece, now()).await?;
    Ok(Json(UploadJson { is_whole: false, offset }))
}

/// Makes a blob of an upload. One that hashes differently is dropped.
#[utoipa::path(post, path = "/blobs/{digest}/complete", tag = "registry", params(("digest" = String, Path)),
    responses((status = 204), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem), (status = 507, body = Problem)))]
async fn complete(
    State(api): State<Api>,
    Caller(by): Caller,
    digest: Result<Path<Digest>, PathRejection>,
) -> Result<StatusCode, Problem> {
    by.require(Role::Operator)?;
    let Path(digest) = digest?;
    api.blobs.complete(digest, now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A model, a pipeline or a package.
#[derive(Serialize, ToSchema)]
struct ArtefactJson {
    /// `model`, `pipeline` or `package`.
    kind: &'static str,
    name: String,
    labels: BTreeSet<String>,
    description: String,
    licence: Option<String>,
    created_at: Time,
    /// The newest first.
    versions: Vec<VersionJson>,
}

#[derive(Serialize, ToSchema)]
struct VersionJson {
    kind: &'static str,
    name: String,
    version: String,
    digest: String,
    bytes: u64,
    /// What it was made from: digests.
    parents: Vec<String>,
    #[schema(value_type = serde_json::Value)]
    lineage: serde_json::Value,
    /// The builder's, by name.
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    reports: BTreeMap<String, serde_json::Value>,
    /// Its files but for the first, by path: digests.
    files: BTreeMap<String, String>,
    signer: String,
    created_at: Time,
    created_by: String,
}

impl From<ArtefactVersion> for VersionJson {
    fn from(version: ArtefactVersion) -> Self {
        Self {
            kind: kind_name(version.kind),
            name: version.name,
            version: version.version,
            digest: version.digest.to_string(),
            bytes: version.bytes,
            parents: version.parents.iter().map(Digest::to_string).collect(),
            lineage: serde_json::to_value(&version.lineage).unwrap_or_default(),
            reports: version.reports,
            files: version.files.into_iter().map(|(path, file)| (path, file.digest.to_string())).collect(),
            signer: version.signer.to_string(),
            created_at: version.created_at.into(),
            created_by: version.created_by.to_string(),
        }
    }
}

impl ArtefactJson {
    fn new(artefact: Artefact, versions: Vec<ArtefactVersion>) -> Self {
        Self {
            kind: kind_name(artefact.kind),
            name: artefact.name,
            labels: artefact.labels,
            description: artefact.description,
            licence: artefact.licence,
            created_at: artefact.created_at.into(),
            versions: versions.into_iter().map(VersionJson::from).collect(),
        }
    }
}

/// Everything that is registered, by kind and name.
#[utoipa::path(get, path = "/artefacts", tag = "registry", responses(
    (status = 200, body = Vec<ArtefactJson>), (status = 401, body = Problem), (status = 403, body = Problem)))]
async fn artefacts(State(api): State<Api>, Caller(by): Caller) -> Result<Json<Vec<ArtefactJson>>, Problem> {
    let artefacts = api.ask(move |fleet| fleet.artefacts(&by)).await?;
    Ok(Json(artefacts.into_iter().map(|(artefact, versions)| ArtefactJson::new(artefact, versions)).collect()))
}

type ArtefactPath = Result<Path<(KindPath, String)>, PathRejection>;

/// `model`, `pipeline` or `package`, in a path.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
struct KindPath(Kind);

/// One model, pipeline or package with its versions.
#[utoipa::path(get, path = "/artefacts/{kind}/{name}", tag = "registry",
    params(("kind" = String, Path), ("name" = String, Path)), responses(
    (status = 200, body = ArtefactJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn artefact(
    State(api): State<Api>,
    Caller(by): Caller,
    path: ArtefactPath,
) -> Result<Json<ArtefactJson>, Problem> {
    let Path((KindPath(kind), name)) = path?;
    let (artefact, versions) = api.ask(move |fleet| fleet.artefact(&by, kind, &name)).await?;
    Ok(Json(ArtefactJson::new(artefact, versions)))
}

/// What is said of an artefact. What is not given stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ArtefactChange {
    labels: Option<BTreeSet<String>>,
    description: Option<String>,
    /// SPDX identifier.
    licence: Option<String>,
}

/// Changes what is said of a model, a pipeline or a package.
#[utoipa::path(patch, path = "/artefacts/{kind}/{name}", tag = "registry",
    params(("kind" = String, Path), ("name" = String, Path)), request_body = ArtefactChange, responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem),
    (status = 422, body = Problem)))]
async fn describe(
    State(api): State<Api>,
    Caller(by): Caller,
    path: ArtefactPath,
    change: Result<Json<ArtefactChange>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let (Path((KindPath(kind), name)), Json(change)) = (path?, change?);
    api.ask(move |fleet| {
        fleet.describe_artefact(&by, kind, &name, |artefact| {
            artefact.labels = change.labels.unwrap_or_default();
            artefact.description = change.description.unwrap_or_default();
            artefact.licence = change.licence.or(artefact.licence.take());
        })
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a model, a pipeline or a package without versions.
#[utoipa::path(delete, path = "/artefacts/{kind}/{name}", tag = "registry",
    params(("kind" = String, Path), ("name" = String, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove_artefact(
    State(api): State<Api>,
    Caller(by): Caller,
    path: ArtefactPath,
) -> Result<StatusCode, Problem> {
    let Path((KindPath(kind), name)) = path?;
    api.ask(move |fleet| fleet.remove_artefact(&by, kind, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A version, whose blobs are uploaded.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VersionForm {
    version: String,
    /// Of a bundle's index, a pipeline's file, a package's program.
    #[schema(value_type = String)]
    digest: Digest,
    /// Its owner's, over that.
    #[schema(value_type = SignatureForm)]
    signature: Signature,
    /// What it was made from, beside what a bundle says of itself.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    parents: Vec<Digest>,
}

/// As `revoada build` and `revoada-fleet models sign` write it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it is there to be described")]
struct SignatureForm {
    /// `ed25519:…`
    #[schema(value_type = String)]
    key: PublicKey,
    /// 128 hexadecimal digits.
    signature: String,
}

pub(super) fn importer(api: &Api) -> Importer {
    Importer { store: api.fleet.shared_store(), blobs: api.blobs.clone(), trusted: api.trusted.clone() }
}

/// Registers a version, once its owner's signature and every file of it were verified.
#[utoipa::path(post, path = "/artefacts/{kind}/{name}/versions", tag = "registry",
    params(("kind" = String, Path), ("name" = String, Path)), request_body = VersionForm, responses(
    (status = 201, body = VersionJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
    (status = 429, body = Problem), (status = 507, body = Problem)))]
async fn add_version(
    State(api): State<Api>,
    Caller(by): Caller,
    path: ArtefactPath,
    form: Result<Json<VersionForm>, JsonRejection>,
) -> Result<(StatusCode, Json<VersionJson>), Problem> {
    by.require(Role::Operator)?;
    let (Path((KindPath(kind), name)), Json(form)) = (path?, form?);
    check_names(&name, &form.version)?;
    let import = Import { name: Some(name), version: form.version, parents: form.parents };
    let (importer, actor, now) = (importer(&api), by.actor, now());
    let version = match kind {
        Kind::Model => importer.uploaded(form.digest, form.signature, import, actor, now).await?,
        Kind::Pipeline => {
            importer.uploaded_file(FileKind::Pipeline, form.digest, form.signature, import, actor, now).await?
        }
        Kind::Package => {
            importer.uploaded_file(FileKind::Package, form.digest, form.signature, import, actor, now).await?
        }
    };
    api.fleet.tell(Change::Registry);
    Ok((StatusCode::CREATED, Json(version.into())))
}

fn check_names(name: &str, version: &str) -> Result<(), Problem> {
    crate::registry::check_names(name, version).map_err(|detail| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

/// A bundle somewhere else.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ImportForm {
    /// Where its index, its signature and its files lie: a folder's address by HTTP or HTTPS.
    url: String,
    version: String,
}

/// Fetches a bundle and registers it.
#[utoipa::path(post, path = "/artefacts/model/{name}/import", tag = "registry", params(("name" = String, Path)),
    request_body = ImportForm, responses(
    (status = 201, body = VersionJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
    (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem),
    (status = 429, body = Problem), (status = 507, body = Problem)))]
async fn import(
    State(api): State<Api>,
    Caller(by): Caller,
    name: Result<Path<String>, PathRejection>,
    form: Result<Json<ImportForm>, JsonRejection>,
) -> Result<(StatusCode, Json<VersionJson>), Problem> {
    by.require(Role::Operator)?;
    let (Path(name), Json(form)) = (name?, form?);
    check_names(&name, &form.version)?;
    let import = Import { name: Some(name), version: form.version, parents: Vec::new() };
    let version = importer(&api).url(&form.url, import, by.actor, now()).await?;
    api.fleet.tell(Change::Registry);
    Ok((StatusCode::CREATED, Json(version.into())))
}

/// A version with the plans that there are of it.
#[derive(Serialize, ToSchema)]
struct VersionDetailsJson {
    #[serde(flatten)]
    version: VersionJson,
    plans: Vec<PlanJson>,
}

#[derive(Serialize, ToSchema)]
struct PlanJson {
    digest: String,
    /// Module, GPU, TensorRT and CUDA.
    class: String,
    bytes: u64,
    builder: String,
    latency_ms: Option<f64>,
    created_at: Time,
}

impl From<PlanRecord> for PlanJson {
    fn from(plan: PlanRecord) -> Self {
        Self {
            digest: plan.digest.to_string(),
            class: plan.class.to_string(),
            bytes: plan.bytes,
            builder: plan.builder.to_string(),
            latency_ms: plan.latency_ms,
            created_at: plan.created_at.into(),
        }
    }
}

/// One version, and which device classes have a plan of it.
#[utoipa::path(get, path = "/versions/{digest}", tag = "registry", params(("digest" = String, Path)), responses(
    (status = 200, body = VersionDetailsJson), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn version(
    State(api): State<Api>,
    Caller(by): Caller,
    digest: Result<Path<Digest>, PathRejection>,
) -> Result<Json<VersionDetailsJson>, Problem> {
    let Path(digest) = digest?;
    let (version, plans) = api.ask(move |fleet| fleet.version(&by, &digest)).await?;
    Ok(Json(VersionDetailsJson { version: version.into(), plans: plans.into_iter().map(PlanJson::from).collect() }))
}

/// Removes a version that no rollout and no device's order names.
#[utoipa::path(delete, path = "/versions/{digest}", tag = "registry", params(("digest" = String, Path)), responses(
    (status = 204), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn remove_version(
    State(api): State<Api>,
    Caller(by): Caller,
    digest: Result<Path<Digest>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(digest) = digest?;
    api.ask(move |fleet| fleet.remove_version(&by, &digest)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a device uploaded because a command asked for it: a picture, a log.
#[utoipa::path(get, path = "/devices/{device}/commands/{number}/answer", tag = "commands",
    params(("device" = String, Path), ("number" = u64, Path)), responses(
    (status = 200, content_type = "image/jpeg", body = Vec<u8>), (status = 400, body = Problem),
    (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem)))]
async fn answer(
    State(api): State<Api>,
    Caller(by): Caller,
    path: Result<Path<(DeviceId, u64)>, PathRejection>,
) -> Result<Response, Problem> {
    let Path((device, number)) = path?;
    let command = api.ask(move |fleet| fleet.command_of(&by, &device, number)).await?;
    let missing = || Problem::new(StatusCode::NOT_FOUND, "the device has uploaded nothing");
    let answer = command.answer.ok_or_else(missing)?;
    // Never a page of ours, whatever a device says that it is.
    let media_type = match answer.media_type.as_str() {
        "image/jpeg" => "image/jpeg",
        _ => "text/plain; charset=utf-8",
    };
    api.send_blob(answer.digest, media_type).await?.ok_or_else(missing)
}

impl Api {
    /// A whole blob as it comes; `None` where it is not there.
    pub(super) async fn send_blob(
        &self,
        digest: Digest,
        media_type: &'static str,
    ) -> Result<Option<Response>, Problem> {
        let Some(bytes) = self.blobs.size(digest).await? else { return Ok(None) };
        let content = self.blobs.read(digest, 0..bytes).await?.map_err(std::io::Error::other);
        let headers = [(header::CONTENT_TYPE, media_type.to_owned()), (header::CONTENT_LENGTH, bytes.to_string())];
        Ok(Some((headers, Body::from_stream(content)).into_response()))
    }
}
