//! The files that pages name: one style sheet, one script, one icon, compiled in.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::api::Api;

const STYLE: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Changes with their content, so that a browser may keep them for good.
static VERSION: LazyLock<String> =
    LazyLock::new(|| revoada_bundle::hash([STYLE, SCRIPT, ICON].concat().as_bytes()).short());

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/assets/console.css", get(async || asset(STYLE, "text/css; charset=utf-8")))
        .route("/assets/console.js", get(async || asset(SCRIPT, "text/javascript; charset=utf-8")))
        .route("/assets/icon.svg", get(async || asset(ICON, "image/svg+xml")))
}

fn asset(text: &'static str, media_type: &'static str) -> impl IntoResponse {
    let kept = HeaderValue::from_static("public, max-age=31536000, immutable");
    ([(header::CONTENT_TYPE, HeaderValue::from_static(media_type)), (header::CACHE_CONTROL, kept)], text)
}

/// Where an asset is: `console.css`.
pub(super) fn address(name: &str) -> String {
    format!("/assets/{name}?{}", *VERSION)
}
