//! REST for operators: JSON over HTTP, described by an OpenAPI document at `/api/v1/openapi.json`.
//!
//! Who asks shows an API token (`Authorization: Bearer …`) or the cookie of a browser that signed in. What changes something
//! with a cookie must come from our own pages. Errors are problem details (RFC 9457).

mod alerts;
mod caller;
mod devices;
mod live;
mod people;
mod problem;
mod registry;

mod rollouts;
mod runs;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use humantime::format_rfc3339_millis;
use revoada_bundle::sign::{PublicKey, SecretKey};
use revoada_core::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::blobs::Blobs;
use crate::service::{self, Fleet};
use crate::store::Page;

pub(crate) use caller::check_origin;
pub use caller::{COOKIE, Caller, cookie_of};
pub(crate) use people::signed_in;
pub use problem::Problem;
pub(crate) use runs::release_run;

/// JSON that people and programs write by hand is small; blobs have a limit of their own.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What a page has where nothing is said.
const PAGE_DEFAULT: usize = 100;

/// What every handler needs.
#[derive(Clone)]
pub struct Api {
    pub fleet: Arc<Fleet>,
    pub blobs: Arc<Blobs>,
    /// Who may sign what is registered.
    pub trusted: Arc<[PublicKey]>,
    /// Whether operators come in with TLS of the service's own: browsers are then told to show their cookie to nobody else.
    pub is_encrypted: bool,
    /// Signs what devices have learned.
    pub learning_key: Option<Arc<SecretKey>>,
    /// SHA-256 of the authority's certificate: what enrolment tokens end with.
    pub root: Digest,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Revoada Fleet",
        description = "Models, devices, rollouts and learning. Every request but `/session` and `/healthz` needs a token or a session.",
    ),
    modifiers(&Security),
    security(("token" = []), ("session" = []))
)]
struct Document;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
        let components = document.components.get_or_insert_default();
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("token", SecurityScheme::Http(token));
        let cookie = ApiKey::Cookie(ApiKeyValue::new(COOKIE));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    }
}

/// Everything below `/api/v1`.
pub fn router(api: Api) -> Router {
    let (routes, document) = described().split_for_parts();
    let document = Arc::new(with_problems(document));
    let routes = routes.route("/api/v1/openapi.json", get(move || async move { Json(document.as_ref().clone()) }));
    routes
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(not_too_long))
        .layer(middleware::from_fn(not_kept))
        .with_state(api)
}

fn described() -> OpenApiRouter<Api> {
    let routes = OpenApiRouter::new()
        .merge(devices::routes())
        .merge(registry::routes())
        .merge(rollouts::routes())
        .merge(runs::routes())
        .merge(people::routes())
        .merge(alerts::routes())
        .merge(live::routes());
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", routes)
}

/// The document that describes the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    with_problems(described().split_for_parts().1)
}

/// What is refused is told in a media type of its own (RFC 9457), which the attributes of each operation do not repeat.
fn with_problems(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let items = document.paths.paths.values_mut();
    let operations = items.flat_map(|item| {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        operations.into_iter().filter_map(Option::as_mut)
    });
    for (status, response) in operations.flat_map(|operation| &mut operation.responses.responses) {
        if let utoipa::openapi::RefOr::T(response) = response
            && status.as_str() >= "400"
            && let Some(body) = response.content.shift_remove("application/json")
        {
            response.content.insert("application/problem+json".to_owned(), body);
        }
    }
    document
}

/// Whoever says that too much will come is told before any of it is sent: a connection that ends while somebody writes takes
/// the answer with it.
async fn not_too_long(request: Request<axum::body::Body>, next: Next) -> Response<axum::body::Body> {
    let is_piece = request.method() == Method::PATCH && request.uri().path().starts_with("/api/v1/blobs/");
    let bytes_max = if is_piece { registry::PIECE_BYTES_MAX } else { BODY_BYTES_MAX };
    let length: Option<u64> =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match length {
        Some(bytes) if bytes > bytes_max as u64 => {
            let detail = format!("a body of {bytes} bytes is too long: at most {bytes_max} are read");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response()
        }
        _ => next.run(request).await,
    }
}

/// What is only for who asked is kept nowhere.
async fn not_kept(request: Request<axum::body::Body>, next: Next) -> Response<axum::body::Body> {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl Api {
    /// Asks the service from a thread that may block.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Fleet) -> service::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let fleet = Arc::clone(&self.fleet);
        let answer = tokio::task::spawn_blocking(move || question(&fleet)).await;
        answer.map_err(|error| Problem::internal(&error))?.map_err(Problem::from)
    }
}

/// A moment, as `2026-05-04T12:30:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, format = DateTime, example = "2026-05-04T12:30:00.000Z")]
pub struct Time(pub Timestamp);

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        format_rfc3339_millis(service::wall(time.0)).to_string()
    }
}

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || "expected a time such as `2026-05-04T12:30:00Z`".to_owned();
        let at = humantime::parse_rfc3339_weak(&text).map_err(|_| wrong())?;
        let since = at.duration_since(std::time::UNIX_EPOCH).map_err(|_| wrong())?;
        u64::try_from(since.as_nanos()).map(|nanos| Self(Timestamp::from_nanos(nanos))).map_err(|_| wrong())
    }
}

/// Which part of a list that is newest first.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// What is older than the one of this number.
    before: Option<u64>,
    /// At most so many, up to 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

impl PageQuery {
    fn page(self) -> Page {
        Page { before: self.before, limit: limit(self.limit) }
    }
}

fn limit(limit: Option<usize>) -> usize {
    limit.unwrap_or(PAGE_DEFAULT).clamp(1, crate::store::PAGE_MAX)
}
