//! What all pages have in common: the frame around them, and how they refuse.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::fields::Fields;
use super::visitor::Visitor;
use crate::api::Problem;
use crate::store::Role;

/// What a page's handler gives.
pub(super) type Answer = Result<Html<String>, Refusal>;

/// Where a page is in the menu.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Devices,
    Models,
    Rollouts,
    Learning,
    Alerts,
    Audit,
    People,
    Enrolment,
    Account,
}

const MENU: [(Place, &str, &str, Role); 9] = [
    (Place::Overview, "Overview", "/", Role::Viewer),
    (Place::Devices, "Devices", "/devices", Role::Viewer),
    (Place::Models, "Models", "/models", Role::Viewer),
    (Place::Rollouts, "Rollouts", "/rollouts", Role::Viewer),
    (Place::Learning, "Learning", "/learning", Role::Viewer),
    (Place::Alerts, "Alerts", "/alerts", Role::Viewer),
    (Place::Audit, "Audit", "/audit", Role::Operator),
    (Place::People, "People", "/people", Role::Admin),
    (Place::Enrolment, "Enrolment", "/enrolment", Role::Admin),
];

/// A whole page for somebody who is signed in.
pub(super) fn page(visitor: &Visitor, place: Place, title: &str, content: &Markup) -> Html<String> {
    let body = html! {
        a.skip href="#content" { "Skip to content" }
        header.side {
            a.brand href="/" { (logo()) span { "Revoada" small { "Fleet" } } }
            nav aria-label="Main" {
                ul {
                    @for (other, name, address, role) in MENU {
                        @if visitor.may(role) {
                            li { a href=(address) aria-current=[(other == place).then_some("page")] { (name) } }
                        }
                    }
                }
            }
            div.account {
                a href="/account" aria-current=[(place == Place::Account).then_some("page")] {
                    span.who { (visitor.user) } small { (visitor.by.role.name()) }
                }
                form method="post" action="/signout" { button.quiet { "Sign out" } }
            }
        }
        main #content tabindex="-1" { (content) }
    };
    document(title, "signed-in", &body)
}

/// A page for anybody.
pub(super) fn bare_page(title: &str, content: &Markup) -> Html<String> {
    let body =
        html! { main #content.bare { a.brand href="/" { (logo()) span { "Revoada" small { "Fleet" } } } (content) } };
    document(title, "bare-page", &body)
}

fn document(title: &str, class: &str, body: &Markup) -> Html<String> {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Revoada Fleet" }
                link rel="icon" type="image/svg+xml" href=(assets::address("icon.svg"));
                link rel="stylesheet" href=(assets::address("console.css"));
                script defer src=(assets::address("console.js")) {}
            }
            body class=(class) { (body) }
        }
    };
    Html(markup.into_string())
}

fn logo() -> Markup {
    html! {
        svg viewBox="0 0 32 32" width="28" height="28" aria-hidden="true" {
            path d="M3 19c4-6 8-7 11-2 2-7 7-9 15-9-6 2-9 6-10 12-2-4-5-5-8-3-3 1-6 1-8 2z" fill="currentColor" {}
            path d="M14 26c2-3 4-3 6-1 1-3 3-4 7-4-3 1-4 3-5 5-1-1-3-1-4-1-1 1-3 1-4 1z" fill="currentColor" opacity="0.55" {}
        }
    }
}

/// The head of a page's content.
pub(super) fn heading(title: &str, actions: &Markup) -> Markup {
    html! { div.heading { h1 { (title) } div.actions { (actions) } } }
}

/// What was done, where the address says that something was. Addresses are written by anybody, so they choose a sentence and
/// do not bring one.
pub(super) fn done(query: &Fields) -> Markup {
    let said = match query.text("done") {
        "command" => "The command is on its way.",
        "tags" => "The tags were changed.",
        "builder" => "The device's part as a builder was changed.",
        "revoked" => "Every certificate of the device was revoked.",
        "removed" => "It was removed.",
        "rollout" => "The rollout has begun.",
        "intent" => "The rollout was told.",
        "run" => "The run was added.",
        "run-intent" => "The run was told.",
        "released" => "What was learned is registered as this version.",
        "rule" => "The rule was kept.",
        "user" => "The user was changed.",
        "added" => "It was added.",
        "password" => "The password was changed: sign in with the new one.",
        "signed-out" => "You are signed out.",
        _ => return html! {},
    };
    html! { p.notice role="status" { (said) } }
}

/// What was wrong with what somebody asked.
pub(super) fn wrong(detail: &str) -> Markup {
    html! { p.notice.wrong role="alert" { (detail) } }
}

/// Why a page is not shown, or something was not done.
#[derive(Debug)]
pub(super) struct Refusal(Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let content = html! {
            h1 { (self.0.title) }
            p { (self.0.detail) }
            p { a.button href="/" { "To the overview" } }
        };
        let page = bare_page(self.0.title, &content);
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Headers such as when to try again are the same as in REST.
        let mut headers = self.0.into_response().headers().clone();
        headers.remove(header::WWW_AUTHENTICATE);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        (status, headers, page).into_response()
    }
}
