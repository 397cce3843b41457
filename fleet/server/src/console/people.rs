//! Users, and the API tokens of programs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Redirect;
use maud::{Markup, html};

use super::fields::{Fields, Form, Query};
use super::shell::{Answer, Place, Refusal, done, heading, page};
use super::visitor::Visitor;
use super::words;
use crate::api::{Api, Problem};
use crate::service::{self, DurationText};
use crate::store::{ApiToken, Role, User};

const ROLES: [(Role, &str); 3] =
    [(Role::Viewer, "looks"), (Role::Operator, "deploys and commands devices"), (Role::Admin, "decides who may what")];

type Moved = Result<Redirect, Refusal>;

pub(super) async fn show(State(api): State<Api>, visitor: Visitor, Query(query): Query) -> Answer {
    people_page(&api, &visitor, &done(&query)).await
}

async fn people_page(api: &Api, visitor: &Visitor, notice: &Markup) -> Answer {
    let by = visitor.by.clone();
    let (users, tokens) = api.ask(move |fleet| Ok((fleet.users(&by)?, fleet.api_tokens(&by)?))).await?;
    let content = html! {
        (heading("People and programs", &html! {}))
        (notice)
        div.columns {
            div {
                section.card { h2 { "Users" } (user_table(&users)) }
                section.card { h2 { "API tokens" } (token_table(&tokens)) }
            }
            div {
                section.card { h2 { "Add a user" } (user_form()) }
                section.card { h2 { "Make an API token" } (token_form()) }
            }
        }
    };
    Ok(page(visitor, Place::People, "People", &content))
}

fn role_choice(chosen: Role) -> Markup {
    html! {
        select name="role" aria-label="Role" {
            @for (role, meaning) in ROLES {
                option value=(role.name()) selected[role == chosen] { (role.name()) ": " (meaning) }
            }
        }
    }
}

fn role(fields: &Fields) -> Result<Role, Problem> {
    let role = ROLES.into_iter().map(|(role, _)| role).find(|role| role.name() == fields.text("role"));
    role.ok_or_else(|| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "there is no such role"))
}

fn user_table(users: &[User]) -> Markup {
    html! {
        table.collapses {
            thead { tr { th { "Name" } th { "Role" } th { "State" } th { "Since" } th { span.unseen { "Change" } } } }
            tbody {
                @for user in users {
                    tr {
                        td data-label="Name" { b { (user.name) } }
                        td data-label="Role" { (user.role.name()) }
                        td data-label="State" {
                            @if user.is_disabled { span.badge.away { "disabled" } } @else { span.badge.good { "enabled" } }
                        }
                        td data-label="Since" { (words::day(user.created_at)) }
                        td { (user_changes(user)) }
                    }
                }
            }
        }
    }
}

fn user_changes(user: &User) -> Markup {
    let action = "/people/users/change";
    let (turn, turned) = if user.is_disabled { ("enable", "Enable") } else { ("disable", "Disable") };
    let name = html! { input type="hidden" name="name" value=(user.name); };
    html! {
        details.confirm {
            summary.button.small aria-label={ "Change " (user.name) } { "Change …" }
            form.inline method="post" action=(action) {
                (name) (role_choice(user.role)) button name="change" value="role" { "Set the role" }
            }
            form.inline method="post" action=(action) {
                (name)
                input type="password" name="password" minlength="10" required autocomplete="new-password"
                    aria-label={ "New password of " (user.name) } placeholder="new password";
                button name="change" value="password" { "Set the password" }
            }
            form.inline method="post" action=(action) {
                (name)
                button name="change" value=(turn) { (turned) }
                button.danger name="change" value="remove" { "Remove " (user.name) }
            }
        }
    }
}

fn user_form() -> Markup {
    html! {
        form.stacked method="post" action="/people/users" {
            label { "Name" input name="name" required maxlength="64" autocomplete="off"; }
            label { "Role" (role_choice(Role::Viewer)) }
            label { "Password, at least 10 characters"
                input type="password" name="password" minlength="10" required autocomplete="new-password"; }
            button.main { "Add the user" }
        }
    }
}

