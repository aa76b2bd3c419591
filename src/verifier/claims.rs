//! What is demanded of claims, once it is known who signed them.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;

use super::{Expected, Refusal, SharedKey, header::Parts};
use crate::domain::claims::Claims;

pub(super) fn claims<T: DeserializeOwned>(parts: &Parts<'_>) -> Result<T, Refusal> {
    let json = URL_SAFE_NO_PAD.decode(parts.payload()).map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| Refusal::Invalid("claims are missing or of the wrong type"))
}

/// The claims, once the signature is known to be made with the audience's own secret. It says nothing of others.
pub(super) fn claims_of_shared(
    parts: &Parts<'_>,
    secret: &SharedKey,
    expected: &Expected,
) -> Result<Claims, Refusal> {
    parts.require_signature(secret)?;
    let claims: Claims = claims(parts)?;
    let audience = expected.audience.as_ref().map(std::slice::from_ref);
    if audience != Some(&*claims.aud) {
        return Err(Refusal::Invalid("signed with the secret of another audience"));
    }
    Ok(claims)
}

pub(super) fn check_claims(claims: &Claims, expected: &Expected, now: DateTime<Utc>) -> Result<(), Refusal> {
    if claims.iss != expected.issuer {
        return Err(Refusal::Invalid("another issuer"));
    }
    if expected.audience.as_deref().is_some_and(|audience| !claims.is_for(audience)) {
        return Err(Refusal::Invalid("another audience"));
    }
    if claims.exp <= (now - expected.leeway).timestamp() {
        return Err(Refusal::Expired);
    }
    let latest = (now + expected.leeway).timestamp();
    if claims.nbf > latest || claims.iat > latest {
        return Err(Refusal::Invalid("not valid yet"));
    }
    Ok(())
}
