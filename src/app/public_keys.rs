//! Publishes the keys that tokens are checked with.

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::Jwk;
use uuid::Uuid;

use super::{App, Error};
use crate::{
    domain::{Inconsistent, session::State},
    models::{session_keys, sessions},
};

/// The issuer's keys.
#[derive(Debug)]
pub struct IssuerKeys<'a> {
    /// The keys.
    pub keys: &'a [Jwk],
    /// The same as a JWK set.
    pub json: &'a str,
    /// The revision of the trust log that this server has reached.
    pub revision: i64,
}

/// The issuer's keys, from memory.
pub fn issuer_keys(app: &App) -> IssuerKeys<'_> {
    IssuerKeys {
        keys: app.keys.published(),
        json: app.keys.json(),
        revision: app.verifier.trust().revision(),
    }
}

/// One key.
#[derive(Debug)]
pub struct FoundKey {
    /// The key.
    pub jwk: Jwk,
    /// The session that it was made for, where it is not an issuer key.
    session_id: Option<Uuid>,
}

/// The key of this id: an issuer key, or the key of a live session.
pub async fn find_key(app: &App, kid: &str) -> Result<FoundKey, Error> {
    if let Some(jwk) = app.keys.published().iter().find(|jwk| jwk.common.key_id.as_deref() == Some(kid)) {
        return Ok(FoundKey { jwk: jwk.clone(), session_id: None });
    }
    let not_found = || Error::NotFound("key");
    if !is_thumbprint(kid) {
        return Err(not_found());
    }
    let found = app.store.read(async |conn| {
        let Some((session_id, jwk)) = session_keys::find(conn, kid).await? else { return Ok(None) };
        Ok(sessions::find(conn, session_id).await?.map(|session| (session, jwk)))
    });
    let (session, jwk) = found.await?.ok_or_else(not_found)?;
    if session.state(app.now()) != State::Active {
        return Err(not_found());
    }
    let unreadable = Inconsistent { table: "session_keys", column: "public_jwk" };
    let jwk = serde_json::from_str(&jwk).map_err(|_| unreadable)?;
    Ok(FoundKey { jwk, session_id: Some(session.id) })
}

/// Who vouches for a session's key, until when; nobody needs to for an issuer key.
pub async fn endorsement(app: &App, key: &FoundKey) -> Result<Option<(String, DateTime<Utc>)>, Error> {
    let Some(session_id) = key.session_id else { return Ok(None) };
    let maker = app.maker(session_id).await?.ok_or(Error::NotFound("key"))?;
    let endorsement = app.endorsement(&maker, app.now())?;
    Ok(Some((endorsement.jwt.clone(), endorsement.expire_time)))
}

/// Whether it has the form of an RFC 7638 thumbprint with SHA-256; nothing else is worth a look into the database.
fn is_thumbprint(kid: &str) -> bool {
    kid.len() == 43 && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
