//! What a form or an address says: names and texts, as they were typed.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use url::form_urlencoded;

use super::shell::Refusal;
use crate::api::{Api, Problem};

/// A page with more of them is none of ours.
const FIELDS_MAX: usize = 512;

/// In their order; a name may come again.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

/// The fields of a form that was sent.
pub(super) struct Form(pub(super) Fields);

/// The fields of the address.
pub(super) struct Query(pub(super) Fields);

impl Fields {
    fn parse(bytes: &[u8]) -> Self {
        Self(form_urlencoded::parse(bytes).into_owned().take(FIELDS_MAX).collect())
    }

    /// Without space around it; empty where it is not there.
    pub(super) fn text(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// `None` where nothing is said.
    pub(super) fn some(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, text)| text.trim())
    }

    /// As it was typed: spaces belong to a password.
    pub(super) fn secret(&self, name: &str) -> String {
        self.0.iter().find(|(known, _)| known == name).map(|(_, text)| text.clone()).unwrap_or_default()
    }

    /// What is said, read as what it is to be. `None` where nothing is.
    pub(super) fn read<T: std::str::FromStr>(&self, name: &'static str) -> Result<Option<T>, Problem> {
        let wrong = |_| {
            let shown: String = self.text(name).chars().take(64).collect();
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("`{shown}` is no `{name}`"))
        };
        self.some(name).map(|text| text.parse().map_err(wrong)).transpose()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromRequest<Api> for Form {
    type Rejection = Refusal;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refusal> {
        let body = Bytes::from_request(request, api).await;
        let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
        Ok(Self(Fields::parse(&body)))
    }
}

impl FromRequestParts<Api> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Self::Rejection> {
        Ok(Self(Fields::parse(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}
