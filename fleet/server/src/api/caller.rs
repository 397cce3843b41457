//! Who asks.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};

use super::{Api, Problem};
use crate::service::Principal;

/// The name of the cookie that browsers show.
pub const COOKIE: &str = "revoada_session";

/// Who asks, by a token or by the cookie of a session.
#[derive(Clone, Debug)]
pub struct Caller(pub Principal);

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        if let Some(token) = bearer(&parts.headers)? {
            return api.ask(move |fleet| fleet.token(&token)).await.map(Self);
        }
        let Some(cookie) = cookie_of(&parts.headers) else {
            return Err(crate::service::ServiceError::Unknown.into());
        };
        check_origin(&parts.method, &parts.headers)?;
        api.ask(move |fleet| fleet.session(&cookie)).await.map(|session| Self(session.principal))
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    let wrong = || Problem::new(StatusCode::UNAUTHORIZED, "expected `Authorization: Bearer` and a token");
    token.map(|token| Some(token.trim().to_owned())).ok_or_else(wrong)
}

/// The session's secret, where the browser shows one.
pub fn cookie_of(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, secret)| secret.to_owned())
}

/// Refuses what a page of somebody else's has a browser send. Browsers say where a request comes from, and a cookie is
/// only ever theirs.
pub(crate) fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let is_ours = match headers.get("sec-fetch-site").and_then(|value| value.to_str().ok()) {
        Some(site) => matches!(site, "same-origin" | "none"),
        // Older browsers, and plain HTTP: the origin's host is the one that was asked.
        None => text(header::ORIGIN)
            .zip(text(header::HOST))
            .is_some_and(|(origin, host)| origin.split_once("://").is_some_and(|(_, origin)| origin == host)),
    };
    if is_ours {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "a session's requests must come from the service's own pages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_requests_of_foreign_pages_are_refused() {
        for (pairs, is_ours) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://fleet:8080"), ("host", "fleet:8080")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("origin", "http://fleet:8080"), ("host", "fleet:8080")], true),
            (&[("origin", "http://evil.example"), ("host", "fleet:8080")], false),
            (&[("origin", "null"), ("host", "fleet:8080")], false),
            (&[("host", "fleet:8080")], false),
        ] {
            assert_eq!(check_origin(&Method::POST, &headers(pairs)).is_ok(), is_ours, "{pairs:?}");
            assert!(check_origin(&Method::GET, &headers(pairs)).is_ok());
        }
    }

    #[test]
    fn the_session_is_found_among_cookies() {
        let found = cookie_of(&headers(&[("cookie", "a=b; revoada_session=secret;c=d")]));
        assert_eq!(found.as_deref(), Some("secret"));
        assert_eq!(cookie_of(&headers(&[("cookie", "xrevoada_session=secret")])), None);
    }
}
