//! The well-known documents: the issuer's keys, and where they are found.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::get,
};
use headers::{CacheControl, ContentType, ETag, HeaderMapExt, IfNoneMatch};
use http::{HeaderMap, StatusCode, Uri};
use jsonwebtoken::jwk::JwkSet;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::{
    app::{App, Error, public_keys},
    domain::InvalidField,
};

const JWKS: &str = "/.well-known/jwks.json";
/// RFC 8414 section 3.
const OAUTH: &str = "/.well-known/oauth-authorization-server";
/// OpenID Connect Discovery 1.0 section 4.
const OPENID: &str = "/.well-known/openid-configuration";
/// How long the one key of a session may be kept: it never changes, but its session may end.
const SESSION_KEY: Duration = Duration::from_secs(300);

/// The documents at the root, and where the issuer's URL has a path also where its standard puts them then:
/// RFC 8414 between host and path, OpenID Connect behind the path.
pub(super) fn router(issuer: &str) -> Router<Arc<App>> {
    let router =
        Router::new().route(JWKS, get(jwks)).route(OAUTH, get(metadata)).route(OPENID, get(metadata));
    let path = issuer.parse::<Uri>().map(|uri| uri.path().trim_end_matches('/').to_owned());
    match path.ok().filter(|path| !path.is_empty() && !path.contains(['{', '}'])) {
        None => router,
        Some(path) => router
            .route(&format!("{path}{JWKS}"), get(jwks))
            .route(&format!("{OAUTH}{path}"), get(metadata))
            .route(&format!("{path}{OPENID}"), get(metadata)),
    }
}

#[derive(Deserialize)]
struct WhichKey {
    kid: Option<String>,
}

/// The issuer's keys, or with `?kid=` the one key of this id, as a JWK set (RFC 7517 section 5).
async fn jwks(
    State(app): State<Arc<App>>,
    which: Result<Query<WhichKey>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(which) = which.map_err(|_| Error::from(InvalidField::new("kid", "is not one key's id")))?;
    let Some(kid) = which.kid else {
        return Ok(issuer_keys(&app, headers.typed_get::<IfNoneMatch>().as_ref()));
    };
    let set = JwkSet { keys: vec![public_keys::find_key(&app, &kid).await?.jwk] };
    let json = serde_json::to_string(&set).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(cached(json_response(json), SESSION_KEY))
}

fn issuer_keys(app: &App, if_none_match: Option<&IfNoneMatch>) -> Response {
    let found = public_keys::issuer_keys(app);
    // A fingerprint is always a tag.
    let etag = format!("\"{}\"", found.ring.etag()).parse::<ETag>().ok();
    let is_known =
        etag.as_ref().zip(if_none_match).is_some_and(|(etag, known)| !known.precondition_passes(etag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        json_response(found.ring.json().to_owned())
    };
    if let Some(etag) = etag {
        response.headers_mut().typed_insert(etag);
    }
    cached(response, found.refresh_hint)
}

fn json_response(json: String) -> Response {
    let mut response = json.into_response();
    let json_type = "application/jwk-set+json".parse().unwrap_or_else(|_| ContentType::json());
    response.headers_mut().typed_insert(json_type);
    response
}

fn cached(mut response: Response, max_age: Duration) -> Response {
    response.headers_mut().typed_insert(CacheControl::new().with_public().with_max_age(max_age));
    response
}

/// What this service is and offers (RFC 8414 section 2), and nothing that it does not: there is no authorization
/// endpoint, no grant over HTTP, no ID token. The empty lists say so; left out, they would mean what most have.
#[derive(Serialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
    response_types_supported: [&'static str; 0],
    grant_types_supported: [&'static str; 0],
}

async fn metadata(State(app): State<Arc<App>>) -> Response {
    let issuer = app.settings.issuer.clone();
    let jwks_uri = format!("{}{JWKS}", issuer.trim_end_matches('/'));
    let metadata = Metadata { issuer, jwks_uri, response_types_supported: [], grant_types_supported: [] };
    cached(Json(metadata).into_response(), Duration::from_secs(3600))
}
