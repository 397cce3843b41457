//! What a SuperNode is told where it is not given what it asks for.
//!
//! It takes a status literally: after 502, 503 and 504 it comes again for ever, after 401 it stops itself, after 403 it drops the
//! message and lives, and after any other its worker may end while its process stays. So trouble that passes is 503. Before it is
//! in, 403 would leave a process that does nothing, while 404 ends it with our reason in its log.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use thiserror::Error;

use crate::flower::incoming::ReplyError;
use crate::flower::node_auth::AuthError;
use crate::flower::objects::ObjectError;

#[derive(Debug, Error)]
pub(super) enum Refusal {
    #[error("this SuperNode is not who it says: {0}")]
    Unknown(#[from] AuthError),
    #[error("the number of the SuperNode is not that of its key")]
    Foreign,
    #[error("this SuperNode may not take part: its key is not listed")]
    NotListed,
    #[error("this SuperNode may not take part any more")]
    Revoked,
    #[error("nobody waits for this {0}")]
    NotWaited(&'static str),
    #[error("there is no such call")]
    NoCall,
    #[error("the request cannot be read")]
    Malformed,
    #[error("the object is not what its name says")]
    WrongObject,
    #[error("the reply cannot be read")]
    Reply(#[from] ReplyError),
    #[error("the request has more than {max} bytes")]
    TooLarge { max: u64 },
    #[error("{0}")]
    Busy(String),
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unknown(_) | Self::Foreign | Self::Revoked => StatusCode::UNAUTHORIZED,
            Self::NotWaited(_) => StatusCode::FORBIDDEN,
            Self::NoCall | Self::NotListed => StatusCode::NOT_FOUND,
            Self::Malformed | Self::WrongObject | Self::Reply(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<ObjectError> for Refusal {
    fn from(error: ObjectError) -> Self {
        ReplyError::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = Json(json!({ "code": status.as_u16(), "detail": super::said(&self) }));
        let mut response = (status, body).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("3"));
        }
        response
    }
}
