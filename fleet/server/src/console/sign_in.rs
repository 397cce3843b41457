//! Signing in and out.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;

use super::fields::{Fields, Form, Query};
use super::shell::{Answer, Refusal, bare_page, done, wrong};
use crate::api::{Api, Problem, check_origin, cookie_of, signed_in};

/// Of an address of a page of ours.
const TARGET_BYTES_MAX: usize = 2000;

pub(super) async fn show(Query(query): Query) -> Answer {
    Ok(form(&query, None))
}

fn form(fields: &Fields, problem: Option<&Problem>) -> axum::response::Html<String> {
    let content = html! {
        h1 { "Sign in" }
        (done(fields))
        @if let Some(problem) = problem { (wrong(&problem.detail)) }
        form.stacked method="post" action="/signin" {
            input type="hidden" name="to" value=(target(fields.text("to")));
            label { "Name" input name="name" autocomplete="username" required autofocus value=(fields.text("name")); }
            label { "Password" input type="password" name="password" autocomplete="current-password" required; }
            button.main { "Sign in" }
        }
    };
    bare_page("Sign in", &content)
}

pub(super) async fn sign_in(
    State(api): State<Api>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Form(fields): Form,
) -> Result<Response, Refusal> {
    // Else somebody could be signed in as somebody else without a notice.
    check_origin(&Method::POST, &headers)?;
    let (name, password) = (fields.text("name").to_owned(), fields.secret("password"));
    match signed_in(&api, name, password, from.ip()).await {
        Ok(session) => {
            let cookie = [(header::SET_COOKIE, api.set_cookie(Some(&session)))];
            Ok((cookie, Redirect::to(target(fields.text("to")))).into_response())
        }
        Err(problem) => Ok(refused(&fields, &problem)),
    }
}

/// The form again, with the status that REST has for it.
fn refused(fields: &Fields, problem: &Problem) -> Response {
    let page = form(fields, Some(problem));
    let mut response = problem.clone().into_response();
    let headers = response.headers_mut();
    headers.remove(header::WWW_AUTHENTICATE);
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html; charset=utf-8"));
    *response.body_mut() = page.0.into();
    response
}

pub(super) async fn sign_out(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Refusal> {
    if let Some(cookie) = cookie_of(&headers) {
        check_origin(&Method::POST, &headers)?;
        api.ask(move |fleet| fleet.sign_out(&cookie)).await?;
    }
    Ok(([(header::SET_COOKIE, api.set_cookie(None))], Redirect::to("/signin?done=signed-out")).into_response())
}

/// A page of ours, or the first one: nobody is sent elsewhere.
fn target(text: &str) -> &str {
    let mut characters = text.chars();
    let is_path = characters.next() == Some('/') && !matches!(characters.next(), Some('/' | '\\'));
    if is_path && text.len() <= TARGET_BYTES_MAX && text.chars().all(|c| c.is_ascii_graphic()) { text } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for text in ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "", "/a\r\nb", "/\t/evil"] {
            assert_eq!(target(text), "/", "{text:?}");
        }
        assert_eq!(target("/devices?filter=tag%20%3D%20a"), "/devices?filter=tag%20%3D%20a");
    }
}
