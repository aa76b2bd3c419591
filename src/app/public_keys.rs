//! Publishes the keys that tokens are checked with.

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::Jwk;

use super::{App, Error};
use crate::{domain::session::State, models::sessions};

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
    /// For a session key: who vouches for it, until when.
    pub endorsement: Option<(String, DateTime<Utc>)>,
}

/// The key of this id: an issuer key, or the key of a live session.
pub async fn find_key(app: &App, kid: &str) -> Result<FoundKey, Error> {
    let not_found = Error::NotFound("key");
    if let Some(jwk) = app.keys.published().iter().find(|jwk| jwk.common.key_id.as_deref() == Some(kid)) {
        return Ok(FoundKey { jwk: jwk.clone(), endorsement: None });
    }
    // Checked before asking the database: a thumbprint is 43 characters (RFC 7638 with SHA-256).
    if kid.len() != 43 {
        return Err(not_found);
    }
    let stored = app.store.read(async |conn| sessions::find_maker_by_kid(conn, kid).await).await?;
    let now = app.now();
    let stored = stored.filter(|maker| maker.session.state(now) == State::Active).ok_or(not_found)?;
    let maker = app.open_maker(stored)?;
    let endorsement = app.endorsement(&maker, now)?;
    Ok(FoundKey {
        jwk: maker.key.jwk().clone(),
        endorsement: Some((endorsement.jwt.clone(), endorsement.expire_time)),
    })
}
