//! HTTP beside gRPC on the same port: the well-known documents and the metrics. The same rule as for
//! `rpc`: parse, call a verb, convert.
//!
//! Must not enter: decisions about users and sessions, SQL, cryptography.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use jsonwebtoken::jwk::JwkSet;
use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Error, public_keys},
    domain::InvalidField,
};

/// How long a JWK set may be kept: the same as `refresh_hint` of `Keys.GetJwks`.
const JWKS_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The documents; the rest is not there.
pub fn router(app: &Arc<App>) -> Router {
    Router::new()
        .route("/.well-known/jwks.json", get(jwks))
        .route("/metrics", get(metrics))
        .with_state(app.clone())
}

#[derive(Deserialize)]
struct WhichKey {
    kid: Option<String>,
}

/// The issuer's keys, or with `?kid=` the one key of this id, as a JWK set (RFC 7517 section 5).
async fn jwks(
    State(app): State<Arc<App>>,
    which: Result<Query<WhichKey>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(which) = which.map_err(|_| Error::from(InvalidField::new("kid", "is not one key's id")))?;
    let json = match which.kid {
        None => public_keys::issuer_keys(&app).json.to_owned(),
        Some(kid) => {
            let set = JwkSet { keys: vec![public_keys::find_key(&app, &kid).await?.jwk] };
            serde_json::to_string(&set).map_err(|error| Error::Internal(error.to_string()))?
        }
    };
    let json_type = HeaderValue::from_static("application/jwk-set+json");
    Ok(([(header::CONTENT_TYPE, json_type), (header::CACHE_CONTROL, JWKS_CACHE)], json).into_response())
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    app.observe();
    let text = app.metrics.to_text().map_err(|error| Error::Internal(error.to_string()))?;
    let text_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, text_type)], text).into_response())
}

/// The answer to every path that is neither a document nor a method.
pub fn not_found() -> Response {
    Problem(Error::NotFound("page")).into_response()
}

/// An error as HTTP tells it, by the table of the contract.
struct Problem(Error);

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
            _ => {
                tracing::error!(reason, %error, "failed");
                (StatusCode::INTERNAL_SERVER_ERROR, String::new())
            }
        };
        (status, Json(Told { reason, message })).into_response()
    }
}
