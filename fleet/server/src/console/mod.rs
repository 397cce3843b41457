//! The console: pages for people, made on the server.
//!
//! Pages ask [`Fleet`](crate::service::Fleet) as whoever is signed in, as REST does, and hold no rule of their own on who may
//! what: what a role may not do is not offered, and refused when it is asked all the same. Every page works without its
//! script, which only has regions follow what changes. Nothing comes from elsewhere, and no page has a script or a style in
//! its text, so that the strictest policy holds for all of them.

mod account;
mod alerts;
mod assets;
mod audit;
mod chart;
mod curves;
mod device;
mod device_forms;
mod devices;
mod enrolment;
mod fields;
mod learning;
mod models;
mod new_rollout;
mod new_run;
mod overview;
mod people;
mod rollout;
mod rollouts;
mod run;
mod shell;
mod sign_in;
mod version;
mod visitor;
mod words;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Request, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};

use crate::api::Api;

/// Of a form that somebody sends: a filter and thirty waves are less.
const FORM_BYTES_MAX: usize = 64 << 10;

/// Every page, and what pages are made of.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(overview::show))
        .route("/signin", get(sign_in::show).post(sign_in::sign_in))
        .route("/signout", post(sign_in::sign_out))
        .route("/account", get(account::show).post(account::change))
        .route("/devices", get(devices::show))
        .route("/devices/{device}", get(device::show))
        .route("/devices/{device}/command", post(device_forms::command))
        .route("/devices/{device}/tags", post(device_forms::tags))
        .route("/devices/{device}/builder", post(device_forms::builder))
        .route("/devices/{device}/revoke", post(device_forms::revoke))
        .route("/devices/{device}/remove", post(device_forms::remove))
        .route("/models", get(models::show))
        .route("/models/{digest}", get(version::show))
        .route("/rollouts", get(rollouts::show).post(new_rollout::begin))
        .route("/rollouts/new", get(new_rollout::show))
        .route("/rollouts/preview", get(new_rollout::preview))
        .route("/rollouts/{id}", get(rollout::show))
        .route("/rollouts/{id}/intent", post(rollout::intend))
        .route("/learning", get(learning::show).post(new_run::add))
        .route("/learning/new", get(new_run::show))
        .route("/learning/compare", get(learning::compare))
        .route("/learning/{id}", get(run::show))
        .route("/learning/{id}/rounds.csv", get(run::csv))
        .route("/learning/{id}/intent", post(run::intend))
        .route("/learning/{id}/release", post(run::release))
        .route("/alerts", get(alerts::show))
        .route("/alerts/rules", post(alerts::put_rule))
        .route("/alerts/rules/remove", post(alerts::remove_rule))
        .route("/audit", get(audit::show).post(audit::verify))
        .route("/people", get(people::show))
        .route("/people/users", post(people::add_user))
        .route("/people/users/change", post(people::change_user))
        .route("/people/tokens", post(people::add_token))
        .route("/people/tokens/remove", post(people::remove_token))
        .route("/enrolment", get(enrolment::show).post(enrolment::add))
        .route("/enrolment/remove", post(enrolment::remove))
        .layer(DefaultBodyLimit::max(FORM_BYTES_MAX))
        .layer(middleware::from_fn(not_kept))
        .merge(assets::routes())
        .with_state(api)
}

/// What is only for who asked is kept nowhere.
async fn not_kept(request: Request<axum::body::Body>, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
