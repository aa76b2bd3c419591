//! Errors as HTTP tells them, by the table of the contract.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

use crate::app::Error;

/// An error on its way out.
pub(super) struct Problem(Error);

#[derive(Serialize)]
struct Told {
    reason: &'static str,
    message: String,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let reason = error.reason();
        let (status, message) = match &error {
            Error::Invalid(_) => (StatusCode::BAD_REQUEST, error.to_string()),
            Error::NotFound(_) => (StatusCode::NOT_FOUND, error.to_string()),
            Error::StoreUnavailable(_) => {
                tracing::error!(reason, %error, "failed");
                (StatusCode::SERVICE_UNAVAILABLE, "the database is away; try again".to_owned())
            }
            Error::CannotSign(_) => {
                tracing::error!(reason, %error, "failed");
                (StatusCode::SERVICE_UNAVAILABLE, "nothing can be signed for now; try again".to_owned())
            }
            _ => {
                tracing::error!(reason, %error, "failed");
                (StatusCode::INTERNAL_SERVER_ERROR, String::new())
            }
        };
        (status, Json(Told { reason, message })).into_response()
    }
}
