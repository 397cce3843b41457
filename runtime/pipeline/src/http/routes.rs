//! What each address answers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;

use super::hub::Hub;
use crate::control::{Command, take_seconds};

/// Those who watch a stream live, over all streams. Further ones are refused with 503.
pub(super) const WATCHERS_MAX: usize = 32;

/// Where a stream stands still its picture is sent again so often: both sides then know that the
/// other is there.
const REPEAT_INTERVAL: Duration = Duration::from_secs(5);

const PAGE: &str = include_str!("page.html");
/// The page brings its own script and style and talks to nobody but this server.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           img-src 'self' data:; connect-src 'self'";

#[derive(Clone)]
struct Shared {
    hub: Arc<Hub>,
    watchers: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

/// All routes; streams end when `stopped` becomes true.
pub(super) fn router(hub: Arc<Hub>, stopped: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .route("/api/streams", get(streams).post(add_stream))
        .route("/api/events", get(events))
        .route("/api/streams/{id}", delete(remove_stream))
        .route("/api/streams/{id}/recordings", post(record))
        .route("/streams/{file}", get(picture))
        .fallback(async || plain(StatusCode::NOT_FOUND, "there is no such page\n"))
        .with_state(Shared { hub, watchers: Arc::new(Semaphore::new(WATCHERS_MAX)), stopped })
}

async fn page() -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, PAGE_POLICY)];
    (headers, PAGE).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    match shared.hub.metrics() {
        Some(text) => {
            let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, format)], text).into_response()
        }
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "there are no metrics yet\n"),
    }
}

async fn streams(State(shared): State<Shared>) -> Response {
    fresh(&shared.hub.listing())
}

async fn events(State(shared): State<Shared>) -> Response {
    fresh(&shared.hub.events())
}

/// JSON that is true now and not later.
fn fresh(listing: &impl Serialize) -> Response {
    let body = serde_json::to_string(listing).expect("a listing has string keys");
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

/// The body is a `[[stream]]` as JSON, and says that it is: what a page of another site sends without being asked to
/// does not.
async fn add_stream(State(shared): State<Shared>, stream: Result<Json<Map<String, Value>>, JsonRejection>) -> Response {
    match stream {
        Ok(Json(stream)) => change(&shared, Command::AddStream { stream }).await,
        Err(error) => plain(error.status(), format!("{}\n", error.body_text())),
    }
}

async fn remove_stream(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    change(&shared, Command::RemoveStream { stream: id }).await
}

/// The body is `{}` or `{"seconds": 60}`, and JSON as above.
async fn record(
    State(shared): State<Shared>,
    Path(stream): Path<String>,
    body: Result<Json<Map<String, Value>>, JsonRejection>,
) -> Response {
    let mut body = match body {
        Ok(Json(body)) => body,
        Err(error) => return plain(error.status(), format!("{}\n", error.body_text())),
    };
    let seconds = take_seconds(&mut body);
    match (seconds, body.keys().next()) {
        (Ok(seconds), None) => change(&shared, Command::Record { stream, seconds }).await,
        (Ok(_), Some(key)) => plain(StatusCode::BAD_REQUEST, format!("there is no key `{key}`, only `seconds`\n")),
        (Err(reason), _) => plain(StatusCode::BAD_REQUEST, format!("{reason}\n")),
    }
}

async fn change(shared: &Shared, command: Command) -> Response {
    let Some(control) = shared.hub.control() else {
        let text = "nothing can be changed here; `[http] control = true` in the pipeline's file allows it\n";
        return plain(StatusCode::FORBIDDEN, text);
    };
    match spawn_blocking(move || control(command)).await {
        Ok(Ok(answer)) => ([(CONTENT_TYPE, "application/json")], answer.to_string()).into_response(),
        Ok(Err(reason)) => plain(StatusCode::BAD_REQUEST, format!("{reason}\n")),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the pipeline failed to answer\n"),
    }
}

/// `<id>.mjpeg` or `<id>.jpg`.
async fn picture(State(shared): State<Shared>, Path(file): Path<String>) -> Response {
    let (id, live) = match (file.strip_suffix(".mjpeg"), file.strip_suffix(".jpg")) {
        (Some(id), _) => (id, true),
        (_, Some(id)) => (id, false),
        _ => return plain(StatusCode::NOT_FOUND, "a stream is `<id>.mjpeg` or `<id>.jpg`\n"),
    };
    let Some(channel) = shared.hub.channel(id) else {
        return plain(StatusCode::NOT_FOUND, format!("there is no stream `{id}` to see\n"));
    };
    if !live {
        return match channel.snapshot().await {
            Some(jpeg) => ([(CONTENT_TYPE, "image/jpeg"), (CACHE_CONTROL, "no-store")], jpeg).into_response(),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, format!("stream `{id}` has no picture yet\n")),
        };
    }
    match shared.watchers.try_acquire_owned() {
        Ok(permit) => {
            live_pictures(Watcher { jpegs: channel.watch(), stopped: shared.stopped, begun: false, _permit: permit })
        }
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "too many are watching\n"),
    }
}

fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text.into()).into_response()
}

/// One client of one live stream.
struct Watcher {
    jpegs: watch::Receiver<Bytes>,
    stopped: watch::Receiver<bool>,
    begun: bool,
    _permit: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next picture, `None` when there will be no more.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                _ = self.stopped.wait_for(|stop| *stop) => return None,
                changed = self.jpegs.changed() => changed.ok()?,
                () = tokio::time::sleep(REPEAT_INTERVAL) => {}
            }
            let jpeg = self.jpegs.borrow_and_update().clone();
            if !jpeg.is_empty() {
                return Some(jpeg);
            }
        }
    }
}

/// A body of one part per picture. The server asks for the next part only once the last has gone
/// out, so that no more than one waits for a slow client.
fn live_pictures(watcher: Watcher) -> Response {
    let parts = stream::unfold(watcher, async |mut watcher| {
        let jpeg = watcher.next().await?;
        let first = !std::mem::replace(&mut watcher.begun, true);
        Some((Ok::<_, Infallible>(part(&jpeg, first)), watcher))
    });
    let headers = [(CONTENT_TYPE, "multipart/x-mixed-replace; boundary=frame"), (CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(parts)).into_response()
}

/// Browsers show a part when they see the next boundary, so each part brings the one after it.
fn part(jpeg: &Bytes, first: bool) -> Bytes {
    let opening = if first { "--frame\r\n" } else { "" };
    let header = format!("{opening}Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", jpeg.len());
    [header.as_bytes(), jpeg, b"\r\n--frame\r\n"].concat().into()
}
