//! Who looks at a page.

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use url::form_urlencoded;

use super::shell::Refusal;
use crate::api::{Api, Problem, check_origin, cookie_of};
use crate::service::Principal;
use crate::store::Role;

/// Somebody who is signed in. Everybody else is shown the way to sign in.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    pub(super) by: Principal,
    pub(super) user: String,
}

impl Visitor {
    pub(super) fn may(&self, role: Role) -> bool {
        self.by.role >= role
    }
}

impl FromRequestParts<Api> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Response> {
        let Some(cookie) = cookie_of(&parts.headers) else { return Err(to_sign_in(parts)) };
        check_origin(&parts.method, &parts.headers).map_err(refused)?;
        match api.ask(move |fleet| fleet.session(&cookie)).await {
            Ok(session) => Ok(Self { by: session.principal, user: session.user }),
            Err(problem) if problem.status == 401 => Err(to_sign_in(parts)),
            Err(problem) => Err(refused(problem)),
        }
    }
}

fn refused(problem: Problem) -> Response {
    Refusal::from(problem).into_response()
}

/// And back to where somebody was going, where that was a page.
fn to_sign_in(parts: &Parts) -> Response {
    let target = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if parts.method != Method::GET || target == "/" {
        return Redirect::to("/signin").into_response();
    }
    let target: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
    Redirect::to(&format!("/signin?to={target}")).into_response()
}