fn token_table(tokens: &[ApiToken]) -> Markup {
    let now = service::now();
    html! {
        @if tokens.is_empty() { p.nothing { "There is none." } }
        @else {
            table.collapses {
                thead { tr { th { "Name" } th { "Role" } th { "Made" } th { "Expires" } th { "Last used" } th { span.unseen { "Remove" } } } }
                tbody {
                    @for token in tokens {
                        tr {
                            td data-label="Name" { b { (token.name) } }
                            td data-label="Role" { (token.role.name()) }
                            td data-label="Made" { (words::day(token.created_at)) }
                            td data-label="Expires" {
                                @match token.expires_at {
                                    None => { "never" }
                                    Some(at) if at <= now => { span.badge.away { "expired" } }
                                    Some(at) => { (words::ago(at)) }
                                }
                            }
                            td data-label="Last used" { @match token.last_used { None => { "never" } Some(at) => { (words::ago(at)) } } }
                            td {
                                details.confirm {
                                    summary.button.small aria-label={ "Remove " (token.name) } { "Remove …" }
                                    form method="post" action="/people/tokens/remove" {
                                        input type="hidden" name="name" value=(token.name);
                                        button.danger { "Remove " (token.name) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn token_form() -> Markup {
    html! {
        form.stacked method="post" action="/people/tokens" {
            label { "Name" input name="name" required maxlength="64" autocomplete="off"; }
            label { "Role" (role_choice(Role::Viewer)) }
            label { "Valid for; empty is for ever" input name="valid_for" placeholder="90days"; }
            button.main { "Make the token" }
        }
    }
}

/// A secret that is shown this once.
pub(super) fn told(what: &str, secret: &str) -> Markup {
    html! {
        div.notice role="status" {
            p { (what) " It is shown this once and kept nowhere." }
            label { "Token" input.secret readonly value=(secret) data-select; }
        }
    }
}

pub(super) async fn add_user(State(api): State<Api>, visitor: Visitor, Form(fields): Form) -> Moved {
    let (name, role, password) = (fields.text("name").to_owned(), role(&fields)?, fields.secret("password"));
    api.ask(move |fleet| fleet.add_user(&visitor.by, &name, role, &password)).await?;
    Ok(Redirect::to("/people?done=added"))
}

pub(super) async fn change_user(State(api): State<Api>, visitor: Visitor, Form(fields): Form) -> Moved {
    let (by, name) = (visitor.by, fields.text("name").to_owned());
    match fields.text("change") {
        "role" => {
            let role = role(&fields)?;
            api.ask(move |fleet| fleet.set_role(&by, &name, role)).await?;
        }
        "password" => {
            let password = fields.secret("password");
            api.ask(move |fleet| fleet.set_password(&by, &name, &password)).await?;
        }
        "disable" => api.ask(move |fleet| fleet.set_disabled(&by, &name, true)).await?,
        "enable" => api.ask(move |fleet| fleet.set_disabled(&by, &name, false)).await?,
        "remove" => api.ask(move |fleet| fleet.remove_user(&by, &name)).await?,
        _ => return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "there is no such change").into()),
    }
    Ok(Redirect::to("/people?done=user"))
}

pub(super) async fn add_token(State(api): State<Api>, visitor: Visitor, Form(fields): Form) -> Answer {
    let (by, name, role) = (visitor.by.clone(), fields.text("name").to_owned(), role(&fields)?);
    let valid_for = fields.some("valid_for").map(|text| DurationText::try_from(text.to_owned())).transpose();
    let expires_at = valid_for.map_err(Problem::bad_request)?.map(|valid_for| service::now() + valid_for.0);
    let secret = api.ask(move |fleet| fleet.add_api_token(&by, &name, role, expires_at)).await?;
    people_page(&api, &visitor, &told("The API token was made.", &secret)).await
}

pub(super) async fn remove_token(State(api): State<Api>, visitor: Visitor, Form(fields): Form) -> Moved {
    let name = fields.text("name").to_owned();
    api.ask(move |fleet| fleet.remove_api_token(&visitor.by, &name)).await?;
    Ok(Redirect::to("/people?done=removed"))
}
