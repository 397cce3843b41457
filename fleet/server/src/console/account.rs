//! What somebody may change of themselves.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;

use super::fields::{Form, Query};
use super::shell::{Answer, Place, Refusal, done, heading, page};
use super::visitor::Visitor;
use crate::api::{Api, Problem};

pub(super) async fn show(visitor: Visitor, Query(query): Query) -> Answer {
    let content = html! {
        (heading(&visitor.user, &html! {}))
        (done(&query))
        section.card {
            h2 { "Password" }
            p.hint { "Changing it ends every session of yours, this one too." }
            form.stacked.narrow method="post" action="/account" {
                input type="hidden" name="username" autocomplete="username" value=(visitor.user);
                label { "New password, at least 10 characters"
                    input type="password" name="password" minlength="10" autocomplete="new-password" required; }
                label { "The same again" input type="password" name="again" minlength="10" autocomplete="new-password" required; }
                button.main { "Change the password" }
            }
        }
    };
    Ok(page(&visitor, Place::Account, "Your account", &content))
}

pub(super) async fn change(State(api): State<Api>, visitor: Visitor, Form(fields): Form) -> Result<Response, Refusal> {
    let password = fields.secret("password");
    if password != fields.secret("again") {
        return Err(Problem::bad_request("the two passwords differ").into());
    }
    api.ask(move |fleet| fleet.set_password(&visitor.by, &visitor.user, &password)).await?;
    Ok(([(header::SET_COOKIE, api.set_cookie(None))], Redirect::to("/signin?done=password")).into_response())
}
