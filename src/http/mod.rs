//! HTTP beside gRPC on the same port: the well-known documents and the metrics. The same rule as for
//! `rpc`: parse, call a verb, convert.
//!
//! Must not enter: decisions about users and sessions, SQL, cryptography.

mod problem;
mod well_known;

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, header};

use crate::app::{App, Error};
use problem::Problem;

/// The documents; the rest is not there.
pub fn router(app: &Arc<App>) -> Router {
    Router::new()
        .merge(well_known::router(&app.settings.issuer))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .with_state(app.clone())
}

async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    app.observe();
    let text = app.metrics.to_text().map_err(|error| Error::Internal(error.to_string()))?;
    let text_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, text_type)], text).into_response())
}

/// The answer to every path that is no document.
async fn not_found() -> Response {
    Problem::from(Error::NotFound("page")).into_response()
}
